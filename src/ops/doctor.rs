//! The programs and headers that a plan needs, and whether the host has them.

use crate::host::Host;
use crate::host::bubblewrap;
use crate::host::packages::{Dependency, Diagnosis, diagnose, git};
use crate::host::process;
use crate::kernel::Arch;
use crate::plan::{Plan, SourceLocation};
use crate::util::error::{Error, Result};
use crate::util::text::sanitize_line;
use std::collections::BTreeSet;

/// Checks for everything that `plan` needs on this host.
///
/// # Errors
///
/// No program can be started to look (exit code 4), or kcompile was interrupted.
///
/// Exit code 4 if a compiler is there, but does not run.
pub fn examine(plan: &Plan, host: &Host) -> Result<Diagnosis> {
    process::require_proc()?;
    let diagnosis = diagnose(dependencies(plan), variable(plan, "HOSTCC"), host)?;
    for (tool, key) in [("cc", "CC"), ("hostcc", "HOSTCC")] {
        let command = variable(plan, key);
        let is_there = programs(command).iter().all(|program| host.find_tool(program).is_some());
        if is_there && !plan.toolchain.identity.contains_key(tool) {
            return Err(Error::host(format!("`{command} --version` fails, so it is not a compiler"))
                .hint("choose another compiler with --cc"));
        }
        if let Some(toolchain) = host.toolchain_name().filter(|_| is_there) {
            check_compiler(command, toolchain, host)?;
        }
    }
    Ok(diagnosis)
}

/// Returns the command that is a variable of make.
fn variable<'a>(plan: &'a Plan, key: &str) -> &'a str {
    plan.toolchain.variables.get(key).map_or("gcc", String::as_str)
}

/// Checks that a compiler of `--toolchain` works.
///
/// # Errors
///
/// It cannot compile an empty file (exit code 4).
fn check_compiler(compiler: &str, toolchain: &str, host: &Host) -> Result<()> {
    let argv = shlex::split(compiler).unwrap_or_default();
    let Some((program, args)) = argv.split_first() else { return Ok(()) };
    let args = args.iter().map(String::as_str).chain(["-c", "-x", "c", "/dev/null", "-o", "/dev/null"]);
    let output = host.tool_output(program, &args.collect::<Vec<_>>())?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = sanitize_line(stderr.lines().next().unwrap_or("it printed no error"));
    Err(Error::host(format!("--toolchain {toolchain}: the compiler {compiler} cannot compile: {why}"))
        .hint("choose another toolchain"))
}

/// Returns the programs of the toolchain.
fn toolchain(plan: &Plan) -> Vec<Dependency> {
    let cross = plan.toolchain.variables.get("CROSS_COMPILE").map_or("", String::as_str);
    let (cc, host_cc) = (variable(plan, "CC"), variable(plan, "HOSTCC"));
    let compiler = |command: &str, why| {
        let option = if command == format!("{cross}gcc") { "--cross-compile" } else { "--cc" };
        let programs = programs(command).into_iter();
        programs.map(move |name| packaged(&name, cross, why).given_by(option)).collect::<Vec<_>>()
    };
    let mut dependencies = compiler(cc, "compiles the kernel");
    if plan.toolchain.variables.contains_key("LLVM") {
        dependencies.push(Dependency::program("ld.lld", "links the kernel", ["lld"; 5]));
        dependencies.push(Dependency::program("llvm-objcopy", "strips the kernel", ["llvm"; 5]));
    } else {
        for (tool, why) in [("ld", "links the kernel"), ("objcopy", "strips the kernel")] {
            let tool = packaged(&format!("{cross}{tool}"), cross, why);
            dependencies.push(tool.given_by("--cross-compile"));
        }
    }
    if host_cc != cc {
        dependencies.extend(compiler(host_cc, "compiles the kernel's own tools"));
    }
    dependencies
}

/// Returns a program of the toolchain with its package, if kcompile knows it.
fn packaged(name: &str, cross: &str, why: &'static str) -> Dependency {
    let of_prefix = Arch::find(|spec| cross.strip_suffix('-') == Some(spec.triple));
    let packages = match (name, of_prefix) {
        ("gcc" | "clang", _) => [if name == "gcc" { "gcc" } else { "clang" }; 5],
        ("ld" | "objcopy", _) => ["binutils"; 5],
        (_, Some(arch)) if name.starts_with(cross) => arch.spec().cross_packages,
        _ => [""; 5],
    };
    Dependency::program(name, why, packages)
}

/// Returns the programs that a command runs: the first one, and the compiler that it starts as in `ccache gcc -m64`.
fn programs(command: &str) -> Vec<String> {
    let words = shlex::split(command).unwrap_or_default();
    let words = words.iter().take_while(|word| !word.starts_with('-')).filter(|word| !word.contains('='));
    let words: Vec<&String> = words.collect();
    let mut programs: Vec<String> =
        words.first().into_iter().chain(words.last()).map(|word| (*word).clone()).collect();
    programs.dedup();
    programs
}

/// Returns everything that make and its programs need.
fn build_tools(plan: &Plan) -> Vec<Dependency> {
    let mut dependencies = vec![Dependency::program("make", "runs the kernel's build", ["make"; 5])];
    dependencies.extend(toolchain(plan));
    let settings = crate::plan::requested_settings(plan);
    let is_on = |symbol: &str| settings.get(symbol).is_some_and(|settings| settings.value == "y");
    dependencies.extend(common_tools(&CommonTools {
        depmod: crate::kbuild::wants_modules(plan),
        openssl: is_on("MODULE_SIG") || is_on("SYSTEM_TRUSTED_KEYRING"),
        pahole: is_on("DEBUG_INFO_BTF"),
    }));
    if let Some(launcher) = &plan.toolchain.launcher {
        let program = launcher.split_whitespace().next().unwrap_or_default();
        let launcher = Dependency::program(program, "runs the compiler", [""; 5]);
        dependencies.push(launcher.given_by("--launcher"));
    }
    dependencies
}

/// Which tools of some configs a build needs.
struct CommonTools {
    depmod: bool,
    openssl: bool,
    pahole: bool,
}

/// Returns what make needs besides the compiler and binutils.
fn common_tools(needed: &CommonTools) -> Vec<Dependency> {
    let mut dependencies = Vec::from([
        Dependency::program("flex", "generates the kernel's Kconfig parser", ["flex"; 5]),
        Dependency::program("bison", "generates the kernel's Kconfig parser", ["bison"; 5]),
        Dependency::program("bc", "computes a header of the kernel", ["bc"; 5]),
        Dependency::program("perl", "generates sources of the kernel", ["perl"; 5]),
        Dependency::header(
            "stdlib.h",
            "the kernel's own tools",
            ["libc6-dev", "glibc-devel", "glibc", "musl-dev", "glibc-devel"],
        ),
        Dependency::header(
            "linux/types.h",
            "the kernel's own tools",
            ["linux-libc-dev", "kernel-headers", "linux-api-headers", "linux-headers", "linux-glibc-devel"],
        ),
        Dependency::header(
            "libelf.h",
            "objtool, which checks every object",
            ["libelf-dev", "elfutils-libelf-devel", "libelf", "elfutils-dev", "libelf-devel"],
        ),
    ]);
    if needed.depmod {
        dependencies.push(Dependency::program("depmod", "indexes the modules", ["kmod"; 5]));
    }
    if needed.openssl {
        let why = "signs modules and embeds certificates";
        let packages = ["libssl-dev", "openssl-devel", "openssl", "openssl-dev", "libopenssl-devel"];
        dependencies.push(Dependency::header("openssl/opensslv.h", why, packages));
        dependencies.push(Dependency::program("openssl", why, ["openssl"; 5]));
    }
    if needed.pahole {
        let packages = ["pahole", "dwarves", "pahole", "pahole", "dwarves"];
        dependencies.push(Dependency::program("pahole", "writes BTF", packages));
    }
    dependencies
}

/// Packages of a toolchain that no plan requires: what the kernel's Makefiles call if it is there, the programs
/// that compress a kernel or its initramfs, and ccache for `--launcher ccache`.
const OPTIONAL_PACKAGES: [&str; 6] = ["ccache", "cpio", "lz4", "pkg-config", "xz-utils", "zstd"];

/// Returns the Debian packages with everything that a build of any kernel needs. The compiler is for `own`, with
/// cross compilers for the other `arches`.
pub fn debian_packages(own: Arch, arches: &[Arch]) -> BTreeSet<&'static str> {
    let everything = CommonTools { depmod: true, openssl: true, pahole: true };
    let common = common_tools(&everything).into_iter().map(|tool| tool.packages[0]);
    let foreign = arches.iter().filter(|arch| **arch != own).map(|arch| arch.spec().cross_packages[0]);
    common.chain(foreign).chain(["binutils", "gcc", "make"]).chain(OPTIONAL_PACKAGES).collect()
}

fn dependencies(plan: &Plan) -> Vec<Dependency> {
    let mut dependencies: Vec<_> = build_tools(plan).into_iter().map(Dependency::in_toolchain).collect();
    if !plan.patches.is_empty() || matches!(plan.source.location, SourceLocation::Git { .. }) {
        dependencies.push(git());
    }
    if matches!(plan.source.location, SourceLocation::Apt { .. }) {
        let packages = ["apt", "", "", "", ""];
        dependencies.push(Dependency::program("apt-get", "downloads the kernel's source package", packages));
    }
    dependencies.push(bubblewrap::dependency());
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_has_all_packages_that_scripts_install() {
        let scripts = include_str!("../../scripts/packages");
        let packages = debian_packages(Arch::Amd64, &[Arch::Amd64, Arch::Arm64]);
        for variable in ["kcompile_packages=", "kernel_packages="] {
            let line = scripts.lines().find_map(|line| line.strip_prefix(variable)).unwrap();
            for package in line.trim_matches('"').split(' ').filter(|package| *package != "bubblewrap") {
                assert!(packages.contains(package), "{package} is not in {packages:?}");
            }
        }
        assert!(packages.contains("gcc-aarch64-linux-gnu") && !packages.contains("gcc-x86-64-linux-gnu"));
    }
}
