//! Finds the toolchain of a build, and unpacks it into the cache.

mod compiler;
mod entry;
mod image;
mod make;

pub use entry::spec_of;
pub(crate) use entry::{lock_name, problem};
pub use make::{NewToolchain, Suite, make};

use crate::cache::Cache;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{self, Existing, LockFile, Locked};
use crate::host::{Host, ToolRoot};
use crate::kernel::{Arch, ToolchainSpec};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::openpgp::Keyring;
use camino::{Utf8Path, Utf8PathBuf};
use image::UnpackedImage;
use std::time::Duration;

/// What `--toolchain` names, and how it is found.
pub struct Toolchain<'a> {
    pub spec: &'a ToolchainSpec,
    /// The architectures of the kernels.
    pub arches: Vec<Arch>,
    pub cache_dir: &'a Utf8Path,
    /// The path of the lock file, which pins toolchains from the network at their first use.
    pub lock_path: Utf8PathBuf,
    pub update_lock: bool,
    pub offline: bool,
    /// The servers with the compilers of kernel.org.
    pub mirrors: &'a [String],
    pub stall: Duration,
    pub jobs: usize,
    pub keyring: Keyring,
    pub catalog: &'a Catalog,
}

impl Toolchain<'_> {
    /// Returns `host` with the tools of the toolchain. Unpacks it into the cache if it is not there.
    ///
    /// # Errors
    ///
    /// Exit code 2: there is no such image, or it is for another architecture. 3: the server does not have it,
    /// or has another one than before, or it breaks a rule. 4: this host allows no sandbox.
    pub fn open(&self, host: &Host, reporter: &Reporter) -> Result<Host> {
        if *self.spec == ToolchainSpec::Host {
            return Ok(host.clone());
        }
        let cache = Cache::open(self.cache_dir, host.uid)?;
        self.open_in(&cache, host, reporter)
            .map_err(|error| error.with_prefix(&format!("--toolchain {}", self.spec)))
    }

    fn open_in(&self, cache: &Cache, host: &Host, reporter: &Reporter) -> Result<Host> {
        let UnpackedImage { entry, id } = match self.spec {
            ToolchainSpec::Host => return Ok(host.clone()),
            ToolchainSpec::KernelOrg(compiler) => {
                let arches = self.arches.iter();
                let compilers =
                    arches.map(|arch| compiler::open(compiler, *arch, self, cache, host, reporter));
                return Ok(host.with_compilers(compilers.collect::<Result<_>>()?));
            }
            ToolchainSpec::Oci(reference) => image::open_local(reference, cache, host, reporter)?,
            ToolchainSpec::Registry(reference) => image::open_remote(reference, self, cache, host, reporter)?,
        };
        let name = self.spec.to_string();
        entry::record_use(&entry, &name);
        let tool_root = Some(ToolRoot::new(name, entry.join(entry::ROOT), id, host)?);
        Ok(Host { tool_root, ..host.clone() })
    }

    /// Returns the lock file, which is empty if this run replaces its entries.
    fn lock(&self) -> Result<LockFile> {
        if self.update_lock { Ok(LockFile::default()) } else { LockFile::read(&self.lock_path) }
    }

    fn locked(&self, origin: &str) -> Result<Option<Locked>> {
        Ok(self.lock()?.of(origin).cloned())
    }

    fn pin(&self, origin: String, locked: Locked) -> Result<()> {
        let existing = if self.update_lock { Existing::Replace } else { Existing::Keep };
        lockfile::add(&self.lock_path, origin, locked, existing)
    }

    fn check_online(&self) -> Result<()> {
        if !self.offline {
            return Ok(());
        }
        Err(Error::fetch("it is not in the cache, and --offline is given")
            .hint("run `kcompile plan` with it once without --offline"))
    }
}
