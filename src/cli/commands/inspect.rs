//! `kcompile inspect`: shows what images contain.

use crate::cli::output::{Fields, ItemsPrinter, print, reference};
use crate::cli::target::{one_image, references};
use crate::host::Host;
use crate::image::inspect::{
    self, Consumer, ImageInfo, ImageKind, KernelPath, ProvenanceInfo, ReadCache, ReceiptState,
};
use crate::image::receipt::ImageCacheOrigin;
use crate::kernel::Arch;
use crate::oci::REFERRERS_SUFFIX;
use crate::oci::annotations::{REVISION, SOURCE};
use crate::oci::layer_entries::LayerCompression;
use crate::oci::read::Reference;
use crate::plan::{annotations, with_compiler_names};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::{escape_control, format_size, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile inspect out/firecracker-kernel-bin-amd64:6.1.7
  kcompile inspect --json                   all images in out/
  kcompile inspect oci-archive:images.tar:6.1.7
  kcompile inspect out/flintlock-kernel --as capmvm --registry docker.io/foobar

Exit codes: 0 ok, 2 no such layout or tag, 3 layout is not valid.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct InspectArgs {
    /// Layouts, or images as LAYOUT:TAG [default: all]
    ///
    /// LAYOUT@DIGEST, skopeo's oci:LAYOUT:TAG and the tar file of an oci-archive are accepted, too. The default is all
    /// layouts in the output directory.
    #[arg(value_name = "LAYOUT[:TAG]")]
    pub layouts: Vec<Utf8PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print a microVM specification
    ///
    /// It is the kernel's part, and for flintlock, capmvm, firecracker or cloud-hypervisor.
    #[arg(long = "as", value_name = "CONSUMER", conflicts_with = "json")]
    pub consumer: Option<Consumer>,
    /// Registry of the images, for --as
    ///
    /// It has the prefix of `kcompile push`, too. Without it, the specification has the words REGISTRY/PREFIX.
    #[arg(
        long,
        value_name = "REGISTRY/PREFIX",
        requires = "consumer",
        default_value = "REGISTRY/PREFIX",
        hide_default_value = true
    )]
    pub registry: String,
    /// Architecture, for --as
    ///
    /// It is needed if a tag has several.
    ///
    /// It is amd64 or arm64. The default is the host's.
    #[arg(long, value_name = "ARCH", requires = "consumer")]
    pub arch: Option<Arch>,
}

pub fn inspect(args: &InspectArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let references = references(&args.layouts, host)?;
    if let Some(consumer) = args.consumer {
        let [reference] = &references[..] else {
            return Err(Error::usage("--as needs exactly one image").hint("choose it with LAYOUT:TAG"));
        };
        let arch = args.arch.or(host.arch).map(Arch::name);
        let inspected = inspect::inspect(&one_image(reference, arch)?)?;
        spec(consumer, &inspected, &args.registry, reporter)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut images = Vec::new();
    let mut cache = ReadCache::default();
    let several = references.len() > 1;
    // Attestations are shown with their images.
    let references =
        references.iter().filter(|one| !(several && one.layout.as_str().ends_with(REFERRERS_SUFFIX)));
    for Reference { layout, tag } in references {
        let reader = cache.layout(layout)?;
        let manifest_refs = reader.images(tag.as_deref())?;
        images.extend(manifest_refs.into_iter().map(|manifest_ref| (reader.clone(), manifest_ref)));
    }
    let mut items = ItemsPrinter::default();
    let inspected = images.iter().enumerate().try_for_each(|(index, (reader, manifest_ref))| {
        let inspected = cache.inspect(&reader.image(manifest_ref)?)?;
        if args.json {
            return items.add(&inspected);
        }
        let separator = if index == 0 { "" } else { "\n" };
        print(&format!("{separator}{}", text(&inspected, host)))
    });
    if args.json {
        items.finish(inspected)?;
    } else {
        inspected?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a specification for the image `one`, and for its counterpart in the layout beside it.
fn spec(consumer: Consumer, one: &ImageInfo, registry: &str, reporter: &Reporter) -> Result<()> {
    let sibling = match one.kind {
        ImageKind::Combined => None,
        _ => inspect::counterpart(one)?,
    };
    let (kernel, modules) = match (one.kind, &sibling) {
        (ImageKind::Combined, _) => (one, Some(one)),
        (ImageKind::Modules, Some(kernel)) => (kernel, Some(one)),
        (_, modules) => (one, modules.as_ref()),
    };
    if let Some(modules) = modules {
        inspect::check_pair(kernel, modules)?;
    }
    let fragment = inspect::fragment(consumer, kernel, modules, registry.trim_end_matches('/'))?;
    fragment.notes.iter().for_each(|note| reporter.note(note));
    print(&escape_control(&fragment.text))
}

fn text(image: &ImageInfo, host: &Host) -> String {
    let mut lines = Fields::new(8);
    let version = image.version.as_deref().or(image.release.as_deref()).unwrap_or("?");
    let flavor = image.flavor.map_or_else(String::new, |flavor| format!(" for {}", flavor.spec().title));
    match image.kind {
        ImageKind::Other => {
            lines.add("image", &format!("{}, for {}", image.kind.title(), image.arch));
            lines.add_all("", image.description.iter());
        }
        kind => lines.add("image", &format!("{}: Linux {version}{flavor} on {}", kind.title(), image.arch)),
    }
    lines.add("", &image.digest.oci());
    lines.add_all("created", image.created.iter());
    add_kernels(image, &mut lines);
    if let Some(modules) = &image.modules {
        let place = if modules.directory.is_empty() { "/" } else { &modules.directory };
        let signed = if modules.signed > 0 { format!(", {} signed", modules.signed) } else { String::new() };
        let count = pluralize(modules.count, "module", "modules");
        lines.add("modules", &format!("{count} in {place}, {}{signed}", format_size(modules.bytes)));
        lines.add("", &format!("for Linux {}", modules.releases.join(", ")));
    }
    if let Some(config) = &image.config {
        let counts = format!("{} built in, {} as modules", config.built_in, config.modules);
        lines.add("config", &format!("{}: {counts}", config.place));
        lines.add("", &config.sha256.oci());
    }
    for layer in &image.layers {
        lines.add("layer", &layer_text(layer));
        lines.add("", &layer.digest.oci());
        lines.add("diff_id", &layer.diff_id.oci());
    }
    lines.add_all("source", [image.annotation(SOURCE), image.annotation(REVISION)].into_iter().flatten());
    lines.add_all("tools", image.annotation(annotations::TOOLCHAIN).map(with_compiler_names));
    for (name, key) in [("plan", annotations::PLAN), ("pairing", annotations::PAIRING)] {
        lines.add_all(name, image.annotation(key));
    }
    add_documents(image, host, &mut lines);
    format!("{}\n{}", reference(&image.layout, image.tag.as_deref(), host), lines.text())
}

fn add_kernels(image: &ImageInfo, lines: &mut Fields) {
    for kernel in &image.kernels {
        let names = std::iter::once(&kernel.path).chain(&kernel.other_paths);
        let names = names.map(String::as_str).collect::<Vec<_>>().join(", ");
        lines.add("kernel", &format!("{names}, {}: {}", format_size(kernel.bytes), kernel.format));
        lines.add_all("", kernel.banner.iter());
        lines.add_all("", kernel.build_id.as_ref().map(|id| format!("build id {id}")).iter());
    }
    let name = if image.kernels.is_empty() { "kernel" } else { "" };
    lines.add_all(name, image.kernel_path.as_ref().and_then(kernel_path_text).iter());
}

fn add_documents(image: &ImageInfo, host: &Host, lines: &mut Fields) {
    match &image.receipt {
        ReceiptState::Missing => {}
        ReceiptState::Unreadable { why } => lines.add("receipt", why),
        ReceiptState::Mismatched { path } => {
            lines.add(
                "receipt",
                &format!("{} belongs to another build", crate::ops::context::display_path(path, host)),
            );
        }
        ReceiptState::Matching { path, source_verified, tools, command, image_cache, warnings, .. } => {
            lines.add("receipt", &document(path, host));
            lines.add("", source_verified);
            if image.annotation(annotations::TOOLCHAIN).is_none() {
                let tools: Vec<String> =
                    tools.iter().map(|(tool, version)| format!("{tool}: {version}")).collect();
                lines.add("", &with_compiler_names(&tools.join("; ")));
            }
            lines.add("", &format!("$ {command}"));
            if let Some(ImageCacheOrigin { reference, key }) = image_cache.as_deref() {
                let signed =
                    key.as_ref().map_or("without a signature".to_owned(), |key| format!("signed, key {key}"));
                lines.add("", &format!("from the image cache {reference}, {signed}"));
            }
            warnings.iter().for_each(|warning| lines.add("", &format!("warning: {warning}")));
        }
    }
    if let Some(ProvenanceInfo { path, builder, started, finished, .. }) = &image.provenance {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        lines.add("built", &format!("from {} to {} by {}", text(started), text(finished), text(builder)));
        lines.add("", &document(path, host));
    }
}

/// Returns where a document of an image is, as the user would type it.
fn document(path: &Utf8Path, host: &Host) -> String {
    match inspect::referrers_layout_of(path) {
        Some(layout) => format!("attached in {}", crate::ops::context::display_path(layout, host)),
        None => crate::ops::context::display_path(path, host),
    }
}

/// Describes the path at which the hypervisor looks for the kernel, if it is a link or there is a problem.
fn kernel_path_text(found: &KernelPath) -> Option<String> {
    let KernelPath { path, leads_to, problem, .. } = found;
    match (problem, leads_to) {
        (Some(problem), _) => Some(format!("no kernel at {path}: {problem}")),
        (None, Some(to)) => Some(format!("{path} leads to {to}")),
        (None, None) => None,
    }
}

fn layer_text(layer: &inspect::LayerSummary) -> String {
    let plain =
        format!("{} in {}", format_size(layer.plain_bytes), pluralize(layer.entries, "entry", "entries"));
    let stored = format_size(layer.bytes);
    match LayerCompression::of(&layer.media_type.as_str().into()) {
        Some(LayerCompression::Gzip) => format!("{plain}; {stored} as gzip"),
        Some(LayerCompression::Zstd) => format!("{plain}; {stored} as zstd"),
        _ => format!("{plain}, not compressed"),
    }
}
