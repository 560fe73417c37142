//! Compilers that are missing or do not work, and their names in what people read.

use crate::support::context::{RunResult, TestContext, has_tool, write_script};

fn lacks(context: &TestContext, args: &str) -> RunResult {
    context.build(&format!("--arch amd64 {args}")).failed(4, &[])
}

#[test]
fn a_missing_compiler_is_named_and_its_headers_are_not() {
    let context = TestContext::new();
    if !has_tool("gcc") {
        return;
    }
    for command in ["nocc", "env nocc", "nocc -m64", "env X=1 nocc -m64"] {
        let ran = run_cc(&context, command);
        assert!(ran.stderr.starts_with("error: this host lacks nocc\nhint: "), "{}", ran.stderr);
        assert!(ran.stderr.contains("--cc") && !ran.stderr.contains("install it with"), "{}", ran.stderr);
    }
}

/// Builds with a compiler whose command has several words.
fn run_cc(context: &TestContext, command: &str) -> RunResult {
    context.tree("6.1.7", "work/linux");
    let mut build = context.command("6.1.7 --fc --arch amd64 --source linux --config mini.config --cc");
    let ran = crate::support::context::run_result(build.arg(command).output().unwrap());
    ran.failed(4, &[])
}

#[test]
fn the_programs_of_an_unknown_prefix_have_no_package() {
    let context = TestContext::new();
    let ran = lacks(&context, "--cross-compile foo-");
    assert!(
        ran.stderr.starts_with("error: this host lacks foo-gcc, foo-ld, foo-objcopy\nhint: "),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("--cross-compile") && !ran.stderr.contains("install it with"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_known_prefix_has_its_package_on_any_architecture() {
    let mut context = TestContext::new();
    let path = std::env::var("PATH").unwrap();
    // The host's tools without the cross compiler.
    for program in ["aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld"] {
        if path.split(':').any(|dir| std::path::Path::new(dir).join(program).exists()) {
            context.env.insert("PATH".into(), context.path("nothing").into_string());
        }
    }
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !os.lines().any(|line| ["ID=debian", "ID=ubuntu", "ID_LIKE=debian"].contains(&line)) {
        crate::support::context::skipped("the packages are those of Debian");
        return;
    }
    let ran = lacks(&context, "--cross-compile aarch64-linux-gnu-");
    assert!(
        ran.stderr.contains("aarch64-linux-gnu-gcc") && ran.stderr.contains(" gcc-aarch64-linux-gnu"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_program_that_is_no_compiler_is_named() {
    let context = TestContext::new();
    write_script(&context.path("bin/broken"), "exit 1");
    let ran = lacks(&context, &format!("--cc {}", context.path("bin/broken")));
    let error = format!("error: `{} --version` fails", context.path("bin/broken"));
    assert!(ran.stderr.starts_with(&error), "{}", ran.stderr);
}

#[test]
fn people_read_the_compilers_name() {
    let context = TestContext::new();
    if !has_tool("gcc") {
        return;
    }
    context.build("--arch amd64").ok();
    let plan = "plan 6.1.7 --fc --arch amd64 --source linux --config mini.config";
    let text = context.run(plan).ok().stdout;
    assert!(text.contains(" cc: gcc (") && text.contains(" hostcc: gcc ("), "{text}");
    // Programs compare what they have always read.
    let json = context.run(&format!("{plan} --json")).ok().item();
    let identity = json["plan"]["toolchain"]["identity"]["cc"].as_str().unwrap();
    assert!(identity.starts_with('('), "{identity}");
    let bin = "out/firecracker-kernel-bin-amd64";
    let text = context.run(&format!("inspect {bin}")).ok().stdout;
    assert!(text.contains("cc: gcc ("), "{text}");
}
