//! The error type: a kind, which decides the exit code, a message, a cause chain and a hint.

use std::fmt;

/// The kind of an error. Decides the exit code, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1: the build or a check failed.
    Build,
    /// 2: the command line, a config, a catalog or the plan is wrong.
    Usage,
    /// 3: a source could not be fetched or verified.
    Fetch,
    /// 4: the host lacks a tool, a header or a permission.
    Host,
    /// 128 + the number of the signal that ended the run.
    Interrupted(i32),
}

impl Kind {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Build => "build",
            Kind::Usage => "usage",
            Kind::Fetch => "fetch",
            Kind::Host => "host",
            Kind::Interrupted(_) => "interrupted",
        }
    }
}

/// The hint for a full disk. A kernel's source and its archive were measured.
pub(crate) const NO_SPACE: &str = "free some space (`kcompile clean` removes sources and builds that are not in use), or \
    choose another disk with --cache-dir and -o, then run the same command again. A kernel's source takes 1.4 GB, \
    and its build needs more";

/// The hint for a process or a thread that cannot be started.
pub(crate) const NO_PROCESSES: &str =
    "raise the limit of processes (`ulimit -u`, or pids.max of the cgroup), or lower -j";

/// The hint for a damaged image.
const DAMAGED: &str = "the image is damaged: copy it again, or build it again with --rebuild";

/// An error of kcompile.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    message: String,
    hint: Option<String>,
    excerpt: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    is_damage: bool,
}

/// `Result` with kcompile's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error. `message` names the path, URL, option or symbol, in lower case, without a final dot.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, excerpt: None, cause: None, is_damage: false }
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

    /// Puts `what` before the message.
    pub fn with_prefix(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Names the option that gave a path, as `--config /x: …` if the message begins with the path.
    pub fn with_option(mut self, option: &str) -> Self {
        if self.message.starts_with('/') {
            self.message = format!("{option} {}", self.message);
        } else if !self.message.starts_with(option) {
            self.message = format!("{option}: {}", self.message);
        }
        self
    }

    /// Sets the hint about what to do next. It replaces an earlier one.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets lines that show the place of the error, such as lines of a source file. They follow the message.
    pub fn excerpt(mut self, lines: &[String]) -> Self {
        self.excerpt = (!lines.is_empty()).then(|| lines.join("\n"));
        self
    }

    /// Marks the error as damage: bytes are missing, or do not match their digest or size. A complete file
    /// that breaks a rule is not damaged.
    pub fn mark_damaged(mut self) -> Self {
        self.is_damage = true;
        self
    }

    /// Sets the error that caused this one.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Returns whether bytes are missing, or do not match their digest or size.
    pub fn is_damage(&self) -> bool {
        self.is_damage
    }

    /// Returns the lines that show the place of the error, if there are some.
    pub fn excerpt_text(&self) -> Option<&str> {
        self.excerpt.as_deref()
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        let of_damage = self.is_damage.then_some(DAMAGED);
        self.hint.as_deref().or(self.hint_of_cause()).or(of_damage)
    }

    /// Returns the hint if a full disk or quota is the cause, or a limit of this host.
    fn hint_of_cause(&self) -> Option<&'static str> {
        use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn std::error::Error);
        while let Some(error) = cause {
            match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(StorageFull | QuotaExceeded) => return Some(NO_SPACE),
                // EAGAIN and ENOMEM of fork(2). On a network, EAGAIN is a timeout.
                Some(WouldBlock | OutOfMemory) if self.kind == Kind::Host => return Some(NO_PROCESSES),
                _ => cause = error.source(),
            }
        }
        None
    }

    /// Returns the exit code of the process, which is never 0. docs/reference/exit-codes.md lists them.
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
            let text = without_number(&text);
            // Many libraries repeat their cause in their own text.
            if !message.contains(text) {
                write!(f, ": {text}")?;
                message.push_str(text);
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Removes the number that the standard library adds to the system's texts, `(os error 2)`, and the path of a temporary
/// file that tempfile adds to it.
pub fn without_number(text: &str) -> &str {
    let text = text.split_once(" at path \"").map_or(text, |(text, _)| text);
    let is_number = |end: &str| end.strip_suffix(')').is_some_and(|end| end.parse::<i32>().is_ok());
    text.rsplit_once(" (os error ").filter(|(_, end)| is_number(end)).map_or(text, |(text, _)| text)
}

/// Returns a function that makes the message `cannot VERB OBJECT`, for [`ResultExt::context`].
pub fn cannot<'a>(verb: &'a str, object: &'a (impl fmt::Display + ?Sized)) -> impl Fn() -> String + 'a {
    move || format!("cannot {verb} {object}")
}

/// Turns a library's error into an [`Error`] that says what failed.
pub trait ResultExt<T> {
    /// Turns an error into an [`Error`] of `kind` with `message`, caused by the original one.
    fn context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let cause = error.into();
            // An `Error` of a reader that a library calls comes back inside an `io::Error`. Its kind and hint
            // must not get lost.
            let cause = match cause.downcast::<std::io::Error>() {
                Ok(io) if matches!(io.get_ref(), Some(inner) if inner.is::<Error>()) => {
                    io.into_inner().expect("checked")
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_chain_is_one_line() {
        let missing = Error::usage("cannot read /x").caused_by(std::io::Error::from_raw_os_error(2));
        assert_eq!(missing.to_string(), "cannot read /x: No such file or directory");
        let temporary = "No such file or directory (os error 2) at path \"/x/.tmp\"";
        assert_eq!(without_number(temporary), "No such file or directory");
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::fetch("cannot read /x").caused_by(cause).hint("make it");
        assert_eq!(error.to_string(), "cannot read /x: no such file");
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn the_option_of_a_path_is_named_once() {
        for (message, named) in [
            ("/x: not a config", "--config /x: not a config"),
            ("cannot read /x", "--config: cannot read /x"),
            ("--config: cannot read /x", "--config: cannot read /x"),
        ] {
            assert_eq!(Error::usage(message).with_option("--config").to_string(), named);
        }
    }

    #[test]
    fn an_error_inside_an_io_error_keeps_its_kind_and_hint() {
        let inner = Error::fetch("checksum mismatch").hint("try again");
        let io: std::io::Result<()> = Err(std::io::Error::other(inner));
        let error = io.context(Kind::Build, || "cannot unpack".into()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind), ("checksum mismatch", Kind::Fetch));
        assert_eq!(error.hint_text(), Some("try again"));
    }

    #[test]
    fn exit_codes_of_signals() {
        assert_eq!(Error::new(Kind::Interrupted(2), "interrupted").exit_code(), 130);
        assert_eq!(Error::new(Kind::Interrupted(15), "terminated").exit_code(), 143);
    }
}
