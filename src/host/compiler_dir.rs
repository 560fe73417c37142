//! Compilers of kernel.org in the cache, which come before this host's programs.

use super::Host;
use crate::kernel::Arch;
use crate::util::digest::Sha256;
use camino::{Utf8Path, Utf8PathBuf};

/// An unpacked compiler.
#[derive(Clone, Debug)]
pub struct CompilerDir {
    /// The toolchain, such as `kernel.org:gcc-14.2.0`.
    pub name: String,
    /// The architecture that it compiles for.
    pub arch: Arch,
    /// The digest of its archive.
    pub sha256: Sha256,
    /// The directory on this machine.
    pub path: Utf8PathBuf,
    /// The directory with its programs.
    pub bin: Utf8PathBuf,
    /// The prefix of its programs, such as `x86_64-linux-`. It is empty for LLVM.
    pub prefix: String,
}

impl Host {
    /// Returns this host with the programs of `compilers` before its own.
    pub fn with_compilers(&self, compilers: Vec<CompilerDir>) -> Host {
        let mut host = Host { compilers, ..self.clone() };
        let mut dirs: Vec<&str> = host.compilers.iter().map(|compiler| compiler.bin.as_str()).collect();
        dirs.dedup();
        dirs.extend(self.child_env.get("PATH").map(String::as_str));
        let path = dirs.join(":");
        host.child_env.insert("PATH".to_owned(), path);
        host
    }

    /// Returns the compiler of `--toolchain` that compiles for `arch`.
    pub fn compiler_for(&self, arch: Arch) -> Option<&CompilerDir> {
        self.compilers.iter().find(|compiler| compiler.arch == arch)
    }

    /// Returns whether a program is of such a compiler, whose digest the plan has.
    pub fn is_pinned(&self, program: &Utf8Path) -> bool {
        self.compilers.iter().any(|compiler| program.starts_with(&compiler.path))
    }
}
