//! What leaves the machine (documents beside images and attached to them, lock files, bundles and
//! output) contains no local path and no secret.

use crate::support::context::{CONFIG, RunResult, TestContext, run_result, sha256, write_script};
use crate::support::servers::{self, DIR, respond, serve};
use camino::Utf8Path;
use serde_json::Value;
use std::fs;

const NAME: &str = "firecracker-6.1.7-amd64";
const BIN: &str = "firecracker-kernel-bin-amd64";
const TOKEN: &str = "hush-4711";

/// Returns the files below a directory that contain `text`.
fn holding(dir: &Utf8Path, text: &str) -> Vec<String> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let holds = |path: &std::path::Path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let held = files.filter(|entry| entry.file_type().is_file() && holds(entry.path()));
    held.map(|entry| entry.path().display().to_string()).collect()
}

fn receipt(context: &TestContext, output: &str) -> Value {
    serde_json::from_slice(&fs::read(context.path(output).join(format!("{NAME}.json"))).unwrap()).unwrap()
}

/// Builds with absolute paths, some of them outside the working directory.
fn build_elsewhere(context: &TestContext, more: &str) -> RunResult {
    let tree = context.tree("6.1.7", "sources/deep/linux");
    let kconfig = fs::read_to_string(tree.join("Kconfig")).unwrap();
    fs::write(tree.join("Kconfig"), kconfig + "\nconfig INITRAMFS_SOURCE\n\tstring \"Initramfs\"\n").unwrap();
    fs::write(context.path("sources/own.cpio"), "").unwrap();
    fs::write(context.path("sources/own.config"), format!("{CONFIG}CONFIG_NOBODY_HAS_IT=y\n")).unwrap();
    fs::write(context.path("sources/own.fragment"), "CONFIG_PSI=y\n").unwrap();
    let version = "[ \"$*\" = --version ] && echo \"$0 (own) 12.2.0\" && exit";
    write_script(&context.path("sources/bin/own-gcc"), &format!("{version}\nexec gcc \"$@\""));
    let path = |name: &str| context.path(name);
    context.run(&format!(
        "6.1.7 --fc --source {} --config {} --fragment {} {more} -o {} --cache-dir {}",
        path("sources/deep/linux"),
        path("sources/own.config"),
        path("sources/own.fragment"),
        path("sources/out"),
        path("cache"),
    ))
}

#[test]
fn published_documents_contain_no_local_paths() {
    let context = TestContext::new();
    let own = |name: &str| context.path(&format!("sources/{name}"));
    let more = format!("--cc {} --set INITRAMFS_SOURCE=\"{}\"", own("bin/own-gcc"), own("own.cpio"));
    let ran = build_elsewhere(&context, &more).ok();
    // The terminal shows paths.
    let config = context.path("sources/own.config");
    assert!(ran.stderr.contains(&format!("requested by {config}")), "{}", ran.stderr);
    let out = context.path("sources/out");
    assert_eq!(holding(&out, context.path("").as_str()), [""; 0]);
    let receipt = receipt(&context, "sources/out");
    let command = receipt["command"].as_str().unwrap();
    assert_eq!(
        command,
        "kcompile 6.1.7 --fc --arch amd64 --source linux --config own.config --fragment own.fragment --set 'INITRAMFS_SOURCE=\"own.cpio\"' --cc own-gcc"
    );
    let initramfs = "CONFIG_INITRAMFS_SOURCE=\"own.cpio\"";
    assert_eq!(receipt["config_layers"], serde_json::json!(["own.config", "own.fragment", initramfs]));
    assert_eq!(receipt["plan"]["toolchain"]["variables"]["CC"], "own-gcc");
    let finding = receipt["findings"][0].as_str().unwrap();
    assert!(finding.ends_with("(requested by own.config)"), "{finding}");
    // Attachments equal the files beside the layouts.
    let attached = out.join(format!("{BIN}-attest/blobs/sha256"));
    for end in ["json", "spdx.json", "provenance.json", "compiled.json.gz"] {
        let bytes = fs::read(out.join(format!("{NAME}.{end}"))).unwrap();
        assert!(attached.join(sha256(&bytes)).is_file(), "{end}");
    }
}

#[test]
fn the_bill_of_materials_does_not_depend_on_local_paths() {
    let spdx = |context: &TestContext, out: &str| {
        fs::read(context.path(out).join(format!("{NAME}.spdx.json"))).unwrap()
    };
    let plan = |context: &TestContext, out: &str| receipt(context, out)["plan_digest"].clone();
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.tree("6.1.7", "elsewhere/deep/6.1.7");
    let build = |source: &str, out: &str| {
        let mut command =
            context.command(&format!("6.1.7 --fc --config mini.config --source {source} -o {out} --rebuild"));
        run_result(command.env("SOURCE_DATE_EPOCH", "1600000000").output().unwrap()).ok()
    };
    build("linux", "one");
    build(context.path("elsewhere/deep/6.1.7").as_str(), "two");
    assert_eq!(plan(&context, "work/one"), plan(&context, "work/two"));
    assert!(spdx(&context, "work/one") == spdx(&context, "work/two"));

    // The same release, verified by a list of checksums here and by the lock file there.
    let (first, second) = (TestContext::new(), TestContext::new());
    let mirror = servers::mirror(&first, &["6.1.7"]);
    let args = format!("6.1.7 --fc --config mini.config --mirror {}", mirror.url);
    first.run(&args).ok();
    fs::create_dir_all(second.path("cache")).unwrap();
    let lock = ["work/kcompile.lock", "cache/kcompile.lock"].into_iter().find(|at| first.path(at).is_file());
    let lock = lock.unwrap();
    fs::copy(first.path(lock), second.path(lock)).unwrap();
    second.run(&args).ok();
    let verified = |context: &TestContext| receipt(context, "work/out")["source_verified"].clone();
    assert_ne!(verified(&first), verified(&second));
    assert_eq!(plan(&first, "work/out"), plan(&second, "work/out"));
    assert!(spdx(&first, "work/out") == spdx(&second, "work/out"));
}

#[test]
fn mirror_secrets_are_never_stored_or_printed() {
    let context = TestContext::new();
    let tarball = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let path = format!("{DIR}/linux-6.1.7.tar.xz");
    let mirror = serve(move |request, stream| match request.path == format!("/?key={TOKEN}{path}") {
        true => respond(stream, "200 OK", &[], &tarball),
        false => respond(stream, "404 Not Found", &[], b""),
    });
    let silent = |ran: &RunResult| {
        assert!(!ran.stdout.contains(TOKEN) && !ran.stderr.contains(TOKEN), "{}{}", ran.stdout, ran.stderr);
    };
    let (url, mirror) = (&mirror.url, format!("--mirror {}/?key={TOKEN}", mirror.url));
    let args = format!("6.1.7 --fc --config mini.config {mirror}");
    silent(&context.run(&format!("plan {args}")).ok());
    for progress in ["plain", "json"] {
        silent(&context.run(&format!("{args} --rebuild --progress {progress}")).ok());
    }
    silent(&context.run(&format!("fetch 6.1.7 --fc {mirror} --bundle own.bundle")).ok());
    assert_eq!(holding(&context.path("work"), TOKEN), [""; 0]);
    assert_eq!(holding(&context.path("cache"), TOKEN), [""; 0]);
    // Errors name the server without the key.
    for (version, code) in [("6.1.8", 3), ("6.1", 3)] {
        let failed = context.run(&args.replacen("6.1.7", version, 1));
        silent(&failed);
        failed.failed(code, &[url]);
    }
    let nobody =
        format!("6.1.9 --fc --config mini.config --mirror http://127.0.0.1:1/?key={TOKEN} --progress json");
    let failed = context.run(&nobody);
    silent(&failed);
    failed.failed(3, &["cannot fetch http://127.0.0.1:1/"]);
    // Neither do those about a git repository, whose URL is in the lock file and in images.
    let git = context.run(&format!("plan 6.1.7 --fc --source git+https://host/linux.git?token={TOKEN}"));
    silent(&git);
    git.failed(2, &["query"]);
}

#[test]
fn passwords_on_the_command_line_are_redacted() {
    let context = TestContext::new();
    for words in [
        "plan 6.1.7 --fc --source git+http://user:PASSWORD@host/linux.git",
        "plan 6.1.7 --fc --source=git+http://user:PASSWORD@host/linux.git",
        "plan 6.1.7 --fc --source http://user:PASSWORD@host/linux.tar.xz",
        "plan 6.1.7 --fc --source git+https://user:PASS/PASSWORD@host/linux.git",
        "plan 6.1.7 --fc --mirror http://user:PASSWORD@host/",
        "plan 6.1.7 --fc --mirror http://user:PASS/PASSWORD@host/",
        "plan 6.1.7 --fc --config http://user:PASSWORD@host/x.config",
        "plan 6.1.7 --fc --sorce=git+http://user:PASSWORD@host/linux.git",
        "plan 6.1.7 --fc -j http://user:PASSWORD@host/",
        "push http://user:PASSWORD@host/x",
        "inspect http://user:PASSWORD@host/x",
    ] {
        let ran = context.run(words);
        assert_eq!(ran.code, 2, "{words}: {}", ran.stderr);
        assert!(
            !ran.stdout.contains("PASSWORD") && !ran.stderr.contains("PASSWORD"),
            "{words}: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_published_receipt_can_be_rebuilt() {
    let context = TestContext::new();
    let built = build_elsewhere(&context, "").ok();
    let bin = context.path("sources/out").join(BIN);
    let verify = |at: &str| {
        let mut command = context.command(&format!("verify {bin} --rebuild"));
        run_result(command.current_dir(context.path(at)).output().unwrap())
    };
    // This machine finds all inputs from any directory.
    let told = verify("home").ok();
    built.digests().iter().for_each(|digest| assert!(told.stdout.contains(digest), "{}", told.stdout));
    // Another machine looks in the current directory.
    let images = fs::read_dir(context.path("cache/images")).unwrap().map(|entry| entry.unwrap().path());
    images.for_each(|dir| fs::remove_dir_all(dir).unwrap());
    verify("home").failed(
        2,
        &[
            "own.config",
            "hint: run this in the directory of the build, since receipts do not record directories",
        ],
    );
    for name in ["own.config", "own.fragment"] {
        fs::copy(context.path("sources").join(name), context.path("sources/deep").join(name)).unwrap();
    }
    let told = verify("sources/deep").ok();
    built.digests().iter().for_each(|digest| assert!(told.stdout.contains(digest), "{}", told.stdout));
}

#[test]
fn control_characters_of_a_project_are_escaped() {
    const ESCAPE: char = '\u{1b}';
    let clone = |toml: &str| {
        let context = TestContext::new();
        fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
        fs::write(context.path("work/own/kcompile.toml"), toml).unwrap();
        context
    };
    let run = |context: &TestContext, args: &str| {
        let ran = run_result(context.command(args).current_dir(context.path("work/own")).output().unwrap());
        assert!(
            !ran.stdout.contains(ESCAPE) && !ran.stderr.contains(ESCAPE),
            "{args}: {}{}",
            ran.stdout,
            ran.stderr
        );
        ran
    };
    let context = clone("output = \"out\\u001b]0;owned\\u0007\"\n");
    context.tree("6.1.7", "work/linux");
    let args = format!(
        "6.1.7 --fc --source {} --config {}",
        context.path("work/linux"),
        context.path("work/mini.config")
    );
    let refused = run(&context, &args).failed(2, &["kcompile.toml", "output", "\\u{1b}]0;owned"]);
    assert!(!refused.stderr.contains("Compile"), "{}", refused.stderr);
    // The other values of the file, and file names of the repository.
    let context = clone("mirror = [\"https://host/\\u001b[2J\"]\nrequire = [\"\\u001b[2J\"]\n");
    run(&context, "plan 6.1.7 --fc").failed(2, &["profile"]);
    let context = clone("mirror = [\"https://host/\\u001b[2J\"]\n");
    fs::create_dir_all(context.path("work/own/configs/fragments")).unwrap();
    fs::create_dir(context.path("work/own/patches")).unwrap();
    let patch = "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n";
    fs::write(context.path("work/own/patches/\u{1b}[2J.patch"), patch).unwrap();
    let entry =
        "[[patch]]\nfile = \"\\u001b[2J.patch\"\nfrom = \"6.1\"\nbefore = \"6.2\"\nreason = \"\\u001b[2J\"\n";
    fs::write(context.path("work/own/patches/series.toml"), entry).unwrap();
    fs::write(context.path("work/own/configs/fragments/\u{1b}[2J.config"), "# \u{1b}[2J\nCONFIG_PSI=y\n")
        .unwrap();
    let kernel = "[[kernel]]\nversion = \"9.9\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\n\
                  notes = \"\\u001b[2J\"\n";
    fs::write(context.path("work/own/configs/kernels.toml"), kernel).unwrap();
    for args in
        ["plan 6.1.7 --fc", "plan 6.1.7 --fc --json", "list", "list --json", "fetch 6.1.7 --fc --dry-run"]
    {
        run(&context, args);
    }
}
