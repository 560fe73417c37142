//! Boots what was built: the image as it is shipped, in a virtual machine like that of its hypervisor, with
//! an init of our own that loads every module and tries what a Kubernetes node needs. What comes of it
//! is a value, [`Outcome`].

mod console;
mod guest;
mod initramfs;
mod machine;
mod module_order;
mod pvh_stub;
mod result;
pub mod target;

pub use guest::RootChoice;
pub use machine::{Accelerator, Vmm};
pub use result::{Ending, Modules, Outcome, Requirement, Verdict};
pub use target::Subject;

use crate::cache::Cache;
use crate::host::Host;
use crate::host::packages::{self, Need};
use crate::host::process::{self, CommandLine, Seen, Stream};
use crate::kernel::binary::Pvh;
use crate::kernel::{Arch, KernelFormat};
use crate::oci::read::Image;
use crate::report::{Phase, Report};
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::create_file;
use crate::util::read::Links;
use crate::util::text::duration;
use camino::Utf8Path;
use console::Console;
use guest::Guest;
use machine::{Machine, Root};
use result::{Ended, Stopped, judge};
use std::fs::File;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A KVM that works shows a first line in a fraction of a second.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// A kernel that is emulated on a busy machine has its pauses; this is none.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// What a machine gets to end by itself, and to print the rest, when its kernel has come to an end.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// A boot with a thousand modules prints 200 kB.
const LARGEST_CONSOLE: usize = 16 << 20;
/// File systems take names of 255 bytes; an ending comes to this.
const LONGEST_NAME: usize = 200;
/// So many lines of the machine's own program are kept.
const LINES_OF_PROGRAM: usize = 20;

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
    subject: &Subject,
    options: &Options,
    cache: &Cache,
    host: &Host,
    report: &Report,
) -> Result<Outcome> {
    let accelerators = accelerators(subject.arch, options, host)?;
    require_host(subject.arch, options, host)?;
    let name = file_name(&subject.kernel);
    let _booting = cache.lock(&format!("boot-{name}"), report)?;
    let scratch = cache.scratch()?;
    let mut notes = subject.notes.clone();
    let running = report.start(Phase::Boot, &subject.name);
    let guest = guest::prepare(subject, options.root, &scratch.path, host)?;
    let is_elf = subject.arch.spec().format == KernelFormat::Elf;
    if options.vmm == Vmm::Qemu && is_elf && guest.pvh == Pvh::NoEntry {
        guest::add_entry(&guest.kernel, &scratch.path, host)
            .map_err(|error| error.hint("boot it with --vmm firecracker, which needs no such entry"))?;
        notes.push("the kernel has no entry by PVH: QEMU got one in front of its 64-bit entry".to_owned());
    }
    let machine = machine(subject, options, &guest);
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
            program: options.vmm.program(subject.arch).into(),
            args,
            env,
            cwd: scratch.path.clone(),
        };
        let patience = if is_last { LONGEST_SILENCE } else { FIRST_LINE };
        let (console, stopped) = watch(&command, &log, guest.modules.len(), options.limit, patience)?;
        if !console.heard && !is_last {
            let note = silence(accelerator, &stopped);
            report.note(&note);
            notes.push(note);
            continue;
        }
        let ended = Ended {
            subject: subject.name.clone(),
            machine: machine.title(),
            accelerator,
            has_network: machine.has_network(),
            has_vsock: machine.vsock.is_some() || options.vmm != Vmm::Qemu,
            has_disk_root: guest.root == Root::Disk,
            expected_release: subject.release.as_deref(),
            modules: &guest.modules,
            stopped,
            seconds: started.elapsed().as_secs_f64(),
            notes,
            console: log_path,
        };
        let outcome = judge(&console, ended, &options.required);
        running.finish(&outcome.in_short());
        return Ok(outcome);
    }
    unreachable!("there is at least one accelerator, and the last one's outcome is returned")
}

/// Fails (exit code 4) where this host lacks what boots a kernel of this architecture.
pub fn require_host(arch: Arch, options: &Options, host: &Host) -> Result<()> {
    accelerators(arch, options, host)?;
    let mut needs = vec![options.vmm.need(arch), guest::compiler_need(arch, host)];
    if options.root == RootChoice::Disk {
        needs.push(Need::program("mke2fs", "makes the root disk", ["e2fsprogs"; 5]));
    }
    packages::diagnose(needs, "gcc", host).require()
}

/// The layout and the tag of an image, as the name of a file.
fn file_name(image: &Image) -> String {
    let layout = image.layout.file_name().unwrap_or("image");
    let name = image.tag.as_ref().map_or(layout.to_owned(), |tag| format!("{layout}-{tag}"));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    name.chars().take(LONGEST_NAME).map(|c| if fits(c) { c } else { '-' }).collect()
}

/// What to try, in this order.
fn accelerators(arch: Arch, options: &Options, host: &Host) -> Result<Vec<Accelerator>> {
    let kvm = Utf8Path::new("/dev/kvm");
    let may_use =
        rustix::fs::access(kvm.as_std_path(), rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
            .is_ok();
    let has_kvm = may_use && host.arch == Some(arch);
    let wanted = match (options.vmm, options.accelerator) {
        (Vmm::Hypervisor(flavor), Some(Accelerator::Emulation)) => {
            return Err(Error::usage(format!("{} has no software emulation", flavor.spec().title))
                .hint("leave --accel out, or use --vmm qemu"));
        }
        (Vmm::Hypervisor(_), None) => Some(Accelerator::Kvm),
        (_, given) => given,
    };
    match wanted {
        Some(Accelerator::Kvm) if !has_kvm => Err(Error::host(format!(
            "{kvm} cannot be used here for {arch}"
        ))
        .hint("it is there on a machine with virtualisation, for members of the group kvm; else --vmm qemu")),
        None if has_kvm => Ok(vec![Accelerator::Kvm, Accelerator::Emulation]),
        wanted => Ok(vec![wanted.unwrap_or(Accelerator::Emulation)]),
    }
}

fn machine(subject: &Subject, options: &Options, guest: &Guest) -> Machine {
    let vhost =
        rustix::fs::access("/dev/vhost-vsock", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
    // Numbers of machines that run at the same time must differ; 0 to 2 are taken.
    let vsock = vhost.is_ok().then(|| 0x1_0000 + std::process::id());
    let by_acpi = |config: &crate::kconfig::Config| {
        config.enabled("ACPI") && !config.enabled("VIRTIO_MMIO_CMDLINE_DEVICES")
    };
    Machine {
        vmm: options.vmm,
        arch: subject.arch,
        flavor: subject.flavor,
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
    patience: Duration,
) -> Result<(Console, Stopped)> {
    let mut console = Console::new(modules);
    let (started, mut heard, mut over, mut bytes) = (Instant::now(), Instant::now(), None, 0);
    let (mut said, mut stopped) = (Vec::new(), None);
    let status = process::watch(command, log, |seen| {
        match seen {
            Seen::Line(Stream::Out, line) => {
                heard = Instant::now();
                bytes += line.len() + 1;
                console.see(line);
            }
            Seen::Line(Stream::Err, line) if said.len() < LINES_OF_PROGRAM => said.push(console::shown(line)),
            _ => {}
        }
        if bytes > LARGEST_CONSOLE {
            stopped.get_or_insert(Stopped::Flood);
            return ControlFlow::Break(());
        }
        if console.is_over() {
            // What comes now is the end of a trace, or the kernel's own ending.
            let over = *over.get_or_insert_with(Instant::now);
            return break_if(over.elapsed() > LAST_WORDS);
        }
        let silence = if console.heard { LONGEST_SILENCE } else { patience };
        let why = if started.elapsed() > limit {
            Stopped::OutOfTime(limit)
        } else if heard.elapsed() > silence {
            Stopped::Silent(silence)
        } else {
            return ControlFlow::Continue(());
        };
        stopped.get_or_insert(why);
        ControlFlow::Break(())
    })?;
    let stopped = stopped.unwrap_or(Stopped::No { status: status.to_string(), said });
    Ok((console, stopped))
}

fn break_if(yes: bool) -> ControlFlow<()> {
    if yes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Why the next accelerator is tried.
fn silence(accelerator: Accelerator, stopped: &Stopped) -> String {
    let why = match stopped {
        Stopped::No { status, said } => {
            format!(
                "ended with {status}{}",
                said.last().map_or_else(String::new, |line| format!(" ({line})"))
            )
        }
        Stopped::Silent(silence) => format!("gave no sign of life in {}", duration(*silence)),
        Stopped::OutOfTime(limit) => format!("gave no sign of life in {}", duration(*limit)),
        Stopped::Flood => "printed without end".to_owned(),
    };
    format!("{accelerator} {why}: trying {}", Accelerator::Emulation)
}
