//! Turns modules into built-in code, as the kernel's own `make mod2yesconfig` does. That target exists since 5.7, so
//! kcompile changes the text of the `.config` itself.

use super::{Config, Difference, config_line, setting};

/// The setting of a kernel that loads no modules.
pub const NO_MODULES: &str = "# CONFIG_MODULES is not set\n";

/// Options of the module loader whose names do not begin with `MODULE_`.
const LOADER_OPTIONS: [&str; 10] = [
    "ASM_MODVERSIONS",
    "BASIC_MODVERSIONS",
    "EXTENDED_MODVERSIONS",
    "GENDWARFKSYMS",
    "GENKSYMS",
    "MODPROBE_PATH",
    "MODVERSIONS",
    "STRICT_MODULE_RWX",
    "TRIM_UNUSED_KSYMS",
    "UNUSED_KSYMS_WHITELIST",
];

/// Returns whether `symbol` is an option of the module loader, which means nothing without it.
pub fn is_loader_option(symbol: &str) -> bool {
    symbol.starts_with("MODULE_") || LOADER_OPTIONS.contains(&symbol)
}

/// Returns the text of a final `.config` with each `m` changed to `y` and with modules turned off.
pub fn build_in(config: &str) -> String {
    let line = |line: &str| match setting(line) {
        Some(("MODULES", _)) => String::new(),
        Some((symbol, "m")) => config_line(symbol, "y") + "\n",
        _ => format!("{line}\n"),
    };
    config.lines().map(line).collect::<String>() + NO_MODULES
}

/// Returns the modules of `modular` that are not built into `config`, other than those in `known`. They belong to
/// no layer that requested them, so `layer` is that of `--builtin`.
pub fn lost_modules(
    modular: &Config,
    config: &Config,
    known: &[Difference],
    layer: usize,
) -> Vec<Difference> {
    let is_known = |symbol: &String| known.iter().any(|one| one.symbol == *symbol);
    let lost = modular
        .symbols
        .iter()
        .filter(|(symbol, value)| *value == "m" && config.value(symbol) != "y" && !is_known(symbol));
    lost.map(|(symbol, _)| Difference {
        symbol: symbol.clone(),
        requested: "y".into(),
        found: config.symbols.get(symbol).cloned(),
        reason: None,
        cause: None,
        layer,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_built_in() {
        let before =
            "# Linux\nCONFIG_MODULES=y\nCONFIG_A=m\nCONFIG_B=y\nCONFIG_S=\"m\"\n# CONFIG_C is not set\n";
        let after = "# Linux\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_S=\"m\"\n# CONFIG_C is not set\n";
        assert_eq!(build_in(before), format!("{after}{NO_MODULES}"));
    }

    #[test]
    fn options_of_the_loader_are_known() {
        assert!(is_loader_option("MODULE_UNLOAD") && is_loader_option("MODVERSIONS"));
        assert!(!is_loader_option("MODULES") && !is_loader_option("BPF_JIT"));
    }

    #[test]
    fn a_module_that_is_off_is_lost() {
        let modular = Config::parse("CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=m\nCONFIG_D=y\n");
        let config = Config::parse("CONFIG_A=y\n# CONFIG_B is not set\n");
        let lost = lost_modules(&modular, &config, &[], 3);
        let found: Vec<_> = lost.iter().map(|one| (one.symbol.as_str(), one.found.as_deref())).collect();
        assert_eq!(found, [("B", Some("n")), ("C", None)]);
        assert!(lost_modules(&modular, &config, &lost, 3).is_empty());
    }
}
