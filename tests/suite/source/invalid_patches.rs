//! Patches that are refused, and what patches need.

use crate::support::context::{TestContext, compress, tar_of};
use crate::support::patching::{CHANGED, FETCH, HUNK, LINES, Patching, diff, one, read};
use std::fs;
use std::process::Command;

#[test]
fn no_hunk_is_silently_ignored() {
    let patching = Patching::new(&[("a.c", LINES.as_bytes())]);
    let second = "@@ -7,4 +7,4 @@\n 7\n-8\n+eight\n 9\n 10\n";
    patching.refused(
        &one(&diff("a.c", &format!("{HUNK}\n{second}"))),
        &["1.patch: git apply: patch fragment without header"],
    );
    patching.refused(
        &one(&diff("a.c", &HUNK.replace("-1,4 +1,4", "-1,5 +1,5"))),
        &["1.patch: git apply: corrupt patch"],
    );
    // A line that was added by hand without updating the count.
    let new = "--- /dev/null\n+++ b/new.c\n@@ -0,0 +1,2 @@\n+1\n+2\n";
    for surplus in ["+3\n", "\\ No newline at end of file\n+3\n"] {
        let says = ["1.patch: the line `+3` comes after a complete hunk", "correct the line counts"];
        patching.refused(&one(&format!("{new}{surplus}")), &says);
    }
    patching.refused(
        &one(&diff("a.c", &format!("{HUNK}-5\n"))),
        &["1.patch: the line `-5` comes after a complete hunk"],
    );
    patching.refused(&one("a cover letter\n"), &["1.patch is not a patch: it contains no change"]);
    let (_, tree) = patching.tree(&one(&diff("a.c", &format!("{HUNK}{second}"))));
    assert_eq!(read(&tree, "a.c").unwrap(), CHANGED.replace('8', "eight"));
}

#[test]
fn no_header_is_silently_ignored() {
    let patching = Patching::new(&[("a.c", LINES.as_bytes()), ("lib/x", b"1\n")]);
    let hunk = diff("a.c", HUNK);
    let mode = "diff --git a/lib/x b/lib/x\n";
    let rename = "diff --git a/lib/x b/lib/y\n";
    let renamed = "similarity index 100%\nrename from lib/x\nrename to lib/y\n";
    let mail = "From 3430294cc556ae3622016bc66ac36a19f663f6f2 Mon Sep 17 00:00:00 2001\n";
    for (line, text) in [
        (mode, format!("{hunk}{mode}\nold mode 100644\nnew mode 100755\n")),
        (rename, format!("{hunk}{rename}{mail}{renamed}")),
        (rename, format!("{hunk}{rename}")),
        ("rename from lib/x\n", format!("{hunk}{renamed}")),
        ("new mode 100755\n", format!("{mode}old mode 100644\n\nnew mode 100755\n{hunk}")),
    ] {
        let line = line.trim_end();
        let reason = if line.starts_with("diff") { "has no change" } else { "is outside a file's header" };
        patching.refused(&one(&text), &[&format!("1.patch: the line `{line}` {reason}")]);
    }
    // Such a line may be a part of a description.
    let described =
        format!("rename from x\n{hunk}-- \n2.39\n\n{mail}\nnew mode 1 for\n---\n{rename}{renamed}");
    let (_, tree) = patching.tree(&one(&described));
    assert_eq!(read(&tree, "lib/y").unwrap(), "1\n");
    assert_eq!(read(&tree, "a.c").unwrap(), CHANGED);
}

#[test]
fn links_submodules_and_paths_out_of_the_tree_are_refused() {
    let patching = Patching::new(&[("a.c", LINES.as_bytes())]);
    let make = |mode: &str, text: &str| {
        format!("diff --git a/x b/x\nnew file mode {mode}\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+{text}\n")
    };
    let unsupported = "1.patch: symbolic links and submodules are not supported: ";
    patching.refused(&one(&make("120000", "/etc/passwd")), &[unsupported, "create mode 120000 x"]);
    patching.refused(&one(&make("160000", &format!("Subproject commit {}", "1".repeat(40)))), &[unsupported]);
    patching.refused(&one("diff --git a/a.c b/a.c\nold mode 100644\nnew mode 120000\n"), &[unsupported]);
    patching.refused(
        &one("diff --git a/x b/x\ndeleted file mode 160000\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-Subproject commit 1\n"),
        &[unsupported],
    );
    let new = |path: &str| format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n");
    for path in ["../x", "d/../../x", "/etc/x", "d/./../x"] {
        patching.refused(&one(&new(path)), &["1.patch: `", "is not a path inside the tree"]);
    }
    for path in [".git/config", "lib/.GIT/x"] {
        patching.refused(&one(&new(path)), &["is a path of a git repository"]);
    }
    let build_dir = new("kcompile-firecracker-amd64/x.o");
    patching.refused(&one(&build_dir), &["a patch adds kcompile-firecracker-amd64"]);
    let existing = diff("a.c", "@@ -0,0 +1 @@\n+x\n").replace("--- a/a.c", "--- /dev/null");
    patching.refused(&one(&existing), &["1.patch: git apply: a.c: already exists"]);
    assert!(!patching.context.path("cache/x").exists());
}

#[test]
fn patches_cannot_write_through_links() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "tree");
    fs::create_dir(tree.join("real")).unwrap();
    fs::write(tree.join("real/a.c"), LINES).unwrap();
    std::os::unix::fs::symlink("real", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("real/a.c", tree.join("link.c")).unwrap();
    fs::write(context.path("work/linux.tar.gz"), compress(&tar_of(&tree, "linux-6.1.7"), "gz")).unwrap();
    let patching = Patching { context };
    for name in ["link/a.c", "link.c", "link/new.c"] {
        patching.refused(&one(&diff(name, HUNK)), &[&format!("1.patch: `{name}` leads through a link")]);
    }
}

#[test]
fn git_is_only_needed_for_patches() {
    let mut patching = Patching::new(&[("a.c", LINES.as_bytes())]);
    let bin = patching.context.path("bin");
    fs::create_dir(&bin).unwrap();
    for dir in std::env::var("PATH").unwrap().split(':').chain(["/usr/sbin", "/sbin"]) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name() != "git" {
                let _ =
                    std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name().to_str().unwrap()));
            }
        }
    }
    let doctor = patching.context.run("doctor 6.1").ok();
    assert!(!doctor.stdout.contains("git"), "{}", doctor.stdout);
    patching.write(&one(&diff("a.c", HUNK)));
    let doctor = patching.context.run("doctor 6.1 --patches p").ok();
    assert!(doctor.stdout.contains("git  "), "{}", doctor.stdout);
    patching.context.env.insert("PATH".into(), bin.into());
    patching.context.run(&FETCH.replace(" --patches p", "")).ok();
    let lacks = ["this host lacks git", "install "];
    patching.context.run(FETCH).failed(4, &lacks);
    patching.context.run(&FETCH.replace("fetch ", "")).failed(4, &lacks);
    assert!(patching.context.run("doctor 6.1 --patches p").failed(4, &[]).stdout.contains("git"));
}

#[test]
fn a_named_pipe_among_the_patches_is_refused() {
    let patching = Patching::new(&[]);
    patching.write(&one(&diff("a.c", HUNK)));
    let pipe = patching.context.path("work/p/2.patch");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    patching.context.run(FETCH).failed(2, &[&format!("{pipe}: not a regular file")]);
}

#[test]
fn a_binary_patch_is_applied_within_bounds() {
    let patching = Patching::new(&[]);
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(args);
        command.current_dir(patching.context.path("repository")).env("HOME", patching.context.path("home"));
        let output = command.output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    fs::create_dir(patching.context.path("repository")).unwrap();
    git(&["init", "-q"]);
    let logo = b"\0\x01\x02 a logo \xff";
    fs::write(patching.context.path("repository/logo.bin"), logo).unwrap();
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "logo"]);
    let patch = git(&["format-patch", "--root", "--stdout"]);
    let (_, tree) = patching.tree(&[("1.patch", &patch)]);
    assert_eq!(fs::read(tree.join("logo.bin")).unwrap(), logo);
    // 3 GiB of zeros in 3 MB.
    let text =
        String::from_utf8(patch).unwrap().replace(&format!("literal {}", logo.len()), "literal 3221225472");
    patching.write(&[("1.patch", text.as_bytes())]);
    patching.context.run(FETCH).failed(1, &["1.patch: git apply: Out of memory"]);
}
