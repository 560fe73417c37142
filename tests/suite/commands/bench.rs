//! `scripts/bench` on the miniature kernel measures both sides and writes the results.

use crate::support::context::{TestContext, has_tool, run_result, skipped};
use camino::Utf8Path;
use std::fs;
use std::process::Command;

#[test]
fn bench_reports_both_sides_and_their_ratio() {
    if !has_tool("umoci") || !has_tool("make") {
        return;
    }
    let context = TestContext::new();
    let tarball = context.tarball("6.1.7", "xz");
    let mut bench = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"));
    bench.args(["cold", "--pairs", "1", "--kcompile", env!("CARGO_BIN_EXE_kcompile")]);
    bench.arg("--source").arg(tarball).arg("--config").arg(context.path("work/mini.config"));
    bench.arg("--work").arg(context.path("bench"));
    bench.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", context.path("home"));
    let table = run_result(bench.output().unwrap()).ok().stdout;
    assert!(table.starts_with("cold: Linux 6.1.7, fc, mini.config config, "), "{table}");
    let json = fs::read(context.path("bench/cold.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for figure in ["seconds", "cpu_seconds"] {
        let number = |key: &str| json[figure][key].as_f64().unwrap();
        let (ours, theirs, ratio) = (number("ours"), number("theirs"), number("ratio"));
        assert!(ours > 0.0 && theirs > 0.0 && (ratio - ours / theirs).abs() < 0.05 * ratio, "{json}");
    }
    assert!(json["peak_memory_bytes"].as_u64().unwrap() > 1_000_000, "{json}");
    assert_eq!(json["pairs"].as_array().unwrap().len(), 1);
}

/// The other side is the same program at its default level.
#[test]
fn bench_reports_time_and_size_of_each_gzip_level() {
    let pack = Utf8Path::new(env!("CARGO_BIN_EXE_kcompile")).with_file_name("examples").join("pack");
    if !pack.exists() {
        return skipped("the example `pack` is not built: cargo build --example pack");
    }
    let context = TestContext::new();
    let packed = context.path("bench/packed");
    fs::create_dir_all(packed.join("modules/6.1.7")).unwrap();
    let text = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    for name in ["vmlinux.bin", "modules/6.1.7/x.ko"] {
        fs::write(packed.join(name), &text).unwrap();
    }
    fs::write(packed.join("whole"), "linux-image-6.1.7\n").unwrap();
    let mut bench = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"));
    bench.args(["levels", "--pairs", "1", "--kcompile"]).arg(&pack).arg("--against").arg(&pack);
    bench.arg("--work").arg(context.path("bench"));
    bench.env_clear().env("PATH", std::env::var("PATH").unwrap());
    let table = run_result(bench.output().unwrap()).ok().stdout;
    assert_eq!(table.matches("linux-image-6.1.7 at level ").count(), 9, "{table}");
    let size = |level: usize| {
        let json = fs::read(context.path(&format!("bench/levels-{level}.json"))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        json["megabytes"]["ratio"].as_f64().unwrap()
    };
    assert!(size(1) > 1.0 && size(6) < 1.0, "{table}");
    assert_eq!(size(2), 1.0, "{table}");
}

#[test]
fn bench_prints_its_usage_for_unknown_arguments() {
    let mut bench = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench"));
    run_result(bench.arg("nothing").output().unwrap()).failed(2, &["scripts/bench WHAT"]);
}
