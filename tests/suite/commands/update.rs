//! `kcompile update` asks a mirror for newer releases, and moves entries of the user's catalog to them.

use crate::support::context::{
    CONFIG, RunResult, TestContext, compress, has_tool, run_result, sha256, tar_of,
};
use crate::support::git::{commit, repository, sh};
use crate::support::schemas;
use crate::support::servers::{self, DIR, Server};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const CATALOG: &str = "work/own/configs/kernels.toml";
const LOCK: &str = "work/own/kcompile.lock";
const OLD: &str = "work/own/configs/firecracker/linux-x86_64-6.1.7.config";
const NEW: &str = "work/own/configs/firecracker/linux-x86_64-6.1.9.config";
const ENTRIES: &str = "# ours\n\n[[kernel]]\nversion = \"6.1.7\" # pinned\nflavor = \"firecracker\"\narch = [\"amd64\"]\n\
                       status = \"supported\"\n\n[[kernel]]\nversion = \"6.6\"\nflavor = \"firecracker\"\n\
                       arch = [\"amd64\"]\nstatus = \"untested\"\n";

/// Returns a project with an entry for 6.1.7 and one for the series 6.6, and a mirror with newer releases. PSI has
/// another dependency in 6.1.9.
fn project() -> (TestContext, Server) {
    let mut context = TestContext::new();
    fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
    fs::write(context.path("work/own/kcompile.toml"), "arch = [\"amd64\"]\n").unwrap();
    fs::write(context.path(CATALOG), ENTRIES).unwrap();
    fs::write(context.path(OLD), format!("# Ours\n{CONFIG}CONFIG_PSI=y\n")).unwrap();
    fs::write(context.path("work/own/configs/firecracker/linux-x86_64-6.6.config"), CONFIG).unwrap();
    let mut files = BTreeMap::new();
    for version in ["6.1.7", "6.1.9", "6.6.60"] {
        let tree = context.tree(version, &format!("trees/{version}"));
        if version == "6.1.9" {
            edit(&tree.join("init/Kconfig"), "tracking\"\n", "tracking\"\n\tdepends on EXPERT\n");
        }
        files.insert(
            format!("{DIR}/linux-{version}.tar.xz"),
            compress(&tar_of(&tree, &format!("linux-{version}")), "xz"),
        );
    }
    let list: String = files
        .iter()
        .map(|(path, bytes)| format!("{}  {}\n", sha256(bytes), path.rsplit('/').next().unwrap()))
        .collect();
    files.insert(format!("{DIR}/sha256sums.asc"), list.into_bytes());
    files.insert("/releases.json".into(), releases(&[("6.1.9", "longterm"), ("6.6.60", "longterm")]));
    let server = servers::files(files);
    context.env.insert("KCOMPILE_MIRROR".into(), server.url.clone());
    (context, server)
}

fn releases(versions: &[(&str, &str)]) -> Vec<u8> {
    let releases = versions.iter().map(
        |(version, moniker)| json!({ "version": version, "moniker": moniker, "iseol": false, "source": "x" }),
    );
    let releases: Vec<Value> = releases.collect();
    json!({ "latest_stable": { "version": versions[0].0 }, "releases": releases }).to_string().into_bytes()
}

fn edit(path: &Utf8Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{path}: {from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn run(context: &TestContext, args: &str) -> RunResult {
    let result = run_result(context.command(args).current_dir(context.path("work/own")).output().unwrap());
    schemas::check_run(
        &args.split_whitespace().collect::<Vec<_>>(),
        result.code,
        &result.stdout,
        &result.stderr,
    );
    result
}

fn read(context: &TestContext, path: &str) -> String {
    fs::read_to_string(context.path(path)).unwrap()
}

/// Returns the items of a run, by the version of the entry.
fn items(result: &RunResult) -> BTreeMap<String, Value> {
    let items = result.json()["items"].as_array().unwrap().clone();
    items.into_iter().map(|item| (item["version"].as_str().unwrap().to_owned(), item)).collect()
}

#[test]
fn asking_downloads_nothing() {
    let (context, server) = project();
    let before = context.snapshot("work");
    let asked = run(&context, "update --json");
    assert_eq!(asked.code, 10, "{}", asked.stderr);
    let found = items(&asked);
    let summary = |version: &str| {
        let item = &found[version];
        (item["current"].clone(), item["newest"].clone(), item["update"].clone(), item["end_of_life"].clone())
    };
    assert_eq!(summary("6.1.7"), (json!("6.1.7"), json!("6.1.9"), json!(true), Value::Null));
    assert_eq!(summary("6.6"), (Value::Null, json!("6.6.60"), json!(true), Value::Null));
    assert_eq!(*server.log.lock().unwrap(), ["GET /releases.json"]);
    assert_eq!(context.snapshot("work"), before);
    let table = run(&context, "update 6.1.7");
    assert_eq!(table.code, 10);
    assert!(table.stdout.contains("6.1.9           newer release"), "{}", table.stdout);
    assert!(!table.stdout.contains("6.6"), "{}", table.stdout);
    // The list is in the cache now.
    assert_eq!(run(&context, "update --offline").code, 10);
}

#[test]
fn an_entry_moves_with_its_config() {
    let (context, _server) = project();
    let written = run(&context, "update --write --json").ok();
    let found = items(&written);
    assert_eq!(found["6.1.7"]["written"]["entry"], "6.1.9");
    assert_eq!(found["6.6"]["written"]["version"], "6.6.60");
    // Only the entry of one release changes, and only where it must. It was not booted.
    let expected =
        ENTRIES.replacen("\"6.1.7\" # pinned", "\"6.1.9\" # pinned", 1).replacen("supported", "untested", 1);
    assert_eq!(read(&context, CATALOG), expected);
    assert!(!context.path(OLD).exists());
    assert_eq!(read(&context, NEW), format!("# Ours\n{CONFIG}CONFIG_EXPERT=y\nCONFIG_PSI=y\n"));
    assert_eq!(read(&context, "work/own/configs/firecracker/linux-x86_64-6.6.config"), CONFIG);
    let lock = read(&context, LOCK);
    assert!(lock.contains("linux-6.1.9.tar.xz") && lock.contains("linux-6.6.60.tar.xz"), "{lock}");
    let again = run(&context, "update").ok();
    assert!(again.stdout.contains("up to date"), "{}", again.stdout);
    run(&context, "6.1.9 --fc --offline --no-modules --progress quiet").ok();
    // A newer release of the series is found by the lock file.
    let lock = read(&context, LOCK).replace("linux-6.6.60", "linux-6.6.59");
    fs::write(context.path(LOCK), lock).unwrap();
    let asked = run(&context, "update 6.6 --json");
    assert_eq!((asked.code, &items(&asked)["6.6"]["current"]), (10, &json!("6.6.59")));
}

#[test]
fn a_failed_update_changes_nothing() {
    let (context, _server) = project();
    run(&context, "fetch 6.1.7 --fc --progress quiet").ok();
    let before = context.snapshot("work/own");
    // The new kernel does not meet the profile.
    edit(&context.path(OLD), "CONFIG_KVM_GUEST=y", "# CONFIG_KVM_GUEST is not set");
    let unmet = context.snapshot("work/own");
    run(&context, "update 6.1.7 --write").failed(1, &["does not meet firecracker: CONFIG_KVM_GUEST"]);
    assert_eq!(context.snapshot("work/own"), unmet);
    edit(&context.path(OLD), "# CONFIG_KVM_GUEST is not set", "CONFIG_KVM_GUEST=y");
    assert_eq!(context.snapshot("work/own"), before);
    // The disk is full when the catalog is written.
    let large = format!("{ENTRIES}{}", "# a line of a catalog\n".repeat(30_000));
    fs::write(context.path(CATALOG), &large).unwrap();
    let before = context.snapshot("work/own");
    let limited = |trap: &str| {
        let script = format!("cd {} && {trap} ulimit -f 800 && exec \"$0\" \"$@\"", context.path("work/own"));
        context.run_by(&["sh", "-c", &script], "update 6.1.7 --write")
    };
    limited("trap '' XFSZ &&").failed(1, &["cannot write", "configs/kernels.toml", "File too large"]);
    assert_eq!(context.snapshot("work/own"), before);
    // Killed in between: the entry and its config are the old ones, and the same command continues.
    assert_eq!(limited("").code, -1);
    assert_eq!(read(&context, CATALOG), large);
    assert!(context.path(OLD).is_file() && !read(&context, LOCK).contains("linux-6.1.9"));
    fs::write(context.path(CATALOG), ENTRIES).unwrap();
    run(&context, "update 6.1.7 --write").ok();
    assert!(!context.path(OLD).exists() && read(&context, LOCK).contains("linux-6.1.9"));
}

#[test]
fn one_kernel_that_fails_does_not_stop_the_others() {
    let (context, _server) = project();
    edit(&context.path(CATALOG), "version = \"6.6\"", "version = \"6.5\"");
    fs::rename(
        context.path("work/own/configs/firecracker/linux-x86_64-6.6.config"),
        context.path("work/own/configs/firecracker/linux-x86_64-6.5.config"),
    )
    .unwrap();
    let written = run(&context, "update --write").failed(3, &["lists no release of Linux 6.5"]);
    assert!(written.stdout.contains("failed") && written.stdout.contains("updated"), "{}", written.stdout);
    assert!(read(&context, CATALOG).contains("\"6.1.9\" # pinned"));
}

#[test]
fn a_series_at_its_end_names_the_next_longterm() {
    let (mut context, _server) = project();
    let list = releases(&[("6.12.3", "longterm"), ("6.18.2", "longterm"), ("6.19", "stable")]);
    let sums = format!("{}  linux-6.1.7.tar.xz\n{}  linux-6.6.60.tar.xz\n", "0".repeat(64), "0".repeat(64));
    let files = [("/releases.json".to_owned(), list), (format!("{DIR}/sha256sums.asc"), sums.into_bytes())];
    context.env.insert("KCOMPILE_MIRROR".into(), servers::files(files).url);
    let asked = run(&context, "update 6.1.7 --json").ok();
    assert_eq!(
        (&items(&asked)["6.1.7"]["update"], &items(&asked)["6.1.7"]["end_of_life"]["next_longterm"]),
        (&json!(false), &json!("6.12.3"))
    );
    let told = run(&context, "update 6.1.7").ok().says("Linux 6.1 has reached its end of life").stdout;
    assert!(told.contains("newest release 6.12.3: kcompile add 6.12 --fc"), "{told}");
}

#[test]
fn a_branch_moves_to_its_newest_commit() {
    if !has_tool("git") {
        return;
    }
    let (context, _server) = project();
    let repo = repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let entry = |reference: &str| {
        format!(
            "[[kernel]]\nversion = \"6.1\"\nflavor = \"cloud-hypervisor\"\narch = [\"amd64\"]\n\
             source = \"git+{}/linux/.git#{reference}\"\nstatus = \"untested\"\n",
            server.url
        )
    };
    fs::write(context.path(CATALOG), entry("ch-6.1.7")).unwrap();
    fs::create_dir(context.path("work/own/configs/cloud-hypervisor")).unwrap();
    fs::write(context.path("work/own/configs/cloud-hypervisor/linux-x86_64-6.1.config"), CONFIG).unwrap();
    run(&context, "update --write").ok();
    run(&context, "update").ok();
    let before = context.snapshot("work/own");
    edit(&repo.join("Makefile"), "SUBLEVEL = 7", "SUBLEVEL = 8");
    sh(&repo, "git add Makefile");
    commit(&repo);
    let asked = run(&context, "update --json");
    assert_eq!((asked.code, context.snapshot("work/own") == before), (10, true), "{}", asked.stderr);
    let commits = [&items(&asked)["6.1"]["current"], &items(&asked)["6.1"]["newest"]]
        .map(|commit| commit.as_str().unwrap().to_owned());
    // A build still has the old commit, and so has the lock file after a failed update.
    run(&context, "update --write --require nowhere").failed(2, &["nowhere"]);
    assert_eq!(context.snapshot("work/own"), before);
    let written = run(&context, "update --write --report report.md --data vulns --json");
    assert_eq!(items(&written.ok())["6.1"]["written"]["version"], "6.1.8");
    let lock = read(&context, LOCK);
    assert!(lock.contains(&commits[1]) && !lock.contains(&commits[0]), "{lock}");
    let report = read(&context, "work/own/report.md");
    assert!(report.contains("## Linux 6.1.7 to 6.1.8 for Cloud Hypervisor"), "{report}");
    assert!(report.contains("Shortlog: left out (a fetch of depth 1"), "{report}");
    // A commit does not move.
    fs::write(context.path(CATALOG), entry(&commits[0])).unwrap();
    let asked = run(&context, "update").ok();
    assert!(asked.stdout.contains("does not move"), "{}", asked.stdout);
}

#[test]
fn update_checks_its_input_first() {
    let (context, server) = project();
    let update = |args: &str| run(&context, &format!("update {args}"));
    update("6.12").failed(2, &["kernels.toml has no entry for 6.12", "kcompile add"]);
    update("--ch").failed(2, &["kernels.toml has no kernel"]);
    update("--build").failed(2, &["--write"]);
    update("--write --boot").failed(2, &["--build"]);
    update("--write --report no/where.md").failed(2, &["cannot write in the directory of --report"]);
    context.run("update").failed(2, &["no project directory was found"]);
    assert!(server.log.lock().unwrap().is_empty());
    // An entry in another form is refused before anything is written.
    let inline = "kernel = [{ version = \"6.1.7\", flavor = \"firecracker\", arch = [\"amd64\"], status = \"untested\" }]\n";
    fs::write(context.path(CATALOG), inline).unwrap();
    let before = context.snapshot("work/own");
    update("--write").failed(2, &["cannot change the entry of 6.1.7 in ", "one field on each line"]);
    assert_eq!(context.snapshot("work/own"), before);
}

#[test]
fn damaged_lists_of_releases_are_refused() {
    let (mut context, _server) = project();
    for (list, message) in [
        ("<html>".to_owned(), "is not a list of kernel releases"),
        ("[".repeat(2 << 20), "larger than 1"),
        (json!({ "latest_stable": { "version": "x" }, "releases": [{ "moniker": "longterm", "version": "6.1.99999999999" }] }).to_string(), "lists no release of Linux 6.1"),
    ] {
        let files = [("/releases.json".to_owned(), list.into_bytes())];
        context.env.insert("KCOMPILE_MIRROR".into(), servers::files(files).url);
        run(&context, "update 6.1.7").failed(3, &[message]);
    }
}
