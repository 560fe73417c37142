//! What can go wrong, in one shape: a kind (which decides the exit code), a message, a cause chain
//! and at most one hint that says what to do next.

use std::fmt;

/// Decides the exit code; the numbers are part of the command-line contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The build or a check failed: 1.
    Build,
    /// The command line, a config, a catalog or the plan is wrong: 2.
    Usage,
    /// A source could not be fetched or verified: 3.
    Fetch,
    /// The host lacks a tool, a header or a permission: 4.
    Host,
    /// A signal ended the run: 128 + its number.
    Interrupted(i32),
}

/// What to do where a disk is full. The source of a kernel was measured: 1.2 GB, and its archive.
pub(crate) const NO_SPACE: &str = "free some space (`kcompile clean` removes sources and builds that are not in use), or \
    choose another disk with --cache-dir and -o; the same command goes on from here. The source of a kernel takes \
    1.4 GB, its build comes on top";

/// The one error type of kcompile.
#[derive(Debug)]
pub struct Error {
    /// Decides the exit code.
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Are bytes missing, or others than they should be?
    is_damage: bool,
}

/// `Result` with kcompile's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` names the path, URL, option or symbol, in lower case, without a final dot.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, cause: None, is_damage: false }
    }

    /// Exit code 1.
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Kind::Build, message)
    }

    /// Exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Exit code 3.
    pub fn fetch(message: impl Into<String>) -> Self {
        Self::new(Kind::Fetch, message)
    }

    /// Exit code 4.
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(Kind::Host, message)
    }

    /// The same error, with `what` before its message.
    pub fn with_prefix(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same error with `hint`, which replaces an earlier one: what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error about what `option` of the command line names.
    pub fn of(mut self, option: &str) -> Self {
        self.message.insert_str(0, &format!("{option}: "));
        self
    }

    /// The same error, because bytes are missing or others than their digest or size says. A file that is whole and
    /// breaks a rule is not damaged.
    pub fn mark_damaged(mut self) -> Self {
        self.is_damage = true;
        self
    }

    /// The same error with the error that caused it.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Are bytes missing, or others than their digest or size says?
    pub fn is_damage(&self) -> bool {
        self.is_damage
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref().or(self.is_disk_full().then_some(NO_SPACE))
    }

    /// Was a disk or a quota full?
    fn is_disk_full(&self) -> bool {
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn std::error::Error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(io, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The process exit code, as docs/reference/exit-codes.md lists them; never 0.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Build => 1,
            Kind::Usage => 2,
            Kind::Fetch => 3,
            Kind::Host => 4,
            Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut message = self.message.clone();
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn std::error::Error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Libraries like to repeat their cause in their own text: say each thing once.
            if !message.contains(&text) {
                write!(f, ": {text}")?;
                message.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns a library's error into ours, with the words that say what was being done to what.
pub trait ResultExt<T> {
    /// `Err` becomes an [`Error`] of `kind` with `message`, caused by the original one.
    fn context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let cause = error.into();
            // Our own errors come back through `io::Error` where a reader fails inside a library:
            // their kind and hint must survive the trip.
            let cause = match cause.downcast::<std::io::Error>() {
                Ok(io) if io.get_ref().is_some_and(is_ours) => io.into_inner().expect("checked"),
                Ok(io) => io,
                Err(cause) => cause,
            };
            match cause.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(cause) => Error::new(kind, message()).caused_by(cause),
            }
        })
    }
}

fn is_ours(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<Error>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_chain_is_one_line() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::fetch("cannot read /x").caused_by(cause).hint("make it");
        assert_eq!(error.to_string(), "cannot read /x: no such file");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn our_own_error_survives_a_trip_through_a_reader() {
        let inner = Error::fetch("checksum mismatch").hint("try again");
        let io: std::io::Result<()> = Err(std::io::Error::other(inner));
        let error = io.context(Kind::Build, || "cannot unpack".into()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind), ("checksum mismatch", Kind::Fetch));
        assert_eq!(error.hint_text(), Some("try again"));
    }

    #[test]
    fn signals_keep_their_number() {
        assert_eq!(Error::new(Kind::Interrupted(2), "interrupted").exit_code(), 130);
        assert_eq!(Error::new(Kind::Interrupted(15), "terminated").exit_code(), 143);
    }
}
