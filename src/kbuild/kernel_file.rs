//! Finds the kernel file that make built, and makes the one that goes into the image.

use super::{BuildDir, kernel_check};
use crate::host::process::{self, CommandLine};
use crate::kernel::binary::Pvh;
use crate::kernel::{ElfForm, KernelFormat};
use crate::plan::Plan;
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};

impl BuildDir<'_> {
    /// Returns the checked file for the image. A PE `Image` stays as it is, and an ELF file gets
    /// the form that the hypervisor takes.
    pub(super) fn kernel_file(&self, reporter: &Reporter) -> Result<Utf8PathBuf> {
        let Plan { arch, flavor, .. } = *self.plan;
        let kernel = self.built_kernel();
        let pvh = self.check_kernel(&kernel)?;
        if arch.spec().format != KernelFormat::Elf {
            return Ok(kernel);
        }
        if pvh == Pvh::NoEntry {
            reporter.note(&format!(
                "the kernel has no PVH note (CONFIG_PVH); {} boots it, Cloud Hypervisor and QEMU do not",
                flavor.spec().title
            ));
        }
        match flavor.spec().elf.form {
            ElfForm::Vmlinux => Ok(kernel),
            ElfForm::Stripped => {
                let stripped = self.strip(&kernel)?;
                self.check_kernel(&stripped)?;
                Ok(stripped)
            }
        }
    }

    /// Checks a kernel file that was just made. Most errors are explained by the log of make.
    fn check_kernel(&self, kernel: &Utf8Path) -> Result<Pvh> {
        kernel_check::check(kernel, self.plan.arch, self.plan.flavor).map_err(|error| {
            let has_hint = error.hint_text().is_some();
            let log = self.log_hint(&error.to_string());
            if has_hint { error } else { error.hint(log) }
        })
    }

    /// Returns the path of the file that make builds.
    pub(super) fn built_kernel(&self) -> Utf8PathBuf {
        self.path.join(self.plan.arch.spec().built_kernel)
    }

    /// Runs `objcopy -R .comment -S`. The Makefiles from 4.19 to today make
    /// `arch/x86/boot/compressed/vmlinux.bin` by the same rule, but need a second make.
    fn strip(&self, kernel: &Utf8Path) -> Result<Utf8PathBuf> {
        let stripped = self.path.join("kcompile-vmlinux.bin");
        let variables = &self.plan.make.variables;
        let prefix = if variables.contains_key("LLVM") {
            "llvm-"
        } else {
            variables.get("CROSS_COMPILE").map_or("", String::as_str)
        };
        let args = ["-R", ".comment", "-S", kernel.as_str(), stripped.as_str()].map(str::to_owned).into();
        let (env, cwd) = (self.sandbox.env().clone(), self.path.clone());
        let command = CommandLine { program: format!("{prefix}objcopy"), args, env, cwd };
        let mut last_line = String::new();
        let status = process::run(&self.sandbox.wrap(&command), &self.log, None, |_, line| {
            last_line = line.to_owned();
        })?;
        if status.success() {
            return Ok(stripped);
        }
        Err(Error::build(format!("{} failed for {kernel}: {last_line}", command.program))
            .hint(self.log_hint(&last_line)))
    }
}
