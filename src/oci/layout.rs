//! Writes layouts. A new layout appears by one rename. In an existing one only `index.json` is replaced, when
//! all blobs that it names are there.

use super::blob::{blob_path, open_file, read_bounded, read_json};
use super::read::tag_of;
use super::{Blob, REFERRERS_SUFFIX};
use crate::oci::annotations::REF_NAME;
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{TEMPORARY, check_writable, persist, remove_tree, sync_dir, write_atomically};
use camino::{Utf8Path, Utf8PathBuf};
use canon_json::CanonJsonSerialize;
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::{NamedTempFile, TempDir};

/// These exact bytes, because some readers compare them.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WrittenImage {
    pub layout: Utf8PathBuf,
    pub tag: String,
    /// The digest of the manifest.
    pub digest: Sha256,
    pub manifest_size: u64,
    /// The size of the compressed layer.
    pub size: u64,
    /// The architecture's name in OCI, such as `amd64`.
    #[serde(rename = "arch")]
    pub architecture: String,
}

impl WrittenImage {
    /// Returns the blob of the manifest.
    pub(super) fn manifest(&self) -> Blob {
        Blob { digest: self.digest, size: self.manifest_size }
    }
}

/// A layout that is being written. The caller holds the lock of the output directory.
pub(super) struct Layout {
    path: Utf8PathBuf,
    /// The directory for blobs. A new layout has a temporary one until it is whole.
    work: Utf8PathBuf,
    new: Option<TempDir>,
}

impl Layout {
    /// Opens the layout `name` in the directory `output`, or begins a new one there.
    ///
    /// # Errors
    ///
    /// Exit code 2 if `name` exists and is not a layout.
    pub(super) fn open(output: &Utf8Path, name: &str) -> Result<Layout> {
        let path = output.join(name);
        if path.symlink_metadata().is_ok() {
            check_layout(&path)?;
            return Ok(Layout { work: path.clone(), path, new: None });
        }
        let message = || format!("cannot create {path}");
        let temporary = TempDir::with_prefix_in(TEMPORARY, output).context(Kind::Build, message)?;
        let work = Utf8Path::from_path(temporary.path()).expect("below a UTF-8 path").to_owned();
        for dir in [work.clone(), work.join("blobs"), work.join("blobs/sha256")] {
            fs::create_dir_all(&dir).context(Kind::Build, message)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o755)).context(Kind::Build, message)?;
        }
        write_atomically(&work.join("oci-layout"), OCI_LAYOUT)?;
        Ok(Layout { path, work, new: Some(temporary) })
    }

    /// Returns the directory of the layout, when it is whole.
    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    pub(super) fn blob_path(&self, digest: Sha256) -> Utf8PathBuf {
        blob_path(&self.work, digest)
    }

    pub(super) fn add_blob(&self) -> Result<BlobWriter> {
        let dir = self.work.join("blobs/sha256");
        let file = NamedTempFile::with_prefix_in(TEMPORARY, &dir)
            .context(Kind::Build, || format!("cannot write in {dir}"))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(BlobWriter { dir, file, hasher: Hasher::default(), size: 0 })
    }

    pub(super) fn add_bytes(&self, bytes: &[u8]) -> Result<Blob> {
        let mut blob = self.add_blob()?;
        blob.write_all(bytes).context(Kind::Build, || format!("cannot write in {}", blob.dir))?;
        blob.finish()
    }

    /// Copies an image from another layout, and returns its manifest.
    pub(super) fn copy_image(&self, from: &Utf8Path, image: &Descriptor) -> Result<ImageManifest> {
        self.copy_blob(from, image)?;
        let manifest: ImageManifest = self.read(image)?;
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        blobs.into_iter().try_for_each(|blob| self.copy_blob(from, blob))?;
        Ok(manifest)
    }

    /// Copies an index and its images from another layout, and returns the manifests.
    pub(super) fn copy_index(&self, from: &Utf8Path, index: &Descriptor) -> Result<Vec<ImageManifest>> {
        self.copy_blob(from, index)?;
        let index: ImageIndex = self.read(index)?;
        index.manifests().iter().map(|manifest| self.copy_image(from, manifest)).collect()
    }

    /// Links or copies a blob. Layouts can share it because nobody writes to a blob.
    fn copy_blob(&self, from: &Utf8Path, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest().digest();
        let dir = self.work.join("blobs/sha256");
        let (from, to) = (from.join("blobs/sha256").join(digest), dir.join(digest));
        let message = || format!("cannot copy {from} to {to}");
        // Another link would change the times of the file, and with them its stamp.
        let file = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino())).ok();
        if file(&from).is_some_and(|from| file(&to) == Some(from)) {
            return Ok(());
        }
        let (mut blob, _) = open_file(&from)?;
        let temporary = dir.join(format!(".tmp-{digest}"));
        remove_tree(&temporary)?;
        if fs::hard_link(&from, &temporary).is_ok() {
            fs::rename(&temporary, &to).context(Kind::Build, message)?;
            // Renaming does nothing if both names are of one file.
            return remove_tree(&temporary);
        }
        let mut copy = self.add_blob()?;
        io::copy(&mut blob, &mut copy).context(Kind::Build, message)?;
        if copy.finish()?.digest.to_string() != digest {
            return Err(Error::build(format!("{from} is damaged")));
        }
        Ok(())
    }

    /// Tags a manifest or an index, and publishes the layout. Blobs that no tag needs any more are removed.
    pub(super) fn tag(self, tag: &str, tagged: Descriptor) -> Result<()> {
        self.prepare_tag(tag, tagged)?.publish()
    }

    /// Does all of [`tag`](Self::tag) that a full disk could prevent.
    pub(super) fn prepare_tag(self, tag: &str, mut tagged: Descriptor) -> Result<TaggedLayout> {
        let path = self.index_path();
        let mut manifests = Vec::new();
        if path.is_file() {
            manifests.clone_from(read_json::<ImageIndex>(&path)?.manifests());
        }
        manifests.retain(|descriptor| tag_of(descriptor).as_deref() != Some(tag));
        tagged.set_annotations(Some([(REF_NAME.to_owned(), tag.to_owned())].into()));
        manifests.push(tagged);
        // The order does not depend on what was built first.
        manifests.sort_by_cached_key(tag_of);
        let index = index_of(manifests);
        let text = text_of(&index);
        if self.new.is_none() && read_bounded(&path)? == text {
            return Ok(TaggedLayout { layout: self, index, file: None });
        }
        sync_dir(&self.work.join("blobs/sha256"))?;
        let message = || format!("cannot write in {}", self.work);
        let mut file = NamedTempFile::with_prefix_in(TEMPORARY, &self.work).context(Kind::Build, message)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).context(Kind::Build, message)?;
        Ok(TaggedLayout { layout: self, index, file: Some(file) })
    }

    fn index_path(&self) -> Utf8PathBuf {
        self.work.join("index.json")
    }

    /// Removes the blobs that no manifest of the index reaches. Nothing is removed if the index has entries
    /// of a kind that kcompile does not write.
    fn remove_unused(&self, index: &ImageIndex) -> Result<()> {
        let mut used = HashSet::new();
        let reached = index.manifests().iter().map(|descriptor| self.mark_reachable(descriptor, &mut used));
        if !reached.into_iter().all(|all| all) {
            return Ok(());
        }
        let dir = self.work.join("blobs/sha256");
        for entry in dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))? {
            let entry = entry.context(Kind::Build, || format!("cannot read {dir}"))?;
            if !used.contains(entry.file_name()) {
                fs::remove_file(entry.path())
                    .context(Kind::Build, || format!("cannot remove {}", entry.path()))?;
            }
        }
        Ok(())
    }

    /// Adds the blobs that a tag needs to `used`. Returns whether all of them are known.
    fn mark_reachable(&self, tagged: &Descriptor, used: &mut HashSet<String>) -> bool {
        let mut add = |descriptor: &Descriptor| used.insert(descriptor.digest().digest().to_owned());
        add(tagged);
        let manifests = match tagged.media_type() {
            MediaType::ImageManifest => vec![tagged.clone()],
            MediaType::ImageIndex => match self.read::<ImageIndex>(tagged) {
                Ok(index) => index.manifests().clone(),
                Err(_) => return false,
            },
            _ => return false,
        };
        manifests.iter().all(|descriptor| {
            add(descriptor);
            let Ok(manifest) = self.read::<ImageManifest>(descriptor) else { return false };
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                add(blob);
            }
            *descriptor.media_type() == MediaType::ImageManifest
        })
    }

    fn read<T: serde::de::DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        let digest: Sha256 = descriptor.digest().digest().parse().map_err(Error::build)?;
        read_json(&self.blob_path(digest))
    }
}

/// A layout with a new index that is not published yet.
pub(super) struct TaggedLayout {
    layout: Layout,
    index: ImageIndex,
    /// The new `index.json`, or `None` if it does not change.
    file: Option<NamedTempFile>,
}

impl TaggedLayout {
    /// Replaces the index, or renames a new layout into place.
    pub(super) fn publish(self) -> Result<()> {
        let TaggedLayout { layout, index, file } = self;
        if let Some(file) = file {
            persist(file, &layout.index_path())?;
            sync_dir(&layout.work)?;
        }
        let Some(temporary) = layout.new else { return layout.remove_unused(&index) };
        fs::rename(temporary.path(), &layout.path)
            .context(Kind::Build, || format!("cannot create {}", layout.path))?;
        // The directory was renamed, so nothing is left to remove.
        let _ = temporary.keep();
        layout.path.parent().map_or(Ok(()), sync_dir)
    }
}

pub(super) fn index_of(manifests: Vec<Descriptor>) -> ImageIndex {
    ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .expect("all fields are set")
}

pub(super) fn text_of(index: &ImageIndex) -> Vec<u8> {
    index.to_canon_json_vec().expect("only string keys")
}

/// Returns whether `index.json`, which no digest covers, has the bytes that kcompile writes for `index`.
pub(super) fn is_canonical(layout: &Utf8Path, index: &ImageIndex) -> Result<bool> {
    Ok(read_bounded(&layout.join("index.json"))? == text_of(&index_of(index.manifests().clone())))
}

/// Checks that the existing `path` is an OCI layout.
fn check_layout(path: &Utf8Path) -> Result<()> {
    let version = read_json::<serde_json::Value>(&path.join("oci-layout")).ok();
    let version = version.as_ref().and_then(|marker| marker.get("imageLayoutVersion")?.as_str());
    // A link would let us write and remove the blobs of another layout.
    let is_dir = |path: Utf8PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let dirs = [path.to_owned(), path.join("blobs"), path.join("blobs/sha256")];
    if version == Some("1.0.0") && dirs.into_iter().all(is_dir) {
        return read_json::<ImageIndex>(&path.join("index.json")).map(drop);
    }
    let what = if path.is_symlink() { "a link" } else { "not an OCI layout" };
    Err(Error::usage(format!("cannot write a layout at {path}: it is {what}"))
        .hint("move it away, or choose another directory with -o DIR"))
}

const OTHER_OUTPUT: &str = "choose another directory with -o DIR";

/// Checks, before a build, that `layouts` can be written in `output`.
///
/// # Errors
///
/// Exit code 2 if `output` is a file, cannot be written, has other files and no layout, or has a colon in its
/// path, where readers of `oci:PATH:TAG` split it. Also if the name of a layout is taken by something else.
pub fn check_output<'a>(output: &Utf8Path, layouts: impl IntoIterator<Item = &'a str>) -> Result<()> {
    if output.as_str().contains(':') {
        return Err(Error::usage(format!("the output directory {output} has a colon in its path")).hint(
            "`skopeo copy oci:PATH:TAG` ends the path at the first colon; choose another directory with -o DIR",
        ));
    }
    let problem = if output.exists() { "is a file" } else { "is a dangling link" };
    if !output.is_dir() && (output.exists() || output.is_symlink()) {
        return Err(Error::usage(format!("the output directory {output} {problem}")).hint(OTHER_OUTPUT));
    }
    if !output.exists() {
        let mut above = output.parent();
        while let Some(dir) = above.filter(|dir| !dir.exists()) {
            above = dir.parent();
        }
        let what = |dir| format!("{dir}, where the output directory {output} would be");
        let written = above.map_or(Ok(()), |dir| check_writable(&what(dir), dir));
        return written.map_err(|error| error.hint(OTHER_OUTPUT));
    }
    check_writable(&format!("the output directory {output}"), output)
        .map_err(|error| error.hint(OTHER_OUTPUT))?;
    let entries = output.read_dir_utf8().context(Kind::Usage, || format!("cannot read {output}"))?;
    let entries: Vec<Utf8PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.into_path())).collect();
    let is_ours = |path: &Utf8PathBuf| path.join("oci-layout").is_file() || path.file_name() == Some(LOCK);
    if let Some(first) = entries.first().filter(|_| !entries.iter().any(is_ours)) {
        return Err(Error::usage(format!(
            "the output directory {output} has other files ({}) and no layout",
            first.file_name().unwrap_or_default()
        ))
        .hint("choose an empty or new directory with -o DIR"));
    }
    layouts
        .into_iter()
        .flat_map(|name| [output.join(name), output.join(format!("{name}{REFERRERS_SUFFIX}"))])
        .filter(|path| path.symlink_metadata().is_ok())
        .try_for_each(|path| check_layout(&path))
}

/// Removes the temporary files and layouts of killed runs from `output` and its layouts.
/// The caller holds the lock.
pub fn remove_temporary_files(output: &Utf8Path) -> Result<()> {
    let children = |dir: &Utf8Path| -> Result<Vec<camino::Utf8DirEntry>> {
        let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
        Ok(entries.flatten().collect())
    };
    let mut dirs = vec![output.to_owned()];
    for layout in children(output)?.into_iter().filter(|entry| !is_temporary(entry)) {
        let blobs = layout.path().join("blobs/sha256");
        // A link may lead to a directory that this lock does not cover.
        let is_here = layout.file_type().is_ok_and(|kind| kind.is_dir());
        if is_here && layout.path().join("oci-layout").is_file() && blobs.is_dir() {
            dirs.extend([layout.into_path(), blobs]);
        }
    }
    for dir in dirs {
        children(&dir)?
            .iter()
            .filter(|entry| is_temporary(entry))
            .try_for_each(|entry| remove_tree(entry.path()))?;
    }
    Ok(())
}

fn is_temporary(entry: &camino::Utf8DirEntry) -> bool {
    entry.file_name().starts_with(TEMPORARY)
}

/// The lock file of an output directory.
pub const LOCK: &str = ".kcompile.lock";

/// A blob that is being written. It is hashed and counted on the way, and named by its digest at the end.
pub(super) struct BlobWriter {
    dir: Utf8PathBuf,
    file: BufWriter<NamedTempFile>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    /// Names the blob if it has this digest. Otherwise removes it and returns `false`.
    pub(super) fn finish_with_digest(self, digest: Sha256) -> Result<bool> {
        let matches = self.hasher.clone().finish() == digest;
        if matches {
            self.finish()?;
        }
        Ok(matches)
    }

    /// Names the blob.
    pub(super) fn finish(self) -> Result<Blob> {
        let blob = Blob { digest: self.hasher.finish(), size: self.size };
        let path = self.dir.join(blob.digest.to_string());
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        persist(file.context(Kind::Build, || format!("cannot write {path}"))?, &path)?;
        Ok(blob)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
