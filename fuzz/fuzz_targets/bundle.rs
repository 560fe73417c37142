//! The reader of bundles: whatever the bytes, nothing is written outside the cache.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_source::bundle(bytes));
