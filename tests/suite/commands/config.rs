//! `kcompile config`: final configs shown and compared; the user's own edited and written back.

use crate::support::context::{CONFIG, Ran, World, have, ran, skipped};
use crate::support::servers::mirror;
use camino::Utf8PathBuf;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const KEPT: &str = "configs/firecracker/linux-x86_64-6.1.config";
const LINUX: &str = "--source ../linux";

/// A config under headings, for the miniature tree.
fn kept() -> String {
    format!(
        "# --- A kernel that people keep\n{CONFIG}\n# --- Others\n# left out by will\n# CONFIG_VETH is not set\n"
    )
}

/// A world with a project in `work/own` that has a config for 6.1, and the tree `work/linux` of 6.1.7.
fn project() -> World {
    let world = World::new();
    fs::create_dir_all(world.path("work/own/configs/firecracker")).unwrap();
    fs::write(world.path("work/own/kcompile.toml"), "flavor = \"firecracker\"\narch = [\"amd64\"]\n")
        .unwrap();
    fs::write(path(&world), kept()).unwrap();
    world.tree("6.1.7", "work/linux");
    world
}

fn path(world: &World) -> Utf8PathBuf {
    world.path("work/own").join(KEPT)
}

fn text(world: &World) -> String {
    fs::read_to_string(path(world)).unwrap()
}

/// `kcompile config`, in the project.
fn config(world: &World, args: &str) -> Ran {
    ran(world.command(&format!("config {args}")).current_dir(world.path("work/own")).output().unwrap())
}

#[test]
fn the_final_config_is_shown_and_no_build_is_touched() {
    let world = project();
    world.tree("6.1.7", "work/own/linux");
    let show = |more: &str| config(&world, &format!("show 6.1.7 --source linux {more}"));
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
    let builds: Vec<String> = walkdir::WalkDir::new(world.path("cache/builds"))
        .max_depth(2)
        .into_iter()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .filter(|name| name.starts_with("kcompile-"))
        .collect();
    assert!(builds.len() == 1 && builds[0].ends_with("-config"), "{builds:?}");
    assert!(!world.path("work/own/out").exists() && text(&world) == kept());
}

#[test]
fn versions_files_and_images_are_compared() {
    let mut world = project();
    let server = mirror(&world, &["6.1.7", "6.2.1"]);
    world.env.insert("KCOMPILE_MIRROR".into(), server.url);
    let later =
        kept().replace("CONFIG_DUMMY=m\n", "CONFIG_PSI=y\n").replace("CONFIG_BRIDGE=m", "CONFIG_BRIDGE=y");
    fs::write(world.path("work/own/configs/firecracker/linux-x86_64-6.2.config"), later).unwrap();
    let told = config(&world, "diff 6.1.7 6.2.1").ok().stdout;
    assert!(
        told.starts_with("6.1.7 for Firecracker on amd64 -> 6.2.1 for Firecracker on amd64\n\nchanged ("),
        "{told}"
    );
    for line in ["  BRIDGE: m -> y", "  DUMMY: m -> n", "  PSI: n -> y"] {
        assert!(told.lines().any(|have| have == line), "{line} is not in {told}");
    }
    // An image has the final config of its kernel in it.
    let build = world.command("6.1.7 --progress quiet").current_dir(world.path("work/own")).output().unwrap();
    ran(build).ok();
    let same = config(&world, "diff 6.1.7 out/firecracker-kernel-modules-amd64:6.1.7").ok().stdout;
    assert!(same.ends_with("\nthe settings are the same\n"), "{same}");
    fs::write(world.path("work/own/a"), "CONFIG_NF_NAT_IPV4=m\nCONFIG_A=y\n# CONFIG_B is not set\n").unwrap();
    fs::write(world.path("work/own/b"), "CONFIG_NF_NAT=m\nCONFIG_C=\"\x1b[2J\"\n").unwrap();
    let files = config(&world, "diff a b").ok().stdout;
    assert_eq!(
        files,
        "a -> b\n\nrenamed (1)\n  NF_NAT_IPV4=m -> NF_NAT=m\n\nnew (1)\n  C=\"?[2J\"\n\ngone (1, and 1 that were off)\n  A=y\n"
    );
    let json: Value = serde_json::from_str(&config(&world, "diff a b --json").ok().stdout).unwrap();
    assert_eq!(json["differences"]["renamed"][0]["new"][0], json!({ "symbol": "NF_NAT", "value": "m" }));
    fs::write(world.path("work/own/none"), "hello\nworld\n").unwrap();
    config(&world, "diff a none").failed(2, &["none: not a kernel config"]);
    config(&world, "diff a nowhere")
        .failed(2, &["nowhere: no such file or directory, and no kernel version"]);
    config(&world, "diff a").failed(2, &["2 values required"]);
}

#[test]
fn an_edited_config_comes_back_in_its_old_headings() {
    let world = project();
    let whole = config(&world, &format!("show 6.1.7 {LINUX}")).ok().stdout;
    let edited = world.path("work/own/edited.config");
    let save = |more: &str| config(&world, &format!("save edited.config 6.1.7 {LINUX} {more}"));
    fs::write(&edited, &whole).unwrap();
    assert!(save("").ok().says("nothing has changed").stdout.is_empty());
    assert_eq!(text(&world), kept());

    // One changes in its place, one goes to its default, two are new, one of them off against its default.
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
    assert_eq!(text(&world), kept());
    let ran = save("").ok().says("note: changed, 6 settings: BRIDGE m -> y, DUMMY m -> n, ");
    assert_eq!(ran.stdout, format!("{KEPT}\n"));
    assert_eq!(text(&world), expected);
    // The kernel makes the same of it.
    assert_eq!(config(&world, &format!("show 6.1.7 {LINUX}")).ok().stdout, changed);
    assert_eq!(fs::read_to_string(&edited).unwrap(), changed);

    // What a build would refuse is said, and written.
    fs::write(&edited, changed.replace("CONFIG_KVM_GUEST=y", "# CONFIG_KVM_GUEST is not set")).unwrap();
    save("").ok().says("the final .config does not meet firecracker: CONFIG_KVM_GUEST is ");
    assert!(!text(&world).contains("KVM_GUEST=y"));
    let left: Vec<String> = world.names("work/own/configs/firecracker");
    assert_eq!(left, ["linux-x86_64-6.1.config"]);
}

#[test]
fn a_config_of_the_catalog_becomes_the_users_own() {
    let world = project();
    fs::remove_file(path(&world)).unwrap();
    let whole = config(&world, &format!("show 6.1.7 {LINUX}")).ok().stdout;
    fs::write(world.path("work/own/x"), whole.replace("# CONFIG_MINI_WARN is not set", "CONFIG_MINI_WARN=y"))
        .unwrap();
    config(&world, &format!("save x 6.1.7 {LINUX} --require none")).ok();
    let ours = include_str!("../../../configs/firecracker/linux-x86_64-6.1.config");
    assert_eq!(text(&world), format!("{ours}\n# --- Test switches\nCONFIG_MINI_WARN=y\n"));
    // A config for a lower version is not changed by editing it for a higher one.
    world.tree("6.2.3", "work/later");
    fs::write(world.path("work/own/x"), whole.replace("# CONFIG_MINI_WARN is not set", "CONFIG_MINI_WARN=m"))
        .unwrap();
    config(&world, "save x 6.2.3 --source ../later --require none").ok();
    assert!(world.path("work/own/configs/firecracker/linux-x86_64-6.2.3.config").is_file());
    // One that no version of the catalog is near enough to begins anew.
    world.tree("4.14.2", "work/old");
    config(&world, "save x 4.14.2 --source ../old --require none").ok();
    let new =
        fs::read_to_string(world.path("work/own/configs/firecracker/linux-x86_64-4.14.2.config")).unwrap();
    assert!(new.contains("# --- Test switches\nCONFIG_MINI_WARN=m\n") && !new.contains("OVERLAYFS"), "{new}");
}

/// `kcompile config edit` on a terminal of its own; `typed` is typed when the menu asks.
fn edit(world: &World, args: &str, typed: &str) -> Ran {
    let kcompile = world.command(&format!("config edit {args} --progress plain"));
    let words: Vec<&str> = kcompile.get_args().map(|word| word.to_str().unwrap()).collect();
    let line = format!("{} {}", kcompile.get_program().to_str().unwrap(), words.join(" "));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear().env("TERM", "vt100");
    script.envs(kcompile.get_envs().filter_map(|(key, value)| Some((key, value?))));
    script.current_dir(world.path("work/own")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    let out = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"setting: ") && out.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    out.read_to_end(&mut said).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    Ran { stdout: String::from_utf8(said).unwrap(), ..ran }
}

/// Is there what `config edit` needs: a terminal, and what kcompile looks for because the kernel's menus want it?
fn can_edit() -> bool {
    let curses = Command::new("sh").args(["-c", "echo '#include <curses.h>' | gcc -E -"]).output().unwrap();
    if !curses.status.success() {
        skipped("there is no curses.h");
    }
    have("script") && curses.status.success()
}

#[test]
fn the_menus_are_the_kernels_own() {
    if !can_edit() {
        return;
    }
    let world = project();
    let edit = |args: &str, typed: &str| edit(&world, args, typed);
    let untouched = edit(&format!("6.1.7 {LINUX}"), "\n").ok().stdout;
    assert!(untouched.contains("setting: ") && untouched.contains("nothing has changed"), "{untouched}");
    let told = edit(&format!("6.1.7 {LINUX}"), "CONFIG_PSI=y\nCONFIG_DUMMY=y\n\n").ok().stdout;
    assert!(told.contains("changed, 2 settings: DUMMY m -> y, PSI n -> y") && told.contains(KEPT), "{told}");
    let expected =
        kept().replace("CONFIG_DUMMY=m", "CONFIG_DUMMY=y") + "\n# --- General setup\nCONFIG_PSI=y\n";
    assert_eq!(text(&world), expected);
    // Ctrl-C is the menu's own business, and ends both of them; nothing is written.
    let ended = edit(&format!("6.1.7 {LINUX}"), "CONFIG_PSI=n\n\x03");
    assert!(ended.code == 130 && ended.stdout.contains("error: interrupted"), "{}", ended.stdout);
    assert_eq!(text(&world), expected);
    // A file by its own name, through a link to it.
    fs::write(world.path("work/own/mine"), CONFIG).unwrap();
    std::os::unix::fs::symlink("mine", world.path("work/own/link")).unwrap();
    edit(&format!("6.1.7 {LINUX} --config link"), "CONFIG_PSI=y\n\n").ok();
    let mine = fs::read_to_string(world.path("work/own/mine")).unwrap();
    assert_eq!(mine, format!("{CONFIG}\n# --- General setup\nCONFIG_PSI=y\n"));
    assert!(world.path("work/own/link").is_symlink());
}

#[test]
fn what_cannot_be_written_back_is_said_before_anything_is_done() {
    let world = project();
    config(&world, "edit 6.1.7").failed(2, &["shows menus on a terminal, and this is none", "config save"]);
    fs::write(world.path("work/own/x"), CONFIG).unwrap();
    config(&world, "save x 6.1.7 6.1.8").failed(2, &["unexpected argument '6.1.8' found"]);
    config(&world, "save x 6.1.7 --arch amd64 --arch arm64").failed(2, &["6.1.7: more than one kernel"]);
    config(&world, "save nowhere 6.1.7").failed(2, &["cannot read", "nowhere"]);
    world
        .run("config save mini.config 6.1.7 --fc")
        .failed(2, &["there is no directory of your own to write to", "--configs DIR"]);
    assert!(!world.path("cache").exists());
}
