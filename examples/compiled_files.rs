//! Lists the files that a build directory compiled, for `scripts/bench compiled`.
//!
//! `compiled_files TREE BUILD ARCH` prints the numbers of files, of components and of bytes, and the time that
//! it took. With `--list` it prints the files and what they are in.

use camino::Utf8PathBuf;
use kcompile::internals::{Arch, BuiltTree, Config, list_compiled_files};
use std::fs;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tree, build, arch, more @ ..] = &args[..] else {
        return Err("compiled_files TREE BUILD ARCH".into());
    };
    let (tree, build) =
        (Utf8PathBuf::from(tree).canonicalize_utf8()?, Utf8PathBuf::from(build).canonicalize_utf8()?);
    let config = Config::parse(&fs::read_to_string(build.join(".config"))?);
    let srcarch = arch.parse::<Arch>()?.spec().srcarch;
    let began = Instant::now();
    let has_modules = config.value("MODULES") == "y";
    let listing = list_compiled_files(&BuiltTree {
        build: &build,
        tree: &tree,
        srcarch,
        config: &config,
        has_modules,
    })?;
    let seconds = began.elapsed().as_secs_f64();
    if more.first().is_some_and(|word| word == "--list") {
        for file in &listing.files {
            let set = &listing.component_sets[file.components as usize];
            let names: Vec<&str> = set.iter().map(|one| listing.components[*one as usize].as_str()).collect();
            println!("{}\t{}\t{}", file.path, file.option.as_deref().unwrap_or("-"), names.join(" "));
        }
        return Ok(());
    }
    let sources = listing.files.iter().filter(|file| file.path.ends_with(".c")).count();
    let names: usize = listing.tree.values().map(Vec::len).sum();
    println!(
        "{} files, {sources} of them .c, {} components, {names} names in the tree, {seconds:.2} s",
        listing.files.len(),
        listing.components.len(),
    );
    Ok(())
}
