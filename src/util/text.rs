//! Formats numbers and lines for people, and makes text from outside safe for terminals and logs.

use std::time::Duration;

/// Returns a count with its noun: `1 patch`, `3 patches`.
pub fn pluralize(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Returns `names` as a list with a word before the last one: `a, b or c`.
pub fn join_list(names: impl IntoIterator<Item = impl Into<String>>, word: &str) -> String {
    let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} {word} {last}", names.join(", ")),
        last => last.unwrap_or_default(),
    }
}

/// Joins the first `max` of `names` and counts the others: `a, b and 3 more`.
pub fn join_first(names: &[impl AsRef<str>], max: usize, separator: &str) -> String {
    let first: Vec<&str> = names.iter().take(max).map(AsRef::as_ref).collect();
    let more = names.len() - first.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(separator) + &more
}

/// Returns whether a terminal shows `c` as it is. Control, bidirectional and
/// invisible characters are not printable.
pub fn is_printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'))
}

/// Makes text from outside safe for a terminal. Escapes what is not printable, and keeps line feeds.
pub fn escape_control(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || is_printable(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown
}

/// Formats a size in decimal units, as disks and registries do: `139.3 MB`.
pub fn format_size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Reads a size in bytes: `48000000`, `48 MB`, `45.8MiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let message = || format!("`{text}` is not a size: expected a number and B, kB, MB, GB, KiB, MiB or GiB");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(message()),
    };
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(message);
    }
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match number.parse::<f64>() {
        Ok(number) if plain && number * (factor as f64) < 1e18 => Ok((number * factor as f64) as u64),
        _ => Err(message()),
    }
}

/// Formats a duration: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`.
pub fn format_duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Reads an age: `30d`, `12h`, `45m`, `2w`.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let message = || format!("`{text}` is not an age: expected a number and m, h, d or w, such as 30d");
    let unit = match text.chars().last().ok_or_else(message)? {
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(message()),
    };
    let count: u32 = text[..text.len() - 1].parse().map_err(|_| message())?;
    Ok(Duration::from_secs(u64::from(count) * unit))
}

/// Formats an age: `12 min`, `3 h`, `5 days`.
pub fn format_age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds @ 172_800..31_536_000_000 => format!("{} days", seconds / 86_400),
        _ => "an unknown time".to_owned(),
    }
}

/// Makes text from outside safe for one line of a terminal. Puts `?` for what is not printable and for line
/// feeds, and cuts the text to 240 characters.
pub fn sanitize_line(text: &str) -> String {
    const MAX_CHARS: usize = 240;
    let plain = |c: char| if is_printable(c) { c } else { '?' };
    let mut line: String = text.chars().take(MAX_CHARS).map(plain).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// Breaks `text` between words into lines of at most `width` characters. A longer word gets its own line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns whether `url` contains a password or token (`https://name:password@host/`). A mere name, as in
/// `ssh://git@host/`, is not a secret, but over http(s) it can only be a token.
pub fn has_credentials(url: &str) -> bool {
    split_credentials(url)
        .is_some_and(|(scheme, credentials)| credentials.contains(':') || scheme.starts_with("http"))
}

/// Returns the part of `url` after its last slash.
pub fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Replaces the credentials in `url`, so that it can be printed.
pub fn redact_credentials(url: &str) -> String {
    match split_credentials(url) {
        Some((_, credentials)) => url.replacen(&format!("{credentials}@"), "…@", 1),
        None => url.to_owned(),
    }
}

/// Returns the scheme of a URL, and its credentials if it has any.
fn split_credentials(url: &str) -> Option<(&str, &str)> {
    // A proxy may have no scheme.
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    Some((scheme, credentials_in(rest)?))
}

/// Returns the credentials in a URL, where `rest` follows the `//`. A password may contain an unescaped
/// slash. Then the part before the slash is not a host with a port.
fn credentials_in(rest: &str) -> Option<&str> {
    let host = rest.split(['/', '?', '#']).next()?;
    if let Some((credentials, _)) = host.rsplit_once('@') {
        return Some(credentials);
    }
    let (_, port) = host.split_once(':')?;
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(rest.rsplit_once('@')?.0)
}

/// Removes possible secrets from each URL in `text`, which are credentials and queries.
pub fn redact_secrets(text: &str) -> String {
    const ENDS: [char; 5] = ['"', '`', '<', '>', '|'];
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find(":/") {
        let (before, after) = rest.split_at(colon);
        let url = after[1..].trim_start_matches('/');
        let slashes = after.len() - 1 - url.len();
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        shown.push_str(before);
        shown.push_str(&after[..=slashes]);
        rest = url;
        // A URL that was treated as a path has lost a slash.
        let is_url = slashes >= 2 || matches!(scheme, "http" | "https" | "ssh" | "git");
        if scheme.is_empty() || !is_url {
            continue;
        }
        let url = &rest[..rest.find(|c: char| c.is_whitespace() || ENDS.contains(&c)).unwrap_or(rest.len())];
        rest = &rest[url.len()..];
        shown.push_str(&redact_url(scheme, url));
    }
    shown.push_str(rest);
    shown
}

/// Removes possible secrets from a URL without its scheme.
fn redact_url(scheme: &str, url: &str) -> String {
    let mut shown = String::new();
    let mut rest = url;
    if let Some(credentials) = credentials_in(url) {
        let is_name = matches!(scheme, "ssh" | "git") && !credentials.contains(':');
        shown.push_str(if is_name { credentials } else { "…" });
        rest = &url[credentials.len()..];
    }
    let Some((path, query)) = rest.split_once('?') else { return shown + rest };
    let end = query.trim_end_matches([':', ';', ',', '.', ')', '\'']);
    let fragment = end.find('#').map_or("", |at| &end[at..]);
    shown + path + "?…" + fragment + &query[end.len()..]
}

/// Returns the candidate that `word` is a likely misspelling of.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distance = |other: &str| strsim::osa_distance(&word, &other.to_lowercase());
    let best = candidates.into_iter().min_by_key(|other| distance(other))?;
    // A third of a word may be wrong.
    (distance(best) <= best.chars().count().min(word.chars().count()) / 3).then_some(best)
}

/// Returns whether this can be the reference of an image in a registry, and of nothing else as an argument of a
/// program: `docker.io/library/gcc:14`, `localhost:5000/x@sha256:…`.
pub fn is_registry_reference(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let words = ["build", "list", "config", "xfs"];
        for (typed, expected) in
            [("bild", "build"), ("lst", "list"), ("LIST", "list"), ("cofnig", "config"), ("xsf", "xfs")]
        {
            assert_eq!(nearest(typed, words), Some(expected), "{typed}");
        }
        for typed in ["6.1", "zzz", "x", "latest", ""] {
            assert_eq!(nearest(typed, words), None, "{typed}");
        }
    }

    #[test]
    fn numbers_read_well() {
        let text = |seconds: f64| format_duration(Duration::from_secs_f64(seconds));
        assert_eq!(
            [text(0.44), text(12.7), text(185.0), text(3720.0)],
            ["0.4 s", "12 s", "3 min 05 s", "1 h 02 min"]
        );
        assert_eq!([format_size(999), format_size(139_331_676)], ["999 B", "139.3 MB"]);
        assert_eq!(
            [pluralize(1, "patch", "patches"), pluralize(2, "patch", "patches")],
            ["1 patch", "2 patches"]
        );
        assert_eq!(
            [join_list(["a"; 0], "or"), join_list(["a"], "or"), join_list(["a", "b", "c"], "or")],
            ["", "a", "a, b or c"]
        );
        assert_eq!(join_first(&["a", "b"], 2, ", "), "a, b");
        assert_eq!(join_first(&["a", "b", "c", "d"], 2, ", "), "a, b and 2 more");
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(sanitize_line("a\x1b[2Jb\nc\u{202e}d"), "a?[2Jb?c?d");
        assert_eq!(sanitize_line(&"ä".repeat(1000)).chars().count(), 241);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_control("a\x1b[2J\u{9b}1m\rb\nc é"), "a\\u{1b}[2J\\u{9b}1m\\u{d}b\nc é");
        assert_eq!(escape_control("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        for c in "\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{2060}\u{2069}\u{feff}\u{e0041}\t".chars() {
            assert!(!is_printable(c), "{c:?}");
        }
        assert!("a ä\u{a0}ß→𝄞".chars().all(is_printable));
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("48000000", 48_000_000), ("48 MB", 48_000_000), ("1.5MiB", 1_572_864), ("2k", 2000), ("0", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for invalid in ["", "MB", "-1", "1e3", "3 apples", "inf", "99999999999999999999 GB", "1.2.3"] {
            assert!(parse_size(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn ages_are_read() {
        assert_eq!(parse_age("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(parse_age("0m").unwrap(), Duration::ZERO);
        for invalid in ["", "d", "3", "-1d", "1é", "1.5h", "99999999999d"] {
            assert!(parse_age(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two  three fourteen", 9), ["one two", "three", "fourteen"]);
        assert_eq!(wrap("incomprehensible", 4), ["incomprehensible"]);
        assert!(wrap(" ", 4).is_empty());
    }

    #[test]
    fn credentials_are_found_and_redacted() {
        for (url, has, printed) in [
            ("https://user:secret@host/x@y", true, "https://…@host/x@y"),
            ("https://token@host/x", true, "https://…@host/x"),
            ("ssh://git@host/x", false, "ssh://…@host/x"),
            ("ssh://git:secret@host/x", true, "ssh://…@host/x"),
            ("user:se@cret@proxy:3128", true, "…@proxy:3128"),
            ("https://host/x@y", false, "https://host/x@y"),
            ("host,.example.org", false, "host,.example.org"),
            ("https://user:se/cret@host/x", true, "https://…@host/x"),
            ("https://host:8080/x@y", false, "https://host:8080/x@y"),
        ] {
            assert_eq!((has_credentials(url), redact_credentials(url).as_str()), (has, printed), "{url}");
        }
    }

    #[test]
    fn secrets_of_urls_are_redacted() {
        for (text, shown) in [
            ("cannot fetch https://host/x: 404", "cannot fetch https://host/x: 404"),
            ("'git+http://me:hush@host/x' is wrong", "'git+http://…@host/x' is wrong"),
            ("from ssh://git@host/x#y", "from ssh://git@host/x#y"),
            ("from ssh://git:hush@host/x#y", "from ssh://…@host/x#y"),
            ("(https://host/x?key=hush)", "(https://host/x?…)"),
            ("https://host/?key=hush: no, http://a/?b=c#d", "https://host/?…: no, http://a/?…#d"),
            ("/work/http:/me:hush@host/x: no such file", "/work/http:/…@host/x: no such file"),
            ("\"https://me:hu/sh@host\" and mail@host", "\"https://…@host\" and mail@host"),
            ("a:/b@c ://d@e http://", "a:/b@c ://d@e http://"),
        ] {
            assert_eq!(redact_secrets(text), shown);
        }
    }
}
