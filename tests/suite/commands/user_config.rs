//! The user's own defaults in `config.toml`, and the defaults of a project for a build.

use crate::support::context::{RunResult, TestContext, run_result, skipped};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

/// Writes the user config.
fn configure(context: &TestContext, text: &str) {
    fs::create_dir_all(context.path("home/.config/kcompile")).unwrap();
    fs::write(context.path("home/.config/kcompile/config.toml"), text).unwrap();
}

/// Runs kcompile without KCOMPILE_CACHE_DIR, which tests usually set.
fn run(context: &TestContext, args: &str) -> RunResult {
    run_result(context.command(args).env_remove("KCOMPILE_CACHE_DIR").output().unwrap())
}

#[test]
fn the_command_line_and_the_environment_override_the_user_config() {
    let mut context = TestContext::new();
    configure(
        &context,
        "cache_dir = \"~/big\"\nmirror = [\"https://user.example\"]\ncolor = \"always\"\nlauncher = \"ccache\"\n",
    );
    assert_eq!(run(&context, "cache dir").ok().stdout.trim(), context.path("home/big").as_str());
    assert_eq!(context.run("cache dir").ok().stdout.trim(), context.path("cache").as_str());
    assert!(run(&context, "cache dir --cache-dir x").ok().stdout.trim().ends_with("work/x"));
    let mirror = |context: &TestContext, args: &str| {
        let plan = run(context, &format!("plan 6.1 --fc {args}")).ok().stdout;
        plan.lines().find_map(|line| Some(line.trim().strip_prefix("from ")?.to_owned())).unwrap()
    };
    assert_eq!(mirror(&context, ""), "https://user.example");
    assert_eq!(mirror(&context, "--mirror https://typed.example"), "https://typed.example");
    fs::write(context.path("work/kcompile.toml"), "mirror = [\"https://project.example\"]\n").unwrap();
    assert_eq!(mirror(&context, ""), "https://project.example");
    context.env.insert("KCOMPILE_MIRROR".into(), "https://environment.example".into());
    assert_eq!(mirror(&context, ""), "https://environment.example");
    assert!(run(&context, "list").ok().stdout.contains("\u{1b}["));
    assert!(!run(&context, "list --color auto").ok().stdout.contains("\u{1b}["));
    context.env.insert("NO_COLOR".into(), "1".into());
    assert!(!run(&context, "list").ok().stdout.contains("\u{1b}["));
    // XDG_CONFIG_HOME is another directory.
    context.env.insert("XDG_CONFIG_HOME".into(), context.path("xdg").into_string());
    assert!(run(&context, "cache dir").ok().stdout.contains("home/.cache/kcompile"));
}

#[test]
fn a_build_has_the_jobs_the_progress_and_the_launcher_of_the_user_config() {
    let context = TestContext::new();
    configure(&context, "jobs = 3\nprogress = \"json\"\nlauncher = \"ccache\"\n");
    fs::create_dir_all(context.path("work/keys")).unwrap();
    let built = context.build("--timings=json --launcher none").ok();
    assert!(built.stderr.lines().all(|line| line.starts_with('{')), "{}", built.stderr);
    let timings = context.names("work/out").into_iter().find(|name| name.ends_with("timings.json")).unwrap();
    let timings: Value =
        serde_json::from_slice(&fs::read(context.path("work/out").join(timings)).unwrap()).unwrap();
    assert_eq!(timings["jobs"], 3);
    let plain = context.build("--progress plain --rebuild --launcher none -o plain").ok();
    assert!(!plain.stderr.contains("{\""), "{}", plain.stderr);
    let needs_ccache = |context: &TestContext| {
        let told = run_result(context.command("doctor 6.1 --json").output().unwrap());
        let json: Value = serde_json::from_str(&told.stdout).unwrap();
        json["items"][0]["findings"].as_array().unwrap().iter().any(|found| found["name"] == "ccache")
    };
    assert!(needs_ccache(&context));
    // A project's launcher comes first.
    fs::write(context.path("work/kcompile.toml"), "launcher = \"none\"\n").unwrap();
    assert!(!needs_ccache(&context));
    // A default that needs the network does not stop a build without it.
    fs::write(context.path("work/kcompile.toml"), "launcher = \"distcc\"\n").unwrap();
    let offline = "plan 6.1.7 --fc --source linux --config mini.config --offline";
    context.run(offline).ok();
    context.run(&format!("{offline} --launcher distcc")).failed(2, &["distcc needs the network"]);
}

#[test]
fn mistakes_in_the_user_config_name_file_and_key() {
    let context = TestContext::new();
    for (text, says) in [
        ("cachedir = \"x\"\n", &["config.toml", "unknown field `cachedir`", "did you mean `cache_dir`?"][..]),
        ("flavor = \"firecracker\"\n", &["unknown field `flavor`"]),
        ("jobs = 0\n", &["line 1", "jobs"]),
        ("progress = \"loud\"\n", &["unknown variant `loud`"]),
        ("launcher = \"/tmp/evil\"\n", &["unknown variant `/tmp/evil`", "`ccache`"]),
        ("mirror = [\"ftp://x\"]\n", &["not an http or https URL"]),
    ] {
        configure(&context, text);
        context.run("list").failed(2, says);
    }
    configure(&context, "keyring = [\"missing.asc\"]\n");
    context.run("plan 6.1 --fc").failed(2, &["keyring in config.toml: cannot read", "kcompile/missing.asc"]);
}

#[test]
fn a_user_config_that_others_may_have_written_is_refused() {
    let context = TestContext::new();
    configure(&context, "jobs = 1\n");
    let file = context.path("home/.config/kcompile/config.toml");
    context.run("list").ok();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
    context.run("list").failed(2, &["everybody can write this file", "chmod o-w"]);
    fs::write(&file, vec![b'#'; 70_000]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    context.run("list").failed(2, &["config.toml", "larger than 65536 bytes"]);
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    context.run("list").failed(2, &["not a regular file, but a named pipe"]);
    fs::remove_file(&file).unwrap();
    symlink("/dev/zero", &file).unwrap();
    context.run("list").failed(2, &["not a regular file, but a device"]);
    fs::remove_file(&file).unwrap();
    context.run("list").ok();
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give files to another user");
    }
    configure(&context, "jobs = 1\n");
    chown(&file, Some(12345), None).unwrap();
    context.run("list").failed(2, &["belongs to another user (12345)", "XDG_CONFIG_HOME"]);
}

#[test]
fn a_project_names_what_build_alone_builds() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.run("build").failed(2, &["no kernel version is given", "kcompile.toml"]);
    let options = "--source linux --config mini.config --json";
    let typed = context
        .run(&format!("plan 6.1.7 --fc {options} --fragment xfs --set PSI=y --set DUMMY=n"))
        .ok()
        .item();
    let project = "version = \"6.1.7\"\nflavor = \"firecracker\"\nfragment = [\"xfs\"]\nset = [\"PSI=y\"]\n";
    fs::write(context.path("work/kcompile.toml"), project).unwrap();
    let of_project = |args: &str| context.run(&format!("{args} {options} --set DUMMY=n")).ok().item();
    assert_eq!(of_project("build --dry-run")["digest"], typed["digest"]);
    assert_eq!(of_project("plan")["digest"], typed["digest"]);
    // A receipt repeats the project's settings.
    assert_eq!(of_project("plan --fragment xfs --set PSI=y")["digest"], typed["digest"]);
    fs::write(context.path("work/kcompile.toml"), project.replace("\"6.1.7\"", "[\"6.1.7\", \"6.6.1\"]"))
        .unwrap();
    let two = context
        .run(&format!("plan {options} --offline"))
        .failed(2, &["the source is Linux 6.1.7, but 6.6.1 was requested"]);
    assert!(two.stdout.is_empty());
    fs::write(
        context.path("work/kcompile.toml"),
        "version = \"6.1.7\"\nflavor = \"firecracker\"\nset = [\"DUMMY=n\"]\n",
    )
    .unwrap();
    context.run("build --source linux --config mini.config").ok();
    context.run("verify out/firecracker-kernel-bin-amd64 --rebuild").ok();
    let config = context.run("config show --source linux --config mini.config 6.1.7").ok().stdout;
    assert!(config.contains("# CONFIG_DUMMY is not set"), "{config}");
}

#[test]
fn a_project_names_no_program_no_key_and_no_path() {
    let context = TestContext::new();
    for (text, says) in [
        ("launcher = \"./evil\"\n", &["unknown variant `./evil`"][..]),
        ("launcher = \"ccache evil\"\n", &["unknown variant `ccache evil`"]),
        ("keyring = [\"theirs.asc\"]\n", &["unknown field `keyring`", "config.toml"]),
        ("cache_dir = \"/\"\n", &["unknown field `cache_dir`", "config.toml"]),
        ("cc = \"evil\"\n", &["unknown field `cc`"]),
        ("fragment = [\"../../etc/passwd\"]\n", &["not the name of a fragment"]),
        ("set = [\"garbage\"]\n", &["kcompile.toml: set: ", "garbage"]),
        ("flavour = \"firecracker\"\n", &["did you mean `flavor`?"]),
    ] {
        fs::write(context.path("work/kcompile.toml"), text).unwrap();
        context.run("plan 6.1 --fc").failed(2, says);
    }
}
