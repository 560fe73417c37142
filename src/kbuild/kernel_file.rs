//! The kernel file that make has made, and the one that goes into the image.

use super::{BuildDir, kernel_check};
use crate::host::process::{self, CommandLine};
use crate::kernel::binary::Pvh;
use crate::kernel::{ElfForm, KernelFormat};
use crate::plan::Plan;
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};

impl BuildDir<'_> {
    /// Returns the file that goes into the image: a PE `Image` as it is, an ELF file in the form that the
    /// hypervisor takes.
    pub(super) fn kernel_file(&self, reporter: &Reporter) -> Result<Utf8PathBuf> {
        let Plan { arch, flavor, .. } = *self.plan;
        let kernel = self.built_kernel();
        let pvh = kernel_check::check(&kernel, arch, flavor)?;
        if arch.spec().format != KernelFormat::Elf {
            return Ok(kernel);
        }
        if pvh == Pvh::NoEntry {
            reporter.note(&format!(
                "the kernel has no PVH note (CONFIG_PVH): {} boots it without, Cloud Hypervisor and QEMU would not",
                flavor.spec().title
            ));
        }
        match flavor.spec().elf.form {
            ElfForm::Vmlinux => Ok(kernel),
            ElfForm::Stripped => {
                let stripped = self.strip(&kernel)?;
                kernel_check::check(&stripped, arch, flavor)?;
                Ok(stripped)
            }
        }
    }

    /// The file that make makes.
    pub(super) fn built_kernel(&self) -> Utf8PathBuf {
        self.path.join(self.plan.arch.spec().built_kernel)
    }

    /// `objcopy -R .comment -S`: the rule for `arch/x86/boot/compressed/vmlinux.bin` in the
    /// Makefiles from 4.19 to today, without the second make that would run it.
    fn strip(&self, kernel: &Utf8Path) -> Result<Utf8PathBuf> {
        let stripped = self.path.join("kcompile-vmlinux.bin");
        let objcopy = match self.plan.make.variables.contains_key("LLVM") {
            true => "llvm-objcopy".to_owned(),
            false => {
                format!("{}objcopy", self.plan.make.variables.get("CROSS_COMPILE").map_or("", String::as_str))
            }
        };
        let args = ["-R", ".comment", "-S", kernel.as_str(), stripped.as_str()].map(str::to_owned).into();
        let command =
            CommandLine { program: objcopy, args, env: self.sandbox.env().clone(), cwd: self.path.clone() };
        let mut last_line = String::new();
        let status = process::run(&self.sandbox.wrap(&command), &self.log, None, |_, line| {
            last_line = line.to_owned();
        })?;
        match status.success() {
            true => Ok(stripped),
            false => Err(Error::build(format!("`{command}` failed: {last_line}"))),
        }
    }
}
