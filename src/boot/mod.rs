//! Boots what was built: the image as it is shipped, in a virtual machine like that of its hypervisor, with
//! an init of our own that loads every module and tries what a Kubernetes node needs. What comes of it
//! is a value, [`BootReport`].

mod console;
mod guest;
mod initramfs;
mod machine;
mod module_order;
mod pvh_stub;
mod report;
pub mod target;

pub use guest::RootChoice;
pub use machine::{Accelerator, Vmm};
pub use report::{BootReport, CheckStatus, ExitReason, Modules, Requirement};
pub use target::BootTarget;

use crate::cache::Cache;
use crate::host::Host;
use crate::host::packages::{self, Dependency};
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
use guest::Guest;
use machine::{Machine, RootMedium};
use report::{RunRecord, StopReason, evaluate};
use std::fs::File;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A KVM that works shows a first line in a fraction of a second.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// A kernel that is emulated on a busy machine has its pauses; this is none.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);
/// What a machine gets to end by itself, and to print the rest, when its kernel has come to an end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// A boot with a thousand modules prints 200 kB.
const MAX_CONSOLE: usize = 16 << 20;
/// File systems take names of 255 bytes; an ending comes to this.
const MAX_NAME: usize = 200;
/// So many lines of the machine's own program are kept.
const MAX_STDERR_LINES: usize = 20;

/// How to boot, and what must be in order.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who makes the machine.
    pub vmm: Vmm,
    /// By KVM only, by emulation only, or by what works here.
    pub accelerator: Option<Accelerator>,
    /// Where the init comes from.
    pub root: RootChoice,
    /// What must be in order.
    pub required: Vec<Requirement>,
    /// When a boot that is not done hangs.
    pub limit: Duration,
    /// More of the kernel's command line.
    pub append: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            vmm: Vmm::default(),
            accelerator: None,
            root: RootChoice::default(),
            required: vec![Requirement::All],
            limit: Duration::from_secs(600),
            append: None,
        }
    }
}

/// Boots `subject`. All of its console is kept in the cache, under the subject's name.
///
/// Errors: this host lacks a program (exit code 4); an image breaks a rule (3); the machine's files cannot
/// be made (1). A kernel that does not boot is no error but an outcome.
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
    let mut notes = target.notes.clone();
    let phase = reporter.start(Phase::Boot, &target.name);
    let guest = guest::prepare(target, options.root, &scratch.path, host)?;
    let is_elf = target.arch.spec().format == KernelFormat::Elf;
    if options.vmm == Vmm::Qemu && is_elf && guest.pvh == Pvh::NoEntry {
        guest::add_pvh_stub(&guest.kernel, &scratch.path, host)
            .map_err(|error| error.hint("boot it with --vmm firecracker, which needs no such entry"))?;
        notes.push("the kernel has no entry by PVH: QEMU got one in front of its 64-bit entry".to_owned());
    }
    let machine = machine(target, options, &guest);
    let config = scratch.path.join("vm.json");
    let written = serde_json::to_vec(&machine.firecracker_config(&config)).expect("only string keys");
    std::fs::write(&config, written).context(Kind::Build, || format!("cannot write {config}"))?;

    let log_path = cache.root.join("boots").join(format!("{name}.log"));
    for (index, &accelerator) in accelerators.iter().enumerate() {
        let log = create_file(&log_path, Links::RefuseAnywhere)
            .context(Kind::Build, || format!("cannot write {log_path}"))?;
        let is_last = index + 1 == accelerators.len();
        let started = Instant::now();
        let args = machine.args(accelerator, &config);
        let env = host.child_env.clone();
        let command = CommandLine {
            program: options.vmm.program(target.arch).into(),
            args,
            env,
            cwd: scratch.path.clone(),
        };
        let silence_limit = if is_last { SILENCE_TIMEOUT } else { FIRST_LINE_TIMEOUT };
        let (console, stop_reason) =
            watch(&command, &log, guest.modules.len(), options.limit, silence_limit)?;
        if !console.has_output && !is_last {
            let note = silence_note(accelerator, &stop_reason);
            reporter.note(&note);
            notes.push(note);
            continue;
        }
        let run = RunRecord {
            target: target.name.clone(),
            machine: machine.title(),
            accelerator,
            has_network: machine.has_network(),
            has_vsock: machine.vsock.is_some() || options.vmm != Vmm::Qemu,
            has_disk_root: guest.root == RootMedium::Disk,
            expected_release: target.release.as_deref(),
            modules: &guest.modules,
            stop_reason,
            seconds: started.elapsed().as_secs_f64(),
            notes,
            console: log_path,
        };
        let report = evaluate(&console, run, &options.required);
        phase.finish(&report.summary());
        return Ok(report);
    }
    unreachable!("there is at least one accelerator, and the last one's outcome is returned")
}

/// Fails (exit code 4) where this host lacks what boots a kernel of this architecture.
pub fn require_host(arch: Arch, options: &Options, host: &Host) -> Result<()> {
    accelerators(arch, options, host)?;
    let mut dependencies = vec![options.vmm.dependency(arch), guest::compiler_dependency(arch, host)];
    if options.root == RootChoice::Disk {
        dependencies.push(Dependency::program("mke2fs", "makes the root disk", ["e2fsprogs"; 5]));
    }
    packages::diagnose(dependencies, "gcc", host).require()
}

/// The layout and the tag of an image, as the name of a file.
fn file_name(image: &Image) -> String {
    let layout = image.layout.file_name().unwrap_or("image");
    let name = image.tag.as_ref().map_or(layout.to_owned(), |tag| format!("{layout}-{tag}"));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    name.chars().take(MAX_NAME).map(|c| if fits(c) { c } else { '-' }).collect()
}

/// What to try, in this order.
fn accelerators(arch: Arch, options: &Options, host: &Host) -> Result<Vec<Accelerator>> {
    let kvm = Utf8Path::new("/dev/kvm");
    let may_use =
        rustix::fs::access(kvm.as_std_path(), rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
            .is_ok();
    let has_kvm = may_use && host.arch == Some(arch);
    let accelerator = match (options.vmm, options.accelerator) {
        (Vmm::Hypervisor(flavor), Some(Accelerator::Emulation)) => {
            return Err(Error::usage(format!("{} has no software emulation", flavor.spec().title))
                .hint("leave --accel out, or use --vmm qemu"));
        }
        (Vmm::Hypervisor(_), None) => Some(Accelerator::Kvm),
        (_, given) => given,
    };
    match accelerator {
        Some(Accelerator::Kvm) if !has_kvm => Err(Error::host(format!(
            "{kvm} cannot be used here for {arch}"
        ))
        .hint("it is there on a machine with virtualisation, for members of the group kvm; else --vmm qemu")),
        None if has_kvm => Ok(vec![Accelerator::Kvm, Accelerator::Emulation]),
        accelerator => Ok(vec![accelerator.unwrap_or(Accelerator::Emulation)]),
    }
}

fn machine(target: &BootTarget, options: &Options, guest: &Guest) -> Machine {
    let vhost =
        rustix::fs::access("/dev/vhost-vsock", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    // Numbers of machines that run at the same time must differ; 0 to 2 are taken.
    let vsock = vhost.is_ok().then(|| 0x1_0000 + std::process::id());
    let by_acpi = |config: &crate::kconfig::Config| {
        config.enabled("ACPI") && !config.enabled("VIRTIO_MMIO_CMDLINE_DEVICES")
    };
    Machine {
        vmm: options.vmm,
        arch: target.arch,
        flavor: target.flavor,
        kernel: guest.kernel.clone(),
        disk: guest.disk.clone(),
        root: guest.root.clone(),
        devices_on_command_line: !guest.config.as_ref().is_some_and(by_acpi),
        vsock,
        append: options.append.clone(),
    }
}

/// Runs the machine and reads its console until the kernel has come to an end, or to none.
fn watch(
    command: &CommandLine,
    log: &File,
    modules: usize,
    limit: Duration,
    silence_limit: Duration,
) -> Result<(Console, StopReason)> {
    let mut console = Console::new(modules);
    let (started, mut last_output, mut over, mut bytes) = (Instant::now(), Instant::now(), None, 0);
    let (mut stderr, mut stop_reason) = (Vec::new(), None);
    let status = process::watch(command, log, |event| {
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
        if bytes > MAX_CONSOLE {
            stop_reason.get_or_insert(StopReason::Flood);
            return ControlFlow::Break(());
        }
        if console.is_finished() {
            // What comes now is the end of a trace, or the kernel's own ending.
            let over = *over.get_or_insert_with(Instant::now);
            return break_if(over.elapsed() > DRAIN_TIMEOUT);
        }
        let silence = if console.has_output { SILENCE_TIMEOUT } else { silence_limit };
        let why = if started.elapsed() > limit {
            StopReason::OutOfTime(limit)
        } else if last_output.elapsed() > silence {
            StopReason::Silent(silence)
        } else {
            return ControlFlow::Continue(());
        };
        stop_reason.get_or_insert(why);
        ControlFlow::Break(())
    })?;
    let stop_reason = stop_reason.unwrap_or(StopReason::Exited { status: status.to_string(), stderr });
    Ok((console, stop_reason))
}

fn break_if(yes: bool) -> ControlFlow<()> {
    if yes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Why the next accelerator is tried.
fn silence_note(accelerator: Accelerator, stop_reason: &StopReason) -> String {
    let why = match stop_reason {
        StopReason::Exited { status, stderr } => {
            format!(
                "ended with {status}{}",
                stderr.last().map_or_else(String::new, |line| format!(" ({line})"))
            )
        }
        StopReason::Silent(silence) => format!("gave no sign of life in {}", format_duration(*silence)),
        StopReason::OutOfTime(limit) => format!("gave no sign of life in {}", format_duration(*limit)),
        StopReason::Flood => "printed without end".to_owned(),
    };
    format!("{accelerator} {why}: trying {}", Accelerator::Emulation)
}
