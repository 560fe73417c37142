//! Patches of git, diff, quilt and mail programs.

use crate::support::context::{compress, copy, has_tool};
use crate::support::patching::{CHANGED, FETCH, HUNK, LINES, Patching, diff, one, read};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn renames_in_a_directory_are_applied() {
    let patching = Patching::new(&[
        ("lib/rbtree.c", b"the kernel's\n"),
        ("tools/lib/rbtree.c", LINES.as_bytes()),
        ("top.c", LINES.as_bytes()),
    ]);
    // A pure rename only has these names, which have no prefix.
    let (ran, tree) = patching.tree(&one(
        "diff --git a/tools/lib/rbtree.c b/lib/new.c\nsimilarity index 100%\nrename from tools/lib/rbtree.c\n\
         rename to lib/new.c\n",
    ));
    assert!(!ran.stderr.contains("-p0"), "{}", ran.stderr);
    assert_eq!(read(&tree, "lib/rbtree.c").as_deref(), Some("the kernel's\n"));
    assert_eq!(
        (read(&tree, "lib/new.c").unwrap().as_str(), read(&tree, "tools/lib/rbtree.c")),
        (LINES, None)
    );
    let rename = "diff --git a/tools/lib/rbtree.c b/tools/lib/tree.c\nsimilarity index 90%\n\
                  rename from tools/lib/rbtree.c\nrename to tools/lib/tree.c\nindex 1..2 100644\n\
                  --- a/tools/lib/rbtree.c\n+++ b/tools/lib/tree.c\n";
    let copies =
        "diff --git a/top.c b/lib/copy.c\nsimilarity index 100%\ncopy from top.c\ncopy to lib/copy.c\n";
    // A copy uses the content before the patch.
    let source = format!("diff --git a/top.c b/top.c\nindex 1..2 100644\n{}", diff("top.c", HUNK));
    let (ran, tree) = patching.tree(&one(&format!("{rename}{HUNK}{copies}{source}")));
    assert!(!ran.stderr.contains("-p0"), "{}", ran.stderr);
    assert_eq!(read(&tree, "top.c").unwrap(), CHANGED);
    assert_eq!(read(&tree, "lib/rbtree.c").unwrap(), "the kernel's\n");
    assert_eq!(read(&tree, "tools/lib/rbtree.c"), None);
    assert_eq!(read(&tree, "tools/lib/tree.c").unwrap(), CHANGED);
    assert_eq!(read(&tree, "lib/copy.c").unwrap(), LINES);
    // It never replaces another file.
    patching.write(&one(
        "diff --git a/top.c b/lib/rbtree.c\nsimilarity index 100%\nrename from top.c\nrename to lib/rbtree.c\n",
    ));
    patching.context.run(FETCH).failed(1, &["1.patch: git apply: lib/rbtree.c: already exists"]);
}

#[test]
fn git_and_plain_diffs_can_be_mixed_in_one_patch() {
    let files: Vec<(&str, &[u8])> =
        ["a.c", "lib/b.c", "lib/c.c", "d.c"].map(|name| (name, LINES.as_bytes())).to_vec();
    let patching = Patching::new(&files);
    let git = |name: &str| format!("diff --git a/{name} b/{name}\nindex 1..2 100644\n{}", diff(name, HUNK));
    let parts =
        [git("a.c"), diff("lib/b.c", HUNK), git("lib/c.c"), format!("Index: d.c\n{}", diff("d.c", HUNK))];
    for order in [[0, 1, 2, 3], [1, 0, 3, 2]] {
        let patch: String = order.iter().map(|part| parts[*part].as_str()).collect();
        let (_, tree) = patching.tree(&one(&patch));
        for (name, _) in &files {
            assert_eq!(read(&tree, name).unwrap(), CHANGED, "{name}");
        }
    }
}

/// git would remove the file before it looks for the directory that the other part names.
#[test]
fn diff_may_create_a_file_that_git_removed_before() {
    let patching = Patching::new(&[("a.c", b"x\n"), ("b.c", b"x\n")]);
    let removed = "diff --git a/a.c b/a.c\ndeleted file mode 100644\nindex 1..0\n--- a/a.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    let created = "diff -Nur linux/a.c linux.new/a.c\n--- linux/a.c\t1970-01-01 00:00:00.000000000 +0000\n\
                   +++ linux.new/a.c\t2020-01-01 00:00:00.000000000 +0000\n@@ -0,0 +1 @@\n+y\n";
    let (_, tree) = patching.tree(&one(&format!("{removed}{created}")));
    assert_eq!(read(&tree, "a.c").unwrap(), "y\n");
    assert_eq!(read(&tree, "b.c").unwrap(), "x\n");
}

/// git writes the same name twice if there is no prefix, so a new directory is not taken for one.
#[test]
fn git_patches_without_a_prefix_may_add_directories() {
    let patching = Patching::new(&[("lib/a.c", b"x\n"), ("lib/sub/b.c", b"x\n")]);
    for (path, place) in [
        ("new/Makefile", "new/Makefile"),
        ("new/dir/x.c", "new/dir/x.c"),
        // The top directory has a Kbuild too.
        ("lib/Kbuild", "lib/Kbuild"),
        ("lib/sub/x.c", "lib/sub/x.c"),
        // Somebody wrote the second prefix into both names.
        ("b/new/x.c", "new/x.c"),
        ("tree/lib/x.c", "lib/x.c"),
    ] {
        let patch = format!(
            "diff --git {path} {path}\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+y\n"
        );
        let (ran, tree) = patching.tree(&one(&patch));
        assert_eq!(read(&tree, place).as_deref(), Some("y\n"), "{path}");
        assert_eq!(ran.stderr.contains("applied with -p0"), path == place, "{path}: {}", ran.stderr);
    }
}

/// `new/x.c` may be a file in a new directory, or a file at the top with the prefix `new/`.
#[test]
fn a_new_file_whose_prefix_is_unclear_is_refused() {
    let patching = Patching::new(&[("lib/a.c", b"x\n")]);
    for path in ["new/x.c", "new/dir/x.c", "new/Makefile"] {
        let patch = format!("--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+y\n");
        patching.write(&one(&patch));
        patching.context.run(FETCH).failed(
            1,
            &[
                &format!("1.patch: `new/` of the new file {path} may be a prefix or a new directory"),
                "hint: write `NAME -p1` for a prefix, or `NAME -p0` for a directory, into a `series` file",
            ],
        );
        let series = [("series", &b"1.patch -p0\n"[..]), ("1.patch", patch.as_bytes())];
        let (_, tree) = patching.tree(&series);
        assert_eq!(read(&tree, path).as_deref(), Some("y\n"), "{path}");
    }
}

#[test]
fn diff_with_new_and_removed_files_is_applied() {
    if !has_tool("diff") {
        return;
    }
    let patching =
        Patching::new(&[("lib/old.c", LINES.as_bytes()), ("gone/er/x", b"x\n"), ("emptied", b"x\n")]);
    let context = &patching.context;
    copy(&context.path("tree"), &context.path("diff/linux.orig"));
    copy(&context.path("tree"), &context.path("diff/linux"));
    fs::remove_dir_all(context.path("diff/linux/gone")).unwrap();
    fs::remove_file(context.path("diff/linux/lib/old.c")).unwrap();
    fs::write(context.path("diff/linux/emptied"), "").unwrap();
    fs::create_dir_all(context.path("diff/linux/new")).unwrap();
    fs::write(context.path("diff/linux/new/file"), "new\n").unwrap();
    for zone in ["UTC", "America/New_York", "Asia/Kolkata"] {
        let mut command = Command::new("diff");
        command.args(["-Nur", "linux.orig", "linux"]).current_dir(context.path("diff")).env("TZ", zone);
        let patch = command.output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&patch).contains("+new"));
        let (_, tree) = patching.tree(&[("1.patch", &patch)]);
        assert_eq!(read(&tree, "new/file").unwrap(), "new\n");
        assert_eq!(read(&tree, "emptied").unwrap(), "", "{zone}: emptied, but not removed");
        assert!(!tree.join("lib/old.c").exists() && !tree.join("gone").exists(), "{zone}");
    }
}

#[test]
fn a_missing_final_newline_before_a_mail_signature_is_kept() {
    let patching = Patching::new(&[("a.c", b"1\n2\n3")]);
    let hunk = "@@ -1,3 +1,3 @@\n 1\n 2\n-3\n\\ No newline at end of file\n+three\n\\ No newline at end of file\n-- \n2.39.2\n\n";
    let (_, tree) = patching.tree(&one(&diff("a.c", hunk)));
    assert_eq!(read(&tree, "a.c").unwrap(), "1\n2\nthree");
}

#[test]
fn latin_1_authors_and_files_are_applied() {
    let patching = Patching::new(&[("a.c", b"/* J\xf6rg */\n2\n3\n")]);
    let patch = b"From: J\xf6rg <j@example.org>\n\n--- a/a.c\n+++ b/a.c\n@@ -1,3 +1,3 @@\n /* J\xf6rg */\n-2\n+zw\xf6lf\n 3\n";
    let (_, tree) = patching.tree(&[("1.patch", patch)]);
    assert_eq!(fs::read(tree.join("a.c")).unwrap(), b"/* J\xf6rg */\nzw\xf6lf\n3\n");
    // Also in the catalog of a project.
    let own = patching.context.path("work/patches");
    fs::create_dir(&own).unwrap();
    fs::write(patching.context.path("work/kcompile.toml"), "").unwrap();
    fs::write(own.join("x.patch"), patch).unwrap();
    fs::write(
        own.join("series.toml"),
        "[[patch]]\nfile = \"x.patch\"\nfrom = \"6.1\"\nbefore = \"6.2\"\nreason = \"r\"\n",
    )
    .unwrap();
    fs::write(own.join("forgotten.patch"), patch).unwrap();
    patching
        .context
        .run(&FETCH.replace(" --patches p", ""))
        .ok()
        .says("Patch: 1 patch")
        .says("patches/series.toml does not list these patches, which are not applied: forgotten.patch");
}

#[test]
fn crlf_files_are_kept_and_crlf_patches_are_reported() {
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let patching = Patching::new(&[("a.bat", crlf(LINES).as_bytes()), ("a.c", LINES.as_bytes())]);
    // git ends its own lines with LF, and keeps those of the file.
    let hunk: String = HUNK
        .lines()
        .map(|line| if line.starts_with('@') { format!("{line}\n") } else { format!("{line}\r\n") })
        .collect();
    let (_, tree) = patching.tree(&one(&diff("a.bat", &hunk)));
    assert_eq!(read(&tree, "a.bat").unwrap(), crlf(CHANGED));
    let broken = crlf(&diff("a.c", HUNK));
    patching.write(&one(&broken));
    patching
        .context
        .run(FETCH)
        .failed(1, &["1.patch: the hunk at line 1 of a.c does not apply", "the patch has CRLF line ends"]);
}

#[test]
fn compressed_patches_are_read_and_ignored_files_are_listed() {
    let names = ["a.c", "b.c", "c.c", "d.c", "e.c", "f.c"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, LINES.as_bytes())).collect();
    let patching = Patching::new(&files);
    let patch = |name: &str| diff(name, HUNK).into_bytes();
    let compressed = |name: &str, suffix: &str| compress(&patch(name), suffix);
    let (ran, tree) = patching.tree(&[
        ("1.patch.gz", &compressed("a.c", "gz")),
        ("2.patch.xz", &compressed("b.c", "xz")),
        ("3.diff.bz2", &compressed("c.c", "bz2")),
        ("4.patch.zst", &compressed("d.c", "zst")),
        ("5.PATCH", &patch("e.c")),
        ("6.diff", &patch("f.c")),
        ("7.patch~", &patch("f.c")),
        ("README", b"read me"),
        ("more/8.patch", &patch("f.c")),
        (".gitignore", b"*~\n"),
    ]);
    for name in names {
        assert_eq!(read(&tree, name).unwrap(), CHANGED, "{name}");
    }
    let dir = patching.context.path("work/p");
    ran.says(&format!("note: --patches {dir}: not read: 7.patch~, README, more/ (patches end in .patch or .diff, and may be compressed (.gz, .xz, .bz2, .zst))"));
    let plan = patching.context.run(&format!("{} --json", FETCH.replace("fetch", "plan"))).ok();
    assert!(plan.stdout.contains("not read: 7.patch~, README, more/"), "{}", plan.stdout);
    patching.write(&[("sub/1.patch", &patch("a.c")), ("x.txt", b"x")]);
    patching
        .context
        .run(FETCH)
        .failed(2, &[&format!("--patches {dir}: the directory has no patches"), "not read: sub/, x.txt"]);
    // 300 MiB of spaces.
    let bomb = compress(&vec![b' '; 300 << 20], "zst");
    patching.write(&[("1.patch.zst", &bomb)]);
    patching.context.run(FETCH).failed(1, &["1.patch.zst: larger than 256 MiB when decompressed"]);
    patching.write(&[("1.patch.gz", &compressed("a.c", "gz")[..40])]);
    patching.context.run(FETCH).failed(1, &["1.patch.gz: cannot decompress it"]);
}

#[test]
fn a_quilt_series_controls_what_is_applied() {
    let patching =
        Patching::new(&[("a.c", LINES.as_bytes()), ("lib/b.c", LINES.as_bytes()), ("c.c", b"x\n")]);
    let second = "--- a.c\n+++ a.c\n@@ -1,4 +1,4 @@\n 1\n-two\n+zwei\n 3\n 4\n".as_bytes();
    let series =
        "# the order is not that of the names\n\nz/z.patch.gz -p1 # first\n  a.patch\t-p0\r\n#no.patch\n";
    let first = compress(format!("{}{}", diff("a.c", HUNK), diff("lib/b.c", HUNK)).as_bytes(), "gz");
    let files: [(&str, &[u8]); 6] = [
        ("series", series.as_bytes()),
        ("z/z.patch.gz", &first),
        ("a.patch", second),
        ("no.patch", b"--- a/c.c\n+++ b/c.c\n@@ -1 +1 @@\n-x\n+y\n"),
        ("z/other.patch", b"x"),
        ("old/x.patch", b"x"),
    ];
    let (ran, tree) = patching.tree(&files);
    let dir = patching.context.path("work/p");
    ran.says(&format!(
        "--patches {dir}: not read: no.patch, old/, z/other.patch (its series does not list them)"
    ));
    assert_eq!(read(&tree, "a.c").unwrap(), CHANGED.replace("two", "zwei"));
    assert_eq!(
        (read(&tree, "lib/b.c").unwrap().as_str(), read(&tree, "c.c").unwrap().as_str()),
        (CHANGED, "x\n")
    );
    // `-pN` is part of the plan.
    let digest = |series: &str| {
        fs::write(dir.join("series"), series).unwrap();
        let plan = patching.context.run(&format!("{} --json", FETCH.replace("fetch", "plan"))).ok().stdout;
        plan.lines().find(|line| line.contains("\"digest\": \"")).unwrap().to_owned()
    };
    assert_ne!(digest("a.patch -p0\n"), digest("a.patch\n"));
    for (series, says) in [
        ("a.patch -R\n", "line 1: unsupported option `-R`"),
        ("\n../x.patch\n", "line 2: `../x.patch` is not a path inside the directory"),
        ("/etc/passwd\n", "line 1: `/etc/passwd` is not a path inside the directory"),
        ("missing.patch\n", "line 1: cannot read "),
        ("# nothing\n", "the directory has no patches"),
    ] {
        fs::write(dir.join("series"), series).unwrap();
        patching.context.run(FETCH).failed(2, &[says]);
    }
}

#[test]
fn patches_without_path_prefix_are_applied_with_a_note() {
    let patching = Patching::new(&[
        ("lib/a.c", LINES.as_bytes()),
        ("lib/Makefile", LINES.as_bytes()),
        ("kernel/sched/core.c", LINES.as_bytes()),
    ]);
    let note = "note: 1.patch: its paths have no prefix (a/, b/); applied with -p0";
    let bare = |old: &str, new: &str, hunk: &str| format!("--- {old}\n+++ {new}\n{hunk}");
    let new = "@@ -0,0 +1 @@\n+new\n";
    for (patch, name, text) in [
        (bare("lib/a.c.orig", "lib/a.c", HUNK), "lib/a.c", CHANGED),
        // The top directory has a Makefile too.
        (bare("lib/Makefile", "lib/Makefile", HUNK), "lib/Makefile", CHANGED),
        (bare("/dev/null", "lib/new.c", new), "lib/new.c", "new\n"),
        (bare("/dev/null", "top.c", new), "top.c", "new\n"),
        (
            "diff --git lib/a.c lib/z.c\nsimilarity index 90%\nrename from lib/a.c\nrename to lib/z.c\n"
                .to_owned()
                + &bare("lib/a.c", "lib/z.c", HUNK),
            "lib/z.c",
            CHANGED,
        ),
    ] {
        let (ran, tree) = patching.tree(&one(&patch));
        ran.says(note);
        assert_eq!(read(&tree, name).as_deref(), Some(text), "{patch}");
    }
    for (patch, name, text) in [
        // The prefix is the name of somebody's tree and also of a directory in it.
        (
            bare("kernel.orig/kernel/sched/core.c", "kernel/kernel/sched/core.c", HUNK),
            "kernel/sched/core.c",
            CHANGED,
        ),
        (bare("/dev/null", "b/lib/new.c", new), "lib/new.c", "new\n"),
        (bare("/dev/null", "b/new/new.c", new), "new/new.c", "new\n"),
        (
            bare(
                "a/lib/a.c",
                "/dev/null",
                &LINES.lines().fold("@@ -1,10 +0,0 @@\n".into(), |hunk, line| format!("{hunk}-{line}\n")),
            ),
            "lib/Makefile",
            LINES,
        ),
    ] {
        let (ran, tree) = patching.tree(&one(&patch));
        assert!(!ran.stderr.contains("-p0"), "{}", ran.stderr);
        assert_eq!(read(&tree, name).as_deref(), Some(text), "{patch}");
    }
}

#[test]
fn patching_ignores_outer_repositories_and_git_config() {
    let mut patching = Patching::new(&[
        ("lib/a.c", LINES.as_bytes()),
        ("lib/b.c", LINES.replace("3\n", "3 3\n").as_bytes()),
        ("lib/.gitattributes", b"* text\n"),
    ]);
    let context = &mut patching.context;
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).current_dir(context.path("")).env("HOME", context.path("home"));
        assert!(command.status().unwrap().success());
    };
    git(&["init", "-q"]);
    fs::write(
        context.path("home/.gitconfig"),
        "[core]\nautocrlf = true\nattributesFile = ~/attributes\n[apply]\nwhitespace = error-all\nignoreWhitespace = change\n",
    )
    .unwrap();
    for name in ["home/attributes", ".git/info/attributes", "home/.config/git/attributes"] {
        fs::create_dir_all(context.path(name).parent().unwrap()).unwrap();
        fs::write(context.path(name), "* text eol=crlf\n").unwrap();
    }
    let config = context.path("home/.gitconfig").into_string();
    context.env.insert("GIT_CONFIG_GLOBAL".into(), config.clone());
    context.env.insert("GIT_CONFIG".into(), config);
    context.env.insert("GIT_DIR".into(), context.path(".git").into());
    context.env.insert("XDG_CONFIG_HOME".into(), context.path("home/.config").into());
    // Attributes of patched files do not affect other files either.
    let attributes =
        "--- a/lib/.gitattributes\n+++ b/lib/.gitattributes\n@@ -1 +1 @@\n-* text\n+* text eol=crlf\n";
    let trailing_space = HUNK.replace("two", "two ");
    let (_, tree) = patching.tree(&[
        ("1.patch", attributes.as_bytes()),
        ("2.patch", diff("lib/a.c", &trailing_space).as_bytes()),
    ]);
    assert_eq!(read(&tree, "lib/a.c").unwrap(), CHANGED.replace("two", "two "));
    assert_eq!(read(&tree, "lib/.gitattributes").unwrap(), "* text eol=crlf\n");
    // `apply.ignoreWhitespace` would match this line.
    let hunk = HUNK.replace(" 3\n", " 3  3\n");
    patching.write(&one(&diff("lib/b.c", &hunk)));
    patching.context.run(FETCH).failed(1, &["the hunk at line 1 of lib/b.c does not apply"]);
}

#[test]
fn a_mailbox_of_commits_is_applied_commit_by_commit() {
    let patching = Patching::new(&[("a.c", LINES.as_bytes()), ("b.c", b"1\n")]);
    let mail = |text: &str| {
        format!(
            "From {} Mon Sep 17 00:00:00 2001\nFrom: x\nSubject: [PATCH] x\n\n---\n{text}-- \n2.39.2\n\n",
            "1".repeat(40)
        )
    };
    let changes = [
        diff("a.c", HUNK),
        // In a single git run, this would keep the old file.
        "diff --git a/a.c b/c.c\nsimilarity index 100%\nrename from a.c\nrename to c.c\n".to_owned(),
        "diff --git a/b.c b/b.c\ndeleted file mode 100644\n--- a/b.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
            .to_owned(),
        "diff --git a/a.c b/a.c\nnew file mode 100755\n--- /dev/null\n+++ b/a.c\n@@ -0,0 +1 @@\n+new\n"
            .to_owned(),
    ];
    let mailbox: String =
        ["no change, a cover letter\n".to_owned()].iter().chain(&changes).map(|text| mail(text)).collect();
    let (_, tree) = patching.tree(&one(&mailbox));
    let files = ["a.c", "b.c", "c.c"].map(|name| read(&tree, name));
    assert_eq!(files, [Some("new\n".to_owned()), None, Some(CHANGED.to_owned())]);
    let mode = |name: &str| fs::metadata(tree.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a.c"), mode("c.c")), (0o555, 0o444));
    // Without the lines that start a mail, this cannot be detected.
    patching.write(&one(&changes[..2].concat()));
    patching
        .context
        .run(FETCH)
        .failed(1, &["1.patch: several commits change a.c, and git apply would mix them up"]);
}

#[test]
fn files_left_out_by_diff_are_warned_about() {
    let patching = Patching::new(&[("a.c", LINES.as_bytes())]);
    let patch = format!(
        "Only in any case: this is text\nOnly in linux/lib: new.c\nBinary files a/x.bin and b/x.bin differ\n{}\
         File a/y is a regular file while file b/y is a directory\n",
        diff("a.c", HUNK)
    );
    let (ran, _) = patching.tree(&one(&patch));
    ran.says("warning: 1.patch: diff seems to have left out 3 files: `Only in linux/lib: new.c`");
}
