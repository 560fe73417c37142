//! Hosts that lack something: processes, /proc, room for the output, text in UTF-8.

use crate::support::context::{RunResult, TestContext, compress, has_tool, run_result, skipped, tar_of};
use crate::support::mounts::mount_namespace_command;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The next user. Each run has its own, since the limit counts all processes of a user.
static USER: AtomicU32 = AtomicU32::new(48_713);
const BUILD: &str = "6.1.7 --fc --source linux --config mini.config -j8";

/// Runs kcompile as another user with at most this many processes and threads. Root has no such limit.
fn run_limited(context: &TestContext, processes: u32, args: &str) -> RunResult {
    let user = USER.fetch_add(1, Ordering::Relaxed).to_string();
    let owned = Command::new("chown").args(["-R", &user, context.path("").as_str()]).status().unwrap();
    assert!(owned.success());
    let user = format!("--reuid={user}");
    let limit = format!("--nproc={processes}");
    context.run_by(&["setpriv", &user, "--clear-groups", "prlimit", &limit], args)
}

/// Returns whether tests can run kcompile as another user.
fn can_limit(context: &TestContext) -> bool {
    if !rustix::process::geteuid().is_root() || !has_tool("setpriv") || !has_tool("prlimit") {
        skipped("only root can become another user");
        return false;
    }
    let runs = run_limited(context, 100, "--version").code == 0;
    if !runs {
        skipped("another user cannot run the program from where it was built");
    }
    runs
}

#[test]
fn a_limit_of_processes_is_an_error_and_nothing_is_half_written() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    if !can_limit(&context) {
        return;
    }
    for processes in [1, 2, 3, 4, 6, 9, 11, 12, 13, 14, 17, 20, 30] {
        let ran = run_limited(&context, processes, BUILD);
        let stderr = &ran.stderr;
        assert!(!stderr.contains("panicked"), "{processes} processes: {stderr}");
        assert!(!stderr.contains("this host lacks"), "{processes} processes: {stderr}");
        if ran.code == 0 {
            assert_eq!(ran.digests().len(), 2);
            break;
        }
        assert!(ran.code == 1 || ran.code == 4, "{processes} processes: {}: {stderr}", ran.code);
        assert!(stderr.contains("error: "), "{processes} processes: {stderr}");
        // On a busy machine make may start with more of them, and fail then.
        assert!(processes >= 9 || ran.code == 4, "{processes} processes: {}: {stderr}", ran.code);
        if processes < 12 {
            ran.says("hint: raise the limit of processes (`ulimit -u`");
        }
        assert!(context.names("work/out").is_empty() && context.names("cache/tmp").is_empty());
    }
    run_limited(&context, 1000, BUILD).ok();
}

/// The threads of an archive are started one after the other, and each may be the one that fails.
#[test]
fn a_limit_of_threads_stops_the_unpacking_of_an_archive() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    if !can_limit(&context) {
        return;
    }
    let fetch = "fetch 6.1.7 --fc --source linux-6.1.7.tar.xz";
    for processes in 1..12 {
        let ran = run_limited(&context, processes, fetch);
        assert!(!ran.stderr.contains("panicked"), "{processes} processes: {}", ran.stderr);
        if ran.code == 0 {
            break;
        }
        ran.failed(4, &["Resource temporarily unavailable", "hint: raise the limit of processes"]);
        assert!(context.names("cache/tmp").is_empty() && context.names("cache/trees").is_empty());
    }
    run_limited(&context, 1000, fetch).ok();
}

#[test]
fn a_name_is_looked_up_without_a_thread() {
    let context = TestContext::new();
    if !can_limit(&context) {
        return;
    }
    for processes in 1..7 {
        let ran = run_limited(&context, processes, "plan latest --fc --mirror http://nowhere.invalid");
        assert!(ran.code == 3 || ran.code == 4, "{processes} processes: {}: {}", ran.code, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{processes} processes: {}", ran.stderr);
    }
}

#[test]
fn a_missing_proc_is_named_and_commands_without_programs_work() {
    let Some(way) = mount_namespace_command() else { return };
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$0\" \"$@\"";
    let run = |args: &str| {
        let program: Vec<&str> = way.iter().copied().chain(["sh", "-c", hide]).collect();
        context.run_by(&program, args)
    };
    for args in [BUILD.to_owned(), format!("{BUILD} --sandbox off"), "doctor 6.1".to_owned()] {
        run(&args)
            .failed(4, &["cannot run programs without /proc/self/exe", "hint: mount /proc in this chroot"]);
    }
    assert!(context.names("work/out").is_empty());
    run("list").ok();
    run("plan 6.1.7 --fc --source linux --config mini.config").ok();
    context.run(BUILD).ok();
    run("verify out/firecracker-kernel-bin-amd64").ok();
}

/// Runs kcompile with standard output and standard error to these files.
fn run_to(context: &TestContext, args: &str, stdout: Stdio, stderr: Stdio) -> RunResult {
    let child = context.command(args).stdout(stdout).stderr(stderr).spawn().unwrap();
    run_result(child.wait_with_output().unwrap())
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let context = TestContext::new();
    context.build("").ok();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let image = "out/firecracker-kernel-bin-amd64:6.1.7";
    for args in [
        "--help",
        "-h",
        "--version",
        "help",
        "help plan",
        "plan --help",
        "completions bash",
        "man",
        "list",
        "list --json",
        "doctor 6.1",
        "cache dir",
        "cache ls",
        "clean --dry-run",
        "check mini.config --for firecracker --kernel 6.1.7 --arch amd64",
        "config diff mini.config mini.config",
        &format!("plan {BUILD}"),
        &format!("plan {BUILD} --json"),
        &format!("config show {BUILD}"),
        BUILD,
        &format!("inspect {image}"),
        &format!("verify {image}"),
        &format!("diff {image} {image}"),
    ] {
        let args = if args.starts_with("config") || args.starts_with("plan") {
            args.replace(" -j8", "")
        } else {
            args.to_owned()
        };
        let hint = "check the file, disk or device that standard output goes to";
        run_to(&context, &args, full(), Stdio::piped())
            .failed(1, &["cannot write to standard output: No space left on device", hint]);
        assert_eq!(run_to(&context, &args, full(), full()).code, 1, "{args}");
    }
    // Warnings and the events of a build go to standard error.
    for args in ["check 6.1 --fc", BUILD, &format!("{BUILD} --progress json")] {
        let ran = run_to(&context, args, Stdio::piped(), full());
        assert_eq!(ran.code, 1, "{args}");
        assert!(!ran.stdout.is_empty(), "{args}");
    }
    // A reader that has read enough closes the pipe.
    let list = context.command("list");
    let closed = run_result(
        Command::new("sh")
            .args(["-c", "{ \"$@\"; echo $? >&2; } | true", "sh"])
            .arg(list.get_program())
            .args(list.get_args())
            .current_dir(context.path("work"))
            .output()
            .unwrap(),
    );
    assert_eq!(closed.stderr, "0\n");
}

#[test]
fn variables_that_are_not_utf_8_are_refused() {
    let context = TestContext::new();
    for name in [
        "KCOMPILE_CACHE_DIR",
        "XDG_CACHE_HOME",
        "HOME",
        "PATH",
        "TMPDIR",
        "KCOMPILE_MIRROR",
        "SOURCE_DATE_EPOCH",
        "https_proxy",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "CCACHE_DIR",
        "DISTCC_HOSTS",
        "REGISTRY_AUTH_FILE",
    ] {
        let mut command = context.command("cache dir");
        command.env(name, OsStr::from_bytes(b"/tmp/\xff"));
        run_result(command.output().unwrap())
            .failed(2, &[&format!("error: {name}: the value of this variable is not UTF-8")]);
    }
    // Nobody reads this one, and make does not see the other.
    let mut command = context.command("cache dir");
    command.env("LS_COLORS", OsStr::from_bytes(b"\xff")).env("MAKEFLAGS", OsStr::from_bytes(b"\xff"));
    run_result(command.output().unwrap()).ok();
}

#[test]
fn a_file_that_is_no_bundle_and_no_keyring_gets_a_hint_and_is_not_quoted() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    fs::write(context.path("work/x.tar.gz"), compress(&tar_of(&tree, "linux"), "gz")).unwrap();
    for file in ["mini.config", "x.tar.gz"] {
        let ran = context.run(&format!("fetch 6.1.7 --fc --from-bundle {file}")).failed(
            3,
            &[
                &format!("/{file}: not a bundle, or damaged\n"),
                "hint: copy the bundle again, or write a new one with `kcompile fetch --bundle FILE`",
            ],
        );
        assert!(!ran.stderr.contains("CONFIG_"), "{}", ran.stderr);
        context.run(&format!("plan 6.1.7 --fc --keyring {file}")).failed(
            2,
            &[
                "not a file of OpenPGP public keys",
                "hint: `gpg --armor --export FINGERPRINT` writes such a file",
            ],
        );
    }
    context
        .run("fetch 6.1.7 --fc --from-bundle nowhere")
        .failed(3, &["error: --from-bundle: cannot read ", "hint: copy the bundle again"]);
    context
        .run("plan 6.1.7 --fc --keyring nowhere")
        .failed(2, &["error: --keyring: cannot read ", "hint: `gpg --armor --export"]);
}
