//! `kcompile push`: its words, and what it prints.

use crate::cli::output::print;
use crate::host::{Host, packages};
use crate::image::push::{self, OverwritePolicy, ReferrerPolicy, Registry};
use crate::report::{Progress, Reporter};
use crate::util::error::Result;
use camino::Utf8PathBuf;
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  skopeo login docker.io
  kcompile push docker.io/foobar                              every tag of every layout in out/
  kcompile push ghcr.io/foobar out/flintlock-kernel:6.1.7     one image
  kcompile push localhost:5000/test --tls-verify=false        a registry without TLS

A layout's name becomes its repository's: out/firecracker-kernel-bin-amd64:6.1.7 becomes
docker://docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7. What is attached to an image goes into
the repository of that image. A tag that stands for something else there is named, and replaced.

Exit codes: 0 the registry serves all of it, 1 a tag stands for something else and --no-overwrite is
given, 2 usage, 3 a layout is damaged, or the registry refuses or serves something else, 4 skopeo is
not installed.";

/// The options of `push`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PushArgs {
    /// The registry, and what stands before the names of the images: docker.io/foobar
    #[arg(value_name = "REGISTRY/PREFIX")]
    pub prefix: String,
    /// Layouts, or images as LAYOUT:TAG [default: every layout in the output directory]
    #[arg(value_name = "LAYOUT")]
    pub layouts: Vec<Utf8PathBuf>,
    /// Where the layouts are
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub output: Utf8PathBuf,
    /// Require TLS and check the registry's certificate
    #[arg(
        long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true
    )]
    pub tls_verify: bool,
    /// Credentials as `skopeo login --authfile` writes them [default: where skopeo looks]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<Utf8PathBuf>,
    /// Leave out what is attached to images: bill of materials, provenance, receipt
    #[arg(long)]
    pub no_attest: bool,
    /// Push nothing where a tag in the registry stands for something else
    #[arg(long)]
    pub no_overwrite: bool,
    /// How often skopeo tries again when the registry or the network fails
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retry_times: u16,
    /// How progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub progress: Progress,
    /// Print the commands that would be run
    #[arg(long)]
    pub dry_run: bool,
}

pub fn push(args: &PushArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let registry = Registry {
        prefix: args.prefix.clone(),
        tls_verify: args.tls_verify,
        authfile: args.authfile.as_deref().map(|path| host.absolute(path)),
        retry_times: args.retry_times,
    };
    let references = match &args.layouts[..] {
        [] => push::layouts_in(&host.absolute(&args.output))?,
        layouts => layouts.iter().map(|layout| host.absolute(layout)).collect(),
    };
    let referrers = if args.no_attest { ReferrerPolicy::Skip } else { ReferrerPolicy::Push };
    let overwrite = if args.no_overwrite { OverwritePolicy::Refuse } else { OverwritePolicy::Warn };
    let copies = push::copies(&references, referrers, &registry, reporter)?;
    if args.dry_run {
        for copy in &copies {
            print(&format!("{}\n", copy.command(&registry, &host.cwd)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    packages::examine_push(host).require()?;
    push::push(&copies, overwrite, &registry, host, reporter, |copy| {
        print(&format!("{} {}\n", copy.destination(), copy.digest().oci()))
    })?;
    Ok(ExitCode::SUCCESS)
}
