//! The value of `--toolchain`, and the options that contradict it.

use crate::catalog::project::Project;
use crate::cli::args::{KbuildArgs, MakeArgs};
use crate::kbuild::sandbox::SandboxMode;
use crate::kernel::{CompilerFamily, ToolchainSpec};
use crate::util::error::{Error, Result};

/// Returns `--toolchain`, or else the project's toolchain.
pub fn find<'a>(make: &'a MakeArgs, project: &'a Project) -> Option<&'a ToolchainSpec> {
    make.kbuild.toolchain.as_ref().or(project.defaults.toolchain.as_ref())
}

/// Returns whether the toolchain implies `--llvm`.
pub fn is_llvm(spec: &ToolchainSpec) -> bool {
    matches!(spec, ToolchainSpec::KernelOrg(compiler) if compiler.family == CompilerFamily::Llvm)
}

/// Checks that no other option contradicts `--toolchain`.
///
/// # Errors
///
/// One does (exit code 2).
pub fn check_options(spec: &ToolchainSpec, kbuild: &KbuildArgs) -> Result<()> {
    let KbuildArgs { cc, llvm, cross_compile, sandbox, .. } = kbuild;
    let compiler = match spec {
        ToolchainSpec::Host => return Ok(()),
        ToolchainSpec::Oci(_) | ToolchainSpec::Registry(_) if *sandbox == SandboxMode::Off => {
            return Err(Error::usage(format!("--toolchain {spec}: its tools run in a sandbox only"))
                .hint("remove --sandbox off"));
        }
        ToolchainSpec::Oci(_) | ToolchainSpec::Registry(_) => return Ok(()),
        ToolchainSpec::KernelOrg(compiler) => compiler,
    };
    let is_gcc_as_llvm = *llvm && compiler.family == CompilerFamily::Gcc;
    let given =
        [("--cc", cc.is_some()), ("--cross-compile", cross_compile.is_some()), ("--llvm", is_gcc_as_llvm)];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            Err(Error::usage(format!("--toolchain {spec} and {option} choose two compilers"))
                .hint(format!("remove one of them, since --toolchain implies what {option} sets")))
        }
    }
}
