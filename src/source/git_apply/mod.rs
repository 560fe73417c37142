//! Applies a plan's patches with `git apply`: exact context, no fuzz, all or nothing.
//!
//! git sees copies of the files that a patch names, in a directory that belongs to no repository: in one, it skips
//! the files outside its working directory and exits with 0. It gets no config and no attributes of the user. The
//! results are then renamed into the tree, whose unpatched files may be shared (hard links) with other trees: a
//! changed file is replaced, never written to.

mod install;
mod listing;
mod prefix;
mod scan;

use crate::catalog::patches::{MAX_PATCH, PatchBytes, PatchFile};
use crate::host::packages;
use crate::host::process::{self, CommandLine, Interruptible};
use crate::report::Reporter;
use crate::source::archive;
use crate::source::context::FetchContext;
use crate::source::git_program::LIMITED_GIT;
use crate::util::digest::HashingReader;
use crate::util::error::{Error, Kind, NO_SPACE, Result, ResultExt, cannot};
use crate::util::fs as files;
use crate::util::read::{Links, open_file};
use crate::util::text::{pluralize, sanitize_line};
use camino::{Utf8Path, Utf8PathBuf};
use listing::{Change, Listed, Listing, first_error, is_inside};
use scan::{Ignored, LinePieces, PartFinder, Scan};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::process::Output;

/// What git says of a text without a patch in it, from version 2.35 on and before.
const NOT_A_PATCH: [&str; 2] = ["No valid patches in input", "unrecognized input"];

/// Applies `patches` in their order to `tree`, a read-only kernel tree in the making. `scratch` is
/// a directory on the same file system.
///
/// # Errors
///
/// Exit code 1 and a tree that must be thrown away: a patch that git refuses, that leads out of the tree, or that
/// makes links or submodules. 4: the host has no git.
pub(super) fn apply(
    patches: &[PatchFile],
    tree: &Utf8Path,
    scratch: &Utf8Path,
    ctx: &FetchContext<'_>,
) -> Result<()> {
    packages::examine_git(ctx.host)?.require()?;
    let mut worktree = Worktree::create(tree, scratch, &ctx.host.child_env)?;
    for patch in patches {
        worktree.apply(patch, ctx.reporter)?;
    }
    worktree.install()
}

/// Where git works: copies of those files of `tree` that patches have named so far.
struct Worktree<'a> {
    tree: &'a Utf8Path,
    files: Utf8PathBuf,
    /// The patch as it was given, and decompressed.
    input: Utf8PathBuf,
    text: Utf8PathBuf,
    /// The part of a patch that git reads.
    part: Utf8PathBuf,
    env: BTreeMap<String, String>,
    named: BTreeSet<Utf8PathBuf>,
}

impl<'a> Worktree<'a> {
    fn create(
        tree: &'a Utf8Path,
        scratch: &Utf8Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Worktree<'a>> {
        let dir = scratch.join("patching");
        let files = dir.join("files");
        fs::create_dir_all(&files).context(Kind::Build, || format!("cannot make {files}"))?;
        let mut env = env.clone();
        let home = dir.join("home").into_string();
        env.extend(
            [
                // No repository above: the cache may lie in one.
                ("GIT_CEILING_DIRECTORIES", dir.as_str()),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_ATTR_NOSYSTEM", "1"),
                ("HOME", &home),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let [input, text, part] = ["given", "text", "patch"].map(|name| dir.join(name));
        Ok(Worktree { tree, files, input, text, part, env, named: BTreeSet::new() })
    }

    /// Applies one patch file, which may be a mailbox of several patches.
    fn apply(&mut self, patch: &PatchFile, reporter: &Reporter) -> Result<()> {
        let name = &patch.name;
        let text = self.unpack(patch)?;
        let scan = Scan::of(open(text).context(Kind::Build, cannot("read", &name))?)
            .context(Kind::Build, cannot("read", &name))?;
        if let Some((first, count)) = &scan.omissions {
            let files = pluralize(*count, "file", "files");
            reporter
                .warning(format!("{name}: diff seems to have left out {files}: `{}`", sanitize_line(first)));
        }
        if scan.names_too_much() {
            return Err(
                Error::build(format!("{name}: names too many files")).hint("split it into several patches")
            );
        }
        if let Some(ignored) = &scan.ignored {
            return Err(ignored_error(name, ignored));
        }
        let mut pieces = LinePieces::new(open(text).context(Kind::Build, cannot("read", &name))?);
        let mut changes = 0;
        let mut part = self.new_part()?;
        let mut parts = PartFinder::default();
        let mut is_empty = true;
        while let Some((piece, begins)) = pieces.next().context(Kind::Build, cannot("read", &name))? {
            if begins && parts.starts_part(piece) && !is_empty {
                self.finish_part(part)?;
                changes += self.apply_part(patch, reporter)?;
                part = self.new_part()?;
            }
            part.write_all(piece).context(Kind::Build, || format!("cannot write {}", self.part))?;
            is_empty = false;
        }
        self.finish_part(part)?;
        changes += self.apply_part(patch, reporter)?;
        if changes == 0 {
            return Err(Error::build(format!("{name} is not a patch: it contains no change")));
        }
        Ok(())
    }

    fn new_part(&self) -> Result<BufWriter<File>> {
        let part = File::create(&self.part).context(Kind::Build, || format!("cannot write {}", self.part))?;
        Ok(BufWriter::new(part))
    }

    fn finish_part(&self, mut part: BufWriter<File>) -> Result<()> {
        part.flush().context(Kind::Build, || format!("cannot write {}", self.part))
    }

    /// Writes the patch as git reads it, and returns where. Not in memory: it may be large.
    fn unpack(&self, patch: &PatchFile) -> Result<&Utf8Path> {
        let name = &patch.name;
        let input = &self.input;
        match &patch.bytes {
            PatchBytes::InMemory(bytes) => {
                fs::write(input, bytes).context(Kind::Build, || format!("cannot write {input}"))?;
            }
            PatchBytes::At(path) => copy_in_checked(path, patch, input)?,
        }
        let packed = open(input).context(Kind::Build, || format!("cannot read {name}"))?;
        let Some(decoder) = archive::decoder(name, packed, 1)? else { return Ok(input) };
        let text = File::create(&self.text).context(Kind::Build, || format!("cannot write {}", self.text))?;
        let unpacked = io::copy(&mut Interruptible(decoder.take(MAX_PATCH + 1)), &mut BufWriter::new(text));
        if unpacked.context(Kind::Build, || format!("{name}: cannot decompress it"))? > MAX_PATCH {
            let limit = MAX_PATCH >> 20;
            return Err(Error::build(format!("{name}: larger than {limit} MiB when decompressed")));
        }
        Ok(&self.text)
    }

    /// Applies what is in the file `part`. Returns the number of changed files.
    fn apply_part(&mut self, patch: &PatchFile, reporter: &Reporter) -> Result<usize> {
        let name = &patch.name;
        let message = |why: String| Error::build(format!("{name}: git apply: {why}"));
        let listing = match self.list_with_prefix(patch, reporter)? {
            Listed::Changes(listing) => listing,
            Listed::Nothing => return Ok(0),
            Listed::Refused(why) => return Err(message(why)),
        };
        let listing = match self.list(listing.strip, &["-R"])? {
            Listed::Changes(reversed) => listing.with_old_names(reversed),
            Listed::Nothing | Listed::Refused(_) => None,
        };
        let listing = listing.ok_or_else(|| message("the patch cannot be reversed".to_owned()))?;
        if let Some(line) = listing.foreign_mode() {
            return Err(Error::build(format!(
                "{name}: symbolic links and submodules are not supported: {}",
                sanitize_line(line)
            )));
        }
        if let Some(path) = listing.ambiguous() {
            return Err(Error::build(format!(
                "{name}: several commits change {path}, and git apply would mix them up"
            ))
            .hint("put each commit into its own file, or keep the `From` lines of git format-patch"));
        }
        for Change { old, new } in &listing.changes {
            self.copy_in(name, old)?;
            self.copy_in(name, new)?;
        }
        let Output { status, stderr, .. } = self.git(&["-v", &listing.strip_option()])?;
        let stderr = String::from_utf8_lossy(&stderr);
        if !status.success() {
            return Err(self.apply_error(name, &listing, &stderr)?);
        }
        if let Some(skipped) = stderr.lines().find(|line| line.starts_with("Skipped patch ")) {
            return Err(message(sanitize_line(skipped)));
        }
        Ok(listing.changes.len())
    }

    fn list(&self, strip: u8, options: &[&str]) -> Result<Listed> {
        let strip_option = format!("-p{strip}");
        let mut all = vec!["--numstat", "--summary", "-z", &strip_option];
        all.extend(options);
        let Output { status, stdout, stderr } = self.git(&all)?;
        if status.success() {
            let unreadable = || Listed::Refused("a path in it is not UTF-8".to_owned());
            return Ok(Listing::parse(strip, &stdout).map_or_else(unreadable, Listed::Changes));
        }
        let why = first_error(&String::from_utf8_lossy(&stderr));
        if NOT_A_PATCH.iter().any(|no_patch| why.starts_with(no_patch)) {
            return Ok(Listed::Nothing);
        }
        Ok(Listed::Refused(why))
    }

    /// Copies the file `path` of the tree, if it is there, to where git looks for it.
    fn copy_in(&mut self, name: &str, path: &Utf8Path) -> Result<()> {
        let refused = |why: &str| Error::build(format!("{name}: `{path}` {why}"));
        if !is_inside(path) {
            return Err(refused("is not a path inside the tree"));
        }
        if path.components().any(|part| part.as_str().eq_ignore_ascii_case(".git")) {
            return Err(refused("is a path of a git repository"));
        }
        if !self.named.insert(path.to_owned()) {
            return Ok(());
        }
        if path.ancestors().any(|path| !path.as_str().is_empty() && self.tree.join(path).is_symlink()) {
            return Err(refused("leads through a link"));
        }
        let (from, to) = (self.tree.join(path), self.files.join(path));
        if !from.is_file() {
            return Ok(());
        }
        let copy = || fs::create_dir_all(to.parent().expect("below it")).and_then(|()| fs::copy(&from, &to));
        copy().context(Kind::Build, || format!("{name}: cannot copy {from}"))?;
        Ok(())
    }

    /// Runs `git apply` on the file `part`.
    fn git(&self, options: &[&str]) -> Result<Output> {
        let config = ["-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null"];
        let args = ["-c", LIMITED_GIT, "git"].into_iter().chain(config);
        let args = args.chain(["apply", "--whitespace=nowarn"]).chain(options.iter().copied());
        process::output(&CommandLine {
            program: "sh".to_owned(),
            args: args.chain([self.part.as_str()]).map(str::to_owned).collect(),
            env: self.env.clone(),
            cwd: self.files.clone(),
        })
    }

    /// The error of a patch that does not apply.
    fn apply_error(&self, name: &str, listing: &Listing, stderr: &str) -> Result<Error> {
        let why = first_error(stderr);
        let hunk = why.strip_prefix("patch failed: ").and_then(|place| place.rsplit_once(':'));
        let error = Error::build(match hunk {
            Some((path, line)) => format!("{name}: the hunk at line {line} of {path} does not apply"),
            None => format!("{name}: git apply: {why}"),
        });
        if files::is_full(&self.files) {
            return Ok(error.hint(NO_SPACE));
        }
        if self.git(&["--check", "-R", &listing.strip_option()])?.status.success() {
            return Ok(error.hint("the source already has this patch; leave it out"));
        }
        if listing.strip == 1 && self.git(&["--check", "-p0"])?.status.success() {
            return Ok(error.hint(
                "the patch applies with -p0: write `NAME -p0` into a `series` file beside it, if its paths have no prefix",
            ));
        }
        if has_crlf(&self.part).context(Kind::Build, || format!("cannot read {}", self.part))? {
            return Ok(error.hint(
                "the patch has CRLF line ends, perhaps from a mail program; convert it with dos2unix",
            ));
        }
        Ok(error.hint("the patch was made for another source; the context must match exactly"))
    }
}

/// The error for a patch of which git would ignore a line.
fn ignored_error(name: &str, ignored: &Ignored) -> Error {
    let (line, reason, hint) = match ignored {
        Ignored::AfterHunk(line) => {
            (line, "comes after a complete hunk", "correct the line counts in the `@@` line of that hunk")
        }
        Ignored::NoChange(line) => {
            (line, "has no change after it", "the patch is damaged; make it again, or remove this line")
        }
        Ignored::OutsideHeader(line) => (
            line,
            "is outside a file's header",
            "the patch is damaged; make it again, or restore the `diff --git` line of that file",
        ),
    };
    Error::build(format!("{name}: the line `{}` {reason}", sanitize_line(line))).hint(hint)
}

fn open(path: &Utf8Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::new(open_file(path, Links::Refuse)?))
}

/// Copies the file of a patch, which must be the one that the plan was made with.
fn copy_in_checked(path: &Utf8Path, patch: &PatchFile, to: &Utf8Path) -> Result<()> {
    let file = open_file(path, Links::Follow).context(Kind::Build, cannot("read", path))?;
    let mut file = HashingReader::new(Interruptible(file.take(MAX_PATCH + 1)));
    let mut copy = File::create(to).context(Kind::Build, || format!("cannot write {to}"))?;
    io::copy(&mut file, &mut copy).context(Kind::Build, cannot("read", path))?;
    if file.finish().0 == patch.sha256 {
        return Ok(());
    }
    Err(Error::build(format!("{path} changed while kcompile used it")).hint("run the same command again"))
}

/// Do the hunks of the patch at `path` have the line ends of Windows?
fn has_crlf(path: &Utf8Path) -> io::Result<bool> {
    let mut pieces = LinePieces::new(open(path)?);
    while let Some((piece, _)) = pieces.next()? {
        if piece.starts_with(b"@@ -") && piece.ends_with(b"\r\n") {
            return Ok(true);
        }
    }
    Ok(false)
}
