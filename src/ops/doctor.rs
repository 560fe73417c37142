//! What a plan needs of the host, and whether it is there.

use crate::host::Host;
use crate::host::bubblewrap;
use crate::host::packages::{Dependency, Diagnosis, diagnose, git};
use crate::plan::{Plan, SourceLocation};

/// Looks for all that `plan` needs on this host.
pub fn examine(plan: &Plan, host: &Host) -> Diagnosis {
    let host_cc = plan.toolchain.variables.get("HOSTCC").map_or("gcc", String::as_str);
    diagnose(dependencies(plan), host_cc, host)
}

fn dependencies(plan: &Plan) -> Vec<Dependency> {
    let program = |name: &str, why, packages| Dependency::program(name, why, packages);
    let same = |package| [package; 5];
    let variables = &plan.toolchain.variables;
    let cross = variables.get("CROSS_COMPILE").map_or("", String::as_str);
    let first_word = |command: &str| command.split_whitespace().next().unwrap_or_default().to_owned();
    let cc = first_word(variables.get("CC").map_or("gcc", String::as_str));
    let host_cc = first_word(variables.get("HOSTCC").map_or("gcc", String::as_str));
    let arch = plan.arch.spec();
    let is_usual_cross = cross.strip_suffix('-') == Some(arch.triple);
    let or_cross = |package| if is_usual_cross { arch.cross_packages } else { same(package) };
    let mut dependencies = vec![program("make", "runs the kernel's build", same("make"))];
    if variables.contains_key("LLVM") {
        dependencies.push(program(&cc, "compiles the kernel", same("clang")));
        dependencies.push(program("ld.lld", "links the kernel", same("lld")));
        dependencies.push(program("llvm-objcopy", "strips the kernel", same("llvm")));
    } else {
        dependencies.push(program(&cc, "compiles the kernel", or_cross("gcc")));
        dependencies.push(program(&format!("{cross}ld"), "links the kernel", or_cross("binutils")));
        dependencies.push(program(&format!("{cross}objcopy"), "strips the kernel", or_cross("binutils")));
    }
    if host_cc != cc {
        dependencies.push(program(&host_cc, "compiles the kernel's own tools", same("gcc")));
    }
    dependencies.extend([
        program("flex", "generates the kernel's Kconfig parser", same("flex")),
        program("bison", "generates the kernel's Kconfig parser", same("bison")),
        program("bc", "computes a header of the kernel", same("bc")),
        program("perl", "generates sources of the kernel", ["perl", "perl", "perl", "perl", "perl"]),
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
    if !plan.images.iter().all(|image| matches!(image.contents, crate::plan::Contents::Kernel { .. })) {
        dependencies.push(program("depmod", "indexes the modules", same("kmod")));
    }
    let settings = crate::plan::requested_settings(plan);
    let on = |symbol: &str| settings.get(symbol).is_some_and(|settings| settings.value == "y");
    if on("MODULE_SIG") || on("SYSTEM_TRUSTED_KEYRING") {
        let why = "signs modules and embeds certificates";
        let packages = ["libssl-dev", "openssl-devel", "openssl", "openssl-dev", "libopenssl-devel"];
        dependencies.push(Dependency::header("openssl/opensslv.h", why, packages));
        dependencies.push(program("openssl", why, same("openssl")));
    }
    if on("DEBUG_INFO_BTF") {
        dependencies.push(program(
            "pahole",
            "writes BTF",
            ["pahole", "dwarves", "pahole", "pahole", "dwarves"],
        ));
    }
    if !plan.patches.is_empty() || matches!(plan.source.location, SourceLocation::Git { .. }) {
        dependencies.push(git());
    }
    if matches!(plan.source.location, SourceLocation::Apt { .. }) {
        dependencies.push(program(
            "apt-get",
            "downloads the kernel's source package",
            ["apt", "", "", "", ""],
        ));
    }
    if let Some(launcher) = &plan.toolchain.launcher {
        dependencies.push(program(&first_word(launcher), "was given with --launcher", same("")));
    }
    dependencies.push(bubblewrap::dependency());
    dependencies
}
