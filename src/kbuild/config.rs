//! Configures without compiling. The kernel's own Kconfig completes a config, reduces it to its
//! minimal form or shows its menus, in a build directory that no real build uses.

use super::{BuildDir, BuildMode, MakeOptions, dir_name};
use crate::host::{Host, process};
use crate::kconfig::{self, Config};
use crate::plan::Plan;
use crate::plan::request::ModuleMode;
use crate::report::Reporter;
use crate::source::Tree;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_CONFIG, read_file};
use std::collections::BTreeMap;
use std::io::Write;

/// The suffix of these directories' names.
const SUFFIX: &str = "-config";

impl<'a> BuildDir<'a> {
    /// Opens a directory that is only used to configure. It persists, because Kconfig's own
    /// programs are compiled there. The caller holds the lock named by [`config_lock_name`].
    pub fn open_for_config(
        plan: &'a Plan,
        tree: &'a Tree,
        host: &'a Host,
        jobs: usize,
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        let path = tree.builds.join(format!("{}{SUFFIX}", dir_name(plan)));
        BuildDir::open_at(path, plan, tree, host, MakeOptions::new(jobs), reporter)
    }

    /// Builds in what the final `.config` has as modules, if the plan has none. Returns the `.config` before that.
    pub(super) fn build_in(&self) -> Result<Option<Config>> {
        if self.plan.module_mode == ModuleMode::Loadable {
            return Ok(None);
        }
        let text = self.config_text()?;
        let modular = Config::parse(&text);
        if !modular.enabled("MODULES") {
            return Ok(None);
        }
        self.complete(&kconfig::build_in(&text))?;
        Ok(Some(modular))
    }

    /// Reads the current `.config`.
    pub fn config_text(&self) -> Result<String> {
        self.read(".config")
    }

    /// Writes `text` as `.config`, runs `olddefconfig` and returns the result.
    pub fn complete(&self, text: &str) -> Result<String> {
        write_atomically(&self.path.join(".config"), text.as_bytes())?;
        self.make(&["olddefconfig"], &BTreeMap::new(), None)?;
        self.config_text()
    }

    /// Returns the settings of `.config` that are not defaults, from `savedefconfig`.
    pub fn minimal(&self) -> Result<String> {
        self.make(&["savedefconfig"], &BTreeMap::new(), None)?;
        self.read("defconfig")
    }

    /// Shows the kernel's menus on the terminal and waits until the user leaves them. They are
    /// drawn on standard error, because standard output is for results.
    ///
    /// # Errors
    ///
    /// The menus cannot be built or shown (exit code 1).
    pub fn menuconfig(&self) -> Result<()> {
        let mut command = self.make_command(&["menuconfig"], &BTreeMap::new());
        command.args.extend(["-s", "--no-print-directory"].map(str::to_owned));
        command.env.extend(self.host.terminal_env.clone());
        let _ = writeln!(&self.log, "+ {command}");
        if process::run_interactive(&self.sandbox.wrap(&command))?.success() {
            return Ok(());
        }
        Err(Error::build("make menuconfig failed")
            .hint(format!("make's own messages are above, and its command is in {}", self.log_path)))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        let bytes = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG)
            .context(Kind::Build, || format!("cannot read {path}, which make should have written"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Returns the name of the lock on the directory in which the plan's config is completed.
pub fn config_lock_name(plan: &Plan, tree: &Tree) -> String {
    format!("{}{SUFFIX}", super::lock_name(plan, tree, BuildMode::Incremental))
}
