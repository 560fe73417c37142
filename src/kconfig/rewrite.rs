//! Changes settings in a config that people maintain, and keeps its headings and comments. Unchanged lines stay
//! in place, changed lines get new values, and new settings go under a heading.

use super::{Config, Setting, config_line, setting};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Start of a heading.
const HEADING: &str = "# --- ";

/// Settings before and after.
pub struct EditInput<'a> {
    /// The final `.config` of the text before.
    pub old: &'a Config,
    /// The text of the wanted final `.config`, as Kconfig writes it, in the order of its
    /// menus and with their titles.
    pub new: &'a str,
    /// Its settings that are not defaults, as `make savedefconfig` writes them.
    pub minimal: &'a str,
    /// Symbols to write although `minimal` leaves them out.
    pub explicit: &'a BTreeSet<String>,
}

/// Returns the text `before`, changed to request the new settings.
///
/// A line whose symbol keeps its value stays unchanged, even if it has no effect, since it may be for another
/// release of the series. A changed symbol gets the new value. Its line is removed if that is a default or the
/// symbol can no longer be set. New settings that are not defaults go under the heading of their menu.
pub fn rewrite(before: &str, input: &EditInput<'_>) -> String {
    let new = Config::parse(input.new);
    let values = settings_to_write(input, &new);
    let named = Config::parse(before);
    let is_unchanged = |symbol: &str| input.old.symbols.get(symbol) == new.symbols.get(symbol);
    let mut lines: Vec<String> = Vec::new();
    let mut written = BTreeSet::new();
    // From the end, since the last line of a symbol counts.
    for line in before.lines().rev() {
        match setting(line.trim_end()) {
            Some((symbol, _)) if !is_unchanged(symbol) || input.explicit.contains(symbol) => {
                if let Some(value) = values.get(symbol).filter(|_| written.insert(symbol)) {
                    lines.push(config_line(symbol, value));
                }
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.reverse();
    for (symbol, menu) in menus(input.new) {
        if let Some(value) = values.get(symbol).filter(|_| !named.symbols.contains_key(symbol)) {
            insert(&mut lines, &menu, config_line(symbol, value));
        }
    }
    with_line_ends(&lines, before)
}

/// Joins the lines with the line ends of `before`.
fn with_line_ends(lines: &[String], before: &str) -> String {
    let end = if before.contains("\r\n") { "\r\n" } else { "\n" };
    lines.iter().map(|line| format!("{line}{end}")).collect()
}

/// Returns the text `before` with the lines of some symbols replaced or removed.
pub fn replace(before: &str, replacements: &BTreeMap<String, Vec<Setting>>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in before.lines() {
        match setting(line.trim_end()).and_then(|(symbol, _)| replacements.get(symbol)) {
            Some(new) => lines.extend(new.iter().map(|new| config_line(&new.symbol, &new.value))),
            None => lines.push(line.to_owned()),
        }
    }
    with_line_ends(&lines, before)
}

/// Returns the settings to write, with their values.
fn settings_to_write(input: &EditInput<'_>, new: &Config) -> BTreeMap<String, String> {
    let mut values = Config::parse(input.minimal).symbols;
    for symbol in input.explicit {
        values.insert(symbol.clone(), new.value(symbol).to_owned());
    }
    values
}

/// Returns every symbol of a `.config`, in its order, with the title of its innermost menu.
fn menus(config: &str) -> Vec<(&str, String)> {
    let mut open: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    let lines: Vec<&str> = config.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let around = (index.checked_sub(1).map(|before| lines[before]), lines.get(index + 1).copied());
        if let Some((symbol, _)) = setting(line) {
            found.push((symbol, open.last().map_or_else(String::new, |title| (*title).to_owned())));
        } else if let Some(title) = line.strip_prefix("# end of ") {
            // Old kernels do not mark the end of a menu. The last title is then the innermost.
            open.truncate(open.iter().rposition(|have| *have == title).unwrap_or(open.len()));
        } else if let (Some(title), (Some("#"), Some("#"))) = (line.strip_prefix("# "), around) {
            open.push(title);
        }
    }
    found
}

/// Puts `line` at the end of the section with the heading `menu`, which is added if it is missing.
fn insert(lines: &mut Vec<String>, menu: &str, line: String) {
    let mut heading = HEADING.to_owned();
    write!(heading, "{}", if menu.is_empty() { "Others" } else { menu }).expect("writing to a string");
    let Some(at) = lines.iter().position(|line| *line == heading) else {
        if lines.last().is_some_and(|last| !last.trim().is_empty()) {
            lines.push(String::new());
        }
        lines.extend([heading, line]);
        return;
    };
    let below = lines[at + 1..].iter().position(|line| line.trim().is_empty() || line.starts_with(HEADING));
    lines.insert(below.map_or(lines.len(), |below| at + 1 + below), line);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# --- Network: all of it\nCONFIG_NET=y\nCONFIG_INET=y\n\n# --- Files\nCONFIG_EXT4_FS=y\n\
                          # CONFIG_XFS_FS is not set\n# for an older release\nCONFIG_GONE=y\n";
    const OLD: &str = "CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_EXT4_FS=y\n# CONFIG_XFS_FS is not set\n\
                       # CONFIG_BTRFS_FS is not set\nCONFIG_DEFAULT=y\n";

    fn rewritten(new: &str, minimal: &str, explicit: &[&str]) -> String {
        let old = Config::parse(OLD);
        let explicit = explicit.iter().map(|symbol| (*symbol).to_owned()).collect();
        rewrite(BEFORE, &EditInput { old: &old, new, minimal, explicit: &explicit })
    }

    #[test]
    fn without_a_change_every_line_stays() {
        // A setting that is a default, and one that did not take, included.
        assert_eq!(rewritten(OLD, "CONFIG_NET=y\n", &[]), BEFORE);
    }

    #[test]
    fn a_changed_setting_changes_in_its_place_or_goes() {
        let new = OLD.replace("# CONFIG_XFS_FS is not set", "CONFIG_XFS_FS=m");
        let text = rewritten(&new, "CONFIG_NET=y\nCONFIG_XFS_FS=m\n", &[]);
        assert_eq!(text, BEFORE.replace("# CONFIG_XFS_FS is not set", "CONFIG_XFS_FS=m"));
        // To its default, and to where it can no longer be set.
        let new = OLD.replace("CONFIG_NET=y\nCONFIG_INET=y\n", "# CONFIG_NET is not set\n");
        assert_eq!(rewritten(&new, "", &[]), BEFORE.replace("CONFIG_NET=y\nCONFIG_INET=y\n", ""));
    }

    #[test]
    fn what_is_new_comes_under_the_heading_of_its_menu() {
        let new = "#\n# Automatically generated\n# Linux/x86 6.1.7 Kernel Configuration\n#\nCONFIG_NET=y\nCONFIG_INET=y\n#\n# File systems\n#\n\
                   CONFIG_EXT4_FS=y\n# CONFIG_XFS_FS is not set\n\n#\n# Inner\n#\n# end of Inner\n\
                   CONFIG_BTRFS_FS=m\nCONFIG_QUOTA=y\n# end of File systems\n# CONFIG_DEFAULT is not set\n";
        let minimal = "CONFIG_BTRFS_FS=m\nCONFIG_QUOTA=y\n# CONFIG_DEFAULT is not set\n";
        let text = rewritten(new, minimal, &[]);
        let added = "\n# --- File systems\nCONFIG_BTRFS_FS=m\nCONFIG_QUOTA=y\n\
                     \n# --- Others\n# CONFIG_DEFAULT is not set\n";
        assert_eq!(text, format!("{BEFORE}{added}"));
    }

    #[test]
    fn a_heading_that_is_there_takes_more() {
        let new =
            format!("#\n# Files\n#\n{OLD}").replace("# CONFIG_BTRFS_FS is not set", "CONFIG_BTRFS_FS=y");
        let text = rewritten(&new, "CONFIG_BTRFS_FS=y\n", &[]);
        assert_eq!(text, format!("{BEFORE}CONFIG_BTRFS_FS=y\n"));
    }

    #[test]
    fn lines_are_replaced_where_they_stand() {
        let setting = |symbol: &str, value: &str| Setting { symbol: symbol.into(), value: value.into() };
        let new = [
            ("INET".to_owned(), vec![setting("INET4", "y"), setting("INET6", "n")]),
            ("XFS_FS".to_owned(), vec![]),
        ];
        let expected = BEFORE
            .replace("CONFIG_INET=y", "CONFIG_INET4=y\n# CONFIG_INET6 is not set")
            .replace("# CONFIG_XFS_FS is not set\n", "");
        assert_eq!(replace(BEFORE, &new.into()), expected);
    }

    #[test]
    fn line_ends_stay_as_they_are() {
        let before = BEFORE.replace('\n', "\r\n");
        let input = EditInput {
            old: &Config::parse(OLD),
            new: &OLD.replace("CONFIG_NET=y", "CONFIG_NET=m"),
            minimal: "CONFIG_NET=m\n",
            explicit: &BTreeSet::new(),
        };
        assert_eq!(rewrite(&before, &input), before.replace("CONFIG_NET=y", "CONFIG_NET=m"));
    }

    #[test]
    fn what_has_to_be_said_is_said() {
        let text = rewritten(OLD, "", &["DEFAULT", "GONE"]);
        assert!(
            text.contains("# CONFIG_GONE is not set\n") && text.ends_with("# --- Others\nCONFIG_DEFAULT=y\n")
        );
    }
}
