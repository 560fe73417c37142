//! Parses a `.config` and, after a NUL, a Kconfig file, and explains the differences between them. A rendered
//! config parses as the same config.
#![no_main]

use camino::Utf8Path;
use kcompile::internals::{Arch, Config, Kernel, ConfigLibrary, Renames, differences, extract_config, explain, merge, render, symbols};
use std::sync::OnceLock;

static RENAMES: OnceLock<Renames> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = extract_config(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, kconfig) = text.split_once('\0').unwrap_or((text, text));
    let config = Config::parse(text);
    let requested = merge([&config]);
    let again = Config::parse(&render(&requested));
    assert_eq!(render(&merge([&again])), render(&requested));
    assert!(differences(&requested, &again).is_empty());

    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = Utf8Path::from_path(dir.path()).expect("UTF-8");
    std::fs::write(tree.join("Kconfig"), kconfig).expect("it is writable");
    let renames = RENAMES.get_or_init(|| Renames::read(&ConfigLibrary::built_in()).expect("the built-in catalog"));
    let _ = symbols(tree, Arch::Amd64);
    let kernel = Kernel { tree, arch: Arch::Amd64, version: None, renames };
    let lost = differences(&requested, &Config::parse(""));
    let _ = explain(&lost, &Config::parse(""), &kernel, |_| false);
});
