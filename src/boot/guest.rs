//! Makes the files of a virtual machine, which are the kernel from its image, and a disk with
//! kcompile's init and the modules of the modules image.

use super::machine::RootMedium;
use super::module_order::{self, Module};
use super::target::BootTarget;
use super::{initramfs, pvh_stub};
use crate::host::Host;
use crate::host::packages::Dependency;
use crate::host::process::{self, CommandLine};
use crate::image::inspect;
use crate::image::kernel_image::kernel_paths;
use crate::kconfig::Config;
use crate::kernel::Arch;
use crate::kernel::binary::{self, Pvh, module};
use crate::oci::layer_entries::MAX_IMAGE;
use crate::oci::read::Image;
use crate::oci::root::{Node, RootFs, Target};
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::text::pluralize;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};

/// The source of init, one translation unit in C that needs no library and no header.
const INIT: &str = concat!(
    include_str!("init/interface.c"),
    include_str!("init/modules.c"),
    include_str!("init/system.c"),
    include_str!("init/netlink.c"),
    include_str!("init/links.c"),
    include_str!("init/nftables.c"),
    include_str!("init/iptables.c"),
    include_str!("init/devices.c"),
    include_str!("init/main.c"),
);
/// The `modules.dep` of a distribution has 1 MB.
const MAX_MODULES_DEP: u64 = 64 << 20;

/// `--root`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RootChoice {
    /// A disk if mke2fs is installed, or else an initramfs
    #[default]
    Auto,
    /// An ext4 file system on a virtio disk, as in a microVM
    Disk,
    /// An initramfs, for a kernel that needs modules to mount a disk
    Initramfs,
}

/// The files of a virtual machine.
pub(super) struct Guest {
    pub kernel: Utf8PathBuf,
    pub pvh: Pvh,
    pub disk: Utf8PathBuf,
    pub root: RootMedium,
    /// The modules in load order.
    pub modules: Vec<Module>,
    /// The kernel's config, if an image has it.
    pub config: Option<Config>,
}

/// Makes the files for `target` in the directory `scratch`.
///
/// # Errors
///
/// An image is invalid (exit code 3) or has no kernel (2), or the compiler or mke2fs fails (1).
pub(super) fn prepare(
    target: &BootTarget,
    choice: RootChoice,
    scratch: &Utf8Path,
    host: &Host,
) -> Result<Guest> {
    let kernel = scratch.join("kernel");
    let tree = scratch.join("root");
    // The mount points of init.
    for dir in ["dev", "proc", "sys", "tmp"] {
        let dir = tree.join(dir);
        fs::create_dir_all(&dir).context(Kind::Build, || format!("cannot make {dir}"))?;
    }
    unpack_kernel(&target.kernel, &kernel)?;
    let message = || format!("{}: the kernel is damaged", target.name);
    let opened = File::open(&kernel).context(Kind::Fetch, message)?;
    let identity = binary::identify(opened).context(Kind::Fetch, message)?;
    if identity.format != binary::expected_format(target.arch) {
        let expected = binary::expected_format(target.arch);
        return Err(Error::fetch(format!(
            "{}: the kernel is {}, expected {expected}",
            target.name, identity.format
        )));
    }
    let modules_image = target.modules.as_ref().unwrap_or(&target.kernel);
    let modules = unpack_modules(modules_image, &tree)?;
    compile_init(target.arch, &tree.join("init"), host)?;

    let disk = scratch.join("disk");
    let root = match choice {
        RootChoice::Disk => RootMedium::Disk,
        RootChoice::Auto if host.find_program("mke2fs").is_some() => RootMedium::Disk,
        _ => RootMedium::Initramfs(scratch.join("initramfs")),
    };
    match &root {
        RootMedium::Disk => make_file_system(&tree, &disk, host)?,
        RootMedium::Initramfs(path) => {
            let mut out = BufWriter::new(File::create(path).context(Kind::Build, cannot("write", &path))?);
            initramfs::write(tree.as_std_path(), &mut out).context(Kind::Build, cannot("write", &path))?;
            out.flush().context(Kind::Build, cannot("write", &path))?;
            make_empty_disk(&disk, 1 << 20)?;
        }
    }
    let config = match (inspect::kernel_config(modules_image)?, &target.modules) {
        (None, Some(_)) => inspect::kernel_config(&target.kernel)?,
        (text, _) => text,
    };
    Ok(Guest { kernel, pvh: identity.pvh, disk, root, modules, config: config.as_deref().map(Config::parse) })
}

/// Copies the kernel out of an image. Follows links inside the image.
fn unpack_kernel(image: &Image, to: &Utf8Path) -> Result<()> {
    let root = image.root()?;
    let paths = kernel_paths();
    let found = paths.iter().find_map(|path| match root.resolve(path) {
        Target::Found(to, Node::File(_)) => Some(to),
        _ => None,
    });
    let Some(found) = found else {
        return Err(Error::usage(format!("{}: the image has no kernel", image.layout))
            .hint(format!("a kernel image has one of the files {}", paths.join(", "))));
    };
    image.visit_files(
        &root,
        |names, _, reader| {
            if names.contains(&found.as_str()) { write_file(to, reader) } else { Ok(()) }
        },
    )
}

/// Writes the decompressed modules of an image to `tree/modules`, and their load order to
/// `tree/order`. Returns the order. Writes no links, so that no file is written through one.
fn unpack_modules(image: &Image, tree: &Utf8Path) -> Result<Vec<Module>> {
    let mut index: Option<(Utf8PathBuf, String)> = None;
    let mut unpacked = BTreeSet::new();
    let mut budget = MAX_IMAGE;
    let root = image.root()?;
    let layout = &image.layout;
    image.visit_files(&root, |names, entry, reader| {
        let as_module = names.iter().find(|name| module::compression(name).is_some());
        let found = *as_module.unwrap_or(&names[0]);
        let name = format!("{layout}: {found}");
        let path = Utf8Path::new(found);
        if path.file_name() == Some("modules.dep") {
            if entry.size > MAX_MODULES_DEP {
                return Err(Error::fetch(format!("{name}: larger than {MAX_MODULES_DEP} bytes")));
            }
            let mut text = String::new();
            reader.read_to_string(&mut text).context(Kind::Fetch, || name.clone())?;
            let dir = path.parent().unwrap_or(Utf8Path::new("")).to_owned();
            if index.replace((dir, text)).is_some() {
                return Err(Error::fetch(format!("{name}: the image has a second modules.dep")));
            }
        } else if as_module.is_some() {
            let plain = module::decompressed(found, reader).context(Kind::Fetch, || name.clone())?;
            let to = Utf8PathBuf::from(module_order::plain_name(found));
            unpack_module(&name, plain, &tree.join("modules").join(&to), &mut budget)?;
            unpacked.insert(to);
        }
        Ok(())
    })?;
    let Some((dir, text)) = index else {
        return match unpacked.first() {
            None => Ok(Vec::new()),
            Some(first) => Err(Error::fetch(format!(
                "{layout}: the image has modules, such as {first}, but no modules.dep"
            ))),
        };
    };
    let order = module_order::load_order(&text)?;
    let module_paths: Vec<Utf8PathBuf> =
        order.iter().map(|module| module_path(&dir.join(&module.path), &root)).collect();
    for path in &module_paths {
        unpacked.remove(path);
    }
    if let Some(first) = unpacked.first() {
        let count = pluralize(unpacked.len(), "module is", "modules are");
        return Err(Error::fetch(format!("{layout}: {count} missing from modules.dep, such as {first}")));
    }
    let lines: String = module_paths.iter().map(|path| format!("/modules/{path}\n")).collect();
    write_file(&tree.join("order"), &mut lines.as_bytes())?;
    Ok(order)
}

/// Returns the path to which a module of `modules.dep` was unpacked. Follows links inside the image.
fn module_path(path: &Utf8Path, root: &RootFs) -> Utf8PathBuf {
    let found =
        ["", ".gz", ".xz", ".zst"].iter().find_map(|end| match root.resolve(&format!("{path}{end}")) {
            Target::Found(to, Node::File(_)) => Some(module_order::plain_name(&to).into()),
            _ => None,
        });
    found.unwrap_or_else(|| path.to_owned())
}

/// Writes a decompressed module to `to`. `budget` is what is left of the limit for all modules.
fn unpack_module(name: &str, plain: impl Read, to: &Utf8Path, budget: &mut u64) -> Result<()> {
    let limit = module::MAX_MODULE.min(*budget);
    let mut plain = plain.take(limit + 1);
    write_file(to, &mut plain)?;
    if plain.limit() == 0 {
        return Err(Error::fetch(if limit < *budget {
            format!("{name}: larger than {limit} bytes")
        } else {
            format!("{name}: all modules together are larger than {MAX_IMAGE} bytes")
        }));
    }
    *budget -= limit + 1 - plain.limit();
    Ok(())
}

/// Writes a file and the directories above it. Replaces the file of an earlier layer.
fn write_file(path: &Utf8Path, bytes: &mut dyn Read) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).context(Kind::Build, cannot("write", path))?;
    }
    let mut file = File::create(path).context(Kind::Build, cannot("write", path))?;
    io::copy(bytes, &mut file).context(Kind::Build, cannot("write", path))?;
    Ok(())
}

/// Returns the compiler for `arch` on this host.
pub(super) fn compiler(arch: Arch, host: &Host) -> String {
    if host.arch == Some(arch) { "gcc".to_owned() } else { format!("{}-gcc", arch.spec().triple) }
}

/// Returns the program that makes a root disk, with its packages.
pub(super) fn mke2fs() -> Dependency {
    Dependency::program("mke2fs", "makes the root disk", ["e2fsprogs"; 5])
}

/// Returns that compiler with its packages.
pub(super) fn compiler_dependency(arch: Arch, host: &Host) -> Dependency {
    let packages = if host.arch == Some(arch) { ["gcc"; 5] } else { arch.spec().cross_packages };
    Dependency::program(compiler(arch, host), "compiles init", packages)
}

fn compile_init(arch: Arch, to: &Utf8Path, host: &Host) -> Result<()> {
    let extra_flags = ["-static", "-fno-pie", "-no-pie", "-Wl,--build-id=none"].map(str::to_owned);
    compile(INIT, &extra_flags, arch, to, host)
}

/// Adds a PVH entry to the ELF file `kernel`, which has none. The entry jumps to the 64-bit entry.
///
/// # Errors
///
/// The stub does not fit, or the compiler fails (exit code 1).
pub(super) fn add_pvh_stub(kernel: &Utf8Path, scratch: &Utf8Path, host: &Host) -> Result<()> {
    let message = || format!("cannot add a PVH entry to {kernel}");
    let program = scratch.join("pvh_stub");
    let mut file = File::options().read(true).write(true).open(kernel).context(Kind::Build, message)?;
    let entry_point = pvh_stub::read(&mut file).context(Kind::Build, message)?;
    let extra_flags = [
        "-m32",
        "-mgeneral-regs-only",
        "-fcf-protection=none",
        "-fno-pic",
        // The first instruction must stay first.
        "-fno-toplevel-reorder",
        "-Wl,-m,elf_i386,--build-id=none,-N,--oformat=binary,-e,enter",
    ];
    let mut extra_flags = extra_flags.map(str::to_owned).to_vec();
    extra_flags.extend([
        format!("-Wl,-Ttext={:#x}", pvh_stub::BASE),
        format!("-DBASE={:#x}", pvh_stub::BASE),
        format!("-DKERNEL_ENTRY={:#x}", entry_point.entry),
    ]);
    compile(pvh_stub::SOURCE, &extra_flags, Arch::Amd64, &program, host)?;
    let program = fs::read(&program).context(Kind::Build, message)?;
    pvh_stub::add(&mut file, &entry_point, &program).context(Kind::Build, message)
}

/// Compiles a program without a C library.
fn compile(source: &str, extra_flags: &[String], arch: Arch, to: &Utf8Path, host: &Host) -> Result<()> {
    let file = to.with_extension("c");
    write_file(&file, &mut source.as_bytes())?;
    let flags = [
        "-std=gnu11",
        "-O2",
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
        "-fno-asynchronous-unwind-tables",
        // Without this, memcpy is compiled to a call of memcpy.
        "-fno-tree-loop-distribute-patterns",
    ];
    let mut args = flags.map(str::to_owned).to_vec();
    args.extend_from_slice(extra_flags);
    args.extend(["-o".to_owned(), to.to_string(), file.to_string()]);
    run(&compiler(arch, host), args, host)?;
    fs::remove_file(&file).context(Kind::Build, || format!("cannot remove {file}"))
}

/// Makes an ext4 file system with the content of `tree`, without root. It has only the features of
/// the first ext4, so that every kernel mounts it.
pub(super) fn make_file_system(tree: &Utf8Path, disk: &Utf8Path, host: &Host) -> Result<()> {
    const BLOCK: u64 = 4096;
    let (mut files, mut bytes) = (0, 0);
    for found in walkdir::WalkDir::new(tree) {
        let message = || format!("cannot read {tree}");
        let size = found.context(Kind::Build, message)?.metadata().context(Kind::Build, message)?.len();
        files += 1;
        bytes += size.next_multiple_of(BLOCK) + BLOCK;
    }
    // Add inodes of 256 bytes, bitmaps and a margin.
    make_empty_disk(disk, (bytes + files * 256 + bytes / 16).next_multiple_of(1 << 20) + (16 << 20))?;
    let args = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-m",
        "0",
        "-O",
        "none,filetype,sparse_super,large_file,dir_index,extent",
        "-N",
        &(files + 64).to_string(),
        "-d",
        tree.as_str(),
        disk.as_str(),
    ];
    run("mke2fs", args.map(str::to_owned).to_vec(), host)
}

pub(super) fn make_empty_disk(path: &Utf8Path, bytes: u64) -> Result<()> {
    let made = File::create_new(path).and_then(|file| file.set_len(bytes));
    made.context(Kind::Build, || format!("cannot write {path}"))
}

/// Runs a program, and returns its first line of standard error if it fails.
fn run(program: &str, args: Vec<String>, host: &Host) -> Result<()> {
    let env = host.child_env.clone();
    let command = CommandLine { program: program.to_owned(), args, env, cwd: host.cwd.clone() };
    let output = process::output(&command)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("no output").to_owned();
    Err(Error::build(format!("{program} failed with {}: {stderr}", output.status))
        .hint(format!("the command was: {command}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_all_modules_together_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        let to = |name: &str| Utf8Path::from_path(dir.path()).unwrap().join(name);
        let mut budget = 150;
        unpack_module("a", &[0; 100][..], &to("a"), &mut budget).unwrap();
        assert_eq!((budget, fs::metadata(to("a")).unwrap().len()), (50, 100));
        unpack_module("b", &[0; 50][..], &to("b"), &mut budget).unwrap();
        let error = unpack_module("c", io::repeat(0), &to("c"), &mut budget).unwrap_err();
        assert_eq!(error.to_string(), "c: all modules together are larger than 4294967296 bytes");
        assert_eq!(fs::metadata(to("c")).unwrap().len(), 1);
    }
}
