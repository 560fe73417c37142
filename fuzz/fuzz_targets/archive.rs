//! The readers of archives: whatever the bytes, they end in a tree inside its directory or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_source::archive(bytes));
