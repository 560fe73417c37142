//! The report of a boot.

use super::console::KernelIssue;
use super::machine::Accelerator;
use crate::kernel::Variant;
use crate::util::error::{Error, Result};
use crate::util::text::pluralize;
use camino::Utf8PathBuf;
use serde::Serialize;

/// A check of the guest's init.
pub(super) struct CheckSpec {
    pub name: &'static str,
    pub group: Group,
    pub what: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Devices,
    /// What a sandbox needs, and a Kubernetes node too.
    Containers,
    /// What only a Kubernetes node needs.
    Kubernetes,
}

const fn check(name: &'static str, group: Group, what: &'static str) -> CheckSpec {
    CheckSpec { name, group, what }
}

pub(super) const CHECKS: [CheckSpec; 11] = [
    check("block", Group::Devices, "a readable virtio block device"),
    check("network", Group::Devices, "a virtio network device that comes up"),
    check("vsock", Group::Devices, "virtio sockets to the host"),
    check("config", Group::Containers, "/proc/config.gz, which kubeadm reads"),
    check("cgroup2", Group::Containers, "cgroup v2"),
    check("overlay", Group::Containers, "overlayfs"),
    check("veth", Group::Containers, "a veth pair"),
    check("bridge", Group::Kubernetes, "a bridge with a veth port"),
    check("nftables", Group::Kubernetes, "an nftables table, chain and rule"),
    check("iptables", Group::Kubernetes, "an iptables rule"),
    check("namespaces", Group::Containers, "new namespaces of all kinds"),
];

/// The number of failures that an error names. It counts the others.
const MAX_NAMED: usize = 4;

/// `--require`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Modules, devices and Kubernetes.
    All,
    /// Only that init comes to its end.
    None,
    /// The kernel refuses no module.
    Modules,
    Devices,
    Kubernetes,
    /// Devices, and what programs in a sandbox need.
    Sandbox,
    /// The kernel prints no warning.
    Clean,
    /// The check of this name.
    Check(&'static str),
}

impl Requirement {
    /// Returns what is required of a kernel if nothing else is.
    pub(super) fn default_of(variant: Variant) -> Requirement {
        match variant {
            Variant::Node => Requirement::All,
            Variant::Minimal => Requirement::Sandbox,
        }
    }

    /// Returns whether a check of this group must pass.
    pub(super) fn includes(&self, group: Group) -> bool {
        match self {
            Requirement::All => true,
            Requirement::Devices => group == Group::Devices,
            Requirement::Kubernetes => group != Group::Devices,
            Requirement::Sandbox => group != Group::Kubernetes,
            Requirement::None | Requirement::Modules | Requirement::Clean | Requirement::Check(_) => false,
        }
    }
}

impl std::str::FromStr for Requirement {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Ok(match name {
            "all" => Requirement::All,
            "none" => Requirement::None,
            "modules" => Requirement::Modules,
            "devices" => Requirement::Devices,
            "kubernetes" => Requirement::Kubernetes,
            "sandbox" => Requirement::Sandbox,
            "clean" => Requirement::Clean,
            _ => match CHECKS.iter().find(|check| check.name == name) {
                Some(check) => Requirement::Check(check.name),
                None => {
                    let checks = CHECKS.map(|check| check.name).join(", ");
                    return Err(format!(
                        "expected all, none, modules, devices, kubernetes, sandbox, clean, {checks}"
                    ));
                }
            },
        })
    }
}

/// How the virtual machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ExitReason {
    /// Init came to its end.
    Completed,
    Panic {
        /// The kernel's message.
        reason: String,
        /// An explanation, if the message is known.
        meaning: Option<&'static str>,
    },
    /// It took too long, or printed nothing for too long.
    Hang { why: String },
    /// It printed more than any boot does.
    Flood,
    /// The virtual machine ended, and its console does not say why.
    Died {
        status: String,
        /// The output of the hypervisor.
        #[serde(rename = "said")]
        stderr: Vec<String>,
    },
}

/// A module that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleFailure {
    /// The path below `lib/modules/<release>`.
    pub module: String,
    pub errno: i32,
    /// The text of the error, with what the kernel printed.
    pub reason: String,
}

/// The results of loading the modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Modules {
    pub total: usize,
    pub loaded: usize,
    /// Modules that found no hardware.
    pub without_hardware: Vec<ModuleFailure>,
    /// Modules that the kernel refused.
    #[serde(rename = "refused")]
    pub failed: Vec<ModuleFailure>,
    /// The number of modules that init did not get to.
    #[serde(rename = "not_tried")]
    pub not_run: usize,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name in `--require`.
    pub name: &'static str,
    pub what: &'static str,
    #[serde(rename = "verdict")]
    pub status: CheckStatus,
    /// Whether it must pass.
    #[serde(skip)]
    pub is_required: bool,
    /// What was found, or what failed and why.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    Passed,
    Failed,
    /// The virtual machine lacks the device.
    Skipped,
    /// Init did not get to it.
    #[serde(rename = "not-tried")]
    NotRun,
}

/// The report of a boot. Field names are part of the contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BootReport {
    /// The image or kernel, as the user named it.
    #[serde(rename = "subject")]
    pub target: String,
    /// Whether init came to its end and all requirements are met.
    pub passed: bool,
    pub failures: Vec<String>,
    pub machine: String,
    pub accelerator: Accelerator,
    #[serde(rename = "ending")]
    pub exit_reason: ExitReason,
    /// The release from uname(2).
    pub release: Option<String>,
    /// The kernel's clock when its first process started.
    pub seconds_to_init: Option<f64>,
    /// The run time of the hypervisor.
    pub seconds: f64,
    pub modules: Modules,
    pub checks: Vec<Check>,
    /// Kernel warnings, oopses and panics.
    #[serde(rename = "troubles")]
    pub issues: Vec<KernelIssue>,
    /// The number of further ones.
    #[serde(rename = "more_troubles")]
    pub more_issues: usize,
    /// The last lines of the console, if init did not come to its end.
    pub last_lines: Vec<String>,
    /// What the user should know about the way the kernel was booted.
    pub notes: Vec<String>,
    /// The file with the whole console output.
    pub console: Utf8PathBuf,
}

impl BootReport {
    /// Returns an error (exit code 1) if a requirement is not met.
    pub fn require(&self) -> Result<()> {
        if self.passed {
            return Ok(());
        }
        let mut named: Vec<String> = self.failures.iter().take(MAX_NAMED).cloned().collect();
        let more = self.failures.len() - named.len();
        named.extend((more > 0).then(|| format!("and {more} more")));
        let error = Error::build(format!("boot of {} failed: {}", self.target, named.join("; ")));
        Err(error.hint(format!("the console output is in {}", self.console)))
    }

    /// Returns one line for a summary or a receipt.
    pub fn summary(&self) -> String {
        let status = if self.passed { "booted" } else { "failed" };
        let Modules { loaded, total, .. } = self.modules;
        format!(
            "{status} on {} with {}, {loaded} of {} loaded",
            self.machine,
            self.accelerator,
            pluralize(total, "module", "modules")
        )
    }
}
