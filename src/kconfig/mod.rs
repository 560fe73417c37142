//! `.config` files and fragments: parse, merge, write, and compare what was asked for with what the
//! kernel's `olddefconfig` made of it. Pure, but for `why/`, which reads the kernel's own Kconfig files.

pub mod explain;
pub mod requirements;

mod compare;
pub mod file_settings;
pub mod reproducibility;
mod rewrite;

pub use compare::{Comparison, Renamed, Setting, compare};
pub use rewrite::{EditInput, replace, rewrite};

use serde::Serialize;
use std::collections::BTreeMap;

/// The settings of one `.config` file or fragment. A symbol is named without `CONFIG_`; its value is
/// as the file has it (`y`, `m`, `17`, `"text"` with the quotes), and `n` for "is not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Symbol → value.
    pub symbols: BTreeMap<String, String>,
    /// Lines that are no setting, no comment and not empty.
    pub malformed: Vec<MalformedLine>,
    /// The architecture of the header that Kconfig writes (`x86`, `arm64`), if there is one.
    pub header_arch: Option<String>,
    /// The version of that header: `5.10.77`, `6.12.0-rc3`.
    pub header_version: Option<String>,
}

/// A line that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedLine {
    /// Counted from 1.
    pub line: usize,
    /// What it says, at most 60 characters of it; nothing of the lines behind the first hundred.
    pub text: String,
}

/// The number of malformed lines that are quoted.
const MAX_QUOTED: usize = 100;

impl Config {
    /// Reads a `.config`. Carriage returns at line ends are left aside; a later line wins over an
    /// earlier one, as in Kconfig.
    pub fn parse(text: &str) -> Config {
        let mut config = Config::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if let Some((symbol, value)) = setting(line) {
                config.symbols.insert(symbol.to_owned(), value.to_owned());
            } else if let Some(comment) = line.strip_prefix('#') {
                if let (None, Some((arch, version))) = (&config.header_arch, header(comment)) {
                    config.header_arch = Some(arch.to_owned());
                    config.header_version = Some(version.to_owned());
                }
            } else if !line.is_empty() {
                // A text of another kind may have a million.
                let length = if config.malformed.len() < MAX_QUOTED { 60 } else { 0 };
                config
                    .malformed
                    .push(MalformedLine { line: index + 1, text: line.chars().take(length).collect() });
            }
        }
        config
    }

    /// The value of `symbol`; a symbol that is not there is `n`.
    pub fn value(&self, symbol: &str) -> &str {
        self.symbols.get(symbol).map_or("n", String::as_str)
    }

    /// The text of the string `symbol`, without quotes; `None`: it is not there, or no string.
    pub fn text(&self, symbol: &str) -> Option<String> {
        let quoted = self.symbols.get(symbol)?.strip_prefix('"')?.strip_suffix('"')?;
        let mut text = String::new();
        let mut characters = quoted.chars();
        while let Some(character) = characters.next() {
            text.push(if character == '\\' { characters.next()? } else { character });
        }
        Some(text)
    }

    /// Is it a config at all? A text of another kind may hold a line that looks like a setting.
    pub fn is_plausible(&self) -> bool {
        self.symbols.len() > self.malformed.len()
    }

    /// Is `symbol` built in or a module?
    pub fn enabled(&self, symbol: &str) -> bool {
        matches!(self.value(symbol), "y" | "m")
    }
}

/// `CONFIG_X=value` or `# CONFIG_X is not set`.
fn setting(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        let symbol = rest.strip_suffix(" is not set")?;
        return is_symbol(symbol).then_some((symbol, "n"));
    }
    let (symbol, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
    (is_symbol(symbol) && is_value(value)).then_some((symbol, value))
}

fn is_symbol(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_value(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let hex = hex.is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    matches!(text, "y" | "m" | "n") || number || hex || is_quoted(text)
}

/// A Kconfig string: in double quotes, with `\"` and `\\` inside.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for character in inner.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped && text.len() >= 2
}

/// Kconfig's own header, ` Linux/x86 6.1.7 Kernel Configuration`: architecture and version.
fn header(comment: &str) -> Option<(&str, &str)> {
    let rest = comment.trim().strip_prefix("Linux/")?.strip_suffix(" Kernel Configuration")?;
    rest.split_once(' ').map(|(arch, version)| (arch, version.trim()))
}

/// One symbol as `--set` takes it: `CONFIG_X=y`, or `X=y`. Gives a fragment of one line.
pub fn set_line(text: &str) -> Result<String, String> {
    let line = format!("CONFIG_{}", text.strip_prefix("CONFIG_").unwrap_or(text));
    match setting(&line) {
        Some(_) => Ok(format!("{line}\n")),
        None => {
            Err(format!("`{text}`: expected SYMBOL=VALUE, with y, m, n, a number or a \"string\" in quotes"))
        }
    }
}

/// What is wanted of one symbol, and which layer (its index) said so last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedSetting {
    /// The value, as in [`Config::symbols`].
    pub value: String,
    /// Index of the layer.
    pub layer: usize,
}

/// Merges layers in their order: a later one wins.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Config>) -> BTreeMap<String, RequestedSetting> {
    let mut merged = BTreeMap::new();
    for (layer, config) in layers.into_iter().enumerate() {
        for (symbol, value) in &config.symbols {
            merged.insert(symbol.clone(), RequestedSetting { value: value.clone(), layer });
        }
    }
    merged
}

/// Writes merged settings as the `.config` that `olddefconfig` starts from.
pub fn render(requested: &BTreeMap<String, RequestedSetting>) -> String {
    requested.iter().map(|(symbol, requested)| config_line(symbol, &requested.value) + "\n").collect()
}

/// One line of a `.config`, without its end.
fn config_line(symbol: &str, value: &str) -> String {
    match value {
        "n" => format!("# CONFIG_{symbol} is not set"),
        value => format!("CONFIG_{symbol}={value}"),
    }
}

/// A symbol that came out other than asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// What was asked for.
    #[serde(rename = "wanted")]
    pub requested: String,
    /// What the final `.config` has; `None`: nothing at all.
    #[serde(rename = "found")]
    pub found: Option<String>,
    /// Why, where that is known.
    #[serde(rename = "reason")]
    pub reason: Option<String>,
    /// Index of the layer that asked.
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
            (Some(found), _) => write!(f, "became {found}"),
        }?;
        reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

/// Every wanted symbol that `result`, the final `.config`, lacks or has otherwise. A symbol wanted
/// off and not there at all is as wanted.
pub fn differences(requested: &BTreeMap<String, RequestedSetting>, result: &Config) -> Vec<Difference> {
    let differs = |(symbol, requested): (&String, &RequestedSetting)| {
        let found = result.symbols.get(symbol);
        let same = found.map_or("n", String::as_str) == requested.value;
        (!same).then(|| Difference {
            symbol: symbol.clone(),
            requested: requested.value.clone(),
            found: found.cloned(),
            reason: None,
            layer: requested.layer,
        })
    };
    requested.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#\n# Linux/x86 6.1.7 Kernel Configuration\n#\nCONFIG_A=y\r\nCONFIG_B=m\n# CONFIG_C is not set\n\
                        CONFIG_S=\"a \\\"b\\\"\"\nCONFIG_N=0x1f\nCONFIG_BAD=mCore\nnonsense\n";

    #[test]
    fn a_config_is_read_line_by_line() {
        let config = Config::parse(TEXT);
        assert_eq!(config.header_arch.as_deref(), Some("x86"));
        assert_eq!(config.header_version.as_deref(), Some("6.1.7"));
        assert_eq!(config.symbols.len(), 5);
        assert_eq!((config.value("A"), config.value("C"), config.value("MISSING")), ("y", "n", "n"));
        assert_eq!(config.malformed.iter().map(|bad| bad.line).collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn only_kconfig_values_are_values() {
        for value in ["y", "m", "n", "17", "-1", "0xFF", "\"\"", "\"a\\\\\""] {
            assert!(is_value(value), "{value}");
        }
        for value in ["", "q", "yes", "0x", "\"", "\"a\"b\"", "\"a\\\"", "1 2"] {
            assert!(!is_value(value), "{value}");
        }
    }

    #[test]
    fn later_layers_win_and_are_remembered() {
        let (base, over) = (Config::parse("CONFIG_A=y\nCONFIG_B=y\n"), Config::parse("CONFIG_B=m\n"));
        let merged = merge([&base, &over]);
        assert_eq!(merged["B"], RequestedSetting { value: "m".into(), layer: 1 });
        assert_eq!(Config::parse(&render(&merged)).symbols["B"], "m");
    }

    #[test]
    fn what_olddefconfig_dropped_or_forced_is_found() {
        let requested =
            merge([&Config::parse("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_D is not set\n")]);
        let found = differences(&requested, &Config::parse("CONFIG_B=y\nCONFIG_D=y\n"));
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["CONFIG_A=y is missing from the final .config", "CONFIG_B=m became y", "CONFIG_D=n became y"]
        );
    }

    #[test]
    fn set_takes_one_symbol() {
        assert_eq!(set_line("CONFIG_X=y").unwrap(), "CONFIG_X=y\n");
        assert_eq!(set_line("X=n").unwrap(), "CONFIG_X=n\n");
        assert!(set_line("X").is_err() && set_line("X=q").is_err() && set_line("a b=y").is_err());
    }

    proptest::proptest! {
        /// Settings come back from the text that is written of them.
        #[test]
        fn a_config_reads_back_as_it_was_written(
            symbols in proptest::collection::btree_map(
                "[A-Z0-9_]{1,12}",
                "y|m|n|-?[0-9]{1,6}|0x[0-9a-fA-F]{1,8}|\"([a-z =#/]|\\\\[\"\\\\]){0,12}\"",
                0..20,
            )
        ) {
            let requested = symbols.iter().map(|(symbol, value)| (symbol.clone(), RequestedSetting { value: value.clone(), layer: 0 }));
            let requested = requested.collect();
            let read = Config::parse(&render(&requested));
            proptest::prop_assert!(read.malformed.is_empty());
            proptest::prop_assert_eq!(&read.symbols, &symbols);
            proptest::prop_assert!(differences(&requested, &read).is_empty());
        }
    }
}
