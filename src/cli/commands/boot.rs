//! `kcompile boot`: boots an image and prints a report.

use crate::boot::target::{self, ImageRef, ModulesSource, Overrides};
use crate::boot::{
    Accelerator, BootReport, BootTarget, CheckStatus, ExitReason, Modules, Options, Requirement, RootChoice,
    ShellOptions, ShellRoot, Vmm, boot, shell,
};
use crate::cache::Cache;
use crate::cli::args::{FlavorArgs, ProgressArgs};
use crate::cli::output::{Fields, print, render_json};
use crate::cli::resolve::cache_dir;
use crate::cli::target::{Target, images_of_version};
use crate::host::Host;
use crate::kernel::{Arch, Flavor, Variant};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// The most modules and warnings that the report lists. `--json` has all of them.
const MAX_LISTED: usize = 20;

const EXAMPLES: &str = "\
Examples:
  kcompile boot 6.1 --fc                          the newest 6.1 in out/
  kcompile boot out/firecracker-kernel-bin-amd64:6.1.7
  kcompile boot out/cloudhypervisor-kernel-bin-amd64 --require modules,nftables
  kcompile boot out/firecracker-kernel-bin-amd64 --vmm firecracker
  kcompile boot 6.1 --fc --shell                  a shell in QEMU, with busybox
  kcompile boot 6.1 --fc --shell --root rootfs.ext4

Names for --require:
  modules      every module loads or finds no hardware
  devices      block, network, vsock
  kubernetes   config, cgroup2, overlay, veth, bridge, nftables, iptables,
               namespaces
  sandbox      devices, and config, cgroup2, overlay, veth, namespaces
  all          modules, devices and kubernetes
  clean        the kernel prints no warnings
  none         the kernel boots and starts init

Exit codes: 0 ok, 1 boot or a required check failed, 2 usage error, 3 layout is damaged, \
4 host lacks QEMU or a compiler.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, mut_arg("flavor", |flavor| {
    let long = format!("Hypervisor: {} [default: the image's]", Flavor::choices());
    flavor.help("Hypervisor [default: the image's]").long_help(long)
}))]
pub struct BootArgs {
    /// Image as LAYOUT[:TAG], or a version that was built
    ///
    /// A version or series means the newest such image in the output directory.
    #[arg(value_name = "LAYOUT|VERSION")]
    pub target: String,
    /// Modules image as LAYOUT[:TAG], or none
    ///
    /// The default is the same tag in the modules layout beside the kernel's.
    #[arg(long, value_name = "LAYOUT")]
    pub modules: Option<String>,
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    /// Variant of a version: node or minimal
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<Variant>,
    #[arg(
        long, value_name = "ARCH", help = "Architecture [default: the image's or the host's]", long_help = format!(
            "Architecture: {} [default: the image's, or the host's for a version or index]", Arch::choices()
        )
    )]
    pub arch: Option<Arch>,
    #[command(flatten)]
    pub how: RunArgs,
    /// Open a console in QEMU instead of running checks
    ///
    /// Changes to the root file system are discarded.
    #[arg(long, conflicts_with_all = ["vmm", "require", "time_limit", "json"])]
    pub shell: bool,
    /// Directory of the images [default: out]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
    /// Cache directory [env: KCOMPILE_CACHE_DIR]
    ///
    /// The default is `kcompile` in $XDG_CACHE_HOME or ~/.cache.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a kernel is booted, and which checks must pass.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// qemu or a hypervisor
    ///
    /// The program runs the virtual machine. Only QEMU works without KVM.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu")]
    pub vmm: Vmm,
    /// Acceleration: auto, kvm or tcg
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub accel: Accel,
    /// Root file system: auto, disk or initramfs
    ///
    /// With --shell, it is a file with an ext4 file system or a directory. The default is auto, or with --shell the
    /// host's busybox.
    #[arg(long, value_name = "KIND|FILE|DIR")]
    pub root: Option<Utf8PathBuf>,
    /// Fail unless this check passes; repeatable
    ///
    /// The names of checks and of groups of checks are below. The default is all, and sandbox for a minimal kernel.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub require: Vec<Requirement>,
    /// Fail if the boot takes longer
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u32).range(1..))]
    pub time_limit: u32,
    /// Append TEXT to the kernel command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
}

/// `--accel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM if available, or else software emulation
    #[default]
    Auto,
    /// Hardware virtualization
    Kvm,
    /// Software emulation
    Tcg,
}

impl From<Accel> for Option<Accelerator> {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => None,
            Accel::Kvm => Some(Accelerator::Kvm),
            Accel::Tcg => Some(Accelerator::Emulation),
        }
    }
}

impl RunArgs {
    /// Returns the same as options of [`boot`].
    ///
    /// # Errors
    ///
    /// `--root` is a path (exit code 2).
    pub fn options(&self) -> Result<Options> {
        let root = match &self.root {
            None => RootChoice::Auto,
            Some(name) => RootChoice::from_str(name.as_str(), false).map_err(|_| {
                Error::usage(format!("--root {name}: a file or directory needs --shell"))
                    .hint("without --shell, give auto, disk or initramfs")
            })?,
        };
        Ok(Options {
            vmm: self.vmm,
            accelerator: self.accel.into(),
            root,
            required: self.require.clone(),
            limit: Duration::from_secs(self.time_limit.into()),
            append: self.append.clone(),
        })
    }

    /// Returns the same as options of [`shell`].
    fn shell_options(&self, host: &Host) -> Result<ShellOptions> {
        let root = match &self.root {
            None => ShellRoot::Busybox,
            Some(path) => {
                let path = host.absolute(path);
                match path.metadata() {
                    Ok(found) if found.is_dir() => ShellRoot::Directory(path),
                    Ok(found) if found.is_file() => ShellRoot::Disk(path),
                    _ => {
                        return Err(Error::usage(format!("--root {path}: no such file or directory"))
                            .hint("with --shell, give a file with an ext4 file system or a directory"));
                    }
                }
            }
        };
        Ok(ShellOptions { accelerator: self.accel.into(), root, append: self.append.clone() })
    }
}

pub fn run(args: &BootArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let target = resolve(args, host)?;
    target.notes.iter().for_each(|note| reporter.note(note));
    let cache = Cache::open(&cache_dir(args.cache_dir.as_deref(), host)?, host.uid)?;
    if args.shell {
        if !host.interactive {
            return Err(Error::usage("--shell needs a terminal").hint("run it in one, without pipes"));
        }
        shell(&target, &args.how.shell_options(host)?, &cache, host, reporter)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = boot(&target, &args.how.options()?, &cache, host, reporter)?;
    reporter.clear();
    print(&if args.json { render_json(&report) } else { text(&report) })?;
    report.require()?;
    Ok(ExitCode::SUCCESS)
}

/// Finds the kernel and modules images. An argument that is no directory is a version that was built.
fn resolve(args: &BootArgs, host: &Host) -> Result<BootTarget> {
    let overrides = Overrides { flavor: args.hypervisor.flavor(), arch: args.arch };
    let target = match args.modules.as_deref() {
        None | Some("none") => None,
        Some(text) => match Target::of(text, host) {
            Ok(Target::Layout(path, tag)) => Some((path, tag)),
            _ => return Err(Error::usage(format!("--modules {text}: not an OCI layout"))),
        },
    };
    let modules = match (&target, &args.modules) {
        (Some((layout, tag)), _) => ModulesSource::Layout(ImageRef { layout, tag: tag.as_deref() }),
        (None, Some(_)) => ModulesSource::SameImage,
        (None, None) => ModulesSource::Sibling,
    };
    match Target::of(&args.target, host)? {
        Target::Layout(path, tag) => {
            let image = ImageRef { layout: &path, tag: tag.as_deref() };
            return target::from_layout(&args.target, image, modules, overrides, host.arch);
        }
        Target::File(path) => {
            return Err(Error::usage(format!("{path} is not an OCI layout"))
                .hint("give the image of the kernel as LAYOUT[:TAG]"));
        }
        Target::Version => {}
    }
    if args.modules.is_some() {
        return Err(Error::usage("--modules needs a layout as the kernel, not a version")
            .hint("give the kernel as LAYOUT[:TAG]"));
    }
    images_of_version(&args.target, args.variant, args.output.as_deref(), overrides, host)
}

fn text(report: &BootReport) -> String {
    let mut fields = Fields::new(16);
    fields.add("image", &report.target);
    fields.add("machine", &format!("{}, by {}", report.machine, report.accelerator));
    report.notes.iter().for_each(|note| fields.add("", note));
    fields.add("kernel", report.release.as_deref().unwrap_or("release unknown"));
    fields.add("boot", &boot_line(report));
    let modules = &report.modules;
    fields.add("modules", &modules_line(modules));
    for one in modules.failed.iter().take(MAX_LISTED) {
        fields.add("  REFUSED", &format!("{}: {}", one.module, one.reason));
    }
    if modules.failed.len() > MAX_LISTED {
        fields.add("", &format!("and {} more (--json lists all)", modules.failed.len() - MAX_LISTED));
    }
    let names = modules.without_hardware.iter().map(|one| one.module.rsplit('/').next().unwrap_or_default());
    let names: Vec<&str> = names.take(MAX_LISTED).map(|name| name.trim_end_matches(".ko")).collect();
    fields.add("  no hardware", &names.join(", "));
    let run_checks = report.checks.iter().filter(|check| check.status != CheckStatus::NotRun);
    for (index, check) in run_checks.enumerate() {
        let mark = match check.status {
            CheckStatus::Passed => "passed",
            CheckStatus::Failed if check.is_required => "FAILED",
            CheckStatus::Failed => "failed",
            CheckStatus::Skipped | CheckStatus::NotRun => "skipped",
        };
        let heading = if index == 0 { "checks" } else { "" };
        let what = match &check.text[..] {
            "" => check.what.to_owned(),
            found => format!("{}: {found}", check.what),
        };
        fields.add_at(36, &format!("{heading:15} {mark:8} {}", check.name), &what);
    }
    let warnings = report.issues.len() + report.more_issues;
    fields.add("kernel warnings", &if warnings == 0 { "none".to_owned() } else { warnings.to_string() });
    for issue in report.issues.iter().take(MAX_LISTED) {
        issue.lines.iter().take(6).for_each(|line| fields.add("", line));
    }
    for (index, line) in report.last_lines.iter().enumerate() {
        fields.add(if index == 0 { "last lines" } else { "" }, line);
    }
    fields.add("console", report.console.as_str());
    fields.add("result", if report.passed { "passed" } else { "FAILED" });
    fields.text()
}

fn modules_line(modules: &Modules) -> String {
    if modules.total == 0 {
        return "none".to_owned();
    }
    let mut counts = vec![
        format!("{} loaded", modules.loaded),
        format!("{} without hardware", modules.without_hardware.len()),
        format!("{} refused", modules.failed.len()),
    ];
    counts.extend((modules.not_run > 0).then(|| format!("{} not tested", modules.not_run)));
    counts.join(", ")
}

fn boot_line(report: &BootReport) -> String {
    let whole = crate::util::text::format_duration(Duration::from_secs_f64(report.seconds));
    match (report.seconds_to_init, &report.exit_reason) {
        (Some(seconds), ExitReason::Completed) => {
            format!("{seconds:.2} s to init (kernel clock), {whole} in total")
        }
        (Some(seconds), _) => {
            format!("{seconds:.2} s to init (kernel clock), ended after {whole}")
        }
        (None, _) => format!("did not reach init, ended after {whole}"),
    }
}
