//! Where a kernel's source comes from, as `--source` and the catalog write it.

use super::VersionRequest;
use crate::util::text::has_credentials;
use camino::Utf8PathBuf;
use std::fmt;
use std::str::FromStr;

/// The forms of a source, for messages.
pub const SOURCE_FORMS: &str =
    "kernel.org, git[+URL][#REF], apt[:PACKAGE], or the path of a tarball or directory";

/// The source of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A release tarball of kernel.org, or of a mirror with the same layout.
    KernelOrg,
    /// One branch, tag or commit of a git repository.
    Git {
        /// By default cloud-hypervisor/linux.
        url: Option<String>,
        /// By default the branch `ch-<VERSION>`.
        reference: Option<String>,
    },
    /// The distribution's kernel source package.
    Apt {
        /// By default `linux-source-<MAJOR>.<MINOR>`.
        package: Option<String>,
    },
    /// A tarball or a directory on this machine.
    Path(Utf8PathBuf),
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceSpec::KernelOrg => f.write_str("kernel.org"),
            SourceSpec::Git { url, reference } => {
                f.write_str("git")?;
                url.iter().try_for_each(|url| write!(f, "+{url}"))?;
                reference.iter().try_for_each(|reference| write!(f, "#{reference}"))
            }
            SourceSpec::Apt { package: None } => f.write_str("apt"),
            SourceSpec::Apt { package: Some(package) } => write!(f, "apt:{package}"),
            SourceSpec::Path(path) => f.write_str(path.as_str()),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        if spec == "kernel.org" {
            return Ok(SourceSpec::KernelOrg);
        }
        if spec == "apt" || spec.starts_with("apt:") {
            let package = spec.strip_prefix("apt:").map(str::to_owned);
            // The grammar of Debian policy 5.6.1. The name becomes an argument of apt.
            let is_name = |name: &String| {
                name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
            };
            if package.as_ref().is_none_or(is_name) {
                return Ok(SourceSpec::Apt { package });
            }
            return Err(format!("`{spec}`: not the name of a package"));
        }
        if spec == "git" || spec.starts_with("git+") || spec.starts_with("git#") {
            return parse_git(spec);
        }
        if spec.is_empty() {
            return Err(format!("the source is empty; expected {SOURCE_FORMS}"));
        }
        if is_url(spec) {
            return Err(format!(
                "a URL alone is not a source; write git+URL#REF for a git repository, download a tarball and \
                 give its path, or name a mirror of kernel.org with --mirror. The forms are {SOURCE_FORMS}"
            ));
        }
        Ok(SourceSpec::Path(spec.into()))
    }
}

/// Returns whether `text` begins with a scheme of RFC 3986 and `://`. A path is never meant by that.
fn is_url(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn parse_git(spec: &str) -> Result<SourceSpec, String> {
    let rest = spec.trim_start_matches("git");
    let (url, reference) = match rest.split_once('#') {
        Some((url, reference)) => (url, Some(reference.to_owned())),
        None => (rest, None),
    };
    let url = url.strip_prefix('+').map(str::to_owned);
    if url.as_deref() == Some("") {
        return Err(format!("`{spec}`: the URL or the path of a repository is missing after the `+`"));
    }
    if reference.as_deref() == Some("") {
        return Err(format!("`{spec}`: a branch, a tag or a commit is missing after the `#`"));
    }
    // The URL appears in the lock file, in receipts and in images.
    if url.as_deref().is_some_and(has_credentials) {
        return Err("the URL has a password or a token; use an SSH key or a local clone instead".into());
    }
    if url.as_deref().is_some_and(|url| url.contains('?')) {
        return Err(
            "the URL has a query, which may be a token; use an SSH key or a local clone instead".into()
        );
    }
    Ok(SourceSpec::Git { url, reference })
}

/// Returns Debian's name for the source package of a version's series.
pub fn source_package(version: VersionRequest) -> String {
    let (major, minor) = version.floor().series();
    format!("linux-source-{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed_and_printed() {
        let git = |url: Option<&str>, reference: Option<&str>| SourceSpec::Git {
            url: url.map(str::to_owned),
            reference: reference.map(str::to_owned),
        };
        for (spec, source) in [
            ("kernel.org", SourceSpec::KernelOrg),
            ("git", git(None, None)),
            ("git#ch-6.2", git(None, Some("ch-6.2"))),
            ("git+https://x/y.git", git(Some("https://x/y.git"), None)),
            ("git+/srv/linux#v6.1", git(Some("/srv/linux"), Some("v6.1"))),
            ("apt", SourceSpec::Apt { package: None }),
            ("apt:linux-source-6.1", SourceSpec::Apt { package: Some("linux-source-6.1".into()) }),
            ("./apt", SourceSpec::Path("./apt".into())),
            ("./https://x", SourceSpec::Path("./https://x".into())),
            ("a/b://x", SourceSpec::Path("a/b://x".into())),
            ("linux-6.1.tar.xz", SourceSpec::Path("linux-6.1.tar.xz".into())),
        ] {
            assert_eq!(spec.parse::<SourceSpec>().unwrap(), source, "{spec}");
            assert_eq!(source.to_string(), spec);
        }
        assert!("git+ssh://git@host/linux".parse::<SourceSpec>().is_ok());
        for invalid in [
            "",
            "apt:",
            "apt:-o=x",
            "apt:Linux",
            "git#",
            "git+",
            "git+#v6.1",
            "https://cdn.kernel.org/linux-6.1.tar.xz",
            "ftp://x",
            "file:///srv/linux.tar.xz",
            "ssh://git@host/linux.git#v6.1",
            "git+https://me:secret@host/linux",
            "git+https://host/linux?key=secret",
        ] {
            assert!(invalid.parse::<SourceSpec>().is_err(), "{invalid}");
        }
    }
}
