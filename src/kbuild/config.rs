//! Configuring without compiling: build directories in which the kernel's own Kconfig completes a config,
//! brings it to its minimal form, or shows its menus. The `.config` of a real build is never touched.

use super::{BuildDir, BuildMode, dir_name};
use crate::host::{Host, process};
use crate::plan::Plan;
use crate::report::Reporter;
use crate::source::Tree;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_CONFIG, read_file};
use std::collections::BTreeMap;

/// What the directories' names end with.
const SUFFIX: &str = "-config";

impl<'a> BuildDir<'a> {
    /// Opens a directory that is used for nothing but configuring. It stays, so that the next time Kconfig's
    /// own programs are there already. The caller holds the lock of that name: [`config_lock_name`].
    pub fn open_for_config(
        plan: &'a Plan,
        tree: &'a Tree,
        host: &'a Host,
        jobs: usize,
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        let path = tree.builds.join(format!("{}{SUFFIX}", dir_name(plan)));
        BuildDir::open_at(path, plan, tree, (host, jobs), reporter)
    }

    /// The `.config` as it is now.
    pub fn config_text(&self) -> Result<String> {
        self.read(".config")
    }

    /// What `olddefconfig` makes of `text`, which becomes the `.config`.
    pub fn complete(&self, text: &str) -> Result<String> {
        write_atomically(&self.path.join(".config"), text.as_bytes())?;
        self.make(&["olddefconfig"], &BTreeMap::new(), None)?;
        self.config_text()
    }

    /// What of the `.config` is no default, by `savedefconfig`.
    pub fn minimal(&self) -> Result<String> {
        self.make(&["savedefconfig"], &BTreeMap::new(), None)?;
        self.read("defconfig")
    }

    /// Shows the kernel's menus on the terminal, and waits until the user leaves them. Standard output stays
    /// free for results: the menus are drawn on standard error.
    ///
    /// Errors: they cannot be built or shown (exit code 1).
    pub fn menuconfig(&self) -> Result<()> {
        let mut command = self.make_command(&["menuconfig"], &BTreeMap::new());
        command.args.extend(["-s", "--no-print-directory"].map(str::to_owned));
        command.env.extend(self.host.terminal_env.clone());
        match process::run_interactive(&self.sandbox.wrap(&command))?.success() {
            true => Ok(()),
            false => Err(Error::build("make menuconfig failed").hint(format!("the command: {command}"))),
        }
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        let bytes = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG)
            .context(Kind::Build, || format!("make left no {path}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The name of the lock on the directory in which the plan's config is completed.
pub fn config_lock_name(plan: &Plan, tree: &Tree) -> String {
    format!("{}{SUFFIX}", super::lock_name(plan, tree, BuildMode::Incremental))
}
