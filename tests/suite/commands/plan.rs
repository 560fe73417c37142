//! Plans have no side effects and are complete, and their digest is the same everywhere.

use crate::support::context::TestContext;
use serde_json::Value;

fn plan(context: &TestContext, args: &str) -> Value {
    context.run(&format!("plan {args} --json")).ok().item()
}

#[test]
fn plan_writes_nothing() {
    let mut context = TestContext::new();
    // Nobody listens on this port, so any use of the network would fail.
    context.env.insert("KCOMPILE_MIRROR".into(), "http://127.0.0.1:1".into());
    let before = context.names("work");
    context.run("plan 6.1 --fc").ok();
    context.run("6.1 --fc --dry-run").ok();
    let told = context.run("fetch 6.1.7 --fc --bundle x.tar --dry-run").ok().stdout;
    assert!(told.contains("linux-6.1.7.tar.xz"), "{told}");
    // A source that can be fetched without a config can be planned without one.
    context.run("fetch 3.2.1 --fc --dry-run").ok();
    context.run("plan 5.15.12 --ch").ok();
    assert_eq!(context.names("work"), before);
    assert!(!context.path("cache").exists() && context.names("home").is_empty());
}

#[test]
fn the_plan_digest_covers_exactly_the_inputs_of_the_output() {
    let (here, there) = (TestContext::new(), TestContext::new());
    here.tarball("6.1.7", "gz");
    crate::support::context::copy(
        &here.path("work/linux-6.1.7.tar.gz"),
        &there.path("work/linux-6.1.7.tar.gz"),
    );
    let args = "6.1.7 --fc --source linux-6.1.7.tar.gz";
    let digest = |context: &TestContext, more: &str| {
        plan(context, &format!("{args} {more}"))["digest"].as_str().unwrap().to_owned()
    };
    let base = digest(&here, "");
    std::fs::create_dir(there.path("work/sub")).unwrap();
    for place in ["mini.config", "sub/other-name.config"] {
        std::fs::write(there.path("work").join(place), crate::support::context::CONFIG).unwrap();
    }
    assert_eq!(digest(&there, "--config sub/other-name.config"), digest(&here, "--config mini.config"));
    for same in [
        "-j 7",
        "-o elsewhere",
        "--cache-dir elsewhere",
        "--launcher ccache",
        "--mirror https://example.org",
        "--offline",
        "--kernel-link boot/vmlinux",
    ] {
        assert_eq!(digest(&there, same), base, "{same}");
    }
    // How the version was found does not affect the output.
    here.tree("6.1.7", "work/linux");
    let of_directory =
        |version: &str| plan(&here, &format!("{version} --fc --source linux"))["digest"].clone();
    assert_eq!(of_directory("6.1"), of_directory("6.1.7"));
    for other in [
        "--set KSM=n",
        "--compression zstd",
        "--kernel-link none",
        "--legacy",
        "--no-modules",
        "--cc cc",
        "--arch arm64 --config mini.config",
    ] {
        assert_ne!(digest(&here, other), base, "{other}");
    }
}

#[test]
fn plan_lists_every_step() {
    let context = TestContext::new();
    let plan = plan(&context, "5.10.77 --fc");
    let source = &plan["plan"]["source"];
    assert_eq!(source["origin"], "https://cdn.kernel.org/pub/linux/kernel/v5.x/linux-5.10.77.tar.xz");
    assert_eq!(source["digest"], "sha256:d3b64edfc1dd7212e62ed733aeeb73d64ffd6d9658d322d44cddf1b41d5b8fc3");
    assert_eq!(plan["plan"]["make"]["targets"], serde_json::json!(["vmlinux", "modules"]));
    assert_eq!(plan["plan"]["images"][0]["layout"], "firecracker-kernel-bin-amd64");
    // Images of an older kcompile have another plan, even for the same version.
    assert_eq!(plan["plan"]["layer_format"], 2);
    // 6.1 comes from kernel.org, but one of its versions may have its own branch.
    assert!(context.run("plan 6.1.6 --ch").ok().stdout.contains("linux.git#ch-6.1.6"));
    assert!(context.run("plan 6.1 --ch").ok().stdout.contains("from https://cdn.kernel.org"));
    let text = context.run("plan 6.2 --ch").ok().stdout;
    assert!(text.contains("https://github.com/cloud-hypervisor/linux.git#ch-6.2"), "{text}");
    let image = "cloudhypervisor-kernel-bin-amd64:<version>  bin/vmlinux.bin, boot/vmlinux.bin\n";
    assert!(text.contains(image), "{text}");
}

#[test]
fn two_numbers_are_a_release_if_the_catalog_pins_it_and_else_a_series() {
    let context = TestContext::new();
    let kernel = |args: &str| {
        let text = context.run(&format!("plan {args}")).ok().stdout;
        text.lines().next().unwrap().trim_start_matches("kernel").trim().to_owned()
    };
    for version in ["5.12 --ch", "5.12.0 --ch", "5.12"] {
        assert_eq!(kernel(version), "Linux 5.12 for Cloud Hypervisor on amd64", "{version}");
    }
    for (series, newest) in [("6.1 --fc", "6.1"), ("5.10 --ch", "5.10"), ("5.12 --fc", "5.12")] {
        let kernel = kernel(series);
        assert!(kernel.starts_with(&format!("Linux {newest} (newest release) for ")), "{series}: {kernel}");
    }
    let source = &plan(&context, "5.12 --ch --source kernel.org")["plan"]["source"];
    assert_eq!(source["origin"], "https://cdn.kernel.org/pub/linux/kernel/v5.x/linux-5.12.tar.xz");
    assert_eq!(source["digest"], "sha256:7d0df6f2bf2384d68d0bd8e1fe3e071d64364dcdc6002e7b5c87c92d48fac366");
    assert_eq!(
        plan(&context, "5.12 --ch")["source"],
        "https://github.com/cloud-hypervisor/linux.git#ch-5.12"
    );
    // An entry of the user for the series means the series again.
    std::fs::create_dir(context.path("work/own")).unwrap();
    let entry = "[[kernel]]\nversion = \"5.12\"\nflavor = \"cloud-hypervisor\"\narch = [\"amd64\"]\nstatus = \
                 \"untested\"\n";
    std::fs::write(context.path("work/own/kernels.toml"), entry).unwrap();
    assert!(kernel("5.12 --ch --configs own").starts_with("Linux 5.12 (newest release) for "));
}

#[test]
fn all_takes_the_variants_that_are_supported() {
    let context = TestContext::new();
    let entry = |version: &str, status: &str, minimal: &str| {
        format!(
            "[[kernel]]\nversion = \"{version}\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\n\
             status = \"{status}\"\n{minimal}\n"
        )
    };
    let supported = "minimal = \"supported\"";
    let catalog = [
        entry("9.1", "supported", supported),
        entry("9.2", "supported", ""),
        entry("9.3", "untested", supported),
    ];
    std::fs::create_dir(context.path("work/own")).unwrap();
    std::fs::write(context.path("work/own/kernels.toml"), catalog.concat()).unwrap();
    let planned = |args: &str| -> Vec<String> {
        let ran = context.run(&format!("plan all --fc --configs own --json {args}")).ok().json();
        let items = ran["items"].as_array().unwrap();
        let name = |item: &serde_json::Value| {
            let variant = item["plan"]["variant"].as_str().unwrap_or("node");
            format!("{} {variant}", item["plan"]["requested"].as_str().unwrap())
        };
        items.iter().map(name).filter(|name| name.starts_with("9.")).collect()
    };
    assert_eq!(planned(""), ["9.1 node", "9.2 node"]);
    assert_eq!(planned("--variant minimal"), ["9.1 minimal", "9.3 minimal"]);
    assert_eq!(planned("--variant all"), ["9.1 node", "9.1 minimal", "9.2 node", "9.3 minimal"]);
}

#[test]
fn all_takes_the_source_that_a_kernel_is_supported_from() {
    let context = TestContext::new();
    let origins = |args: &str| -> Vec<String> {
        let printed = context.run(&format!("plan {args} --json")).ok().stdout;
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        let plans = printed["items"].as_array().unwrap();
        plans.iter().map(|plan| plan["plan"]["source"]["origin"].to_string()).collect()
    };
    let (all, branches) = (origins("all --ch"), origins("all --ch --source git"));
    for release in ["5.12", "5.15.12"] {
        let tarball = format!("\"https://cdn.kernel.org/pub/linux/kernel/v5.x/linux-{release}.tar.xz\"");
        let branch = format!("\"https://github.com/cloud-hypervisor/linux.git#ch-{release}\"");
        assert!(all.contains(&tarball) && !all.contains(&branch), "{all:?}");
        assert!(branches.contains(&branch), "{branches:?}");
        // Whoever names the version gets the hypervisor's own branch.
        let one = plan(&context, &format!("{release} --ch"));
        assert_eq!(one["plan"]["source"]["origin"].to_string(), branch);
    }
}

#[test]
fn a_branch_that_is_out_of_reach_has_the_supported_source_as_a_hint() {
    let mut context = TestContext::new();
    // Nobody listens on this port.
    context.env.insert("HTTPS_PROXY".into(), "http://127.0.0.1:1".into());
    let hint = "Linux 5.15.12 is supported from another source: --source kernel.org";
    context.run("fetch 5.15.12 --ch").failed(3, &["cannot fetch https://github.com/", hint]);
    let other = context.run("fetch 6.2 --ch").failed(3, &["cannot fetch https://github.com/"]);
    assert!(!other.stderr.contains("is supported from"), "{}", other.stderr);
}

#[test]
fn the_nearest_lower_config_is_used_and_named() {
    let context = TestContext::new();
    let text = context.run("plan 5.14.2 --ch").ok().stdout;
    assert!(text.contains("configs/cloud-hypervisor/linux-x86_64-5.12.config"), "{text}");
    assert!(
        text.contains("no cloud-hypervisor config for Linux 5.14.2: using the nearest lower one, for 5.12"),
        "{text}"
    );
    context
        .run("plan 4.14.336 --fc")
        .failed(2, &["no firecracker config for Linux 4.14.336", "hint: give one with --config"]);
}

#[test]
fn a_version_of_two_hypervisors_asks_for_a_flag() {
    let context = TestContext::new();
    context.run("plan 6.1").failed(2, &["known for Firecracker and for Cloud Hypervisor", "--fc or --ch"]);
    context.run("plan 3.2.1").failed(2, &["the catalog does not know Linux 3.2.1", "--fc or --ch"]);
    assert!(context.run("plan 5.15.12").ok().stdout.contains("Cloud Hypervisor"));
}

#[test]
fn config_layers_apply_in_command_line_order() {
    let context = TestContext::new();
    std::fs::write(context.path("work/f.config"), "CONFIG_KSM=m\n").unwrap();
    let plan = plan(&context, "6.1 --fc --set KSM=n --fragment f.config --set CONFIG_PSI=y");
    let names: Vec<&str> =
        plan["config"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names[1], "CONFIG_KSM=n");
    assert!(names[2].ends_with("/f.config"));
    assert_eq!(names[3], "CONFIG_PSI=y");
}

#[test]
fn invalid_config_files_are_refused() {
    let context = TestContext::new();
    for (text, says) in [
        (&b""[..], "not a kernel config"),
        (b"\x7fELF\0\0\0", "not a text file"),
        (b"hello\nworld\n", "not a kernel config"),
        (
            b"# Linux/arm64 6.1.7 Kernel Configuration\nCONFIG_ARM64=y\n",
            "the config is for arm64, not for amd64",
        ),
        (b"CONFIG_ARM64=y\n", "the config is for arm64, not for amd64"),
    ] {
        std::fs::write(context.path("work/x.config"), text).unwrap();
        context.run("plan 6.1 --fc --config x.config").failed(2, &[says]);
    }
    std::fs::write(context.path("work/x.config"), "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=q\n").unwrap();
    context.run("plan 6.1 --fc --fragment x.config").failed(2, &["x.config:3: not a setting: `CONFIG_C=q`"]);
    context.run("plan 6.1 --fc --config x.config").failed(2, &["x.config:3: not a setting: `CONFIG_C=q`"]);
    context
        .run("plan 6.1 --fc --fragment nowhere")
        .failed(2, &["not a fragment of the catalog, and not a file"]);
    context.run("plan 6.1 --fc --set KSM=maybe").failed(2, &["expected SYMBOL=VALUE"]);
}

#[test]
fn a_user_catalog_overrides_the_built_in_one() {
    let context = TestContext::new();
    let dir = context.path("work/own");
    std::fs::create_dir_all(dir.join("firecracker")).unwrap();
    std::fs::write(
        dir.join("kernels.toml"),
        "[[kernel]]\nversion = \"9.9\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\nnote = \"mine\"\n",
    )
    .unwrap();
    std::fs::write(dir.join("firecracker/linux-x86_64-9.9.config"), "CONFIG_NET=y\n").unwrap();
    let listed = context.run("list --configs own").ok().stdout;
    assert!(listed.contains("mine") && listed.contains("5.10.77"), "{listed}");
    assert!(context.run("plan 9.9.3 --configs own").ok().stdout.contains("linux-x86_64-9.9.config"));
    std::fs::write(dir.join("kernels.toml"), "[[kernel]]\nversion = \"9.9\"\n").unwrap();
    context
        .run("list --configs own")
        .failed(2, &["kernels.toml: TOML parse error at line 1", "missing field `flavor`"]);
}

#[test]
fn plan_refuses_a_source_of_another_version() {
    let context = TestContext::new();
    context.tree("6.1.8", "work/newer");
    context
        .run("plan 6.1.7 --fc --source newer")
        .failed(2, &["the source is Linux 6.1.8, but 6.1.7 was requested"]);
}

#[test]
fn both_paths_of_the_kernel_file_are_validated() {
    let context = TestContext::new();
    for second in ["bin", "bin/vmlinux", "bin/vmlinux/x"] {
        context
            .run(&format!("plan 6.1 --fc --kernel-link {second}"))
            .failed(2, &["the kernel is already at bin/vmlinux"]);
    }
    context.run("plan 6.1 --fc --kernel-link bin/vmlinux.bin").ok();
}
