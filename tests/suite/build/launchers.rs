//! Runs real compiler caches and farms on loopback. Launchers must not affect the output.

use crate::support::context::{TestContext, has_tool, write_script};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

const ARGS: &str = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.gz";

fn context() -> TestContext {
    let context = TestContext::new();
    context.tarball("6.1.7", "gz");
    context
}

/// Returns the statistics of the compiler cache in the receipt in `out`.
fn counted(context: &TestContext, out: &str) -> serde_json::Value {
    let receipt = fs::read(context.path(&format!("work/{out}/firecracker-6.1.7-amd64.json"))).unwrap();
    serde_json::from_slice::<serde_json::Value>(&receipt).unwrap()["compiler_cache"].clone()
}

/// Returns a port on which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn ccache_hits_from_another_directory_and_keeps_the_output() {
    if !has_tool("ccache") {
        return;
    }
    let mut context = context();
    let plain = context.run(&format!("{ARGS} --cache-dir plain -o plain-out")).ok().digests();
    context.env.insert("CCACHE_DIR".into(), context.path("ccache").into_string());
    // Settings that loosen its checks are overridden.
    context.env.insert("CCACHE_SLOPPINESS".into(), "time_macros,include_file_mtime,file_macro".into());
    context.env.insert("CCACHE_BASEDIR".into(), "/".into());
    let cold = context.run(&format!("{ARGS} --launcher ccache --cache-dir one -o one-out")).ok();
    let counts = counted(&context, "one-out");
    assert!(counts["hits"] == 0 && counts["misses"].as_u64().unwrap() > 10, "{counts}");
    let warm = context.run(&format!("{ARGS} --launcher ccache --cache-dir in/another/place -o two-out")).ok();
    let again = counted(&context, "two-out");
    assert_eq!((&again["hits"], &again["misses"]), (&counts["misses"], &0.into()), "{again}");
    let line = format!("cache           {} hits, 0 misses (100.0 % hits)", counts["misses"]);
    warm.says(&line);
    assert_eq!(cold.digests(), plain);
    let digests = |out: &str| {
        fs::read(context.path(&format!("work/{out}/firecracker-kernel-bin-amd64/index.json"))).unwrap()
    };
    assert_eq!(digests("two-out"), digests("plain-out"));
}

#[test]
fn none_is_no_launcher() {
    let context = context();
    let plan = |more: &str| context.run(&format!("plan {ARGS} {more}"));
    assert_eq!(plan("--launcher none").ok().stdout, plan("").ok().stdout);
    context.run(&format!("{ARGS} --launcher none")).ok();
    let mut empty = context.command(&format!("plan {ARGS} --launcher"));
    crate::support::context::run_result(empty.arg(" ").output().unwrap())
        .failed(2, &["'--launcher <COMMAND>': expected a command such as ccache, or none"]);
}

#[test]
fn ccache_ignores_unsafe_user_settings() {
    if !has_tool("ccache") {
        return;
    }
    let mut context = context();
    let path = std::env::var("PATH").unwrap();
    fs::create_dir(context.path("ccache")).unwrap();
    let compiler = context.path("bin/gcc");
    write_script(&compiler, &format!("PATH='{path}' exec gcc \"$@\""));
    for (name, run) in [("gcc", format!("PATH='{path}' exec gcc")), ("prefix", "exec".to_owned())] {
        let program = context.path("other").join(name);
        write_script(&program, &format!("touch '{}'\n{run} \"$@\"", context.path("called")));
    }
    let settings = "compiler_check = none\nignore_options = -O*\nprefix_command = OTHER/prefix\n\
        prefix_command_cpp = OTHER/prefix\n";
    context.env.insert("CCACHE_DIR".into(), context.path("ccache").into_string());
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("bin")));
    for (choice, dir) in [("compiler = OTHER/gcc\n", "one"), ("path = OTHER\n", "two")] {
        let settings = format!("{settings}{choice}").replace("OTHER", context.path("other").as_str());
        fs::write(context.path("ccache/ccache.conf"), settings).unwrap();
        context.run(&format!("{ARGS} --launcher ccache --cache-dir {dir} -o {dir}-out")).ok();
        assert!(!context.path("called").exists(), "{choice}");
    }
    // The other compiler has the same version output.
    write_script(&compiler, &format!("PATH='{path}' exec gcc \"$@\" -O1"));
    context.run(&format!("{ARGS} --launcher ccache --cache-dir three -o three-out")).ok();
    let counts = counted(&context, "three-out");
    assert!(counts["hits"] == 0 && counts["misses"].as_u64().unwrap() > 10, "{counts}");
}

#[test]
fn sccache_does_not_return_the_config_of_another_kernel() {
    if !has_tool("sccache") {
        return;
    }
    let mut context = context();
    let settings = ["--set PSI=y", "--set PSI=n"];
    let plain = settings
        .map(|set| context.run(&format!("{ARGS} {set} --cache-dir plain -o plain-out")).ok().digests());
    context.env.insert("SCCACHE_DIR".into(), context.path("sccache").into_string());
    context.env.insert("SCCACHE_SERVER_PORT".into(), free_port().to_string());
    context.env.insert("SCCACHE_IDLE_TIMEOUT".into(), "5".into());
    let cached = ["one", "two"].map(|dir| {
        settings.map(|set| {
            let args = format!("{ARGS} {set} --launcher sccache --cache-dir {dir} -o {dir}-out");
            context.run(&args).ok().says("  cache           ").digests()
        })
    });
    assert_eq!(cached, [plain.clone(), plain]);
    let counts = counted(&context, "two-out");
    assert!(counts["misses"] == 0, "{counts}");
}

/// Returns a context with a script in place of sccache. Its server starts by the shell commands `start` and keeps
/// objects at `location`. The environments of the server and of its clients are in the files `server` and `clients`.
fn with_sccache(start: &str, location: &str) -> TestContext {
    let mut context = context();
    let stats = format!(r#"{{"stats": {{}}, "cache_location": "{location}"}}"#);
    let (server, clients) = (context.path("server"), context.path("clients"));
    write_script(
        &context.path("bin/sccache"),
        &format!(
            "case $1 in\n\
             --start-server) env >'{server}'; {start} ;;\n\
             --show-stats) echo '{stats}' ;;\n\
             *) env >>'{clients}'; exec \"$@\" ;;\n\
             esac"
        ),
    );
    let path = format!("{}:{}", context.path("bin"), std::env::var("PATH").unwrap());
    let variables = [
        ("PATH", path.as_str()),
        ("SCCACHE_REDIS_ENDPOINT", "redis://cache.example"),
        ("SCCACHE_REDIS_PASSWORD", "swordfish"),
        ("AWS_SECRET_ACCESS_KEY", "swordfish"),
    ];
    context.env.extend(variables.map(|(key, value)| (key.to_owned(), value.to_owned())));
    context
}

#[test]
fn only_the_server_of_sccache_gets_its_storage() {
    let context = with_sccache("exit 0", "redis");
    context.run(&format!("{ARGS} --launcher sccache")).ok();
    let read = |name: &str| fs::read_to_string(context.path(name)).unwrap();
    let server = read("server");
    for variable in [
        "SCCACHE_REDIS_ENDPOINT=redis:",
        "SCCACHE_REDIS_PASSWORD=swordfish",
        "AWS_SECRET_ACCESS_KEY=swordfish",
    ] {
        assert!(server.contains(variable), "{variable}: {server}");
    }
    // Make runs the kernel's scripts.
    assert!(!read("clients").contains("swordfish"));
}

#[test]
fn an_sccache_server_without_its_storage_is_refused() {
    let failing = "echo 'sccache: error: Server startup failed: cannot read' >&2; exit 2";
    with_sccache(failing, "").run(&format!("{ARGS} --launcher sccache")).failed(
        4,
        &["sccache's server does not start: Server startup failed: cannot read", "hint: check the variables"],
    );
    let running = "echo 'sccache: error: Server startup failed: Address in use' >&2; exit 2";
    with_sccache(running, "Local disk: /cache")
        .run(&format!("{ARGS} --launcher sccache"))
        .failed(4, &["the running sccache server does not use the storage", "sccache --stop-server"]);
    with_sccache(running, "redis").run(&format!("{ARGS} --launcher sccache")).ok();
}

/// A cache that only checks the compiler would return objects of an older assembler.
#[test]
fn changing_the_assembler_invalidates_cached_objects() {
    let mut context = context();
    let path = std::env::var("PATH").unwrap();
    context.env.insert("CCACHE_DIR".into(), context.path("ccache").into_string());
    context.env.insert("SCCACHE_DIR".into(), context.path("sccache").into_string());
    context.env.insert("SCCACHE_SERVER_PORT".into(), free_port().to_string());
    context.env.insert("SCCACHE_IDLE_TIMEOUT".into(), "5".into());
    let caches: Vec<&str> = ["ccache", "sccache"].into_iter().filter(|cache| has_tool(cache)).collect();
    for cache in &caches {
        let args = format!("{ARGS} --launcher {cache} --cache-dir old-{cache} -o old-{cache}-out");
        context.run(&args).ok();
    }
    // Like an upgrade of the package binutils, whose tools come together.
    let linker = context.path("bin/ld");
    let other = "case $1 in --version) echo 'GNU ld (GNU Binutils) 2.99'; exit;; esac";
    write_script(&linker, &format!("{other}\nPATH='{path}' exec ld \"$@\""));
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("bin")));
    for cache in caches {
        let out = format!("new-{cache}-out");
        context.run(&format!("{ARGS} --launcher {cache} --cache-dir new-{cache} -o {out}")).ok();
        let counts = counted(&context, &out);
        assert!(counts["hits"] == 0 && counts["misses"].as_u64().unwrap() > 10, "{cache}: {counts}");
    }
}

/// A distccd that is killed when the value is dropped.
struct Farm(Child, u16);

impl Farm {
    fn start(context: &TestContext) -> Farm {
        let port = free_port();
        let mut command = Command::new("distccd");
        command.args([
            "--no-detach",
            "--daemon",
            "--listen",
            "127.0.0.1",
            "--allow",
            "127.0.0.1",
            "--jobs",
            "2",
        ]);
        // Without this, Debian's distccd only runs compilers that its package has linked.
        command.args([
            "--enable-tcp-insecure",
            "--log-stderr",
            "--log-level",
            "notice",
            "--port",
            &port.to_string(),
        ]);
        if rustix::process::geteuid().is_root() {
            command.args(["--user", "nobody"]);
        }
        let log = fs::File::create(context.path("distccd.log")).unwrap();
        let farm =
            Farm(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap(), port);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        farm
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // distccd ends its children on SIGTERM.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_compile_farm_does_not_affect_the_output() {
    if !has_tool("distcc") || !has_tool("distccd") {
        return;
    }
    let mut context = context();
    let plain = context.run(&format!("{ARGS} --cache-dir plain -o plain-out")).ok().digests();
    let farm = Farm::start(&context);
    context.env.insert("DISTCC_HOSTS".into(), format!("127.0.0.1:{}/3 127.0.0.1:{}/50", farm.1, free_port()));
    let cpus = num_cpus::get();
    let jobs = 6.min(4 * cpus).max(cpus);
    let ran = context.run(&format!("{ARGS} --launcher distcc")).ok();
    assert_eq!(ran.digests(), plain);
    let ran = ran.says(&format!("make -j{jobs} vmlinux")).says("note: distcc: no answer from 127.0.0.1:");
    assert!(!ran.stderr.contains("warning:"), "{}", ran.stderr);
    let log = BufReader::new(fs::File::open(context.path("distccd.log")).unwrap());
    let compiled = log.lines().filter(|line| line.as_ref().unwrap().contains("COMPILE_OK")).count();
    assert!(compiled > 10, "{compiled} of its own");
    // The user's -j wins.
    context.run(&format!("{ARGS} --launcher distcc --rebuild -j 2")).ok().says("make -j2 vmlinux");
}

#[test]
fn an_unreachable_farm_falls_back_to_local_compilation() {
    if !has_tool("distcc") {
        return;
    }
    let mut context = context();
    let plain = context.run(&format!("{ARGS} --cache-dir plain -o plain-out")).ok().digests();
    let dead = format!("127.0.0.1:{}/4", free_port());
    context.env.insert("DISTCC_HOSTS".into(), dead.clone());
    let ran = context.run(&format!("{ARGS} --launcher distcc")).ok();
    let ran = ran.says("warning: no distcc machine answered, so this machine compiled everything");
    let ran = ran.says(&format!("note: distcc: no answer from {dead}"));
    assert_eq!(ran.digests(), plain);
    // With several kernels, each receipt has the statistics of its own build.
    let ran = context.run(&format!("6.1.7 {ARGS} --launcher distcc --rebuild -o several")).ok();
    for kernel in ["6.1.7", "6.1.7 #2"] {
        let told = format!("[{kernel}] warning: no distcc machine answered");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    }
    let receipt = fs::read_to_string(context.path("work/several/firecracker-6.1.7-amd64.json")).unwrap();
    assert!(receipt.contains("no distcc machine answered") && !receipt.contains(&dead), "{receipt}");
}

#[test]
fn offline_builds_do_not_contact_a_farm() {
    let context = context();
    for launcher in ["distcc", "icecc", "sccache"] {
        context
            .run(&format!("{ARGS} --offline --launcher {launcher}"))
            .failed(2, &[&format!("--offline: {launcher} needs the network"), "hint: "]);
    }
}

#[test]
fn offline_builds_do_not_contact_ccache_remote_storage() {
    if !has_tool("ccache") {
        return;
    }
    let mut context = context();
    let server = crate::support::servers::files([]);
    context.env.insert("CCACHE_DIR".into(), context.path("ccache").into_string());
    context.env.insert("CCACHE_REMOTE_STORAGE".into(), server.url.clone());
    let args = format!("{ARGS} --launcher ccache --sandbox off");
    context.run(&format!("{args} --offline --cache-dir one")).ok();
    assert_eq!(*server.log.lock().unwrap(), [""; 0]);
    context.env.remove("CCACHE_REMOTE_STORAGE");
    fs::write(context.path("ccache/ccache.conf"), format!("remote_storage = {}\n", server.url)).unwrap();
    context.run(&format!("{args} --offline --cache-dir two")).ok();
    assert_eq!(*server.log.lock().unwrap(), [""; 0]);
    // A server that does not keep objects.
    let built = context.run(&format!("{args} --cache-dir three --set PSI=y")).ok();
    built.says("warning: the compiler cache had ");
    assert!(!server.log.lock().unwrap().is_empty(), "this ccache asks such a server");
}
