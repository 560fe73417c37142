//! Modules in an order in which each finds what it needs. Pure.

use crate::kernel::binary::module;
use crate::util::error::{Error, Result};
use std::collections::BTreeMap;

/// A distribution's kernel has about 7000.
const MAX_MODULES: usize = 50_000;
/// What the init has room for.
const MAX_PATH: usize = 400;

/// A module and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its path below the directory of `modules.dep`, as [`plain_name`] has it.
    pub path: String,
    /// The places of the modules that it needs, all before its own.
    pub dependencies: Vec<usize>,
}

/// The modules of depmod's `modules.dep` in an order in which they can be loaded. A line there is
/// `MODULE: NEEDED…`, with all that it needs, what is needed first standing last (depmod(8)).
///
/// Errors (exit code 3): it is no such file.
pub(super) fn load_order(modules_dep: &str) -> Result<Vec<Module>> {
    let mut order: Vec<Module> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, line) in modules_dep.lines().enumerate() {
        let message =
            |what: &str| Error::fetch(format!("modules.dep, line {}: {what}", number.saturating_add(1)));
        let (module, needed) = line.split_once(':').ok_or_else(|| message("no module and colon"))?;
        let mut dependencies = Vec::new();
        for path in needed.split_whitespace().rev().chain([module.trim()]) {
            if path.is_empty() || path.len() > MAX_PATH || !path.chars().all(|c| c.is_ascii_graphic()) {
                return Err(message("not the path of a module"));
            }
            let place = *places.entry(path).or_insert_with(|| {
                order.push(Module { path: plain_name(path).to_owned(), dependencies: Vec::new() });
                order.len() - 1
            });
            dependencies.push(place);
            // One line can have as many names as a whole file.
            if order.len().max(dependencies.len()) > MAX_MODULES {
                return Err(message("more modules than any kernel has"));
            }
        }
        // The last one is the module itself, which may have come earlier, as something needed.
        if let Some(own) = dependencies.pop() {
            dependencies.retain(|&place| place < own);
            order[own].dependencies = dependencies;
        }
    }
    Ok(order)
}

/// The name of a module without the ending of its compression: `x.ko` for `x.ko.xz`.
pub(super) fn plain_name(path: &str) -> &str {
    module::compression(path).and_then(|end| path.strip_suffix(end)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dep = "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nd.ko.xz:\n";
        let order = load_order(dep).unwrap();
        let order: Vec<(&str, &[usize])> =
            order.iter().map(|module| (&*module.path, &*module.dependencies)).collect();
        assert_eq!(
            order,
            [("kernel/c.ko", &[][..]), ("kernel/b.ko", &[0]), ("kernel/a.ko", &[0, 1]), ("d.ko", &[])]
        );
        assert!(load_order("").unwrap().is_empty());
        // Nothing needs itself, and no circle leads anywhere.
        assert!(load_order("a.ko: b.ko\nb.ko: a.ko b.ko\n").unwrap()[0].dependencies.is_empty());
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        for invalid in ["garbage", ": x.ko", "a\u{1b}[2J.ko:", &format!("{}:", "x".repeat(500))] {
            assert!(
                load_order(invalid).unwrap_err().to_string().starts_with("modules.dep, line 1"),
                "{invalid}"
            );
        }
    }

    #[test]
    fn more_modules_than_any_kernel_has_are_refused_in_lines_and_in_one() {
        let names: Vec<String> = (0..=MAX_MODULES).map(|number| format!("{number}.ko")).collect();
        for text in [
            format!("{}:\n", names.join(":\n")),
            format!("a.ko: {}\n", names.join(" ")),
            format!("a.ko: {}\n", "b.ko ".repeat(MAX_MODULES + 1)),
        ] {
            let error = load_order(&text).unwrap_err().to_string();
            assert!(error.ends_with("more modules than any kernel has"), "{error}");
        }
    }

    #[test]
    fn a_compressed_module_has_a_plain_name() {
        assert_eq!(["x.ko", "x.ko.zst", "x.gz"].map(plain_name), ["x.ko", "x.ko", "x.gz"]);
    }
}
