//! Finds likely causes why the bytes of two files of one name differ, from texts in the files.

use crate::kconfig::{Config, reproducibility};
use crate::kernel::binary::ElfSections;
use serde::Serialize;

/// An option that puts the time into the kernel, and how.
const DATED: (&str, &str) = ("IKHEADERS", "an archive of headers has time stamps");

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// Only GNU's build id differs, which is a digest of the linker's output.
    BuildIdOnly,
    Compiler {
        first: String,
        second: String,
    },
    /// The dates in the banners differ.
    TimeStamp {
        first: String,
        second: String,
    },
    /// The users or hosts in the banners differ.
    Builder {
        first: String,
        second: String,
    },
    /// An absolute path that only one file has.
    EmbeddedPath {
        first: Option<String>,
        second: Option<String>,
    },
    /// The signature of a module.
    Signature,
    /// An option that makes every build different.
    Random {
        /// Without `CONFIG_`.
        symbol: String,
        why: String,
    },
    /// The inputs of the two builds differ.
    Inputs {
        /// As in [`Difference::inputs`](super::Difference::inputs).
        which: Vec<String>,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::BuildIdOnly => f.write_str("the build id only"),
            Cause::Compiler { first, second } => write!(f, "another compiler: {first} -> {second}"),
            Cause::TimeStamp { first, second } => write!(f, "a time stamp: {first} -> {second}"),
            Cause::Builder { first, second } => write!(f, "another builder: {first} -> {second}"),
            Cause::EmbeddedPath { first, second } => {
                let describe = |path: &Option<String>| path.clone().unwrap_or_else(|| "none".into());
                write!(f, "an embedded path: {} -> {}", describe(first), describe(second))
            }
            Cause::Signature => f.write_str("the signature of a module"),
            Cause::Random { symbol, why } => write!(f, "CONFIG_{symbol}: {why}"),
            Cause::Inputs { which } => write!(f, "other inputs: {}", which.join(", ")),
        }
    }
}

/// What is known of two files besides their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CauseInputs<'a> {
    /// The banners, if the files are kernels.
    pub banners: (Option<&'a str>, Option<&'a str>),
    /// The final config of the first.
    pub config: Option<&'a Config>,
    pub inputs: &'a [String],
}

/// Returns the likely causes, the most certain first. `sections` are the sections that differ.
pub(super) fn causes(
    first: &ElfSections,
    second: &ElfSections,
    sections: &[String],
    inputs: &CauseInputs<'_>,
) -> Vec<Cause> {
    // A module has a section for the build id. vmlinux has it in .notes, with other notes.
    if !sections.is_empty() && sections.iter().all(|name| name == ".note.gnu.build-id" || name == ".notes") {
        return vec![Cause::BuildIdOnly];
    }
    let mut causes = Vec::new();
    let banners = (inputs.banners.0.map(Banner::of), inputs.banners.1.map(Banner::of));
    let mut compilers = (first.compilers.clone(), second.compilers.clone());
    if let (Some(one), Some(other)) = &banners {
        // Banners of two versions may name the same compiler differently.
        if compilers.0.is_none() || compilers.1.is_none() {
            compilers = (Some(one.compiler.clone()), Some(other.compiler.clone()));
        }
        if one.builder != other.builder {
            causes.push(Cause::Builder { first: one.builder.clone(), second: other.builder.clone() });
        }
        if one.date != other.date {
            causes.push(Cause::TimeStamp { first: one.date.clone(), second: other.date.clone() });
        }
    }
    if let (Some(one), Some(other)) = compilers
        && one != other
    {
        causes.insert(0, Cause::Compiler { first: one, second: other });
    }
    let only = |of: &ElfSections, other: &ElfSections| of.paths.difference(&other.paths).next().cloned();
    let paths = (only(first, second), only(second, first));
    if paths.0.is_some() || paths.1.is_some() {
        causes.push(Cause::EmbeddedPath { first: paths.0, second: paths.1 });
    }
    if first.is_signed || second.is_signed {
        causes.push(Cause::Signature);
    }
    if !inputs.inputs.is_empty() {
        causes.push(Cause::Inputs { which: inputs.inputs.to_vec() });
    }
    // If the inputs differ, random parts differ anyway.
    if let Some(config) = inputs.config.filter(|_| inputs.inputs.is_empty()) {
        let dated = Some(DATED).filter(|(symbol, _)| config.enabled(symbol));
        let random = reproducibility::random_settings(config).into_iter().chain(dated);
        causes.extend(
            random.map(|(symbol, why)| Cause::Random { symbol: symbol.to_owned(), why: why.to_owned() }),
        );
    }
    causes
}

/// The parts of `Linux version 6.1.7 (user@host) (compiler, linker) #1 SMP date`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Banner {
    builder: String,
    compiler: String,
    date: String,
}

impl Banner {
    fn of(text: &str) -> Banner {
        let (made, date) = text.rsplit_once(" #").unwrap_or((text, ""));
        let rest = made.split_once(" (").map_or("", |(_, rest)| rest);
        let (builder, compiler) = rest.split_once(") (").unwrap_or((rest, ""));
        Banner {
            builder: builder.to_owned(),
            compiler: compiler.strip_suffix(')').unwrap_or(compiler).to_owned(),
            date: date.split_once(' ').map_or(date, |(_, date)| date).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNER: &str = "Linux version 6.1.7 (me@here) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1 SMP Fri Jul 31 09:44:47 UTC 2026";

    #[test]
    fn a_banner_has_three_parts() {
        let banner = Banner::of(BANNER);
        assert_eq!(banner.builder, "me@here");
        assert_eq!(banner.compiler, "gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40");
        assert_eq!(banner.date, "SMP Fri Jul 31 09:44:47 UTC 2026");
        assert_eq!(Banner::of("nonsense"), Banner::default());
    }

    #[test]
    fn each_cause_is_told_by_what_is_written_in_the_files() {
        let elf_sections = |path: &str, signed: bool| ElfSections {
            paths: [path.to_owned()].into(),
            is_signed: signed,
            compilers: Some("GCC 12".into()),
            ..ElfSections::default()
        };
        let (one, other) = (elf_sections("/a/b", false), elf_sections("/c/d", false));
        let text = [".text".to_owned()];
        let causes_in = |first: &ElfSections, second: &ElfSections, inputs: &CauseInputs<'_>| {
            causes(first, second, &text, inputs).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let nothing = CauseInputs::default();
        assert_eq!(causes_in(&one, &other, &nothing), ["an embedded path: /a/b -> /c/d"]);
        assert_eq!(causes_in(&one, &elf_sections("/a/b", true), &nothing), ["the signature of a module"]);
        let clang = ElfSections { compilers: Some("clang".into()), ..one.clone() };
        assert_eq!(causes_in(&one, &clang, &nothing), ["another compiler: GCC 12 -> clang"]);
        let later = BANNER.replace("31 09", "31 10").replace("me@here", "you@there");
        let banners = CauseInputs { banners: (Some(BANNER), Some(&later)), ..nothing };
        let found = causes_in(&one, &one, &banners);
        assert!(found[0].starts_with("another builder: me@here -> you@there"), "{found:?}");
        assert!(found[1].starts_with("a time stamp: SMP Fri Jul 31 09"), "{found:?}");
        let config = Config::parse("CONFIG_MODULE_SIG=y\n");
        let random = CauseInputs { config: Some(&config), ..nothing };
        assert!(causes_in(&one, &one, &random)[0].starts_with("CONFIG_MODULE_SIG: a key that is made"));
        let inputs = ["config".to_owned()];
        let other_config = CauseInputs { config: Some(&config), inputs: &inputs, ..nothing };
        assert_eq!(causes_in(&one, &one, &other_config), ["other inputs: config"]);
        assert_eq!(causes(&one, &one, &[".notes".to_owned()], &nothing), [Cause::BuildIdOnly]);
    }
}
