//! A root directory that has only kcompile in it, as that of a container from scratch. The program of the tests
//! needs its shared libraries there, and a released one does not.

use crate::support::context::{RunResult, TestContext, has_tool, run_result, skipped};
use crate::support::servers::{self, DIR};
use crate::support::tls::Tls;
use std::fs;
use std::process::Command;

const KCOMPILE: &str = env!("CARGO_BIN_EXE_kcompile");

/// Returns whether bubblewrap can make an empty root.
fn can_have_a_root(context: &TestContext) -> bool {
    let works = has_tool("bwrap") && run_in_empty_root(context, "--version").code == 0;
    if !works {
        skipped("bubblewrap cannot make an empty root directory");
    }
    works
}

/// Runs kcompile in a root with nothing but the program, /proc, and the working directory of the test.
fn run_in_empty_root(context: &TestContext, args: &str) -> RunResult {
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--unshare-user-try", "--unshare-pid", "--proc", "/proc"]);
    bwrap.args(["--ro-bind", KCOMPILE, "/kcompile"]);
    for library in shared_libraries() {
        bwrap.args(["--ro-bind", &library, &library]);
    }
    let work = context.path("work");
    bwrap.args([
        "--bind",
        work.as_str(),
        "/work",
        "--chdir",
        "/work",
        "--clearenv",
        "--setenv",
        "HOME",
        "/work",
    ]);
    for (name, value) in &context.env {
        bwrap.args(["--setenv", name, value]);
    }
    bwrap.arg("/kcompile").args(args.split_whitespace());
    run_result(bwrap.output().unwrap())
}

/// Returns the paths that `ldd` prints, none for a static program.
fn shared_libraries() -> Vec<String> {
    let listed = String::from_utf8(Command::new("ldd").arg(KCOMPILE).output().unwrap().stdout).unwrap();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[test]
fn in_an_empty_root_plans_are_made_and_doctor_names_what_is_missing() {
    let context = TestContext::new();
    if !can_have_a_root(&context) {
        return;
    }
    run_in_empty_root(&context, "--help").ok();
    assert!(run_in_empty_root(&context, "list").ok().stdout.contains("6.1"));
    assert!(
        run_in_empty_root(&context, "plan 6.1.7 --fc").ok().stdout.contains("Linux 6.1.7 for Firecracker")
    );
    let doctor = run_in_empty_root(&context, "doctor 6.1.7");
    assert_eq!(doctor.code, 4, "{}", doctor.stderr);
    for missing in ["make", "gcc", "ld", "flex", "bison", "bc", "perl", "stdlib.h", "depmod"] {
        assert!(doctor.stdout.contains(&format!("MISSING  {missing} ")), "{missing}: {}", doctor.stdout);
    }
    run_in_empty_root(&context, "6.1.7 --fc").failed(4, &["error: this host lacks make, gcc, ld"]);
}

#[test]
fn without_the_systems_root_certificates_the_built_in_ones_are_used() {
    let mut context = TestContext::new();
    if !can_have_a_root(&context) || !has_tool("openssl") {
        return;
    }
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let plain = servers::files([(format!("{DIR}/linux-6.1.7.tar.xz"), bytes)]);
    run_in_empty_root(&context, &format!("fetch 6.1.7 --fc --mirror {}", plain.url)).ok();
    // Certificates are verified all the same.
    let tls = Tls::start(&context);
    let url = tls.url.replace("localhost", "127.0.0.1");
    let fetch = format!("fetch 6.1.8 --fc --mirror {url}");
    run_in_empty_root(&context, &fetch).failed(3, &["invalid certificate: UnknownIssuer"]);
    // They do not replace those that the user names.
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        context.env = [(name.to_owned(), "/nowhere".to_owned())].into();
        run_in_empty_root(&context, &fetch).failed(
            4,
            &[&format!("error: cannot set up HTTPS: {name}=/nowhere: no root certificate\n"), "hint: "],
        );
    }
    context.env = [("SSL_CERT_FILE".to_owned(), "/work/cert.pem".to_owned())].into();
    run_in_empty_root(&context, &fetch).failed(3, &["certificate not valid for name"]);
}
