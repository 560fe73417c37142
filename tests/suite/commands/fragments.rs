//! Fragments and the profiles of their names.

use crate::support::context::TestContext;
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fs;

/// Required options that no config sets: Kconfig's default sets them, or an option that selects them. Builds check
/// them after olddefconfig.
const IMPLIED: [&str; 13] = [
    "BPF",
    "IPC_NS",
    "NET_NS",
    "NF_NAT",
    "NF_NAT_IPV4",
    "NF_NAT_NEEDED",
    "PERF_EVENTS",
    "PID_NS",
    "PROC_FS",
    "SECCOMP_FILTER",
    "STRICT_KERNEL_RWX",
    "STRICT_MODULE_RWX",
    "UTS_NS",
];

#[test]
fn each_fragment_meets_the_profile_of_its_name() {
    let context = TestContext::new();
    let configs = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for fragment in configs.join("fragments").read_dir_utf8().unwrap() {
        let fragment = fragment.unwrap();
        let name = fragment.path().file_stem().unwrap();
        if !configs.join("requirements").join(format!("{name}.toml")).is_file() {
            continue;
        }
        for flavor in ["firecracker", "cloud-hypervisor"] {
            for config in configs.join(flavor).read_dir_utf8().unwrap() {
                let config = config.unwrap();
                let name_of_config = config.path().file_stem().unwrap();
                // A fragment is for nodes.
                if name_of_config.ends_with("-minimal") {
                    continue;
                }
                let series = name_of_config.rsplit('-').next().unwrap();
                let arch = if config.file_name().contains("arm64") { "arm64" } else { "amd64" };
                let both = [config.path(), fragment.path()].map(|path| fs::read_to_string(path).unwrap());
                fs::write(context.path("work/x.config"), both.concat()).unwrap();
                let checked = context.run(&format!(
                    "check x.config --for {name} --flavor {flavor} --arch {arch} --kernel {series}.20 --json"
                ));
                let json = checked.json();
                let outcomes = json["outcomes"].as_array().unwrap().iter();
                let unmet = outcomes
                    .filter(|outcome| outcome["verdict"] == "failed" && outcome["level"] == "required");
                // A requirement without symbols is one for a newer kernel.
                let missing: Vec<&Vec<Value>> = unmet
                    .map(|outcome| outcome["symbols"].as_array().unwrap())
                    .filter(|symbols| !symbols.is_empty())
                    .filter(|symbols| !symbols.iter().any(|symbol| IMPLIED.iter().any(|name| symbol == name)))
                    .collect();
                assert_eq!(json!(missing), json!([]), "{name} on {}", config.path());
            }
        }
    }
}

#[test]
fn a_fragment_may_set_the_old_name_of_an_option_that_is_on() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    fs::create_dir_all(context.path("work/own/fragments")).unwrap();
    let fragment = |text: &str| fs::write(context.path("work/own/fragments/mine.config"), text).unwrap();
    let renames = "[[rename]]\nold = \"OLD_BRIDGE\"\nnew = [\"BRIDGE\"]\nsince = \"6.1\"\n\
                   [[rename]]\nold = \"OLD_PSI\"\nnew = [\"PSI\"]\nsince = \"6.1\"\n";
    fs::write(context.path("work/own/renames.toml"), renames).unwrap();
    let show = |option: &str| {
        context.run(&format!(
            "config show 6.1.7 --fc --source linux --config mini.config --configs own --arch amd64 {option}"
        ))
    };
    fragment("# mine\nCONFIG_OLD_BRIDGE=y\nCONFIG_VETH=m\n");
    let shown = show("--fragment mine").ok().says(
        "note: CONFIG_OLD_BRIDGE=y is missing: since 6.1 it is BRIDGE (m) (requested by configs/fragments/mine.config)",
    );
    assert!(!shown.stderr.contains("warning: CONFIG_"), "{}", shown.stderr);
    // The new name is off, or the user typed the old one.
    fragment("# mine\nCONFIG_OLD_PSI=y\n");
    show("--fragment mine").failed(1, &["CONFIG_OLD_PSI=y is missing: since 6.1 it is PSI (n)"]);
    show("--set OLD_BRIDGE=y").failed(1, &["since 6.1 it is BRIDGE (m)"]);
}
