//! What stands on make's command line beside its targets.

use crate::kbuild::launcher::Launcher;
use crate::plan::Plan;
use crate::source::Tree;
use crate::util::read::{Links, MAX_CONFIG, read_file};
use camino::Utf8Path;
use std::collections::BTreeMap;

/// What debug information calls the source: so Kbuild itself calls it from a build directory in the tree. From one
/// elsewhere (of a directory that is used in place, or of another user in a shared cache) it gives its whole path.
const MAPPED_SOURCE: &str = "..";
/// Where debug information says that the build directory lies, whatever its name and place.
const MAPPED_BUILD: &str = "/usr/src/linux/build";

/// All variables on make's command line: the plan's, with the launcher before the compilers; and, where the config
/// has debug information, prefix maps, so that no path of this machine gets into that. Without it no path is
/// in an object, and a compiler cache, which takes such an option as it is, finds what was compiled in another place.
pub(super) fn variables(plan: &Plan, tree: &Tree, build: &Utf8Path) -> BTreeMap<String, String> {
    let mut variables = plan.make.variables.clone();
    if let Some(launcher) = Launcher::of(&plan.toolchain, build) {
        let launcher = launcher.command_prefix();
        for key in ["CC", "HOSTCC"] {
            variables.entry(key.into()).and_modify(|compiler| *compiler = format!("{launcher} {compiler}"));
        }
    }
    if has_debug_info(build) {
        // Of two maps that fit, compilers take the one that was given last.
        let maps = [(&*tree.path, MAPPED_SOURCE), (build, MAPPED_BUILD)];
        let maps = maps.map(|(path, mapped)| format!("-fdebug-prefix-map={path}={mapped}"));
        for key in ["KCFLAGS", "KAFLAGS"] {
            variables.insert(key.into(), maps.join(" "));
        }
    }
    variables
}

/// Does the final `.config` ask for debug information? A few objects have some in any case, in which no path
/// is absolute.
fn has_debug_info(build: &Utf8Path) -> bool {
    let config = read_file(build.join(".config"), Links::RefuseAnywhere, MAX_CONFIG).unwrap_or_default();
    config.split(|byte| *byte == b'\n').any(|line| line == b"CONFIG_DEBUG_INFO=y")
}
