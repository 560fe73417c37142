//! The variables on make's command line.

use crate::kbuild::launcher::Launcher;
use crate::plan::Plan;
use crate::source::Tree;
use crate::util::read::{Links, MAX_CONFIG, read_file};
use camino::Utf8Path;
use std::collections::BTreeMap;

/// The path of the source in debug information. Kbuild uses it in a build directory inside the tree.
/// Elsewhere (a source directory used in place, another user's shared cache) Kbuild uses the full path.
const MAPPED_SOURCE: &str = "..";
/// The path of the build directory in debug information, whatever its real path.
const MAPPED_BUILD: &str = "/usr/src/linux/build";

/// Returns the plan's variables, with the launcher before the compilers. If the config has debug
/// information, adds prefix maps, so that no path of this machine gets into it. Without debug
/// information no object holds a path, and the options would only cause misses in a compiler cache.
pub(super) fn variables(plan: &Plan, tree: &Tree, build: &Utf8Path) -> BTreeMap<String, String> {
    let mut variables = plan.make.variables.clone();
    if let Some(launcher) = Launcher::of(&plan.toolchain, build) {
        let launcher = launcher.command_prefix();
        for key in ["CC", "HOSTCC"] {
            variables.entry(key.into()).and_modify(|compiler| *compiler = format!("{launcher} {compiler}"));
        }
    }
    if has_debug_info(build) {
        // Where two maps match, compilers use the last one.
        let maps = [(&*tree.path, MAPPED_SOURCE), (build, MAPPED_BUILD)];
        let maps = maps.map(|(path, mapped)| format!("-fdebug-prefix-map={path}={mapped}"));
        for key in ["KCFLAGS", "KAFLAGS"] {
            variables.insert(key.into(), maps.join(" "));
        }
    }
    variables
}

/// Returns whether the final `.config` enables debug information. Some objects always
/// have it, without absolute paths.
fn has_debug_info(build: &Utf8Path) -> bool {
    let config = read_file(build.join(".config"), Links::RefuseAnywhere, MAX_CONFIG).unwrap_or_default();
    config.split(|byte| *byte == b'\n').any(|line| line == b"CONFIG_DEBUG_INFO=y")
}
