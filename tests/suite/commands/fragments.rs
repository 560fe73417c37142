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
                let series = config.path().file_stem().unwrap().rsplit('-').next().unwrap().to_owned();
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
