//! Packs an existing kernel file and a directory of modules like a build, for `scripts/bench pack`.
//!
//! `pack KERNEL MODULES OUTPUT THREADS [LEVEL]` packs KERNEL as `bin/vmlinux.bin` of one image, and the
//! content of MODULES as `lib/modules/…` of another. LEVEL is a gzip level from 1 to 9. The default is that
//! of a build.

use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::{Compression, Encoder, Entries, Entry, ImageSpec, prepare};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "pack KERNEL MODULES OUTPUT THREADS [LEVEL]";

fn main() -> Result<()> {
    let args: Vec<Utf8PathBuf> = std::env::args().skip(1).map(Utf8PathBuf::from).collect();
    let [kernel, modules, output, threads, level @ ..] = &args[..] else { return Err(USAGE.into()) };
    let threads = threads.as_str().parse()?;
    let encoder = match level {
        [] => Compression::Gzip.into(),
        [level] => Encoder::Gzip { level: level.as_str().parse()? },
        _ => return Err(USAGE.into()),
    };
    let pack = |layout: &str, entries: &Entries| -> Result<()> {
        let spec = ImageSpec { layout, tag: "x", encoder, annotations: &BTreeMap::new() };
        prepare(output, spec, "amd64", entries, 0, threads)?.publish()?;
        Ok(())
    };
    std::fs::create_dir_all(output)?;
    let kernel = Entry::File { from: kernel.clone(), executable: false };
    let kernel = Entries::from([("bin".into(), Entry::Dir), ("bin/vmlinux.bin".into(), kernel)]);
    pack("kernel-bin", &kernel)?;
    pack("kernel-modules", &walk(modules)?)?;
    eprintln!("\"peak_memory_bytes\":{}", kcompile::internals::peak_memory().unwrap_or_default());
    Ok(())
}

/// Returns the entries of an image with the content of `modules` in `lib/modules`.
fn walk(modules: &Utf8Path) -> Result<Entries> {
    let mut entries = Entries::from([("lib".into(), Entry::Dir), ("lib/modules".into(), Entry::Dir)]);
    for found in walkdir::WalkDir::new(modules).min_depth(1) {
        let found = found?;
        let from = Utf8Path::from_path(found.path()).ok_or("a file name is not UTF-8")?;
        let path = format!("lib/modules/{}", from.strip_prefix(modules)?);
        let entry = if found.file_type().is_dir() {
            Entry::Dir
        } else {
            Entry::File { from: from.to_owned(), executable: false }
        };
        entries.insert(path, entry);
    }
    Ok(entries)
}
