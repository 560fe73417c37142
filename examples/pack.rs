//! Packs a kernel file and a tree of modules that lie there, as a build would: for `scripts/bench pack`.
//!
//! `pack KERNEL MODULES OUTPUT THREADS`: KERNEL becomes `bin/vmlinux.bin` of one image, what is in the directory
//! MODULES `lib/modules/…` of another.

use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::{Compression, Entries, Entry, Named, prepare};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<Utf8PathBuf> = std::env::args().skip(1).map(Utf8PathBuf::from).collect();
    let [kernel, modules, output, threads] = &args[..] else {
        return Err("pack KERNEL MODULES OUTPUT THREADS".into());
    };
    std::fs::create_dir_all(output)?;
    let kernel = Entry::File { from: kernel.clone(), executable: false };
    let kernel = Entries::from([("bin".into(), Entry::Dir), ("bin/vmlinux.bin".into(), kernel)]);
    pack("kernel-bin", &kernel, output, threads)?;
    pack("kernel-modules", &walk(modules)?, output, threads)?;
    eprintln!("\"peak_memory_bytes\":{}", kcompile::internals::peak_memory().unwrap_or_default());
    Ok(())
}

fn pack(layout: &str, entries: &Entries, output: &Utf8Path, threads: &Utf8Path) -> Result<()> {
    let annotations = BTreeMap::new();
    let named = Named { layout, tag: "x", compression: Compression::Gzip, annotations: &annotations };
    prepare(output, named, "amd64", entries, 0, threads.as_str().parse()?)?.publish()?;
    Ok(())
}

/// The entries of an image with the content of `modules` as its `lib/modules`.
fn walk(modules: &Utf8Path) -> Result<Entries> {
    let mut entries = Entries::from([("lib".into(), Entry::Dir), ("lib/modules".into(), Entry::Dir)]);
    for found in walkdir::WalkDir::new(modules).min_depth(1) {
        let found = found?;
        let from = Utf8Path::from_path(found.path()).ok_or("a name that is not UTF-8")?;
        let path = format!("lib/modules/{}", from.strip_prefix(modules)?);
        let entry = match found.file_type().is_dir() {
            true => Entry::Dir,
            false => Entry::File { from: from.to_owned(), executable: false },
        };
        entries.insert(path, entry);
    }
    Ok(entries)
}
