//! Sorts modules so that each one is loaded after its dependencies.

use crate::kernel::binary::module;
use crate::util::error::{Error, Result};
use std::collections::BTreeMap;

/// The kernel of a distribution has about 7000.
const MAX_MODULES: usize = 50_000;
/// The size of init's buffer.
const MAX_PATH: usize = 400;

/// A module with its dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// The path below the directory of `modules.dep`, without the suffix of its compression.
    pub path: String,
    /// The indices of its dependencies, all smaller than its own.
    pub dependencies: Vec<usize>,
}

/// Returns the modules of depmod's `modules.dep` in load order. A line there is `MODULE: DEPENDENCY…`. It
/// has all dependencies, and the first one to load is the last one in the line (depmod(8)).
///
/// # Errors
///
/// The file is invalid (exit code 3).
pub(super) fn load_order(modules_dep: &str) -> Result<Vec<Module>> {
    let mut order: Vec<Module> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, line) in modules_dep.lines().enumerate() {
        let message =
            |what: &str| Error::fetch(format!("modules.dep, line {}: {what}", number.saturating_add(1)));
        let (module, needed) =
            line.split_once(':').ok_or_else(|| message("expected `MODULE: DEPENDENCY…`"))?;
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
            // A single line may also be too long.
            if order.len().max(dependencies.len()) > MAX_MODULES {
                return Err(message(&format!("more than {MAX_MODULES} modules")));
            }
        }
        // The last one is the module itself. It may already be a dependency of another one.
        if let Some(own) = dependencies.pop() {
            dependencies.retain(|&place| place < own);
            order[own].dependencies = dependencies;
        }
    }
    Ok(order)
}

/// Returns the name of a module without the suffix of its compression, such as `x.ko` for `x.ko.xz`.
pub(super) fn plain_name(path: &str) -> &str {
    module::compression(path).and_then(|end| path.strip_suffix(end)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let dep = "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nd.ko.xz:\n";
        let order = load_order(dep).unwrap();
        let order: Vec<(&str, &[usize])> =
            order.iter().map(|module| (&*module.path, &*module.dependencies)).collect();
        assert_eq!(
            order,
            [("kernel/c.ko", &[][..]), ("kernel/b.ko", &[0]), ("kernel/a.ko", &[0, 1]), ("d.ko", &[])]
        );
        assert!(load_order("").unwrap().is_empty());
        // A module does not depend on itself, and a cycle ends.
        assert!(load_order("a.ko: b.ko\nb.ko: a.ko b.ko\n").unwrap()[0].dependencies.is_empty());
    }

    #[test]
    fn invalid_files_are_refused() {
        for invalid in ["garbage", ": x.ko", "a\u{1b}[2J.ko:", &format!("{}:", "x".repeat(500))] {
            assert!(
                load_order(invalid).unwrap_err().to_string().starts_with("modules.dep, line 1"),
                "{invalid}"
            );
        }
    }

    #[test]
    fn too_many_modules_are_refused() {
        let names: Vec<String> = (0..=MAX_MODULES).map(|number| format!("{number}.ko")).collect();
        for text in [
            format!("{}:\n", names.join(":\n")),
            format!("a.ko: {}\n", names.join(" ")),
            format!("a.ko: {}\n", "b.ko ".repeat(MAX_MODULES + 1)),
        ] {
            let error = load_order(&text).unwrap_err().to_string();
            assert!(error.ends_with("more than 50000 modules"), "{error}");
        }
    }

    #[test]
    fn compression_suffixes_are_removed() {
        assert_eq!(["x.ko", "x.ko.zst", "x.gz"].map(plain_name), ["x.ko", "x.ko", "x.gz"]);
    }
}
