//! Reads arbitrary bytes as a bundle. Nothing is written outside the cache.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_source::bundle(bytes));
