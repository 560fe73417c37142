//! `make modules_install`, and the check of depmod's files.

use super::make::Progress;
use super::{BuildDir, Compiled, kernel_check, make_log};
use crate::kernel::depmod;
use crate::report::{Phase, Reporter};
use crate::util::error::{Error, Result};
use camino::Utf8Path;

impl BuildDir<'_> {
    /// Installs the stripped modules and depmod's files in `root/lib/modules/<release>/`.
    pub fn install_modules(&self, root: &Utf8Path, compiled: &Compiled, reporter: &Reporter) -> Result<()> {
        let phase = reporter.start(Phase::Install, "make modules_install");
        let variables =
            [("INSTALL_MOD_PATH", root.as_str()), ("INSTALL_MOD_STRIP", "1"), ("DEPMOD", "depmod")];
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let log_summary =
            self.make(&["modules_install"], &variables, Some(Progress { phase: &phase, expected: None }))?;
        self.check_depmod(&log_summary, &root.join("lib/modules").join(&compiled.release))?;
        kernel_check::check_modules(root, &compiled.release)?;
        phase.finish("stripped, with depmod's files");
        Ok(())
    }

    /// Checks depmod's files in `dir`. depmod goes on where it cannot write a file, and the
    /// kernel's depmod.sh only warns if depmod is missing, so make succeeds in both cases.
    fn check_depmod(&self, log_summary: &make_log::LogSummary, dir: &Utf8Path) -> Result<()> {
        if let Some(error) = &log_summary.depmod_error {
            return Err(Error::build(format!("depmod failed: {error}")).hint(self.log_hint(error)));
        }
        let order = dir.join("modules.order").symlink_metadata();
        let has_modules = order.is_ok_and(|order| order.is_file() && order.len() > 0);
        let modules = if has_modules { depmod::Modules::Installed } else { depmod::Modules::None };
        let version = self.plan.toolchain.identity.get("depmod").map(String::as_str);
        match depmod::find_missing(dir, modules, version) {
            None => Ok(()),
            Some(fault) => Err(Error::host(fault).hint(format!(
                "check that depmod (package kmod) is installed and works\n      full log: {}",
                self.log_path
            ))),
        }
    }
}
