//! HTTP as a downloader needs it: patient with a bad line, strict with a bad answer.

use crate::host::process;
use crate::report::Reporter;
use crate::source::FetchContext;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::{format_size, redact_credentials};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Failures in a row, without a byte in between, until we give up.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What a server may ask for by Retry-After.
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// Less than this, over the stall timeout, is no connection worth keeping: curl's `--speed-limit`.
pub(super) const MIN_RATE: u64 = 1_000;
/// What is said of a line that dropped.
pub(super) const CONNECTION_LOST: &str = "the connection broke off";

/// A client that uses the proxies of the environment, and never goes from https to http.
pub(super) struct Http<'a> {
    client: Client,
    reporter: &'a Reporter,
    /// No progress worth the name for this long is a stall.
    stall: Duration,
    /// What to say of the proxies where a connection fails.
    proxies: String,
}

impl<'a> Http<'a> {
    /// Sets up the client.
    pub(super) fn new(ctx: &FetchContext<'a>) -> Result<Http<'a>> {
        let FetchContext { reporter, stall, .. } = *ctx;
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
        Ok(Http { client, reporter, stall, proxies: proxies_named(&ctx.host.proxies) })
    }

    /// The text at `url`, at most `largest` bytes of it; `None` where the server has none (404). Where the line
    /// drops or stalls it is asked for again.
    pub(super) fn text(&self, url: &str, largest: u64) -> Result<Option<String>> {
        let mut buffer = vec![0; 16 << 10];
        let mut attempt = 1;
        loop {
            let response = self.send(url, |request| request, |status| status == StatusCode::NOT_FOUND)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut body = self.body(response);
            let mut bytes = Vec::new();
            let broken = loop {
                process::check()?;
                match body.receive(&mut buffer) {
                    Ok(0) => break None,
                    Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                    Err(why) => break Some(why),
                }
                if bytes.len() as u64 > largest {
                    let limit = format_size(largest);
                    return Err(Error::fetch(format!("cannot fetch {url}: it is larger than {limit}")));
                }
            };
            let Some(why) = broken else {
                let text = String::from_utf8(bytes).map(Some);
                return text.context(Kind::Fetch, || format!("cannot fetch {url}"));
            };
            let error = Error::fetch(format!("{url}: got {} bytes: {why}", bytes.len()));
            self.pause_after(error.hint("name another server with --mirror URL"), attempt, None)?;
            attempt += 1;
        }
    }

    /// Something that the user should know.
    pub(super) fn note(&self, text: &str) {
        self.reporter.note(text);
    }

    /// Sends a request, again after a pause where the line or the server is to blame (no connection,
    /// 429, 5xx). An answer that is neither a success nor `accepted` is an error that names it.
    pub(super) fn send(
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
                    let error = status_error(url, status);
                    if !(status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) {
                        return Err(error);
                    }
                    (error, retry_after(response.headers()))
                }
                Err(cause) => {
                    let is_final = cause.is_redirect() || cause.is_builder() || is_certificate_error(&cause);
                    let error = Error::fetch(format!("cannot fetch {url}")).caused_by(cause).hint(format!(
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

    /// The body of an answer, to be read within this client's patience.
    pub(super) fn body(&self, response: Response) -> Body {
        Body { response, stall: self.stall, since: Instant::now(), come: 0 }
    }

    /// Says what went wrong and waits, as long as Ctrl-C lets us; after the last attempt, fails.
    pub(super) fn pause_after(&self, error: Error, attempt: u32, delay: Option<Duration>) -> Result<()> {
        if attempt >= ATTEMPTS {
            return Err(error);
        }
        let pause = delay.unwrap_or(FIRST_PAUSE * 2u32.pow(attempt - 1)).min(MAX_PAUSE);
        self.reporter.note(&format!("{error}; trying again (attempt {} of {ATTEMPTS})", attempt + 1));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            process::check()?;
            std::thread::sleep(Duration::from_millis(20).min(pause));
        }
        Ok(())
    }
}

/// The body of an answer as it comes, and the rate of that.
pub(super) struct Body {
    response: Response,
    stall: Duration,
    /// Since when the rate is watched, and what came since.
    since: Instant,
    come: u64,
}

impl Body {
    /// Reads on; 0: that was all. `Err` says that the line dropped or stalled.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, String> {
        let read = self.response.read(buffer).map_err(|error| match is_timeout(&error) {
            true => format!("nothing came for {} s", self.stall.as_secs()),
            false => CONNECTION_LOST.to_owned(),
        })?;
        self.come += read as u64;
        let elapsed = self.since.elapsed();
        if read > 0 && elapsed >= self.stall {
            let rate = self.come as f64 / elapsed.as_secs_f64();
            if rate < MIN_RATE as f64 {
                return Err(format!("stalled at {rate:.0} bytes a second"));
            }
            (self.since, self.come) = (Instant::now(), 0);
        }
        Ok(read)
    }
}

pub(super) fn status_error(url: &str, status: StatusCode) -> Error {
    Error::fetch(format!("cannot fetch {url}: HTTP status {status}"))
        .hint("is there such a version, and does the mirror have kernel.org's layout?")
}

/// Is it the server's certificate? That does not get better by asking again.
fn is_certificate_error(error: &reqwest::Error) -> bool {
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
    let named = proxies.iter().map(|(key, value)| format!("{key}={}", redact_credentials(value)));
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
