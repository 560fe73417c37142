//! Unpacks the root file system of an image into the cache, once for each image.

use super::Toolchain;
use super::entry::{self, ROOT, check, entry_of, lock_name};
use crate::cache::Cache;
use crate::catalog::lockfile::Locked;
use crate::host::Host;
use crate::image::remote::{self, Pulled};
use crate::kernel::SourceDigest;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Image, Reference, locate};
use crate::oci::root::{Node, RootFs};
use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::format_size;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};

/// An unpacked image.
pub(super) struct UnpackedImage {
    /// Its entry in the cache.
    pub entry: Utf8PathBuf,
    /// The image ID, the digest of its config.
    pub id: Sha256,
}

/// Unpacks the image of the layout `DIR[:TAG]`, unless the cache has it.
pub(super) fn open_local(
    reference: &Utf8Path,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<UnpackedImage> {
    let Reference { layout, tag } = locate(&host.absolute(reference));
    unpack(&layout, tag.as_deref(), cache, host, reporter)
}

/// Unpacks an image of a registry. Does not ask the registry if the cache has the pinned image.
pub(super) fn open_remote(
    reference: &str,
    toolchain: &Toolchain<'_>,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<UnpackedImage> {
    // Each platform has its own image.
    let origin = format!("{reference}#{}", host.own_arch()?);
    let pinned = toolchain.locked(&origin)?.and_then(|locked| locked.digest.sha256());
    if let Some(id) = pinned {
        let entry = entry_of(cache, id);
        let _lock = cache.lock(&lock_name(&entry), reporter)?;
        if check(&entry, cache, reporter)? {
            return Ok(UnpackedImage { entry, id });
        }
    }
    toolchain.check_online()?;
    let scratch = cache.scratch()?;
    let layout = scratch.path.join("layout");
    if remote::pull(reference, &layout, host)? == Pulled::Nothing {
        return Err(Error::fetch("the registry has no such image")
            .hint(format!("see the tags of its repository: skopeo list-tags {}", repository(reference))));
    }
    let unpacked = unpack(&layout, None, cache, host, reporter)?;
    let id = unpacked.id;
    if let Some(pinned) = pinned.filter(|pinned| *pinned != id) {
        return Err(Error::fetch(format!(
            "the registry serves sha256:{id}, but {} has sha256:{pinned} from its first use",
            toolchain.lock_path
        ))
        .hint("if the new image is right, accept it with --update-lock"));
    }
    toolchain.pin(origin, Locked { digest: SourceDigest::Sha256(id), unverified: true })?;
    Ok(unpacked)
}

/// Returns a reference without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Unpacks an image of a layout into the cache, unless it is there. Returns its entry and the image ID.
fn unpack(
    layout: &Utf8Path,
    tag: Option<&str>,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<UnpackedImage> {
    let arch = host.own_arch()?;
    let image = LayoutReader::open(layout)?.open_image(tag, Some(arch.name()))?;
    let found = image.config.architecture().to_string();
    if found != arch.name() {
        return Err(Error::usage(format!("the image is for {found}"))
            .hint(format!("this machine runs only programs for {arch}")));
    }
    let id = image.id()?;
    let entry = entry_of(cache, id);
    let _lock = cache.lock(&lock_name(&entry), reporter)?;
    if !check(&entry, cache, reporter)? {
        let scratch = cache.scratch()?;
        let unpacked = scratch.path.join("toolchain");
        let size = write(&image, &unpacked)?;
        fs::rename(&unpacked, &entry).context(Kind::Build, || format!("cannot write {entry}"))?;
        let name = id.short();
        reporter.note(&format!("unpacked the toolchain sha256:{name} ({})", format_size(size)));
    }
    Ok(UnpackedImage { entry, id })
}

/// Merges the layers of `image` into the new directory `entry`. Nothing in it can be written afterwards, and no
/// link is followed: directories come first, then files, then links. Devices are left out. Returns the size of
/// all files.
fn write(image: &Image, entry: &Utf8Path) -> Result<u64> {
    let root = entry.join(ROOT);
    let message = |path: &Utf8Path| format!("cannot write {path}");
    let create_dir = |dir: &Utf8Path| fs::create_dir(dir).context(Kind::Build, || message(dir));
    create_dir(entry)?;
    create_dir(&root)?;
    let tree = image.root()?;
    let dirs: Vec<_> =
        tree.nodes().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| root.join(path)).collect();
    dirs.iter().try_for_each(|dir| create_dir(dir))?;
    let size = write_files(image, &tree, &root)?;
    for (path, node) in tree.nodes() {
        if let Node::SymLink(target) = node {
            let link = root.join(path);
            symlink(target, &link).context(Kind::Build, || message(&link))?;
        }
    }
    for dir in &dirs {
        fs::set_permissions(dir, Permissions::from_mode(0o555)).context(Kind::Build, || message(dir))?;
    }
    entry::finish(entry)?;
    Ok(size)
}

fn write_files(image: &Image, tree: &RootFs, root: &Utf8Path) -> Result<u64> {
    let mut size = 0;
    image.visit_files(tree, |names, found, bytes| {
        let first = root.join(names[0]);
        let message = || format!("cannot write {first}");
        let mut file = File::create_new(&first).context(Kind::Build, message)?;
        size += io::copy(bytes, &mut file).context(Kind::Build, message)?;
        let mode = if found.attributes.mode.is_some_and(|mode| mode & 0o111 != 0) { 0o555 } else { 0o444 };
        file.set_permissions(Permissions::from_mode(mode)).context(Kind::Build, message)?;
        for name in &names[1..] {
            let name = root.join(name);
            fs::hard_link(&first, &name).context(Kind::Build, || format!("cannot write {name}"))?;
        }
        Ok(())
    })?;
    Ok(size)
}
