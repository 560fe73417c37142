//! Asks a git server for a reference, and fetches its objects to depth 1. Gives up if the server sends
//! nothing, too little or too much.

use super::context::FetchContext;
use super::git_program::{Git, GitExit, read_answer};
use super::git_store::{FETCHED, ScratchRepository};
use super::http::{MIN_RATE, proxies_named};
use crate::host::process::PipeEvent;
use crate::plan::DEFAULT_BRANCH;
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::error::{Error, Result};
use crate::util::text::{format_size, redact_secrets, sanitize_line};
use camino::Utf8Path;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A pack of one commit has about 250 MB. A kernel archive, which may also be in a bundle, has about 140 MB.
pub(super) const MAX_PACK: u64 = 2 << 30;
/// The progress of a fetch takes less than 100 kB.
const MAX_STDERR: usize = 2 << 20;
/// The number of stall timeouts that a server has to prepare objects, and that git has to check them.
const PREPARING: u32 = 10;

/// A reference on a server.
pub(super) struct ResolvedRef {
    /// The commit, or the annotated tag.
    pub object: String,
    /// The name to fetch: `refs/heads/…`, or the commit itself.
    pub name: String,
    /// The URL after redirects.
    pub url: String,
}

struct RemoteRefs {
    /// Object and name.
    heads: Vec<(String, String)>,
    /// The URL after redirects.
    url: String,
}

impl RemoteRefs {
    fn named(&self, name: &str) -> Option<&(String, String)> {
        self.heads.iter().find(|(_, found)| found == name)
    }
}

fn remote<'a>(ctx: &FetchContext<'a>, dir: &Utf8Path, url: &str) -> Result<Git<'a>> {
    Git::remote(ctx.host, dir, url, ctx.stall, ctx.jobs)
}

/// Asks the server of `url` for `reference`, which is a branch, a tag or a full name. `Err` means that the
/// server cannot be reached, `Ok(Err)` that it has no such reference.
pub(super) fn resolve_ref(url: &str, reference: &str, ctx: &FetchContext<'_>) -> Result<Result<ResolvedRef>> {
    let scratch = ctx.cache.scratch()?;
    let git = remote(ctx, &scratch.path, url)?;
    let [branch, tag] = ["heads", "tags"].map(|kind| format!("refs/{kind}/{reference}"));
    let heads = list(&git, url, reference, &[&branch, &tag, reference], ctx)?;
    let found = heads.named(&branch).or(heads.named(&tag)).or(heads.named(reference));
    if let Some((object, name)) = found {
        return Ok(Ok(ResolvedRef { object: object.clone(), name: name.clone(), url: heads.url }));
    }
    let branches = list(&git, &heads.url, reference, &["refs/heads/*"], ctx)?;
    let branches: Vec<&str> =
        branches.heads.iter().filter_map(|(_, name)| name.strip_prefix("refs/heads/")).collect();
    Ok(Err(no_such_reference(url, reference, &branches)))
}

fn list(
    git: &Git<'_>,
    url: &str,
    reference: &str,
    patterns: &[&str],
    ctx: &FetchContext<'_>,
) -> Result<RemoteRefs> {
    let args: Vec<&str> = ["ls-remote", "--", url].into_iter().chain(patterns.iter().copied()).collect();
    let began = Instant::now();
    let (mut is_stalled, mut stderr_bytes) = (false, 0);
    let (exit, answer) = git.run(&args, read_answer, |event| {
        if let PipeEvent::Stderr(bytes) = event {
            stderr_bytes += bytes.len();
        }
        // git prints the list only when it is complete.
        is_stalled = began.elapsed() >= ctx.stall;
        if is_stalled || stderr_bytes > MAX_STDERR {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let answer = answer.map_err(|error| format!("the server's list of references: {error}"));
    let answer = match answer {
        _ if is_stalled && !exit.is_success => {
            Err(format!("the server did not list its references within {} s", ctx.stall.as_secs()))
        }
        Ok(_) if !exit.is_success => Err(exit.error_message()),
        answer => answer,
    };
    let answer =
        answer.map_err(|why| fetch_error(url, reference, &why).hint(connection_hint(url, &exit, ctx)))?;
    let heads = answer.lines().filter_map(|line| line.split_once('\t'));
    let heads = heads.map(|(object, name)| (object.to_owned(), name.to_owned())).collect();
    Ok(RemoteRefs { heads, url: redirected(url, reference, &exit)? })
}

/// Fetches a reference into `repository`.
pub(super) fn fetch(
    resolved: &ResolvedRef,
    reference: &str,
    repository: &ScratchRepository,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<()> {
    let ResolvedRef { name, url, .. } = resolved;
    let mut git = remote(ctx, &repository.dir(), url)?;
    git.settings.push("http.followRedirects=false".to_owned());
    let refspec = format!("+{name}:{FETCHED}");
    let args = ["fetch", "--depth=1", "--no-tags", "--progress", "--", url, &refspec];
    let mut watch = FetchWatch::new(ctx.stall);
    let packs = repository.packs();
    let (exit, _) = git.run(&args, read_answer, |event| {
        watch.on_event(event, bytes_in(&packs));
        let item = "bytes from git";
        phase.progress(Count {
            done: watch.received,
            total: None,
            estimated: false,
            work: None,
            unit: Unit::Bytes,
            item,
        });
        if watch.stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let why = match watch.stopped {
        Some(why) if !exit.is_success => why,
        _ if exit.is_success => return Ok(()),
        _ => exit.error_message(),
    };
    Err(fetch_error(url, reference, &why).hint(connection_hint(url, &exit, ctx)))
}

struct FetchWatch {
    stall: Duration,
    /// Bytes of packs.
    received: u64,
    stderr_bytes: usize,
    began: Instant,
    /// The time of the last progress.
    last: Instant,
    /// The time of the last check of the rate, and `received` then.
    rated: (Instant, u64),
    /// The last, incomplete line of git's standard error.
    text: String,
    is_complete: bool,
    stopped: Option<String>,
}

impl FetchWatch {
    fn new(stall: Duration) -> FetchWatch {
        let now = Instant::now();
        FetchWatch {
            stall,
            received: 0,
            stderr_bytes: 0,
            began: now,
            last: now,
            rated: (now, 0),
            text: String::new(),
            is_complete: false,
            stopped: None,
        }
    }

    /// Handles output of git, and the size of the packs.
    fn on_event(&mut self, event: PipeEvent<'_>, received: u64) {
        let now = Instant::now();
        if let PipeEvent::Stderr(bytes) = event {
            self.stderr_bytes += bytes.len();
            self.last = now;
            self.text.push_str(&String::from_utf8_lossy(bytes));
            // Messages of the server have the prefix `remote: `.
            let mut lines = self.text.split(['\r', '\n']);
            self.is_complete |= lines.any(|line| line.starts_with("Receiving objects: 100%"));
            let kept = self.text.rfind(['\r', '\n']).map_or(0, |end| end + 1);
            self.text.drain(..kept);
        }
        if received != self.received {
            (self.received, self.last) = (received, now);
        }
        self.stopped = self.stopped.take().or_else(|| self.limit_error(now));
    }

    /// Returns which limit the transfer exceeds.
    fn limit_error(&mut self, now: Instant) -> Option<String> {
        if self.received > MAX_PACK {
            return Some(format!("more than {}", format_size(MAX_PACK)));
        }
        if self.stderr_bytes > MAX_STDERR {
            return Some("the server sends progress messages without end".to_owned());
        }
        let silence = now - self.last;
        if silence >= if self.is_complete { self.stall * PREPARING } else { self.stall } {
            return Some(format!("no data for {} s", self.stall.as_secs()));
        }
        if self.received == 0 {
            self.rated = (now, 0);
            let is_late = now - self.began >= self.stall * PREPARING;
            return is_late.then(|| format!("no objects within {} s", (self.stall * PREPARING).as_secs()));
        }
        let (since, before) = self.rated;
        if self.is_complete || now - since < self.stall {
            return None;
        }
        self.rated = (now, self.received);
        let rate = self.received.saturating_sub(before) as f64 / (now - since).as_secs_f64();
        (rate < MIN_RATE as f64).then(|| format!("stalled at {rate:.0} bytes per second"))
    }
}

/// Returns the size of all files in a directory.
fn bytes_in(dir: &Utf8Path) -> u64 {
    let files = dir.read_dir_utf8().into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn fetch_error(url: &str, reference: &str, why: &str) -> Error {
    Error::fetch(format!("cannot fetch {url}#{reference}: {}", sanitize_line(&redact_secrets(why))))
}

/// Returns the URL after redirects.
///
/// # Errors
///
/// Exit code 3: the server redirects to another host.
fn redirected(url: &str, reference: &str, exit: &GitExit) -> Result<String> {
    let target = exit.stderr.lines().find_map(|line| line.strip_prefix("warning: redirecting to "));
    let Some(target) = target.map(|target| target.trim().trim_end_matches('/')) else {
        return Ok(url.to_owned());
    };
    if host_of(target) == host_of(url) {
        return Ok(target.to_owned());
    }
    let why = format!("the server redirects to another host, {}", host_of(target));
    Err(fetch_error(url, reference, &why).hint("if that is the right server, name it with --source"))
}

/// Returns the host and port of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.rsplit('@').next().unwrap_or_default()
}

/// Returns the hint about a server that did not answer.
fn connection_hint(url: &str, exit: &GitExit, ctx: &FetchContext<'_>) -> String {
    let stderr_has = |text: &str| exit.stderr.contains(text);
    let hint = if stderr_has("Host key verification failed") {
        "the server's key is not in ~/.ssh/known_hosts: connect once with ssh and check the key"
    } else if url.starts_with("ssh://") && stderr_has("Permission denied") {
        "add the key for this server to the ssh agent (`ssh-add -l` lists the agent's keys)"
    } else if stderr_has("could not read Username") || stderr_has("could not read Password") {
        "the server asks for a login, and kcompile never prompts for one"
    } else {
        "check the network and the URL of the repository"
    };
    format!("{hint}{}", proxies_named(&ctx.host.proxies))
}

pub(super) fn no_such_reference(url: &str, reference: &str, branches: &[&str]) -> Error {
    // In a sorted list, the newest names are near the end.
    let last: Vec<String> =
        branches[branches.len().saturating_sub(8)..].iter().map(|name| sanitize_line(name)).collect();
    let mut hint = "name a branch, a tag or a commit with git+URL#REF".to_owned();
    if reference.starts_with(DEFAULT_BRANCH) {
        hint.push_str(&format!(
            "; without #REF it is `{DEFAULT_BRANCH}VERSION`, as in cloud-hypervisor/linux"
        ));
    }
    if !last.is_empty() {
        hint.push_str(&format!("; the repository has, for example, {}", last.join(", ")));
    }
    Error::fetch(format!("{url} has no branch or tag `{reference}`")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_ends_at_the_limit() {
        let mut watch = FetchWatch::new(Duration::from_secs(30));
        watch.on_event(PipeEvent::Silence, MAX_PACK);
        assert_eq!(watch.stopped, None);
        watch.on_event(PipeEvent::Silence, MAX_PACK + 1);
        assert!(watch.stopped.unwrap().starts_with("more than 2"));
    }

    #[test]
    fn a_server_cannot_fake_the_end_of_a_fetch() {
        let mut watch = FetchWatch::new(Duration::from_secs(30));
        watch.on_event(PipeEvent::Stderr(b"remote: Receiving objects: 100% (2/2)\rRecei"), 1);
        assert!(!watch.is_complete);
        watch.on_event(PipeEvent::Stderr(b"ving objects: 100% (2/2), done.\n"), 1);
        assert!(watch.is_complete);
    }

    #[test]
    fn hosts_are_compared_without_logins() {
        assert_eq!(host_of("https://me@x:1/y"), host_of("http://x:1/z/"));
        assert_ne!(host_of("https://x/y"), host_of("https://x.example/y"));
    }
}
