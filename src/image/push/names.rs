//! Checks the names of registries, repositories and tags.

use crate::oci::tags;
use crate::util::error::{Error, Result};
use camino::Utf8Path;

/// Checks that the prefix is the host of a registry, and names that every registry accepts.
///
/// # Errors
///
/// Exit code 2: it is not.
pub fn check_prefix(prefix: &str) -> Result<()> {
    // The text may have a password, so the message does not repeat it.
    if prefix.contains('@') {
        return Err(Error::usage("the registry has an `@` in its name")
            .hint("do not put a user and a password there; log in with `skopeo login`"));
    }
    let invalid = |why: &str| {
        Err(Error::usage(format!("`{}` is not a registry with a prefix: {why}", prefix.escape_debug()))
            .hint("expected REGISTRY/PREFIX, such as docker.io/foobar or localhost:5000/test"))
    };
    if prefix.contains("://") {
        return invalid("it must not begin with `https://` or `docker://`");
    }
    let (host, path) = prefix.split_once('/').unwrap_or((prefix, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    // Docker's rules would silently put docker.io before it.
    if !name.contains('.') && name != "localhost" && !host.contains(':') {
        return invalid("it must begin with the host of the registry");
    }
    let fits = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if !name.split('.').all(fits) || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return invalid("the host is invalid");
    }
    let is_valid = path.is_empty() && !prefix.ends_with('/') || path.split('/').all(is_repository_name);
    if !is_valid {
        return invalid(
            "names after the host consist of lower-case letters and digits, joined by one of `-._`",
        );
    }
    Ok(())
}

/// Returns whether a component of a repository's name follows the grammar of the distribution specification,
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let joins = name.split(|c: char| c.is_ascii() && is_plain(c as u8)).filter(|join| !join.is_empty());
    let ends_plain = |byte: Option<&u8>| byte.copied().is_some_and(is_plain);
    ends_plain(name.as_bytes().first())
        && ends_plain(name.as_bytes().last())
        && joins.into_iter().all(|join| matches!(join, "." | "_" | "__") || join.bytes().all(|b| b == b'-'))
}

pub(super) fn check_name(layout: &Utf8Path, name: &str, tag: &str) -> Result<()> {
    if !is_repository_name(name) {
        return Err(Error::usage(format!("{layout}: registries do not accept `{name}` as a name")).hint(
            "rename the directory; names consist of lower-case letters and digits, joined by one of `-._`",
        ));
    }
    if tags::is_registry_tag(tag) {
        return Ok(());
    }
    Err(Error::usage(format!("{layout}: registries do not accept `{}` as a tag", tag.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_host_and_names() {
        for right in [
            "docker.io/foobar",
            "localhost:5000/test",
            "localhost",
            "ghcr.io/a/b-c/d__e",
            "r:5000",
            "10.0.0.1/x",
        ] {
            assert!(check_prefix(right).is_ok(), "{right}");
        }
        for invalid in [
            "",
            "foobar",
            "foobar/x",
            "docker.io/",
            "docker.io//x",
            "docker.io/Foo",
            "docker.io/a_-b",
            "docker://docker.io/x",
            "docker.io/x:1",
            "-a.io/x",
            "a..io/x",
            "localhost:/x",
            "localhost:99999/x",
            "docker.io/x y",
            "docker.io/é",
        ] {
            assert!(check_prefix(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = check_prefix("me:hush@docker.io/foobar").unwrap_err();
        assert!(!error.to_string().contains("hush") && !error.hint_text().unwrap().contains("hush"));
    }

    #[test]
    fn tags_are_of_the_distribution_specification() {
        let check = |tag: &str| check_name("out/x".into(), "x", tag);
        assert!(check("6.1.7").is_ok() && check("6.18-rc3").is_ok() && check(&"a".repeat(128)).is_ok());
        for invalid in ["", "-a", ".a", "6.1+x", "a b", &"a".repeat(129)] {
            assert!(check(invalid).is_err(), "{invalid}");
        }
    }
}
