//! Unpacks the root file system of `--toolchain` into the cache, once for each image.

use crate::cache::Cache;
use crate::catalog::lockfile::{self, Existing, LockFile, Locked};
use crate::host::{Host, ToolRoot};
use crate::image::remote::{self, Pulled};
use crate::kernel::{SourceDigest, ToolchainSpec};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Image, Reference, locate};
use crate::oci::root::{Node, RootFs};
use crate::report::Reporter;
use crate::source;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use crate::util::text::format_size;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};

/// The directory of an entry of the cache that has the root file system.
const ROOT: &str = "root";
/// The file of an entry with a digest of its metadata. It is written last.
const STATE: &str = "state";

/// What `--toolchain` names, and how it is found.
pub struct Toolchain<'a> {
    pub spec: &'a ToolchainSpec,
    pub cache_dir: &'a Utf8Path,
    /// The path of the lock file, which pins the images of registries at their first use.
    pub lock_path: Utf8PathBuf,
    pub update_lock: bool,
    pub offline: bool,
}

impl Toolchain<'_> {
    /// Returns its root file system, or `None` for the tools of this host. Unpacks it into the cache if it is
    /// not there.
    ///
    /// # Errors
    ///
    /// Exit code 2: there is no such image, or it is for another architecture. 3: the registry does not serve
    /// it, or serves another one than before, or it breaks a rule. 4: this host allows no sandbox.
    pub fn open(&self, host: &Host, reporter: &Reporter) -> Result<Option<ToolRoot>> {
        if *self.spec == ToolchainSpec::Host {
            return Ok(None);
        }
        let cache = Cache::open(self.cache_dir, host.uid)?;
        let found = match self.spec {
            ToolchainSpec::Host => return Ok(None),
            ToolchainSpec::Oci(reference) => {
                let Reference { layout, tag } = locate(&host.absolute(reference));
                unpack(&layout, tag.as_deref(), &cache, host, reporter)
            }
            ToolchainSpec::Registry(reference) => self.open_remote(reference, &cache, host, reporter),
        };
        let (entry, digest) =
            found.map_err(|error| error.with_prefix(&format!("--toolchain {}", self.spec)))?;
        ToolRoot::new(entry.join(ROOT), digest, host).map(Some)
    }

    /// Returns the entry of an image in a registry. Does not ask the registry if the cache has the pinned image.
    fn open_remote(
        &self,
        reference: &str,
        cache: &Cache,
        host: &Host,
        reporter: &Reporter,
    ) -> Result<(Utf8PathBuf, Sha256)> {
        // Each platform has its own image.
        let origin = format!("{reference}#{}", host.own_arch()?);
        let lock = if self.update_lock { LockFile::default() } else { LockFile::read(&self.lock_path)? };
        let pinned = match lock.of(&origin).map(|locked| &locked.digest) {
            Some(SourceDigest::Sha256(digest)) => Some(*digest),
            _ => None,
        };
        if let Some(digest) = pinned {
            let entry = entry_of(cache, digest);
            let _lock = cache.lock(&lock_name(&entry), reporter)?;
            if check(&entry, cache, reporter)? {
                return Ok((entry, digest));
            }
        }
        if self.offline {
            return Err(Error::fetch("it is not in the cache, and --offline is given")
                .hint("run `kcompile plan` with it once without --offline"));
        }
        let scratch = cache.scratch()?;
        let layout = scratch.path.join("layout");
        if remote::pull(reference, &layout, host)? == Pulled::Nothing {
            return Err(Error::fetch("the registry has no such image").hint(format!(
                "see the tags of its repository: skopeo list-tags {}",
                repository(reference)
            )));
        }
        let (entry, digest) = unpack(&layout, None, cache, host, reporter)?;
        if let Some(pinned) = pinned.filter(|pinned| *pinned != digest) {
            return Err(Error::fetch(format!(
                "the registry serves sha256:{digest}, but {} has sha256:{pinned} from its first use",
                self.lock_path
            ))
            .hint("if the new image is right, accept it with --update-lock"));
        }
        let locked = Locked { digest: SourceDigest::Sha256(digest), unverified: true };
        let existing = if self.update_lock { Existing::Replace } else { Existing::Keep };
        lockfile::add(&self.lock_path, origin, locked, existing)?;
        Ok((entry, digest))
    }
}

/// Returns a reference without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn entry_of(cache: &Cache, digest: Sha256) -> Utf8PathBuf {
    cache.root.join("toolchains").join(digest.to_string())
}

/// Unpacks an image of a layout into the cache, unless it is there. Returns its entry and the image ID.
fn unpack(
    layout: &Utf8Path,
    tag: Option<&str>,
    cache: &Cache,
    host: &Host,
    reporter: &Reporter,
) -> Result<(Utf8PathBuf, Sha256)> {
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
    Ok((entry, id))
}

/// Returns whether the cache has a toolchain. Removes one that is damaged. The caller holds its lock.
fn check(entry: &Utf8Path, cache: &Cache, reporter: &Reporter) -> Result<bool> {
    if !entry.exists() {
        return Ok(false);
    }
    if let Some(owner) = cache.foreign_owner(entry) {
        return Err(Error::usage(format!("{entry} belongs to another user ({owner})"))
            .hint("choose a cache of your own with --cache-dir DIR"));
    }
    let Some(what) = problem(entry) else { return Ok(true) };
    reporter.note(&format!("{entry}: {what}; unpacking it again"));
    remove_tree(entry)?;
    Ok(false)
}

/// Returns the name of the lock of an unpacked toolchain.
pub(crate) fn lock_name(entry: &Utf8Path) -> String {
    format!("toolchain-{}", entry.file_name().unwrap_or_default())
}

/// Returns what is wrong with an unpacked toolchain.
pub(crate) fn problem(entry: &Utf8Path) -> Option<&'static str> {
    let Ok(recorded) = read_text(entry.join(STATE), Links::RefuseAnywhere, MAX_SMALL_FILE) else {
        return Some("incomplete toolchain");
    };
    let is_unchanged = source::tree_stat(&entry.join(ROOT)).is_ok_and(|now| now == recorded);
    (!is_unchanged).then_some("toolchain that was changed")
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
    write_atomically(&entry.join(STATE), source::tree_stat(&root)?.as_bytes())?;
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
