//! The kernel's own build: its make, called with what the plan says and nothing else; where it
//! builds; what it leaves behind.

mod config;
mod file_inputs;
mod history;
mod kernel_check;
mod kernel_file;
pub mod launcher;
mod make_log;
mod make_vars;
mod modules_install;
mod recovery;
pub mod sandbox;
pub mod timings;

pub use config::config_lock_name;
pub use history::{History, history, record_history};
pub use make_log::LogSummary;

use launcher::{Farm, Launcher, Network};
use sandbox::{Sandbox, SandboxPaths, SandboxReport};

use crate::host::process::{self, CommandLine, JobServer, PidFile};
use crate::host::{self, Host};
use crate::kconfig::{self, Config, Difference};
use crate::plan::{Contents, Plan};
use crate::report::{CompilerCacheStats, Count, Phase, PhaseGuard, Reporter, Unit};
use crate::source::{BUILD_DIR_PREFIX, Tree};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{create_dir, create_file, digest_file, is_full, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_CONFIG, MAX_SMALL_FILE, read_file, read_text};
use crate::util::text::{format_duration, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// What the stamp of a configured build directory is called.
const CONFIGURED: &str = ".kcompile-configured";
/// The same of one whose kernel is compiled.
const COMPILED: &str = ".kcompile-compiled";
/// There where make has run without a whole sandbox.
const UNSANDBOXED: &str = ".kcompile-unconfined";
/// Where the number of make's process group stands while it runs.
const MAKE_PID: &str = ".kcompile-make.pid";
/// The limit of `kernel.release`: the kernel itself takes 64 characters.
const MAX_RELEASE: u64 = 4 << 10;

/// Which object files a build begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildMode {
    /// Those that earlier builds left.
    #[default]
    Incremental,
    /// None: what comes out is to be held against an earlier build.
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

/// A build directory, `O=`, and how make is called in it.
pub struct BuildDir<'a> {
    /// `O=`.
    pub path: Utf8PathBuf,
    /// All that the commands run here print.
    pub log_path: Utf8PathBuf,
    /// `-j`.
    pub jobs: usize,
    plan: &'a Plan,
    tree: &'a Tree,
    host: &'a Host,
    /// The pool that the jobs are taken from, where there are other makes.
    shared: Option<JobServer>,
    sandbox: Sandbox,
    /// The machines that compile, too.
    farm: Option<Farm>,
    network: Network,
    log: File,
}

impl<'a> BuildDir<'a> {
    /// Opens the build directory that this plan shares with every other one of the same tree, flavor,
    /// architecture and toolchain, so that what an earlier or interrupted build compiled is used.
    /// With [`BuildMode::Clean`] it is another one, and empty. The caller holds the lock of that name: [`lock_name`].
    pub fn open(
        plan: &'a Plan,
        tree: &'a Tree,
        build_mode: BuildMode,
        of_host: (&'a Host, usize),
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        let path = tree.builds.join(format!("{}{}", dir_name(plan), build_mode.suffix()));
        if build_mode == BuildMode::Clean {
            remove_tree(&path)?;
        }
        let build_dir = BuildDir::open_at(path, plan, tree, of_host, reporter)?;
        build_dir.drop_stale_objects()?;
        Ok(build_dir)
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.path)
    }

    /// The same with the jobs of its makes from a pool that other makes use, too.
    pub fn with_jobserver(self, shared: Option<&JobServer>) -> BuildDir<'a> {
        BuildDir { shared: shared.cloned(), ..self }
    }

    /// The same with a farm behind the launcher.
    pub fn with_farm(self, farm: Option<Farm>) -> BuildDir<'a> {
        BuildDir { farm, ..self }
    }

    /// The same where a compiler cache may ask other machines, or not.
    pub fn with_network(self, network: Network) -> BuildDir<'a> {
        BuildDir { network, ..self }
    }

    fn open_at(
        path: Utf8PathBuf,
        plan: &'a Plan,
        tree: &'a Tree,
        (host, jobs): (&'a Host, usize),
        reporter: &Reporter,
    ) -> Result<BuildDir<'a>> {
        create_dir(&path)?;
        recovery::recover(&PidFile(&path.join(MAKE_PID)), &[&path, &tree.path], reporter)?;
        let log_path = path.join("kcompile.log");
        let log = create_file(&log_path, Links::RefuseAnywhere)
            .context(Kind::Build, || format!("cannot write {log_path}"))?;
        let sandbox = Sandbox::none(host);
        let network = Network::Allowed;
        Ok(BuildDir {
            path,
            log_path,
            plan,
            tree,
            host,
            jobs,
            shared: None,
            sandbox,
            farm: None,
            network,
            log,
        })
    }

    /// The same, where make runs in a sandbox; where there is none, the report says why. `private` is an empty
    /// directory. Where the sandbox is a condition, what an earlier make without it has left goes.
    pub fn sandboxed(
        self,
        mode: sandbox::SandboxMode,
        private_dir: &Utf8Path,
        reporter: &Reporter,
    ) -> Result<Self> {
        let paths = SandboxPaths { plan: self.plan, tree: self.tree, build: &self.path, private_dir };
        let sandbox = Sandbox::find(mode, paths, self.host)?;
        if let Some(why) = &sandbox.confinement.why {
            reporter.note(&format!(
                "no sandbox: the kernel's build scripts can use the network and all your files: {why}"
            ));
        }
        let mark = self.path.join(UNSANDBOXED);
        match sandbox.confinement.is_complete() {
            false => write_atomically(&mark, b"")?,
            true if mode == sandbox::SandboxMode::On && mark.exists() => self.clear(&mark)?,
            true => {}
        }
        Ok(BuildDir { sandbox, ..self })
    }

    /// Does make see to whom files belong?
    pub fn keeps_owners(&self) -> bool {
        self.sandbox.keeps_owners()
    }

    /// Removes all but the log; `mark` last, so that who is killed meanwhile begins once more.
    fn clear(&self, mark: &Utf8Path) -> Result<()> {
        let message = || format!("cannot read {}", self.path);
        for entry in self.path.read_dir_utf8().context(Kind::Build, message)? {
            let entry = entry.context(Kind::Build, message)?;
            if ![&*self.log_path, mark].contains(&entry.path()) {
                remove_tree(entry.path())?;
            }
        }
        remove_tree(mark)
    }

    /// Writes the plan's settings as `.config`, lets `olddefconfig` complete them, and tells what
    /// came out otherwise. Without a change since the last time nothing is run and no file touched.
    ///
    /// Errors: make fails (exit code 1).
    pub fn configure(&self, reporter: &Reporter) -> Result<Configured> {
        let phase = reporter.start(Phase::Configure, "make olddefconfig");
        let requested = crate::plan::requested_settings(self.plan);
        let text = kconfig::render(&requested);
        let path = self.path.join(".config");
        let stamp_path = self.path.join(CONFIGURED);
        // Kconfig asks the host about tools and headers: with others there may be another config.
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
        let current = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG).unwrap_or_default();
        if read_stamp(&stamp_path) != Some(stamp(&current)) {
            write_atomically(&path, text.as_bytes())?;
            self.launcher().map_or(Ok(None), |launcher| launcher.prepare(self.host))?;
            self.make(&["olddefconfig"], &BTreeMap::new(), None)?;
        }
        let result = read_file(&path, Links::RefuseAnywhere, MAX_CONFIG)
            .context(Kind::Build, || format!("olddefconfig left no {path}"))?;
        let config = Config::parse(&String::from_utf8_lossy(&result));
        let differences = kconfig::differences(&requested, &config);
        // What was refused may be taken the next time: not everything that Kconfig asks about shows in the stamp.
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

    /// Compiles kernel and modules with one make. Returns the kernel file of the flavor.
    ///
    /// `history` is what an earlier build of this plan took.
    pub fn compile(
        &self,
        configured: &Configured,
        history: Option<&History>,
        reporter: &Reporter,
    ) -> Result<Compiled> {
        let modules = configured.config.value("MODULES") == "y";
        let targets = self.plan.make.targets.iter().map(String::as_str);
        let targets: Vec<&str> = targets.filter(|target| modules || *target != "modules").collect();
        let took = history.map(|history| Duration::from_secs_f64(history.seconds.max(0.0)));
        let took = took.map_or_else(String::new, |took| format!(" (took {} before)", format_duration(took)));
        let phase =
            reporter.start(Phase::Compile, &format!("make -j{} {}{took}", self.jobs, targets.join(" ")));
        let steps = history.map(|history| history.steps);
        let source = self.plan.source.digest.as_ref().map(ToString::to_string);
        let stamp = format!("{} {source:?}\n", configured.sha256);
        let stamp_path = self.path.join(COMPILED);
        if read_stamp(&stamp_path) != Some(stamp.clone()) {
            // Make may succeed and leave the kernel of another config or source in its place.
            for old in [self.built_kernel(), stamp_path.clone()] {
                remove_tree(&old)?;
            }
        }
        let began = host::clock();
        let launcher = self.launcher();
        let stats_before = launcher.as_ref().map_or(Ok(None), |launcher| launcher.prepare(self.host))?;
        let log_summary = self.make(&targets, &BTreeMap::new(), Some((&phase, steps)))?;
        let release_path = self.path.join("include/config/kernel.release");
        let release = read_text(&release_path, Links::RefuseAnywhere, MAX_RELEASE)
            .context(Kind::Build, || format!("make left no {release_path}"))?;
        let release = release.trim().to_owned();
        check_release(&release)?;
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
            warnings: log_summary.warnings,
            began,
            seconds: seconds.as_secs_f64(),
            announced_steps: log_summary.announced_steps,
            confinement: self.sandbox.confinement.clone(),
            cache_stats: launcher.and_then(|launcher| launcher.stats(stats_before, self.host)),
            local_fallbacks: log_summary.local_fallbacks,
        })
    }

    /// Runs make with `targets` and says what its output meant. The command line is complete: with
    /// an empty environment it does the same again.
    fn make(
        &self,
        targets: &[&str],
        extra: &BTreeMap<String, String>,
        progress: Option<(&PhaseGuard<'_>, Option<u64>)>,
    ) -> Result<make_log::LogSummary> {
        let mut command = self.make_command(targets, extra);
        let mut log_summary = make_log::LogSummary::default();
        let path = self.path.join(MAKE_PID);
        let pid_file = Some(&PidFile(&path));
        let on_line = |_, line: &str| {
            let step = log_summary.add_line(line, host::clock());
            if let (Some(item), Some((phase, total))) = (step, progress) {
                phase.progress(Count { done: log_summary.steps, total, unit: Unit::Steps, item });
            }
        };
        let status = match &self.shared {
            None => process::run(&self.sandbox.wrap(&command), &self.log, pid_file, on_line)?,
            Some(shared) => {
                // make leaves the pool where it is given a number of its own.
                command.args.retain(|arg| *arg != self.jobs_arg());
                shared.run(&self.sandbox.wrap(&command), &self.log, pid_file, on_line)?
            }
        };
        match status.success() {
            true => Ok(log_summary),
            false => Err(self.failed(targets, &command, &log_summary)),
        }
    }

    fn make_command(&self, targets: &[&str], extra: &BTreeMap<String, String>) -> CommandLine {
        let mut args =
            vec!["-C".to_owned(), self.tree.path.to_string(), format!("O={}", self.path), self.jobs_arg()];
        let variables = make_vars::variables(self.plan, self.tree, &self.path);
        args.extend(variables.iter().chain(extra).map(|(key, value)| format!("{key}={value}")));
        args.extend(targets.iter().map(|target| (*target).to_owned()));
        let env = match self.launcher() {
            Some(launcher) => launcher.environment(self.sandbox.env(), self.host, self.farm.as_ref()),
            None => self.sandbox.env().clone(),
        };
        let (program, cwd) = ("make".into(), self.path.clone());
        CommandLine { program, args, env, cwd }
    }

    fn launcher(&self) -> Option<Launcher<'_>> {
        Some(Launcher::of(&self.plan.toolchain, &self.path)?.with_network(self.network))
    }

    fn jobs_arg(&self) -> String {
        format!("-j{}", self.jobs)
    }

    fn failed(&self, targets: &[&str], command: &CommandLine, log_summary: &make_log::LogSummary) -> Error {
        let first =
            log_summary.first_error.as_deref().unwrap_or("make said nothing that looks like an error");
        let is_full = is_full(&self.path);
        if is_full || log_summary.out_of_space {
            // Not every program notices that it could not write all of a file, and the note for the next run may not
            // have been written either. If nothing can be removed, the next run fails, too.
            let removed = recovery::remove_unfinished(&self.path);
            let _ = removed.and_then(|_| remove_tree(&self.path.join(MAKE_PID)));
        }
        let first = match is_full && !log_summary.out_of_space {
            true => format!("No space left on device: the disk of {} is full ({first})", self.path),
            false => first.to_owned(),
        };
        let first = first.as_str();
        let error = Error::build(format!("make {} failed: {first}", targets.join(" ")));
        let known = make_log::hint(first).map(|hint| format!("{hint}\n      ")).unwrap_or_default();
        error.hint(format!("{known}the whole log: {}\n      the command: {command}", self.log_path))
    }
}

/// The final `.config` and how it differs from what was asked for.
pub struct Configured {
    /// What it says.
    pub config: Config,
    /// Of its bytes.
    pub sha256: Sha256,
    /// Where it lies.
    pub path: Utf8PathBuf,
    /// What came out otherwise.
    pub differences: Vec<Difference>,
}

/// A finished compilation.
pub struct Compiled {
    /// `uname -r`.
    pub release: String,
    /// The file for the image.
    pub kernel: Utf8PathBuf,
    /// Of its bytes.
    pub kernel_sha256: Sha256,
    /// Does the config have modules?
    pub modules: bool,
    /// What make might do beside.
    pub confinement: SandboxReport,
    /// Commands that make ran.
    pub steps: u64,
    /// Warnings of the compiler.
    pub warnings: u64,
    /// When make began, by the clock that files are stamped with.
    pub began: SystemTime,
    /// Wall time.
    pub seconds: f64,
    /// What Kbuild announced, and when.
    pub announced_steps: Vec<(SystemTime, String)>,
    /// What the compiler cache has done, where there is one.
    pub cache_stats: Option<CompilerCacheStats>,
    /// Files that a farm was to compile and did not.
    pub local_fallbacks: u64,
}

/// The name of the plan's build directory: one for each flavor, architecture and toolchain, since
/// changing the compiler of a build directory compiles everything anew.
pub fn dir_name(plan: &Plan) -> String {
    let toolchain = serde_json::to_string(&plan.toolchain.for_compiling()).expect("plain strings");
    let key = Sha256::of(format!("{toolchain}{}", plan.toolchain.launcher.as_deref().unwrap_or_default()));
    format!("{BUILD_DIR_PREFIX}{}-{}-{}", plan.flavor, plan.arch, key.short())
}

/// The name of the lock on the plan's build directory.
pub fn lock_name(plan: &Plan, tree: &Tree, build_mode: BuildMode) -> String {
    format!("{}-{}{}", tree.key, dir_name(plan), build_mode.suffix())
}

/// The release becomes a path in an image.
fn check_release(release: &str) -> Result<()> {
    let fits = !release.is_empty()
        && !release.starts_with('.')
        && release.len() <= 64
        && release.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c));
    match fits {
        true => Ok(()),
        false => Err(Error::build(format!(
            "the kernel release `{}` cannot be a directory's name",
            release.escape_debug()
        ))
        .hint("look at CONFIG_LOCALVERSION")),
    }
}

/// Does the plan want a modules image, or modules in a combined one?
pub fn wants_modules(plan: &Plan) -> bool {
    plan.images.iter().any(|image| matches!(image.contents, Contents::Modules { .. }))
}

/// What an earlier run noted.
fn read_stamp(path: &Utf8Path) -> Option<String> {
    read_text(path, Links::RefuseAnywhere, MAX_SMALL_FILE).ok()
}
