//! Layouts that anybody may have made, given to inspect, verify and diff: whatever the bytes, they are told or
//! refused, and nothing is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcompile::internals::fuzz_layout::examine(bytes));
