//! `kcompile push`: copies images to a registry.

use crate::cli::args::ProgressArgs;
use crate::cli::output::{ItemsPrinter, print, render_items};
use crate::cli::target::references;
use crate::host::{Host, packages};
use crate::image::push::{self, ExtraTags, ImageCopy, OverwritePolicy, ReferrerPolicy, Registry};
use crate::image::signature::SigningKey;
use crate::oci::read::{Reference, layouts_in};
use crate::report::Reporter;
use crate::util::error::Result;
use camino::Utf8PathBuf;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  skopeo login docker.io
  kcompile push docker.io/foobar                              all images in out/
  kcompile push ghcr.io/foobar out/flintlock-kernel:6.1.7     one image
  kcompile push localhost:5000/test --tls-verify=false        without TLS
  kcompile push docker.io/foobar --tag-series --tag-build     more tags

The repository is the prefix and the layout's name: out/flintlock-kernel:6.1.7 is pushed to \
docker.io/foobar/flintlock-kernel:6.1.7. Attachments go to the repository of their image. kcompile \
replaces a tag that exists with another digest, and prints a note. --tag-series moves a tag only to a \
newer version, also with --no-overwrite. The digits of --tag-build are the first of the plan's digest.

Exit codes: 0 ok, 1 tag exists with another digest and --no-overwrite is given, or it is the tag of a \
build, 2 usage error, \
3 layout is damaged, or the registry refuses it or serves other bytes, 4 skopeo is not installed.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PushArgs {
    /// Registry and prefix, such as docker.io/foobar
    #[arg(value_name = "REGISTRY/PREFIX")]
    pub prefix: String,
    /// Layouts, or images as LAYOUT:TAG [default: all]
    ///
    /// The default is all layouts in the output directory.
    #[arg(value_name = "LAYOUT")]
    pub layouts: Vec<Utf8PathBuf>,
    /// Directory with the layouts
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub output: Utf8PathBuf,
    /// Check certificates
    ///
    /// `false` also allows a registry without TLS.
    #[arg(
        long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true
    )]
    pub tls_verify: bool,
    /// Read credentials from FILE [default: skopeo's]
    ///
    /// `skopeo login --authfile FILE` writes it.
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<Utf8PathBuf>,
    /// Do not push SBOM, provenance and receipt
    #[arg(long)]
    pub no_attest: bool,
    /// Push nothing if a tag has another digest
    ///
    /// kcompile looks up each tag in the registry.
    #[arg(long)]
    pub no_overwrite: bool,
    /// Also move the tag of the series, such as 6.1
    ///
    /// The tag moves to the newest version that is pushed.
    #[arg(long)]
    pub tag_series: bool,
    /// Also set a tag of the build
    ///
    /// An example is 6.1.192-8f2a91c0. No other image ever replaces this tag.
    #[arg(long)]
    pub tag_build: bool,
    /// Sign with this sigstore private key
    ///
    /// skopeo signs all images and their attachments. `skopeo generate-sigstore-key` makes a key.
    #[arg(long, value_name = "KEY", requires = "sign_passphrase")]
    pub sign: Option<Utf8PathBuf>,
    /// Read the passphrase of the key from FILE
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub sign_passphrase: Option<Utf8PathBuf>,
    /// Retries after a failure
    ///
    /// kcompile tries again if the registry or the network fails.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub retry_times: u16,
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Print the skopeo commands and push nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn push(args: &PushArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let registry = Registry {
        prefix: args.prefix.clone(),
        tls_verify: args.tls_verify,
        authfile: args.authfile.as_deref().map(|path| host.absolute(path)),
        retry_times: args.retry_times,
        signing_key: args.sign.as_deref().zip(args.sign_passphrase.as_deref()).map(|(key, passphrase)| {
            SigningKey { path: host.absolute(key), passphrase_file: host.absolute(passphrase) }
        }),
    };
    let references = match &args.layouts[..] {
        [] => {
            let layouts = layouts_in(&host.absolute(&args.output))?;
            layouts.into_iter().map(|layout| Reference { layout, tag: None }).collect()
        }
        layouts => references(layouts, host)?,
    };
    let referrers = if args.no_attest { ReferrerPolicy::Skip } else { ReferrerPolicy::Push };
    let overwrite = if args.no_overwrite { OverwritePolicy::Refuse } else { OverwritePolicy::Warn };
    let extra = ExtraTags { series: args.tag_series, build: args.tag_build };
    let copies = push::copies(&references, referrers, extra, &registry, reporter)?;
    let json = |copy: &ImageCopy| json!({ "destination": copy.destination(), "digest": copy.digest().oci() });
    if args.dry_run && args.json {
        let with_command = |copy: &ImageCopy| {
            let mut item = json(copy);
            item["command"] = copy.command(&registry, &host.cwd).to_string().into();
            item
        };
        print(&render_items(&copies.iter().map(with_command).collect::<Vec<_>>()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        for copy in &copies {
            print(&format!("{}\n", copy.command(&registry, &host.cwd)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    packages::examine_push(host)?.require()?;
    let mut items = ItemsPrinter::default();
    let pushed = push::push(&copies, overwrite, &registry, host, reporter, |copy| {
        if args.json {
            return items.add(&json(copy));
        }
        print(&format!("{} {}\n", copy.destination(), copy.digest().oci()))
    });
    if args.json {
        items.finish(pushed)?;
    } else {
        pushed?;
    }
    Ok(ExitCode::SUCCESS)
}
