//! What a git server is asked: where a reference is, and its objects to depth 1. A server that says nothing, too
//! little or too much is given up.

use super::context::Fetching;
use super::git_program::{Ended, Git, read_answer};
use super::git_store::{Borrowing, FETCHED};
use super::http::{SLOWEST, proxies_named};
use crate::host::process::Heard;
use crate::report::{Count, Running, Unit};
use crate::util::error::{Error, Result};
use crate::util::text::{size, tame, without_secrets};
use camino::Utf8Path;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A pack of one commit has about 250 MB, a kernel archive, which a bundle holds as well, about 140 MB.
pub(super) const LARGEST_PACK: u64 = 2 << 30;
/// The progress of a fetch takes less than 100 kB.
const MAX_STDERR: usize = 2 << 20;
/// How many stall timeouts a server has to count and compress before it sends objects, and git to check what came.
const PREPARING: u32 = 10;

/// Where a server has a reference.
pub(super) struct Located {
    /// The commit, or the annotated tag.
    pub object: String,
    /// What to ask for: `refs/heads/…`, or the commit itself.
    pub name: String,
    /// Where the server really is: it may have redirected to another path.
    pub url: String,
}

/// The heads of a server that are asked for.
struct Heads {
    /// Object and name.
    heads: Vec<(String, String)>,
    url: String,
}

impl Heads {
    fn named(&self, name: &str) -> Option<&(String, String)> {
        self.heads.iter().find(|(_, found)| found == name)
    }
}

fn remote<'a>(fetching: &Fetching<'a>, dir: &Utf8Path, url: &str) -> Result<Git<'a>> {
    Git::remote(fetching.host, dir, url, fetching.stall, fetching.jobs)
}

/// Asks the server of `url` where `reference` is: a branch, a tag or a whole name. `Err` says that it cannot be
/// asked, `Ok(Err)` that it has no such reference.
pub(super) fn locate(url: &str, reference: &str, fetching: &Fetching<'_>) -> Result<Result<Located>> {
    let scratch = fetching.cache.scratch()?;
    let git = remote(fetching, &scratch.path, url)?;
    let [branch, tag] = ["heads", "tags"].map(|kind| format!("refs/{kind}/{reference}"));
    let heads = list(&git, url, reference, &[&branch, &tag, reference], fetching)?;
    let found = heads.named(&branch).or(heads.named(&tag)).or(heads.named(reference));
    if let Some((object, name)) = found {
        return Ok(Ok(Located { object: object.clone(), name: name.clone(), url: heads.url }));
    }
    let branches = list(&git, &heads.url, reference, &["refs/heads/*"], fetching)?;
    let branches: Vec<&str> =
        branches.heads.iter().filter_map(|(_, name)| name.strip_prefix("refs/heads/")).collect();
    Ok(Err(no_such_reference(url, reference, &branches)))
}

fn list(
    git: &Git<'_>,
    url: &str,
    reference: &str,
    patterns: &[&str],
    fetching: &Fetching<'_>,
) -> Result<Heads> {
    let args: Vec<&str> = ["ls-remote", "--", url].into_iter().chain(patterns.iter().copied()).collect();
    let began = Instant::now();
    let (mut is_stalled, mut heard) = (false, 0);
    let (ended, answer) = git.run(&args, read_answer, |event| {
        if let Heard::Stderr(bytes) = event {
            heard += bytes.len();
        }
        // git says nothing before it knows all.
        is_stalled = began.elapsed() >= fetching.stall;
        if is_stalled || heard > MAX_STDERR { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let wrong = |why: &str| failed(url, reference, why);
    if is_stalled && !ended.is_success {
        let why = format!("the server did not say what it has within {} s", fetching.stall.as_secs());
        return Err(wrong(&why).hint(unconnected(url, &ended, fetching)));
    }
    let answer = match answer {
        Err(error) => return Err(wrong(&format!("the list of what the server has: {error}"))),
        Ok(_) if !ended.is_success => {
            return Err(wrong(&ended.why()).hint(unconnected(url, &ended, fetching)));
        }
        Ok(answer) => answer,
    };
    let heads = answer.lines().filter_map(|line| line.split_once('\t'));
    let heads = heads.map(|(object, name)| (object.to_owned(), name.to_owned())).collect();
    Ok(Heads { heads, url: redirected(url, reference, &ended)? })
}

/// Fetches what was located into `repository`.
pub(super) fn fetch(
    located: &Located,
    reference: &str,
    repository: &Borrowing,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<()> {
    let Located { name, url, .. } = located;
    let mut git = remote(fetching, &repository.dir(), url)?;
    git.settings.push("http.followRedirects=false".to_owned());
    let refspec = format!("+{name}:{FETCHED}");
    let args = ["fetch", "--depth=1", "--no-tags", "--progress", "--", url, &refspec];
    let mut watch = Watch::new(fetching.stall);
    let packs = repository.packs();
    let (ended, _) = git.run(&args, read_answer, |heard| {
        watch.see(heard, bytes_in(&packs));
        let item = "bytes from git";
        running.progress(Count { done: watch.received, total: None, unit: Unit::Bytes, item });
        if watch.stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let why = match watch.stopped {
        Some(why) if !ended.is_success => why,
        _ if ended.is_success => return Ok(()),
        _ => ended.why(),
    };
    Err(failed(url, reference, &why).hint(unconnected(url, &ended, fetching)))
}

/// How a transfer goes.
struct Watch {
    stall: Duration,
    /// Bytes of packs.
    received: u64,
    heard: usize,
    /// When the fetch began, when it was last seen to go on, when the rate was last taken, with `received` then.
    began: Instant,
    last: Instant,
    rated: (Instant, u64),
    /// The end of what git has printed.
    text: String,
    is_complete: bool,
    stopped: Option<String>,
}

impl Watch {
    fn new(stall: Duration) -> Watch {
        let now = Instant::now();
        Watch {
            stall,
            received: 0,
            heard: 0,
            began: now,
            last: now,
            rated: (now, 0),
            text: String::new(),
            is_complete: false,
            stopped: None,
        }
    }

    /// Takes note of what git prints and of how much has come.
    fn see(&mut self, heard: Heard<'_>, received: u64) {
        let now = Instant::now();
        if let Heard::Stderr(bytes) = heard {
            self.heard += bytes.len();
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
        self.stopped = self.stopped.take().or_else(|| self.fault(now));
    }

    /// What is wrong with the transfer.
    fn fault(&mut self, now: Instant) -> Option<String> {
        if self.received > LARGEST_PACK {
            return Some(format!("more than {}", size(LARGEST_PACK)));
        }
        if self.heard > MAX_STDERR {
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
        (rate < SLOWEST as f64).then(|| format!("stalled at {rate:.0} bytes a second"))
    }
}

/// How many bytes the files in a directory have.
fn bytes_in(dir: &Utf8Path) -> u64 {
    let files = dir.read_dir_utf8().into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn failed(url: &str, reference: &str, why: &str) -> Error {
    Error::fetch(format!("cannot fetch {url}#{reference}: {}", tame(&without_secrets(why))))
}

/// Where the server has redirected to, or `url`.
///
/// # Errors
///
/// Exit code 3: to another host.
fn redirected(url: &str, reference: &str, ended: &Ended) -> Result<String> {
    let target = ended.stderr.lines().find_map(|line| line.strip_prefix("warning: redirecting to "));
    let Some(target) = target.map(|target| target.trim().trim_end_matches('/')) else {
        return Ok(url.to_owned());
    };
    if host_of(target) == host_of(url) {
        return Ok(target.to_owned());
    }
    let why = format!("the server redirects to another one, {}", host_of(target));
    Err(failed(url, reference, &why).hint("if that is the right one, name it with --source"))
}

/// Host and port of a URL. One of http may be of https, too, by their own ports.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.rsplit('@').next().unwrap_or_default()
}

/// What to do about a server that did not answer.
fn unconnected(url: &str, ended: &Ended, fetching: &Fetching<'_>) -> String {
    let said = |words: &str| ended.stderr.contains(words);
    let hint = if said("Host key verification failed") {
        "the server's key is not in ~/.ssh/known_hosts: connect once with ssh, and look at the key"
    } else if url.starts_with("ssh://") && said("Permission denied") {
        "has the ssh agent the key for it? `ssh-add -l` lists what it has"
    } else if said("could not read Username") || said("could not read Password") {
        "the server asks for a login, and kcompile never prompts for one"
    } else {
        "is there a network, and such a repository?"
    };
    format!("{hint}{}", proxies_named(&fetching.host.proxies))
}

pub(super) fn no_such_reference(url: &str, reference: &str, branches: &[&str]) -> Error {
    let error = Error::fetch(format!("{url} has no branch or tag `{reference}`"));
    if branches.is_empty() {
        return error;
    }
    // The newest names are the last ones of a sorted list, more or less.
    let last: Vec<String> =
        branches[branches.len().saturating_sub(8)..].iter().map(|name| tame(name)).collect();
    error.hint(format!("it has, among others: {}", last.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_ends_at_the_limit() {
        let mut watch = Watch::new(Duration::from_secs(30));
        watch.see(Heard::Silence, LARGEST_PACK);
        assert_eq!(watch.stopped, None);
        watch.see(Heard::Silence, LARGEST_PACK + 1);
        assert!(watch.stopped.unwrap().starts_with("more than 2"));
    }

    #[test]
    fn a_server_cannot_say_that_all_has_come() {
        let mut watch = Watch::new(Duration::from_secs(30));
        watch.see(Heard::Stderr(b"remote: Receiving objects: 100% (2/2)\rRecei"), 1);
        assert!(!watch.is_complete);
        watch.see(Heard::Stderr(b"ving objects: 100% (2/2), done.\n"), 1);
        assert!(watch.is_complete);
    }

    #[test]
    fn hosts_are_compared_without_logins() {
        assert_eq!(host_of("https://me@x:1/y"), host_of("http://x:1/z/"));
        assert_ne!(host_of("https://x/y"), host_of("https://x.example/y"));
    }
}
