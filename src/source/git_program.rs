//! Calls git with kcompile's configuration only, without prompts, and with limits on memory and output.

use crate::host::Host;
use crate::host::packages;
use crate::host::process::{self, CommandLine, PipeEvent};
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::process::ChildStdout;
use std::time::Duration;

/// Runs git with at most 2 GiB of memory, since servers and patches may name objects of any size.
pub(super) const LIMITED_GIT: &str = "ulimit -v 2097152 2>/dev/null; exec git \"$@\"";
/// The end of git's standard error that is kept.
const MAX_STDERR: usize = 16 << 10;
/// The limit of an answer that is held in memory.
const MAX_ANSWER: u64 = 1 << 20;

/// git for one repository.
pub(super) struct Git<'a> {
    pub host: &'a Host,
    /// `--git-dir`.
    pub dir: Utf8PathBuf,
    /// Additional settings: `key=value`.
    pub settings: Vec<String>,
    /// Additional environment variables.
    pub env: BTreeMap<String, String>,
}

pub(super) struct GitExit {
    pub is_success: bool,
    /// The end of its standard error.
    pub stderr: String,
}

impl<'a> Git<'a> {
    /// Returns git for the repository `dir`, without a network.
    ///
    /// # Errors
    ///
    /// Exit code 4: this host has no git.
    pub fn local(host: &'a Host, dir: &Utf8Path) -> Result<Git<'a>> {
        packages::examine_git(host)?.require()?;
        Ok(Git { host, dir: dir.to_owned(), settings: Vec::new(), env: BTreeMap::new() })
    }

    /// Returns git that may reach the server of `url`. Transfers without progress end after
    /// `stall`, and `jobs` threads index packs.
    pub fn remote(
        host: &'a Host,
        dir: &Utf8Path,
        url: &str,
        stall: Duration,
        jobs: usize,
    ) -> Result<Git<'a>> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let seconds = stall.as_secs().max(1);
        let mut settings = vec![
            format!("protocol.{scheme}.allow=always"),
            "protocol.version=2".to_owned(),
            format!("http.lowSpeedTime={seconds}"),
            "http.lowSpeedLimit=1000".to_owned(),
            "transfer.fsckObjects=true".to_owned(),
            "fetch.unpackLimit=1".to_owned(),
            "fetch.recurseSubmodules=false".to_owned(),
            format!("pack.threads={jobs}"),
        ];
        if scheme == "http" {
            // A server may redirect to https, but never from https to http.
            settings.push("protocol.https.allow=always".to_owned());
        }
        let mut env = host.git_env.clone();
        env.extend(host.proxies.clone());
        if scheme == "ssh" {
            if host.find_program("ssh").is_none() {
                return Err(Error::host("this host has no ssh").hint("install the package openssh-client"));
            }
            env.insert("GIT_SSH_COMMAND".to_owned(), ssh_command(host, stall));
            env.insert("GIT_SSH_VARIANT".to_owned(), "ssh".to_owned());
        }
        Ok(Git { settings, env, ..Git::local(host, dir)? })
    }

    fn command(&self, args: &[&str]) -> CommandLine {
        const SETTINGS: [&str; 9] = [
            "protocol.allow=never",
            "core.attributesFile=/dev/null",
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            // Larger files are not held in memory.
            "core.bigFileThreshold=32m",
            "credential.helper=",
            "core.askPass=",
            "gc.auto=0",
            "maintenance.auto=false",
        ];
        let mut argv = vec!["-c".to_owned(), LIMITED_GIT.to_owned(), "git".to_owned()];
        argv.push(format!("--git-dir={}", self.dir));
        for setting in SETTINGS.into_iter().chain(self.settings.iter().map(String::as_str)) {
            argv.extend(["-c".to_owned(), setting.to_owned()]);
        }
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut env = self.host.child_env.clone();
        env.extend(self.env.clone());
        // `url.*.insteadOf` of the user would fetch from another server than the one in the receipt.
        let own = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            // No ~/.netrc, no ~/.config/git.
            ("HOME", self.dir.as_str()),
        ];
        env.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        CommandLine { program: "sh".to_owned(), args: argv, env, cwd: self.host.cwd.clone() }
    }

    /// Runs git. `take` gets its standard output, and `watch` can stop it.
    pub fn run<T: Send>(
        &self,
        args: &[&str],
        take: impl FnOnce(ChildStdout) -> T + Send,
        mut watch: impl FnMut(PipeEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(GitExit, T)> {
        let mut stderr = Vec::new();
        let (status, output) = process::pipe(&self.command(args), take, |event| {
            if let PipeEvent::Stderr(bytes) = event {
                stderr.extend_from_slice(bytes);
                stderr.drain(..stderr.len().saturating_sub(MAX_STDERR));
            }
            watch(event)
        })?;
        let stderr = String::from_utf8_lossy(&stderr).replace('\r', "\n");
        Ok((GitExit { is_success: status.success(), stderr }, output))
    }

    /// Returns the output of git without the final line feed. `None` means that git failed.
    ///
    /// # Errors
    ///
    /// Exit code 3: more than 1 MiB.
    pub fn run_for_text(&self, args: &[&str]) -> Result<Option<String>> {
        let (exit, answer) = self.run(args, read_answer, |_| ControlFlow::Continue(()))?;
        let answer =
            answer.context(Kind::Fetch, || format!("cannot read the output of git for {}", self.dir))?;
        Ok(exit.is_success.then_some(answer))
    }
}

/// Reads the output of git as text, with a limit.
pub(super) fn read_answer(stdout: ChildStdout) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stdout.take(MAX_ANSWER + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(std::io::Error::other("more than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

impl GitExit {
    /// Returns git's error message in one line.
    pub fn error_message(&self) -> String {
        let lines = || self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let fatal = lines().find_map(|line| line.strip_prefix("fatal: "));
        let message = fatal.or(lines().next_back()).unwrap_or("git failed without a message");
        // ssh prints the reason before git's message.
        let first = lines().next().filter(|_| message.starts_with("Could not read from remote"));
        // The caller names the URL.
        let cause =
            message.strip_prefix("unable to access '").and_then(|rest| Some(rest.split_once("': ")?.1));
        first.or(cause).unwrap_or(message).to_owned()
    }
}

/// Returns the date of the commit that is checked out in `path`, if `path` is a git work tree.
pub(super) fn commit_date(path: &Utf8Path, host: &Host) -> Result<Option<u64>> {
    let git_dir = path.join(".git");
    if !git_dir.exists() {
        return Ok(None);
    }
    let commit = Git::local(host, &git_dir)?.run_for_text(&["cat-file", "commit", "HEAD"])?;
    Ok(commit.as_deref().and_then(committer_date))
}

/// Returns the date in the text of a commit object.
pub(super) fn committer_date(commit: &str) -> Option<u64> {
    let committer = commit.lines().find(|line| line.starts_with("committer "))?;
    let seconds = committer.rsplit(' ').nth(1)?.parse::<i64>().ok()?;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Returns the command for ssh, which uses only keys of the agent and connects to known servers only. It does
/// not prompt, and reads neither the user's configuration nor key files.
fn ssh_command(host: &Host, stall: Duration) -> String {
    let seconds = stall.as_secs().max(1);
    let known = host.child_env.get("HOME").map_or_else(
        || "/dev/null".to_owned(),
        |home| format!("\"{home}/.ssh/known_hosts\" \"{home}/.ssh/known_hosts2\""),
    );
    let options = [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "IdentityFile=none".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        format!("ConnectTimeout={seconds}"),
        format!("ServerAliveInterval={seconds}"),
        "ServerAliveCountMax=1".to_owned(),
        format!("UserKnownHostsFile={known}"),
    ];
    let args = ["ssh".to_owned(), "-F".to_owned(), "/dev/null".to_owned()].into_iter();
    let args: Vec<String> =
        args.chain(options.into_iter().flat_map(|option| ["-o".to_owned(), option])).collect();
    shlex::try_join(args.iter().map(String::as_str)).unwrap_or_else(|_| "false".to_owned())
}
