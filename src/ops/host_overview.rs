//! What the host offers beyond the programs that a build needs, for `kcompile doctor`.

use crate::boot::{Vmm, busybox, find_static_busybox};
use crate::host::packages::{Dependency, DependencyKind, Diagnosis, Place, diagnose};
use crate::host::process::{self, SANDBOX};
use crate::host::{Host, user_config::KnownLauncher};
use crate::kernel::Arch;
use crate::source;
use crate::util::error::Result;
use crate::util::fs::free_space;
use crate::util::text::{format_size, redact_credentials};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::Access;
use serde::Serialize;
use std::time::Duration;

/// The longest wait for a mirror.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(3);
/// A build of a large config takes several gigabytes.
const LOW_SPACE: u64 = 5 << 30;

/// One line of the overview.
#[derive(Clone, Debug, Serialize)]
pub struct HostFact {
    pub name: String,
    pub status: FactStatus,
    /// The version of a program.
    pub version: Option<String>,
    /// Where it is, or what is wrong and what it would be for.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FactStatus {
    Ok,
    /// A build needs it.
    Missing,
    /// Some commands or options need it.
    Optional,
    /// There is little of it.
    Low,
    /// It was not looked at.
    Skipped,
}

/// What the overview looks at besides programs.
pub struct OverviewInputs<'a> {
    /// What a build needs.
    pub diagnosis: &'a Diagnosis,
    pub cache_dir: &'a Utf8Path,
    /// The server of kernel.org's archives. `None` if the network is not to be used.
    pub mirror: Option<&'a str>,
}

/// Looks at the host. Nothing that is missing here is an error.
///
/// # Errors
///
/// No program can be started, or kcompile was interrupted.
pub fn overview(inputs: &OverviewInputs<'_>, host: &Host) -> Result<Vec<HostFact>> {
    let mut facts = Vec::new();
    for dependency in &inputs.diagnosis.dependencies {
        let status = if dependency.found.is_some() { FactStatus::Ok } else { FactStatus::Missing };
        let detail = dependency.found.clone().unwrap_or(dependency.why.clone());
        if dependency.name == SANDBOX {
            let status = if status == FactStatus::Ok { status } else { FactStatus::Optional };
            facts.push(fact("sandbox", status, version(SANDBOX, Place::Host, host)?, detail));
        } else {
            let version = version(&dependency.name, dependency.place, host)?;
            facts.push(fact(&dependency.name, status, version, detail));
        }
    }
    let optional = diagnose(optional_programs(host), "gcc", host)?;
    for dependency in optional.dependencies {
        let version = version(&dependency.name, dependency.place, host)?;
        facts.push(match (dependency.found, dependency.package) {
            (Some(path), _) => fact(&dependency.name, FactStatus::Ok, version, path),
            (None, Some(package)) => {
                let detail = format!("{} (package {package})", dependency.why);
                fact(&dependency.name, FactStatus::Optional, None, detail)
            }
            (None, None) => fact(&dependency.name, FactStatus::Optional, None, dependency.why),
        });
    }
    facts.push(busybox_fact(host));
    facts.push(kvm_fact());
    facts.extend(cache_facts(inputs.cache_dir));
    facts.push(mirror_fact(inputs.mirror));
    Ok(facts)
}

fn fact(name: &str, status: FactStatus, version: Option<String>, detail: String) -> HostFact {
    HostFact { name: name.to_owned(), status, version, detail }
}

/// Returns the programs that only some commands and options need.
fn optional_programs(host: &Host) -> Vec<Dependency> {
    let own = host.arch.unwrap_or(Arch::Amd64);
    let mut programs = vec![
        Dependency::program(Vmm::Qemu.program(own), "runs kernels, for boot", own.spec().qemu.packages),
        Dependency::program("mke2fs", "makes the disk of a machine, for boot", ["e2fsprogs"; 5]),
        Dependency::program("skopeo", "copies images to a registry, for push", ["skopeo"; 5]),
        Dependency::program("git", "fetches git sources, and applies patches", ["git"; 5]),
        Dependency::program(
            "pahole",
            "writes BTF, for DEBUG_INFO_BTF",
            ["pahole", "dwarves", "pahole", "pahole", "dwarves"],
        ),
    ];
    let ccache = KnownLauncher::Ccache.program().expect("it is a program");
    programs.push(Dependency::program(ccache, "compiles again faster, for --launcher", [ccache; 5]));
    for arch in Arch::ALL.iter().filter(|arch| **arch != own) {
        let spec = arch.spec();
        let compiler = format!("{}-gcc", spec.triple);
        programs.push(Dependency::program(
            compiler,
            "compiles for another architecture, for --arch",
            spec.cross_packages,
        ));
    }
    programs.into_iter().map(Dependency::recommended).collect()
}

/// Returns the version that a program prints.
fn version(program: &str, place: Place, host: &Host) -> Result<Option<String>> {
    let text = match place {
        Place::Toolchain if host.find_tool(program).is_some() => {
            host.capture_tool(program, &["--version"])?
        }
        Place::Host if host.find_program(program).is_some() => {
            process::capture(program, &["--version"], &host.child_env)?
        }
        Place::Toolchain | Place::Host => None,
    };
    let text = text.unwrap_or_default();
    Ok(text.lines().take(3).find_map(version_in))
}

/// Returns the first number with a dot in a line, or else the number after `version`.
fn version_in(line: &str) -> Option<String> {
    let words = || line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let number = |word: &'_ str| word.strip_prefix('v').unwrap_or(word).to_owned();
    let is_number = |word: &str| number(word).starts_with(|c: char| c.is_ascii_digit());
    let dotted = words().find(|word| is_number(word) && word.trim_end_matches('.').contains('.'));
    let after = || words().skip_while(|word| *word != "version").nth(1).filter(|word| is_number(word));
    dotted.or_else(after).map(number)
}

fn busybox_fact(host: &Host) -> HostFact {
    let Dependency { kind, why, packages, .. } = busybox();
    let DependencyKind::Program(name) = kind else { unreachable!("it is a program") };
    match find_static_busybox(host) {
        Ok(path) => fact(&name, FactStatus::Ok, None, format!("{path}, static")),
        Err(problem) => fact(
            &name,
            FactStatus::Optional,
            None,
            format!("{problem}; a static one {why} ({})", packages[0]),
        ),
    }
}

fn kvm_fact() -> HostFact {
    let kvm = "/dev/kvm";
    let usable = rustix::fs::access(kvm, Access::READ_OK | Access::WRITE_OK);
    match usable {
        Ok(()) => fact("KVM", FactStatus::Ok, None, kvm.to_owned()),
        Err(error) => {
            let detail = format!("{kvm}: {error}; boot emulates the CPU, which is slow");
            fact("KVM", FactStatus::Optional, None, detail)
        }
    }
}

/// Returns where the cache is, and the space on its disk.
fn cache_facts(dir: &Utf8Path) -> [HostFact; 2] {
    let trees = dir.join("trees").read_dir_utf8().map_or(0, Iterator::count);
    let state =
        if dir.is_dir() { format!("{dir}, source trees: {trees}") } else { format!("{dir}, not there yet") };
    let existing: Utf8PathBuf =
        dir.ancestors().find(|path| path.is_dir()).unwrap_or(Utf8Path::new("/")).to_owned();
    let disk = match free_space(&existing) {
        Some(free) if free < LOW_SPACE => {
            fact("disk", FactStatus::Low, None, format!("only {} free for the cache", format_size(free)))
        }
        Some(free) => fact("disk", FactStatus::Ok, None, format!("{} free for the cache", format_size(free))),
        None => fact("disk", FactStatus::Skipped, None, "the free space is unknown".to_owned()),
    };
    [fact("cache", FactStatus::Ok, None, state), disk]
}

fn mirror_fact(mirror: Option<&str>) -> HostFact {
    let Some(url) = mirror else {
        return fact("mirror", FactStatus::Skipped, None, "not asked (--offline)".to_owned());
    };
    let shown = redact_credentials(url);
    match source::answers(url, MIRROR_TIMEOUT) {
        Ok(time) => {
            fact("mirror", FactStatus::Ok, None, format!("{shown} answers in {} ms", time.as_millis()))
        }
        Err(why) => fact("mirror", FactStatus::Optional, None, format!("{shown}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (line, found) in [
            ("GNU Make 4.3", Some("4.3")),
            ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", Some("12.2.0")),
            ("kmod version 30", Some("30")),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)", Some("7.2.22")),
            ("This is perl 5, version 36, subversion 0 (v5.36.0) built for x86_64", Some("5.36.0")),
            ("bison (GNU Bison) 3.8.2", Some("3.8.2")),
            ("usage: x", None),
        ] {
            assert_eq!(version_in(line).as_deref(), found, "{line}");
        }
    }
}
