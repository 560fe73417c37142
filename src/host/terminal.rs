//! What standard output and standard error can show, by the environment.

use crate::util::terminal::{ColorChoice, Terminal};
use std::collections::BTreeMap;

/// Returns what a standard stream can show. `NO_COLOR` and `CLICOLOR_FORCE` are as at no-color.org and
/// bixense.com/clicolors.
pub(super) fn detect(env: &BTreeMap<String, String>, is_terminal: bool, color: ColorChoice) -> Terminal {
    let get = |key: &str| env.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let is_on = |key: &str| get(key).is_some_and(|value| !matches!(value, "0" | "false"));
    let term = get("TERM").unwrap_or("dumb");
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(get).unwrap_or("C").to_lowercase();
    let can_redraw = is_terminal && term != "dumb" && !is_on("CI");
    // These two take OSC 9 as text, and print it or show it in a pop-up.
    let misreads_osc_9 = term == "linux" || get("TERM_PROGRAM") == Some("iTerm.app");
    Terminal {
        is_terminal,
        can_redraw,
        color: match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if get("NO_COLOR").is_some() => false,
            ColorChoice::Auto => is_on("CLICOLOR_FORCE") || (is_terminal && term != "dumb"),
        },
        ascii: is_terminal && !locale.contains("utf-8") && !locale.contains("utf8"),
        has_progress: can_redraw && !misreads_osc_9,
    }
}

/// Returns `--color`, or else what the environment says, or else the user's default.
pub(super) fn choose_color(
    typed: Option<ColorChoice>,
    env: &BTreeMap<String, String>,
    configured: Option<ColorChoice>,
) -> ColorChoice {
    let in_env =
        ["NO_COLOR", "CLICOLOR_FORCE"].iter().any(|key| env.get(*key).is_some_and(|value| !value.is_empty()));
    typed.or(configured.filter(|_| !in_env)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_stream_has_what_its_environment_says() {
        let of = |pairs: &[(&str, &str)], is_terminal, color| detect(&env(pairs), is_terminal, color);
        let (auto, xterm) = (ColorChoice::Auto, ("TERM", "xterm-256color"));
        let utf8 = ("LANG", "en_US.UTF-8");
        let full = of(&[xterm, utf8], true, auto);
        let all =
            Terminal { is_terminal: true, can_redraw: true, color: true, ascii: false, has_progress: true };
        assert_eq!(full, all);
        assert_eq!(of(&[xterm, utf8], false, auto), Terminal::default());
        let dumb = Terminal { is_terminal: true, ..Terminal::default() };
        assert_eq!(of(&[("TERM", "dumb"), utf8], true, auto), dumb);
        let ci = of(&[xterm, utf8, ("CI", "true")], true, auto);
        assert!(!ci.can_redraw && !ci.has_progress && ci.color);
        assert!(of(&[xterm, ("CI", "false")], true, auto).can_redraw);
        assert!(of(&[xterm], true, auto).ascii && of(&[xterm, utf8, ("LC_ALL", "C")], true, auto).ascii);
        let linux = of(&[("TERM", "linux"), utf8], true, auto);
        assert!(linux.can_redraw && !linux.has_progress);
        for (pairs, is_terminal, color, colored) in [
            (vec![xterm, ("NO_COLOR", "1")], true, auto, false),
            (vec![xterm, ("NO_COLOR", "")], true, auto, true),
            (vec![("CLICOLOR_FORCE", "1")], false, auto, true),
            (vec![("CLICOLOR_FORCE", "0")], false, auto, false),
            (vec![("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, auto, false),
            (vec![("NO_COLOR", "1")], false, ColorChoice::Always, true),
            (vec![xterm, ("CLICOLOR_FORCE", "1")], true, ColorChoice::Never, false),
        ] {
            assert_eq!(of(&pairs, is_terminal, color).color, colored, "{pairs:?}");
        }
    }
}
