//! Why a setting did not take, from the kernel's own Kconfig files: dependencies that are not met,
//! selects, choices, ranges, symbols that are gone or have another name. Reads those files and
//! nothing else; runs nothing.
//!
//! The final `.config` is the truth about values: nothing of Kconfig is computed anew. What is asked is
//! only which part of a condition does not hold with these values.
//!
//! The parser is our own. nom-kconfig 0.13 reads the real trees from 4.19 to 6.12 whole, but needs 4.6
//! seconds of processor time for 6.12 where this one needs 0.14, and it follows files that source each
//! other in a circle until the stack ends and the process aborts. A tree is hostile input here.

mod expression;
mod model;
mod nearest;
mod read;
mod reason;
mod renames;
mod statement;
mod tools;
mod unmet;

pub use renames::Renames;

use super::{Config, Difference};
use crate::kernel::{Arch, KernelVersion};
use crate::util::text::sanitize_line;
use camino::Utf8Path;
use model::Model;
use nearest::nearest;
use reason::Reason;
use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

/// For how many symbols that are not there the nearest names are looked for: it takes some
/// milliseconds for each, and nobody reads more.
const MAX_NEAREST: usize = 200;

/// The kernel that was configured.
pub struct Kernel<'a> {
    /// The top of its source.
    pub tree: &'a Utf8Path,
    /// For which machine.
    pub arch: Arch,
    /// Its version, if known: for the table of renames.
    pub version: Option<KernelVersion>,
    /// Symbols that are gone or have another name.
    pub renames: &'a Renames,
}

/// The same differences, each with its reason where the Kconfig files of `kernel` show one.
///
/// Left out are symbols that Kconfig computes from the compiler and its companions, where
/// `is_snapshot` says that the layer which asked is a whole `.config` of some other build: there they
/// tell which tools that build had, and nobody asked for them.
///
/// Errors: the files cannot be read; what is wrong, in words. They are not read where there is no
/// difference.
pub fn explain(
    differences: &[Difference],
    config: &Config,
    kernel: &Kernel<'_>,
    is_snapshot: impl Fn(&Difference) -> bool,
) -> Result<Vec<Difference>, String> {
    if differences.is_empty() {
        return Ok(Vec::new());
    }
    let model = Model::new(read::read(kernel.tree, kernel.arch)?);
    Ok(add_reasons(differences, config, kernel, &model, is_snapshot))
}

/// All symbols that the Kconfig files of `tree` define for `arch`, each with whether it can be set: the others are
/// computed. Errors as for [`explain`].
pub fn symbols(tree: &Utf8Path, arch: Arch) -> Result<HashMap<String, bool>, String> {
    let model = Model::new(read::read(tree, arch)?);
    let defined = model.symbols.into_iter().filter(|(_, symbol)| !symbol.definitions.is_empty());
    Ok(defined.map(|(name, symbol)| (name, symbol.has_prompt())).collect())
}

fn add_reasons(
    differences: &[Difference],
    config: &Config,
    kernel: &Kernel<'_>,
    model: &Model,
    is_snapshot: impl Fn(&Difference) -> bool,
) -> Vec<Difference> {
    let tools = tools::tool_dependent_symbols(model);
    let is_noise =
        |difference: &&Difference| tools.contains(difference.symbol.as_str()) && is_snapshot(difference);
    let relevant: Vec<&Difference> = differences.iter().filter(|difference| !is_noise(difference)).collect();
    let symbols_of_other_arches = LazyCell::new(|| read::symbols_of_other_arches(kernel.tree, kernel.arch));
    let mut absent = 0;
    let reasons: HashMap<&str, Reason> = relevant
        .iter()
        .filter_map(|difference| {
            let reason = match model.defined(&difference.symbol) {
                Some(symbol) => reason::reason(difference, symbol, model, config)?,
                None => {
                    let symbol = &difference.symbol;
                    let text = describe_rename(symbol, config, kernel, model);
                    let text =
                        text.or_else(|| Some(describe_other_arches(symbols_of_other_arches.get(symbol)?)));
                    let text = text.unwrap_or_else(|| {
                        absent += 1;
                        describe_unknown(symbol, model, absent <= MAX_NEAREST)
                    });
                    Reason { text, symbols: Vec::new() }
                }
            };
            Some((difference.symbol.as_str(), reason))
        })
        .collect();
    relevant
        .into_iter()
        .map(|difference| {
            let reason = reasons.get(difference.symbol.as_str()).map(|reason| {
                let text = sanitize_line(&reason.text);
                match root_cause(&difference.symbol, &reasons) {
                    Some(root) if reason.symbols == [root] => format!("{text}, see there"),
                    Some(root) => format!("{text}, see CONFIG_{root}"),
                    None => text,
                }
            });
            Difference { reason, ..difference.clone() }
        })
        .collect()
}

/// Where the reason for `symbol` rests on another symbol that did not take either: the last of that
/// chain, whose reason is the one that a user has to look at.
fn root_cause<'a>(symbol: &'a str, reasons: &'a HashMap<&str, Reason>) -> Option<&'a str> {
    let mut visited = HashSet::from([symbol]);
    let mut at = symbol;
    while let Some(next) = reasons[at].symbols.iter().find(|next| reasons.contains_key(next.as_str())) {
        if !visited.insert(next) {
            break;
        }
        at = next;
    }
    (at != symbol).then_some(at)
}

/// That the tree defines it for these architectures only.
fn describe_other_arches(having: &[String]) -> String {
    match having {
        [one] => format!("only another architecture has it: {one}"),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("only other architectures have it: {first}, {second}, {third} and {} more", rest.len())
        }
        some => format!("only other architectures have it: {}", some.join(", ")),
    }
}

/// That the tree does not define `symbol`; with the names nearest to it where `look`.
fn describe_unknown(symbol: &str, model: &Model, suggest_nearest: bool) -> String {
    let names = model.symbols.iter().filter(|(_, symbol)| suggest_nearest && symbol.has_prompt());
    let near = nearest(symbol, names.map(|(name, _)| name.as_str()));
    match near.is_empty() {
        true => "no such symbol in this kernel".into(),
        false => format!("no such symbol in this kernel (nearest: {})", near.join(", ")),
    }
}

/// What the table knows of it, as far as that fits this kernel: a new name has to be there.
fn describe_rename(symbol: &str, config: &Config, kernel: &Kernel<'_>, model: &Model) -> Option<String> {
    let valued = |name: &str| format!("{name} ({})", config.value(name));
    // A new name may have got a newer one.
    for rename in kernel.renames.chain(symbol) {
        let there: Vec<String> =
            rename.new.iter().filter(|new| model.defined(new).is_some()).map(|new| valued(new)).collect();
        let is_past = kernel.version.is_none_or(|version| version >= rename.since);
        if !there.is_empty() {
            // A stable release or a vendor may have it before the version of the table.
            let when = if is_past { format!("since {}", rename.since) } else { "here".into() };
            return Some(format!("{when} it is {}", there.join(" and ")));
        }
        if let (true, true, Some(note)) = (rename.new.is_empty(), is_past, &rename.note) {
            return Some(format!("gone since {}: {note}", rename.since));
        }
    }
    let earlier = kernel.renames.to(symbol).find(|rename| model.defined(&rename.old).is_some())?;
    Some(format!("before {} it is {}", earlier.since, valued(&earlier.old)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ConfigLibrary;
    use crate::kconfig::{differences, merge};

    /// A kernel in a few lines: one symbol for each thing that can happen.
    const KCONFIG: &str = r#"
config MODULES
	bool "Modules"
	modules
config CC_VERSION
	int
	default $(shell,cc --version)
config CC_HAS_NEW
	def_bool CC_VERSION >= 90000
config PCI
	bool "PCI"
config ACPI
	bool "ACPI"
config EXPERT
	bool "Expert"
config HAS_DMA
	def_bool y
	depends on !NO_DMA
config NO_DMA
	bool
menu "Drivers"
	depends on PCI
config DRIVER
	tristate "Driver"
	depends on ACPI || EXPERT
if DRIVER
config DRIVER_EXTRA
	bool "Extra"
config DRIVER_CONSOLE
	bool "Console"
	depends on DRIVER=y
endif
endmenu
config BUS
	tristate "Bus"
config ON_BUS
	tristate "On the bus"
	depends on BUS
config TEST
	tristate "Only a module"
	depends on m
config CORE
	tristate "Core"
config USER
	bool "User"
	select CORE
config HIDDEN
	bool
config HIDDEN_USER
	bool "Uses hidden"
	depends on PCI
	select HIDDEN if ACPI
config ALONE
	bool
config PRINTK
	bool "printk" if EXPERT
	default y
config IMPLIED
	tristate "Implied" if EXPERT
config IMPLIER
	bool "Implies"
	imply IMPLIED
choice
	prompt "Timer"
config HZ_100
	bool "100"
config HZ_250
	bool "250"
endchoice
config CPUS
	int "CPUs"
	range 1 64 if EXPERT
	range 2 8
	default 4
config NAME
	string "Name"
config RETPOLINE_OLD
	bool "Retpoline"
	depends on $(cc-option,-mretpoline)
config NF_NAT
	tristate "NAT"
"#;

    /// What is said of each symbol of `wanted`, when `result` came out.
    fn say(requested: &str, result: &str) -> Vec<String> {
        let model = Model::new(statement::statements(KCONFIG));
        let result = Config::parse(result);
        let differences = differences(&merge([&Config::parse(requested)]), &result);
        let renames = Renames::read(&ConfigLibrary::built_in()).unwrap();
        let kernel = Kernel {
            tree: Utf8Path::new("/nowhere"),
            arch: Arch::Amd64,
            version: Some(KernelVersion::new(6, 1, 7)),
            renames: &renames,
        };
        let explained = add_reasons(&differences, &result, &kernel, &model, |_| true);
        explained.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn says(requested: &str, result: &str, expected: &str) {
        assert_eq!(say(requested, result), [expected]);
    }

    #[test]
    fn dependencies_that_are_not_met() {
        says(
            "CONFIG_DRIVER=m\n",
            "CONFIG_MODULES=y\n",
            "CONFIG_DRIVER=m is missing: depends on PCI (n) && (ACPI (n) || EXPERT (n))",
        );
        says(
            "CONFIG_DRIVER=m\n",
            "CONFIG_PCI=y\n# CONFIG_EXPERT is not set\n",
            "CONFIG_DRIVER=m is missing: depends on ACPI (n) || EXPERT (n)",
        );
        says(
            "CONFIG_DRIVER_EXTRA=y\n",
            "CONFIG_PCI=y\n",
            "CONFIG_DRIVER_EXTRA=y is missing: depends on DRIVER (n)",
        );
    }

    #[test]
    fn what_a_module_limits() {
        let modules = "CONFIG_MODULES=y\nCONFIG_PCI=y\nCONFIG_ACPI=y\nCONFIG_DRIVER=m\nCONFIG_BUS=m\n";
        says(
            "CONFIG_ON_BUS=y\n",
            &format!("{modules}CONFIG_ON_BUS=m\n"),
            "CONFIG_ON_BUS=y became m: limited to m by BUS (m)",
        );
        says(
            "CONFIG_DRIVER_CONSOLE=y\n",
            modules,
            "CONFIG_DRIVER_CONSOLE=y is missing: depends on DRIVER=y (m)",
        );
        says(
            "CONFIG_TEST=y\n",
            &format!("{modules}CONFIG_TEST=m\n"),
            "CONFIG_TEST=y became m: can only be a module",
        );
        says("CONFIG_BUS=m\n", "CONFIG_BUS=y\n", "CONFIG_BUS=m became y: MODULES (n)");
        says("CONFIG_PCI=m\n", "CONFIG_PCI=y\n", "CONFIG_PCI=m became y: is a bool: y or n");
    }

    #[test]
    fn what_is_selected_or_implied() {
        says(
            "CONFIG_CORE=m\n",
            "CONFIG_MODULES=y\nCONFIG_USER=y\nCONFIG_CORE=y\n",
            "CONFIG_CORE=m became y: selected by USER (y)",
        );
        says(
            "CONFIG_IMPLIED=n\n",
            "CONFIG_IMPLIER=y\nCONFIG_IMPLIED=y\n",
            "CONFIG_IMPLIED=n became y: cannot be changed here; implied by IMPLIER (y)",
        );
        says(
            "CONFIG_PRINTK=n\n",
            "CONFIG_PRINTK=y\n",
            "CONFIG_PRINTK=n became y: to change it needs EXPERT (n); default y",
        );
    }

    #[test]
    fn symbols_without_a_prompt() {
        says(
            "CONFIG_HIDDEN=y\n",
            "CONFIG_PCI=y\nCONFIG_HIDDEN_USER=y\n",
            "CONFIG_HIDDEN=y is missing: has no prompt; could be selected by HIDDEN_USER (y) if ACPI (n)",
        );
        says("CONFIG_ALONE=y\n", "", "CONFIG_ALONE=y is missing: has no prompt, and nothing selects it");
        says(
            "CONFIG_HAS_DMA=y\n",
            "CONFIG_NO_DMA=y\n",
            "CONFIG_HAS_DMA=y is missing: has no prompt; its default needs !NO_DMA (y)",
        );
        says(
            "CONFIG_HAS_DMA=n\n",
            "CONFIG_HAS_DMA=y\n",
            "CONFIG_HAS_DMA=n became y: has no prompt; default y",
        );
    }

    #[test]
    fn choices_ranges_and_kinds() {
        says(
            "CONFIG_HZ_100=y\n",
            "CONFIG_HZ_250=y\n# CONFIG_HZ_100 is not set\n",
            "CONFIG_HZ_100=y became n: its choice took HZ_250",
        );
        says(
            "CONFIG_HZ_250=n\n",
            "CONFIG_HZ_250=y\n",
            "CONFIG_HZ_250=n became y: one of its choice has to be on, and no other was taken",
        );
        says("CONFIG_CPUS=64\n", "CONFIG_CPUS=4\n", "CONFIG_CPUS=64 became 4: outside its range, 2 to 8");
        says("CONFIG_CPUS=y\n", "CONFIG_CPUS=4\n", "CONFIG_CPUS=y became 4: is an int");
        says("CONFIG_NAME=y\n", "CONFIG_NAME=\"\"\n", "CONFIG_NAME=y became \"\": is a string");
        says(
            "CONFIG_RETPOLINE_OLD=y\n",
            "",
            "CONFIG_RETPOLINE_OLD=y is missing: depends on $(cc-option,-mretpoline)",
        );
    }

    #[test]
    fn symbols_that_are_not_there() {
        says(
            "CONFIG_NF_NAT_IPV4=m\n",
            "CONFIG_MODULES=y\nCONFIG_NF_NAT=m\n",
            "CONFIG_NF_NAT_IPV4=m is missing: since 5.1 it is NF_NAT (m)",
        );
        says(
            "CONFIG_MEMCG_SWAP=y\n",
            "",
            "CONFIG_MEMCG_SWAP=y is missing: gone since 6.1: always on with MEMCG and SWAP",
        );
        says(
            "CONFIG_DRIVER_EXTRAS=y\n",
            "",
            "CONFIG_DRIVER_EXTRAS=y is missing: no such symbol in this kernel (nearest: DRIVER_EXTRA)",
        );
        says("CONFIG_ZZZ=y\n", "", "CONFIG_ZZZ=y is missing: no such symbol in this kernel");
        // Gone later than this kernel, and still never there: the table has nothing to say.
        says("CONFIG_SECCOMP_ZZZ=y\n", "", "CONFIG_SECCOMP_ZZZ=y is missing: no such symbol in this kernel");
    }

    #[test]
    fn a_chain_ends_in_its_root_cause() {
        assert_eq!(
            say("CONFIG_DRIVER_EXTRA=y\nCONFIG_DRIVER=y\nCONFIG_NO_DMA=y\n", "CONFIG_PCI=y\n"),
            [
                "CONFIG_DRIVER=y is missing: depends on ACPI (n) || EXPERT (n)",
                "CONFIG_DRIVER_EXTRA=y is missing: depends on DRIVER (n), see there",
                "CONFIG_NO_DMA=y is missing: has no prompt, and nothing selects it",
            ]
        );
    }

    #[test]
    fn what_tools_say_is_no_difference_in_a_snapshot() {
        let requested = "CONFIG_CC_VERSION=90100\nCONFIG_CC_HAS_NEW=y\n";
        assert!(say(requested, "CONFIG_CC_VERSION=80300\n").is_empty());
    }

    #[test]
    fn a_tree_that_cannot_be_read_is_an_error_in_words() {
        let renames = Renames::default();
        let kernel = Kernel {
            tree: Utf8Path::new("/nowhere/at/all"),
            arch: Arch::Amd64,
            version: None,
            renames: &renames,
        };
        assert_eq!(explain(&[], &Config::default(), &kernel, |_| true), Ok(Vec::new()));
        let requested = merge([&Config::parse("CONFIG_A=y\n")]);
        let differences = differences(&requested, &Config::default());
        assert!(explain(&differences, &Config::default(), &kernel, |_| true).is_err());
    }
}
