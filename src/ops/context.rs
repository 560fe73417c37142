//! What every kernel of a run shares: the machine, the catalog, the options that are not one kernel's.

use crate::cache::Cache;
use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{LockFile, Locked};
use crate::host::Host;
use crate::image::receipt::Redaction;
use crate::kbuild::launcher::{self, Farm};
use crate::kbuild::timings::TimingsFormat;
use crate::kbuild::{BuildMode, sandbox};
use crate::kconfig::Config;
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

/// What every kernel of a run shares.
#[derive(Clone)]
pub struct Context<'a> {
    /// The process and its machine.
    pub host: &'a Host,
    /// `configs/` and `patches/`.
    pub library: &'a ConfigLibrary,
    /// The kernels in it.
    pub catalog: &'a Catalog,
    /// Whom to tell.
    pub reporter: &'a Reporter,
    /// `--cache-dir`.
    pub cache_dir: Utf8PathBuf,
    /// `-o`.
    pub output: Utf8PathBuf,
    /// `-j`, or as many as there are CPUs.
    pub jobs: usize,
    /// Was it `-j`? Else a farm decides.
    pub explicit_jobs: bool,
    /// The other kernels of the run, where there are any.
    pub slot: Option<Slot<'a>>,
    /// `--sandbox`.
    pub sandbox: sandbox::SandboxMode,
    /// `--timings`.
    pub timings: Vec<TimingsFormat>,
    /// `--offline`.
    pub offline: bool,
    /// `--stall-timeout`.
    pub stall: Duration,
    /// Whose signatures are believed: our own keys and those of `--keyring`.
    pub keyring: Keyring,
    /// `--require-signature`.
    pub require_signature: bool,
    /// Where the lock file lies or will lie.
    pub lock_path: Utf8PathBuf,
    /// `--update-lock`.
    pub update_lock: bool,
    /// `--from-bundle`: what its sources are.
    pub bundled: BTreeMap<String, Locked>,
    /// `--rebuild`: images that the same plan made before do not count.
    pub rebuild: bool,
    /// `verify --rebuild`: which object files a build begins with. Of a fresh one only its images are kept.
    pub build_mode: BuildMode,
    /// `fetch --bundle`: archives are wanted beside their trees.
    pub keep_archive: bool,
    /// The command line, for the receipt.
    pub command: Vec<String>,
}

impl Context<'_> {
    /// What a plan of `request` depends on beside it.
    ///
    /// Reads files and runs `--version` of the tools; touches nothing.
    pub fn inputs(&self, request: &Request) -> Result<Inputs> {
        inputs::read(request, self.host, (self.library, self.catalog), self.lock()?, &self.cache_dir)
    }

    /// Returns what is locked: by the lock file, unless it is to be replaced, and by the bundle.
    pub fn lock(&self) -> Result<LockFile> {
        let lock = if self.update_lock { LockFile::default() } else { LockFile::read(&self.lock_path)? };
        Ok(lock.or(&self.bundled))
    }

    /// The same for one of several kernels, with a report of its own.
    pub fn for_kernel<'a>(&'a self, slot: Slot<'a>, reporter: &'a Reporter) -> Context<'a> {
        Context { slot: Some(slot), reporter, ..self.clone() }
    }

    /// How the build of `request` with the final `config` is told to others.
    pub fn redaction(&self, request: &Request, config: &Config) -> Redaction {
        let project = self.library.project.dirs.as_ref();
        // What `--configs` names is the root of its own files.
        let configs = project.filter(|dirs| dirs.root == dirs.configs).map(|dirs| &*dirs.configs);
        let own = [&*self.cache_dir, &*self.output].into_iter().chain(self.lock_path.parent());
        Redaction::new(request, config, self.host, configs, own.chain(project.map(|dirs| &*dirs.root)))
    }

    /// Waits for the other kernels of the run that are in this stage, as far as they leave no room.
    pub fn acquire(&self, stage: Stage) -> Result<Option<StagePermit<'_>>> {
        self.slot.map(|slot| slot.acquire(stage)).transpose()
    }

    /// The farm behind `launcher`, if it is one, and how many jobs make gets.
    pub fn farm(&self, launcher: Option<&str>) -> (Option<Farm>, usize) {
        let Some(farm) = launcher.and_then(|launcher| launcher::probe(launcher, self.host)) else {
            return (None, self.jobs);
        };
        let jobs = if self.explicit_jobs { self.jobs } else { farm.jobs(self.host.cpus) };
        (Some(farm), jobs)
    }

    /// Is what the same plan made before as good as making it? Where the time goes only making tells.
    pub fn may_reuse(&self) -> bool {
        !self.rebuild && self.timings.is_empty()
    }

    /// What fetching needs to know.
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

/// A path as the user would type it: relative where it is below the working directory.
pub fn display_path(path: &Utf8Path, host: &Host) -> String {
    path.strip_prefix(&host.cwd).unwrap_or(path).to_string()
}
