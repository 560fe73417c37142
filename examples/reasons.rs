//! Explains what `olddefconfig` changed, for `scripts/reasons`.
//!
//! `reasons TREE VERSION ARCH (REQUESTED FINAL)…` prints one line of JSON for each pair of configs, with their
//! differences and the reasons. `reasons TREE ARCH` prints each symbol of the tree and whether it has a prompt.

use camino::Utf8PathBuf;
use kcompile::internals::{
    Arch, Config, ConfigLibrary, Kernel, Renames, differences, explain, merge, symbols,
};
use std::fs;

const USAGE: &str = "reasons TREE VERSION ARCH (REQUESTED FINAL)…, or reasons TREE ARCH";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [tree, arch] = &args[..] {
        let all = symbols(&Utf8PathBuf::from(tree), arch.parse()?)?;
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    let [tree, version, arch, pairs @ ..] = &args[..] else { return Err(USAGE.into()) };
    let (tree, arch): (Utf8PathBuf, Arch) = (tree.into(), arch.parse()?);
    let renames = Renames::read(&ConfigLibrary::built_in())?;
    let kernel = Kernel { tree: &tree, arch, version: Some(version.parse()?), renames: &renames };
    for pair in pairs.chunks_exact(2) {
        let read = |path: &String| fs::read_to_string(path).map(|text| Config::parse(&text));
        let (requested, result) = (read(&pair[0])?, read(&pair[1])?);
        let found = differences(&merge([&requested]), &result);
        println!("{}", serde_json::to_string(&explain(&found, &result, &kernel, |_| false)?)?);
    }
    Ok(())
}
