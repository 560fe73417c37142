//! Asks whether a server answers, in a short time.

use super::http::SystemResolver;
use crate::util::threads;
use reqwest::blocking::Client;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Returns the time until the server of `url` answers, with any status, or why it does not. Waits at most `limit`.
pub fn answers(url: &str, limit: Duration) -> Result<Duration, String> {
    let (sender, receiver) = channel();
    let (began, url) = (Instant::now(), url.to_owned());
    let ask = move || {
        let builder = Client::builder().dns_resolver(Arc::new(SystemResolver));
        let client = builder.connect_timeout(limit).timeout(limit).build();
        let asked = client.and_then(|client| client.head(&url).send());
        // The receiver is gone if this took too long.
        let _ = sender.send(asked.map(drop));
    };
    // The look-up of a name has its own, longer timeout, so the thread may outlive the limit.
    threads::spawn(ask).map_err(|error| error.to_string())?;
    match receiver.recv_timeout(limit) {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(error)) if error.is_timeout() => Err(no_answer(limit)),
        Ok(Err(error)) => Err(innermost(&error)),
        Err(_) => Err(no_answer(limit)),
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// Returns the innermost cause of an error, such as `Connection refused`.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}
