//! Runs the kernel's own build. Opens build directories, configures and compiles in them, and
//! checks the results. Make gets what the plan contains and nothing else.

mod archives;
pub mod compiled_files;
mod config;
mod estimate;
mod file_inputs;
mod history;
mod kernel_check;
mod kernel_file;
pub mod launcher;
mod make;
mod make_log;
mod make_vars;
mod modules_install;
mod recovery;
pub mod sandbox;
mod targets;
pub mod timings;
mod work;

pub use config::config_lock_name;
pub use estimate::Estimate;
pub use history::{estimate, record_build};
pub use make_log::LogSummary;

use estimate::count_commands;
use launcher::{Farm, Network};
use make::Progress;
use sandbox::{Sandbox, SandboxMode, SandboxPaths, SandboxReport};

use crate::host::process::{JobServer, PidFile};
use crate::host::{self, Host};
use crate::kconfig::{self, Config, Difference};
use crate::plan::{self, Contents, Plan};
use crate::report::{CompilerCacheStats, Phase, Reporter};
use crate::source::{BUILD_DIR_PREFIX, Tree};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::{create_dir, create_file, digest_file, disk_usage, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_CONFIG, MAX_SMALL_FILE, read_file, read_text};
use crate::util::text::{format_duration, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs::File;
use std::time::SystemTime;

/// The stamp of a configured build directory.
const CONFIGURED: &str = ".kcompile-configured";
/// The stamp of a build directory with a compiled kernel.
const COMPILED: &str = ".kcompile-compiled";
/// Marks a build directory in which make ran without a sandbox.
const UNSANDBOXED: &str = ".kcompile-unconfined";
/// Holds the number of make's process group while make runs.
const MAKE_PID: &str = ".kcompile-make.pid";
/// The limit of `kernel.release`. The kernel allows 64 characters.
const MAX_RELEASE: u64 = 4 << 10;

/// Which object files a build starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildMode {
    /// Those of earlier builds.
    #[default]
    Incremental,
    /// None, so that the result can be compared with an earlier build.
    Clean,
}

impl BuildMode {
    fn suffix(self) -> &'static str {
        match self {
            BuildMode::Incremental => "",
            BuildMode::Clean => "-fresh",
        }
    }
}

/// How make runs in a build directory.
pub struct MakeOptions {
    /// `-j`.
    pub jobs: usize,
    /// The job server that several makes share. It replaces `-j`.
    pub jobserver: Option<JobServer>,
    /// The farm behind the launcher.
    pub farm: Option<Farm>,
    pub network: Network,
    /// The directory of a module outside the tree, to which make may write.
    pub module_dir: Option<Utf8PathBuf>,
}

impl MakeOptions {
    /// Returns the options of a single make on this machine.
    pub fn new(jobs: usize) -> MakeOptions {
        MakeOptions { jobs, jobserver: None, farm: None, network: Network::Allowed, module_dir: None }
    }
}

/// An open build directory (make's `O=`).
pub struct BuildDir<'a> {
    pub path: Utf8PathBuf,
    /// The output of all commands that run here.
    pub log_path: Utf8PathBuf,
    pub options: MakeOptions,
    plan: &'a Plan,
    tree: &'a Tree,
    host: &'a Host,
    sandbox: Sandbox,
    log: File,
}

impl<'a> BuildDir<'a> {
    /// Opens the build directory of this tree, flavor, architecture and toolchain. Plans share it, so that
    /// a build uses the objects of earlier and interrupted ones. With [`BuildMode::Clean`] it is another
    /// directory, which is emptied first. The caller holds the lock named by [`lock_name`].
    pub fn open(
        plan: &'a Plan,
        tree: &'a Tree,
        build_mode: BuildMode,
        host: &'a Host,
        options: MakeOptions,
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        let path = tree.builds.join(format!("{}{}", dir_name(plan), build_mode.suffix()));
        if build_mode == BuildMode::Clean {
            remove_tree(&path)?;
        }
        let build_dir = BuildDir::open_at(path, plan, tree, host, options, reporter)?;
        build_dir.drop_stale_objects()?;
        Ok(build_dir)
    }

    pub fn remove(self) -> Result<()> {
        remove_tree(&self.path)
    }

    fn open_at(
        path: Utf8PathBuf,
        plan: &'a Plan,
        tree: &'a Tree,
        host: &'a Host,
        options: MakeOptions,
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        create_dir(&path)?;
        recovery::recover(&PidFile(&path.join(MAKE_PID)), &[&path, &tree.path], reporter)?;
        let log_path = path.join("kcompile.log");
        let log = create_file(&log_path, Links::RefuseAnywhere)
            .context(Kind::Build, || format!("cannot write {log_path}"))?;
        Ok(BuildDir { path, log_path, options, plan, tree, host, sandbox: Sandbox::none(host), log })
    }

    /// Returns the same directory with make in a sandbox. A note says why if the sandbox is
    /// unavailable. `private_dir` is an empty directory. With `--sandbox on`, removes what an
    /// earlier make wrote outside a sandbox.
    pub fn sandboxed(self, mode: SandboxMode, private_dir: &Utf8Path, reporter: &Reporter) -> Result<Self> {
        let module_dir = self.options.module_dir.as_deref();
        let paths =
            SandboxPaths { plan: self.plan, tree: self.tree, build: &self.path, private_dir, module_dir };
        let sandbox = Sandbox::find(mode, paths, self.host)?;
        if let Some(why) = &sandbox.report.why {
            reporter.note(&format!(
                "no sandbox: the kernel's build scripts can use the network and all your files: {why}"
            ));
        }
        let mark = self.path.join(UNSANDBOXED);
        if !sandbox.report.is_complete() {
            write_atomically(&mark, b"")?;
        } else if mode == SandboxMode::On && mark.exists() {
            self.clear(&mark)?;
        }
        Ok(BuildDir { sandbox, ..self })
    }

    /// Returns whether make sees the owners of files.
    pub fn keeps_owners(&self) -> bool {
        self.sandbox.keeps_owners()
    }

    /// Removes everything but the log. Removes `mark` last, so that an interrupted removal starts again.
    fn clear(&self, mark: &Utf8Path) -> Result<()> {
        for entry in self.path.read_dir_utf8().context(Kind::Build, cannot("read", &self.path))? {
            let entry = entry.context(Kind::Build, cannot("read", &self.path))?;
            if ![&*self.log_path, mark].contains(&entry.path()) {
                remove_tree(entry.path())?;
            }
        }
        remove_tree(mark)
    }

    /// Writes the plan's settings as `.config`, completes them by `olddefconfig`, and returns the
    /// settings that ended up with another value. Runs nothing and writes nothing if nothing
    /// changed since the last time.
    ///
    /// # Errors
    ///
    /// Make fails (exit code 1).
    pub fn configure(&self, reporter: &Reporter) -> Result<Configured> {
        let phase = reporter.start(Phase::Configure, "make olddefconfig");
        let requested = plan::requested_settings(self.plan);
        let text = kconfig::render(&plan::modular_settings(self.plan));
        let path = self.path.join(".config");
        let stamp_path = self.path.join(CONFIGURED);
        // Kconfig asks the host about tools and headers, and other ones may change the config.
        let installed = self.host.installed();
        let source = self.plan.source.digest.as_ref().map(ToString::to_string);
        let stamp = |result: &[u8]| {
            format!(
                "{} {} {} {installed}\n",
                Sha256::of(&text),
                source.as_deref().unwrap_or_default(),
                Sha256::of(result)
            )
        };
        let mut modular = None;
        let current = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG).unwrap_or_default();
        if read_stamp(&stamp_path) != Some(stamp(&current)) {
            write_atomically(&path, text.as_bytes())?;
            self.launcher().map_or(Ok(None), |launcher| launcher.prepare(self.host))?;
            self.make(&["olddefconfig"], &BTreeMap::new(), Some(Progress { phase: &phase, expected: None }))?;
            modular = self.build_in()?;
        }
        let result = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG)
            .context(Kind::Build, || format!("cannot read {path}, which make should have written"))?;
        let config = Config::parse(&String::from_utf8_lossy(&result));
        let mut differences = kconfig::differences(&requested, &config);
        if let Some(modular) = &modular {
            let layer = self.plan.config.len() - 1;
            differences.extend(kconfig::lost_modules(modular, &config, &differences, layer));
        }
        // The stamp does not cover all that Kconfig asks about, so a dropped setting is tried again.
        if differences.is_empty() {
            write_atomically(&stamp_path, stamp(&result).as_bytes())?;
        }
        phase.finish(&format!(
            "{} built in, {} as modules",
            config.symbols.values().filter(|value| *value == "y").count(),
            config.symbols.values().filter(|value| *value == "m").count()
        ));
        Ok(Configured { config, sha256: Sha256::of(&result), path, differences })
    }

    /// Compiles the kernel and its modules with one make. `estimate` is that of a build in an empty directory.
    ///
    /// # Errors
    ///
    /// The disk is much too small (exit code 4), or make fails (1).
    pub fn compile(
        &self,
        configured: &Configured,
        estimate: &Estimate,
        reporter: &Reporter,
    ) -> Result<Compiled> {
        let modules = configured.config.value("MODULES") == "y";
        let targets = self.plan.make.targets.iter().map(String::as_str);
        let targets: Vec<&str> = targets.filter(|target| modules || *target != "modules").collect();
        let commands = count_commands(&self.path);
        let stamp_path = self.path.join(COMPILED);
        // If the directory has a compiled kernel, make compiles what has changed, which may be anything.
        let expected = if stamp_path.exists() { None } else { estimate.expected_steps(commands) };
        let mut what = format!("make -j{} {}", self.options.jobs, targets.join(" "));
        if let Some(expected) = expected {
            what += &format!(", {}", estimate.describe(expected));
        }
        if let Some(took) = estimate.took {
            what += &format!(" (took {} before)", format_duration(took));
        }
        let phase = reporter.start(Phase::Compile, &what);
        if let Some(expected) = expected {
            estimate.check_space(&self.path, expected)?;
        }
        let source = self.plan.source.digest.as_ref().map(ToString::to_string);
        let stamp = format!("{} {source:?}\n", configured.sha256);
        if read_stamp(&stamp_path).as_ref() != Some(&stamp) {
            // Make may succeed and leave the kernel of another config or source in place.
            for old in [self.built_kernel(), stamp_path.clone()] {
                remove_tree(&old)?;
            }
        }
        let began = host::clock();
        let launcher = self.launcher();
        let stats_before = launcher.as_ref().map_or(Ok(None), |launcher| launcher.prepare(self.host))?;
        let progress = Progress { phase: &phase, expected };
        let log_summary = self.make(&targets, &BTreeMap::new(), Some(progress))?;
        let release = self.kernel_release()?;
        let kernel = self.kernel_file(reporter)?;
        write_atomically(&stamp_path, stamp.as_bytes())?;
        let seconds =
            phase.finish(&format!("{release}, {}", pluralize(log_summary.steps as usize, "step", "steps")));
        Ok(Compiled {
            release,
            kernel_sha256: digest_file(&kernel, Links::RefuseAnywhere)?,
            kernel,
            modules,
            steps: log_summary.steps,
            work: log_summary.work,
            warnings: log_summary.warnings,
            began,
            seconds: seconds.as_secs_f64(),
            clean_build_bytes: (commands == 0).then(|| disk_usage(&self.path)),
            announced_steps: log_summary.announced_steps,
            sandbox: self.sandbox.report.clone(),
            cache_stats: launcher.and_then(|launcher| launcher.stats(stats_before, self.host)),
            local_fallbacks: log_summary.local_fallbacks,
        })
    }

    /// Reads and checks the kernel release, which becomes a path in an image.
    fn kernel_release(&self) -> Result<String> {
        let path = self.path.join("include/config/kernel.release");
        let text = read_text(&path, Links::RefuseAnywhere, MAX_RELEASE)
            .context(Kind::Build, || format!("cannot read {path}, which make should have written"))?;
        let release = text.trim();
        let fits = !release.is_empty()
            && !release.starts_with('.')
            && release.len() <= 64
            && release.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c));
        if fits {
            return Ok(release.to_owned());
        }
        let release = release.escape_debug();
        Err(Error::build(format!("the kernel release `{release}` is not a valid directory name"))
            .hint("check CONFIG_LOCALVERSION"))
    }
}

/// The final `.config`.
pub struct Configured {
    pub config: Config,
    /// The digest of the file.
    pub sha256: Sha256,
    pub path: Utf8PathBuf,
    /// Settings that ended up with another value than requested.
    pub differences: Vec<Difference>,
}

pub struct Compiled {
    /// `uname -r`.
    pub release: String,
    /// The kernel file for the image.
    pub kernel: Utf8PathBuf,
    /// The digest of that file.
    pub kernel_sha256: Sha256,
    /// Whether the config enables modules.
    pub modules: bool,
    pub sandbox: SandboxReport,
    /// The number of commands that make ran.
    pub steps: u64,
    /// The work of these commands, to estimate the next build.
    pub work: f64,
    /// The number of compiler warnings.
    pub warnings: u64,
    /// When make started, by the clock of file time stamps.
    pub began: SystemTime,
    /// Wall time.
    pub seconds: f64,
    /// The size of the build directory on disk, if it was empty before.
    pub clean_build_bytes: Option<u64>,
    /// The commands that Kbuild announced, with their times.
    pub announced_steps: Vec<(SystemTime, String)>,
    /// The statistics of the compiler cache, if there is one.
    pub cache_stats: Option<CompilerCacheStats>,
    /// The number of files that a farm did not compile, so that this machine did.
    pub local_fallbacks: u64,
}

/// Returns the name of the plan's build directory. Each flavor, architecture and toolchain has its
/// own, since another compiler in the same directory would compile everything again.
pub fn dir_name(plan: &Plan) -> String {
    let toolchain = serde_json::to_string(&plan.toolchain.for_compiling()).expect("plain strings");
    let key = Sha256::of(format!("{toolchain}{}", plan.toolchain.launcher.as_deref().unwrap_or_default()));
    let name = format!("{BUILD_DIR_PREFIX}{}-{}-{}", plan.flavor, plan.arch, key.short());
    // Without modules nearly every object differs.
    plan.tag_suffix().add_to(&name)
}

/// Returns the name of the lock on the plan's build directory.
pub fn lock_name(plan: &Plan, tree: &Tree, build_mode: BuildMode) -> String {
    format!("{}-{}{}", tree.key, dir_name(plan), build_mode.suffix())
}

/// Returns whether the plan has a modules image, or modules in a combined one.
pub fn wants_modules(plan: &Plan) -> bool {
    plan.images.iter().any(|image| matches!(image.contents, Contents::Modules { .. }))
}

fn read_stamp(path: &Utf8Path) -> Option<String> {
    read_text(path, Links::RefuseAnywhere, MAX_SMALL_FILE).ok()
}
