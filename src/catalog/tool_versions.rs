//! The tools whose versions matter to old kernels, and the versions of this host's tools.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A tool that rules have versions of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// GCC for the kernel.
    Gcc,
    /// Clang for the kernel.
    Clang,
    /// GCC for the kernel's tools that run on this host.
    HostGcc,
    /// Clang for the kernel's tools that run on this host.
    HostClang,
    /// The GNU assembler and linker for the kernel.
    Binutils,
    /// The C library of this host.
    Glibc,
}

/// The version of a tool: `12`, `2.36`, `12.2.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ToolVersion(Vec<u32>);

impl TryFrom<String> for ToolVersion {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<ToolVersion, String> {
        let numbers: std::result::Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        numbers
            .map(ToolVersion)
            .map_err(|_| format!("`{text}` is not a version of a tool, such as 12 or 2.36"))
    }
}

impl std::fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// The known versions of this host's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools(pub(super) BTreeMap<Tool, ToolVersion>);

impl Tools {
    /// Takes the versions from the first line of each tool's `--version`: `cc`, `hostcc` and `ld` of
    /// `identity`, and the C library's `ldd`.
    pub fn new(identity: &BTreeMap<String, String>, ldd: Option<&str>) -> Tools {
        let line = |tool: &str| identity.get(tool).map(String::as_str);
        let is_clang = |line: &str| line.contains("clang");
        let compiler = |line: Option<&str>, gcc, clang| {
            let line = line?;
            Some((if is_clang(line) { clang } else { gcc }, version_in(line)?))
        };
        let of = |tool, line: Option<&str>, mark: &str| {
            Some((tool, version_in(line.filter(|line| line.contains(mark))?)?))
        };
        let found = [
            compiler(line("cc"), Tool::Gcc, Tool::Clang),
            compiler(line("hostcc"), Tool::HostGcc, Tool::HostClang),
            of(Tool::Binutils, line("ld"), "GNU"),
            of(Tool::Glibc, ldd, "GNU libc").or_else(|| of(Tool::Glibc, ldd, "GLIBC")),
        ];
        Tools(found.into_iter().flatten().collect())
    }
}

/// Returns the first number with a dot outside of parentheses: `(Debian 12.2.0-14) 12.2.0`, `GNU ld (GNU
/// Binutils) 2.40`, `GNU ld version 2.41-37.fc40`.
fn version_in(line: &str) -> Option<ToolVersion> {
    let mut depth = 0;
    let outside: String = line
        .chars()
        .filter(|&c| {
            depth += i32::from(c == '(');
            let is_outside = depth == 0;
            depth -= i32::from(c == ')');
            is_outside
        })
        .collect();
    outside.split_whitespace().find_map(|word| {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let number = word[..end].trim_end_matches('.');
        number.contains('.').then(|| ToolVersion::try_from(number.to_owned()).ok())?
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn tools(lines: &[(&str, &str)], ldd: &str) -> Tools {
        let identity = lines.iter().map(|(tool, line)| ((*tool).to_owned(), (*line).to_owned())).collect();
        Tools::new(&identity, Some(ldd))
    }

    #[test]
    fn versions_are_read_from_version_lines() {
        let version = |text: &str| ToolVersion::try_from(text.to_owned()).unwrap();
        for (line, tool, expected) in [
            ("(Debian 12.2.0-14+deb12u1) 12.2.0", Tool::Gcc, "12.2.0"),
            ("(GCC) 14.2.1 20240801 (Red Hat 14.2.1-1)", Tool::Gcc, "14.2.1"),
            ("Debian clang version 14.0.6", Tool::Clang, "14.0.6"),
            ("Ubuntu clang version 18.1.3 (1ubuntu1)", Tool::Clang, "18.1.3"),
        ] {
            assert_eq!(tools(&[("cc", line)], "").0, [(tool, version(expected))].into(), "{line}");
        }
        for (line, expected) in
            [("GNU ld (GNU Binutils for Debian) 2.40", "2.40"), ("GNU ld version 2.41-37.fc40", "2.41")]
        {
            assert_eq!(tools(&[("ld", line)], "").0, [(Tool::Binutils, version(expected))].into(), "{line}");
        }
        assert_eq!(tools(&[("ld", "LLD 14.0.6 (compatible with GNU linkers)")], "").0.len(), 1);
        for ldd in ["(Debian GLIBC 2.36-9+deb12u14) 2.36", "(GNU libc) 2.36"] {
            assert_eq!(tools(&[], ldd).0, [(Tool::Glibc, version("2.36"))].into(), "{ldd}");
        }
        assert_eq!(tools(&[("cc", "nonsense")], "musl libc (x86_64)"), Tools::default());
    }
}
