//! Tests on a small Kconfig file.

use super::*;
use crate::catalog::ConfigLibrary;
use crate::kconfig::{differences, merge};

/// A Kconfig file with at least one symbol for each kind of reason.
const KCONFIG: &str = include_str!("tests.Kconfig");

/// Returns the message for each symbol of `requested` that is not so in `result`.
fn say(requested: &str, result: &str) -> Vec<String> {
    explained(requested, result, KernelVersion::new(6, 1, 7)).iter().map(ToString::to_string).collect()
}

fn explained(requested: &str, result: &str, version: KernelVersion) -> Vec<Difference> {
    let model = Model::new(statement::statements(&"Kconfig".into(), KCONFIG));
    let result = Config::parse(result);
    let differences = differences(&merge([&Config::parse(requested)]), &result);
    let renames = Renames::read(&ConfigLibrary::built_in()).unwrap();
    let kernel = Kernel {
        tree: Utf8Path::new("/nowhere"),
        arch: Arch::Amd64,
        version: Some(version),
        renames: &renames,
    };
    add_reasons(&differences, &result, &kernel, &model, |_| true)
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
        "CONFIG_DRIVER=m is missing: depends on PCI (n) && (ACPI (n) || EXPERT (n)); \
         set CONFIG_ACPI=y, CONFIG_PCI=y too",
    );
    says(
        "CONFIG_DRIVER=m\n",
        "CONFIG_PCI=y\n# CONFIG_EXPERT is not set\n",
        "CONFIG_DRIVER=m is missing: depends on ACPI (n) || EXPERT (n); \
         set CONFIG_ACPI=y, CONFIG_MODULES=y too",
    );
    says(
        "CONFIG_DRIVER_EXTRA=y\n",
        "CONFIG_PCI=y\n",
        "CONFIG_DRIVER_EXTRA=y is missing: depends on DRIVER (n); set CONFIG_ACPI=y, CONFIG_DRIVER=y too",
    );
}

#[test]
fn a_needed_setting_that_follows_by_default_is_not_named() {
    let config = "CONFIG_MODULES=y\n# CONFIG_TABLES_LEGACY is not set\n";
    says(
        "CONFIG_TABLE_FILTER=m\n",
        config,
        "CONFIG_TABLE_FILTER=m is missing: depends on TABLES_CORE (n); set CONFIG_TABLES_LEGACY=y too",
    );
    says(
        "CONFIG_TABLE_FILTER=y\n",
        config,
        "CONFIG_TABLE_FILTER=y is missing: depends on TABLES_CORE (n); \
         set CONFIG_TABLES_CORE=y, CONFIG_TABLES_LEGACY=y too",
    );
    says(
        "CONFIG_TABLE_EBT=m\n",
        config,
        "CONFIG_TABLE_EBT=m is missing: depends on TABLES_BRIDGE (n); \
         set CONFIG_TABLES_BRIDGE=m, CONFIG_TABLES_LEGACY=y too",
    );
}

#[test]
fn an_impossible_setting_is_to_be_removed() {
    says(
        "CONFIG_VOLUNTARY=y\n",
        "CONFIG_HAS_LAZY=y\nCONFIG_LAZY=y\n",
        "CONFIG_VOLUNTARY=y is missing: depends on !HAS_LAZY (y); no setting helps, so remove it (its choice took LAZY)",
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
    says("CONFIG_DRIVER_CONSOLE=y\n", modules, "CONFIG_DRIVER_CONSOLE=y is missing: depends on DRIVER=y (m)");
    says(
        "CONFIG_TEST=y\n",
        &format!("{modules}CONFIG_TEST=m\n"),
        "CONFIG_TEST=y became m: can only be a module",
    );
    says("CONFIG_BUS=m\n", "CONFIG_BUS=y\n", "CONFIG_BUS=m became y: MODULES (n)");
    says("CONFIG_PCI=m\n", "CONFIG_PCI=y\n", "CONFIG_PCI=m became y: is a bool: y or n");
}

#[test]
fn the_constant_m_needs_modules() {
    let text =
        "has no prompt; could be selected by EXPORTER (n); set CONFIG_EXPORTER=y, CONFIG_MODULES=y too";
    says("CONFIG_EXPORTED=y\n", "", &format!("CONFIG_EXPORTED=y is missing: {text}"));
    says(
        "CONFIG_M_OR_PCI=y\n",
        "",
        "CONFIG_M_OR_PCI=y is missing: depends on MODULES (n) || PCI (n); set CONFIG_MODULES=y too",
    );
    says("CONFIG_TEST=m\n", "", "CONFIG_TEST=m is missing: depends on MODULES (n)");
    let text = "has no prompt; could be selected by RUNTIME_TEST (n); set CONFIG_MODULES=y, CONFIG_RUNTIME_TEST=m too";
    says("CONFIG_RUNTIME=y\n", "", &format!("CONFIG_RUNTIME=y is missing: {text}"));
    says("CONFIG_TEST=y\n", "", "CONFIG_TEST=y is missing: can only be a module");
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
        "CONFIG_IMPLIED=n became y: cannot be changed here; implied by IMPLIER (y); set CONFIG_EXPERT=y too",
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
        "CONFIG_HIDDEN=y is missing: has no prompt; could be selected by HIDDEN_USER (y) if ACPI (n); \
         set CONFIG_ACPI=y too",
    );
    says("CONFIG_ALONE=y\n", "", "CONFIG_ALONE=y is missing: has no prompt, and nothing selects it");
    says(
        "CONFIG_HAS_DMA=y\n",
        "CONFIG_NO_DMA=y\n",
        "CONFIG_HAS_DMA=y is missing: has no prompt; its default needs !NO_DMA (y)",
    );
    says("CONFIG_HAS_DMA=n\n", "CONFIG_HAS_DMA=y\n", "CONFIG_HAS_DMA=n became y: has no prompt; default y");
}

#[test]
fn choices_ranges_and_kinds() {
    says(
        "CONFIG_HZ_100=y\n",
        "CONFIG_HZ_250=y\n# CONFIG_HZ_100 is not set\n",
        "CONFIG_HZ_100=y became n: its choice took HZ_250; set CONFIG_HZ_250=n too",
    );
    says(
        "CONFIG_HZ_250=n\n",
        "CONFIG_HZ_250=y\n",
        "CONFIG_HZ_250=n became y: one of its choice has to be on, and no other was taken; \
         set CONFIG_HZ_100=y too",
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
    // Nor is it in the table.
    says("CONFIG_SECCOMP_ZZZ=y\n", "", "CONFIG_SECCOMP_ZZZ=y is missing: no such symbol in this kernel");
}

#[test]
fn a_chain_ends_in_its_root_cause() {
    assert_eq!(
        say("CONFIG_DRIVER_EXTRA=y\nCONFIG_DRIVER=y\nCONFIG_NO_DMA=y\n", "CONFIG_PCI=y\n"),
        [
            "CONFIG_DRIVER=y is missing: depends on ACPI (n) || EXPERT (n); set CONFIG_ACPI=y too",
            "CONFIG_DRIVER_EXTRA=y is missing: depends on DRIVER (n), see there; \
             set CONFIG_ACPI=y, CONFIG_DRIVER=y too",
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

#[test]
fn defaults_that_stand_in_the_way_are_turned_off_too() {
    says(
        "CONFIG_BEHIND_FILTER=y\n",
        "",
        "CONFIG_BEHIND_FILTER=y is missing: depends on FILTERED (n); set CONFIG_FILTER=n, CONFIG_FILTERED=y too",
    );
    says(
        "CONFIG_HAS_FUTEX=n\n",
        "CONFIG_FUTEX=y\nCONFIG_HAS_FUTEX=y\n",
        "CONFIG_HAS_FUTEX=n became y: has no prompt; default y; set CONFIG_EXPERT=y, CONFIG_FUTEX=n too",
    );
}

#[test]
fn a_selector_at_m_is_named_where_n_was_asked_for() {
    let found = "CONFIG_MODULES=y\nCONFIG_TUSER=m\nCONFIG_TCORE=m\n";
    says("CONFIG_TCORE=n\n", found, "CONFIG_TCORE=n became m: selected by TUSER (m)");
}

#[test]
fn what_this_architecture_can_never_have() {
    let text = "CONFIG_ONLY_ARM=y is missing: depends on ARM (n) && PCI (n); no setting helps, since amd64 has no ARM";
    says("CONFIG_ONLY_ARM=y\n", "", text);
    let cause = explained("CONFIG_ONLY_ARM=y\n", "", KernelVersion::new(6, 1, 7)).remove(0).cause.unwrap();
    assert_eq!((cause.kind, cause.possible, cause.set), (CauseKind::DependsOn, Some(false), vec![]));
}

#[test]
fn a_number_without_a_value_is_zero_since_6_12() {
    let result = "# CONFIG_EXPERT is not set\n";
    let said = |version| explained("CONFIG_LOW_LEVEL=y\n", result, version)[0].to_string();
    let missing = "CONFIG_LOW_LEVEL=y is missing: depends on LEVEL!=0";
    assert!(said(KernelVersion::new(6, 12, 0)).starts_with(&format!("{missing} (0)")));
    assert!(!said(KernelVersion::new(6, 11, 0)).starts_with(missing));
}

#[test]
fn numbers_are_written_as_their_type_has_them() {
    let level =
        |value: &str| say(&format!("CONFIG_LEVEL={value}\n"), "CONFIG_EXPERT=y\nCONFIG_LEVEL=1\n").remove(0);
    assert_eq!(level("007"), "CONFIG_LEVEL=007 became 1: is an int: no leading zeros");
    assert_eq!(level("0x7"), "CONFIG_LEVEL=0x7 became 1: is an int: no hexadecimal number");
    assert_eq!(level("70"), "CONFIG_LEVEL=70 became 1: outside its range, 1 to 9");
    says(
        "CONFIG_LEVEL=70\n",
        "",
        "CONFIG_LEVEL=70 is missing: depends on EXPERT (n); its range is then 1 to 9",
    );
    // Kconfig writes `0x` before it.
    assert!(say("CONFIG_MASK=10\n", "CONFIG_MASK=0x10\n").is_empty());
    says("CONFIG_LEVEL=3\n", "CONFIG_EXPERT=y\nCONFIG_LEVEL=\n", "CONFIG_LEVEL=3 has no value");
}

#[test]
fn a_transitional_symbol_is_carried_on_by_the_kernel() {
    assert!(say("CONFIG_OLD_NAME=y\n", "CONFIG_NEW_NAME=y\n").is_empty());
    assert_eq!(say("CONFIG_OLD_NAME=y\n", "# CONFIG_NEW_NAME is not set\n").len(), 1);
}

#[test]
fn a_macro_that_rules_out_a_member_of_a_choice_is_named() {
    says(
        "CONFIG_COMP_ZSTD=y\n",
        "CONFIG_COMP_GZ=y\n",
        "CONFIG_COMP_ZSTD=y is missing: depends on $(cc-option,-zstd)",
    );
}

#[test]
fn all_that_is_not_met_is_in_the_json() {
    let one = explained("CONFIG_DRIVER_EXTRA=y\n", "", KernelVersion::new(6, 1, 7)).remove(0);
    let cause = serde_json::to_value(&one).unwrap()["cause"].clone();
    assert_eq!(cause["kind"], "depends-on");
    assert_eq!(cause["unmet"], "PCI (n) && DRIVER (n)");
    assert_eq!(cause["set"][0], serde_json::json!({ "symbol": "ACPI", "value": "y" }));
}

#[test]
fn what_a_reason_leaves_out_is_in_the_json() {
    let one = |requested: &str, result: &str| {
        let one = explained(requested, result, KernelVersion::new(6, 1, 7)).remove(0);
        (one.to_string(), serde_json::to_value(one.cause.unwrap()).unwrap())
    };
    let (text, cause) = one("CONFIG_ONE_OF_SIX=y\n", "");
    assert!(text.contains("S4 (n) || … 2 more"), "{text}");
    assert!(cause["unmet"].as_str().unwrap().ends_with("S5 (n) || S6 (n)"), "{cause}");
    assert_eq!(cause["symbols"][5], serde_json::json!({ "symbol": "S6", "value": "n" }));
    let on: String = (1..6).map(|index| format!("CONFIG_SELECTS_{index}=y\n")).collect();
    let (text, cause) = one("CONFIG_MANY_SELECT=n\n", &format!("CONFIG_MANY_SELECT=y\n{on}"));
    assert!(text.contains("selected by SELECTS_1 (y), SELECTS_2 (y), SELECTS_3 (y) and 2 more"), "{text}");
    assert_eq!(cause["symbols"][4], serde_json::json!({ "symbol": "SELECTS_5", "value": "y" }));
    let (text, cause) = one("CONFIG_MANY_SELECT=y\n", "");
    assert!(
        text.contains("could be selected by SELECTS_1 (n), SELECTS_2 (n), SELECTS_3 (n) and 2 more"),
        "{text}"
    );
    assert_eq!(cause["symbols"].as_array().unwrap().len(), 5);
    let (_, cause) = one("CONFIG_HZ_100=y\n", "CONFIG_HZ_250=y\n# CONFIG_HZ_100 is not set\n");
    assert_eq!(cause["symbols"], serde_json::json!([{ "symbol": "HZ_250", "value": "y" }]));
}

#[test]
fn a_search_that_ends_says_so() {
    let cause = |requested: &str, result: &str| {
        explained(requested, result, KernelVersion::new(6, 1, 7)).remove(0).cause.unwrap()
    };
    assert_eq!(cause("CONFIG_NEEDS_BITS_OFF=y\n", "CONFIG_BITS=y\n").possible, Some(false));
    // A symbol that is off in the .config can be set, whatever its macros are.
    assert_eq!(cause("CONFIG_X32_MORE=y\n", "# CONFIG_X32 is not set\n").possible, Some(true));
    assert_eq!(cause("CONFIG_X32_MORE=y\n", "").possible, Some(false));
    // Another default may give the number.
    assert_eq!(cause("CONFIG_ALIGNMENT=64\n", "CONFIG_ALIGNMENT=16\n").possible, None);
    assert_eq!(cause("CONFIG_ALIGNMENT=65\n", "CONFIG_ALIGNMENT=16\n").possible, Some(false));
    // A symbol that only bools select can be a module only if one of them depends on a tristate.
    assert_eq!(cause("CONFIG_LZ_M=m\n", "CONFIG_MODULES=y\n").possible, None);
    assert_eq!(cause("CONFIG_LZ=m\n", "CONFIG_MODULES=y\n").possible, Some(false));
}

#[test]
fn a_search_that_skips_alternatives_proves_nothing() {
    let solve = |count: usize| {
        let selector = |index| format!("config S{index}\n\tbool \"s\"\n\tdepends on ARM\n\tselect X\n");
        let text: String = (0..count).map(selector).chain(["config X\n\tbool\n".to_owned()]).collect();
        let model = Model::new(statement::statements(&"Kconfig".into(), &text));
        Search::new(&model, &Config::default()).solve("X", "y")
    };
    assert_eq!(solve(9), Solution::Impossible(["ARM".to_owned()].into()));
    assert_eq!(solve(99), Solution::Unknown);
}

#[test]
fn what_is_implied_needs_its_dependencies_too() {
    says(
        "CONFIG_LIB=y\n",
        "",
        "CONFIG_LIB=y is missing: has no prompt, and nothing selects it; set CONFIG_ALL_LIBS=y, CONFIG_PCI=y too",
    );
}

#[test]
fn a_symbol_is_described() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Kconfig"), "source \"more\"\n").unwrap();
    std::fs::write(dir.path().join("more"), KCONFIG).unwrap();
    let renames = Renames::default();
    let tree = Utf8Path::from_path(dir.path()).unwrap();
    let kernel = Kernel { tree, arch: Arch::Amd64, version: None, renames: &renames };
    let config = Config::parse("CONFIG_CPUS=4\nCONFIG_IMPLIER=y\nCONFIG_IMPLIED=y\n");
    let names = ["CPUS", "CONFIG_IMPLIED", "DRIVER"].map(str::to_owned);
    let described = describe(&names, &config, &kernel).unwrap();
    let json = serde_json::to_value(&described).unwrap();
    assert_eq!((&json[0]["type"], &json[0]["value"]), (&"int".into(), &"4".into()));
    let line = 1 + KCONFIG.lines().position(|line| line == "config CPUS").unwrap();
    let cpus = serde_json::json!({
        "file": "more", "line": line, "prompt": true, "prompt_text": "CPUs", "depends": [], "prompt_if": [],
        "defaults": ["4"], "ranges": ["1 to 64 if EXPERT", "2 to 8"],
    });
    assert_eq!(json[0]["definitions"], serde_json::json!([cpus]));
    let implier = serde_json::json!({ "symbol": "IMPLIER", "value": "y", "if": null });
    assert_eq!(json[1]["implied_by"], serde_json::json!([implier]));
    let unmet = |condition: &str, unmet: &str| serde_json::json!({ "condition": condition, "unmet": unmet });
    let depends = [unmet("PCI", "PCI (n)"), unmet("ACPI || EXPERT", "ACPI (n) || EXPERT (n)")];
    assert_eq!(json[2]["definitions"][0]["depends"], serde_json::json!(depends));
}
