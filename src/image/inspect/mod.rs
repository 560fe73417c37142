//! Inspects an image in one pass, without unpacking it, and reads its annotations and documents.
//! All texts of an image are untrusted. [`escape_control`](crate::util::text::escape_control)
//! escapes them before they are printed.

mod cache;
mod counterpart;
mod documents;
mod hypervisor;
mod image_scan;
pub mod scan;
mod spec;

pub use cache::ReadCache;
pub use counterpart::{check_pair, counterpart, counterpart_image, counterpart_layout};
pub use documents::{ProvenanceInfo, compiled_files, document_name, receipt, referrers_layout_of};
pub use image_scan::{FileContent, ImageScan, KernelFile, KernelPath, release_of_module};
pub use spec::{Consumer, fragment, summary_fields};

use crate::image::kernel_image;
use crate::image::receipt::ImageCacheOrigin;
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

/// An image and its content, as `inspect --json` prints it. Field names are part of the contract.
#[derive(Debug, Serialize)]
pub struct ImageInfo {
    pub layout: Utf8PathBuf,
    pub tag: Option<String>,
    /// The digest of the manifest.
    #[serde(serialize_with = "as_oci")]
    pub digest: Sha256,
    pub kind: ImageKind,
    /// The kernel's version, from the annotation.
    pub version: Option<String>,
    /// `uname -r`, from the kernel's banner, the modules' directory, or the modules.
    pub release: Option<String>,
    pub flavor: Option<Flavor>,
    /// The architecture, from the image's config.
    pub arch: String,
    /// The date, from the image's config.
    pub created: Option<String>,
    /// The description, from the annotation.
    pub description: Option<String>,
    pub kernel_path: Option<KernelPath>,
    pub kernels: Vec<KernelInfo>,
    pub modules: Option<ModulesInfo>,
    /// The final `.config`.
    pub config: Option<ConfigInfo>,
    pub layers: Vec<LayerSummary>,
    /// The annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The labels of the image's config.
    pub labels: BTreeMap<String, String>,
    pub receipt: ReceiptState,
    pub provenance: Option<ProvenanceInfo>,
    #[serde(skip)]
    pub scan: ImageScan,
}

/// The kind of an image, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    Kernel,
    Modules,
    Combined,
    Other,
}

impl ImageKind {
    /// Returns the name of the kind, for people.
    pub fn title(self) -> &'static str {
        match self {
            ImageKind::Kernel => "a kernel",
            ImageKind::Modules => "kernel modules",
            ImageKind::Combined => "a kernel and its modules",
            ImageKind::Other => "not a kernel image",
        }
    }
}

#[derive(Debug, Serialize)]
pub struct KernelInfo {
    /// Its path in the image.
    pub path: String,
    /// Its other names in the image.
    #[serde(rename = "also_at")]
    pub other_paths: Vec<String>,
    pub bytes: u64,
    #[serde(serialize_with = "as_oci")]
    pub sha256: Sha256,
    /// The format, for people.
    pub format: String,
    /// Whether it has the PVH note by which Cloud Hypervisor and QEMU enter it.
    pub pvh: bool,
    /// GNU's build id.
    pub build_id: Option<String>,
    /// The first line that it prints.
    pub banner: Option<String>,
}

/// The modules of an image.
#[derive(Debug, Serialize)]
pub struct ModulesInfo {
    /// The directory of `modules.dep`. Empty for the root of the image.
    pub directory: String,
    pub count: usize,
    /// Their uncompressed size.
    pub bytes: u64,
    /// The releases that they were built for, from `vermagic`.
    pub releases: Vec<String>,
    /// The number of signed modules.
    pub signed: usize,
}

/// The final `.config`.
#[derive(Debug, Serialize)]
pub struct ConfigInfo {
    /// Its path in the image, or `inside` and the path of the kernel.
    pub place: String,
    #[serde(serialize_with = "as_oci")]
    pub sha256: Sha256,
    /// The number of options that are `y`.
    pub built_in: usize,
    /// The number of options that are `m`.
    pub modules: usize,
}

#[derive(Debug, Serialize)]
pub struct LayerSummary {
    /// The digest of the blob.
    #[serde(serialize_with = "as_oci")]
    pub digest: Sha256,
    /// The digest of the uncompressed tar.
    #[serde(serialize_with = "as_oci")]
    pub diff_id: Sha256,
    pub media_type: String,
    /// The size of the blob.
    pub bytes: u64,
    /// The size of the uncompressed tar.
    pub plain_bytes: u64,
    pub entries: usize,
}

/// The receipt of an image.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ReceiptState {
    #[serde(rename = "absent")]
    Missing,
    #[serde(rename = "unreadable")]
    Unreadable { why: String },
    /// It is of another build of this version.
    #[serde(rename = "of-another")]
    Mismatched { path: Utf8PathBuf },
    /// It is of this image.
    #[serde(rename = "of")]
    Matching {
        path: Utf8PathBuf,
        /// The checks of the source.
        source_verified: String,
        /// Tool → version.
        tools: BTreeMap<String, String>,
        /// The digest of the plan, without `sha256:`.
        #[serde(serialize_with = "with_prefix")]
        plan: String,
        /// `uname -r`.
        #[serde(skip)]
        release: String,
        /// The digest of the final `.config`, without `sha256:`.
        #[serde(skip)]
        config_sha256: String,
        /// The command line of the build.
        command: String,
        /// The image cache that had the image, if this machine did not build it.
        #[serde(skip_serializing_if = "Option::is_none")]
        image_cache: Option<Box<ImageCacheOrigin>>,
        #[serde(rename = "findings")]
        warnings: Vec<String>,
    },
}

impl ImageInfo {
    /// Returns the annotation of the manifest, or the label of the config.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).or_else(|| self.labels.get(key)).map(String::as_str)
    }
}

/// Inspects an image and its documents.
///
/// # Errors
///
/// Exit code 3 if the image breaks a rule.
pub fn inspect(image: &Image) -> Result<ImageInfo> {
    ReadCache::default().inspect(image)
}

/// Returns the final `.config` of the kernel in an image. It is `config` beside the modules,
/// `boot/config-<VERSION>` in a combined image, or the one inside the kernel file (CONFIG_IKCONFIG).
///
/// # Errors
///
/// Exit code 3 if the image breaks a rule, or its config cannot be read.
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
/// # Errors
///
/// Exit code 3 if the layers cannot be merged.
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
    let kind = match (kernels.first(), &modules) {
        (Some(_), Some(_)) => ImageKind::Combined,
        (Some(_), None) => ImageKind::Kernel,
        (None, Some(_)) => ImageKind::Modules,
        (None, None) => ImageKind::Other,
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

/// Returns the path of an image's receipt, if the image is of a known flavor and has a version.
pub fn receipt_path(image: &Image) -> Option<Utf8PathBuf> {
    let (flavor, version) = (kernel_image::flavor(image)?, image.oci_annotation("version")?);
    let arch: Arch = image.config.architecture().to_string().parse().ok()?;
    // The version of an annotation may be any text, and becomes a file name.
    let fits = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let output = image.layout.parent().unwrap_or(Utf8Path::new("."));
    let tag = annotations::tag_suffix(|key| image.annotation(key)).add_to(version);
    fits.then(|| output.join(crate::image::receipt::file_name(flavor, &tag, arch)))
}

fn as_oci<S: serde::Serializer>(digest: &Sha256, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&digest.oci())
}

/// Adds the prefix that a receipt leaves out. Another text stays as it is.
fn with_prefix<S: serde::Serializer>(digest: &str, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match digest.parse::<Sha256>() {
        Ok(digest) => as_oci(&digest, serializer),
        Err(_) => serializer.collect_str(digest),
    }
}

impl ReadCache {
    /// Inspects an image and its documents.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the image breaks a rule.
    pub fn inspect(&mut self, image: &Image) -> Result<ImageInfo> {
        let layers = self.scan(image)?;
        let receipt = documents::receipt(image, self);
        let provenance = documents::provenance(image, self);
        Ok(ImageInfo { receipt, provenance, ..summarize(image, &layers)? })
    }
}
