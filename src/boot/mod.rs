//! Boots a built image in a virtual machine like that of its hypervisor. The init of kcompile loads
//! every module there and checks what a Kubernetes node needs. The result is a [`BootReport`].

mod console;
mod evaluate;
mod guest;
mod initramfs;
mod machine;
mod module_order;
mod pvh_stub;
mod report;
mod shell;
pub mod target;

pub use guest::RootChoice;
pub use machine::{Accelerator, Vmm};
pub use report::{BootReport, CheckStatus, ExitReason, Modules, Requirement};
pub use shell::{ShellOptions, ShellRoot, busybox, find_static_busybox, shell};
pub use target::BootTarget;

use crate::cache::Cache;
use crate::host::Host;
use crate::host::packages;
use crate::host::process::{self, CommandLine, Stream, WatchEvent};
use crate::kernel::binary::Pvh;
use crate::kernel::{Arch, KernelFormat};
use crate::oci::read::Image;
use crate::report::{Phase, Reporter};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::create_file;
use crate::util::read::Links;
use crate::util::text::format_duration;
use camino::Utf8Path;
use console::Console;
use evaluate::{RunRecord, StopReason, evaluate};
use guest::Guest;
use machine::{Machine, Purpose, RootMedium};
use rustix::fs::Access;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// With a working KVM the first line comes in a fraction of a second.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// An emulated kernel on a busy machine pauses, but not for this long.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);
/// The time to print the rest and to exit after the kernel has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// A boot with a thousand modules prints 200 kB.
const MAX_CONSOLE: usize = 16 << 20;
/// File systems allow names of 255 bytes. This leaves room for a suffix.
const MAX_NAME: usize = 200;
/// The number of lines that are kept of the hypervisor's own output.
const MAX_STDERR_LINES: usize = 20;

/// How to boot, and which requirements to check.
#[derive(Clone, Debug)]
pub struct Options {
    pub vmm: Vmm,
    /// KVM or emulation, or `None` to use what works here.
    pub accelerator: Option<Accelerator>,
    pub root: RootChoice,
    /// Empty means what the kernel's variant is for.
    pub required: Vec<Requirement>,
    /// The time after which a boot hangs.
    pub limit: Duration,
    /// An addition to the kernel's command line.
    pub append: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            vmm: Vmm::default(),
            accelerator: None,
            root: RootChoice::default(),
            required: Vec::new(),
            limit: Duration::from_secs(600),
            append: None,
        }
    }
}

/// Boots `target`. Keeps its console output in the cache, named after the image.
///
/// # Errors
///
/// The host lacks a program (exit code 4), the image is invalid (3), or the files of the virtual
/// machine cannot be made (1). A kernel that does not boot is not an error but a report.
pub fn boot(
    target: &BootTarget,
    options: &Options,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<BootReport> {
    let accelerators = accelerators(target.arch, options, host)?;
    require_host(target.arch, options, host)?;
    let name = file_name(&target.kernel);
    let _booting = cache.lock(&format!("boot-{name}"), reporter)?;
    let scratch = cache.scratch()?;
    let phase = reporter.start(Phase::Boot, &target.name);
    let guest = guest::prepare(target, options.root, &scratch.path, host)?;
    let mut notes = target.notes.clone();
    let is_elf = target.arch.spec().format == KernelFormat::Elf;
    if options.vmm == Vmm::Qemu && is_elf && guest.pvh == Pvh::NoEntry {
        guest::add_pvh_stub(&guest.kernel, &scratch.path, host)
            .map_err(|error| error.hint("use --vmm firecracker, which needs no PVH note"))?;
        notes.push("the kernel has no PVH note, so QEMU boots it through a stub".to_owned());
    }
    let machine = machine(target, options, &guest);
    if !guest.modules.is_empty() && machine.disables_modules(guest.config.as_ref()) {
        let note = "`nomodule` is on the kernel's command line, as it is on Firecracker's default one, so the kernel \
                    loads no module";
        reporter.note(note);
        notes.push(note.to_owned());
    }
    let config = scratch.path.join("vm.json");
    let written = serde_json::to_vec(&machine.firecracker_config(&config)).expect("only string keys");
    std::fs::write(&config, written).context(Kind::Build, || format!("cannot write {config}"))?;

    let log_path = cache.root.join("boots").join(format!("{name}.log"));
    let (modules, limit) = (guest.modules.len(), options.limit);
    let session = Session { machine: &machine, config: &config, log_path: &log_path, modules, limit, host };
    let silence = if accelerators.len() > 1 { FIRST_LINE_TIMEOUT } else { SILENCE_TIMEOUT };
    let mut ended = session.run(accelerators[0], silence)?;
    if let Some(&next) = accelerators.get(1).filter(|_| !ended.console.has_output) {
        let note = silence_note(ended.accelerator, next, &ended.stop_reason);
        reporter.note(&note);
        notes.push(note);
        ended = session.run(next, SILENCE_TIMEOUT)?;
    }
    let run = RunRecord {
        target: target.name.clone(),
        machine: machine.title(),
        accelerator: ended.accelerator,
        has_network: machine.has_network(),
        has_vsock: machine.vsock.is_some() || options.vmm != Vmm::Qemu,
        has_disk_root: guest.root == RootMedium::Disk,
        expected_release: target.release.as_deref(),
        modules: &guest.modules,
        stop_reason: ended.stop_reason,
        seconds: ended.seconds,
        notes,
        console: log_path.clone(),
    };
    let default = [Requirement::default_of(target.variant)];
    let required = if options.required.is_empty() { &default } else { &options.required[..] };
    let report = evaluate(&ended.console, run, required);
    phase.finish(&report.summary());
    Ok(report)
}

/// Fails (exit code 4) if this host lacks a program that boots a kernel of this architecture.
pub fn require_host(arch: Arch, options: &Options, host: &Host) -> Result<()> {
    accelerators(arch, options, host)?;
    let mut dependencies = vec![options.vmm.dependency(arch), guest::compiler_dependency(arch, host)];
    if options.root == RootChoice::Disk {
        dependencies.push(guest::mke2fs());
    }
    packages::diagnose(dependencies, "gcc", host)?.require()
}

/// Returns the layout and the tag of an image as a file name.
fn file_name(image: &Image) -> String {
    let layout = image.layout.file_name().unwrap_or("image");
    let name = image.tag.as_ref().map_or(layout.to_owned(), |tag| format!("{layout}-{tag}"));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    name.chars().take(MAX_NAME).map(|c| if fits(c) { c } else { '-' }).collect()
}

/// Returns the accelerators to try, in this order.
fn accelerators(arch: Arch, options: &Options, host: &Host) -> Result<Vec<Accelerator>> {
    let has_kvm = host.arch == Some(arch) && is_accessible("/dev/kvm");
    let accelerator = match (options.vmm, options.accelerator) {
        (Vmm::Hypervisor(flavor), Some(Accelerator::Emulation)) => {
            return Err(Error::usage(format!("{} has no software emulation", flavor.spec().title))
                .hint("remove --accel tcg, or use --vmm qemu"));
        }
        (Vmm::Hypervisor(_), None) => Some(Accelerator::Kvm),
        (_, given) => given,
    };
    match accelerator {
        Some(Accelerator::Kvm) if !has_kvm => Err(Error::host(format!("cannot use /dev/kvm for {arch}"))
            .hint("KVM needs virtualization and a user in the group kvm; without KVM, use --vmm qemu")),
        None if has_kvm => Ok(vec![Accelerator::Kvm, Accelerator::Emulation]),
        accelerator => Ok(vec![accelerator.unwrap_or(Accelerator::Emulation)]),
    }
}

fn is_accessible(device: &str) -> bool {
    rustix::fs::access(device, Access::READ_OK | Access::WRITE_OK).is_ok()
}

fn machine(target: &BootTarget, options: &Options, guest: &Guest) -> Machine {
    // Virtual machines that run at the same time need different numbers. 0 to 2 are reserved.
    let vsock = is_accessible("/dev/vhost-vsock").then(|| 0x1_0000 + std::process::id());
    let uses_acpi = guest
        .config
        .as_ref()
        .is_some_and(|config| config.enabled("ACPI") && !config.enabled("VIRTIO_MMIO_CMDLINE_DEVICES"));
    Machine {
        vmm: options.vmm,
        arch: target.arch,
        flavor: target.flavor,
        kernel: guest.kernel.clone(),
        disk: guest.disk.clone(),
        root: guest.root.clone(),
        devices_on_command_line: !uses_acpi,
        vsock,
        purpose: Purpose::Checks,
        append: options.append.clone(),
    }
}

/// The inputs of a run that do not depend on the accelerator.
struct Session<'a> {
    machine: &'a Machine,
    config: &'a Utf8Path,
    log_path: &'a Utf8Path,
    /// The number of modules to load.
    modules: usize,
    limit: Duration,
    host: &'a Host,
}

/// A virtual machine that has ended.
struct Ended {
    accelerator: Accelerator,
    console: Console,
    stop_reason: StopReason,
    seconds: f64,
}

impl Session<'_> {
    /// Runs the virtual machine until its kernel has ended or a limit is reached. `silence_limit`
    /// counts until the first output.
    fn run(&self, accelerator: Accelerator, silence_limit: Duration) -> Result<Ended> {
        let Session { machine, config, log_path, .. } = *self;
        let log = create_file(log_path, Links::RefuseAnywhere)
            .context(Kind::Build, || format!("cannot write {log_path}"))?;
        let command = CommandLine {
            program: machine.vmm.program(machine.arch).into(),
            args: machine.args(accelerator, config),
            env: self.host.child_env.clone(),
            cwd: config.parent().unwrap_or(config).to_owned(),
        };
        let mut console = Console::new(self.modules);
        let (started, mut last_output) = (Instant::now(), Instant::now());
        let (mut ended, mut bytes, mut stderr, mut stop_reason) = (None, 0, Vec::new(), None);
        let status = process::watch(&command, &log, |event| {
            match event {
                WatchEvent::Line(Stream::Out, line) => {
                    last_output = Instant::now();
                    bytes += line.len() + 1;
                    console.push_line(line);
                }
                WatchEvent::Line(Stream::Err, line) if stderr.len() < MAX_STDERR_LINES => {
                    stderr.push(console::escape_line(line));
                }
                _ => {}
            }
            let silence = if console.has_output { SILENCE_TIMEOUT } else { silence_limit };
            let why = if bytes > MAX_CONSOLE {
                StopReason::Flood
            } else if console.is_finished() {
                // The rest is the end of a trace, or the kernel's shutdown.
                if ended.get_or_insert_with(Instant::now).elapsed() > DRAIN_TIMEOUT {
                    return ControlFlow::Break(());
                }
                return ControlFlow::Continue(());
            } else if started.elapsed() > self.limit {
                StopReason::OutOfTime(self.limit)
            } else if last_output.elapsed() > silence {
                StopReason::Silent(silence)
            } else {
                return ControlFlow::Continue(());
            };
            stop_reason.get_or_insert(why);
            ControlFlow::Break(())
        })?;
        let stop_reason = stop_reason.unwrap_or(StopReason::Exited { status: status.to_string(), stderr });
        Ok(Ended { accelerator, console, stop_reason, seconds: started.elapsed().as_secs_f64() })
    }
}

/// Returns a note that says why the next accelerator is tried.
fn silence_note(accelerator: Accelerator, next: Accelerator, stop_reason: &StopReason) -> String {
    let why = match stop_reason {
        StopReason::Exited { status, stderr } => {
            let line = stderr.last().map_or_else(String::new, |line| format!(" ({line})"));
            format!("ended with {status}{line}")
        }
        StopReason::Silent(limit) | StopReason::OutOfTime(limit) => {
            format!("printed nothing in {}", format_duration(*limit))
        }
        StopReason::Flood => format!("printed more than {} MiB", MAX_CONSOLE >> 20),
    };
    format!("{accelerator} {why}; trying {next}")
}
