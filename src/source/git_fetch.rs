//! What a git server is asked: where a reference is, and its objects to depth 1. A server that says nothing, too
//! little or too much is given up.

use super::context::FetchContext;
use super::git_program::{Git, GitExit, read_answer};
use super::git_store::{FETCHED, ScratchRepository};
use super::http::{MIN_RATE, proxies_named};
use crate::host::process::PipeEvent;
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::error::{Error, Result};
use crate::util::text::{format_size, redact_secrets, sanitize_line};
use camino::Utf8Path;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A pack of one commit has about 250 MB, a kernel archive, which a bundle holds as well, about 140 MB.
pub(super) const MAX_PACK: u64 = 2 << 30;
/// The progress of a fetch takes less than 100 kB.
const MAX_STDERR: usize = 2 << 20;
/// How many stall timeouts a server has to count and compress before it sends objects, and git to check what came.
const PREPARING: u32 = 10;

/// Where a server has a reference.
pub(super) struct ResolvedRef {
    /// The commit, or the annotated tag.
    pub object: String,
    /// What to ask for: `refs/heads/…`, or the commit itself.
    pub name: String,
    /// Where the server really is: it may have redirected to another path.
    pub url: String,
}

/// The heads of a server that are asked for.
struct RemoteRefs {
    /// Object and name.
    heads: Vec<(String, String)>,
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

/// Asks the server of `url` where `reference` is: a branch, a tag or a whole name. `Err` says that it cannot be
/// asked, `Ok(Err)` that it has no such reference.
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
        // git says nothing before it knows all.
        is_stalled = began.elapsed() >= ctx.stall;
        if is_stalled || stderr_bytes > MAX_STDERR {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    let message = |why: &str| fetch_error(url, reference, why);
    if is_stalled && !exit.is_success {
        let why = format!("the server did not say what it has within {} s", ctx.stall.as_secs());
        return Err(message(&why).hint(connection_hint(url, &exit, ctx)));
    }
    let answer = match answer {
        Err(error) => return Err(message(&format!("the list of what the server has: {error}"))),
        Ok(_) if !exit.is_success => {
            return Err(message(&exit.error_message()).hint(connection_hint(url, &exit, ctx)));
        }
        Ok(answer) => answer,
    };
    let heads = answer.lines().filter_map(|line| line.split_once('\t'));
    let heads = heads.map(|(object, name)| (object.to_owned(), name.to_owned())).collect();
    Ok(RemoteRefs { heads, url: redirected(url, reference, &exit)? })
}

/// Fetches what was located into `repository`.
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
        phase.progress(Count { done: watch.received, total: None, unit: Unit::Bytes, item });
        if watch.stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let why = match watch.stopped {
        Some(why) if !exit.is_success => why,
        _ if exit.is_success => return Ok(()),
        _ => exit.error_message(),
    };
    Err(fetch_error(url, reference, &why).hint(connection_hint(url, &exit, ctx)))
}

/// How a transfer goes.
struct FetchWatch {
    stall: Duration,
    /// Bytes of packs.
    received: u64,
    stderr_bytes: usize,
    /// When the fetch began, when it was last seen to go on, when the rate was last taken, with `received` then.
    began: Instant,
    last: Instant,
    rated: (Instant, u64),
    /// The end of what git has printed.
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

    /// Takes note of what git prints and of how much has come.
    fn on_event(&mut self, event: PipeEvent<'_>, received: u64) {
        let now = Instant::now();
        if let PipeEvent::Stderr(bytes) = event {
            self.stderr_bytes += bytes.len();
            self.last = now;
            self.text.push_str(&String::from_utf8_lossy(bytes));
            // What the server says has `remote: ` before it.
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

    /// What is wrong with the transfer.
    fn limit_error(&mut self, now: Instant) -> Option<String> {
        if self.received > MAX_PACK {
            return Some(format!("more than {}", format_size(MAX_PACK)));
        }
        if self.stderr_bytes > MAX_STDERR {
            return Some("the server does not stop to say how far it is".to_owned());
        }
        let silence = now - self.last;
        if silence >= if self.is_complete { self.stall * PREPARING } else { self.stall } {
            return Some(format!("nothing came for {} s", self.stall.as_secs()));
        }
        if self.received == 0 {
            self.rated = (now, 0);
            let is_late = now - self.began >= self.stall * PREPARING;
            return is_late
                .then(|| format!("no object came within {} s", (self.stall * PREPARING).as_secs()));
        }
        let (since, before) = self.rated;
        if self.is_complete || now - since < self.stall {
            return None;
        }
        self.rated = (now, self.received);
        let rate = self.received.saturating_sub(before) as f64 / (now - since).as_secs_f64();
        (rate < MIN_RATE as f64).then(|| format!("stalled at {rate:.0} bytes a second"))
    }
}

/// How many bytes the files in a directory have.
fn bytes_in(dir: &Utf8Path) -> u64 {
    let files = dir.read_dir_utf8().into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn fetch_error(url: &str, reference: &str, why: &str) -> Error {
    Error::fetch(format!("cannot fetch {url}#{reference}: {}", sanitize_line(&redact_secrets(why))))
}

/// Where the server has redirected to, or `url`.
///
/// # Errors
///
/// Exit code 3: to another host.
fn redirected(url: &str, reference: &str, exit: &GitExit) -> Result<String> {
    let target = exit.stderr.lines().find_map(|line| line.strip_prefix("warning: redirecting to "));
    let Some(target) = target.map(|target| target.trim().trim_end_matches('/')) else {
        return Ok(url.to_owned());
    };
    if host_of(target) == host_of(url) {
        return Ok(target.to_owned());
    }
    let why = format!("the server redirects to another one, {}", host_of(target));
    Err(fetch_error(url, reference, &why).hint("if that is the right one, name it with --source"))
}

/// Host and port of a URL. One of http may be of https, too, by their own ports.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.rsplit('@').next().unwrap_or_default()
}

/// What to do about a server that did not answer.
fn connection_hint(url: &str, exit: &GitExit, ctx: &FetchContext<'_>) -> String {
    let stderr_has = |text: &str| exit.stderr.contains(text);
    let hint = if stderr_has("Host key verification failed") {
        "the server's key is not in ~/.ssh/known_hosts: connect once with ssh, and look at the key"
    } else if url.starts_with("ssh://") && stderr_has("Permission denied") {
        "has the ssh agent the key for it? `ssh-add -l` lists what it has"
    } else if stderr_has("could not read Username") || stderr_has("could not read Password") {
        "the server asks for a login, and kcompile never prompts for one"
    } else {
        "is there a network, and such a repository?"
    };
    format!("{hint}{}", proxies_named(&ctx.host.proxies))
}

pub(super) fn no_such_reference(url: &str, reference: &str, branches: &[&str]) -> Error {
    let error = Error::fetch(format!("{url} has no branch or tag `{reference}`"));
    if branches.is_empty() {
        return error;
    }
    // The newest names are the last ones of a sorted list, more or less.
    let last: Vec<String> =
        branches[branches.len().saturating_sub(8)..].iter().map(|name| sanitize_line(name)).collect();
    error.hint(format!("it has, among others: {}", last.join(", ")))
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
    fn a_server_cannot_say_that_all_has_come() {
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
