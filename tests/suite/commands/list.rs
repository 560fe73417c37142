//! `list` shows the catalog, and every entry can be planned.

use crate::support::context::TestContext;
use serde_json::{Value, json};
use std::fs;

fn listed(context: &TestContext, args: &str) -> Value {
    serde_json::from_str(&context.run(&format!("list --json {args}")).ok().stdout).unwrap()
}

fn kernel<'a>(listed: &'a Value, version: &str, flavor: &str) -> &'a Value {
    let kernels = listed["items"].as_array().unwrap();
    kernels.iter().find(|one| one["version"] == version && one["flavor"] == flavor).unwrap()
}

#[test]
fn the_table_fits_a_terminal_and_has_reasons() {
    let table = TestContext::new().run("list").ok().stdout;
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for line in [
        "Firecracker (--fc)",
        "  2  kubeadm warns about other kernels",
        "  5* cgroup v2. The kubelet does not start on v1 from 1.35 on, unless",
        "meet a requirement (*). Its options are open: the version's Kconfig may drop any",
    ] {
        assert!(table.lines().any(|have| have.starts_with(line)), "`{line}` is not in:\n{table}");
    }
    for (version, rest) in [
        ("4.19.215", "kernel.org yes 4.19 2024-12-05! below 2-10"),
        ("5.12", "ch-5.12 - 5.12 2021-07-20! limited 2,8-10"),
    ] {
        let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = cells.into_iter().find(|cells| cells.first() == Some(&version)).unwrap();
        // The third column is the status, which changes as kernels are built.
        assert_eq!(row[3..].join(" "), rest);
    }
}

#[test]
fn the_newest_kernels_come_first_and_ended_series_are_marked() {
    let context = TestContext::new();
    let rows = |args: &str| -> Vec<(String, String)> {
        let table = context.run(&format!("list {args}")).ok().stdout;
        let rows = table.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        rows.map(|row| {
            let words: Vec<&str> = row.split_whitespace().collect();
            (words[0].to_owned(), words[6].to_owned())
        })
        .collect()
    };
    let version =
        |text: &str| text.split('.').map(|number| number.parse::<u32>().unwrap()).collect::<Vec<_>>();
    for flavor in ["--fc", "--ch"] {
        let listed = rows(flavor);
        assert!(listed.len() > 3, "{listed:?}");
        assert!(listed.windows(2).all(|pair| version(&pair[0].0) >= version(&pair[1].0)), "{listed:?}");
    }
    let ended = rows("4.19 --fc");
    assert!(
        !ended.is_empty()
            && ended.iter().all(|(version, end)| version.starts_with("4.19") && end == "2024-12-05!")
    );
    assert!(context.run("list").ok().stdout.contains("\n! the series has ended"));
    assert!(!context.run("list --fc").ok().stdout.contains("Cloud Hypervisor (--ch)"));
    // A version has the entry of its series.
    assert!(rows("6.1.100 --fc").iter().all(|(version, _)| version == "6.1"));
    assert!(
        listed(&context, "6.1 --fc")["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|kernel| kernel["version"] == "6.1")
    );
    context.run("list 9.9").failed(2, &["the catalog has no Linux 9.9", "kcompile list"]);
    context.run("list sixpointone").failed(2, &["not a kernel version"]);
}

#[test]
fn minimal_kernels_have_a_table_of_their_own() {
    let context = TestContext::new();
    let (node, minimal) = ("Firecracker (--fc)\n", "Firecracker, minimal (--fc --variant minimal)\n");
    let table = context.run("list").ok().stdout;
    assert!(table.contains(node) && !table.contains(minimal), "{table}");
    assert!(table.contains("`kcompile list --variant minimal` lists"), "{table}");
    let table = context.run("list --variant minimal").ok().stdout;
    assert!(!table.contains(node) && table.contains(minimal), "{table}");
    assert!(!table.contains("KUBERNETES by"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let table = context.run("list --variant all").ok().stdout;
    assert!(table.contains(node) && table.contains(minimal), "{table}");
    let listed = listed(&context, "6.18");
    let kernel = kernel(&listed, "6.18", "firecracker");
    let config = "configs/firecracker/linux-x86_64-6.18-minimal.config";
    assert_eq!(kernel["minimal"]["configs"]["amd64"], config);
}

#[test]
fn the_catalog_as_json_is_complete() {
    let listed = listed(&TestContext::new(), "");
    for (flavor, versions) in [
        ("firecracker", &["4.19.215", "5.2.21", "5.10.77", "6.1", "6.6", "6.12", "6.18"][..]),
        ("cloud-hypervisor", &["5.12", "5.15.12", "6.2", "6.6", "6.12.8", "6.16.9", "6.18"]),
    ] {
        for version in versions {
            let kernel = kernel(&listed, version, flavor);
            assert!(kernel["arch"].as_array().unwrap().iter().any(|arch| arch == "amd64"), "{kernel}");
            assert!(kernel["configs"]["amd64"].is_string() && kernel["end_of_life"].is_string(), "{kernel}");
        }
    }
    // The stable series have a config of their own, and no known end.
    for (flavor, version) in [("firecracker", "7.2"), ("cloud-hypervisor", "7.3")] {
        let kernel = kernel(&listed, version, flavor);
        let config = format!("configs/{flavor}/linux-x86_64-{version}.config");
        assert_eq!((&kernel["configs"]["amd64"], &kernel["end_of_life"]), (&json!(config), &Value::Null));
    }
    for (version, flavor, source) in [
        ("4.19.215", "firecracker", Value::Null),
        ("5.2.21", "firecracker", Value::Null),
        ("5.10.77", "firecracker", Value::Null),
        ("5.12", "cloud-hypervisor", json!("kernel.org")),
        ("5.15.12", "cloud-hypervisor", json!("kernel.org")),
    ] {
        let kernel = kernel(&listed, version, flavor);
        assert_eq!(
            (&kernel["status"], &kernel["supported_source"]),
            (&json!("supported"), &source),
            "{kernel}"
        );
    }
    let old = kernel(&listed, "4.19.215", "firecracker");
    assert_eq!(old["sha256"], "sha256:9e2064f9cb942999a76737d510f08a85bcd8164e9762ce0f7dbfeac58bc2f2b3");
    assert_eq!((&old["source"], &old["end_of_life"]), (&json!("kernel.org"), &json!("2024-12-05")));
    assert_eq!(old["kubernetes"]["verdict"], "below-minimum");
    // The version's Kconfig may drop any option until the kernel is configured, as `check` says.
    let kernels = listed["items"].as_array().unwrap();
    assert!(kernels.iter().all(|kernel| kernel["kubernetes"]["options"] == "open"));
    let reasons = old["kubernetes"]["reasons"].to_string();
    assert!(reasons.contains("cgroup v2") && reasons.contains("pressure stall") && reasons.contains(">=5.8"));
    let branch = kernel(&listed, "6.16.9", "cloud-hypervisor");
    assert_eq!((&branch["source"], &branch["arch"]), (&json!("git#ch-6.16.9"), &json!(["amd64", "arm64"])));
    assert_eq!(branch["configs"]["arm64"], "configs/cloud-hypervisor/linux-arm64-6.12.config");
    assert_eq!(kernel(&listed, "6.12", "firecracker")["kubernetes"]["verdict"], "full");
    let fragment = &listed["fragments"][0];
    assert!(fragment["name"].is_string() && !fragment["description"].as_str().unwrap().is_empty());
}

#[test]
fn every_kernel_of_the_catalog_can_be_planned() {
    let context = TestContext::new();
    for kernel in listed(&context, "")["items"].as_array().unwrap() {
        let word = |key: &str| kernel[key].as_str().unwrap();
        for arch in kernel["arch"].as_array().unwrap() {
            let arch = arch.as_str().unwrap();
            let args = format!("plan {} --flavor {} --arch {arch} --json", word("version"), word("flavor"));
            let plan = context.run(&args).ok().item();
            assert_eq!(plan["config"][0], kernel["configs"][arch], "{args}");
        }
    }
}

#[test]
fn user_catalog_entries_are_listed_with_their_note() {
    let context = TestContext::new();
    fs::create_dir(context.path("work/own")).unwrap();
    let entry = "[[kernel]]\nversion = \"6.5.60\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \
                 \"untested\"\nsource = \"git+https://example.org/linux.git#mine\"\nnote = \"ours\"\n";
    fs::write(context.path("work/own/kernels.toml"), entry).unwrap();
    let table = context.run("list --configs own").ok().stdout;
    let lines: Vec<&str> = table.lines().skip_while(|line| !line.starts_with("6.5.60")).take(2).collect();
    assert_eq!(lines[0], "6.5.60    amd64  untested   git+https…  -    6.1     -            full");
    assert_eq!(lines[1], "          ours");
}
