//! Reading images out of layouts that anybody may have written. Nothing is believed: sizes are
//! bounded before anything is read, every digest is checked before a result is handed on, links and
//! special files are refused, and nothing is written.
//!
//! All errors of a layout that breaks a rule are verification errors (exit code 3) and name the rule.

use super::entries::{self, Found, FoundKind, LayerRead, Limits};
use crate::kernel::Flavor;
use crate::kernel::binary::ikconfig;
use crate::plan::annotations::{self, OCI, REF_NAME};
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;

/// An index that names a few hundred versions is about this large at most.
const LARGEST_JSON: u64 = 4 << 20;
/// What Docker's storage can stack.
const MOST_LAYERS: usize = 127;
/// A kernel's `.config` has about 150 kB.
const LARGEST_CONFIG: u64 = 16 << 20;

/// An image of a layout, its manifest and config checked.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layout's directory.
    pub layout: Utf8PathBuf,
    /// Its tag; `None` where the layout has one image, and that has no tag.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: Sha256,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The image's config.
    pub config: ImageConfiguration,
}

/// Splits `LAYOUT[:TAG]`: the path of a layout ends at its last colon, as OCI tools have it.
pub fn split_reference(text: &str) -> (&Utf8Path, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (Utf8Path::new(path), Some(tag)),
        _ => (Utf8Path::new(text), None),
    }
}

/// The layout and the tag of a reference. A directory of this very name is a layout, whatever colon is in it.
pub fn locate(reference: &Utf8Path) -> (Utf8PathBuf, Option<String>) {
    match reference.is_dir() {
        true => (reference.to_owned(), None),
        false => {
            let (layout, tag) = split_reference(reference.as_str());
            (layout.to_owned(), tag.map(str::to_owned))
        }
    }
}

/// Opens the image of this tag, or the only image of a layout.
///
/// Errors: no such layout or tag, or several images and no tag (exit code 2); a rule is broken (3).
pub fn open(layout: &Utf8Path, tag: Option<&str>) -> Result<Image> {
    open_image(layout, &choose(layout, tag)?)
}

/// The index of a layout, when the directory is one.
pub(crate) fn read_index(layout: &Utf8Path) -> Result<ImageIndex> {
    if !layout.is_dir() {
        return Err(Error::usage(format!("{layout}: no such directory")));
    }
    let marker = layout.join("oci-layout");
    if !marker.exists() {
        return Err(Error::usage(format!("{layout} is not an OCI layout: it has no file oci-layout")));
    }
    let version: serde_json::Value = read_json(&marker)?;
    if version.get("imageLayoutVersion").and_then(serde_json::Value::as_str) != Some("1.0.0") {
        return Err(Error::fetch(format!("{marker}: not an OCI layout of version 1.0.0")));
    }
    for dir in ["blobs", "blobs/sha256"].map(|dir| layout.join(dir)) {
        if !dir.symlink_metadata().is_ok_and(|dir| dir.is_dir()) {
            return Err(Error::fetch(format!("{dir} is not a directory")));
        }
    }
    read_json(&layout.join("index.json"))
}

/// The image that a descriptor of the layout stands for.
pub(super) fn open_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Image> {
    let digest = check_descriptor(layout, descriptor)?;
    if *descriptor.media_type() != MediaType::ImageManifest {
        return Err(Error::fetch(format!(
            "{layout}: sha256:{} is of type {}, not an image manifest",
            digest.short(),
            descriptor.media_type()
        )));
    }
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    let (path, config): (_, ImageConfiguration) = read_blob(layout, manifest.config())?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers > MOST_LAYERS {
        return Err(Error::fetch(format!("{path}: {layers} layers are more than any reader takes")));
    }
    if layers != diff_ids {
        return Err(Error::fetch(format!("{path}: {layers} layers, but {diff_ids} diff_ids")));
    }
    Ok(Image { layout: layout.to_owned(), tag: tag_of(descriptor), digest, manifest, config })
}

impl Image {
    /// An annotation of the manifest, by the end of OCI's predefined key: `version`, `title`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.manifest.annotations().as_ref()?;
        annotations.get(&format!("{OCI}{key}")).map(String::as_str)
    }

    /// An annotation of our own, by its whole key: one of [`annotations`].
    pub fn own_annotation(&self, key: &str) -> Option<&str> {
        self.manifest.annotations().as_ref()?.get(key).map(String::as_str)
    }

    /// The flavor: as the image says, else by its title or the layout's name, which begin with it.
    pub fn flavor(&self) -> Option<Flavor> {
        if let Some(flavor) = self.own_annotation(annotations::FLAVOR).and_then(|name| name.parse().ok()) {
            return Some(flavor);
        }
        let names = [self.annotation("title"), self.layout.file_name()];
        let is_of = |name: &str, flavor: Flavor| {
            name.starts_with(&format!("{}-kernel", flavor.image_prefix()))
                || name.starts_with(flavor.legacy_image())
        };
        let mut names = names.into_iter().flatten();
        names.find_map(|name| Flavor::ALL.into_iter().find(|&flavor| is_of(name, flavor)))
    }

    /// Shows every entry of every layer to `visit`, with a reader of its bytes. The digests of a
    /// layer, compressed and plain, are known to be right only when this has returned.
    ///
    /// Errors: whatever `visit` returns; a layer that breaks a rule (exit code 3).
    pub fn visit(
        &self,
        mut visit: impl FnMut(&Found, &mut dyn Read) -> Result<()>,
    ) -> Result<Vec<LayerRead>> {
        let mut limits = Limits::default();
        let mut layers = Vec::new();
        for (layer, diff_id) in self.manifest.layers().iter().zip(self.config.rootfs().diff_ids()) {
            layers.push(entries::visit_layer(&self.layout, (layer, diff_id), &mut limits, &mut visit)?);
        }
        Ok(layers)
    }

    /// The final `.config` of the kernel: `config` beside the modules, or `boot/config-<VERSION>` of
    /// a combined image; else the one inside the kernel file (CONFIG_IKCONFIG). `None`: there is none.
    pub fn kernel_config(&self) -> Result<Option<String>> {
        let (mut beside, mut inside) = (None, None);
        self.visit(|found, reader| {
            let wrong = || format!("{}: {}", self.layout, found.path);
            match &found.kind {
                FoundKind::File if is_kernel_config(&found.path) => {
                    let text = read_config(found, reader, wrong)?;
                    if beside.as_ref().is_some_and(|earlier| *earlier != text) {
                        return Err(Error::fetch(format!(
                            "{}: a second config, other than the first",
                            wrong()
                        )));
                    }
                    beside = Some(text);
                }
                FoundKind::File if found.path.starts_with("bin/") || found.path.starts_with("boot/") => {
                    let text = ikconfig::embedded(reader).context(Kind::Fetch, wrong)?;
                    inside = inside.take().or(text);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(beside.or(inside))
    }
}

/// The text of a config in an image.
pub(crate) fn read_config(
    found: &Found,
    reader: &mut dyn Read,
    wrong: impl Fn() -> String,
) -> Result<String> {
    if found.size > LARGEST_CONFIG {
        return Err(Error::fetch(format!("{}: {} bytes are too many for a config", wrong(), found.size)));
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).context(Kind::Fetch, &wrong)?;
    String::from_utf8(bytes).context(Kind::Fetch, wrong)
}

/// Is it a path at which images have the config of their kernel?
pub(crate) fn is_kernel_config(path: &str) -> bool {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["config"] | ["lib", "modules", _, "config"] => true,
        ["boot", name] => name.starts_with("config-"),
        _ => false,
    }
}

/// What this tag stands for, or all that the index of a layout names.
///
/// Errors: no such layout or tag (exit code 2); a rule is broken (3).
pub fn chosen(layout: &Utf8Path, tag: Option<&str>) -> Result<Vec<Descriptor>> {
    let index = read_index(layout)?;
    let all = index.manifests();
    let wanted = |one: &&Descriptor| tag.is_none() || tag_of(one).as_deref() == tag;
    let chosen: Vec<Descriptor> = all.iter().filter(wanted).cloned().collect();
    match (chosen.is_empty(), tag) {
        (false, _) => Ok(chosen),
        (true, Some(tag)) => Err(Error::usage(format!("{layout} has no image of the tag {tag}"))
            .hint(format!("it has {}", tags_of(all)))),
        (true, None) => Err(Error::usage(format!("{layout} has no image"))),
    }
}

/// What this tag stands for, or the only thing in a layout.
pub(super) fn choose(layout: &Utf8Path, tag: Option<&str>) -> Result<Descriptor> {
    match (&chosen(layout, tag)?[..], tag) {
        ([one], _) => Ok(one.clone()),
        (_, Some(tag)) => Err(Error::fetch(format!("{layout} has several images of the tag {tag}"))),
        (several, None) => Err(Error::usage(format!("{layout} has several images"))
            .hint(format!("choose one with {layout}:TAG, of {}", tags_of(several)))),
    }
}

fn tags_of(descriptors: &[Descriptor]) -> String {
    descriptors.iter().filter_map(tag_of).collect::<Vec<_>>().join(", ")
}

pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

/// The digest of a descriptor; `of` is the file that it stands in.
pub(super) fn check_descriptor(of: &Utf8Path, descriptor: &Descriptor) -> Result<Sha256> {
    let text = descriptor.digest().to_string();
    match text.strip_prefix("sha256:").map(str::parse::<Sha256>) {
        Some(Ok(digest)) => Ok(digest),
        _ => Err(Error::fetch(format!("{of}: `{}` is not a sha256 digest", text.escape_debug()))),
    }
}

/// A blob of JSON, and where it lies: its size and digest are as the descriptor says.
pub(super) fn read_blob<T: DeserializeOwned>(
    layout: &Utf8Path,
    descriptor: &Descriptor,
) -> Result<(Utf8PathBuf, T)> {
    let digest = check_descriptor(layout, descriptor)?;
    let path = blob_path(layout, digest);
    let bytes = read_bounded(&path)?;
    if bytes.len() as u64 != descriptor.size() {
        return Err(wrong_size(&path, descriptor.size(), bytes.len() as u64));
    }
    check_digest(&path, digest, Sha256::of(&bytes))?;
    let said = parse(&path, &bytes)?;
    Ok((path, said))
}

/// Opens a blob of any kind, which has the size that the descriptor says, for its digest to be checked; with where
/// it lies.
pub(super) fn open_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<(Utf8PathBuf, Sha256, File)> {
    let digest = check_descriptor(layout, descriptor)?;
    let path = blob_path(layout, digest);
    let (file, size) = open_file(&path)?;
    match size == descriptor.size() {
        true => Ok((path, digest, file)),
        false => Err(wrong_size(&path, descriptor.size(), size)),
    }
}

pub(super) fn blob_path(layout: &Utf8Path, digest: Sha256) -> Utf8PathBuf {
    layout.join("blobs/sha256").join(digest.to_string())
}

pub(super) fn wrong_size(path: &Utf8Path, expected: u64, found: u64) -> Error {
    Error::fetch(format!("{path}: {found} bytes, where its descriptor says {expected}"))
}

pub(super) fn check_digest(path: &Utf8Path, expected: Sha256, found: Sha256) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::fetch(format!("{path}: checksum mismatch: expected {expected}, found {found}"))),
    }
}

/// Opens an ordinary file: a link is not followed, and a pipe does not make us wait.
pub(super) fn open_file(path: &Utf8Path) -> Result<(File, u64)> {
    let wrong = || format!("cannot read {path}");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path.as_std_path(), flags, Mode::empty());
    let file = File::from(file.context(Kind::Fetch, wrong)?);
    let metadata = file.metadata().context(Kind::Fetch, wrong)?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(Error::fetch(format!("{path} is not a file"))),
    }
}

/// The bytes of a small file; a link is not followed.
///
/// Errors (exit code 3): it cannot be read, is no ordinary file, or has more than 4 MiB.
pub(crate) fn read_bounded(path: &Utf8Path) -> Result<Vec<u8>> {
    let (file, size) = open_file(path)?;
    if size > LARGEST_JSON {
        return Err(Error::fetch(format!("{path}: {size} bytes are too many for it")));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_JSON).read_to_end(&mut bytes).context(Kind::Fetch, || format!("cannot read {path}"))?;
    Ok(bytes)
}

/// What a file of JSON says.
///
/// Errors (exit code 3): those of [`read_bounded`]; it says something else.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<T> {
    parse(path, &read_bounded(path)?)
}

fn parse<T: DeserializeOwned>(path: &Utf8Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .context(Kind::Fetch, || format!("{path} is not what an OCI layout has there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_ends_in_its_tag() {
        let split = |text| {
            let (path, tag) = split_reference(text);
            (path.as_str().to_owned(), tag.map(str::to_owned))
        };
        let with = |path: &str, tag: &str| (path.to_owned(), Some(tag.to_owned()));
        assert_eq!(split("out/x:6.1.7"), with("out/x", "6.1.7"));
        assert_eq!(split("a:b/x:6.1.7"), with("a:b/x", "6.1.7"));
        assert_eq!(split("a:b/x"), ("a:b/x".to_owned(), None));
        assert_eq!(split("x:"), ("x:".to_owned(), None));
    }

    #[test]
    fn a_pipe_or_a_link_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| Utf8Path::from_path(dir.path()).unwrap().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe").as_std_path(),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(open_file(&at("file")).unwrap().1, 1);
        assert!(open_file(&at("link")).is_err());
        // Opening a pipe for reading would wait for somebody who writes.
        assert!(open_file(&at("pipe")).unwrap_err().to_string().ends_with("pipe is not a file"));
    }
}
