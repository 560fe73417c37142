//! The dependencies of a build, what the host lacks of them, and the command that installs it.

use crate::host::process::{self, CommandLine};
use crate::host::{Host, OsRelease};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::join_list;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// A package manager, by family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PackageManager {
    Debian,
    Fedora,
    Arch,
    Alpine,
    Suse,
}

impl PackageManager {
    /// Returns the package manager of this distribution, if it is known.
    fn of(os: &OsRelease) -> Option<PackageManager> {
        let known = [
            ("debian", PackageManager::Debian),
            ("ubuntu", PackageManager::Debian),
            ("fedora", PackageManager::Fedora),
            ("rhel", PackageManager::Fedora),
            ("arch", PackageManager::Arch),
            ("alpine", PackageManager::Alpine),
            ("suse", PackageManager::Suse),
            ("opensuse", PackageManager::Suse),
        ];
        known.into_iter().find(|(id, _)| os.is_like(id)).map(|(_, packages)| packages)
    }

    /// Returns the commands that install packages. The packages are appended to the last one.
    fn install(self) -> &'static [&'static [&'static str]] {
        match self {
            // New machines and containers have old package lists or none.
            PackageManager::Debian => {
                &[&["apt-get", "update"], &["apt-get", "install", "-y", "--no-install-recommends"]]
            }
            PackageManager::Fedora => &[&["dnf", "install", "-y"]],
            PackageManager::Arch => &[&["pacman", "-S", "--needed", "--noconfirm"]],
            PackageManager::Alpine => &[&["apk", "add"]],
            PackageManager::Suse => &[&["zypper", "--non-interactive", "install"]],
        }
    }
}

/// How a dependency is found.
#[derive(Clone, Debug)]
pub enum DependencyKind {
    Program(String),
    /// A header that the host's compiler finds.
    Header(&'static str),
}

/// Something that a build or a boot needs.
#[derive(Clone, Debug)]
pub struct Dependency {
    pub kind: DependencyKind,
    pub why: &'static str,
    /// Its package on Debian, Fedora, Arch, Alpine and openSUSE.
    pub packages: [&'static str; 5],
    pub importance: Importance,
    /// The option that may name it.
    pub option: Option<&'static str>,
    pub place: Place,
}

/// Where a dependency must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// On this host.
    #[default]
    Host,
    /// In the toolchain, which is this host or the root of `--toolchain`.
    Toolchain,
}

/// Whether a build fails without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    Required,
    Recommended,
}

impl Dependency {
    pub fn program(name: impl Into<String>, why: &'static str, packages: [&'static str; 5]) -> Dependency {
        Dependency {
            kind: DependencyKind::Program(name.into()),
            why,
            packages,
            importance: Importance::Required,
            option: None,
            place: Place::Host,
        }
    }

    /// Returns the same dependency, which an option may name.
    pub fn given_by(self, option: &'static str) -> Dependency {
        Dependency { option: Some(option), ..self }
    }

    pub fn header(name: &'static str, why: &'static str, packages: [&'static str; 5]) -> Dependency {
        Dependency { kind: DependencyKind::Header(name), ..Dependency::program("", why, packages) }
    }

    /// Returns the same dependency, which a build can do without.
    pub fn recommended(self) -> Dependency {
        Dependency { importance: Importance::Recommended, ..self }
    }

    /// Returns the same dependency as one of the toolchain.
    pub fn in_toolchain(self) -> Dependency {
        Dependency { place: Place::Toolchain, ..self }
    }
}

/// One line of `kcompile doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DependencyStatus {
    pub name: String,
    /// Its path, if it is installed.
    pub found: Option<String>,
    /// What it is for, or why it does not work.
    pub why: String,
    pub importance: Importance,
    /// Its package on this distribution, or on that of the toolchain.
    pub package: Option<&'static str>,
    /// The option that may name it.
    #[serde(skip)]
    option: Option<&'static str>,
    #[serde(skip)]
    pub place: Place,
}

/// All dependencies that were checked.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    #[serde(rename = "findings")]
    pub dependencies: Vec<DependencyStatus>,
    /// The command that installs what is missing, if something is and the distribution is known.
    pub install: Option<String>,
    #[serde(skip)]
    commands: Vec<Vec<String>>,
    /// Whether the toolchain is a root file system.
    #[serde(skip)]
    has_root: bool,
}

impl Diagnosis {
    /// Returns the names of missing required dependencies.
    pub fn missing(&self) -> Vec<&str> {
        self.all_missing().map(|dependency| dependency.name.as_str()).collect()
    }

    fn all_missing(&self) -> impl Iterator<Item = &DependencyStatus> {
        let required = |one: &&DependencyStatus| one.importance == Importance::Required;
        self.dependencies.iter().filter(required).filter(|one| one.found.is_none())
    }

    /// # Errors
    ///
    /// A required dependency is missing (exit code 4).
    pub fn require(&self) -> Result<()> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let in_root = self.dependencies.iter().filter(|one| one.place == Place::Toolchain);
        let in_root: Vec<&str> =
            in_root.filter(|one| missing.contains(&&*one.name)).map(|one| &*one.name).collect();
        if self.has_root && !in_root.is_empty() {
            return Err(Error::host(format!("the toolchain lacks {}", in_root.join(", ")))
                .hint("choose another image with --toolchain, or add the packages of these to it"));
        }
        let error = Error::host(format!("this host lacks {}", missing.join(", ")));
        let unknown = self.all_missing().filter(|one| one.package.is_none());
        let options: BTreeSet<&str> = unknown.filter_map(|one| one.option).collect();
        let check = join_list(options, "and");
        Err(match &self.install {
            Some(command) if check.is_empty() => error.hint(format!("install it with: {command}")),
            Some(command) => error.hint(format!("check {check}, and install the rest with: {command}")),
            None if check.is_empty() => {
                error.hint("install it with the package manager of this distribution")
            }
            None => {
                error.hint(format!("check {check}; kcompile knows no package with {}", missing.join(", ")))
            }
        })
    }

    /// Runs the install command, with sudo for users other than root.
    pub fn install(&self, host: &Host, reporter: &Reporter) -> Result<()> {
        if self.commands.is_empty() {
            return self.require();
        }
        for argv in &self.commands {
            let (program, args) = argv.split_first().expect("a command has words");
            let (program, args, env) = (program.clone(), args.to_vec(), host.child_env.clone());
            let command = CommandLine { program, args, env, cwd: host.cwd.clone() };
            reporter.note(&format!("running: {command}"));
            if !process::run_interactive(&command)?.success() {
                return Err(Error::host(format!("`{command}` failed")));
            }
        }
        Ok(())
    }
}

impl Diagnosis {
    /// Formats what to do about missing dependencies.
    pub fn summary(&self) -> String {
        match (&self.install, self.missing().len()) {
            (None, 0) => "\nnothing is missing\n".to_owned(),
            (Some(command), 0) => format!("\nto install what is optional:\n    {command}\n"),
            (Some(command), _) => format!("\nto install what is missing:\n    {command}\n"),
            (None, _) => {
                "\ninstall what is missing with the package manager of this distribution\n".to_owned()
            }
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for DependencyStatus { name, found, why, importance, .. } in &self.dependencies {
            match (found, importance) {
                (Some(place), _) => writeln!(f, "ok       {name:20} {place}")?,
                (None, Importance::Required) => writeln!(f, "MISSING  {name:20} {why}")?,
                (None, Importance::Recommended) => writeln!(f, "optional {name:20} {why}")?,
            }
        }
        write!(f, "{}", self.summary())
    }
}

/// Checks for the additional dependencies of menuconfig.
pub fn examine_menus(host: &Host) -> Result<Diagnosis> {
    let why = "draws the kernel's menus";
    let packages = ["libncurses-dev", "ncurses-devel", "ncurses", "ncurses-dev", "ncurses-devel"];
    diagnose(vec![Dependency::header("curses.h", why, packages).in_toolchain()], "gcc", host)
}

/// Checks for git.
pub fn examine_git(host: &Host) -> Result<Diagnosis> {
    diagnose(vec![git()], "gcc", host)
}

/// Returns git as a dependency.
pub fn git() -> Dependency {
    Dependency::program("git", "fetches repositories and applies patches", ["git"; 5])
}

/// Checks for skopeo.
pub fn examine_push(host: &Host) -> Result<Diagnosis> {
    diagnose(vec![Dependency::program("skopeo", "copies images to a registry", ["skopeo"; 5])], "gcc", host)
}

/// Checks for `dependencies`. Headers are found by `host_cc`.
///
/// # Errors
///
/// No process can be started to look (exit code 4), or kcompile was interrupted.
pub fn diagnose(dependencies: Vec<Dependency>, host_cc: &str, host: &Host) -> Result<Diagnosis> {
    let (packages, has_root) = (PackageManager::of(&host.os), host.tool_root.is_some());
    let has_headers = dependencies.iter().any(|one| matches!(one.kind, DependencyKind::Header(_)));
    let compiler = if has_headers { working_compiler(host_cc, host)? } else { None };
    let look = |dependency: Dependency| {
        let packages = match dependency.place {
            Place::Host => packages,
            Place::Toolchain => PackageManager::of(host.tool_os()),
        };
        Ok(DependencyStatus {
            place: dependency.place,
            found: match (&dependency.kind, dependency.place) {
                (DependencyKind::Program(name), Place::Host) => host.find_program(name).map(Into::into),
                (DependencyKind::Program(name), Place::Toolchain) => host.find_tool(name).map(Into::into),
                (DependencyKind::Header(header), _) => match &compiler {
                    Some(compiler) => find_header(header, compiler, host)?,
                    None => None,
                },
            },
            name: match dependency.kind {
                DependencyKind::Program(name) => name,
                DependencyKind::Header(header) => header.to_owned(),
            },
            why: dependency.why.to_owned(),
            importance: dependency.importance,
            option: dependency.option.filter(|_| dependency.packages[0].is_empty()),
            package: packages
                .map(|packages| dependency.packages[packages as usize])
                .filter(|package| !package.is_empty()),
        })
    };
    let dependencies = dependencies.into_iter().map(look).collect::<Result<Vec<_>>>()?;
    let mut packages_to_install: Vec<&str> = dependencies
        .iter()
        .filter(|dependency| dependency.found.is_none())
        .filter(|dependency| !(has_root && dependency.place == Place::Toolchain))
        .filter_map(|dependency| dependency.package)
        .collect();
    packages_to_install.sort_unstable();
    packages_to_install.dedup();
    let mut commands: Vec<Vec<String>> = Vec::new();
    if let Some(packages) = packages.filter(|_| !packages_to_install.is_empty()) {
        for command in packages.install() {
            let sudo = (!host.root).then_some("sudo");
            commands.push(sudo.into_iter().chain(command.iter().copied()).map(str::to_owned).collect());
        }
        commands
            .last_mut()
            .expect("there is one")
            .extend(packages_to_install.iter().map(|package| (*package).to_owned()));
    }
    let lines: Vec<String> = commands.iter().map(|argv| argv.join(" ")).collect();
    let install = (!lines.is_empty()).then(|| lines.join(" && "));
    Ok(Diagnosis { dependencies, install, commands, has_root })
}

/// Returns the words of `host_cc`, or else of another compiler that runs. A header is not missing because a
/// compiler is.
fn working_compiler(host_cc: &str, host: &Host) -> Result<Option<Vec<String>>> {
    for command in [host_cc, "gcc", "clang"] {
        let argv = shlex::split(command).filter(|argv| !argv.is_empty()).unwrap_or_default();
        if included_files(&argv, &[], host)?.is_some() {
            return Ok(Some(argv));
        }
    }
    Ok(None)
}

/// Returns what a compiler prints of the files that it includes, or `None` if it does not run.
fn included_files(compiler: &[String], options: &[&str], host: &Host) -> Result<Option<String>> {
    let Some((program, args)) = compiler.split_first() else { return Ok(None) };
    if host.find_tool(program).is_none() {
        return Ok(None);
    }
    let args = args.iter().map(String::as_str).chain(["-M", "-x", "c"]).chain(options.iter().copied());
    host.capture_tool(program, &args.chain(["/dev/null"]).collect::<Vec<_>>())
}

/// Returns where a compiler finds `header`.
fn find_header(header: &str, compiler: &[String], host: &Host) -> Result<Option<String>> {
    let listing = included_files(compiler, &["-include", header], host)?.unwrap_or_default();
    let found = listing.split_whitespace().find(|word| word.ends_with(&format!("/{header}")));
    Ok(found.map(str::to_owned))
}
