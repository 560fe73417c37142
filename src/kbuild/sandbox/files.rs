//! Lists the files that make sees in the sandbox, as arguments of bubblewrap. Later mounts hide earlier ones.

use super::SandboxPaths;
use crate::host::{Host, bind_directories, process};
use crate::kbuild::launcher::Launcher;
use crate::util::error::{Error, Result};
use crate::util::fs::create_dir;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;

/// Directories or links in the root directory.
const ROOT: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What system programs need besides `/usr`, and the directories in which Nix and Guix keep programs.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/terminfo",
    "/nix/store",
    "/gnu/store",
    "/run/current-system/sw",
];
/// Programs of a build that no make variable names. The user's own ones are preferred.
const PROGRAMS: [&str; 10] =
    ["make", "flex", "bison", "bc", "depmod", "openssl", "pahole", "rustc", "bindgen", "gzip"];
/// Interpreters. The system's are preferred, since a user's own may be a script that needs HOME.
const INTERPRETERS: [&str; 2] = ["perl", "python3"];
/// Tools that `CROSS_COMPILE` or `LLVM` selects.
const GNU_TOOLS: [&str; 9] = ["gcc", "ld", "as", "ar", "nm", "objcopy", "objdump", "strip", "readelf"];
const LLVM_TOOLS: [&str; 9] = [
    "clang",
    "ld.lld",
    "llvm-ar",
    "llvm-nm",
    "llvm-objcopy",
    "llvm-objdump",
    "llvm-strip",
    "llvm-readelf",
    "llvm-as",
];

#[derive(Default)]
struct BindArgs(Vec<String>);

impl BindArgs {
    fn add<const N: usize>(&mut self, args: [&str; N]) {
        self.0.extend(args.map(str::to_owned));
    }

    /// Binds the programs of this host.
    fn bind_system(&mut self) {
        for path in SYSTEM {
            self.add(["--ro-bind-try", path, path]);
        }
        self.0.extend(bind_directories("/".into(), &ROOT));
    }

    /// Binds `path` with all mounts below it, read-only. A missing path is not an error.
    fn bind_read_only(&mut self, path: &Utf8Path) {
        if !is_system_path(path) {
            self.add(["--ro-bind-try", path.as_str(), path.as_str()]);
        }
    }

    fn bind_writable(&mut self, path: &Utf8Path) {
        self.add(["--bind", path.as_str(), path.as_str()]);
    }

    /// Binds a program, its directory (whose programs it may run) and the prefix that it was
    /// installed to, such as `/opt/gcc-14` for `/opt/gcc-14/bin/gcc`.
    fn bind_program(&mut self, program: &Utf8Path, home: Option<&Utf8Path>) {
        let is_small =
            |dir: &Utf8Path| dir.parent().is_some() && home.is_none_or(|home| !home.starts_with(dir));
        let real = program.canonicalize_utf8().ok();
        for program in [Some(program), real.as_deref()].into_iter().flatten() {
            let Some(dir) = program.parent().filter(|dir| is_small(dir)) else {
                self.bind_read_only(program);
                continue;
            };
            self.bind_read_only(dir);
            let prefix = dir.parent().filter(|prefix| is_small(prefix));
            let Some(prefix) = prefix.filter(|_| matches!(dir.file_name(), Some("bin" | "sbin"))) else {
                continue;
            };
            if prefix.parent() == home {
                // `~/.local` also holds data.
                ["lib", "lib64", "libexec", "include"]
                    .iter()
                    .for_each(|part| self.bind_read_only(&prefix.join(part)));
            } else {
                self.bind_read_only(prefix);
            }
        }
    }
}

/// Returns whether `path` is already bound, and is not a link out of the system's directories.
fn is_system_path(path: &Utf8Path) -> bool {
    let top = Utf8Path::new("/");
    let is_below = |path: &Utf8Path| ["usr"].iter().chain(&ROOT).any(|dir| path.starts_with(top.join(dir)));
    is_below(path) && path.canonicalize_utf8().is_ok_and(|real| is_below(&real))
}

/// Returns all arguments about files. `env` is the environment of make.
pub(super) fn arguments(
    paths: SandboxPaths<'_>,
    env: &BTreeMap<String, String>,
    host: &Host,
) -> Result<Vec<String>> {
    let mut arguments = BindArgs::default();
    match &host.tool_root {
        Some(root) => arguments.0.extend(root.bind_arguments()),
        None => arguments.bind_system(),
    }
    host.compilers.iter().for_each(|compiler| arguments.bind_read_only(&compiler.path));
    arguments.add(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    if host.tool_root.is_none() {
        let home = host.child_env.get("HOME").map(Utf8Path::new);
        programs(paths, host).iter().for_each(|program| arguments.bind_program(program, home));
    }
    paths.plan.config_paths.iter().for_each(|path| arguments.bind_read_only(path));
    if let Some(launcher) = Launcher::of(&paths.plan.toolchain, paths.build) {
        bind_ccache(&mut arguments, &launcher.environment(env, host, None), host)?;
    }
    paths.tree.external_paths.iter().for_each(|path| arguments.bind_read_only(path));
    arguments.add(["--ro-bind", paths.tree.path.as_str(), paths.tree.path.as_str()]);
    arguments.bind_writable(paths.build);
    arguments.bind_writable(paths.private_dir);
    paths.module_dir.iter().for_each(|dir| arguments.bind_writable(dir));
    // bubblewrap has created the directories that lead to all of these.
    arguments.add(["--remount-ro", "/"]);
    Ok(arguments.0)
}

/// Returns the paths of the plan's programs.
fn programs(paths: SandboxPaths<'_>, host: &Host) -> Vec<Utf8PathBuf> {
    let toolchain = &paths.plan.toolchain;
    let configured = ["CC", "HOSTCC", "LD"].into_iter().filter_map(|key| toolchain.variables.get(key));
    let configured =
        configured.chain(&toolchain.launcher).flat_map(|command| shlex::split(command).unwrap_or_default());
    let prefix = toolchain.variables.get("CROSS_COMPILE").map_or("", String::as_str);
    let names = GNU_TOOLS.iter().flat_map(|tool| [format!("{prefix}{tool}"), (*tool).to_owned()]);
    let names = names.chain(LLVM_TOOLS.into_iter().chain(PROGRAMS).map(str::to_owned));
    let mut found: Vec<Utf8PathBuf> =
        configured.chain(names).filter_map(|name| host.find_program(&name)).collect();
    for name in INTERPRETERS {
        let is_there = ["/usr/bin", "/bin"].iter().any(|dir| Utf8Path::new(dir).join(name).exists());
        found.extend(host.find_program(name).filter(|_| !is_there));
    }
    found.sort();
    found.dedup();
    found
}

/// Binds ccache's settings and, writable, its cache. `env` is ccache's environment.
fn bind_ccache(arguments: &mut BindArgs, env: &BTreeMap<String, String>, host: &Host) -> Result<()> {
    let config_home = env.get("XDG_CONFIG_HOME").map(Utf8PathBuf::from);
    let home = host.child_env.get("HOME").map(Utf8Path::new);
    let config_home = config_home.or(home.map(|home| home.join(".config")));
    let settings = config_home.map(|dir| dir.join("ccache/ccache.conf"));
    let settings = settings.into_iter().chain(env.get("CCACHE_CONFIGPATH").map(Utf8PathBuf::from));
    settings.chain(["/etc/ccache.conf".into()]).for_each(|path| arguments.bind_read_only(&path));
    let dir = process::capture("ccache", &["--get-config", "cache_dir"], env)?
        .ok_or_else(|| Error::host("cannot run ccache: `ccache --get-config cache_dir` failed"))?;
    let dir = host.absolute(Utf8Path::new(dir.trim()));
    create_dir(&dir)?;
    arguments.bind_writable(&dir);
    if let Some(dir) = env.get("CCACHE_TEMPDIR") {
        let dir = host.absolute(Utf8Path::new(dir));
        create_dir(&dir)?;
        arguments.bind_writable(&dir);
    }
    Ok(())
}
