//! Configs are read, merged and compared.

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
fn comments_are_read_as_the_kernel_reads_them() {
    let text = "\u{feff}CONFIG_A=y # on\nCONFIG_B=m\t# a module\n# CONFIG_C is not set # off\n\
                CONFIG_S=\"a # \\\" b\" # a text\r\nCONFIG_EMPTY=\n";
    let config = Config::parse(text);
    assert_eq!(config.malformed, []);
    let expected = [("A", "y"), ("B", "m"), ("C", "n"), ("EMPTY", ""), ("S", "\"a # \\\" b\"")];
    assert_eq!(config.symbols, expected.map(|(symbol, value)| (symbol.to_owned(), value.to_owned())).into());
    for bad in [
        "CONFIG_N=64 # eight",
        "CONFIG_A=yes",
        "CONFIG_A=y#",
        "CONFIG_A=y z",
        "CONFIG_S=\"a\"b",
        " CONFIG_A=y",
        "CONFIG_A",
    ] {
        assert_eq!(Config::parse(bad).malformed.len(), 1, "{bad}");
    }
    assert!(Config::parse("# CONFIG_X is not settled\n#CONFIG_X is not set\n").symbols.is_empty());
    assert!(!merge([&config]).contains_key("EMPTY"));
}

#[test]
fn a_symbol_that_is_set_twice_is_found() {
    let config = Config::parse("CONFIG_A=y\n\n# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_A=y\n");
    assert_eq!(
        config.repeated_symbols("x").unwrap(),
        "x: CONFIG_A is set at lines 1 and 3, and 1 more line sets a symbol again; the last line counts"
    );
    assert_eq!(Config::parse("CONFIG_A=y\nCONFIG_B=y\n").repeated_symbols("x"), None);
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
