//! HTTP as a downloader needs it: patient with a bad line, strict with a bad answer.

use crate::error::{Context, Error, Kind, Result};
use crate::process;
use crate::report::Report;
use crate::source::Fetching;
use crate::words::{size, without_login};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE, RETRY_AFTER};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::{Duration, Instant};

/// Failures in a row, without a byte in between, until we give up.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What a server may ask for by Retry-After.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Less than this, over the stall timeout, is no connection worth keeping: curl's `--speed-limit`.
const SLOWEST: u64 = 1_000;
/// A connection that brought this much before it failed does not count as a failure.
const WORTH_IT: u64 = 64 << 10;
/// A kernel tarball is about 140 MB.
const LARGEST_DOWNLOAD: u64 = 2 << 30;

/// A client that uses the proxies of the environment, and never goes from https to http.
pub(super) struct Http<'a> {
    client: Client,
    report: &'a Report,
    /// No progress worth the name for this long is a stall.
    stall: Duration,
    /// What to say of the proxies where a connection fails.
    proxies: String,
}

impl<'a> Http<'a> {
    /// Sets up the client.
    pub(super) fn new(fetching: &Fetching<'a>) -> Result<Http<'a>> {
        let Fetching { report, stall, .. } = *fetching;
        let builder = Client::builder()
            .user_agent(concat!("kcompile/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(stall)
            // The blocking client counts this for each read, not for the whole transfer.
            .timeout(stall)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
                match (was_https && attempt.url().scheme() != "https", attempt.previous().len() > 5) {
                    (true, _) => attempt.error("a redirect from https to http is refused"),
                    (_, true) => attempt.error("too many redirects"),
                    _ => attempt.follow(),
                }
            }));
        let client = builder.build().context(Kind::Host, || "cannot set up HTTPS".into())?;
        Ok(Http { client, report, stall, proxies: proxies_named(&fetching.host.proxies) })
    }

    /// The text at `url`, at most `largest` bytes of it; `None` where the server has none (404).
    pub(super) fn text(&self, url: &str, largest: u64) -> Result<Option<String>> {
        let response = self.send(url, |request| request, |status| status == StatusCode::NOT_FOUND)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let mut text = String::new();
        let read = response.take(largest + 1).read_to_string(&mut text);
        read.context(Kind::Fetch, || format!("cannot fetch {url}"))?;
        match text.len() as u64 > largest {
            true => Err(Error::fetch(format!("cannot fetch {url}: it is larger than {}", size(largest)))),
            false => Ok(Some(text)),
        }
    }

    /// Something that the user should know.
    pub(super) fn note(&self, text: &str) {
        self.report.note(text);
    }

    /// Begins to download `url` into `partial`. Where it `resumes`, since there is a digest for the whole,
    /// what `partial` holds already, from an earlier run, is not asked for again.
    pub(super) fn download(&self, url: &str, partial: File, resumes: bool) -> Result<Download<'_>> {
        let mut download = Download {
            http: self,
            url: url.to_owned(),
            partial,
            resumes,
            replay: 0,
            response: None,
            done: 0,
            total: None,
            failures: 0,
            failed_at: 0,
            window: (Instant::now(), 0),
        };
        download.begin()?;
        Ok(download)
    }

    /// Sends a request, again after a pause where the line or the server is to blame (no connection,
    /// 429, 5xx). An answer that is neither a success nor `accepted` is an error that names it.
    fn send(
        &self,
        url: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
        accepted: impl Fn(StatusCode) -> bool,
    ) -> Result<Response> {
        let mut attempt = 1;
        loop {
            process::check()?;
            let (error, pause) = match with(self.client.get(url)).send() {
                Ok(response) if response.status().is_success() || accepted(response.status()) => {
                    return Ok(response);
                }
                Ok(response) => {
                    let status = response.status();
                    let error = refused(url, status);
                    if !(status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) {
                        return Err(error);
                    }
                    (error, retry_after(response.headers()))
                }
                Err(cause) => {
                    let is_final = cause.is_redirect() || cause.is_builder() || is_distrust(&cause);
                    let error = Error::fetch(format!("cannot fetch {url}")).because(cause).hint(format!(
                        "name a server that can be reached with --mirror URL, or another --source (apt, a tarball){}",
                        self.proxies
                    ));
                    if is_final {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            self.pause_after(error, attempt, pause)?;
            attempt += 1;
        }
    }

    /// Says what went wrong and waits, as long as Ctrl-C lets us; after the last attempt, fails.
    fn pause_after(&self, error: Error, attempt: u32, wanted: Option<Duration>) -> Result<()> {
        if attempt >= ATTEMPTS {
            return Err(error);
        }
        let pause = wanted.unwrap_or(FIRST_PAUSE * 2u32.pow(attempt - 1)).min(LONGEST_PAUSE);
        self.report.note(&format!("{error}; trying again (attempt {} of {ATTEMPTS})", attempt + 1));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            process::check()?;
            std::thread::sleep(Duration::from_millis(20).min(pause));
        }
        Ok(())
    }
}

fn refused(url: &str, status: StatusCode) -> Error {
    Error::fetch(format!("cannot fetch {url}: HTTP status {status}"))
        .hint("is there such a version, and does the mirror have kernel.org's layout?")
}

/// Is it the server's certificate? That does not get better by asking again.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // The TLS library's own type is not reqwest's to give: its words are.
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Was it our own patience that ended? The client wraps its timeout into an error of no kind.
fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    error.kind() == io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout)
}

/// `; the environment names a proxy: …`, or nothing.
pub(super) fn proxies_named(proxies: &BTreeMap<String, String>) -> String {
    let named = proxies.iter().map(|(key, value)| format!("{key}={}", without_login(value)));
    let named: Vec<String> = named.collect();
    match named.is_empty() {
        true => String::new(),
        false => format!("; the environment names a proxy: {}", named.join(" ")),
    }
}

/// Seconds of `Retry-After`; its other form, a date, is left to our own pauses.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?))
}

/// The bytes of a file on a server as they come: resumed where the line drops.
pub(super) struct Download<'a> {
    http: &'a Http<'a>,
    url: String,
    partial: File,
    /// May it be put together from two connections?
    resumes: bool,
    /// Bytes of `partial` that are still to be read again.
    replay: u64,
    response: Option<Response>,
    /// Bytes handed on or waiting in `partial`.
    done: u64,
    /// Bytes in all, where the server says.
    pub(super) total: Option<u64>,
    failures: u32,
    /// `done` at the last failure.
    failed_at: u64,
    /// Since when, and from how many bytes on, the rate is watched.
    window: (Instant, u64),
}

impl Download<'_> {
    /// Has the server sent all of it?
    pub(super) fn is_complete(&self) -> bool {
        self.replay == 0 && self.total == Some(self.done)
    }

    fn begin(&mut self) -> Result<()> {
        let wrong = || "cannot read a partial download".to_owned();
        self.done = self.partial.seek(io::SeekFrom::End(0)).context(Kind::Build, wrong)?;
        self.connect(Resume::FromPartial)?;
        self.replay = self.done;
        self.partial.rewind().context(Kind::Build, wrong)
    }

    /// Asks for the rest. Only a 206 that starts where we stopped continues; a server that sends all
    /// from the start is taken from the start.
    fn connect(&mut self, resume: Resume) -> Result<()> {
        let done = self.done;
        let range = |request: RequestBuilder| match done {
            0 => request,
            _ => request.header(RANGE, format!("bytes={done}-")),
        };
        let response =
            self.http.send(&self.url, range, |status| status == StatusCode::RANGE_NOT_SATISFIABLE)?;
        self.window = (Instant::now(), self.done);
        let (start, all) = content_range(response.headers());
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            if all == Some(done) {
                self.total = all;
                self.response = None;
                return Ok(());
            }
            return match resume {
                Resume::FromPartial if done > 0 => self.start_over().and_then(|()| self.connect(resume)),
                _ if done == 0 => Err(refused(&self.url, response.status())),
                _ => Err(self.broken_off("the server has no more of it")),
            };
        }
        if response.status() == StatusCode::PARTIAL_CONTENT && start == Some(done) {
            self.total = all;
            self.response = Some(response);
            return Ok(());
        }
        if response.status() == StatusCode::PARTIAL_CONTENT && done > 0 {
            return Err(self.broken_off("the server resumed at another place"));
        }
        self.total = response.content_length();
        if let Some(total) = self.total.filter(|total| *total > LARGEST_DOWNLOAD) {
            return Err(Error::fetch(format!(
                "{}: {} are more than the limit of {}",
                self.url,
                size(total),
                size(LARGEST_DOWNLOAD)
            )));
        }
        match (done, resume) {
            (0, _) => {}
            (_, Resume::FromPartial) => self.start_over()?,
            // All of it comes again: what has been handed on already is skipped. That both are the
            // same file is for the digest to say, so there must be one.
            (_, Resume::MidStream) => {
                let skipped =
                    io::copy(&mut response_take(response, done, &mut self.response), &mut io::sink());
                return match skipped {
                    Ok(count) if count == done => Ok(()),
                    _ => Err(self.broken_off("the server cannot resume")),
                };
            }
        }
        self.response = Some(response);
        Ok(())
    }

    fn start_over(&mut self) -> Result<()> {
        self.done = 0;
        let emptied = self.partial.set_len(0).and_then(|()| self.partial.rewind());
        emptied.context(Kind::Build, || "cannot write a partial download".into())
    }

    fn broken_off(&self, why: &str) -> Error {
        let total = self.total.map_or_else(String::new, |total| format!(" of {total}"));
        Error::fetch(format!("{}: got {}{total} bytes: {why}", self.url, self.done))
            .hint("the same command goes on from there")
    }

    /// Reads from the connection; `Err` is a line that dropped or stalled.
    fn receive(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, String> {
        let Some(response) = &mut self.response else { return Ok(0) };
        let read = response.read(buffer).map_err(|error| match is_timeout(&error) {
            true => format!("nothing came for {} s", self.http.stall.as_secs()),
            false => "the connection broke off".to_owned(),
        })?;
        if read == 0 && self.total.is_some_and(|total| self.done < total) {
            return Err("the connection broke off".into());
        }
        let (since, from) = self.window;
        let elapsed = since.elapsed();
        if elapsed >= self.http.stall {
            let rate = (self.done + read as u64 - from) as f64 / elapsed.as_secs_f64();
            if rate < SLOWEST as f64 {
                return Err(format!("stalled at {rate:.0} bytes a second"));
            }
            self.window = (Instant::now(), self.done);
        }
        Ok(read)
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.replay > 0 {
            let wanted = buffer.len().min(usize::try_from(self.replay).unwrap_or(usize::MAX));
            let read = self
                .partial
                .read(&mut buffer[..wanted])
                .context(Kind::Build, || "cannot read a partial download".into())?;
            self.replay -= read as u64;
            return Ok(read);
        }
        loop {
            process::check()?;
            match self.receive(buffer) {
                Ok(read) => {
                    self.done += read as u64;
                    if self.done - self.failed_at >= WORTH_IT {
                        self.failures = 0;
                    }
                    if self.done > self.total.unwrap_or(LARGEST_DOWNLOAD) {
                        return Err(self.broken_off("more than was announced"));
                    }
                    self.partial
                        .write_all(&buffer[..read])
                        .context(Kind::Build, || "cannot keep a partial download".into())?;
                    return Ok(read);
                }
                // Two connections may bring two files: only a digest can tell.
                Err(why) if !self.resumes && self.done > 0 => return Err(self.broken_off(&why)),
                Err(why) => {
                    self.failures += 1;
                    self.failed_at = self.done;
                    self.http.pause_after(self.broken_off(&why), self.failures, None)?;
                    self.connect(Resume::MidStream)?;
                }
            }
        }
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(io::Error::other)
    }
}

/// Where a connection goes on from.
#[derive(Clone, Copy)]
enum Resume {
    /// Nothing has been handed on yet: starting over is possible.
    FromPartial,
    /// The reader has had `done` bytes.
    MidStream,
}

/// The first `count` bytes of `response`, which is kept in `slot` for what follows them.
fn response_take(response: Response, count: u64, slot: &mut Option<Response>) -> io::Take<&mut Response> {
    slot.insert(response).take(count)
}

/// `bytes 5-9/10` and `bytes */10`: where it starts, and how much there is in all.
fn content_range(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes "));
    let Some((range, all)) = value.and_then(|value| value.split_once('/')) else { return (None, None) };
    (range.split_once('-').and_then(|(start, _)| start.parse().ok()), all.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let range = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, value.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(range("bytes */10"), (None, Some(10)));
        assert_eq!(range("lines 1-2/3"), (None, None));
    }
}
