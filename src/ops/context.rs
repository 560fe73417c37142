//! What every kernel of a run shares: the machine, the catalog, the options that are not one kernel's.

use crate::cache::Cache;
use crate::catalog::Library;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{LockFile, Locked};
use crate::host::Host;
use crate::image::receipt::Published;
use crate::kbuild::launcher::{self, Farm};
use crate::kbuild::timings::Form;
use crate::kbuild::{Objects, sandbox};
use crate::kconfig::Config;
use crate::ops::inputs;
use crate::ops::scheduler::{Pass, Place, Stage};
use crate::plan::Inputs;
use crate::plan::request::Request;
use crate::report::Report;
use crate::source::Fetching;
use crate::util::error::Result;
use crate::util::openpgp::Keyring;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::time::Duration;

/// What every kernel of a run shares.
#[derive(Clone)]
pub struct Run<'a> {
    /// The process and its machine.
    pub host: &'a Host,
    /// `configs/` and `patches/`.
    pub library: &'a Library,
    /// The kernels in it.
    pub catalog: &'a Catalog,
    /// Whom to tell.
    pub report: &'a Report,
    /// `--cache-dir`.
    pub cache_dir: Utf8PathBuf,
    /// `-o`.
    pub output: Utf8PathBuf,
    /// `-j`, or as many as there are CPUs.
    pub jobs: usize,
    /// Was it `-j`? Else a farm decides.
    pub jobs_given: bool,
    /// The other kernels of the run, where there are any.
    pub place: Option<Place<'a>>,
    /// `--sandbox`.
    pub sandbox: sandbox::Choice,
    /// `--timings`.
    pub timings: Vec<Form>,
    /// `--offline`.
    pub offline: bool,
    /// `--stall-timeout`.
    pub stall: Duration,
    /// Whose signatures are believed: our own keys and those of `--keyring`.
    pub keyring: Keyring,
    /// `--require-signature`.
    pub signature_required: bool,
    /// Where the lock file lies or will lie.
    pub lock_path: Utf8PathBuf,
    /// `--update-lock`.
    pub update_lock: bool,
    /// `--from-bundle`: what its sources are.
    pub bundled: BTreeMap<String, Locked>,
    /// `--rebuild`: images that the same plan made before do not count.
    pub rebuild: bool,
    /// `verify --rebuild`: which object files a build begins with. Of a fresh one only its images are kept.
    pub objects: Objects,
    /// `fetch --bundle`: archives are wanted beside their trees.
    pub archive_wanted: bool,
    /// The command line, for the receipt.
    pub command: Vec<String>,
}

impl Run<'_> {
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
    pub fn one_of<'a>(&'a self, place: Place<'a>, report: &'a Report) -> Run<'a> {
        Run { place: Some(place), report, ..self.clone() }
    }

    /// How the build of `request` with the final `config` is told to others.
    pub fn published(&self, request: &Request, config: &Config) -> Published {
        let project = self.library.project.place.as_ref();
        // What `--configs` names is the root of its own files.
        let configs = project.filter(|place| place.root == place.configs).map(|place| &*place.configs);
        let own = [&*self.cache_dir, &*self.output].into_iter().chain(self.lock_path.parent());
        Published::new(request, config, self.host, configs, own.chain(project.map(|place| &*place.root)))
    }

    /// Waits for the other kernels of the run that are in this stage, as far as they leave no room.
    pub fn enter(&self, stage: Stage) -> Result<Option<Pass<'_>>> {
        self.place.map(|place| place.enter(stage)).transpose()
    }

    /// The farm behind `launcher`, if it is one, and how many jobs make gets.
    pub fn farm(&self, launcher: Option<&str>) -> (Option<Farm>, usize) {
        let Some(farm) = launcher.and_then(|launcher| launcher::survey(launcher, self.host)) else {
            return (None, self.jobs);
        };
        let jobs = if self.jobs_given { self.jobs } else { farm.jobs(self.host.cpus) };
        (Some(farm), jobs)
    }

    /// Is what the same plan made before as good as making it? Where the time goes only making tells.
    pub fn reuses(&self) -> bool {
        !self.rebuild && self.timings.is_empty()
    }

    /// What fetching needs to know.
    pub fn fetching<'a>(&'a self, cache: &'a Cache, lock: &'a LockFile) -> Fetching<'a> {
        Fetching {
            cache,
            host: self.host,
            report: self.report,
            offline: self.offline,
            stall: self.stall,
            jobs: self.jobs,
            catalog: self.catalog,
            lock,
            keyring: &self.keyring,
            signature_required: self.signature_required,
            archive_wanted: self.archive_wanted,
            nothing_proves_it: false,
            locator: None,
        }
    }
}

/// A path as the user would type it: relative where it is below the working directory.
pub fn shown(path: &Utf8Path, host: &Host) -> String {
    path.strip_prefix(&host.cwd).unwrap_or(path).to_string()
}
