//! Parses, merges and writes `.config` files and fragments, and compares the requested settings with the
//! final `.config`. Pure, except for `explain/`, which reads the kernel's Kconfig files.

pub mod explain;
pub mod requirements;

mod builtin;
mod compare;
pub mod file_settings;
pub mod reproducibility;
mod rewrite;

#[cfg(test)]
mod tests;

pub use builtin::{NO_MODULES, build_in, is_loader_option, lost_modules};
pub use compare::{Comparison, Renamed, Setting, compare};
pub use rewrite::{EditInput, replace, rewrite};

use crate::util::error::{Error, Result};
use crate::util::text::pluralize;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Byte order mark, which some editors write.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The settings of one `.config` file or fragment. A symbol is named without `CONFIG_`. Its value is
/// as the file has it (`y`, `m`, `17`, `"text"` with the quotes), and `n` for "is not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Values by symbol.
    pub symbols: BTreeMap<String, String>,
    /// Lines that are not empty and neither a setting nor a comment.
    pub malformed: Vec<MalformedLine>,
    /// The architecture of the header that Kconfig writes (`x86`, `arm64`), if there is one.
    pub header_arch: Option<String>,
    /// The version of that header: `5.10.77`, `6.12.0-rc3`.
    pub header_version: Option<String>,
    /// Symbols that more than one line sets, in the order of their second lines.
    pub repeated: Vec<RepeatedSymbol>,
}

/// A symbol that two lines of one file set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatedSymbol {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// The earlier line, counted from 1.
    pub first: usize,
    /// The line after it.
    pub second: usize,
}

/// A line that is neither a setting nor a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedLine {
    /// Counted from 1.
    pub line: usize,
    /// Its first 60 characters. Empty after the first hundred such lines.
    pub text: String,
}

/// The number of malformed lines that are quoted.
const MAX_QUOTED: usize = 100;

/// Valid lines of a `.config`, for hints.
pub const SETTING_HINT: &str = "a line is CONFIG_X=y, CONFIG_X=m, CONFIG_X=1, CONFIG_X=\"text\" or \
                                # CONFIG_X is not set; a # comment may follow, but not after a number";

impl Config {
    /// Reads a `.config` as the kernel's own parser does: a later line wins over an earlier one,
    /// and what follows `y`, `m`, `n`, a string or `is not set` is a comment. A byte order mark
    /// and carriage returns are skipped.
    pub fn parse(text: &str) -> Config {
        let mut config = Config::default();
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for (index, line) in text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).lines().enumerate() {
            let (line, number) = (line.trim_end(), index + 1);
            if let Some((symbol, value)) = setting(line) {
                config.symbols.insert(symbol.to_owned(), value.to_owned());
                if let Some(first) = lines.insert(symbol, number) {
                    config.repeated.push(RepeatedSymbol { symbol: symbol.to_owned(), first, second: number });
                }
            } else if let Some(comment) = line.strip_prefix('#') {
                if let (None, Some((arch, version))) = (&config.header_arch, header(comment)) {
                    config.header_arch = Some(arch.to_owned());
                    config.header_version = Some(version.to_owned());
                }
            } else if !line.is_empty() {
                // Another kind of file may have a million.
                let length = if config.malformed.len() < MAX_QUOTED { 60 } else { 0 };
                config
                    .malformed
                    .push(MalformedLine { line: number, text: line.chars().take(length).collect() });
            }
        }
        config
    }

    /// Reads a `.config` that the user gave as `name`, an option or a path.
    ///
    /// # Errors
    ///
    /// Exit code 2 if a line is no setting and no comment, or if there is no setting at all.
    pub fn parse_given(name: &str, text: &str) -> Result<Config> {
        let config = Config::parse(text);
        if !config.is_plausible() {
            let found = if config.symbols.is_empty() {
                "no setting".to_owned()
            } else {
                format!("{} settings and {} other lines", config.symbols.len(), config.malformed.len())
            };
            return Err(
                Error::usage(format!("{name}: not a kernel config: {found} in it")).hint(SETTING_HINT)
            );
        }
        config.check_lines(name)?;
        Ok(config)
    }

    /// # Errors
    ///
    /// Exit code 2 if a line is no setting and no comment.
    pub fn check_lines(&self, name: &str) -> Result<()> {
        self.malformed.first().map_or(Ok(()), |bad| {
            let text = format!("{name}:{}: not a setting: `{}`", bad.line, bad.text.escape_debug());
            Err(Error::usage(text).hint(SETTING_HINT))
        })
    }

    /// Returns a note about the skipped lines of `name`. For configs that the user did not give.
    pub fn skipped_lines(&self, name: &str) -> Option<String> {
        let first = self.malformed.first()?;
        let count = pluralize(self.malformed.len(), "line that is no setting", "lines that are no settings");
        let text = first.text.escape_debug();
        Some(format!("{name}: skipped {count}, the first at line {}: `{text}`", first.line))
    }

    /// Returns a note about the symbols that several lines of `name` set.
    pub fn repeated_symbols(&self, name: &str) -> Option<String> {
        let RepeatedSymbol { symbol, first, second } = self.repeated.first()?;
        let more = match self.repeated.len() - 1 {
            0 => String::new(),
            more => format!(", and {} a symbol again", pluralize(more, "more line sets", "more lines set")),
        };
        Some(format!(
            "{name}: CONFIG_{symbol} is set at lines {first} and {second}{more}; the last line counts"
        ))
    }

    /// Checks `CONFIG_LOCALVERSION`, which becomes part of the release and so of a directory's name.
    ///
    /// # Errors
    ///
    /// Exit code 2 if it has a character that a release cannot have.
    pub fn check_local_version(&self) -> Result<()> {
        let text = self.text("LOCALVERSION").unwrap_or_default();
        let fits = |character: char| character.is_ascii_alphanumeric() || "._+~-".contains(character);
        text.chars().find(|character| !fits(*character)).map_or(Ok(()), |bad| {
            let text = text.escape_debug();
            Err(Error::usage(format!(
                "CONFIG_LOCALVERSION=\"{text}\": `{}` cannot be in a kernel release",
                bad.escape_debug()
            ))
            .hint("use letters, digits and . _ + ~ -"))
        })
    }

    /// Returns the value of `symbol`, or `n` if it is missing.
    pub fn value(&self, symbol: &str) -> &str {
        self.symbols.get(symbol).map_or("n", String::as_str)
    }

    /// Returns the text of the string `symbol` without quotes, or `None` if it is missing or not a string.
    pub fn text(&self, symbol: &str) -> Option<String> {
        let quoted = self.symbols.get(symbol)?.strip_prefix('"')?.strip_suffix('"')?;
        let mut text = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            text.push(if character == '\\' { characters.next()? } else { character });
        }
        Some(text)
    }

    /// Returns whether this looks like a config. Another kind of text may have a line that looks like a setting.
    pub fn is_plausible(&self) -> bool {
        self.symbols.len() > self.malformed.len()
    }

    /// Returns whether `symbol` is built in or a module.
    pub fn enabled(&self, symbol: &str) -> bool {
        matches!(self.value(symbol), "y" | "m")
    }
}

/// Returns symbol and value of `CONFIG_X=value` or `# CONFIG_X is not set`.
fn setting(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        // The kernel compared only these words up to 6.7. Later kernels take a line with more for a comment.
        let (symbol, after) = rest.split_once(" is not set")?;
        return (is_symbol(symbol) && (after.is_empty() || is_blank(after))).then_some((symbol, "n"));
    }
    let (symbol, rest) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    let value = without_comment(rest);
    (is_symbol(symbol) && (is_value(value) || value.is_empty())).then_some((symbol, value))
}

fn is_blank(text: &str) -> bool {
    text.starts_with([' ', '\t'])
}

/// Removes a comment where the kernel's parser ignores it: after `y`, `m` or `n`, and after a string.
fn without_comment(text: &str) -> &str {
    let end = if text.starts_with('"') { string_size(text) } else { Some(1) };
    let Some((value, after)) = end.and_then(|end| text.split_at_checked(end)) else { return text };
    let takes_comment = value.starts_with('"') || matches!(value, "y" | "m" | "n");
    if takes_comment && is_blank(after) && after.trim_start().starts_with('#') { value } else { text }
}

/// Returns the size of the quoted string at the start of `text`, including its quotes.
fn string_size(text: &str) -> Option<usize> {
    let mut escaped = true;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_symbol(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_value(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let hex = hex.is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let string = text.starts_with('"') && string_size(text) == Some(text.len());
    matches!(text, "y" | "m" | "n") || number || hex || string
}

/// Parses the header that Kconfig writes, ` Linux/x86 6.1.7 Kernel Configuration`. Returns architecture and version.
fn header(comment: &str) -> Option<(&str, &str)> {
    let rest = comment.trim().strip_prefix("Linux/")?.strip_suffix(" Kernel Configuration")?;
    rest.split_once(' ').map(|(arch, version)| (arch, version.trim()))
}

/// Returns the name of a symbol as Kconfig has it, without `CONFIG_`. A name in small letters means the one in
/// capitals. Some symbols have both, such as `SCx200`.
pub fn symbol_name(text: &str) -> String {
    let prefix = text.get(..7).filter(|prefix| prefix.eq_ignore_ascii_case("CONFIG_"));
    let name = &text[prefix.map_or(0, str::len)..];
    if name.contains(|c: char| c.is_ascii_uppercase()) { name.to_owned() } else { name.to_ascii_uppercase() }
}

/// Parses the value of `--set`, `CONFIG_X=y` or `x=y`. Returns a fragment of one line.
pub fn set_line(text: &str) -> Result<String, String> {
    let (symbol, value) = text.split_once('=').unwrap_or((text, ""));
    let line = format!("CONFIG_{}={value}", symbol_name(symbol));
    if setting(&line).is_some_and(|(_, value)| !value.is_empty()) {
        Ok(format!("{line}\n"))
    } else {
        Err(format!("`{text}`: expected SYMBOL=VALUE, with y, m, n, a number or a \"string\" in quotes"))
    }
}

/// The requested value of one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedSetting {
    /// The value, as in [`Config::symbols`].
    pub value: String,
    /// Index of the last layer that sets it.
    pub layer: usize,
}

/// Merges layers in their order. A later layer wins.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Config>) -> BTreeMap<String, RequestedSetting> {
    let mut merged = BTreeMap::new();
    for (layer, config) in layers.into_iter().enumerate() {
        // Before 6.12, `CONFIG_X=` is a number without a value. The kernel rejects that as input.
        for (symbol, value) in config.symbols.iter().filter(|(_, value)| !value.is_empty()) {
            merged.insert(symbol.clone(), RequestedSetting { value: value.clone(), layer });
        }
    }
    merged
}

/// Writes merged settings as the `.config` that `olddefconfig` starts from.
pub fn render(requested: &BTreeMap<String, RequestedSetting>) -> String {
    requested.iter().map(|(symbol, requested)| config_line(symbol, &requested.value) + "\n").collect()
}

/// Formats one line of a `.config`, without its line end.
fn config_line(symbol: &str, value: &str) -> String {
    match value {
        "n" => format!("# CONFIG_{symbol} is not set"),
        value => format!("CONFIG_{symbol}={value}"),
    }
}

/// A symbol whose final value differs from the requested value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Requested value.
    #[serde(rename = "wanted")]
    pub requested: String,
    /// Value in the final `.config`, or `None` if it is missing.
    pub found: Option<String>,
    /// Reason, if known.
    pub reason: Option<String>,
    /// The same as data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<explain::Cause>,
    /// Index of the layer that requests it.
    #[serde(skip)]
    pub layer: usize,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { symbol, requested, found, reason, .. } = self;
        write!(f, "CONFIG_{symbol}={requested} ")?;
        match (found.as_deref(), reason) {
            (None, Some(_)) => f.write_str("is missing"),
            (None, None) => f.write_str("is missing from the final .config"),
            (Some(""), _) => f.write_str("has no value"),
            (Some(found), _) => write!(f, "became {found}"),
        }?;
        reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// Returns every requested symbol that is missing from the final `.config` `result` or has another value. A
/// missing symbol satisfies a request for `n`.
pub fn differences(requested: &BTreeMap<String, RequestedSetting>, result: &Config) -> Vec<Difference> {
    let differs = |(symbol, requested): (&String, &RequestedSetting)| {
        let found = result.symbols.get(symbol);
        let same = found.map_or("n", String::as_str) == requested.value;
        (!same).then(|| Difference {
            symbol: symbol.clone(),
            requested: requested.value.clone(),
            found: found.cloned(),
            reason: None,
            cause: None,
            layer: requested.layer,
        })
    };
    requested.iter().filter_map(differs).collect()
}
