//! What all kernels of a run share: the host, the catalog and the options that apply to the whole run.

use crate::cache::Cache;
use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{LockFile, Locked};
use crate::host::Host;
use crate::image::receipt::Redaction;
use crate::image::remote::ImageCaches;
use crate::kbuild::launcher::{self, Farm};
use crate::kbuild::timings::TimingsFormat;
use crate::kbuild::{BuildMode, sandbox};
use crate::kconfig::Config;
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::inputs;
use crate::ops::scheduler::{Slot, Stage, StagePermit};
use crate::plan::Inputs;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::source::FetchContext;
use crate::util::error::Result;
use crate::util::openpgp::Keyring;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::time::Duration;

/// What all kernels of a run share.
#[derive(Clone)]
pub struct Context<'a> {
    pub host: &'a Host,
    /// `configs/` and `patches/`.
    pub library: &'a ConfigLibrary,
    pub catalog: &'a Catalog,
    pub reporter: &'a Reporter,
    pub cache_dir: Utf8PathBuf,
    /// `-o`.
    pub output: Utf8PathBuf,
    /// `-j`, or the number of CPUs.
    pub jobs: usize,
    /// Whether `-j` is given. If not, a compiler farm sets the number.
    pub explicit_jobs: bool,
    /// This kernel's slot, in a run of several kernels.
    pub slot: Option<Slot<'a>>,
    pub sandbox: sandbox::SandboxMode,
    pub timings: Vec<TimingsFormat>,
    pub offline: bool,
    /// `--stall-timeout`.
    pub stall: Duration,
    /// The trusted keys: built-in ones and those of `--keyring`.
    pub keyring: Keyring,
    pub require_signature: bool,
    /// The path of the lock file, which need not exist.
    pub lock_path: Utf8PathBuf,
    pub update_lock: bool,
    /// The sources of `--from-bundle`.
    pub bundled: BTreeMap<String, Locked>,
    /// `--rebuild`: does not reuse images.
    pub rebuild: bool,
    /// `--image-cache`: where images that others built are looked for.
    pub image_caches: Option<ImageCaches>,
    /// Whether a build begins with the object files of an earlier one. `verify --rebuild` does not.
    pub build_mode: BuildMode,
    /// `fetch --bundle`: keeps archives beside their trees.
    pub keep_archive: bool,
    /// The command line, for the receipt.
    pub command: Vec<String>,
    /// What `--set` names and kernels of the run lack.
    pub absent_symbols: AbsentSymbols,
}

impl Context<'_> {
    /// Reads the inputs of a plan for `request`. Runs tools with `--version`, but changes nothing.
    pub fn inputs(&self, request: &Request) -> Result<Inputs> {
        inputs::read(request, self.host, self.library, self.catalog, self.lock()?, &self.cache_dir)
    }

    /// Returns the entries of the lock file, unless `--update-lock` is given, and of the bundle.
    pub fn lock(&self) -> Result<LockFile> {
        let lock = if self.update_lock { LockFile::default() } else { LockFile::read(&self.lock_path)? };
        Ok(lock.or(&self.bundled))
    }

    /// Returns the context of one kernel in a run of several.
    pub fn for_kernel<'a>(&'a self, slot: Slot<'a>, reporter: &'a Reporter) -> Context<'a> {
        Context { slot: Some(slot), reporter, ..self.clone() }
    }

    /// Returns how paths of this machine are removed from documents of the build.
    pub fn redaction(&self, request: &Request, config: &Config) -> Redaction {
        let project = self.library.project.dirs.as_ref();
        // The directory of `--configs` is the root of its files.
        let configs = project.filter(|dirs| dirs.root == dirs.configs).map(|dirs| &*dirs.configs);
        let own = [&*self.cache_dir, &*self.output].into_iter().chain(self.lock_path.parent());
        Redaction::new(request, config, self.host, configs, own.chain(project.map(|dirs| &*dirs.root)))
    }

    /// Waits until this kernel may enter the stage, in a run of several kernels.
    pub fn acquire(&self, stage: Stage) -> Result<Option<StagePermit<'_>>> {
        self.slot.map(|slot| slot.acquire(stage)).transpose()
    }

    /// Returns the compiler farm behind `launcher`, if there is one, and the number of jobs for make.
    pub fn farm(&self, launcher: Option<&str>) -> (Option<Farm>, usize) {
        let Some(farm) = launcher.and_then(|launcher| launcher::probe(launcher, self.host)) else {
            return (None, self.jobs);
        };
        let jobs = if self.explicit_jobs { self.jobs } else { farm.jobs(self.host.cpus) };
        (Some(farm), jobs)
    }

    /// Returns whether images of the same plan may be reused. `--timings` needs a build.
    pub fn may_reuse(&self) -> bool {
        !self.rebuild && self.timings.is_empty()
    }

    pub fn fetch_context<'a>(&'a self, cache: &'a Cache, lock: &'a LockFile) -> FetchContext<'a> {
        FetchContext {
            cache,
            host: self.host,
            reporter: self.reporter,
            offline: self.offline,
            stall: self.stall,
            jobs: self.jobs,
            catalog: self.catalog,
            lock,
            keyring: &self.keyring,
            require_signature: self.require_signature,
            keep_archive: self.keep_archive,
            is_unverifiable: false,
            location: None,
        }
    }
}

/// Formats a path as the user would type it, relative if it is below the working directory.
pub fn display_path(path: &Utf8Path, host: &Host) -> String {
    path.strip_prefix(&host.cwd).unwrap_or(path).to_string()
}
