//! Runs inspect, verify and diff on an arbitrary layout. They report or refuse it, and write nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_layout::examine(bytes));
