//! What a host must have to build a kernel, what it lacks, and the one command that installs it.

use crate::host::Host;
use crate::host::process::{self, CommandLine};
use crate::report::Report;
use crate::util::error::{Error, Result};
use serde::Serialize;
use std::fmt;

/// A package manager and how it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packages {
    Debian,
    Fedora,
    Arch,
    Alpine,
    Suse,
}

impl Packages {
    /// The one of this distribution, if we know it.
    fn of(host: &Host) -> Option<Packages> {
        let known = [
            ("debian", Packages::Debian),
            ("ubuntu", Packages::Debian),
            ("fedora", Packages::Fedora),
            ("rhel", Packages::Fedora),
            ("arch", Packages::Arch),
            ("alpine", Packages::Alpine),
            ("suse", Packages::Suse),
            ("opensuse", Packages::Suse),
        ];
        known.into_iter().find(|(id, _)| host.os.is_like(id)).map(|(_, packages)| packages)
    }

    /// The commands that install, without the packages; the last one takes them.
    fn install(self) -> &'static [&'static [&'static str]] {
        match self {
            // The lists of a fresh machine or container are old or not there at all.
            Packages::Debian => {
                &[&["apt-get", "update"], &["apt-get", "install", "-y", "--no-install-recommends"]]
            }
            Packages::Fedora => &[&["dnf", "install", "-y"]],
            Packages::Arch => &[&["pacman", "-S", "--needed", "--noconfirm"]],
            Packages::Alpine => &[&["apk", "add"]],
            Packages::Suse => &[&["zypper", "--non-interactive", "install"]],
        }
    }
}

/// How a need is looked for.
#[derive(Clone, Debug)]
pub enum Look {
    Program(String),
    /// Included from an empty C file by the host's compiler.
    Header(&'static str),
}

/// Something that a build or a boot needs, and its package on Debian, Fedora, Arch, Alpine and openSUSE.
#[derive(Clone, Debug)]
pub struct Need {
    pub look: Look,
    pub why: &'static str,
    pub packages: [&'static str; 5],
    pub importance: Importance,
}

/// Does a build fail without it?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    Required,
    Recommended,
}

impl Need {
    pub fn program(name: impl Into<String>, why: &'static str, packages: [&'static str; 5]) -> Need {
        Need { look: Look::Program(name.into()), why, packages, importance: Importance::Required }
    }

    pub fn header(name: &'static str, why: &'static str, packages: [&'static str; 5]) -> Need {
        Need { look: Look::Header(name), why, packages, importance: Importance::Required }
    }

    /// The same, where a build does without it.
    pub fn recommended(self) -> Need {
        Need { importance: Importance::Recommended, ..self }
    }
}

/// One line of the doctor's report.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The program or header.
    pub name: String,
    /// Where it is, `None` if it is missing.
    #[serde(rename = "found")]
    pub found: Option<String>,
    /// What it is for; or why it does not work.
    #[serde(rename = "why")]
    pub why: String,
    pub importance: Importance,
    /// The package that has it here.
    pub package: Option<&'static str>,
}

/// Everything that was looked for.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// In the order of the list of needs.
    #[serde(rename = "findings")]
    pub findings: Vec<Finding>,
    /// The command that installs what is missing; `None`: nothing is, or the distribution is unknown.
    pub install: Option<String>,
    #[serde(skip)]
    commands: Vec<Vec<String>>,
}

impl Diagnosis {
    /// Names of what is missing and required.
    pub fn missing(&self) -> Vec<&str> {
        let required = self.findings.iter().filter(|finding| finding.importance == Importance::Required);
        required.filter(|finding| finding.found.is_none()).map(|finding| finding.name.as_str()).collect()
    }

    /// Fails (exit code 4) when something is missing.
    pub fn require(&self) -> Result<()> {
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let error = Error::host(format!("this host lacks {}", missing.join(", ")));
        Err(match &self.install {
            Some(command) => error.hint(format!("install it with: {command}")),
            None => error.hint("install it with the package manager of this distribution"),
        })
    }

    /// Runs the install command, by sudo where we are not root.
    pub fn install(&self, host: &Host, report: &Report) -> Result<()> {
        if self.commands.is_empty() {
            return self.require();
        }
        for words in &self.commands {
            let (program, args) = words.split_first().expect("a command has words");
            let (program, args, env) = (program.clone(), args.to_vec(), host.child_env.clone());
            let command = CommandLine { program, args, env, cwd: host.cwd.clone() };
            report.note(&format!("running: {command}"));
            if !process::interact(&command)?.success() {
                return Err(Error::host(format!("`{command}` failed")));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { name, found, why, importance, .. } in &self.findings {
            match (found, importance) {
                (Some(place), _) => writeln!(f, "ok       {name:20} {place}")?,
                (None, Importance::Required) => writeln!(f, "MISSING  {name:20} {why}")?,
                (None, Importance::Recommended) => writeln!(f, "advised  {name:20} {why}")?,
            }
        }
        match (&self.install, self.missing().len()) {
            (None, 0) => writeln!(f, "\nnothing is missing"),
            (Some(command), 0) => writeln!(f, "\ninstall what is advised:\n    {command}"),
            (Some(command), _) => writeln!(f, "\ninstall what is missing:\n    {command}"),
            (None, _) => {
                writeln!(f, "\ninstall what is missing with the package manager of this distribution")
            }
        }
    }
}

/// Looks for what the kernel's menus need beside all that a build needs.
pub fn examine_menus(host: &Host) -> Diagnosis {
    let why = "draws the kernel's menus";
    let packages = ["libncurses-dev", "ncurses-devel", "ncurses", "ncurses-dev", "ncurses-devel"];
    diagnose(vec![Need::header("curses.h", why, packages)], "gcc", host)
}

/// Looks for the program that fetches repositories and applies patches.
pub fn examine_git(host: &Host) -> Diagnosis {
    diagnose(vec![git()], "gcc", host)
}

/// What fetches repositories and applies patches.
pub fn git() -> Need {
    Need::program("git", "fetches repositories and applies patches", ["git"; 5])
}

/// Looks for the program that pushes images.
pub fn examine_push(host: &Host) -> Diagnosis {
    diagnose(vec![Need::program("skopeo", "copies images to a registry", ["skopeo"; 5])], "gcc", host)
}

/// Looks for `needs`; headers by `host_cc`.
pub fn diagnose(needs: Vec<Need>, host_cc: &str, host: &Host) -> Diagnosis {
    let packages = Packages::of(host);
    let findings: Vec<Finding> = needs
        .into_iter()
        .map(|need| Finding {
            found: match &need.look {
                Look::Program(name) => host.find_program(name).map(Into::into),
                Look::Header(header) => find_header(header, host_cc, host),
            },
            name: match need.look {
                Look::Program(name) => name,
                Look::Header(header) => header.to_owned(),
            },
            why: need.why.to_owned(),
            importance: need.importance,
            package: packages
                .map(|packages| need.packages[packages as usize])
                .filter(|package| !package.is_empty()),
        })
        .collect();
    let mut wanted: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.found.is_none())
        .filter_map(|finding| finding.package)
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut commands: Vec<Vec<String>> = Vec::new();
    if let Some(packages) = packages.filter(|_| !wanted.is_empty()) {
        for command in packages.install() {
            let sudo = (!host.root).then_some("sudo");
            commands.push(sudo.into_iter().chain(command.iter().copied()).map(str::to_owned).collect());
        }
        commands.last_mut().expect("there is one").extend(wanted.iter().map(|package| (*package).to_owned()));
    }
    let lines: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
    let install = (!lines.is_empty()).then(|| lines.join(" && "));
    Diagnosis { findings, install, commands }
}

/// Where the host's compiler finds `header`.
fn find_header(header: &str, host_cc: &str, host: &Host) -> Option<String> {
    let words = shlex::split(host_cc)?;
    let (program, args) = words.split_first()?;
    host.find_program(program)?;
    // `-M` lists what is included, the header itself in second place.
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["-M", "-x", "c", "-include", header, "/dev/null"]);
    let listed = process::capture(program, &args, &host.child_env).ok()?;
    listed.split_whitespace().find(|word| word.ends_with(&format!("/{header}"))).map(str::to_owned)
}
