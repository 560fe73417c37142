//! Layouts to a registry, by skopeo: it knows registries, their credentials and when to try again.
//! Ours is which image goes where; that every byte of it is whole before, since skopeo does not read
//! a blob that the registry has already; and that the registry serves the same digest after.

use crate::host::process::{self, CommandLine, Stream};
use crate::host::{self, Host};
use crate::oci::ATTACHMENTS;
use crate::oci::read::locate;
use crate::oci::tags::{self, Tagged, TaggedKind};
use crate::report::{Count, Phase, Report, Running, Unit};
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::text::{counted, size};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;

/// What a failed skopeo has to say stands at its end.
const LAST_LINES: usize = 20;

/// Where images go, and how skopeo is to talk to it.
#[derive(Clone, Debug)]
pub struct Registry {
    /// What stands before the names of the repositories: `docker.io/foobar`.
    pub prefix: String,
    /// Whether TLS is required, and certificates are checked.
    pub tls_verify: bool,
    /// Where skopeo finds credentials; `None`: in its own places.
    pub authfile: Option<Utf8PathBuf>,
    /// How often skopeo tries again.
    pub retry_times: u16,
}

/// An image, an index or an attachment of a layout, and the repository that it goes to.
#[derive(Clone, Debug)]
pub struct ImageCopy {
    layout: Utf8PathBuf,
    tagged: Tagged,
    repository: String,
}

impl ImageCopy {
    /// `docker://docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7`
    pub fn destination(&self) -> String {
        format!("docker://{}:{}", self.repository, self.tagged.tag)
    }

    /// Of its manifest or index, here and, once it is pushed, there.
    pub fn digest(&self) -> Sha256 {
        self.tagged.digest
    }

    /// What copies it; run in the directory `cwd`.
    pub fn command(&self, registry: &Registry, cwd: &Utf8Path) -> CommandLine {
        let source = self.layout.strip_prefix(cwd).unwrap_or(&self.layout);
        let mut args = vec!["copy".to_owned(), "--preserve-digests".into()];
        // Without it skopeo would choose the image of this machine.
        let is_index = matches!(self.tagged.kind, TaggedKind::Index | TaggedKind::Attachments(_));
        args.extend(is_index.then(|| "--all".into()));
        args.extend(common_options(registry, "--dest-tls-verify"));
        args.extend([format!("oci:{source}:{}", self.tagged.tag), self.destination()]);
        skopeo(args, cwd)
    }

    fn inspect_command(&self, registry: &Registry, cwd: &Utf8Path) -> CommandLine {
        let mut args = vec!["inspect".to_owned(), "--raw".into()];
        args.extend(common_options(registry, "--tls-verify"));
        args.push(self.destination());
        skopeo(args, cwd)
    }
}

fn common_options<'a>(registry: &'a Registry, tls_verify: &'a str) -> impl Iterator<Item = String> + 'a {
    let retry_times = ["--retry-times".to_owned(), registry.retry_times.to_string()];
    let authfile = registry.authfile.iter().flat_map(|path| ["--authfile".to_owned(), path.to_string()]);
    let insecure = (!registry.tls_verify).then(|| format!("{tls_verify}=false"));
    retry_times.into_iter().chain(authfile).chain(insecure)
}

fn skopeo(args: Vec<String>, cwd: &Utf8Path) -> CommandLine {
    // Credential helpers of the user's want their own variables.
    CommandLine { program: "skopeo".into(), args, env: host::whole_env(), cwd: cwd.to_owned() }
}

/// The layouts directly below `dir`, sorted by name.
///
/// Errors (exit code 2): `dir` cannot be read, or holds none.
pub fn layouts_in(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let hint = "build a kernel first, or say where the layouts are with -o DIR";
    let entries = dir
        .read_dir_utf8()
        .context(Kind::Usage, || format!("cannot read the output directory {dir}"))
        .map_err(|error| error.hint(hint))?;
    let mut layouts: Vec<Utf8PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        // What begins with a dot is a layout in the making.
        .filter(|path| {
            path.join("oci-layout").is_file() && path.file_name().is_some_and(|name| !name.starts_with('.'))
        })
        .collect();
    layouts.sort();
    match layouts.is_empty() {
        true => Err(Error::usage(format!("{dir} holds no OCI layout")).hint(hint)),
        false => Ok(layouts),
    }
}

/// What is to be pushed of these layouts, given as absolute `LAYOUT[:TAG]`, and where it goes: images
/// before the indexes over them, both before what is attached to them. Reads manifests only.
///
/// A layout's name becomes the name of its repository. An attachment goes into the repository of the
/// image that it is attached to, which is looked for in the layouts beside its own; of one whose image
/// is not there any more, a note is all that comes.
///
/// Errors: no such layout or tag, or a name or tag that no registry takes (exit code 2); a layout
/// that breaks a rule (3).
pub fn copies(references: &[Utf8PathBuf], registry: &Registry, report: &Report) -> Result<Vec<ImageCopy>> {
    check_prefix(&registry.prefix)?;
    let mut copies = BTreeMap::new();
    for reference in references {
        let (layout, wanted) = choice(reference)?;
        for tagged in wanted {
            let Some(name) = repository_name(&layout, &tagged)? else {
                report.note(&format!("{layout}:{} is attached to no image here: not pushed", tagged.tag));
                continue;
            };
            check_name(&layout, &name, &tagged.tag)?;
            let repository = format!("{}/{name}", registry.prefix);
            let copy = ImageCopy { layout: layout.clone(), tagged, repository };
            let is_another =
                |other: &ImageCopy| other.layout != layout || other.tagged.digest != copy.tagged.digest;
            if let Some(other) = copies.insert(copy.destination(), copy.clone()).filter(is_another) {
                return Err(Error::usage(format!(
                    "{} and {layout} would both become {}",
                    other.layout,
                    copy.destination()
                )));
            }
        }
    }
    if copies.is_empty() {
        return Err(Error::usage("nothing to push: none of the layouts has a tag that can be pushed"));
    }
    let mut copies: Vec<ImageCopy> = copies.into_values().collect();
    copies.sort_by_cached_key(|copy| (copy.tagged.kind, copy.destination()));
    Ok(copies)
}

/// The layout of a reference, and those of its tags that are meant.
fn choice(reference: &Utf8Path) -> Result<(Utf8PathBuf, Vec<Tagged>)> {
    let (layout, tag) = locate(reference);
    // Readers of `oci:PATH:TAG` end the path there.
    if layout.as_str().contains(':') {
        return Err(Error::usage(format!("{layout} has a colon in its path, which skopeo cannot read")));
    }
    let all = tags::tags(&layout)?;
    let Some(tag) = tag else { return Ok((layout, all)) };
    match all.iter().find(|tagged| tagged.tag == tag) {
        Some(one) => Ok((layout, vec![one.clone()])),
        None => {
            let tags: Vec<&str> = all.iter().map(|tagged| tagged.tag.as_str()).collect();
            Err(Error::usage(format!("{layout} has no image of the tag {tag}"))
                .hint(format!("it has {}", tags.join(", "))))
        }
    }
}

/// The name of the repository in the registry; `None`: an attachment, and nothing here has its subject.
fn repository_name(layout: &Utf8Path, tagged: &Tagged) -> Result<Option<String>> {
    let (TaggedKind::Attachment(subject) | TaggedKind::Attachments(subject)) = tagged.kind else {
        return Ok(layout.file_name().map(str::to_owned));
    };
    let beside = layout.parent().map(layouts_in).transpose()?.unwrap_or_default();
    for sibling in beside.iter().filter(|sibling| !sibling.as_str().ends_with(ATTACHMENTS)) {
        if tags::tags(sibling)?.iter().any(|image| image.digest == subject) {
            return Ok(sibling.file_name().map(str::to_owned));
        }
    }
    Ok(None)
}

/// Copies them all, one after the other, and calls `pushed` for each that the registry then serves.
/// Everything is read and checked before the first one is copied.
///
/// Errors: skopeo is missing (exit code 4); a layout is damaged, the registry refuses, cannot be
/// reached, or serves another digest (3).
pub fn push(
    copies: &[ImageCopy],
    registry: &Registry,
    host: &Host,
    report: &Report,
    mut pushed: impl FnMut(&ImageCopy) -> Result<()>,
) -> Result<()> {
    let running = report.start(Phase::Push, &format!("to {}", registry.prefix));
    let mut bytes = 0;
    for (index, copy) in copies.iter().enumerate() {
        progress(&running, index, copies.len(), &format!("checking {}:{}", copy.layout, copy.tagged.tag));
        bytes += tags::check(&copy.layout, &copy.tagged).map_err(|error| {
            error.hint("nothing was pushed: build the image again, it is replaced by a whole one")
        })?;
    }
    for (index, copy) in copies.iter().enumerate() {
        let destination = copy.destination();
        progress(&running, index, copies.len(), &destination);
        run_copy(copy, registry, host, |line| {
            progress(&running, index, copies.len(), &format!("{destination}  {line}"));
        })?;
        check_served(copy, registry, host)?;
        pushed(copy)?;
    }
    running.finish(&format!("{}, {}", counted(copies.len(), "image", "images"), size(bytes)));
    Ok(())
}

fn progress(running: &Running<'_>, done: usize, total: usize, item: &str) {
    running.progress(Count { done: done as u64, total: Some(total as u64), unit: Unit::Steps, item });
}

fn run_copy(copy: &ImageCopy, registry: &Registry, host: &Host, mut on_step: impl FnMut(&str)) -> Result<()> {
    let log = tempfile::tempfile().context(Kind::Build, || "cannot make a temporary file".into())?;
    let mut errors = Vec::new();
    let status = process::run(&copy.command(registry, &host.cwd), &log, None, |stream, line| match stream {
        Stream::Out => on_step(line),
        Stream::Err => {
            errors.push(line.to_owned());
            errors.drain(..errors.len().saturating_sub(LAST_LINES));
        }
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(failure("cannot push", copy, &errors.join("\n"), &registry.prefix)),
    }
}

/// Asks the registry for the tag, and hashes what it serves.
fn check_served(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<()> {
    let output = process::output(&copy.inspect_command(registry, &host.cwd))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failure("cannot read back", copy, &said, &registry.prefix));
    }
    let (expected, found) = (copy.digest(), Sha256::of(&output.stdout));
    if expected == found {
        return Ok(());
    }
    let ImageCopy { layout, tagged, .. } = copy;
    let message = format!(
        "{} is another image than was pushed: {layout}:{} is {}, the registry serves {}",
        copy.destination(),
        tagged.tag,
        expected.oci(),
        found.oci()
    );
    Err(Error::fetch(message)
        .hint("somebody pushed to this tag at the same time, or the registry changes what it gets"))
}

/// What skopeo said at its end, and what to do about the commonest of it.
fn failure(what: &str, copy: &ImageCopy, said: &str, prefix: &str) -> Error {
    let host = prefix.split('/').next().unwrap_or(prefix);
    let reason = reason(said);
    let ImageCopy { layout, tagged, .. } = copy;
    let error = Error::fetch(format!("{what} {layout}:{} to {}: {reason}", tagged.tag, copy.destination()));
    let has = |words: &[&str]| words.iter().any(|word| reason.to_lowercase().contains(word));
    if has(&["unauthorized", "authentication required", "denied", "forbidden"]) {
        return error.hint(format!("log in first: skopeo login {host}"));
    }
    if has(&["server gave http response to https client"]) {
        return error.hint("the registry has no TLS: --tls-verify=false allows that");
    }
    if has(&["x509:", "certificate"]) {
        return error.hint("--tls-verify=false would push without knowing to whom");
    }
    if has(&["unknown flag"]) {
        return error.hint("skopeo 1.5 or later is needed");
    }
    error.hint(format!("what is there already is not sent again: the same command goes on; is {host} right?"))
}

/// The text of skopeo's last message: `time="…" level=fatal msg="…"`, or a plain line.
fn reason(said: &str) -> String {
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let quoted = line.split_once("msg=").and_then(|(_, text)| serde_json::from_str(text).ok());
    quoted.unwrap_or_else(|| line.trim().to_owned())
}

/// Is it a registry's host, and below it, if at all, names that every registry takes?
fn check_prefix(prefix: &str) -> Result<()> {
    // It may be a password: do not repeat it.
    if prefix.contains('@') {
        return Err(Error::usage("the registry has an `@` in it")
            .hint("a name and a password do not belong there: log in with `skopeo login`"));
    }
    let wrong = |why: &str| {
        Err(Error::usage(format!("`{}` is not a place in a registry: {why}", prefix.escape_debug()))
            .hint("expected REGISTRY/PREFIX, such as docker.io/foobar or localhost:5000/test"))
    };
    if prefix.contains("://") {
        return wrong("without `https://` or `docker://` before it");
    }
    let (host, path) = prefix.split_once('/').unwrap_or((prefix, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    // Otherwise Docker's rules would put docker.io before it, and nobody sees that.
    if !name.contains('.') && name != "localhost" && !host.contains(':') {
        return wrong("it must begin with the host of the registry");
    }
    let fits = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if !name.split('.').all(fits) || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return wrong("that is no host");
    }
    match path.is_empty() && !prefix.ends_with('/') || path.split('/').all(is_repository_name) {
        true => Ok(()),
        false => {
            wrong("the names after the host are of lower-case letters and digits, joined by one of `-._`")
        }
    }
}

/// The distribution specification's grammar of one component of a repository's name:
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let joins = name.split(|c: char| c.is_ascii() && is_plain(c as u8)).filter(|join| !join.is_empty());
    let ends_plain = |byte: Option<&u8>| byte.copied().is_some_and(is_plain);
    ends_plain(name.as_bytes().first())
        && ends_plain(name.as_bytes().last())
        && joins.into_iter().all(|join| matches!(join, "." | "_" | "__") || join.bytes().all(|b| b == b'-'))
}

fn check_name(layout: &Utf8Path, name: &str, tag: &str) -> Result<()> {
    if !is_repository_name(name) {
        return Err(Error::usage(format!("{layout}: no registry takes `{name}` as a name"))
            .hint("lower-case letters and digits, joined by one of `-._`: rename the directory"));
    }
    if tags::is_registry_tag(tag) {
        return Ok(());
    }
    Err(Error::usage(format!("{layout}: no registry takes `{}` as a tag", tag.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_host_and_names() {
        for right in [
            "docker.io/foobar",
            "localhost:5000/test",
            "localhost",
            "ghcr.io/a/b-c/d__e",
            "r:5000",
            "10.0.0.1/x",
        ] {
            assert!(check_prefix(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "foobar",
            "foobar/x",
            "docker.io/",
            "docker.io//x",
            "docker.io/Foo",
            "docker.io/a_-b",
            "docker://docker.io/x",
            "docker.io/x:1",
            "-a.io/x",
            "a..io/x",
            "localhost:/x",
            "localhost:99999/x",
            "docker.io/x y",
            "docker.io/é",
        ] {
            assert!(check_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = check_prefix("me:hush@docker.io/foobar").unwrap_err();
        assert!(!error.to_string().contains("hush") && !error.hint_text().unwrap().contains("hush"));
    }

    #[test]
    fn tags_are_of_the_distribution_specification() {
        let check = |tag: &str| check_name("out/x".into(), "x", tag);
        assert!(check("6.1.7").is_ok() && check("6.18-rc3").is_ok() && check(&"a".repeat(128)).is_ok());
        for wrong in ["", "-a", ".a", "6.1+x", "a b", &"a".repeat(129)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_message_is_the_reason() {
        let said =
            "warning\ntime=\"2026-01-01\" level=fatal msg=\"pinging: Get \\\"http://x/\\\": refused\"\n\n";
        assert_eq!(reason(said), "pinging: Get \"http://x/\": refused");
        assert_eq!(reason("FATA[0000] no\n"), "FATA[0000] no");
        assert_eq!(reason(""), "it said nothing");
    }
}
