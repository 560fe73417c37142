//! `kcompile add` adds a kernel to the user's catalog and migrates the config of another version.

use crate::support::context::{
    CONFIG, RunResult, TestContext, compress, has_tool, run_result, sha256, tar_of,
};
use crate::support::git::repository;
use crate::support::servers;
use crate::support::signing::Gpg;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const DIR: &str = "/pub/linux/kernel/v6.x";
const NEW: &str = "work/own/configs/firecracker/linux-x86_64-6.5.60.config";
const CATALOG: &str = "work/own/configs/kernels.toml";

/// Returns a project in `work/own` with a config for 6.1, and a mirror with 6.1.7 and 6.5.60, which
/// has other symbols.
fn project() -> TestContext {
    with_mirror(false)
}

fn with_mirror(signed: bool) -> TestContext {
    let mut context = TestContext::new();
    fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
    fs::write(context.path("work/own/kcompile.toml"), "flavor = \"firecracker\"\narch = [\"amd64\"]\n")
        .unwrap();
    let config = format!(
        "# --- Ours\n{CONFIG}CONFIG_WIREGUARD=m\nCONFIG_VETH=m\n\n# --- Rest\nCONFIG_PSI=y\n# CONFIG_OLD is not set\n"
    );
    fs::write(context.path("work/own/configs/firecracker/linux-x86_64-6.1.config"), config).unwrap();
    let renames = "[[rename]]\nold = \"WIREGUARD\"\nnew = [\"WG\"]\nsince = \"6.5\"\n\
                   [[rename]]\nold = \"VETH\"\nsince = \"6.5\"\nnote = \"always there\"\n";
    fs::write(context.path("work/own/configs/renames.toml"), renames).unwrap();
    let old = context.tree("6.1.7", "trees/old");
    let new = context.tree("6.5.60", "trees/new");
    let edit = |file: &str, from: &str, to: &str| {
        let text = fs::read_to_string(new.join(file)).unwrap();
        assert!(text.contains(from), "{file}: {from}");
        fs::write(new.join(file), text.replacen(from, to, 1)).unwrap();
    };
    edit("drivers/Kconfig", "config WIREGUARD\n\ttristate", "config WG\n\tbool");
    edit("drivers/Kconfig", "config VETH\n\ttristate \"Virtual ethernet pair device\"\n", "");
    edit("init/Kconfig", "tracking\"\n", "tracking\"\n\tdepends on NOWHERE\n");
    edit(
        "net/Kconfig",
        "config BRIDGE\n\ttristate \"802.1d Ethernet Bridging\"\n",
        "config BRIDGES\n\tbool \"Bridges\"\n\nconfig BRIDGE\n\ttristate \"802.1d Ethernet Bridging\"\n\tdepends on BRIDGES\n",
    );
    edit("init/Kconfig", "config EXPERT", "config FRESH\n\tbool \"Fresh\"\n\tdefault y\n\nconfig EXPERT");
    let mut files = BTreeMap::new();
    for (version, tree) in [("6.1.7", &old), ("6.5.60", &new)] {
        let xz = compress(&tar_of(tree, &format!("linux-{version}")), "xz");
        files.insert(format!("{DIR}/linux-{version}.tar.xz"), xz);
    }
    let list: String = files
        .iter()
        .map(|(path, bytes)| format!("{}  {}\n", sha256(bytes), path.rsplit('/').next().unwrap()))
        .collect();
    if signed {
        let gpg = Gpg::new(&context.path("gpg"));
        let key = gpg.key("Signer", "never", "");
        gpg.export(&key, &context.path("work/own/signer.asc"));
        files.insert(
            format!("{DIR}/linux-6.5.60.tar.sign"),
            gpg.sign(&key, &tar_of(&new, "linux-6.5.60"), ""),
        );
    }
    // Not clear-signed, so it proves nothing, but it shows the newest 6.1.
    files.insert(format!("{DIR}/sha256sums.asc"), list.into_bytes());
    context.env.insert("KCOMPILE_MIRROR".into(), servers::files(files).url);
    context
}

fn run(context: &TestContext, args: &str) -> RunResult {
    run_result(context.command(args).current_dir(context.path("work/own")).output().unwrap())
}

fn read(context: &TestContext, path: &str) -> String {
    fs::read_to_string(context.path(path)).unwrap()
}

#[test]
fn an_added_kernel_can_be_built_immediately() {
    if !has_tool("gpg") {
        return;
    }
    let context = with_mirror(true);
    fs::write(context.path(CATALOG), "# ours\n").unwrap();
    let before = context.snapshot("work/own");
    let dry = run(&context, "add 6.5.60 --dry-run --keyring signer.asc").ok().stdout;
    assert!(dry.contains("would write configs/kernels.toml"), "{dry}");
    fs::remove_file(context.path("work/own/kcompile.lock")).unwrap();
    let after = context.snapshot("work/own");
    assert_eq!(after, before);

    let told = run(&context, "add 6.5.60 --keyring signer.asc").ok().stdout;
    for line in [
        "Linux 6.5.60 for Firecracker",
        "amd64: config of 6.1 (configs/firecracker/linux-x86_64-6.1.config)",
        "renamed (1)\n  WIREGUARD=m -> WG=m\n",
        "removed (1)\n  VETH=m: gone since 6.5: always there\n",
        "added (1)\n  BRIDGES=y, needed by BRIDGE\n",
        "changed (1)\n  PSI=y -> n: depends on NOWHERE (n); no setting helps, since amd64 has no\n",
        "other options that differ from 6.1.7:\n",
        "  verified  signed by Signer (",
        "\nnew (1)\n  FRESH=y\n",
        "firecracker: ",
        "wrote configs/firecracker/linux-x86_64-6.5.60.config\nwrote configs/kernels.toml\n",
    ] {
        assert!(told.contains(line), "`{line}` is not in:\n{told}");
    }
    let fits = |line: &str| line.chars().count() <= 80 || line.contains("sha256:");
    assert!(told.lines().all(fits) && !told.contains("removed (2"), "{told}");
    // The same text without the settings that are gone, and with the one that BRIDGE needs now.
    let config = CONFIG.replace("CONFIG_BRIDGE=m\n", "CONFIG_BRIDGES=y\nCONFIG_BRIDGE=m\n");
    assert_ne!(config, CONFIG);
    let expected = format!("# --- Ours\n{config}CONFIG_WG=y\n\n# --- Rest\n");
    assert_eq!(read(&context, NEW), expected);
    let catalog = read(&context, CATALOG);
    assert!(catalog.starts_with("# ours\n\n[[kernel]]\nversion = \"6.5.60\"\n"), "{catalog}");
    assert!(
        catalog.contains("status = \"untested\"\nnote = \"its config was carried over from 6.1\"\n"),
        "{catalog}"
    );
    assert!(catalog.contains("\" # signed by Signer ("), "{catalog}");
    let built = run(&context, "6.5.60 --offline --progress plain").ok();
    assert!(!built.stderr.contains("warning: CONFIG_"), "{}", built.stderr);
    assert!(built.stdout.contains("firecracker-kernel-bin-amd64:6.5.60 sha256:"), "{}", built.stdout);
    let listed: Value = serde_json::from_str(&run(&context, "list --json").ok().stdout).unwrap();
    let listed =
        listed["items"].as_array().unwrap().iter().find(|one| one["version"] == "6.5.60").unwrap().clone();
    assert_eq!(
        (&listed["status"], listed["configs"]["amd64"].as_str().unwrap().ends_with("6.5.60.config")),
        (&json!("untested"), true)
    );
    run(&context, "add 6.5.60")
        .failed(2, &["kernels.toml already has an entry for 6.5.60, firecracker, amd64"]);
}

#[test]
fn unverified_sources_are_pinned_in_the_lock_file_only() {
    let context = project();
    let json: Value = serde_json::from_str(&run(&context, "add 6.1.7 --json").ok().stdout).unwrap();
    assert_eq!((&json["entry"]["version"], &json["entry"]["sha256"]), (&json!("6.1.7"), &Value::Null));
    assert_eq!(json["configs"][0]["from"], "6.1");
    assert_eq!((&json["configs"][0]["since"], &json["configs"][0]["added"]), (&Value::Null, &Value::Null));
    assert!(!read(&context, CATALOG).contains("sha256 ="));
    assert!(read(&context, "work/own/kcompile.lock").contains("unverified = true"));
    run(&context, "6.1.7 --offline --no-modules --progress quiet").ok();
}

#[test]
fn add_writes_all_of_its_files_or_none() {
    let context = project();
    let configs = || (context.names("work/own/configs"), context.names("work/own/configs/firecracker"));
    let before = configs();
    // The flavor's profile is not met.
    let base = context.path("work/own/configs/firecracker/linux-x86_64-6.1.config");
    let text = fs::read_to_string(&base).unwrap();
    fs::write(&base, text.replace("CONFIG_KVM_GUEST=y", "# CONFIG_KVM_GUEST is not set")).unwrap();
    run(&context, "add 6.5.60").failed(1, &["does not meet firecracker: CONFIG_KVM_GUEST"]);
    assert_eq!(configs(), before);
    fs::write(&base, text).unwrap();
    // The catalog is written last, when the disk is full.
    let large = format!("# ours\n{}", "# a line of a catalog\n".repeat(30_000));
    fs::write(context.path(CATALOG), &large).unwrap();
    let before = configs();
    let script =
        format!("cd {} && trap '' XFSZ && ulimit -f 800 && exec \"$0\" \"$@\"", context.path("work/own"));
    context
        .run_by(&["sh", "-c", &script], "add 6.5.60")
        .failed(1, &["cannot write", "configs/kernels.toml", "File too large"]);
    assert_eq!(configs(), before);
    assert_eq!(read(&context, CATALOG), large);
    // Killed between the two writes. The config has no catalog entry, and the same command
    // continues.
    let script = script.replace("trap '' XFSZ && ", "");
    assert_eq!(context.run_by(&["sh", "-c", &script], "add 6.5.60").code, -1);
    assert_eq!((context.path(NEW).is_file(), read(&context, CATALOG)), (true, large));
    assert!(!run(&context, "list").ok().stdout.contains("6.5.60"));
    fs::write(context.path(CATALOG), "# ours\n").unwrap();
    run(&context, "add 6.5.60").ok();
    assert!(run(&context, "list").ok().stdout.contains("6.5.60"));
    // An unreadable catalog is found before anything is done.
    fs::write(context.path(CATALOG), "[[kernel]]\nversion = 1\n").unwrap();
    run(&context, "add 6.5.60").failed(2, &["configs/kernels.toml: TOML parse error at line 2"]);
}

#[test]
fn add_checks_its_input_and_destination_first() {
    let context = project();
    let add = |args: &str| run(&context, &format!("add {args}"));
    add("6.5.60 --from 6.3")
        .failed(2, &["no firecracker config for Linux 6.3 on amd64", "existing configs: 4.19, 5.2, "]);
    add("6.5.60 --source ../linux").failed(2, &["a catalog cannot name a local path"]);
    let config = CONFIG.replace("CONFIG_BRIDGE=m\n", "CONFIG_BRIDGES=y\nCONFIG_BRIDGE=m\n");
    fs::write(context.path(NEW), &config).unwrap();
    add("6.5.60 --from 6.1").failed(2, &["linux-x86_64-6.5.60.config exists already"]);
    context.run("add 6.5.60 --fc").failed(2, &["cannot write a config: no project directory was found"]);
    assert!(!context.path("work/own/kcompile.lock").exists() && !context.path("cache/trees").exists());
    // The nearest config, even without a catalog entry.
    let told = add("6.5.60").ok().stdout;
    assert!(
        told.contains("amd64: config of 6.5.60 ") && told.contains("all settings apply unchanged"),
        "{told}"
    );
    assert_eq!(read(&context, NEW), config);
}

#[test]
fn several_architectures_share_one_catalog_entry() {
    let context = project();
    fs::write(context.path("work/own/configs/firecracker/linux-arm64-6.1.config"), CONFIG).unwrap();
    let args = "add 6.5.60 --arch arm64 --arch amd64 --cross-compile= --require none";
    let told = run(&context, args).ok().stdout;
    assert!(told.contains("\narm64: config of 6.1 (configs/firecracker/linux-arm64-6.1.config)\n"), "{told}");
    assert!(
        told.contains("\namd64: config of 6.1 (configs/firecracker/linux-x86_64-6.1.config)\n"),
        "{told}"
    );
    assert_eq!(read(&context, CATALOG).matches("[[kernel]]").count(), 1);
    let listed: Value = serde_json::from_str(&run(&context, "list --json").ok().stdout).unwrap();
    let kernels = listed["items"].as_array().unwrap();
    let added = kernels.iter().find(|one| one["version"] == "6.5.60").unwrap();
    assert_eq!(added["configs"]["arm64"], "configs/firecracker/linux-arm64-6.5.60.config");
    assert_eq!(added["configs"]["amd64"], "configs/firecracker/linux-x86_64-6.5.60.config");
    let arm64 = read(&context, "work/own/configs/firecracker/linux-arm64-6.5.60.config");
    assert!(arm64.contains("CONFIG_NET=y") && !arm64.contains("HYPERVISOR_GUEST"), "{arm64}");
}

#[test]
fn the_first_release_of_a_series_has_its_own_entry() {
    let mut context = project();
    context.env.insert("KCOMPILE_MIRROR".into(), servers::mirror(&context, &["6.1.7", "6.5", "6.5.60"]).url);
    run(&context, "add 6.5.0").ok();
    assert!(read(&context, CATALOG).contains("\nversion = \"6.5.0\"\n"), "{}", read(&context, CATALOG));
    assert_eq!(
        context.names("work/own/configs/firecracker"),
        ["linux-x86_64-6.1.config", "linux-x86_64-6.5.0.config"]
    );
    let plan = run(&context, "plan 6.5.0").ok().stdout;
    assert!(plan.contains("linux-6.5.tar.xz") && plan.contains("linux-x86_64-6.5.0.config"), "{plan}");
    assert!(run(&context, "plan 6.5").ok().stdout.contains("linux-6.5.*.tar.xz"));
    run(&context, "add 6.5.0").failed(2, &["already has an entry for 6.5.0, firecracker, amd64"]);
    // The series can have its own entry, which uses the nearest config.
    let told = run(&context, "add 6.5").ok().stdout;
    assert!(told.contains("(configs/firecracker/linux-x86_64-6.5.0.config)"), "{told}");
    assert!(read(&context, CATALOG).contains("\nversion = \"6.5\"\n"), "{}", read(&context, CATALOG));
}

#[test]
fn a_branch_is_pinned_by_its_commit() {
    if !has_tool("git") {
        return;
    }
    let context = project();
    repository(&context);
    let server = servers::git(context.path("repos").as_str());
    fs::create_dir(context.path("work/own/configs/cloud-hypervisor")).unwrap();
    fs::write(context.path("work/own/configs/cloud-hypervisor/linux-x86_64-6.1.config"), CONFIG).unwrap();
    let source = format!("git+{}/linux/.git#ch-6.1.7", server.url);
    let told = run(&context, &format!("add 6.1.7 --ch --source {source} --from 6.1")).ok().stdout;
    assert!(told.contains("pinned in kcompile.lock"), "{told}");
    let catalog = read(&context, CATALOG);
    assert!(
        catalog.contains(&format!("source = \"{source}\"\n")) && !catalog.contains("sha256 ="),
        "{catalog}"
    );
    assert!(read(&context, "work/own/kcompile.lock").contains("commit:"));
    run(&context, "6.1.7 --ch --offline --no-modules --progress quiet").ok();
}

#[test]
fn a_profile_that_the_old_config_met_is_checked_too() {
    let context = project();
    let dir = context.path("work/own/configs/requirements");
    fs::create_dir_all(&dir).unwrap();
    let profile = |symbol: &str| {
        format!(
            "title = \"t\"\nsource = \"s\"\n[[option]]\nsymbols = [\"{symbol}\"]\nlevel = \"required\"\nreason = \"r\"\n"
        )
    };
    fs::write(dir.join("pressure.toml"), profile("PSI")).unwrap();
    fs::write(dir.join("never-met.toml"), profile("NOWHERE")).unwrap();
    fs::write(dir.join("bridges.toml"), profile("BRIDGE")).unwrap();
    let ran = run(&context, "add 6.5.60 --dry-run").ok();
    // BRIDGE depends on a new option, which `add` sets.
    assert!(ran.stdout.contains("bridges: 1 met, 0 recommendations not met"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("the profile bridges"), "{}", ran.stderr);
    let ran = ran.says(
        "the config of 6.1.7 meets the profile pressure, but the new config does not: CONFIG_PSI is missing, wanted y",
    );
    assert!(ran.stdout.contains("pressure: ") && !ran.stdout.contains("never-met"), "{}", ran.stdout);
}
