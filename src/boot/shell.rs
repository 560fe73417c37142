//! Boots an image in QEMU with a console for the user, on a root file system with busybox or on the user's own.

use super::guest::{self, add_pvh_stub, make_file_system};
use super::machine::{Machine, Purpose, RootMedium};
use super::target::BootTarget;
use super::{Accelerator, Options, Vmm, accelerators, initramfs};
use crate::cache::Cache;
use crate::host::Host;
use crate::host::packages::{self, Dependency};
use crate::host::process::{self, CommandLine};
use crate::image::extract::Images;
use crate::kconfig::Config;
use crate::kernel::KernelFormat;
use crate::kernel::binary::{self, Pvh};
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::make_executable;
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::io::Read;

/// The root file system of the machine.
#[derive(Clone, Debug)]
pub enum ShellRoot {
    /// An initramfs with the host's busybox and the modules of the image.
    Busybox,
    /// A file with an ext4 file system, which is not changed.
    Disk(Utf8PathBuf),
    /// A directory, which is copied to an ext4 file system.
    Directory(Utf8PathBuf),
}

/// How to boot.
#[derive(Clone, Debug)]
pub struct ShellOptions {
    pub accelerator: Option<Accelerator>,
    pub root: ShellRoot,
    /// An addition to the kernel's command line.
    pub append: Option<String>,
}

/// The first process of the initramfs. `@SIZE@` is the size of the terminal.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
ip link set lo up
# The addresses of QEMU's user network.
ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
echo nameserver 10.0.2.3 >/etc/resolv.conf
stty @SIZE@
export HOME=/ PS1='# '
echo "Linux $(uname -r). Exit the shell to end the machine."
setsid cttyhack sh
# Without ACPI there is no poweroff. QEMU ends instead of restarting the machine.
reboot -f
"#;

/// Boots `target` with a console on the terminal, and returns when the machine has ended.
///
/// # Errors
///
/// The host lacks a program (exit code 4), the image is invalid (3) or the root file system cannot be used (2).
pub fn shell(
    target: &BootTarget,
    options: &ShellOptions,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<()> {
    let accelerator = accelerators(target.arch, &machine_options(options), host)?[0];
    let is_elf = target.arch.spec().format == KernelFormat::Elf;
    let scratch = cache.scratch()?;
    let images = Images::of(target.kernel.clone(), target.modules.clone())?;
    let kernel = scratch.path.join("kernel");
    images.kernel(&kernel)?;
    let opened = fs::File::open(&kernel).context(Kind::Build, || format!("cannot read {kernel}"))?;
    let pvh = binary::identify(opened).context(Kind::Fetch, || target.name.clone())?.pvh;
    let needs_stub = is_elf && pvh == Pvh::NoEntry;
    packages::diagnose(dependencies(target, &options.root, needs_stub, host), "gcc", host)?.require()?;
    if needs_stub {
        add_pvh_stub(&kernel, &scratch.path, host)?;
    }
    let (root, disk) = prepare_root(&options.root, &images, &scratch.path, host)?;
    let machine = Machine {
        purpose: Purpose::Shell,
        append: options.append.clone(),
        ..super::machine(target, &machine_options(options), &guest_files(kernel, pvh, disk, root, &images))
    };
    reporter.note(&format!(
        "{}, by {accelerator}: Ctrl-A X ends the machine at once, Ctrl-A H lists the keys",
        machine.title()
    ));
    let command = CommandLine {
        program: machine.vmm.program(machine.arch).into(),
        args: machine.args(accelerator, &scratch.path.join("vm.json")),
        env: host
            .child_env
            .iter()
            .chain(&host.terminal_env)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        cwd: scratch.path.clone(),
    };
    let status = process::run_interactive(&command)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::build(format!("{} failed with {status}", command.program))
        .hint(format!("the command was: {command}")))
}

fn machine_options(options: &ShellOptions) -> Options {
    Options { vmm: Vmm::Qemu, accelerator: options.accelerator, ..Options::default() }
}

fn guest_files(
    kernel: Utf8PathBuf,
    pvh: Pvh,
    disk: Utf8PathBuf,
    root: RootMedium,
    images: &Images,
) -> guest::Guest {
    let config = images.config_text().map(Config::parse);
    guest::Guest { kernel, pvh, disk, root, modules: Vec::new(), config }
}

/// Returns what the host needs for this machine.
fn dependencies(target: &BootTarget, root: &ShellRoot, needs_stub: bool, host: &Host) -> Vec<Dependency> {
    let mut needed = vec![Vmm::Qemu.dependency(target.arch)];
    if needs_stub {
        needed.push(guest::compiler_dependency(target.arch, host));
    }
    match root {
        ShellRoot::Busybox => needed.push(busybox()),
        ShellRoot::Directory(_) => needed.push(guest::mke2fs()),
        ShellRoot::Disk(_) => {}
    }
    needed
}

/// Returns the host's busybox if it is static, or why there is none to use.
pub fn find_static_busybox(host: &Host) -> std::result::Result<Utf8PathBuf, &'static str> {
    let program = host.find_program("busybox").ok_or("is missing")?;
    if is_dynamic(&program).unwrap_or(true) { Err("is not static") } else { Ok(program) }
}

/// Returns the dependency on a static busybox.
pub fn busybox() -> Dependency {
    let packages = ["busybox-static", "busybox", "busybox", "busybox-static", "busybox-static"];
    Dependency::program("busybox", "is the user space of `boot --shell`", packages)
}

/// Makes the root file system. Returns it and the machine's disk.
fn prepare_root(
    root: &ShellRoot,
    images: &Images,
    scratch: &Utf8Path,
    host: &Host,
) -> Result<(RootMedium, Utf8PathBuf)> {
    let disk = scratch.join("disk");
    match root {
        ShellRoot::Disk(path) => Ok((RootMedium::Disk, path.clone())),
        ShellRoot::Directory(path) => {
            make_file_system(path, &disk, host)?;
            Ok((RootMedium::Disk, disk))
        }
        ShellRoot::Busybox => {
            let initramfs = scratch.join("initramfs");
            let tree = scratch.join("root");
            write_busybox_root(&tree, images, host)?;
            let message = || format!("cannot write {initramfs}");
            let mut out = fs::File::create(&initramfs).context(Kind::Build, message)?;
            initramfs::write(tree.as_std_path(), &mut out).context(Kind::Build, message)?;
            guest::make_empty_disk(&disk, 1 << 20)?;
            Ok((RootMedium::Initramfs(initramfs), disk))
        }
    }
}

fn write_busybox_root(tree: &Utf8Path, images: &Images, host: &Host) -> Result<()> {
    let program = host.find_program("busybox").expect("it was looked for");
    if is_dynamic(&program)? {
        return Err(Error::host(format!(
            "{program} is not static, so it does not run without its libraries"
        ))
        .hint("install a static busybox (busybox-static on Debian), or give --root"));
    }
    let message = || format!("cannot write {tree}");
    for dir in ["bin", "dev", "etc"] {
        fs::create_dir_all(tree.join(dir)).context(Kind::Build, message)?;
    }
    fs::copy(&program, tree.join("bin/busybox")).context(Kind::Build, message)?;
    let size = rustix::termios::tcgetwinsize(std::io::stdin());
    let size = size.map_or("sane".to_owned(), |size| format!("rows {} cols {}", size.ws_row, size.ws_col));
    fs::write(tree.join("init"), INIT.replace("@SIZE@", &size)).context(Kind::Build, message)?;
    make_executable(&tree.join("init"))?;
    if images.has_modules() {
        images.modules(tree)?;
    }
    Ok(())
}

/// Returns whether a program needs a dynamic linker, which the section .interp at its beginning names.
fn is_dynamic(program: &Utf8Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = open_file(program, Links::Follow).context(Kind::Host, || format!("cannot read {program}"))?;
    file.take(4096).read_to_end(&mut head).context(Kind::Host, || format!("cannot read {program}"))?;
    Ok(head.windows(4).any(|bytes| bytes == b"/ld-"))
}
