//! Boots with a script instead of QEMU that prints a console. Checks how the console is evaluated
//! and how the machine is configured. scripts/real-kernel uses real ones.

use crate::support::context::{RunResult, TestContext, copy, has_tool, skipped};
use crate::support::fixtures::craft;
use crate::support::qemu::{good_console, install, set_console};
use serde_json::Value;
use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const LAYOUT: &str = "out/firecracker-kernel-bin-amd64";

/// Returns a context with images of the miniature kernel and a script instead of QEMU. The script
/// records its arguments, prints the file `console` and runs the file `then`. Returns `None` if the
/// tools to make a root are missing.
fn context() -> Option<TestContext> {
    static BUILT: LazyLock<TestContext> = LazyLock::new(|| {
        let context = TestContext::new();
        context.build("").ok();
        context
    });
    if !has_tool("gcc") || !has_tool("mke2fs") {
        return None;
    }
    let mut context = TestContext::new();
    copy(&BUILT.path("work/out"), &context.path("work/out"));
    install(&mut context);
    Some(context)
}

fn boot(context: &TestContext, args: &str) -> RunResult {
    context.run(&format!("boot --accel tcg {args}"))
}

#[test]
fn a_good_boot_passes_and_is_reported() {
    let Some(context) = context() else { return };
    let ran = boot(&context, "6.1 --fc").ok();
    for says in [
        "image           firecracker-kernel-bin-amd64:6.1.7\n",
        "machine         QEMU microvm, by software emulation\n",
        "kernel          6.1.7\n",
        "1.25 s to init (kernel clock)",
        "modules         4 loaded, 0 without hardware, 0 refused\n",
        "passed   cgroup2    cgroup v2: cpu memory\n",
        "kernel warnings none\n",
        "result          passed\n",
    ] {
        assert!(ran.stdout.contains(says), "`{says}` is not in:\n{}", ran.stdout);
    }
    let tables = ran.stdout.lines().filter(|line| !line.starts_with("console "));
    assert!(tables.into_iter().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    // The machine resembles Firecracker's, with the kernel of the image.
    let args = fs::read_to_string(context.path("home/args")).unwrap();
    assert!(args.contains("-M\nmicrovm,acpi=off\n-accel\ntcg\n"), "{args}");
    assert!(args.contains("root=/dev/vda rootfstype=ext4 ro init=/init\n"), "{args}");
    let log = context.path("cache/boots/firecracker-kernel-bin-amd64-6.1.7.log");
    assert!(fs::read_to_string(log).unwrap().contains("Linux version 6.1.7"));
    assert!(context.names("cache/tmp").is_empty(), "the files of the machine are gone");
    context.run("clean --builds").ok();
    assert!(context.names("cache/boots").is_empty(), "the console goes with the builds");

    let json = boot(&context, &format!("{LAYOUT}:6.1.7 --root initramfs --json --append quiet")).ok();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["passed"], &json["release"]), (&true.into(), &"6.1.7".into()));
    assert_eq!((&json["seconds_to_init"], &json["accelerator"]), (&1.25.into(), &"emulation".into()));
    assert_eq!((&json["modules"]["loaded"], &json["ending"]["kind"]), (&4.into(), &"completed".into()));
    let args = fs::read_to_string(context.path("home/args")).unwrap();
    assert!(args.contains(" rdinit=/init quiet\n") && args.contains("-initrd\n"), "{args}");
}

#[test]
fn a_command_line_without_modules_is_named() {
    let Some(context) = context() else { return };
    let console = good_console().replace("loaded 0 0", "loaded 0 1").replace("loaded 1 0", "loaded 1 1");
    set_console(&context, &console, "");
    let ran = boot(&context, &format!("{LAYOUT} --append nomodule")).failed(1, &["operation not permitted"]);
    let note = "`nomodule` is on the kernel's command line, as it is on Firecracker's default one";
    assert!(ran.stderr.contains(&format!("note: {note}")), "{}", ran.stderr);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&ran.stdout).contains(note), "{}", ran.stdout);
    // Other words do not matter, nor does it without modules.
    set_console(&context, &good_console(), "");
    for args in ["--append nomodules", "--append nomodule --modules none --require none"] {
        let ran = boot(&context, &format!("{LAYOUT} {args}"));
        assert!(!ran.stderr.contains("command line"), "{args}: {}", ran.stderr);
    }
}

#[test]
fn a_version_is_the_kernel_with_modules_if_both_are_there() {
    let Some(context) = context() else { return };
    context.build("--builtin").ok();
    let ran = boot(&context, "6.1 --fc").ok();
    assert!(ran.stdout.contains("firecracker-kernel-bin-amd64:6.1.7\n"), "{}", ran.stdout);
    let ran = boot(&context, &format!("{LAYOUT}:6.1.7-builtin --require none")).ok();
    assert!(ran.stdout.contains("modules         none\n"), "{}", ran.stdout);
    fs::remove_dir_all(context.path("work/out")).unwrap();
    context.build("--builtin --boot").ok();
    let receipt = fs::read_to_string(context.path("work/out/firecracker-6.1.7-builtin-amd64.json")).unwrap();
    assert!(receipt.contains("\"boot\": {"), "{receipt}");
    let ran = boot(&context, "6.1 --fc --require none").ok();
    assert!(ran.stdout.contains("firecracker-kernel-bin-amd64:6.1.7-builtin\n"), "{}", ran.stdout);
}

#[test]
fn a_minimal_kernel_needs_nothing_of_kubernetes() {
    let Some(context) = context() else { return };
    context.build("--variant minimal --require none").ok();
    let console = good_console().replace("check nftables 0 ", "check nftables 93 nf_tables");
    set_console(&context, &console, "");
    let ran = boot(&context, "6.1 --fc --variant minimal").ok();
    for says in
        ["bin-amd64:6.1.7-minimal\n", "failed   nftables", "passed   overlay", "result          passed\n"]
    {
        assert!(ran.stdout.contains(says), "`{says}` is not in:\n{}", ran.stdout);
    }
    boot(&context, "6.1 --fc --variant minimal --require sandbox,nftables").failed(1, &["nftables ("]);
    // A node's kernel needs it, and a sandbox needs overlayfs.
    boot(&context, "6.1 --fc").failed(1, &["nftables ("]);
    set_console(&context, &good_console().replace("check overlay 0", "check overlay 19"), "");
    boot(&context, "6.1 --fc --variant minimal").failed(1, &["overlay ("]);
    let built = context.build("--variant minimal --require none --boot");
    built.failed(1, &["overlay ("]);
}

#[test]
fn failed_boot_checks_are_named() {
    let Some(context) = context() else { return };
    // A module of another kernel, one without hardware, a failed check and a kernel warning.
    let console = good_console()
        .replace("loaded 0 0", "loaded 0 19")
        .replace(
            "[    2.0] kcompile: loaded 1 0",
            "[    2.0] bridge: version magic '6.1.8 SMP' should be '6.1.7 SMP'\n[    2.0] kcompile: loaded 1 8",
        )
        .replace("check nftables 0 ", "check nftables 95 a rule with a counter")
        .replace(
            "[    4.0]",
            "[    3.5] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n[    3.5] ---[ end trace 0 ]---\n[    4.0]",
        );
    set_console(&context, &console, "");
    let ran = boot(&context, LAYOUT).failed(
        1,
        &[
            "boot of ",
            "exec format error (bridge: version magic '6.1.8 SMP' should be '6.1.7 SMP')",
            "nftables (",
            "a rule with a counter: operation not supported",
            "hint: the console output is in ",
        ],
    );
    for says in [
        "1 without hardware, 1 refused",
        "FAILED   nftables",
        "WARNING: CPU: 0 PID: 1",
        "result          FAILED",
    ] {
        assert!(ran.stdout.contains(says), "`{says}` is not in:\n{}", ran.stdout);
    }
    // Failures that are not required are only shown.
    boot(&context, &format!("{LAYOUT} --require devices,cgroup2")).ok();
    boot(&context, &format!("{LAYOUT} --require none")).ok();
    boot(&context, &format!("{LAYOUT} --require devices --require clean"))
        .failed(1, &["1 kernel warning on the console"]);
    boot(&context, &format!("{LAYOUT} --require nftables")).failed(1, &["nftables"]);
    boot(&context, &format!("{LAYOUT} --require ipvs")).failed(2, &["expected all, none, modules"]);

    set_console(&context, &good_console().replace("release 6.1.7", "release 6.1.8"), "");
    boot(&context, &format!("{LAYOUT} --require none"))
        .failed(1, &["uname reports release 6.1.8, but the image's annotation says 6.1.7"]);
}

#[test]
fn panics_and_early_exits_are_reported_with_console_lines() {
    let Some(context) = context() else { return };
    let start = "[    0.0] Linux version 6.1.7\n";
    for (console, says) in [
        (
            "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
            "the kernel panicked: VFS: Unable to mount root fs on unknown-block(0,0) (no block device was found; virtio-blk",
        ),
        (
            "[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,0)\n",
            "the disk cannot be mounted; ext4 is not built in",
        ),
        (
            "[ 1.0] kcompile: init\n[ 1.0] kcompile: load 1 x\n[ 1.0] BUG: kernel NULL pointer dereference\n\
             [ 1.0] Oops: 0000\n[ 1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x9\n",
            "Attempted to kill init! exitcode=0x9",
        ),
        ("", "the virtual machine ended with exit status: 3, before init started"),
        (
            "[ 1.0] kcompile: init\n[ 1.0] kcompile: load 0 x\n",
            "exit status: 3, while loading kernel/drivers/net/",
        ),
        ("[ 1.0] kcompile: init\n", "exit status: 3, while init ran: qemu: no such thing"),
    ] {
        set_console(&context, &format!("{start}{console}"), "echo 'qemu: no such thing' >&2; exit 3");
        let ran = boot(&context, &format!("{LAYOUT} --require none")).failed(1, &[says]);
        assert!(ran.stdout.contains("last lines      "), "{}", ran.stdout);
    }
    set_console(&context, "", "echo 'qemu: no such machine' >&2; exit 1");
    boot(&context, LAYOUT).failed(1, &["before any output: qemu: no such machine"]);
}

#[test]
fn a_hanging_kernel_is_killed_with_its_machine() {
    let Some(context) = context() else { return };
    let hangs = "sleep 1000 & echo $! >\"$HOME/child\"; wait";
    set_console(
        &context,
        "[ 0.0] Linux version 6.1.7\n[ 1.0] kcompile: init\n[ 1.0] kcompile: load 1 x\n",
        hangs,
    );
    let started = Instant::now();
    boot(&context, &format!("{LAYOUT} --time-limit 5"))
        .failed(1, &["the kernel hangs: not finished after 5.0 s, while loading kernel/"]);
    assert!(started.elapsed() < Duration::from_secs(60));
    let child = fs::read_to_string(context.path("home/child")).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it still runs: {state}");

    // A machine that does not exit after its kernel has ended is not a hang.
    set_console(&context, &good_console(), hangs);
    boot(&context, LAYOUT).ok();
}

#[test]
fn console_output_is_bounded_and_escaped() {
    let Some(context) = context() else { return };
    set_console(
        &context,
        "[ 0.0] \u{1b}[2J\u{1b}]0;gone\u{7}\n[ 1.0] Kernel panic - not syncing: \u{1b}[31mred\n",
        "",
    );
    let ran = boot(&context, LAYOUT).failed(1, &["the kernel panicked: \\u{1b}[31mred"]);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{}", ran.stdout);
    let index = context.path("work").join(LAYOUT).join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let hostile = text.replace("ref.name\":\"6.1.7\"", "ref.name\":\"6.1.7\\u001b]0;gone\\u0007\"");
    fs::write(&index, hostile).unwrap();
    let ran =
        boot(&context, LAYOUT).failed(1, &["Boot: out/firecracker-kernel-bin-amd64:6.1.7\\u{1b}]0;gone"]);
    assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{}", ran.stdout);
    fs::write(&index, text).unwrap();
    for (console, says) in [
        ("", "the kernel printed more than 16 MiB"),
        ("Kernel panic - not syncing: x\n", "the kernel panicked: x"),
    ] {
        set_console(&context, console, "yes '[ 1.0] kcompile: check block 0 and so on'");
        // The log has the same name for every spelling of the layout.
        boot(&context, &format!("{LAYOUT}/")).failed(1, &[says]);
        let log = fs::metadata(context.path("cache/boots/firecracker-kernel-bin-amd64-6.1.7.log")).unwrap();
        assert!(log.len() < 32 << 20, "{}", log.len());
    }
}

#[test]
fn boot_falls_back_to_emulation_when_kvm_hangs() {
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    let Some(context) = context() else { return };
    if kvm.is_err() {
        skipped("/dev/kvm cannot be used here");
        boot(&context, &format!("{LAYOUT} --accel kvm")).failed(4, &["cannot use /dev/kvm for "]);
        return;
    }
    // The first attempt prints nothing and hangs. The second one is good.
    set_console(&context, "", "grep -q '^tcg$' \"$HOME/args\" || sleep 1000\ncat \"$HOME/good\"");
    fs::write(context.path("home/good"), good_console()).unwrap();
    let ran = context.run(&format!("boot {LAYOUT} --time-limit 10")).ok();
    let says = "KVM printed nothing in 10 s; trying software emulation";
    assert!(ran.stderr.contains(says) && ran.stdout.contains("by software emulation"), "{}", ran.stderr);
}

#[test]
fn build_boot_boots_the_packed_image_and_records_it() {
    let Some(context) = context() else { return };
    let receipt = || -> Value {
        let text = fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    // KVM may be tried first, but the script ignores the accelerator.
    let built = context.build("--boot").ok().says("booted on QEMU microvm");
    assert_eq!(built.stdout.lines().count(), 2, "{}", built.stdout);
    assert_eq!(
        (&receipt()["boot"]["passed"], &receipt()["boot"]["release"]),
        (&true.into(), &"6.1.7".into())
    );
    let before = receipt();

    set_console(&context, &good_console().replace("check cgroup2 0", "check cgroup2 19"), "");
    let ran = context
        .build("--boot")
        .failed(1, &["boot of out/firecracker-kernel-bin-amd64:6.1.7 failed: cgroup2 ("]);
    assert_eq!(ran.stdout, built.stdout, "the images are there");
    let after = receipt();
    assert_eq!((&after["boot"]["passed"], &after["plan_digest"]), (&false.into(), &before["plan_digest"]));
    // The rest of the receipt is unchanged.
    assert_eq!((&after["images"], &after["source"]), (&before["images"], &before["source"]));

    // Modules of an earlier build do not belong to this kernel.
    set_console(&context, &good_console().replace("kcompile: load", "load"), "");
    context.build("--no-modules --boot").ok().says("0 of 0 modules");
}

/// Returns an ELF file for x86-64 with one segment at 16 MiB and without a note.
fn elf() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(120, 0);
    file[18] = 62;
    file[32] = 64; // e_phoff
    file[54] = 56; // e_phentsize
    file[56] = 1; // e_phnum
    file[64] = 1; // PT_LOAD
    for at in [24, 64 + 24] {
        file[at..at + 4].copy_from_slice(&0x100_0000_u32.to_le_bytes()); // e_entry, p_paddr
    }
    file
}

#[test]
fn booting_a_malicious_layout_writes_nothing_outside() {
    let Some(context) = context() else { return };
    if cfg!(not(target_arch = "x86_64")) {
        return skipped("the entry of a kernel without PVH is compiled on x86-64");
    }
    fs::create_dir(context.path("victim")).unwrap();
    fs::write(context.path("victim/a.ko"), "as it was").unwrap();
    let layer = |kernel: &[u8], dep: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, "lib/modules/6.1.7/kernel", context.path("victim")).unwrap();
        for (path, bytes) in [
            ("bin/vmlinux", kernel),
            ("lib/modules/6.1.7/kernel/a.ko", b"\x7fELF"),
            ("lib/modules/6.1.7/modules.dep", dep.as_bytes()),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let try_it = |tar: &[u8]| {
        craft(&context, tar, tar, "layer.v1.tar");
        boot(&context, "crafted --fc --arch amd64")
    };
    let ran = try_it(&layer(&elf(), "kernel/a.ko:\n")).ok();
    assert!(ran.stdout.contains("the kernel has no PVH note") && ran.stdout.contains("1 loaded"));
    assert_eq!(fs::read_to_string(context.path("victim/a.ko")).unwrap(), "as it was");

    try_it(&layer(&elf(), "")).failed(3, &["1 module is missing from modules.dep, such as ", "victim/a.ko"]);
    try_it(&layer(b"no kernel", "kernel/a.ko:\n")).failed(3, &["the kernel is a raw binary"]);
    try_it(&layer(&elf()[..100], "kernel/a.ko:\n")).failed(3, &["the kernel is damaged"]);
    try_it(&layer(&elf(), "../../x\n")).failed(3, &["modules.dep, line 1: expected `MODULE: DEPENDENCY…`"]);
    let mut flipped = layer(&elf(), "kernel/a.ko:\n");
    craft(&context, &flipped.clone(), &flipped, "layer.v1.tar");
    flipped[0] ^= 1;
    let blobs = context.path("work/crafted/blobs/sha256");
    let largest = fs::read_dir(&blobs).unwrap().map(|blob| blob.unwrap().path());
    let largest = largest.max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    fs::write(largest, flipped).unwrap();
    boot(&context, "crafted --fc --arch amd64").failed(3, &[]);
    assert!(context.names("cache/tmp").is_empty());
}

#[test]
fn images_that_cannot_boot_are_refused_first() {
    let context = TestContext::new();
    context.run("boot 6.1 --fc").failed(2, &["no image of 6.1 for ", "build it with `kcompile 6.1 --fc`"]);
    context.run("boot nowhere").failed(2, &["no such file or directory, and not a kernel version"]);
    context.run("boot 6.1 --modules x").failed(2, &["--modules x: not an OCI layout"]);
    context.build("").ok();
    context
        .run("boot out/firecracker-kernel-modules-amd64 --accel tcg")
        .failed(2, &["the image has no kernel"]);
    context
        .run(&format!("boot {LAYOUT} --vmm firecracker --accel tcg"))
        .failed(2, &["no software emulation"]);
    let mut empty = context;
    fs::create_dir(empty.path("bin")).unwrap();
    empty.env.insert("PATH".into(), empty.path("bin").into_string());
    // The administrators' directories are also searched, and may have the tools.
    let ran = empty.run(&format!("boot {LAYOUT} --accel tcg"));
    assert!(ran.code == 4 && ran.stderr.contains("this host lacks "), "{}", ran.stderr);
}
