//! `scripts/bench` on the miniature kernel: that it measures both sides and writes what it found.

use crate::world::{World, have, ran};
use std::fs;
use std::process::Command;

#[test]
fn a_pair_has_two_sides_and_a_ratio() {
    if !have("umoci") || !have("make") {
        return;
    }
    let world = World::new();
    let tarball = world.tarball("6.1.7", "xz");
    let mut bench = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"));
    bench.args(["cold", "--pairs", "1", "--kcompile", env!("CARGO_BIN_EXE_kcompile")]);
    bench.arg("--source").arg(tarball).arg("--config").arg(world.path("work/mini.config"));
    bench.arg("--work").arg(world.path("bench"));
    bench.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", world.path("home"));
    let table = ran(bench.output().unwrap()).ok().stdout;
    assert!(table.starts_with("cold: Linux 6.1.7, fc, mini.config config, "), "{table}");
    let json = fs::read(world.path("bench/cold.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for figure in ["seconds", "cpu_seconds"] {
        let number = |key: &str| json[figure][key].as_f64().unwrap();
        let (ours, theirs, ratio) = (number("ours"), number("theirs"), number("ratio"));
        assert!(ours > 0.0 && theirs > 0.0 && (ratio - ours / theirs).abs() < 0.05 * ratio, "{json}");
    }
    assert!(json["peak_memory_bytes"].as_u64().unwrap() > 1_000_000, "{json}");
    assert_eq!(json["pairs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_wrong_word_is_told_how_it_is_used() {
    let mut bench = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"));
    ran(bench.arg("nothing").output().unwrap()).failed(2, &["scripts/bench WHAT"]);
}
