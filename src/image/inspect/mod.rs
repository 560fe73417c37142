//! What is in an image, from one pass over it and without unpacking anything; and, from its annotations
//! and its documents, what it was built from. Everything that an image says of itself is text
//! from outside: it goes through [`escape_control`](crate::util::text::escape_control) before a person sees it.

mod cache;
mod counterpart;
mod documents;
mod image_scan;
pub mod scan;
mod spec;

pub use cache::ReadCache;
pub use counterpart::{check_pair, counterpart, counterpart_image, counterpart_layout};
pub use documents::{ProvenanceInfo, document_name, receipt, referrers_layout_of};
pub use image_scan::{FileContent, ImageScan, KernelFile, KernelPath, release_of_module};
pub use spec::{Consumer, fragment};

use crate::image::kernel_image;
use crate::kconfig::Config;
use crate::kernel::binary::{Kernel, Pvh};
use crate::kernel::{Arch, Flavor};
use crate::oci::layer_entries::LayerInfo;
use crate::oci::read::Image;
use crate::plan::annotations;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use scan::LayerScan;
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// An image and what is in it. Serialised, it is what `inspect --json` prints: field names are part of
/// the contract.
#[derive(Debug, Serialize)]
pub struct ImageInfo {
    /// The layout's directory.
    pub layout: Utf8PathBuf,
    /// Its tag; `None`: it has none.
    pub tag: Option<String>,
    /// Of the manifest.
    #[serde(serialize_with = "as_oci")]
    pub digest: Sha256,
    /// What kind of image it is.
    pub kind: ImageKind,
    /// The kernel's version, as annotated.
    pub version: Option<String>,
    /// `uname -r`: by the kernel's banner, the modules' directory, or the modules themselves.
    pub release: Option<String>,
    /// The hypervisor that it is for.
    pub flavor: Option<Flavor>,
    /// The architecture, as its config says it.
    pub arch: String,
    /// When it was made, as its config says it.
    pub created: Option<String>,
    /// What it is, for people, as annotated.
    pub description: Option<String>,
    /// The place that the hypervisor's configuration names, and what is there.
    pub kernel_path: Option<KernelPath>,
    /// The kernel files.
    pub kernels: Vec<KernelInfo>,
    /// The modules.
    pub modules: Option<ModulesInfo>,
    /// The final `.config`.
    pub config: Option<ConfigInfo>,
    /// The layers.
    pub layers: Vec<LayerSummary>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Of the image's config.
    pub labels: BTreeMap<String, String>,
    /// The receipt, beside the layout or attached.
    pub receipt: ReceiptState,
    /// The provenance, beside the layout or attached.
    #[serde(rename = "provenance")]
    pub provenance: Option<ProvenanceInfo>,
    /// All that was found, for those who compare.
    #[serde(skip)]
    pub scan: ImageScan,
}

/// What kind of image it is, by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// Only a kernel.
    Kernel,
    /// Only modules.
    Modules,
    /// Both.
    Combined,
    /// Neither.
    Other,
}

impl ImageKind {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            ImageKind::Kernel => "a kernel",
            ImageKind::Modules => "kernel modules",
            ImageKind::Combined => "a kernel and its modules",
            ImageKind::Other => "not a kernel image",
        }
    }
}

/// A kernel file.
#[derive(Debug, Serialize)]
pub struct KernelInfo {
    /// Its path in the image.
    pub path: String,
    /// Its other names there.
    #[serde(rename = "also_at")]
    pub other_paths: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// What it is, in words.
    pub format: String,
    /// Has it the note by which Cloud Hypervisor and QEMU enter it?
    pub pvh: bool,
    /// GNU's build id.
    pub build_id: Option<String>,
    /// What it prints first.
    pub banner: Option<String>,
}

/// The modules.
#[derive(Debug, Serialize)]
pub struct ModulesInfo {
    /// The directory that `modules.dep` lies in; empty: the root of the image.
    pub directory: String,
    /// How many there are.
    pub count: usize,
    /// Their bytes, as they are loaded.
    pub bytes: u64,
    /// The releases that they were built for, by their `vermagic`.
    pub releases: Vec<String>,
    /// How many of them are signed.
    pub signed: usize,
}

/// The final `.config`.
#[derive(Debug, Serialize)]
pub struct ConfigInfo {
    /// Its path in the image, or `inside` and that of the kernel.
    #[serde(rename = "place")]
    pub place: String,
    /// Of its bytes.
    pub sha256: Sha256,
    /// How many options are `y`.
    pub built_in: usize,
    /// How many are `m`.
    pub modules: usize,
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerSummary {
    /// Of the blob.
    #[serde(serialize_with = "as_oci")]
    pub digest: Sha256,
    /// Of the plain tar.
    #[serde(serialize_with = "as_oci")]
    pub diff_id: Sha256,
    /// Its media type.
    pub media_type: String,
    /// Of the blob.
    pub bytes: u64,
    /// Of the plain tar.
    #[serde(rename = "plain_bytes")]
    pub plain_bytes: u64,
    /// How many entries it has.
    pub entries: usize,
}

/// The receipt of an image.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ReceiptState {
    /// There is none.
    #[serde(rename = "absent")]
    Missing,
    /// It cannot be read.
    #[serde(rename = "unreadable")]
    Unreadable {
        /// Why.
        #[serde(rename = "why")]
        why: String,
    },
    /// It is of another build of this version.
    #[serde(rename = "of-another")]
    Mismatched {
        /// Where it lies.
        path: Utf8PathBuf,
    },
    /// It is of this image.
    #[serde(rename = "of")]
    Matching {
        /// Where it lies.
        path: Utf8PathBuf,
        /// How the source was verified.
        #[serde(rename = "source_verified")]
        source_verified: String,
        /// Tool and version.
        tools: BTreeMap<String, String>,
        /// Of the plan.
        plan: String,
        /// `uname -r`, as it says.
        #[serde(skip)]
        release: String,
        /// Of the final `.config`, in hexadecimal digits.
        #[serde(skip)]
        config_sha256: String,
        /// The command line that built it.
        command: String,
        /// What the user was told to look at.
        #[serde(rename = "findings")]
        warnings: Vec<String>,
    },
}

impl ImageInfo {
    /// What the image says of itself under this key: in an annotation of its manifest, or else in a label of its config.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).or_else(|| self.labels.get(key)).map(String::as_str)
    }
}

/// Reads all of an image.
///
/// Errors (exit code 3): it breaks a rule, and which.
pub fn inspect(image: &Image) -> Result<ImageInfo> {
    ReadCache::default().inspect(image)
}

/// The final `.config` of the kernel in an image: `config` beside the modules, or `boot/config-<VERSION>` of
/// a combined image; else the one inside the kernel file (CONFIG_IKCONFIG). `None`: there is none.
///
/// Errors (exit code 3): the image breaks a rule, or what should be its config is none.
pub fn kernel_config(image: &Image) -> Result<Option<String>> {
    let scan = inspect(image)?.scan;
    if let Some((_, text)) = scan.kernel_config() {
        return Ok(Some(text.to_owned()));
    }
    match scan.unreadable_configs.first_key_value() {
        Some((path, why)) => Err(Error::fetch(format!("{}: {}: {why}", image.layout, path.escape_debug()))),
        None => Ok(None),
    }
}

/// Summarizes the layers of an image, without its documents.
///
/// Errors (exit code 3): they cannot be merged.
pub fn summarize(image: &Image, layers: &[Rc<LayerScan>]) -> Result<ImageInfo> {
    let flavor = kernel_image::flavor(image);
    let arch = image.config.architecture().to_string();
    let root = image.merge(layers.iter().map(|layer| layer.entries.as_slice()))?;
    let kernel_path =
        flavor.zip(arch.parse().ok()).map(|(flavor, arch)| kernel_image::kernel_path(flavor, arch));
    let scan = ImageScan::of(&root, layers, kernel_path.as_deref());
    let kernels: Vec<KernelInfo> =
        scan.kernels.iter().map(|(path, file)| kernel_info(path, file, &scan)).collect();
    let modules = modules_info(&scan);
    let config = scan.kernel_config().map(|(place, text)| {
        let config = Config::parse(text);
        let count = |value: &str| config.symbols.values().filter(|found| *found == value).count();
        ConfigInfo { place, sha256: Sha256::of(text), built_in: count("y"), modules: count("m") }
    });
    let kind = match (kernels.is_empty(), modules.is_some()) {
        (false, true) => ImageKind::Combined,
        (false, false) => ImageKind::Kernel,
        (true, true) => ImageKind::Modules,
        (true, false) => ImageKind::Other,
    };
    let release = scan.release().or_else(|| image.annotation(annotations::KERNEL_RELEASE));
    let labels = image.config.config().as_ref().and_then(|config| config.labels().clone());
    Ok(ImageInfo {
        layout: image.layout.clone(),
        tag: image.tag.clone(),
        digest: image.digest,
        kind,
        version: image.oci_annotation("version").map(str::to_owned),
        release: release.map(str::to_owned),
        flavor,
        arch,
        created: image.config.created().clone(),
        description: image.oci_annotation("description").map(str::to_owned),
        kernel_path: scan.kernel_path.clone(),
        kernels,
        modules,
        config,
        layers: layers.iter().map(|layer| layer_summary(&layer.info)).collect(),
        annotations: image.manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        labels: labels.unwrap_or_default().into_iter().collect(),
        receipt: ReceiptState::Missing,
        provenance: None,
        scan,
    })
}

fn kernel_info(path: &str, file: &KernelFile, scan: &ImageScan) -> KernelInfo {
    let Kernel { identity, banner, .. } = &*file.kernel;
    let pvh = identity.pvh == Pvh::Entry;
    KernelInfo {
        path: path.to_owned(),
        other_paths: scan.hard_link_names(path).split_off(1),
        bytes: file.size,
        sha256: file.sha256,
        format: format!("{}{}", identity.format, if pvh { " with a PVH note" } else { "" }),
        pvh,
        build_id: identity.build_id.clone(),
        banner: banner.clone(),
    }
}

fn modules_info(scan: &ImageScan) -> Option<ModulesInfo> {
    let is_index = |path: &&String| match path.rsplit_once('/') {
        Some((_, name)) => {
            name == "modules.dep" && (release_of_module(path).is_some() || !scan.modules.is_empty())
        }
        None => *path == "modules.dep",
    };
    let dep = scan.files.keys().find(is_index);
    if dep.is_none() && scan.modules.is_empty() {
        return None;
    }
    let above = |path: &String| path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
    let in_tree = scan.module_dirs.first().map(|release| format!("lib/modules/{release}"));
    let mut releases: Vec<String> =
        scan.modules.values().filter_map(|file| file.module.release().map(str::to_owned)).collect();
    releases.sort();
    releases.dedup();
    Some(ModulesInfo {
        directory: dep.map(above).or(in_tree).unwrap_or_default(),
        count: scan.modules.len(),
        bytes: scan.module_bytes(),
        releases,
        signed: scan.modules.values().filter(|file| file.module.is_signed).count(),
    })
}

fn layer_summary(layer: &LayerInfo) -> LayerSummary {
    LayerSummary {
        digest: layer.digest,
        diff_id: layer.diff_id,
        media_type: layer.media_type.clone(),
        bytes: layer.size,
        plain_bytes: layer.uncompressed_size,
        entries: layer.entries,
    }
}

/// Where the receipt of an image lies, if it is one of ours.
pub fn receipt_path(image: &Image) -> Option<Utf8PathBuf> {
    let (flavor, version) = (kernel_image::flavor(image)?, image.oci_annotation("version")?);
    let arch: Arch = image.config.architecture().to_string().parse().ok()?;
    // It becomes a file's name: what stands in an annotation may be anything.
    let fits = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let output = image.layout.parent().unwrap_or(Utf8Path::new("."));
    fits.then(|| output.join(crate::image::receipt::file_name(flavor, version, arch)))
}

fn as_oci<S: serde::Serializer>(digest: &Sha256, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&digest.oci())
}

impl ReadCache {
    /// Reads all of an image.
    ///
    /// Errors (exit code 3): it breaks a rule, and which.
    pub fn inspect(&mut self, image: &Image) -> Result<ImageInfo> {
        let layers = self.scan(image)?;
        let receipt = documents::receipt(image, self);
        let provenance = documents::provenance(image, self);
        Ok(ImageInfo { receipt, provenance, ..summarize(image, &layers)? })
    }
}
