//! The table of kernels in docs/reference/kernels.md, and the script that makes it.

use crate::support::context::{TestContext, skipped};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_table_has_the_kernels_that_the_catalog_supports() {
    let listed: Value = serde_json::from_str(&TestContext::new().run("list --json").ok().stdout).unwrap();
    assert_table("Built and booted", &listed, "/status", "");
    assert_table("Minimal kernels", &listed, "/minimal/status", ", minimal");
}

/// Checks that the section of the page has a row for each kernel that is supported by its `status`.
fn assert_table(heading: &str, listed: &Value, status: &str, suffix: &str) {
    let page = fs::read_to_string(format!("{ROOT}/docs/reference/kernels.md")).unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let is_kernel = |cell: &&str| cell.contains(", ") && cell.ends_with(suffix);
    let mut rows: Vec<&str> = cells.filter(is_kernel).collect();
    rows.sort_unstable();
    let mut supported = Vec::new();
    for kernel in listed["items"].as_array().unwrap() {
        let word = |key: &str| kernel[key].as_str().unwrap();
        let is_supported = kernel.pointer(status).unwrap() == "supported";
        for arch in kernel["arch"].as_array().unwrap().iter().filter(|_| is_supported) {
            let machine = if arch == "amd64" { "x86-64" } else { arch.as_str().unwrap() };
            supported.push(format!("{}, {machine}, {}{suffix}", word("flavor"), word("version")));
        }
    }
    supported.sort_unstable();
    assert_eq!(rows, supported);
}

#[test]
fn the_script_makes_a_row_of_a_build_and_its_boot() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.run("6.1.7 --fc --source linux --config mini.config --cc gcc -o results/6.1.7").ok();
    fs::write(context.path("work/results/6.1.7.time"), "520.4 99.5 400.0\n").unwrap();
    let mut boot = json!({
        "release": "6.1.7",
        "passed": true,
        "failures": ["nftables: no"],
        "modules": { "total": 4, "loaded": 3 },
        "seconds_to_init": 1.26,
    });
    let mut table = |key: &str, value: Value| {
        boot[key] = value;
        fs::write(context.path("work/results/6.1.7.boot.json"), boot.to_string()).unwrap();
        let script = Command::new("python3")
            .args([format!("{ROOT}/scripts/kernel-table"), context.path("work/results").to_string()])
            .env("KCOMPILE", env!("CARGO_BIN_EXE_kcompile"))
            .output();
        script.ok().map(|output| {
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
        })
    };
    let Some(text) = table("passed", json!(true)) else {
        return skipped("python3 is not installed");
    };
    let row: Vec<&str> = text.lines().last().unwrap().trim_matches(['|', ' ']).split(" | ").collect();
    assert_eq!(row[..2], ["firecracker, x86-64, 6.1", "6.1.7"], "{text}");
    assert!(row[2].starts_with("gcc ") && row[5].ends_with(" MB"), "{text}");
    assert_eq!((row[3], row[4]), ("0", "520 s + 100 s"), "{text}");
    assert!(row[6].starts_with("4, ") && row[6].ends_with(" MB"), "{text}");
    assert_eq!(row[7..], ["3 of 4", "1.3 s"], "{text}");
    // A minimal kernel has no modules.
    fs::remove_dir_all(context.path("work/results/6.1.7")).unwrap();
    let minimal = "--variant minimal --require none -o results/6.1.7";
    context.run(&format!("6.1.7 --fc --source linux --config mini.config {minimal}")).ok();
    let text = table("modules", json!({ "total": 0, "loaded": 0 })).unwrap();
    let row: Vec<&str> = text.lines().last().unwrap().trim_matches(['|', ' ']).split(" | ").collect();
    assert_eq!(row[0], "firecracker, x86-64, 6.1, minimal", "{text}");
    assert_eq!(row[6..], ["none", "", "1.3 s"], "{text}");
    // A build with a compiler cache has no CPU time.
    fs::remove_file(context.path("work/results/6.1.7.time")).unwrap();
    let text = table("passed", json!(true)).unwrap();
    assert!(text.lines().last().unwrap().contains(" | 0 |  | "), "{text}");
    let text = table("passed", json!(false)).unwrap();
    assert!(text.ends_with("6.1.7.boot.json: the boot failed: nftables: no\n"), "{text}");
    // The boot of another kernel is not this kernel's.
    let text = table("release", json!("6.1.8")).unwrap();
    assert!(text.contains("6.1.7.boot.json is of 6.1.8, the build of 6.1.7"), "{text}");
}
