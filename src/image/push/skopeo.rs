//! skopeo's command lines, and hints for its errors.

use super::{ImageCopy, Registry};
use crate::host::process::{self, CommandLine, Stream};
use crate::host::{self, Host};
use crate::image::signature::{self, SigningKey};
use crate::oci::tags::TaggedKind;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;

/// What skopeo prints about a failure that may not happen again.
const TEMPORARY: [&str; 12] = [
    "timeout",
    "timed out",
    "deadline exceeded",
    "connection reset",
    "broken pipe",
    "eof",
    "temporary failure",
    "429 (too many requests)",
    "toomanyrequests",
    "registry 5",
    "http status: 5",
    "statuscode: 5",
];
/// The time limit for a manifest, whose size is limited.
const INSPECT_TIMEOUT: &str = "2m";
/// The last lines of standard error that are kept.
const LAST_LINES: usize = 20;

impl ImageCopy {
    /// Returns the command that copies it, for the directory `cwd`.
    pub fn command(&self, registry: &Registry, cwd: &Utf8Path) -> CommandLine {
        let source = self.layout.strip_prefix(cwd).unwrap_or(&self.layout);
        // By default skopeo copies only the image for this machine.
        let signing = registry.signing_key.iter().flat_map(|SigningKey { path, passphrase_file }| {
            [
                "--sign-by-sigstore-private-key".to_owned(),
                path.to_string(),
                "--sign-passphrase".to_owned(),
                passphrase_file.to_string(),
            ]
        });
        let is_index = matches!(self.tagged.kind, TaggedKind::Index | TaggedKind::ReferrersIndex(_));
        let all = is_index.then(|| "--all".to_owned());
        copy_command(
            all.into_iter().chain(signing),
            &format!("{}:{source}:{}", transport(&self.layout), self.tagged.tag),
            &self.destination(),
            registry,
            cwd,
        )
    }

    /// Returns the command that copies it, with the files in the directory `work` that signing needs.
    fn command_with(&self, registry: &Registry, cwd: &Utf8Path, work: &Utf8Path) -> Result<CommandLine> {
        let mut command = self.command(registry, cwd);
        if registry.signing_key.is_some() {
            command.args.splice(0..0, signature::registries_option(work)?);
        }
        Ok(command)
    }
}

/// Returns skopeo's name for the form of a layout.
fn transport(layout: &Utf8Path) -> &'static str {
    if layout.is_file() { "oci-archive" } else { "oci" }
}

fn copy_command(
    options: impl IntoIterator<Item = String>,
    source: &str,
    destination: &str,
    registry: &Registry,
    cwd: &Utf8Path,
) -> CommandLine {
    let args = ["copy", "--preserve-digests"].map(str::to_owned).into_iter().chain(options);
    let common = common_options(registry, registry.retry_times, "--dest-tls-verify");
    let args = args.chain(common).chain([source.to_owned(), destination.to_owned()]);
    command(args.collect(), cwd)
}

fn common_options<'a>(
    registry: &'a Registry,
    retry_times: u16,
    tls_verify: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let retry_times = ["--retry-times".to_owned(), retry_times.to_string()];
    let insecure = (!registry.tls_verify).then(|| format!("{tls_verify}=false"));
    retry_times.into_iter().chain(authfile(registry)).chain(insecure)
}

fn authfile(registry: &Registry) -> impl Iterator<Item = String> + '_ {
    registry.authfile.iter().flat_map(|path| ["--authfile".to_owned(), path.to_string()])
}

/// Returns a command line of skopeo, for the directory `cwd`.
pub(in crate::image) fn command(args: Vec<String>, cwd: &Utf8Path) -> CommandLine {
    // The user's credential helpers need their own variables.
    CommandLine { program: "skopeo".into(), args, env: host::full_env(), cwd: cwd.to_owned() }
}

/// Copies an image. `on_step` gets each line that skopeo prints.
pub(super) fn copy(
    copy: &ImageCopy,
    registry: &Registry,
    host: &Host,
    on_step: impl FnMut(&str),
) -> Result<()> {
    let work = tempfile::tempdir().context(Kind::Build, || "cannot create a temporary directory".into())?;
    let work = Utf8Path::from_path(work.path())
        .ok_or_else(|| Error::usage("the path of the temporary directory is not UTF-8"))?;
    match run(&copy.command_with(registry, &host.cwd, work)?, on_step)? {
        None => Ok(()),
        Some(stderr) => Err(failure(&push_error_message(copy), &stderr, copy, registry, host)),
    }
}

/// Copies the index of `tag` in the layout `layout`, without its manifests, which are in the registry
/// already. Returns skopeo's standard error if that fails.
pub(super) fn copy_index(
    layout: &Utf8Path,
    tag: &str,
    destination: &str,
    registry: &Registry,
) -> Result<Option<String>> {
    let (dir, name) = (layout.parent().expect("a layout is in a directory"), layout.file_name());
    let source = format!("{}:{}:{tag}", transport(layout), name.expect("a layout has a name"));
    let options = ["--multi-arch", "index-only"].map(str::to_owned);
    run(&copy_command(options, &source, destination, registry, dir), |_| {})
}

/// Returns the manifest or index of a reference, if the registry has it, or else skopeo's standard error.
pub(in crate::image) fn inspect_remote(
    reference: &str,
    registry: &Registry,
    cwd: &Utf8Path,
) -> Result<std::result::Result<Option<Vec<u8>>, String>> {
    // Some versions of skopeo retry even if nobody listens, so it retries only what may change.
    let mut stderr = String::new();
    for retry_times in [0, registry.retry_times] {
        let mut args = ["--command-timeout", INSPECT_TIMEOUT, "inspect", "--raw"].map(str::to_owned).to_vec();
        args.extend(common_options(registry, retry_times, "--tls-verify"));
        args.push(reference.to_owned());
        let output = process::output(&command(args, cwd))?;
        if output.status.success() {
            return Ok(Ok(Some(output.stdout)));
        }
        stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = reason(&stderr).to_lowercase();
        if is_missing(&reason) {
            return Ok(Ok(None));
        }
        if registry.retry_times == 0 || !TEMPORARY.iter().any(|word| reason.contains(word)) {
            break;
        }
    }
    Ok(Err(stderr))
}

/// Returns whether skopeo failed because the registry has no such image.
pub(in crate::image) fn is_missing(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    // The two codes of the specification, and the status without a code.
    let missing = ["manifest unknown", "name unknown", "statuscode: 404", "404 (not found)", "404 not found"];
    missing.iter().any(|word| reason.contains(word))
}

/// Returns the digest that the registry serves for the tag of a copy.
pub(super) fn served_digest(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<Option<Sha256>> {
    Ok(served_manifest(copy, registry, host)?.map(Sha256::of))
}

/// Returns the manifest or index that the registry serves for the tag of a copy.
pub(super) fn served_manifest(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<Option<Vec<u8>>> {
    match inspect_remote(&copy.destination(), registry, &host.cwd)? {
        Ok(served) => Ok(served),
        Err(stderr) => Err(failure(&push_error_message(copy), &stderr, copy, registry, host)),
    }
}

/// Runs skopeo. Returns the end of its standard error if it fails.
pub(in crate::image) fn run(command: &CommandLine, mut on_step: impl FnMut(&str)) -> Result<Option<String>> {
    let log = tempfile::tempfile().context(Kind::Build, || "cannot create a temporary file".into())?;
    let mut errors = Vec::new();
    let status = process::run(command, &log, None, |stream, line| match stream {
        Stream::Out => on_step(line),
        Stream::Err => {
            errors.push(line.to_owned());
            errors.drain(..errors.len().saturating_sub(LAST_LINES));
        }
    })?;
    Ok((!status.success()).then(|| errors.join("\n")))
}

fn push_error_message(copy: &ImageCopy) -> String {
    let ImageCopy { layout, tagged, .. } = copy;
    format!("cannot push {layout}:{} to {}", tagged.tag, copy.destination())
}

/// Returns the error for skopeo's standard error, with a hint. `what` begins with "cannot".
pub(super) fn failure(what: &str, stderr: &str, copy: &ImageCopy, registry: &Registry, host: &Host) -> Error {
    let reason = reason(stderr);
    let hint = hint(&reason.to_lowercase(), copy, registry, host);
    Error::fetch(format!("{what}: {reason}")).hint(hint)
}

fn hint(reason: &str, copy: &ImageCopy, registry: &Registry, host: &Host) -> String {
    let name = registry.host();
    let has = |args: &[&str]| args.iter().any(|word| reason.contains(word));
    if has(&["unauthorized", "authentication required", "denied", "forbidden", "statuscode: 403"]) {
        let is_denied = has(&["denied", "forbidden", "statuscode: 403"]);
        let refused =
            if is_denied { "who may not push there" } else { "but the registry refuses this login" };
        return match login(registry, host) {
            None => format!("log in first: skopeo login {name}"),
            Some(user) => format!(
                "skopeo is logged in to {name} as {user}, {refused}; run skopeo login {name} to use \
                 another login"
            ),
        };
    }
    if copy.tagged.kind.subject().is_some()
        && has(&["manifest", "invalid", "unsupported", "statuscode: 400", "statuscode: 415"])
    {
        return "the images were pushed, but the registry does not accept attached artifacts (OCI 1.1's `subject`); \
                --no-attest pushes none"
            .into();
    }
    if has(&[
        "statuscode: 405",
        "405 method not allowed",
        "method not allowed",
        "unsupported",
        "read-only",
        "readonly",
    ]) {
        return format!("{name} is read-only, or a cache of another registry");
    }
    if has(&["server gave http response to https client", "tls: first record"]) {
        return "the registry has no TLS; --tls-verify=false allows that".into();
    }
    if has(&["x509:", "certificate"]) {
        return "--tls-verify=false would push without checking the identity of the registry".into();
    }
    if registry.signing_key.is_some() && has(&["sigstore", "unknown flag"]) {
        return "signing needs a skopeo with sigstore signatures; that of Debian 12 has none".into();
    }
    if has(&["unknown flag"]) {
        return "install skopeo 1.5 or later".into();
    }
    format!(
        "check that {name} is right, and run the same command again; skopeo does not send existing blobs again"
    )
}

/// Returns the user that skopeo is logged in as.
fn login(registry: &Registry, host: &Host) -> Option<String> {
    let mut args = vec!["login".to_owned(), "--get-login".into()];
    args.extend(authfile(registry));
    args.push(registry.host().to_owned());
    let output = process::output(&command(args, &host.cwd)).ok()?;
    let user = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !user.is_empty()).then_some(user)
}

/// Returns skopeo's last message, from `time="…" level=fatal msg="…"` or from a plain line.
pub(in crate::image) fn reason(stderr: &str) -> String {
    let line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed no error");
    let quoted = line.split_once("msg=").and_then(|(_, text)| serde_json::from_str(text).ok());
    let message = quoted.unwrap_or_else(|| line.to_owned());
    // The error names the image, and its registry with it.
    let steps = [
        "Error parsing image name ",
        "pinging container registry ",
        "trying to reuse blob ",
        "Get ",
        "Head ",
    ];
    let mut cause = message.trim();
    while let Some(step) = steps.iter().find_map(|step| cause.strip_prefix(step)) {
        let end = if step.starts_with('"') { "\": " } else { ": " };
        let Some((_, rest)) = step.split_once(end) else { break };
        cause = rest;
    }
    // `dial tcp 127.0.0.1:1: connect: connection refused`
    let dialed = cause.starts_with("dial tcp").then(|| cause.rsplit(": ").next()).flatten();
    dialed.unwrap_or(cause).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_is_the_reason() {
        let stderr =
            "warning\ntime=\"2026-01-01\" level=fatal msg=\"pinging: Get \\\"http://x/\\\": refused\"\n\n";
        assert_eq!(reason(stderr), "pinging: Get \"http://x/\": refused");
        let refused = "level=fatal msg=\"Error parsing image name \\\"docker://x:1/y:1\\\": pinging container registry \
                       x:1: Get \\\"https://x:1/v2/\\\": dial tcp 127.0.0.1:1: connect: connection refused\"";
        assert_eq!(reason(refused), "connection refused");
        let missing = "level=fatal msg=\"trying to reuse blob sha256:9 at destination: pinging container registry x:1: \
                       invalid status code from registry 404 (Not Found)\"";
        assert_eq!(reason(missing), "invalid status code from registry 404 (Not Found)");
        assert_eq!(reason("FATA[0000] no\n"), "FATA[0000] no");
        assert_eq!(reason(""), "it printed no error");
    }
}
