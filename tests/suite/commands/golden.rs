//! Golden files in `tests/golden` of plans and `--json` output for fixed inputs. Refactoring must
//! not change them. `KCOMPILE_GOLDEN=update` regenerates them.

use crate::support::context::{CONFIG, RunResult, TestContext, has_tool};
use crate::support::golden::{GIT, compare, context, printed, section};
use crate::support::normalize::{compact, differing, first_of_each, masked, normal, pretty};
use crate::support::qemu;
use serde_json::{Value, json};
use std::fs;

/// Returns the JSON output of a command.
fn json(context: &TestContext, args: &str) -> Value {
    let RunResult { stdout, stderr, .. } = context.run(args);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args}: {error}: {stdout}{stderr}"))
}

#[test]
fn plans_and_their_digests() {
    let Some(context) = context() else { return };
    let plans = |args: &str| json(&context, &format!("plan {args} --json"))["items"].clone();
    let plan = |args: &str| plans(args)[0].clone();
    let base = "6.1.7 --fc --arch amd64 --config mini.config";
    let first = plan(base);
    let mut text = section(
        "Below the first plan: what others have otherwise. The digest is that of the plan",
        &printed(&context, &format!("plan {base} --json")),
    );
    for args in [
        "5.10.77 --fc --arch amd64",
        "6.1 --ch --arch amd64 --require none",
        "6.6.60 --fc --arch arm64 --config mini.config",
        "5.15.12 --ch --arch amd64",
        "6.1.7 --ch --arch arm64 --config mini.config --cross-compile x- --cc gcc",
        "6.1.7 --fc --arch amd64 --source linux-6.1.7.tar.gz --config mini.config --set KSM=n --fragment some.config",
        "5.10.77 --fc --arch amd64 --source linux --config mini.config --patches patches",
        &format!("6.1.7 --ch --arch amd64 --source {GIT} --config mini.config --compression zstd"),
        &format!("{base} --legacy --also-at boot/vmlinux --modules-layout flat --compression none"),
        &format!("{base} --no-modules --launcher ccache --llvm"),
    ] {
        let other = plan(args);
        let mut shown = differing(&other, &first);
        shown["plan"] = differing(&other["plan"], &first["plan"]);
        for image in shown["plan"]["images"].as_array_mut().into_iter().flatten() {
            image.as_object_mut().unwrap().remove("annotations");
        }
        text.push_str(&section(args, &compact(&normal(&context, &pretty(&shown)))));
    }
    let several = plans("6.1.7 6.6.60 --fc --arch amd64 --arch arm64 --config mini.config");
    let digests: Vec<&Value> = several.as_array().unwrap().iter().map(|plan| &plan["digest"]).collect();
    text.push_str(&section("several", &pretty(&json!(digests))));
    compare("plan.txt", &text);
}

#[test]
fn the_catalog_as_json() {
    let Some(context) = context() else { return };
    fs::create_dir_all(context.path("work/own")).unwrap();
    fs::write(
        context.path("work/own/kernels.toml"),
        "[[kernel]]\nversion = \"9.9\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\nnote = \"mine\"\n",
    )
    .unwrap();
    let mut all = json(&context, "list --configs own --json");
    let some = ["4.19", "5.10.77", "5.15.12", "6.1", "9.9"];
    let kernels = all["items"].as_array_mut().unwrap();
    kernels.retain(|kernel| some.contains(&kernel["version"].as_str().unwrap()));
    for kernel in kernels {
        first_of_each(&mut kernel["kubernetes"]["reasons"], &["level"]);
    }
    for list in ["series", "fragments"] {
        all[list].as_array_mut().unwrap().truncate(2);
    }
    all["revision"] = json!("*");
    compare("list.txt", &section("list --configs own --json: some of it", &compact(&pretty(&all))));
}

#[test]
fn doctor_and_clean_as_json() {
    let Some(context) = context() else { return };
    let mut doctor = json(&context, "doctor 6.1.7 --arch arm64 --json");
    for finding in doctor["items"][0]["findings"].as_array_mut().unwrap() {
        for key in ["found", "package"] {
            finding[key] = json!("*");
        }
    }
    doctor["items"][0]["install"] = json!("*");
    let mut text = section("doctor 6.1.7 --arch arm64 --json", &compact(&pretty(&doctor)));
    context.run("6.1.7 --fc --arch amd64 --config mini.config --progress quiet").ok();
    // Half a tree.
    fs::create_dir(context.path("cache/trees/sha256-00")).unwrap();
    for args in ["doctor --cache --json", "clean --cache --builds --dry-run --json"] {
        let mut items = json(&context, args);
        // Sizes depend on the file system, and the order on times that are nearly equal.
        items["items"].as_array_mut().unwrap().sort_by_key(|item| item["path"].to_string());
        let text_of = normal(&context, &pretty(&items));
        let text_of = masked(&text_of, "\"bytes\": ", |c| c.is_ascii_digit());
        let text_of = masked(&text_of, "\"unused_seconds\": ", |c| c.is_ascii_digit());
        text.push_str(&section(args, &compact(&text_of)));
    }
    compare("host.txt", &text);
}

#[test]
fn configs_and_requirements_as_json() {
    let Some(context) = context() else { return };
    fs::write(context.path("work/a"), "CONFIG_NF_NAT_IPV4=m\nCONFIG_A=y\nCONFIG_B=m\n").unwrap();
    fs::write(context.path("work/b"), "CONFIG_NF_NAT=m\nCONFIG_B=y\nCONFIG_C=\"c\"\n").unwrap();
    let check = |args: &str| {
        let args = format!("check {args} --arch amd64 --kernel 6.1.7 --all --json");
        let mut checked = json(&context, &args);
        first_of_each(&mut checked["outcomes"], &["level", "verdict"]);
        section(&format!("{args}: some of it"), &compact(&normal(&context, &pretty(&checked))))
    };
    let text = [
        check("mini.config --for firecracker"),
        check("a --for firecracker,kubernetes-1.37"),
        printed(&context, "config diff a b --json"),
        printed(
            &context,
            "config show 6.1.7 --fc --arch amd64 --source linux-6.1.7.tar.gz --config mini.config --json",
        ),
    ];
    compare("config.txt", &text.concat());
}

#[test]
fn an_added_kernel_as_json() {
    let Some(context) = context() else { return };
    fs::create_dir_all(context.path("work/own/firecracker")).unwrap();
    let config =
        format!("{CONFIG}CONFIG_PSI=y\nCONFIG_NOWHERE=y\nCONFIG_MINI_NEEDS_ABSENT=y\nCONFIG_OLD=m\n");
    fs::write(context.path("work/own/firecracker/linux-x86_64-6.1.config"), config).unwrap();
    let renames = "[[rename]]\nold = \"OLD\"\nnew = [\"VETH\"]\nsince = \"6.6\"\n\
                   [[rename]]\nold = \"NOWHERE\"\nsince = \"6.6\"\nnote = \"always there\"\n";
    fs::write(context.path("work/own/renames.toml"), renames).unwrap();
    let mut text = printed(&context, "add 6.6.60 --fc --arch amd64 --from 6.1 --configs own --json");
    for name in ["kernels.toml", "kcompile.lock"] {
        text.push_str(&section(name, &fs::read_to_string(context.path("work/own").join(name)).unwrap()));
    }
    compare("add.txt", &text);
}

#[test]
fn boot_reports_as_json() {
    if !has_tool("gcc") || !has_tool("mke2fs") {
        return;
    }
    let Some(mut context) = context() else { return };
    context.run("6.1.7 --fc --arch amd64 --config mini.config --progress quiet").ok();
    qemu::install(&mut context);
    let boot = |console: &str, then: &str, args: &str| {
        qemu::set_console(&context, console, then);
        context.run(&format!("boot 6.1.7 --fc --accel tcg --json {args}"))
    };
    let good = qemu::good_console();
    let faults = good
        .replace("loaded 0 0", "loaded 0 19")
        .replace("loaded 1 0", "loaded 1 8")
        .replace("check nftables 0 ", "check nftables 95 a rule with a counter")
        .replace(
            "[    4.0]",
            "[    3.5] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n[    3.5] ---[ end trace 0 ]---\n[    4.0]",
        );
    let start = "[    0.0] Linux version 6.1.7\n";
    let panic = format!(
        "{start}[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
    );
    let oops = good
        .replace(
            "[    4.0]",
            "[    3.5] BUG: kernel NULL pointer dereference, address: 0\n[    3.5] Oops: 0000\n[    4.0]",
        )
        .replace("[    3.0] kcompile: check veth 0 \n", "[    3.0] kcompile: check veth 77 \n");
    let first = boot(&good, "", "--root initramfs").ok().stdout;
    let mut text = section("a good boot", &compact(&normal(&context, &first)));
    let first = serde_json::from_str(&first).unwrap();
    for (name, ran) in [
        ("faults", boot(&faults, "", "")),
        ("an oops", boot(&oops, "", "--require none")),
        ("a panic", boot(&panic, "", "--require none")),
        ("a machine that dies", boot(start, "echo 'qemu: no such thing' >&2; exit 3", "--require none")),
        ("a hang", boot(start, "sleep 1000", "--time-limit 5 --require none")),
    ] {
        let mut other: Value = serde_json::from_str(&ran.failed(1, &[]).stdout).unwrap();
        first_of_each(&mut other["checks"], &["verdict"]);
        let heading = format!("{name}: what is otherwise than in the first");
        text.push_str(&section(&heading, &compact(&normal(&context, &pretty(&differing(&other, &first))))));
    }
    compare("boot.txt", &text);
}
