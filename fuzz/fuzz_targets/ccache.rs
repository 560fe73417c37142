//! Checks arbitrary entries of a compiler cache. An accepted path stays inside the cache.
#![no_main]

use kcompile::internals::ccache_image::{check, is_entry};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (path, content) = bytes.split_at(bytes.len().min(38));
    let Ok(path) = std::str::from_utf8(path) else { return };
    if is_entry(path) {
        assert!(!path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | "..")));
    }
    let _ = check(path, content);
});
