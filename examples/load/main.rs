//! Loads kernel files as Firecracker and Cloud Hypervisor do, for `scripts/real-kernel`.
//!
//! `load [--pvh] KERNEL...` prints a line for each. With `--pvh`, a kernel without a PVH entry is an error, as for
//! Cloud Hypervisor.

mod loader;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let requires_pvh = args.first().is_some_and(|arg| arg == "--pvh");
    let kernels = &args[usize::from(requires_pvh)..];
    let mut code = ExitCode::from(if kernels.is_empty() { 2 } else { 0 });
    for kernel in kernels {
        match loader::load(Path::new(kernel)) {
            #[cfg(target_arch = "x86_64")]
            Ok(loader::Loaded::Elf { pvh: None, .. }) if requires_pvh => {
                eprintln!("{kernel}: no PVH entry, which Cloud Hypervisor requires");
                code = ExitCode::FAILURE;
            }
            Ok(loaded) => println!("{kernel}: {loaded}"),
            Err(error) => {
                eprintln!("{kernel}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
