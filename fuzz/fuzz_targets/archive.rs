//! Unpacks arbitrary bytes as an archive. The result is a tree inside its directory, or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_source::archive(bytes));
