//! Builds a kernel whose build scripts try to do more than build.

use crate::support::context::{TestContext, has_tool, skipped, write_script};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

/// A kernel whose build scripts look around, and what they look for.
struct Prying {
    context: TestContext,
    args: String,
    output: String,
    _listeners: (TcpListener, UnixListener, UnixListener),
}

impl Prying {
    fn new() -> Prying {
        let mut context = TestContext::new();
        context.env.insert("SECRET".into(), "in the environment".into());
        context.tree("6.1.7", "work/linux");
        fs::write(context.path("home/SECRET"), "in the home directory").unwrap();
        fs::create_dir_all(context.path("other")).unwrap();
        let agent = context.path("home/agent");
        // Paths of contexts differ.
        let magic = format!("magic-{}", kcompile::internals::Sha256::of(agent.as_str()).short());
        let listeners = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            UnixListener::bind(&agent).unwrap(),
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&magic).unwrap()).unwrap(),
        );
        let settings = [
            ("HOME_DIR", context.path("home").into_string()),
            ("CACHE_DIR", context.path("cache").into_string()),
            ("OTHER_DIR", context.path("other").into_string()),
            ("AGENT", agent.into_string()),
            ("ABSTRACT", magic.clone()),
            ("PORT", listeners.0.local_addr().unwrap().port().to_string()),
            // The program that searches must not find itself.
            ("MAGIC", magic.replacen('m', "[m]", 1)),
        ];
        let settings: String = settings.iter().map(|(key, value)| format!("{key}='{value}'\n")).collect();
        fs::write(context.path("work/linux/pry.sh"), settings).unwrap();
        let args = format!("6.1.7 --fc --source linux --config mini.config --set MINI_PRY=y -o {magic}");
        Prying { context, args, output: format!("work/{magic}"), _listeners: listeners }
    }

    /// Returns what the scripts reached.
    fn reached(&self) -> Vec<String> {
        let builds = walkdir::WalkDir::new(self.context.path("cache/builds")).into_iter().flatten();
        let found = builds.into_iter().find(|entry| entry.file_name() == "pry.txt").unwrap();
        let text = fs::read_to_string(found.path()).unwrap();
        assert!(text.lines().count() == 18, "{text}");
        fs::remove_file(found.path()).unwrap();
        let reached = text.lines().filter_map(|line| line.strip_suffix(": yes")).map(str::to_owned);
        // Directories above bind mounts belong to the sandbox, so writes to them are lost.
        let is_real = |what: &String| match what.as_str() {
            "cache" | "other" => fs::remove_file(self.context.path(what).join("pried")).is_ok(),
            _ => true,
        };
        reached.filter(is_real).collect()
    }

    /// Returns what the sandbox isolated, from the receipt.
    fn walls(&self) -> Value {
        let text = fs::read(self.context.path(&self.output).join("firecracker-6.1.7-amd64.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["sandbox"].clone()
    }

    /// Checks that the daemon it started ended with make.
    fn nothing_is_left(&self) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let works_in = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            assert!(
                !works_in.starts_with(self.context.path("")),
                "{} is left running",
                entry.path().display()
            );
        }
    }
}

/// What build scripts can do on this host without a sandbox.
const ALL: [&str; 11] = [
    "network",
    "agent",
    "abstract",
    "home",
    "source",
    "cache",
    "other",
    "host",
    "processes",
    "environs",
    "signals",
];

#[test]
fn build_scripts_cannot_reach_outside_the_sandbox() {
    let prying = Prying::new();
    let Prying { context, args, .. } = &prying;
    let open = context.run(&format!("{args} --sandbox off")).ok();
    // Without a sandbox all of this is reachable, except the environment and the terminal.
    let mut reached: Vec<String> = prying.reached();
    reached.retain(|what| what != "capabilities");
    assert_eq!(reached, [&ALL[..], &["daemon"]].concat());
    assert_eq!(prying.walls()["network"], "host");
    prying.nothing_is_left();

    let closed = context.run(&format!("{args} --sandbox on --rebuild"));
    if closed.code == 4 {
        skipped("no namespaces: the kernel's scripts cannot be kept from anything");
        return;
    }
    let closed = closed.ok();
    assert_eq!(prying.reached(), ["private", "temporary", "daemon"]);
    // Including the environment, root's capabilities and the terminal.
    println!("escapes from the sandbox: {} tried, all held", ALL.len() + 4);
    assert_eq!(
        prying.walls(),
        json!({
            "asked": "on", "network": "none", "source": "read-only", "home": "private", "files": "listed",
            "processes": "own", "capabilities": "none", "why": null
        })
    );
    prying.nothing_is_left();
    assert!(context.names("cache/tmp").is_empty());
    assert_eq!(closed.digests(), open.digests());
}

/// An ordinary user, and root and such a user without user namespaces (inside a namespace that
/// forbids them).
#[test]
fn the_sandbox_holds_for_root_and_other_users() {
    if !rustix::process::geteuid().is_root() || !has_tool("setpriv") {
        skipped("only root can become another user");
        return;
    }
    let none = "echo 0 > /proc/sys/user/max_user_namespaces; exec";
    let as_root = format!("{none} \"$0\" \"$@\"");
    let as_user =
        format!("{none} setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all \"$0\" \"$@\"");
    let ways = [
        (vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], 0),
        (vec!["unshare", "--user", "--map-root-user", "sh", "-c", &as_root], 0),
        (
            vec![
                "unshare",
                "--user",
                "--map-user=1000",
                "--map-group=1000",
                "--keep-caps",
                "sh",
                "-c",
                &as_user,
            ],
            4,
        ),
    ];
    for (who, code) in ways {
        let prying = Prying::new();
        let Prying { context, args, .. } = &prying;
        if who[0] == "setpriv" {
            let owned = Command::new("chown").args(["-R", "65534:65534", context.path("").as_str()]).status();
            assert!(owned.unwrap().success());
        }
        let ran = context.run_by(&who, &format!("{args} --sandbox on"));
        assert_eq!(ran.code, code, "{who:?}: {}", ran.stderr);
        if code == 0 {
            assert_eq!(prying.reached(), ["private", "temporary", "daemon"], "{who:?}");
        } else {
            ran.says("--sandbox on: ").says("sudo sysctl -w user.max_user_namespaces=");
            context.run_by(&who, args).ok().says("no sandbox: ");
            assert_eq!(prying.walls()["processes"], "host");
        }
    }
}

#[test]
fn build_scripts_cannot_type_into_the_terminal() {
    if !has_tool("script") {
        return;
    }
    for sandbox in ["on", "off"] {
        let prying = Prying::new();
        let Prying { context, args, .. } = &prying;
        let build = context.command(&format!("{args} --sandbox {sandbox}"));
        let words = build.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        let line = format!("{} {words}", build.get_program().to_str().unwrap());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(context.path("work")).env_clear();
        script.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let script = script.env("TERM", "xterm").stdin(Stdio::null()).output().unwrap();
        assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stdout));
        let reached = prying.reached();
        assert!(
            !reached.iter().any(|what| ["terminal", "typing"].contains(&&**what)),
            "{sandbox}: {reached:?}"
        );
    }
}

#[test]
fn launchers_that_need_the_network_keep_it() {
    let prying = Prying::new();
    let Prying { context, args, .. } = &prying;
    // A launcher with another name that only runs its arguments.
    let launcher = context.path("home/distcc");
    write_script(&launcher, "exec \"$@\"");
    let args = format!("{args} --launcher {launcher}");
    context
        .run(&format!("{args} --sandbox on"))
        .failed(2, &["--sandbox on: ", "distcc works through the network", "--sandbox auto"]);
    context.run(&args).ok().says("no sandbox: ");
    assert!(prying.reached().contains(&"network".to_owned()));
    assert!(prying.walls()["why"].as_str().unwrap().contains("works through the network"));
}

#[test]
fn without_namespaces_sandbox_auto_warns_and_on_fails() {
    let prying = Prying::new();
    let Prying { context, args, .. } = &prying;
    // First in PATH, like a host that does not allow namespaces.
    write_script(&context.path("tools/bwrap"), "echo 'bwrap: not here' >&2; exit 1");
    let path = format!("PATH={}:{}", context.path("tools"), std::env::var("PATH").unwrap());
    let with_path = |args: &str| context.run_by(&["env", &path], args);
    with_path(&format!("{args} --sandbox on"))
        .failed(4, &["--sandbox on: bwrap: not here", "user namespaces"]);
    with_path(args).ok().says("no sandbox: ").says("bwrap: not here");
    assert_eq!(prying.reached()[..2], ["network", "agent"]);
    let told = with_path("doctor 6.1.7").ok().stdout;
    assert!(told.contains("optional bwrap                bwrap: not here\n"), "{told}");
}

/// Programs outside system directories are visible, and so are files that the config and links
/// name.
#[test]
fn the_sandbox_shows_what_the_build_needs() {
    let mut context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    // A link out of the source by way of another link.
    fs::create_dir_all(context.path("outside/real")).unwrap();
    fs::rename(tree.join("init/main.c"), context.path("outside/real/main.c")).unwrap();
    symlink("real", context.path("outside/link")).unwrap();
    symlink("../../../outside/link/main.c", tree.join("init/main.c")).unwrap();
    // A link into a file system that the sandbox replaces.
    let shared_memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let header = shared_memory.path().join("mini.h");
    fs::write(&header, "#define IN_SHARED_MEMORY 1\n").unwrap();
    symlink(&header, tree.join("include/shm.h")).unwrap();
    let main = context.path("outside/real/main.c");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}\n#include <shm.h>\nconst int kcompile_test = IN_SHARED_MEMORY;\n"))
        .unwrap();
    // A compiler with a file outside its directory of programs.
    fs::create_dir_all(context.path("gcc/share")).unwrap();
    fs::write(context.path("gcc/share/options"), "").unwrap();
    write_script(
        &context.path("gcc/bin/gcc"),
        "cat \"${0%/*}/../share/options\" >/dev/null || exit; PATH=/usr/bin:/bin exec gcc \"$@\"",
    );
    context
        .env
        .insert("PATH".into(), format!("{}:{}", context.path("gcc/bin"), std::env::var("PATH").unwrap()));
    let built = context.build("--sandbox on");
    if built.code == 4 {
        skipped("no namespaces: there is no sandbox here");
        return;
    }
    built.ok();
}

#[test]
fn images_built_without_the_sandbox_are_not_reused_with_it() {
    let context = TestContext::new();
    let open = context.build("--sandbox off").ok().digests();
    context.build("").ok().says("nothing to do");
    let closed = context.build("--sandbox on");
    if closed.code == 4 {
        skipped("no namespaces: there is no whole sandbox here");
        return;
    }
    let closed = closed.ok().says("Compile: done");
    assert!(!closed.stderr.contains("6.1.7, 0 steps"), "objects are no better: {}", closed.stderr);
    assert_eq!(closed.digests(), open);
    context.build("--sandbox on --rebuild").ok().says("6.1.7, 0 steps");
    context.build("--sandbox on").ok().says("nothing to do");
}

/// No image contains the output of `uname` and `hostname`.
#[test]
fn the_sandbox_does_not_affect_the_output() {
    let context = TestContext::new();
    let digests = context.build("").ok().digests();
    let ways: [&[&str]; 2] = [
        &[
            "unshare",
            "--user",
            "--map-root-user",
            "--uts",
            "sh",
            "-c",
            "hostname elsewhere && exec \"$0\" \"$@\"",
        ],
        &["setarch", "--uname-2.6"],
    ];
    for way in ways {
        let tried = std::process::Command::new(way[0]).args(&way[1..]).arg("true").output();
        if !tried.is_ok_and(|it| it.status.success()) {
            skipped(&format!("{} does not work here", way[0]));
            continue;
        }
        let args = "6.1.7 --fc --source linux --config mini.config --cache-dir other -o other --rebuild";
        assert_eq!(context.run_by(way, args).ok().digests(), digests);
        kcompile::internals::remove_tree(&context.path("work/other")).unwrap();
    }
}
