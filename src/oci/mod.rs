//! Writes and reads OCI image layouts. Written images appear whole or not at all.
//! Layouts of others are untrusted.

pub mod annotations;
pub mod archive;
pub mod blob;
mod compress;
mod entry;
mod gzip;
mod layer;
pub mod layer_entries;
mod layout;
pub mod layout_reader;
mod manifest_kind;
mod multi_arch;
mod piece;
pub mod read;
mod referrers;
pub mod root;
pub mod snapshot;
pub mod tags;
mod tar_entry;

pub use compress::{Compression, Encoder, LAYER_FORMAT};
pub use entry::{Entries, Entry};
pub use layout::{LOCK, WrittenImage, check_output, remove_temporary_files};
pub use multi_arch::{MultiArchIndex, find_outdated, write_multi_arch};
pub use referrers::{
    Artifact, add_referrer, find_referrer, referrers, referrers_layout, write_index, write_referrers,
};

use annotations::DESCRIPTION;
use layout::{Layout, TaggedLayout};

use crate::util::digest::Sha256;
use crate::util::error::Result;
use camino::Utf8Path;
use canon_json::CanonJsonSerialize;
use oci_spec::image::{
    ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use std::collections::{BTreeMap, HashMap};

/// The suffix of the layout with the artifacts that are attached to the images of another
/// layout, and of its tags.
pub const REFERRERS_SUFFIX: &str = "-attest";

/// A blob in a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blob {
    pub digest: Sha256,
    pub size: u64,
}

impl Blob {
    fn descriptor(self, media_type: MediaType) -> Descriptor {
        let digest: Sha256Digest = self.digest.to_string().parse().expect("64 hexadecimal digits");
        let builder = DescriptorBuilder::default().media_type(media_type).digest(digest).size(self.size);
        builder.build().expect("all fields are set")
    }

    /// Returns the descriptor of an image's manifest for this architecture (OCI's name).
    fn image(self, arch: &str) -> Descriptor {
        let platform = PlatformBuilder::default().architecture(arch).os(Os::Linux).build();
        let mut descriptor = self.descriptor(MediaType::ImageManifest);
        descriptor.set_platform(Some(platform.expect("all fields are set")));
        descriptor
    }
}

/// The name of an image, and how to store it.
#[derive(Clone, Copy, Debug)]
pub struct ImageSpec<'a> {
    /// The layout's directory in the output directory.
    pub layout: &'a str,
    pub tag: &'a str,
    pub encoder: Encoder,
    /// The annotations, which are also written as labels.
    pub annotations: &'a BTreeMap<String, String>,
}

/// An image that is written, but has no tag yet.
pub struct PreparedImage {
    layout: TaggedLayout,
    written: WrittenImage,
}

/// Writes the blobs of an image with these entries into its layout in `output`, by up to `threads` threads.
/// All dates are `epoch`. The caller holds the lock of the output directory.
pub fn prepare(
    output: &Utf8Path,
    spec: ImageSpec<'_>,
    architecture: &str,
    entries: &Entries,
    epoch: u64,
    threads: usize,
) -> Result<PreparedImage> {
    let layout = Layout::open(output, spec.layout)?;
    let layer = layer::write(&layout, entries, spec.encoder, epoch, threads)?;
    let config = layout.add_bytes(&image_config(spec, architecture, &layer, epoch))?;
    let manifest = layout.add_bytes(&image_manifest(spec, config, &layer))?;
    let written = WrittenImage {
        layout: layout.path().to_owned(),
        tag: spec.tag.to_owned(),
        digest: manifest.digest,
        manifest_size: manifest.size,
        size: layer.blob.size,
        architecture: architecture.to_owned(),
    };
    Ok(PreparedImage { layout: layout.prepare_tag(spec.tag, manifest.image(architecture))?, written })
}

impl PreparedImage {
    /// Tags the image, in place of an earlier one. This needs no disk space.
    pub fn publish(self) -> Result<WrittenImage> {
        self.layout.publish()?;
        Ok(self.written)
    }
}

fn image_config(spec: ImageSpec<'_>, architecture: &str, layer: &layer::Layer, epoch: u64) -> Vec<u8> {
    let created = crate::util::time::rfc3339(epoch);
    let root_fs = RootFsBuilder::default().typ("layers").diff_ids(vec![layer.diff_id.oci()]).build();
    let history = HistoryBuilder::default()
        .created(created.clone())
        .created_by(concat!("kcompile ", env!("CARGO_PKG_VERSION")))
        .comment(spec.annotations.get(DESCRIPTION).cloned().unwrap_or_default())
        .build();
    let config = ImageConfigurationBuilder::default()
        .created(created)
        .architecture(architecture)
        .os(Os::Linux)
        .config(ConfigBuilder::default().labels(labels(spec)).build().expect("all fields are set"))
        .rootfs(root_fs.expect("all fields are set"))
        .history(vec![history.expect("all fields are set")])
        .build();
    config.expect("all fields are set").to_canon_json_vec().expect("only string keys")
}

fn image_manifest(spec: ImageSpec<'_>, config: Blob, layer: &layer::Layer) -> Vec<u8> {
    let media_type = match spec.encoder {
        Encoder::Gzip { .. } => MediaType::ImageLayerGzip,
        Encoder::Zstd => MediaType::ImageLayerZstd,
        Encoder::None => MediaType::ImageLayer,
    };
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor(MediaType::ImageConfig))
        .layers(vec![layer.blob.descriptor(media_type)])
        .annotations(labels(spec))
        .build();
    manifest.expect("all fields are set").to_canon_json_vec().expect("only string keys")
}

fn labels(spec: ImageSpec<'_>) -> HashMap<String, String> {
    spec.annotations.clone().into_iter().collect()
}
