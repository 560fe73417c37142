//! Writes the kernel, the modules and the config of an image as plain files.

use super::inspect::{self, ImageInfo, ReadCache, counterpart_image};
use crate::oci::read::Image;
use crate::oci::root::{Node, RootFs};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{TEMPORARY, create_dir, persist, write_atomically};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use tempfile::{NamedTempFile, TempDir};

/// An image and its content.
pub struct Inspected {
    image: Image,
    pub info: ImageInfo,
}

/// The image that the user named, and the one of its modules or of its kernel if it lies beside it.
pub struct Images(Vec<Inspected>);

/// What [`Images::modules`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct ExtractedModules {
    /// `lib/modules/<release>` in the user's directory.
    pub directory: Utf8PathBuf,
    pub files: usize,
    /// Symbolic links and special files, which are left out.
    pub skipped: usize,
}

impl Images {
    /// Inspects `image` and its counterpart.
    ///
    /// # Errors
    ///
    /// Exit code 3 if an image breaks a rule, and 1 if the two are not of one build.
    pub fn open(image: Image) -> Result<Images> {
        let mut cache = ReadCache::default();
        let arch = image.config.architecture().to_string();
        let other = counterpart_image(&image.layout, image.tag.as_deref(), &arch, &mut cache)?;
        Images::inspect([Some(image), other].into_iter().flatten(), &mut cache)
    }

    /// Inspects a kernel's image and that of its modules.
    ///
    /// # Errors
    ///
    /// As for [`Images::open`].
    pub fn of(kernel: Image, modules: Option<Image>) -> Result<Images> {
        Images::inspect([Some(kernel), modules].into_iter().flatten(), &mut ReadCache::default())
    }

    fn inspect(images: impl Iterator<Item = Image>, cache: &mut ReadCache) -> Result<Images> {
        let inspected = images.map(|image| Ok(Inspected { info: cache.inspect(&image)?, image }));
        Ok(Images(inspected.collect::<Result<_>>()?))
    }

    /// Returns the image that has the kernel.
    ///
    /// # Errors
    ///
    /// Exit code 2 if there is none, or several kernels and none at the hypervisor's path.
    pub fn kernel_image(&self) -> Result<&Inspected> {
        self.0.iter().find(|one| one.info.scan.main_kernel().is_some()).ok_or_else(|| {
            let several = self.0.iter().flat_map(|one| one.info.scan.kernels.keys());
            let several: Vec<&str> = several.map(String::as_str).collect();
            match several[..] {
                [] => Error::usage(format!("{} has no kernel", self.title()))
                    .hint("name the layout of the kernel"),
                _ => Error::usage(format!("{} has several kernels: {}", self.title(), several.join(", ")))
                    .hint("take the one you want out of the image with umoci or skopeo"),
            }
        })
    }

    /// Writes the kernel to the file `to`, with mode 0644.
    ///
    /// # Errors
    ///
    /// Exit code 2 if there is no kernel, 3 if the image is damaged, 1 if the file cannot be written.
    pub fn kernel(&self, to: &Utf8Path) -> Result<()> {
        let Inspected { image, info } = self.kernel_image()?;
        let (path, _) = info.scan.main_kernel().expect("the image has a kernel");
        check_replaceable(to)?;
        let dir = to.parent().unwrap_or(Utf8Path::new("/"));
        create_dir(dir)?;
        let message = || format!("cannot write {to}");
        let mut file = NamedTempFile::with_prefix_in(TEMPORARY, dir).context(Kind::Build, message)?;
        image.visit_files(&image.root()?, |names, _, bytes| {
            if names.contains(&path.as_str()) {
                copy(bytes, file.as_file_mut(), to)?;
            }
            Ok(())
        })?;
        persist(file, to)
    }

    /// Returns the final `.config`, if an image has it.
    pub fn config_text(&self) -> Option<&str> {
        self.0.iter().find_map(|one| one.info.scan.kernel_config()).map(|(_, text)| text)
    }

    /// Returns whether an image has modules.
    pub fn has_modules(&self) -> bool {
        self.0.iter().any(|one| one.info.modules.is_some())
    }

    /// Writes the final `.config` to the file `to`.
    ///
    /// # Errors
    ///
    /// Exit code 2 if no image has it, 1 if the file cannot be written.
    pub fn config(&self, to: &Utf8Path) -> Result<()> {
        let Some(text) = self.config_text() else {
            return Err(Error::usage(format!("{} has no .config", self.title())).hint(
                "kcompile's modules images have one; a kernel has one inside if it was built with \
                 CONFIG_IKCONFIG",
            ));
        };
        check_replaceable(to)?;
        create_dir(to.parent().unwrap_or(Utf8Path::new("/")))?;
        write_atomically(to, text.as_bytes())
    }

    /// Writes the modules and depmod's files to `lib/modules/<release>` in `root`, as the kernel's
    /// `modules_install` does with INSTALL_MOD_PATH. The directory appears when all files are in it.
    ///
    /// # Errors
    ///
    /// Exit code 2 if there are no modules, or the directory exists already, 3 if the image is damaged, 1 if a
    /// file cannot be written.
    pub fn modules(&self, root: &Utf8Path) -> Result<ExtractedModules> {
        let found = self.0.iter().find_map(|one| Some((one, one.info.modules.as_ref()?)));
        let Some((Inspected { image, info }, modules)) = found else {
            return Err(Error::usage(format!("{} has no modules", self.title()))
                .hint("name the layout of the modules, or build the kernel without --no-modules"));
        };
        let kernel = self.0.iter().find(|one| one.info.scan.main_kernel().is_some());
        if let Some(kernel) = kernel {
            inspect::check_pair(&kernel.info, info)?;
        }
        let release = info.release.as_deref().unwrap_or_default();
        if !is_file_name(release) {
            return Err(Error::fetch(format!("{}: no release of the modules is known", image.layout)));
        }
        let parent = modules_dir(root)?;
        let directory = parent.join(release);
        if directory.symlink_metadata().is_ok() {
            return Err(Error::usage(format!("{directory} exists already"))
                .hint("remove it first, or give another directory to --modules"));
        }
        let message = || format!("cannot write {directory}");
        let scratch = TempDir::with_prefix_in(TEMPORARY, &parent).context(Kind::Build, message)?;
        let written = Utf8Path::from_path(scratch.path()).expect("a path of UTF-8").join(release);
        let tree = image.root()?;
        let files = write_files(image, &tree, &modules.directory, &written)?;
        let is_below = |path: &str| below(path, &modules.directory).is_some();
        let skipped = tree
            .nodes()
            .filter(|(path, node)| matches!(node, Node::SymLink(_) | Node::Special) && is_below(path))
            .count();
        fs::rename(&written, &directory).context(Kind::Build, message)?;
        Ok(ExtractedModules { directory, files, skipped })
    }

    fn title(&self) -> String {
        let names = self.0.iter().map(|Inspected { image, .. }| match &image.tag {
            Some(tag) => format!("{}:{tag}", image.layout),
            None => image.layout.to_string(),
        });
        names.collect::<Vec<_>>().join(" or ")
    }
}

/// Writes all files below `directory` of an image to `to`. A second name is a hard link.
fn write_files(image: &Image, tree: &RootFs, directory: &str, to: &Utf8Path) -> Result<usize> {
    let mut count = 0;
    let make_dir = |dir: &Utf8Path| {
        fs::create_dir_all(dir).context(Kind::Build, || format!("cannot make the directory {dir}"))
    };
    make_dir(to)?;
    image.visit_files(tree, |names, _, bytes| {
        let mut places = names.iter().filter_map(|name| below(name, directory)).map(|name| to.join(name));
        let Some(first) = places.next() else { return Ok(()) };
        let message = || format!("cannot write {first}");
        make_dir(first.parent().expect("below a directory"))?;
        let mut file = File::create_new(&first).context(Kind::Build, message)?;
        file.set_permissions(Permissions::from_mode(0o644)).context(Kind::Build, message)?;
        copy(bytes, &mut file, &first)?;
        count += 1;
        for place in places {
            make_dir(place.parent().expect("below a directory"))?;
            fs::hard_link(&first, &place).context(Kind::Build, || format!("cannot write {place}"))?;
            count += 1;
        }
        Ok(())
    })?;
    Ok(count)
}

/// Copies bytes of a layer. An error of the layer says what is wrong with it.
fn copy(bytes: &mut dyn Read, file: &mut File, to: &Utf8Path) -> Result<()> {
    io::copy(bytes, file).map(drop).context(Kind::Build, || format!("cannot write {to}"))
}

/// Returns the part of `path` below `directory`, which is empty for the root of the image.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory.is_empty() {
        return Some(path);
    }
    path.strip_prefix(directory)?.strip_prefix('/')
}

fn is_file_name(name: &str) -> bool {
    let mut parts = Utf8Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Utf8Component::Normal(part)), None) if part == name)
}

/// Makes `lib/modules` in `root` and returns it. `lib` may be a link, as it is in root file systems with a
/// merged /usr.
///
/// # Errors
///
/// Exit code 2 if a link leads out of `root`, as an absolute one does.
fn modules_dir(root: &Utf8Path) -> Result<Utf8PathBuf> {
    create_dir(root)?;
    let real = |path: &Utf8Path| {
        path.canonicalize_utf8().context(Kind::Usage, || format!("--modules: cannot use {path}"))
    };
    let root = real(root)?;
    let mut dir = root.clone();
    for name in ["lib", "modules"] {
        dir = dir.join(name);
        if !dir.is_symlink() {
            create_dir(&dir)?;
        }
        dir = real(&dir)?;
        if !dir.starts_with(&root) {
            return Err(Error::usage(format!("--modules: {name} in {root} leads out of it, to {dir}"))
                .hint("make the link relative"));
        }
    }
    Ok(dir)
}

/// Checks that `path` is a regular file or does not exist. A rename would replace a device or a link.
///
/// # Errors
///
/// Exit code 2 if it is something else.
fn check_replaceable(path: &Utf8Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => {
            Err(Error::usage(format!("{path} is not a regular file")).hint("give the path of a file"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_one_name() {
        for name in ["6.1.7", "6.1.7-rc1+", "..."] {
            assert!(is_file_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/", "a/", "./a"] {
            assert!(!is_file_name(name), "{name}");
        }
    }

    #[test]
    fn modules_stay_below_the_root() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap().canonicalize_utf8().unwrap();
        for name in ["merged/usr/lib", "absolute", "upwards", "outside"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        symlink("usr/lib", dir.join("merged/lib")).unwrap();
        symlink(dir.join("outside"), dir.join("absolute/lib")).unwrap();
        symlink("../outside", dir.join("upwards/lib")).unwrap();
        assert_eq!(modules_dir(&dir.join("new")).unwrap(), dir.join("new/lib/modules"));
        assert_eq!(modules_dir(&dir.join("merged")).unwrap(), dir.join("merged/usr/lib/modules"));
        for name in ["absolute", "upwards"] {
            assert!(modules_dir(&dir.join(name)).unwrap_err().to_string().contains("leads out of it"));
        }
        assert!(!dir.join("outside/modules").exists());
    }
}
