//! The programs and headers that a plan needs, and whether the host has them.

use crate::host::Host;
use crate::host::bubblewrap;
use crate::host::packages::{Dependency, Diagnosis, diagnose, git};
use crate::host::process;
use crate::plan::{Plan, SourceLocation};
use crate::util::error::Result;

/// Checks for everything that `plan` needs on this host.
///
/// # Errors
///
/// No program can be started to look (exit code 4), or kcompile was interrupted.
pub fn examine(plan: &Plan, host: &Host) -> Result<Diagnosis> {
    let host_cc = plan.toolchain.variables.get("HOSTCC").map_or("gcc", String::as_str);
    process::require_proc()?;
    diagnose(dependencies(plan), host_cc, host)
}

/// Returns the programs of the toolchain.
fn toolchain(plan: &Plan) -> Vec<Dependency> {
    let variables = &plan.toolchain.variables;
    let cross = variables.get("CROSS_COMPILE").map_or("", String::as_str);
    let cc = first_word(variables.get("CC").map_or("gcc", String::as_str));
    let host_cc = first_word(variables.get("HOSTCC").map_or("gcc", String::as_str));
    let arch = plan.arch.spec();
    let is_usual_cross = cross.strip_suffix('-') == Some(arch.triple);
    let or_cross = |package| if is_usual_cross { arch.cross_packages } else { [package; 5] };
    let mut dependencies = Vec::new();
    if variables.contains_key("LLVM") {
        dependencies.push(Dependency::program(&cc, "compiles the kernel", ["clang"; 5]));
        dependencies.push(Dependency::program("ld.lld", "links the kernel", ["lld"; 5]));
        dependencies.push(Dependency::program("llvm-objcopy", "strips the kernel", ["llvm"; 5]));
    } else {
        dependencies.push(Dependency::program(&cc, "compiles the kernel", or_cross("gcc")));
        dependencies.push(Dependency::program(
            format!("{cross}ld"),
            "links the kernel",
            or_cross("binutils"),
        ));
        dependencies.push(Dependency::program(
            format!("{cross}objcopy"),
            "strips the kernel",
            or_cross("binutils"),
        ));
    }
    if host_cc != cc {
        dependencies.push(Dependency::program(&host_cc, "compiles the kernel's own tools", ["gcc"; 5]));
    }
    dependencies
}

fn dependencies(plan: &Plan) -> Vec<Dependency> {
    let mut dependencies = vec![Dependency::program("make", "runs the kernel's build", ["make"; 5])];
    dependencies.extend(toolchain(plan));
    dependencies.extend([
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
    if crate::kbuild::wants_modules(plan) {
        dependencies.push(Dependency::program("depmod", "indexes the modules", ["kmod"; 5]));
    }
    let settings = crate::plan::requested_settings(plan);
    let on = |symbol: &str| settings.get(symbol).is_some_and(|settings| settings.value == "y");
    if on("MODULE_SIG") || on("SYSTEM_TRUSTED_KEYRING") {
        let why = "signs modules and embeds certificates";
        let packages = ["libssl-dev", "openssl-devel", "openssl", "openssl-dev", "libopenssl-devel"];
        dependencies.push(Dependency::header("openssl/opensslv.h", why, packages));
        dependencies.push(Dependency::program("openssl", why, ["openssl"; 5]));
    }
    if on("DEBUG_INFO_BTF") {
        let packages = ["pahole", "dwarves", "pahole", "pahole", "dwarves"];
        dependencies.push(Dependency::program("pahole", "writes BTF", packages));
    }
    if !plan.patches.is_empty() || matches!(plan.source.location, SourceLocation::Git { .. }) {
        dependencies.push(git());
    }
    if matches!(plan.source.location, SourceLocation::Apt { .. }) {
        let packages = ["apt", "", "", "", ""];
        dependencies.push(Dependency::program("apt-get", "downloads the kernel's source package", packages));
    }
    if let Some(launcher) = &plan.toolchain.launcher {
        dependencies.push(Dependency::program(first_word(launcher), "was given with --launcher", [""; 5]));
    }
    dependencies.push(bubblewrap::dependency());
    dependencies
}

fn first_word(command: &str) -> String {
    command.split_whitespace().next().unwrap_or_default().to_owned()
}
