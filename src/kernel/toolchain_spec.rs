//! Where the tools of a build come from, as `--toolchain` and `kcompile.toml` write it.

use crate::kernel::Arch;
use crate::util::text::is_registry_reference;
use camino::Utf8PathBuf;
use std::fmt;
use std::str::FromStr;

/// The forms of a toolchain, for messages.
const FORMS: &str =
    "host, oci:DIR[:TAG], docker://REFERENCE, kernel.org:gcc-VERSION or kernel.org:llvm-VERSION";
/// Compilers have versions such as `14.2.0` and `21.1.0-rc3`.
const MAX_VERSION: usize = 20;

/// The toolchain of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolchainSpec {
    /// The tools of this host.
    #[default]
    Host,
    /// A root file system in an OCI layout on this machine, as `DIR[:TAG]`.
    Oci(Utf8PathBuf),
    /// A root file system in a registry, as skopeo names it: `docker://docker.io/library/gcc:14`.
    Registry(String),
    /// A compiler that kernel.org publishes. All other tools are those of this host.
    KernelOrg(KernelOrgCompiler),
}

/// A compiler that kernel.org publishes for kernel developers, such as `gcc-14.2.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOrgCompiler {
    pub family: CompilerFamily,
    version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompilerFamily {
    /// GCC and binutils, in an archive for each target.
    Gcc,
    /// clang, lld and the LLVM tools, for all targets.
    Llvm,
}

impl KernelOrgCompiler {
    /// Returns the path of its archive on kernel.org. It runs on `host`, and compiles for `target`.
    ///
    /// The layout is that of <https://www.kernel.org/pub/tools/crosstool/> and
    /// <https://www.kernel.org/pub/tools/llvm/>.
    pub fn archive(&self, host: Arch, target: Arch) -> String {
        let version = &self.version;
        match self.family {
            CompilerFamily::Gcc => {
                let (host, target) = (host.spec().kbuild, target.spec().uname);
                format!(
                    "pub/tools/crosstool/files/bin/{host}/{version}/{host}-gcc-{version}-nolibc-{target}-linux.tar.xz"
                )
            }
            CompilerFamily::Llvm => {
                format!("pub/tools/llvm/files/llvm-{version}-{}.tar.xz", host.spec().uname)
            }
        }
    }

    /// Returns the directory with its programs, below the top directory of its archive.
    pub fn bin_dir(&self, target: Arch) -> String {
        match self.family {
            CompilerFamily::Gcc => format!("{}-linux/bin", target.spec().uname),
            CompilerFamily::Llvm => "bin".to_owned(),
        }
    }

    /// Returns the prefix of its programs, which is empty for LLVM.
    pub fn prefix(&self, target: Arch) -> String {
        match self.family {
            CompilerFamily::Gcc => format!("{}-linux-", target.spec().uname),
            CompilerFamily::Llvm => String::new(),
        }
    }
}

impl fmt::Display for KernelOrgCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            CompilerFamily::Gcc => "gcc",
            CompilerFamily::Llvm => "llvm",
        };
        write!(f, "{family}-{}", self.version)
    }
}

impl FromStr for KernelOrgCompiler {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (family, version) = match name.split_once('-') {
            Some(("gcc", version)) => (CompilerFamily::Gcc, version),
            Some(("llvm", version)) => (CompilerFamily::Llvm, version),
            _ => return Err(()),
        };
        // The version becomes part of a URL.
        let is_version = version.starts_with(|first: char| first.is_ascii_digit())
            && version.len() <= MAX_VERSION
            && version.chars().all(|character| character.is_ascii_alphanumeric() || ".-".contains(character));
        if !is_version {
            return Err(());
        }
        Ok(KernelOrgCompiler { family, version: version.to_owned() })
    }
}

impl ToolchainSpec {
    /// Returns whether it has every tool of a build, so that its digest identifies all of them.
    pub fn has_all_tools(&self) -> bool {
        match self {
            ToolchainSpec::Host | ToolchainSpec::KernelOrg(_) => false,
            ToolchainSpec::Oci(_) | ToolchainSpec::Registry(_) => true,
        }
    }
}

impl fmt::Display for ToolchainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolchainSpec::Host => f.write_str("host"),
            ToolchainSpec::Oci(reference) => write!(f, "oci:{reference}"),
            ToolchainSpec::Registry(reference) => f.write_str(reference),
            ToolchainSpec::KernelOrg(compiler) => write!(f, "kernel.org:{compiler}"),
        }
    }
}

impl FromStr for ToolchainSpec {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        if spec.strip_prefix("docker://").is_some_and(is_registry_reference) {
            return Ok(ToolchainSpec::Registry(spec.to_owned()));
        }
        if let Some(Ok(compiler)) = spec.strip_prefix("kernel.org:").map(str::parse) {
            return Ok(ToolchainSpec::KernelOrg(compiler));
        }
        match spec.strip_prefix("oci:").filter(|reference| !reference.is_empty()) {
            Some(reference) => Ok(ToolchainSpec::Oci(reference.into())),
            None if spec == "host" => Ok(ToolchainSpec::Host),
            None => Err(format!("`{spec}` is not a toolchain; expected {FORMS}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_of_kernel_org_have_archives() {
        let archive = |spec: &str, host, target| match spec.parse() {
            Ok(ToolchainSpec::KernelOrg(compiler)) => compiler.archive(host, target),
            parsed => panic!("{spec}: {parsed:?}"),
        };
        assert_eq!(
            archive("kernel.org:gcc-14.2.0", Arch::Amd64, Arch::Arm64),
            "pub/tools/crosstool/files/bin/x86_64/14.2.0/x86_64-gcc-14.2.0-nolibc-aarch64-linux.tar.xz"
        );
        assert_eq!(
            archive("kernel.org:gcc-14.2.0", Arch::Arm64, Arch::Amd64),
            "pub/tools/crosstool/files/bin/arm64/14.2.0/arm64-gcc-14.2.0-nolibc-x86_64-linux.tar.xz"
        );
        assert_eq!(
            archive("kernel.org:llvm-21.1.0", Arch::Arm64, Arch::Amd64),
            "pub/tools/llvm/files/llvm-21.1.0-aarch64.tar.xz"
        );
        for spec in [
            "kernel.org:gcc-../../x",
            "kernel.org:gcc",
            "kernel.org:tcc-1",
            "kernel.org:gcc-1/2",
            "kernel.org:",
        ] {
            assert!(spec.parse::<ToolchainSpec>().is_err(), "{spec}");
        }
    }
}
