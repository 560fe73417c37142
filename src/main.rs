//! Runs the command line.

fn main() -> std::process::ExitCode {
    kcompile::main()
}
