//! `kcompile make`: runs the kernel's make with the user's own targets.

use crate::cli::args::{CompileArgs, ConfigArgs, MakeArgs, Options, TargetArgs};
use crate::cli::output::print;
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, import_bundle, one_request};
use crate::host::Host;
use crate::ops;
use crate::report::Reporter;
use crate::util::error::Result;
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile make 6.1 --fc -- kernelrelease
  kcompile make 6.1 --fc -- drivers/virtio/virtio_mem.s
  kcompile make 6.1 --fc -- W=1 drivers/virtio/
  kcompile make 6.1 --fc -- M=hello modules    compile a module outside the tree

The build directory is the one of `kcompile build` with the same options, and its path is printed. Build the \
kernel before a module outside the tree, because modpost needs its Module.symvers.";

/// The options of `make`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct MakeCommandArgs {
    /// Kernel version: 6.1.7, 6.1, latest, longterm or mainline
    ///
    /// 6.1 is the newest version of its series.
    #[arg(value_name = "VERSION")]
    pub version: String,
    /// Targets and variables for make
    #[arg(value_name = "TARGET", last = true, required = true)]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub make: MakeArgs,
    /// Compiler launcher, such as ccache
    #[arg(long, value_name = "COMMAND", help_heading = "Compiling")]
    pub launcher: Option<String>,
}

impl MakeCommandArgs {
    fn options(&self) -> Options {
        let compile = CompileArgs { launcher: self.launcher.clone(), ..CompileArgs::default() };
        Options { target: self.target.clone(), config: self.config.clone(), compile, ..self.make.options() }
    }
}

pub fn make(args: &MakeCommandArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = args.options();
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, context(&options, &files, host, reporter)?)?;
    let request = one_request(&args.version, &options, &ctx)?;
    let build_dir = ops::make::make(&request, &args.targets, &ctx)?;
    print(&format!("{build_dir}\n"))?;
    Ok(ExitCode::SUCCESS)
}
