//! An HTTP client for downloads. Retries after connection errors, and checks responses.

use crate::host::process;
use crate::host::tls::build_client;
use crate::report::Reporter;
use crate::source::FetchContext;
use crate::util::error::{Error, Kind, Result, ResultExt, without_number};
use crate::util::text::{format_size, redact_credentials};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of attempts without a byte in between.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt, which doubles before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server gets by Retry-After.
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// The lowest rate over the stall timeout in bytes per second, as curl's `--speed-limit`.
pub(super) const MIN_RATE: u64 = 1_000;
pub(super) const CONNECTION_LOST: &str = "the connection was lost";

const OTHER_SERVER: &str =
    "choose a reachable server with --mirror URL, or another source with --source (apt, a tarball)";
const CERTIFICATE: &str = "choose another server with --mirror URL, or name the certificate of your own authority \
                           with SSL_CERT_FILE";

/// A failed request.
struct Failure {
    why: String,
    hint: &'static str,
    /// Whether another attempt would fail in the same way.
    is_permanent: bool,
}

/// A client that uses the proxies of the environment, and never goes from https to http.
pub(super) struct Http<'a> {
    client: Client,
    reporter: &'a Reporter,
    /// A connection with less than [`MIN_RATE`] for this long has stalled.
    stall: Duration,
    /// The end of hints about failed connections, which names the proxies.
    proxies: String,
}

/// Looks names up on the thread of the client, which has one request at a time. The client's own resolver starts
/// a thread, and panics if it cannot.
pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (name.as_str(), 0).to_socket_addrs();
        Box::pin(std::future::ready(match found {
            Ok(addresses) => Ok(Box::new(addresses) as Addrs),
            Err(error) => Err(error.into()),
        }))
    }
}

impl<'a> Http<'a> {
    pub(super) fn new(ctx: &FetchContext<'a>) -> Result<Http<'a>> {
        let FetchContext { reporter, stall, .. } = *ctx;
        let client = build_client(|builder| {
            builder
                .connect_timeout(stall)
                // The blocking client counts this for each read, not for the whole transfer.
                .timeout(stall)
                .redirect(reqwest::redirect::Policy::custom(|attempt| {
                    let was_https = attempt.previous().iter().any(|url| url.scheme() == "https");
                    if was_https && attempt.url().scheme() != "https" {
                        attempt.error("a redirect from https to http is refused")
                    } else if attempt.previous().len() > 5 {
                        attempt.error("too many redirects")
                    } else {
                        attempt.follow()
                    }
                }))
                .dns_resolver(Arc::new(SystemResolver))
        })?;
        Ok(Http { client, reporter, stall, proxies: proxies_named(&ctx.host.proxies) })
    }

    /// Fetches the text at `url`, which has at most `limit` bytes. Returns `None` if the server does not have
    /// it (404). Retries if the connection is lost or stalls.
    pub(super) fn text(&self, url: &str, limit: u64) -> Result<Option<String>> {
        let mut buffer = vec![0; 16 << 10];
        let mut attempt = 1;
        loop {
            let response = self.send(url, |request| request, |status| status == StatusCode::NOT_FOUND)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let mut body = self.body(response);
            let mut bytes = Vec::new();
            let why = loop {
                process::check()?;
                match body.receive(&mut buffer) {
                    Ok(0) => {
                        let text = String::from_utf8(bytes).map(Some);
                        return text.context(Kind::Fetch, || format!("cannot fetch {url}"));
                    }
                    Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                    Err(why) => break why,
                }
                if bytes.len() as u64 > limit {
                    let limit = format_size(limit);
                    return Err(Error::fetch(format!("cannot fetch {url}: larger than {limit}")));
                }
            };
            let error = Error::fetch(format!("{url}: got {} bytes: {why}", bytes.len()));
            self.pause_after(error.hint("choose another server with --mirror URL"), attempt, None)?;
            attempt += 1;
        }
    }

    /// Reports a note to the user.
    pub(super) fn note(&self, text: &str) {
        self.reporter.note(text);
    }

    /// Sends a request. Retries after a pause if the connection fails, or for the statuses 429 and 5xx. Any
    /// other status that is neither a success nor `accepted` is an error.
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
                    let Failure { why, hint, is_permanent } = self.failure(&cause);
                    let error = Error::fetch(format!("cannot fetch {url}: {why}"))
                        .hint(format!("{hint}{}", self.proxies));
                    if is_permanent {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            self.pause_after(error, attempt, pause)?;
            attempt += 1;
        }
    }

    /// Returns why a request failed. The text of `reqwest` repeats the URL and names its layers, and the types of
    /// most of its causes are not public.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
        let last = texts.last().map_or_else(|| error.to_string(), |text| without_number(text).to_owned());
        let certificate = texts.iter().find_map(|text| text.split_once("invalid peer certificate: "));
        let mut failure = Failure { why: last, hint: OTHER_SERVER, is_permanent: false };
        if texts.iter().any(|text| text == "dns error") {
            let host = error.url().and_then(|url| url.host_str()).unwrap_or("the server");
            let proxy = if self.proxies.is_empty() { "" } else { " or its proxy" };
            // The texts of EAI_AGAIN in glibc and musl.
            let is_temporary =
                ["Temporary failure", "Try again"].iter().any(|text| failure.why.contains(text));
            failure.why = format!("no address for {host}{proxy}");
            failure.is_permanent = !is_temporary;
        } else if error.is_timeout() {
            failure.why = format!("no answer within {} s", self.stall.as_secs());
        } else if let Some((_, why)) = certificate {
            // `Other(OtherError(CaUsedAsEndEntity))`
            let why = why
                .strip_prefix("Other(")
                .map_or(why, |why| why.trim_end_matches(')').rsplit('(').next().unwrap_or_default());
            failure =
                Failure { why: format!("invalid certificate: {why}"), hint: CERTIFICATE, is_permanent: true };
        } else if failure.why.contains("InvalidContentType") {
            failure.why = "the server does not use TLS".to_owned();
            failure.is_permanent = true;
        } else if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            failure.why = io::ErrorKind::ConnectionRefused.to_string();
            failure.is_permanent = true;
        } else {
            failure.is_permanent = error.is_redirect() || error.is_builder();
        }
        failure
    }

    /// Returns the body of a response.
    pub(super) fn body(&self, response: Response) -> Body {
        Body { response, stall: self.stall, since: Instant::now(), received: 0 }
    }

    /// Reports the error and waits. Fails after the last attempt, or after Ctrl-C.
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

/// The body of a response, with its rate.
pub(super) struct Body {
    response: Response,
    stall: Duration,
    /// When the rate was last checked, and the bytes since then.
    since: Instant,
    received: u64,
}

impl Body {
    /// Reads more bytes, 0 at the end. The error says why the connection was lost or stalled.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, String> {
        let read = self.response.read(buffer).map_err(|error| {
            if is_timeout(&error) {
                format!("no data for {} s", self.stall.as_secs())
            } else {
                CONNECTION_LOST.to_owned()
            }
        })?;
        self.received += read as u64;
        let elapsed = self.since.elapsed();
        if read > 0 && elapsed >= self.stall {
            let rate = self.received as f64 / elapsed.as_secs_f64();
            if rate < MIN_RATE as f64 {
                return Err(format!("stalled at {rate:.0} bytes per second"));
            }
            (self.since, self.received) = (Instant::now(), 0);
        }
        Ok(read)
    }
}

pub(super) fn status_error(url: &str, status: StatusCode) -> Error {
    Error::fetch(format!("cannot fetch {url}: HTTP status {status}"))
        .hint("check the version, and that the mirror has kernel.org's layout")
}

/// Returns the causes of an error, the deepest one last.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |error| error.source())
}

/// Returns whether kcompile's own timeout ended the read. The client wraps it into an error of another kind.
fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>());
    error.kind() == io::ErrorKind::TimedOut || inner.is_some_and(reqwest::Error::is_timeout)
}

/// Returns the end of a hint that names the proxies, or nothing.
pub(super) fn proxies_named(proxies: &BTreeMap<String, String>) -> String {
    if proxies.is_empty() {
        return String::new();
    }
    let named = proxies.iter().map(|(key, value)| format!("{key}={}", redact_credentials(value)));
    format!("; the environment names a proxy: {}", named.collect::<Vec<_>>().join(" "))
}

/// Returns the seconds of `Retry-After`. A date there is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?))
}
