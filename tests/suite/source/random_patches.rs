//! Makes random trees and edits, and patches of them with git, diff and quilt. The patches make the
//! edited tree, and damaged patches are refused where git refuses them.
//!
//! Tries 300 sets here, or as many as `scripts/patches SETS` asks for.

use crate::support::context::{TestContext, compress, has_tool};
use crate::support::random::{Random, number_from_env};
use crate::support::random_trees::{Files, Writer, by_two, changed, modes_of, read, write};
use camino::Utf8Path;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::sync::Mutex;

/// The number of sets whose patches are applied in one run.
const BATCH: u64 = 40;

/// The kinds of patches in a set.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// `git format-patch`, one file for each commit.
    FormatPatch,
    /// `git format-patch --stdout`, one file.
    Mailbox,
    /// `diff -Nur`.
    Diff,
    /// One file of `git format-patch` and `diff -Nur`, about different files.
    Mixed,
}

const FORMS: [Form; 4] = [Form::FormatPatch, Form::Mailbox, Form::Diff, Form::Mixed];
const FORMAT_PATCH: [&[&str]; 9] = [
    &[],
    &["-M"],
    &["-C", "--find-copies-harder"],
    &["-B", "-M"],
    &["--no-renames"],
    &["--full-index", "-U1"],
    &["--src-prefix=old/", "--dst-prefix=new/", "-U8"],
    &["--no-stat", "--no-signature"],
    // Must be the last one (see below).
    &["--no-prefix"],
];
const TREES: [[&str; 2]; 3] = [["a", "b"], ["linux-6.1.orig", "linux-6.1"], ["linux", "linux.new"]];
/// A batch of sets with one source and one directory of patches.
struct Batch {
    context: TestContext,
    random: Random,
    /// The number of branches in its repository.
    branches: usize,
    /// The files of the source, besides those of every kernel tree.
    source: Files,
    /// The patches by name.
    patches: Vec<(String, Vec<u8>)>,
    expected: Files,
}

impl Batch {
    fn new(seed: u64) -> Batch {
        let context = TestContext::new();
        let (source, patches, expected) = Default::default();
        let batch = Batch { context, random: Random(seed), branches: 0, source, patches, expected };
        let made = batch.command(
            "git",
            &["init", "-q", "--bare", "--template=", "repository"],
            &batch.context.path(""),
        );
        assert!(made.status.success());
        batch
    }

    fn command(&self, program: &str, args: &[&str], dir: &Utf8Path) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).env_clear().env("PATH", std::env::var("PATH").unwrap());
        command.env("HOME", self.context.path("home")).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        command.env("GIT_CEILING_DIRECTORIES", self.context.path(""));
        command.output().unwrap()
    }

    /// Returns git's output for each of these steps, with `args` and a range.
    fn git(&mut self, steps: &[Files], args: &[&str]) -> Vec<Vec<u8>> {
        self.branches += 1;
        let branch = format!("branch{}", self.branches);
        let mut commits = Vec::new();
        for files in steps {
            let commit = format!("commit refs/heads/{branch}\ncommitter J <j@example.org> 0 +0000\n");
            commits.extend(commit.bytes());
            commits.extend(b"data 19\nsubject\n\n- by J\xf6rg\ndeleteall\n");
            for (path, blob) in files {
                let mode = if blob.executable { "100755" } else { "100644" };
                let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\t', "\\t");
                commits.extend(format!("M {mode} inline \"{path}\"\ndata {}\n", blob.bytes.len()).bytes());
                commits.extend([&blob.bytes[..], b"\n"].concat());
            }
        }
        let dir = self.context.path("repository");
        fs::write(self.context.path("commits"), commits).unwrap();
        let import = "git -c fastimport.unpackLimit=0 fast-import --quiet <../commits";
        let imported = self.command("sh", &["-c", import], &dir);
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let ranges = (1..steps.len()).rev().map(|back| format!("{branch}~{back}..{branch}~{}", back - 1));
        let texts = ranges.map(|range| {
            let output = self.command("git", &[args, &[&range]].concat(), &dir);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        });
        texts.collect()
    }

    fn format_patch(&mut self, steps: &[Files], options: &[&[&str]]) -> Vec<Vec<u8>> {
        let options = *self.random.one(options);
        self.git(steps, &[&["format-patch", "--stdout", "--binary"], options].concat())
    }

    fn diff(&mut self, before: &Files, after: &Files) -> Vec<u8> {
        let names = *self.random.one(&TREES);
        let dir = self.context.path("diff");
        for (name, files) in names.iter().zip([before, after]) {
            write(&dir.join(name), files);
        }
        let output = self.command("diff", &["-Nur", names[0], names[1]], &dir);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(&dir).unwrap();
        output.stdout
    }

    fn push(&mut self, text: Vec<u8>) {
        let name = format!("{:04}.patch", self.patches.len());
        self.patches.push((name, text));
    }

    /// Returns the files of a set and edits of them.
    fn steps(&mut self, dir: &str, edits: usize, writer: Writer) -> Vec<Files> {
        let mut steps = vec![self.random.files(dir, writer)];
        for _ in 0..edits {
            let last = steps.last().unwrap().clone();
            steps.push(self.random.edit(dir, &last, &BTreeSet::new(), writer));
        }
        self.take(&steps);
        steps
    }

    fn take(&mut self, steps: &[Files]) {
        self.source.extend(steps[0].clone());
        self.expected.extend(steps.last().unwrap().clone());
    }

    fn add(&mut self, dir: &str, form: Form) {
        match form {
            Form::FormatPatch | Form::Mailbox => {
                let edits = 1 + self.random.below(3);
                let steps = self.steps(dir, edits, Writer::Git);
                let texts = self.format_patch(&steps, &FORMAT_PATCH);
                match form {
                    Form::Mailbox => self.push(texts.concat()),
                    _ => texts.into_iter().for_each(|text| self.push(text)),
                }
            }
            Form::Diff => {
                let steps = self.steps(dir, 1, Writer::Diff);
                let text = self.diff(&steps[0], &steps[1]);
                self.push(text);
            }
            Form::Mixed => {
                let base = self.random.files(dir, Writer::Diff);
                let first = self.random.edit(dir, &base, &BTreeSet::new(), Writer::Diff);
                let second = self.random.edit(dir, &first, &changed(&base, &first), Writer::Diff);
                let text = [
                    self.git(&[base.clone(), first.clone()], &["format-patch", "--stdout", "--no-renames"])
                        .concat(),
                    self.diff(&first, &second),
                ];
                self.take(&[base, first, second]);
                self.push(text.concat());
            }
        }
    }

    /// Writes the source and the patches, and fetches them.
    fn fetch(&self) -> crate::support::context::RunResult {
        let mut tar = tar::Builder::new(Vec::new());
        let mut append = |name: &str, bytes: &[u8], mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            tar.append_data(&mut header, format!("linux-6.1.7/{name}"), bytes).unwrap();
        };
        append("Makefile", b"VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 7\nEXTRAVERSION =\n", 0o644);
        append("Kconfig", b"config X\n", 0o644);
        append("Kbuild", b"#\n", 0o644);
        for (name, blob) in &self.source {
            append(name, &blob.bytes, if blob.executable { 0o755 } else { 0o644 });
        }
        let tar = compress(&tar.into_inner().unwrap(), "zst");
        fs::write(self.context.path("work/linux.tar.zst"), tar).unwrap();
        for (name, text) in &self.patches {
            let path = self.context.path("work/p").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.context.run("fetch 6.1.7 --fc --source linux.tar.zst --patches p")
    }

    /// Returns the pristine and the patched tree in the cache.
    fn trees(&self) -> [Option<Files>; 2] {
        let names = self.context.names("cache/trees");
        [false, true].map(|patched| {
            let name = names.iter().find(|name| name.contains('+') == patched)?;
            Some(read(&self.context.path(&format!("cache/trees/{name}/linux"))))
        })
    }

    /// Checks that the patches make the edited tree and keep the pristine one.
    fn check(&self, what: &str) {
        let ran = self.fetch();
        assert_eq!(ran.code, 0, "{what}\n{}\n{}", ran.stderr, self.kept());
        self.check_trees(what);
    }

    fn check_trees(&self, what: &str) {
        let [pristine, patched] = self.trees();
        assert!(pristine.unwrap() == self.source, "{what}: the pristine tree has changed");
        let patched = patched.unwrap();
        let wrong = changed(&self.expected, &patched);
        assert!(wrong.is_empty(), "{what}: {wrong:?} differ; {}", self.kept());
    }

    /// Keeps the files for debugging. Returns their path.
    fn kept(&self) -> String {
        let to = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).join("patch-set");
        let _ = fs::remove_dir_all(&to);
        crate::support::context::copy(&self.context.path("work"), &to);
        format!("source and patches are kept in {to}")
    }
}

/// Returns the total number of sets and the seed of the first.
fn sets() -> (u64, u64) {
    (number_from_env("KCOMPILE_PATCH_SETS").unwrap_or(300), number_from_env("KCOMPILE_SEED").unwrap_or(1))
}

#[test]
fn random_patches_reproduce_the_edited_tree() {
    if !has_tool("git") || !has_tool("diff") {
        return;
    }
    let (sets, seed) = sets();
    let batches = (sets * 8 / 10).div_ceil(BATCH);
    by_two((0..batches).collect(), |number| {
        let mut batch = Batch::new(seed.wrapping_mul(1 << 32).wrapping_add(number));
        for set in 0..BATCH {
            batch.add(&format!("set{set}"), FORMS[set as usize % FORMS.len()]);
        }
        batch.check(&format!("seed {seed}, batch {number}"));
    });
    println!("sets of git and diff: {}, each made the tree that its edits made", batches * BATCH);
}

#[test]
fn damaged_patches_are_refused_where_git_refuses_them() {
    if !has_tool("git") {
        return;
    }
    let (sets, seed) = sets();
    let count = sets / 10;
    let refused = Mutex::new(0);
    by_two((0..count).collect(), |number| {
        let mut batch = Batch::new(seed.wrapping_mul(1 << 33).wrapping_add(number));
        let steps = batch.steps("set", 1, Writer::Git);
        // Here git decides how many components a path loses.
        let with_prefix = &FORMAT_PATCH[..FORMAT_PATCH.len() - 1];
        let mut text = batch.format_patch(&steps, with_prefix).concat();
        let random = &mut batch.random;
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let at = random.below(lines.len());
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[random.below(lines.len())].clone()),
            2 => lines.insert(at, b"\n".to_vec()),
            3 => lines.truncate(at + 1),
            4 => {
                let byte = random.below(lines[at].len());
                lines[at][byte] = random.below(128) as u8;
            }
            _ => lines.iter_mut().filter(|line| line.ends_with(b"\n")).for_each(|line| {
                line.pop();
                line.extend(b"\r\n");
            }),
        }
        text = lines.concat();
        batch.push(text.clone());
        // git applies the patches to a whole tree.
        let reference = batch.context.path("reference");
        write(&reference, &batch.source);
        fs::write(batch.context.path("damaged"), &text).unwrap();
        let git = |strip: &str| {
            batch.command("git", &["apply", "--whitespace=nowarn", strip, "../damaged"], &reference)
        };
        let applied = git("-p1").status.success();
        let what = format!("seed {seed}, damaged patch {number}");
        let ran = batch.fetch();
        if ran.code == 0 {
            assert!(applied, "{what}: git refuses it; {}", batch.kept());
            let mut batch = batch;
            batch.expected = modes_of(&reference);
            batch.check_trees(&what);
        } else {
            *refused.lock().unwrap() += 1;
            assert_eq!(ran.code, 1, "{what}\n{}", ran.stderr);
            // kcompile refuses what git confuses or ignores.
            let may_differ = [
                "several commits change",
                "is not a path inside",
                "not supported: ",
                "after a complete hunk",
                "has no change after it",
                "is outside a file's header",
            ];
            let differs = may_differ.iter().any(|why| ran.stderr.contains(why));
            assert!(!applied || differs, "{what}: git takes it\n{}\n{}", ran.stderr, batch.kept());
            assert!(batch.trees()[0].as_ref() == Some(&batch.source) && batch.trees()[1].is_none(), "{what}");
        }
    });
    println!("damaged patches: {count}, of which {} were refused", refused.lock().unwrap());
}

#[test]
fn mbox_commits_make_the_right_tree_or_fail() {
    if !has_tool("git") {
        return;
    }
    let (sets, seed) = sets();
    let count = sets * 7 / 100;
    let refused = Mutex::new(0);
    by_two((0..count).collect(), |number| {
        let mut batch = Batch::new(seed.wrapping_mul(1 << 34).wrapping_add(number));
        let steps = batch.steps("set", 3, Writer::Git);
        let renames = *batch.random.one(&["-M", "--no-renames"]);
        let texts = batch.git(&steps, &["diff", "--binary", renames]);
        batch.push(texts.concat());
        let what = format!("seed {seed}, commits in one file {number}");
        let ran = batch.fetch();
        match ran.code {
            0 => batch.check_trees(&what),
            1 => *refused.lock().unwrap() += 1,
            _ => panic!("{what}\n{}", ran.stderr),
        }
    });
    println!("commits without mails: {count}, of which {} were refused", refused.lock().unwrap());
}

#[test]
fn a_quilt_series_makes_the_same_tree_as_quilt() {
    if !has_tool("quilt") || !has_tool("diff") {
        return;
    }
    let (sets, seed) = sets();
    let count = sets * 3 / 100;
    by_two((0..count.div_ceil(3)).collect(), |number| {
        let mut batch = Batch::new(seed.wrapping_mul(1 << 35).wrapping_add(number));
        let dir = batch.context.path("quilt");
        let steps = batch.steps("set", 3, Writer::Quilt);
        write(&dir, &steps[0]);
        let quilt = |batch: &Batch, args: &[&str]| {
            let output = batch.command("quilt", &[&["--quiltrc", "-"], args].concat(), &dir);
            assert!(output.status.success(), "quilt {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        for (index, pair) in steps.windows(2).enumerate() {
            let name = format!("{}-change.patch", 9 - index);
            quilt(&batch, &["new", &name]);
            let changed = changed(&pair[0], &pair[1]);
            let names: Vec<&str> = changed.iter().map(String::as_str).collect();
            quilt(&batch, &[&["add"], &names[..]].concat());
            for path in changed.iter().filter(|path| !pair[1].contains_key(*path)) {
                fs::remove_file(dir.join(path)).unwrap();
            }
            write(&dir, &pair[1]);
            let strip = *batch.random.one(&["-p1", "-p0", "-pab"]);
            quilt(&batch, &["refresh", strip]);
        }
        for entry in walkdir::WalkDir::new(dir.join("patches")) {
            let entry = entry.unwrap();
            if entry.file_type().is_file() {
                let name = entry.file_name().to_str().unwrap().to_owned();
                batch.patches.push((name, fs::read(entry.path()).unwrap()));
            }
        }
        batch.check(&format!("seed {seed}, quilt {number}"));
    });
    println!("sets of quilt: {count}, each made the tree that quilt made");
}
