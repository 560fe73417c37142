//! Downloads a file. The received part is kept, and the download resumes after a lost connection.

use super::http::{Body, CONNECTION_LOST, Http, status_error};
use crate::host::process;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::format_size;
use reqwest::StatusCode;
use reqwest::blocking::RequestBuilder;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// A lost connection counts as a failed attempt if it brought less than this.
const MIN_RESUME: u64 = 64 << 10;
/// A kernel tarball has about 140 MB.
pub(super) const MAX_DOWNLOAD: u64 = 2 << 30;

/// Reads a file from a server. Resumes after a lost connection.
pub(super) struct Download<'a> {
    http: &'a Http<'a>,
    url: String,
    partial: File,
    policy: ResumePolicy,
    /// The bytes of `partial` that are still to be read again.
    replay: u64,
    body: Option<Body>,
    /// The bytes that are read or wait in `partial`.
    done: u64,
    /// The size, if the server says it.
    pub(super) total: Option<u64>,
    failures: u32,
    /// `done` at the last failure.
    failed_at: u64,
    /// The server has sent everything.
    has_ended: bool,
    /// It continues the partial download of an earlier run.
    pub(super) is_resumed: bool,
}

/// Whether a file may be put together from two connections, which may send different files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ResumePolicy {
    /// Yes, since its digest is checked.
    Verified,
    /// No, since its digest is not known.
    Never,
}

impl Http<'_> {
    /// Starts to download `url` into `partial`, which may have the first bytes from an earlier run.
    pub(super) fn download(&self, url: &str, partial: File, policy: ResumePolicy) -> Result<Download<'_>> {
        let mut download = Download {
            http: self,
            url: url.to_owned(),
            partial,
            policy,
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
    /// Returns whether the server has sent everything, so that there is nothing to resume.
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

    /// Requests the rest. A status 206 must continue at the right place. Others send the whole file.
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
                _ => Err(self.connection_lost("the server has no more bytes")),
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
            // The whole file comes again. The digest shows whether it is the same file.
            (_, Resume::MidStream) => return self.skip(self.http.body(response)),
        }
        self.body = Some(self.http.body(response));
        Ok(())
    }

    /// Sets the size that the server reports. It must not change, and is limited.
    fn set_total(&mut self, total: Option<u64>) -> Result<()> {
        let Some(total) = total else { return Ok(()) };
        if total > MAX_DOWNLOAD {
            let (total, limit) = (format_size(total), format_size(MAX_DOWNLOAD));
            return Err(Error::fetch(format!("{}: {total} are more than the limit of {limit}", self.url)));
        }
        match self.total.replace(total).filter(|before| *before != total) {
            None => Ok(()),
            Some(before) => Err(Error::fetch(format!(
                "{}: the size of the file changed from {before} to {total} bytes",
                self.url
            ))
            .hint("the mirror may be updating: try again later, or another --mirror URL")),
        }
    }

    /// Skips the bytes that are there already.
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
            .hint("run the same command again to resume the download")
    }

    /// Reads from the connection. The error says why the connection was lost or stalled.
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
                        return Err(self.connection_lost("the file is larger than its announced size"));
                    }
                    self.partial
                        .write_all(&buffer[..read])
                        .context(Kind::Build, || "cannot write a partial download".into())?;
                    return Ok(read);
                }
                Err(why) if self.policy == ResumePolicy::Never && self.done > 0 => {
                    return Err(self.connection_lost(&why));
                }
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

/// Where a connection resumes.
#[derive(Clone, Copy)]
enum Resume {
    /// Nothing has been read yet, so that a restart is possible.
    FromPartial,
    /// The reader has `done` bytes.
    MidStream,
}

/// Parses `bytes 5-9/10` and `bytes */10`. Returns the start and the size of the file.
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
