//! Summarizes arbitrary bytes as the output of make.
#![no_main]

use kcompile::internals::LogSummary;
use std::time::SystemTime;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut summary = LogSummary::default();
    let mut lines = 0;
    for line in String::from_utf8_lossy(bytes).lines() {
        summary.add_line(line, SystemTime::UNIX_EPOCH);
        lines += 1;
    }
    assert!(summary.steps + summary.warnings <= lines);
});
