//! Golden files of error messages with hints, for mistakes of each exit code.

use crate::support::context::{CONFIG, TestContext, compress, run_result};
use crate::support::fixtures::{replace, tar_with};
use crate::support::golden::{compare, context, section};
use crate::support::normalize::{masked, plain};
use std::fs;

/// Returns the error that ends a command, which is standard error from the line of the error on.
fn message(context: &TestContext, args: &str) -> String {
    message_in(context, "work", args)
}

fn message_in(context: &TestContext, dir: &str, args: &str) -> String {
    let ran = run_result(context.command(args).current_dir(context.path(dir)).output().unwrap());
    assert_ne!(ran.code, 0, "kcompile {args} did not fail: {}{}", ran.stdout, ran.stderr);
    let all = plain(context, &ran.stderr);
    let at = all.rfind("\nerror: ").map_or(0, |end| end + 1);
    assert!(all[at..].starts_with("error: "), "kcompile {args}: no error in `{all}`");
    section(&format!("kcompile {args}: exit code {}", ran.code), &all[at..])
}

fn messages(context: &TestContext, all: &[&str]) -> String {
    all.iter().map(|args| message(context, args)).collect()
}

#[test]
fn messages_about_the_command_line() {
    let Some(context) = context() else { return };
    fs::create_dir_all(context.path("work/mine")).unwrap();
    fs::write(context.path("work/mine/thesis.tex"), "").unwrap();
    let text = messages(
        &context,
        &[
            "sixpointone --fc",
            "6.1 --fc --ch",
            "6.1",
            "9.9.3",
            "6.1 --fc --arch riscv",
            "6.1 --fc --set KSM",
            "6.1 --fc -j 0",
            "6.1 --fc --kernel-link ../x",
            "6.1 --fc --launcher nonsense",
            "6.1 --fc --compression lzma",
            "6.1 --fc --require nothing",
            "6.1 --fc --source apt:-o=evil",
            "6.1 --fc --source nowhere.tar.xz",
            "6.1 --fc --mirror ftp://x",
            "6.1 --fc --config nowhere.config",
            "6.1 --fc --patches nowhere",
            "6.1.7 --fc --config mini.config -o mine",
            "6.1.7 --fc --config mini.config -o a:b",
            "6.1.7 --fc --config mini.config -o mini.config",
            "6.1.7 --fc --config mini.config -o /proc/out",
            "6.1.7 --fc --config mini.config --cache-dir mini.config",
            "6.1.7 --fc --config mini.config --cache-dir /proc/cache",
            "6.1.7 --fc --config mini.config --keyring mini.config",
            "6.1.7 --fc --config mini.config --configs mini.config",
            "6.1.7 --fc --fragment linux-6.1.7.tar.gz",
            "6.1.7 --fc --config mini.config --cc false",
            "6.1.7 --fc --config mini.config --cross-compile foo-",
            "config save nowhere 6.1.7 --fc --config mini.config",
            "fetch 6.1.7 --fc --compression zstd",
            "clean --older-than soon",
            "check nowhere",
            "check mini.config --for firecracker",
            "check mini.config --for nobody",
            "check mini.config --kernel 6.1.7 --arch amd64",
            "check 6.1 --fc --kernel 6.1",
            "config diff mini.config nowhere",
            "config edit 6.1.7 --fc --config mini.config",
            "config save mini.config 6.1.7 --fc",
            "add 6.6.60 --fc",
            "inspect nowhere",
            "inspect linux",
            "verify nowhere",
            "boot nowhere",
            "push nowhere",
            "man nothing",
            "completions tcsh",
        ],
    );
    compare("text/errors-usage.txt", &text);
}

#[test]
fn messages_about_files_that_people_edit() {
    let Some(context) = context() else { return };
    let entry = "[[kernel]]\nversion = \"6.6\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\n";
    let profile = "title = \"t\"\nsource = \"s\"\n[[option]]\nsymbols = [\"A\"]\nlevel = \"must\"\n";
    let mut text = String::new();
    for (file, bytes) in [
        ("configs/kernels.toml", &*format!("{entry}status = \"fine\"\n")),
        ("configs/requirements/firecracker.toml", profile),
        ("configs/toolchains.toml", "[[rule]]\nid = \"x\"\ntool = \"gcc\"\nfrom = \"one\"\n"),
        ("configs/renames.toml", "[[rename]]\nold = \"A\"\nsince = \"old\"\n"),
        ("configs/firecracker/linux-x86_64-6.1.config", "CONFIG_A=y\nCONFIG_B=q\n"),
        ("kcompile.toml", "flavor = \"firecracker\"\noutptu = \"x\"\n"),
        ("kcompile.lock", "[[source]]\norigin = 1\n"),
    ] {
        let own = context.path("work/own");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(own.join(file).parent().unwrap()).unwrap();
        fs::write(own.join("kcompile.toml"), "").unwrap();
        fs::write(own.join(file), bytes).unwrap();
        text.push_str(&format!("({file})\n{}", message_in(&context, "work/own", "plan 6.1 --fc")));
    }
    fs::write(context.path("work/x.config"), "hello\nworld\n").unwrap();
    fs::write(context.path("work/arm.config"), "CONFIG_ARM64=y\n").unwrap();
    fs::create_dir(context.path("work/empty")).unwrap();
    text.push_str(&messages(
        &context,
        &[
            "plan 6.1 --fc --config x.config",
            "plan 6.1 --fc --arch amd64 --config arm.config",
            "plan 6.1.7 --fc --config mini.config --patches empty",
            "6.1.7 --fc --config mini.config --source empty",
            "6.1.7 --fc --config mini.config --source linux",
        ],
    ));
    compare("text/errors-files.txt", &text);
}

#[test]
fn messages_about_sources() {
    let Some(context) = context() else { return };
    let tarball = fs::read(context.path("work/linux-6.1.7.tar.gz")).unwrap();
    fs::write(context.path("work/text.tar.xz"), "hello").unwrap();
    fs::write(context.path("work/short.tar.gz"), &tarball[..tarball.len() / 2]).unwrap();
    let tar = tar_with(&[("linux/../../other", tar::EntryType::Regular, b"x")]);
    fs::write(context.path("work/evil.tar.gz"), compress(&tar, "gz")).unwrap();
    fs::create_dir_all(context.path("work/pinned")).unwrap();
    let pin = format!(
        "[[kernel]]\nversion = \"6.1.7\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\n\
         sha256 = \"{}\"\n",
        "0".repeat(64)
    );
    fs::write(context.path("work/pinned/kernels.toml"), pin).unwrap();
    let text = messages(
        &context,
        &[
            "fetch 6.1.8 --fc",
            "fetch 6.3 --fc",
            "fetch latest --fc",
            "fetch 6.1.8 --fc --mirror http://127.0.0.1:1",
            "fetch 6.1.8 --fc --offline",
            "fetch 6.1.7 --fc --offline --from-bundle nowhere.tar",
            "fetch 6.1.7 --fc --offline --from-bundle text.tar.xz",
            "fetch 6.1.7 --fc --require-signature",
            "fetch 6.1.7 --fc --keyring nowhere.asc",
            "fetch 6.1.7 --fc --configs pinned",
            "fetch 6.1.7 --fc --source text.tar.xz",
            "fetch 6.1.7 --fc --source short.tar.gz",
            "fetch 6.1.7 --fc --source evil.tar.gz",
            "fetch 6.1.8 --fc --source linux-6.1.7.tar.gz",
        ],
    );
    compare("text/errors-sources.txt", &text);
}

#[test]
fn messages_about_builds() {
    let Some(mut context) = context() else { return };
    fs::create_dir(context.path("work/bad")).unwrap();
    let patch = "--- a/README\n+++ b/README\n@@ -1,2 +1,2 @@\n no such line\n-nor this\n+x\n";
    fs::write(context.path("work/bad/1.patch"), patch).unwrap();
    fs::create_dir(context.path("work/out-of-tree")).unwrap();
    let escaping = "--- /dev/null\n+++ b/../evil\n@@ -0,0 +1 @@\n+x\n";
    fs::write(context.path("work/out-of-tree/1.patch"), escaping).unwrap();
    fs::write(
        context.path("work/lacking.config"),
        CONFIG.replace("CONFIG_KVM_GUEST=y\n", "# CONFIG_KVM_GUEST is not set\n"),
    )
    .unwrap();
    let build = "6.1.7 --fc --arch amd64 --sandbox off -j1";
    let mut text: String = [
        "--config mini.config --set MINI_NEEDS_ABSENT=y",
        "--config mini.config --set MINI_FAIL=y",
        "--config mini.config --set MINI_FAILS=n",
        "--config mini.config --set MINI_NO_VMLINUX=y",
        "--config mini.config --patches bad",
        "--config mini.config --patches out-of-tree",
        "--config lacking.config",
        "--config mini.config --require kubernetes",
    ]
    .map(|args| message(&context, &format!("{build} {args}")))
    .concat();
    // Only the shell's built-in commands.
    context.env.insert("PATH".into(), context.path("nothing").into_string());
    let lacks = message(&context, "6.1.7 --fc --arch amd64 --config mini.config");
    // The install command depends on the distribution.
    text.push_str(&masked(&lacks, "hint: ", |c| c != '\n'));
    compare("text/errors-builds.txt", &text);
}

#[test]
fn messages_about_images() {
    let Some(context) = context() else { return };
    let build =
        "6.1.7 --fc --arch amd64 --config mini.config --sandbox off --compression none --progress quiet";
    context.run(build).ok();
    let (bin, modules) = ("out/firecracker-kernel-bin-amd64", "out/firecracker-kernel-modules-amd64");
    let mut text: String = [
        format!("inspect {bin}:6.1.8"),
        format!("inspect {bin} {modules} --as capmvm"),
        format!("diff {bin} {modules} --max-bin-size much"),
        format!("diff {bin} nowhere"),
        format!("check {bin} --for docker"),
        format!("boot {bin} --require ipvs"),
        format!("verify {bin}:6.1.8"),
    ]
    .iter()
    .map(|args| message(&context, args))
    .collect();
    // A flipped byte in the largest blob, which is the layer.
    let blobs = context.path("work").join(bin).join("blobs/sha256");
    let mut paths: Vec<_> = blobs.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path()).collect();
    paths.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let layer = paths.last().unwrap();
    let mut bytes = fs::read(layer).unwrap();
    replace(&mut bytes, b"Linux version 6.1.7 ", b"Linux version 6.1.8 ");
    fs::write(layer, bytes).unwrap();
    for command in ["inspect", "boot"] {
        text.push_str(&message(&context, &format!("{command} {bin}")));
    }
    fs::write(context.path("work").join(bin).join("index.json"), "{}").unwrap();
    text.push_str(&message(&context, &format!("inspect {bin}")));
    text.push_str(&message(&context, &format!("{build} --set PSI=y")));
    compare("text/errors-images.txt", &text);
}
