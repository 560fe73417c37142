//! `kcompile config` shows and compares final configs, and edits the user's own.

use crate::support::context::{CONFIG, RunResult, TestContext, has_tool, run_result, skipped};
use crate::support::servers::mirror;
use camino::Utf8PathBuf;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const KEPT: &str = "configs/firecracker/linux-x86_64-6.1.config";
const LINUX: &str = "--source ../linux";

/// Returns a config with section headings for the miniature tree.
fn kept() -> String {
    format!(
        "# --- A kernel that people keep\n{CONFIG}\n# --- Others\n# left out by will\n# CONFIG_VETH is not set\n"
    )
}

/// Returns a context with a project in `work/own` that has a config for 6.1, and the tree
/// `work/linux` of 6.1.7.
fn project() -> TestContext {
    let context = TestContext::new();
    fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
    fs::write(context.path("work/own/kcompile.toml"), "flavor = \"firecracker\"\narch = [\"amd64\"]\n")
        .unwrap();
    fs::write(path(&context), kept()).unwrap();
    context.tree("6.1.7", "work/linux");
    context
}

fn path(context: &TestContext) -> Utf8PathBuf {
    context.path("work/own").join(KEPT)
}

fn text(context: &TestContext) -> String {
    fs::read_to_string(path(context)).unwrap()
}

/// Runs `kcompile config` in the project.
fn config(context: &TestContext, args: &str) -> RunResult {
    run_result(
        context.command(&format!("config {args}")).current_dir(context.path("work/own")).output().unwrap(),
    )
}

#[test]
fn config_show_prints_the_final_config_without_touching_builds() {
    let context = project();
    context.tree("6.1.7", "work/own/linux");
    let show = |more: &str| config(&context, &format!("show 6.1.7 --source linux {more}"));
    let whole = show("").ok().stdout;
    assert!(whole.starts_with("#\n# Automatically generated file; DO NOT EDIT.\n"), "{whole}");
    for line in ["CONFIG_NET=y", "CONFIG_MSDOS_PARTITION=y", "# CONFIG_VETH is not set", "CONFIG_VIRTIO=y"] {
        assert!(whole.lines().any(|have| have == line), "{line} is not in {whole}");
    }
    let minimal = show("--minimal").ok().stdout;
    let has = |line: &str| minimal.lines().any(|have| have == line);
    assert!(has("CONFIG_NET=y") && !has("CONFIG_MSDOS_PARTITION=y") && !has("CONFIG_VIRTIO=y"), "{minimal}");
    let json: Value = serde_json::from_str(&show("--set PSI=y --json").ok().stdout).unwrap();
    assert_eq!((&json["kernel"], &json["symbols"]["PSI"]), (&json!("6.1.7"), &json!("y")));
    show("--set MINI_NEEDS_ABSENT=y").failed(1, &["is missing: depends on MINI_ABSENT (n)"]);
    let builds: Vec<String> = walkdir::WalkDir::new(context.path("cache/builds"))
        .max_depth(2)
        .into_iter()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| name.starts_with("kcompile-"))
        .collect();
    assert!(builds.len() == 1 && builds[0].ends_with("-config"), "{builds:?}");
    assert!(!context.path("work/own/out").exists() && text(&context) == kept());
}

#[test]
fn config_diff_compares_versions_files_and_images() {
    let mut context = project();
    let server = mirror(&context, &["6.1.7", "6.2.1"]);
    context.env.insert("KCOMPILE_MIRROR".into(), server.url);
    let later =
        kept().replace("CONFIG_DUMMY=m\n", "CONFIG_PSI=y\n").replace("CONFIG_BRIDGE=m", "CONFIG_BRIDGE=y");
    fs::write(context.path("work/own/configs/firecracker/linux-x86_64-6.2.config"), later).unwrap();
    let told = config(&context, "diff 6.1.7 6.2.1").ok().stdout;
    assert!(
        told.starts_with("6.1.7 for Firecracker on amd64 -> 6.2.1 for Firecracker on amd64\n\nchanged ("),
        "{told}"
    );
    for line in ["  BRIDGE: m -> y", "  DUMMY: m -> n", "  PSI: n -> y"] {
        assert!(told.lines().any(|have| have == line), "{line} is not in {told}");
    }
    // An image contains the final config of its kernel.
    let build =
        context.command("6.1.7 --progress quiet").current_dir(context.path("work/own")).output().unwrap();
    run_result(build).ok();
    let same = config(&context, "diff 6.1.7 out/firecracker-kernel-modules-amd64:6.1.7").ok().stdout;
    assert!(same.ends_with("\nthe settings are equal\n"), "{same}");
    fs::write(context.path("work/own/a"), "CONFIG_NF_NAT_IPV4=m\nCONFIG_A=y\n# CONFIG_B is not set\n")
        .unwrap();
    fs::write(context.path("work/own/b"), "CONFIG_NF_NAT=m\nCONFIG_C=\"\x1b[2J\"\n").unwrap();
    let files = config(&context, "diff a b").ok().stdout;
    assert_eq!(
        files,
        "a -> b\n\nrenamed (1)\n  NF_NAT_IPV4=m -> NF_NAT=m\n\nnew (1)\n  C=\"?[2J\"\n\nremoved (1, and 1 that were off)\n  A=y\n"
    );
    let json: Value = serde_json::from_str(&config(&context, "diff a b --json").ok().stdout).unwrap();
    assert_eq!(json["differences"]["renamed"][0]["new"][0], json!({ "symbol": "NF_NAT", "value": "m" }));
    fs::write(context.path("work/own/none"), "hello\nworld\n").unwrap();
    config(&context, "diff a none").failed(2, &["none: not a kernel config"]);
    config(&context, "diff a nowhere")
        .failed(2, &["nowhere: no such file or directory, and not a kernel version"]);
    config(&context, "diff a").failed(2, &["2 values required"]);
}

#[test]
fn config_save_keeps_the_sections_of_the_file() {
    let context = project();
    let whole = config(&context, &format!("show 6.1.7 {LINUX}")).ok().stdout;
    let edited = context.path("work/own/edited.config");
    let save = |more: &str| config(&context, &format!("save edited.config 6.1.7 {LINUX} {more}"));
    fs::write(&edited, &whole).unwrap();
    assert!(save("").ok().says("nothing changed").stdout.is_empty());
    assert_eq!(text(&context), kept());

    // One setting changes in place, one returns to its default, and two are new, one of which is
    // off against its default.
    let changed = whole
        .replace("CONFIG_BRIDGE=m", "CONFIG_BRIDGE=y")
        .replace("CONFIG_STP=m", "CONFIG_STP=y")
        .replace("CONFIG_LLC=m", "CONFIG_LLC=y")
        .replace("CONFIG_DUMMY=m", "# CONFIG_DUMMY is not set")
        .replace("# CONFIG_PSI is not set", "CONFIG_PSI=y")
        .replace("CONFIG_EFI_PARTITION=y", "# CONFIG_EFI_PARTITION is not set");
    fs::write(&edited, &changed).unwrap();
    let expected = kept().replace("CONFIG_BRIDGE=m\n", "CONFIG_BRIDGE=y\n").replace("CONFIG_DUMMY=m\n", "")
        + "# CONFIG_EFI_PARTITION is not set\n\n# --- General setup\nCONFIG_PSI=y\n";
    assert_eq!(save("--dry-run").ok().stdout, expected);
    assert_eq!(text(&context), kept());
    let ran = save("").ok().says("note: changed, 6 settings: BRIDGE m -> y, DUMMY m -> n, ");
    assert_eq!(ran.stdout, format!("{KEPT}\n"));
    assert_eq!(text(&context), expected);
    // The kernel completes it to the same config.
    assert_eq!(config(&context, &format!("show 6.1.7 {LINUX}")).ok().stdout, changed);
    assert_eq!(fs::read_to_string(&edited).unwrap(), changed);

    // A config that a build would refuse is written with a warning.
    fs::write(&edited, changed.replace("CONFIG_KVM_GUEST=y", "# CONFIG_KVM_GUEST is not set")).unwrap();
    save("").ok().says("the final .config does not meet firecracker: CONFIG_KVM_GUEST is ");
    assert!(!text(&context).contains("KVM_GUEST=y"));
    let left: Vec<String> = context.names("work/own/configs/firecracker");
    assert_eq!(left, ["linux-x86_64-6.1.config"]);
}

#[test]
fn config_save_copies_a_catalog_config_to_the_user() {
    let context = project();
    fs::remove_file(path(&context)).unwrap();
    let whole = config(&context, &format!("show 6.1.7 {LINUX}")).ok().stdout;
    fs::write(
        context.path("work/own/x"),
        whole.replace("# CONFIG_MINI_WARN is not set", "CONFIG_MINI_WARN=y"),
    )
    .unwrap();
    config(&context, &format!("save x 6.1.7 {LINUX} --require none")).ok();
    let ours = include_str!("../../../configs/firecracker/linux-x86_64-6.1.config");
    assert_eq!(text(&context), format!("{ours}\n# --- Test switches\nCONFIG_MINI_WARN=y\n"));
    // Editing for a higher version does not change the config of a lower version.
    context.tree("6.2.3", "work/later");
    fs::write(
        context.path("work/own/x"),
        whole.replace("# CONFIG_MINI_WARN is not set", "CONFIG_MINI_WARN=m"),
    )
    .unwrap();
    config(&context, "save x 6.2.3 --source ../later --require none").ok();
    assert!(context.path("work/own/configs/firecracker/linux-x86_64-6.2.3.config").is_file());
    // Without a catalog version that is near enough, the config starts from scratch.
    context.tree("4.14.2", "work/old");
    config(&context, "save x 4.14.2 --source ../old --require none").ok();
    let new =
        fs::read_to_string(context.path("work/own/configs/firecracker/linux-x86_64-4.14.2.config")).unwrap();
    assert!(new.contains("# --- Test switches\nCONFIG_MINI_WARN=m\n") && !new.contains("OVERLAYFS"), "{new}");
}

/// Runs `kcompile config edit` on a terminal of its own. `typed` is typed when the menu asks.
fn edit(context: &TestContext, args: &str, typed: &str) -> RunResult {
    let kcompile = context.command(&format!("config edit {args} --progress plain"));
    let words: Vec<&str> = kcompile.get_args().map(|word| word.to_str().unwrap()).collect();
    let line = format!("{} {}", kcompile.get_program().to_str().unwrap(), words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear().env("TERM", "vt100");
    script.envs(kcompile.get_envs().filter_map(|(key, value)| Some((key, value?))));
    script.current_dir(context.path("work/own")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    let out = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"setting: ") && out.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    out.read_to_end(&mut said).unwrap();
    let ran = run_result(child.wait_with_output().unwrap());
    RunResult { stdout: String::from_utf8(said).unwrap(), ..ran }
}

/// Returns whether `config edit` has what it needs, a terminal and the kernel menus' dependencies.
fn can_edit() -> bool {
    let curses = Command::new("sh").args(["-c", "echo '#include <curses.h>' | gcc -E -"]).output().unwrap();
    if !curses.status.success() {
        skipped("there is no curses.h");
    }
    has_tool("script") && curses.status.success()
}

#[test]
fn config_edit_runs_the_kernels_menuconfig() {
    if !can_edit() {
        return;
    }
    let context = project();
    let edit = |args: &str, typed: &str| edit(&context, args, typed);
    let untouched = edit(&format!("6.1.7 {LINUX}"), "\n").ok().stdout;
    assert!(untouched.contains("setting: ") && untouched.contains("nothing changed"), "{untouched}");
    let told = edit(&format!("6.1.7 {LINUX}"), "CONFIG_PSI=y\nCONFIG_DUMMY=y\n\n").ok().stdout;
    assert!(told.contains("changed, 2 settings: DUMMY m -> y, PSI n -> y") && told.contains(KEPT), "{told}");
    let expected =
        kept().replace("CONFIG_DUMMY=m", "CONFIG_DUMMY=y") + "\n# --- General setup\nCONFIG_PSI=y\n";
    assert_eq!(text(&context), expected);
    // The menu handles Ctrl-C, which ends both programs. Nothing is written.
    let ended = edit(&format!("6.1.7 {LINUX}"), "CONFIG_PSI=n\n\x03");
    assert!(ended.code == 130 && ended.stdout.contains(" interrupted"), "{}", ended.stdout);
    assert_eq!(text(&context), expected);
    // A file given by path, through a link.
    fs::write(context.path("work/own/mine"), CONFIG).unwrap();
    std::os::unix::fs::symlink("mine", context.path("work/own/link")).unwrap();
    edit(&format!("6.1.7 {LINUX} --config link"), "CONFIG_PSI=y\n\n").ok();
    let mine = fs::read_to_string(context.path("work/own/mine")).unwrap();
    assert_eq!(mine, format!("{CONFIG}\n# --- General setup\nCONFIG_PSI=y\n"));
    assert!(context.path("work/own/link").is_symlink());
}

#[test]
fn config_edit_and_save_check_their_input_first() {
    let context = project();
    config(&context, "edit 6.1.7").failed(2, &["needs a terminal", "config save"]);
    fs::write(context.path("work/own/x"), CONFIG).unwrap();
    config(&context, "save x 6.1.7 6.1.8").failed(2, &["unexpected argument '6.1.8' found"]);
    config(&context, "save x 6.1.7 --arch amd64 --arch arm64")
        .failed(2, &["6.1.7 names more than one kernel"]);
    config(&context, "save nowhere 6.1.7").failed(2, &["cannot read", "nowhere"]);
    context
        .run("config save mini.config 6.1.7 --fc")
        .failed(2, &["cannot write a config: no project directory was found", "--configs DIR"]);
    assert!(!context.path("cache").exists());
}

#[test]
fn config_set_edits_the_projects_config_in_place() {
    let context = project();
    let set = |args: &str| config(&context, &format!("set 6.1.7 {LINUX} {args}"));
    let ran = set("PSI=y CONFIG_DUMMY=n").ok();
    assert_eq!(ran.stdout, format!("{KEPT}\n"));
    let expected = kept().replace("CONFIG_DUMMY=m\n", "") + "\n# --- General setup\nCONFIG_PSI=y\n";
    assert_eq!(text(&context), expected);
    set("PSI=y").ok().says("nothing changed");
    // What is needed too is named, and set if it is asked for.
    set("IKCONFIG_PROC=y").failed(1, &["CONFIG_IKCONFIG_PROC=y is missing: depends on IKCONFIG (n)"]);
    assert_eq!(text(&context), expected);
    set("IKCONFIG_PROC=y --with-dependencies").ok().says("also set: CONFIG_IKCONFIG=");
    let has = |line: &str| text(&context).lines().any(|have| have == line);
    assert!(has("CONFIG_IKCONFIG=m") && has("CONFIG_IKCONFIG_PROC=y"), "{}", text(&context));
    set("MINI_NEEDS_ABSENT=y --with-dependencies").failed(1, &["depends on MINI_ABSENT (n)"]);
    set("PSI").failed(2, &["expected SYMBOL=VALUE"]);
}

#[test]
fn config_save_refuses_a_part_or_lays_it_over() {
    let context = project();
    fs::write(context.path("work/own/part"), "CONFIG_PSI=y\n# CONFIG_DUMMY is not set\n").unwrap();
    let save = |args: &str| config(&context, &format!("save part 6.1.7 {LINUX} --require none {args}"));
    save("")
        .failed(2, &["part: only a part of a config: ", "would get their defaults", "--merge", "--whole"]);
    assert_eq!(text(&context), kept());
    save("--merge").ok();
    let expected = kept().replace("CONFIG_DUMMY=m\n", "") + "\n# --- General setup\nCONFIG_PSI=y\n";
    assert_eq!(text(&context), expected);
    save("--whole").ok();
    assert!(!text(&context).contains("CONFIG_BRIDGE=m"), "{}", text(&context));
}

#[test]
fn a_config_of_a_distribution_is_expanded_to_the_same_config_again() {
    let context = project();
    let show = |more: &str| config(&context, &format!("show 6.1.7 {LINUX} {more}")).ok();
    // It is for another release, was made with other tools, and has symbols of the distribution's patches.
    let release = "Linux/x86_64 6.1.167-27.319.amzn2023.x86_64";
    let given =
        show("").stdout.replace("Linux/x86 6.1.7", release).replace("CONFIG_DUMMY=m", "CONFIG_DUMMY=y");
    let tools = "CONFIG_CC_VERSION_TEXT=\"gcc (GCC) 11.5.0 (Red Hat)\"\nCONFIG_GCC_VERSION=110500\n";
    fs::write(context.path("work/own/x.config"), format!("{given}{tools}CONFIG_SYSGENID=y\n")).unwrap();
    let shown = show("--config x.config").says("CONFIG_SYSGENID=y is missing: no such symbol in this kernel");
    config(&context, &format!("save x.config 6.1.7 {LINUX}")).ok();
    assert!(text(&context).contains("CONFIG_DUMMY=y") && !text(&context).contains("GCC_VERSION"));
    assert_eq!(show("").stdout, shown.stdout);
}

#[test]
fn config_diff_of_two_whole_configs_is_a_summary() {
    let context = project();
    let config_of = |value: &str| -> String {
        (0..600).map(|index| format!("CONFIG_X{index}={value}\nCONFIG_{value}{index}=y\n")).collect()
    };
    fs::write(context.path("work/own/a"), config_of("m")).unwrap();
    fs::write(context.path("work/own/b"), config_of("y")).unwrap();
    let summary = config(&context, "diff a b").ok().stdout;
    assert!(summary.lines().count() <= 40, "{summary}");
    for says in ["changed (600)", "new (600)", "removed (600)", " more\n", "--all", "--only"] {
        assert!(summary.contains(says), "{says} is not in {summary}");
    }
    assert!(config(&context, "diff a b --all").ok().stdout.lines().count() > 1800);
    let gone = config(&context, "diff a b --only removed --all").ok().stdout;
    assert!(gone.lines().count() < 610 && gone.contains("removed (600)"), "{gone}");
    config(&context, "diff a b --settable").failed(
        2,
        &[
            "--settable needs a kernel version: a and b have no Kconfig files",
            "hint: give the version of one side",
        ],
    );
    // By the Kconfig files, what has no prompt is left out.
    let whole = config(&context, &format!("show 6.1.7 {LINUX}")).ok().stdout;
    fs::write(
        context.path("work/own/c"),
        whole.replace("CONFIG_PSI", "CONFIG_PSY").replace("CONFIG_64BIT=y", ""),
    )
    .unwrap();
    let settable = config(&context, &format!("diff c 6.1.7 {LINUX} --settable")).ok().stdout;
    assert!(!settable.contains("64BIT") && !settable.contains("PSY"), "{settable}");
}

#[test]
fn config_why_shows_what_kconfig_says() {
    let context = project();
    let why = |args: &str| config(&context, &format!("why 6.1.7 {LINUX} {args}"));
    let text = why("CONFIG_IKCONFIG_PROC MINI_SELECTED MINI_ABSENT").ok().stdout;
    for says in [
        "CONFIG_IKCONFIG_PROC: bool, not in the .config\n  defined at   init/Kconfig:",
        "\n  prompt       Enable access to .config through /proc/config.gz\n",
        "  depends on   IKCONFIG && PROC_FS: not met, IKCONFIG (n)\n",
        "CONFIG_MINI_SELECTED: bool, y\n",
        "  selected by  MINI_SELECTOR (y)\n",
        "  prompt       A symbol that is on whatever .config says\n",
        "CONFIG_MINI_ABSENT: bool, not in the .config\n  defined at   drivers/mini/Kconfig:",
        "\n  prompt       none, so it cannot be set here\n",
    ] {
        assert!(text.contains(says), "{says} is not in {text}");
    }
    let json: Value = serde_json::from_str(&why("MINI_SELECTED --json").ok().stdout).unwrap();
    let symbol = &json["items"][0];
    assert_eq!(symbol["selected_by"][0]["symbol"], "MINI_SELECTOR");
    let definition = &symbol["definitions"][0];
    assert_eq!(definition["prompt_text"], "A symbol that is on whatever .config says");
    assert_eq!(definition["file"], "drivers/mini/Kconfig");
    why("MINI_SELECTEDD")
        .failed(2, &["MINI_SELECTEDD: no such symbol in this kernel (nearest: MINI_SELECTED"]);
}
