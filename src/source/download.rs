//! A file that is downloaded: its bytes as they come, kept as far as they came, resumed where the line drops.

use super::http::{Body, CONNECTION_LOST, Http, status_error};
use crate::host::process;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::format_size;
use reqwest::StatusCode;
use reqwest::blocking::RequestBuilder;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// A connection that brought this much before it failed does not count as a failure.
const MIN_RESUME: u64 = 64 << 10;
/// A kernel tarball is about 140 MB.
pub(super) const MAX_DOWNLOAD: u64 = 2 << 30;

/// The bytes of a file on a server as they come: resumed where the line drops.
pub(super) struct Download<'a> {
    http: &'a Http<'a>,
    url: String,
    partial: File,
    /// May it be put together from two connections?
    resumes: bool,
    /// Bytes of `partial` that are still to be read again.
    replay: u64,
    body: Option<Body>,
    /// Bytes handed on or waiting in `partial`.
    done: u64,
    /// Bytes in all, where the server says.
    pub(super) total: Option<u64>,
    failures: u32,
    /// `done` at the last failure.
    failed_at: u64,
    /// The server has sent all that it has.
    has_ended: bool,
    /// It goes on with what an earlier run has received.
    pub(super) is_resumed: bool,
}

impl Http<'_> {
    /// Begins to download `url` into `partial`. Where it `resumes`, since there is a digest for the whole,
    /// what `partial` holds already, from an earlier run, is not asked for again.
    pub(super) fn download(&self, url: &str, partial: File, resumes: bool) -> Result<Download<'_>> {
        let mut download = Download {
            http: self,
            url: url.to_owned(),
            partial,
            resumes,
            replay: 0,
            body: None,
            done: 0,
            total: None,
            failures: 0,
            failed_at: 0,
            has_ended: false,
            is_resumed: false,
        };
        download.begin()?;
        Ok(download)
    }
}

impl Download<'_> {
    /// Returns whether the server has sent all that it has, so that there is nothing to go on with.
    pub(super) fn is_complete(&self) -> bool {
        self.replay == 0 && (self.has_ended || self.total == Some(self.done))
    }

    fn begin(&mut self) -> Result<()> {
        let message = || "cannot read a partial download".to_owned();
        self.done = self.partial.seek(io::SeekFrom::End(0)).context(Kind::Build, message)?;
        self.connect(Resume::FromPartial)?;
        self.replay = self.done;
        self.is_resumed = self.done > 0;
        self.partial.rewind().context(Kind::Build, message)
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
        let (start, all) = content_range(response.headers());
        self.set_total(all)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            if all == Some(done) {
                self.body = None;
                return Ok(());
            }
            return match resume {
                Resume::FromPartial if done > 0 => self.restart().and_then(|()| self.connect(resume)),
                _ if done == 0 => Err(status_error(&self.url, response.status())),
                _ => Err(self.connection_lost("the server has no more of it")),
            };
        }
        if response.status() == StatusCode::PARTIAL_CONTENT && start == Some(done) {
            self.body = Some(self.http.body(response));
            return Ok(());
        }
        if response.status() == StatusCode::PARTIAL_CONTENT && done > 0 {
            return Err(self.connection_lost("the server resumed at another place"));
        }
        self.set_total(response.content_length())?;
        match (done, resume) {
            (0, _) => {}
            (_, Resume::FromPartial) => self.restart()?,
            // All of it comes again: what has been handed on already is skipped. That both are the
            // same file is for the digest to say, so there must be one.
            (_, Resume::MidStream) => return self.skip(self.http.body(response)),
        }
        self.body = Some(self.http.body(response));
        Ok(())
    }

    /// How much there is in all: where the server says it, no more than there may be, and what it said before.
    fn set_total(&mut self, total: Option<u64>) -> Result<()> {
        let Some(total) = total else { return Ok(()) };
        if total > MAX_DOWNLOAD {
            let (total, limit) = (format_size(total), format_size(MAX_DOWNLOAD));
            return Err(Error::fetch(format!("{}: {total} are more than the limit of {limit}", self.url)));
        }
        match self.total.replace(total).filter(|before| *before != total) {
            None => Ok(()),
            Some(before) => Err(Error::fetch(format!(
                "{}: the server speaks of another file: of {total} bytes, and before of {before}",
                self.url
            ))
            .hint("is the mirror being updated? Try again, or another one with --mirror URL")),
        }
    }

    /// Goes on behind the bytes that are there already.
    fn skip(&mut self, mut body: Body) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut left = self.done;
        while left > 0 {
            process::check()?;
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match body.receive(&mut buffer[..length]) {
                Ok(0) => return Err(self.connection_lost("the server cannot resume")),
                Ok(read) => left -= read as u64,
                Err(why) => return Err(self.connection_lost(&why)),
            }
        }
        self.body = Some(body);
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.done = 0;
        let emptied = self.partial.set_len(0).and_then(|()| self.partial.rewind());
        emptied.context(Kind::Build, || "cannot write a partial download".into())
    }

    fn connection_lost(&self, why: &str) -> Error {
        let total = self.total.map_or_else(String::new, |total| format!(" of {total}"));
        Error::fetch(format!("{}: got {}{total} bytes: {why}", self.url, self.done))
            .hint("the same command goes on from there")
    }

    /// Reads from the connection; `Err` is a line that dropped or stalled.
    fn receive(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, String> {
        let Some(body) = &mut self.body else { return Ok(0) };
        match body.receive(buffer)? {
            0 if self.total.is_some_and(|total| self.done < total) => Err(CONNECTION_LOST.into()),
            read => Ok(read),
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.replay > 0 {
            let length = buffer.len().min(usize::try_from(self.replay).unwrap_or(usize::MAX));
            let read = self
                .partial
                .read(&mut buffer[..length])
                .context(Kind::Build, || "cannot read a partial download".into())?;
            self.replay -= read as u64;
            return Ok(read);
        }
        loop {
            process::check()?;
            match self.receive(buffer) {
                Ok(read) => {
                    self.has_ended = read == 0;
                    self.done += read as u64;
                    if self.done - self.failed_at >= MIN_RESUME {
                        self.failures = 0;
                    }
                    if self.done > self.total.unwrap_or(MAX_DOWNLOAD) {
                        return Err(self.connection_lost("more than was announced"));
                    }
                    self.partial
                        .write_all(&buffer[..read])
                        .context(Kind::Build, || "cannot keep a partial download".into())?;
                    return Ok(read);
                }
                // Two connections may bring two files: only a digest can tell.
                Err(why) if !self.resumes && self.done > 0 => return Err(self.connection_lost(&why)),
                Err(why) => {
                    self.failures += 1;
                    self.failed_at = self.done;
                    self.http.pause_after(self.connection_lost(&why), self.failures, None)?;
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
