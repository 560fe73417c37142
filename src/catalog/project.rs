//! Finds the user's files and defaults. They lie in the directory of a `kcompile.toml`, in or below which
//! kcompile runs, or in the directory of `--configs DIR`.
//!
//! ```text
//! kcompile.toml     defaults of the command line, may be empty        --configs DIR
//! kcompile.lock     the digests of sources at their first use         DIR/kcompile.lock
//! configs/          the layout of the built-in `configs/`             DIR/
//! patches/          series.toml and patches                           DIR/patches/
//! ```

use crate::catalog::text::{read_text, read_toml};
use crate::host::user_config::{self, KnownLauncher};
use crate::kernel::{Arch, Flavor, ToolchainSpec, VariantChoice};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::mirror;
use crate::util::read::MAX_TOML;
use crate::util::text::{escape_control, is_printable};
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The file that marks a project.
pub const FILE: &str = "kcompile.toml";

/// The directories of the user's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectDirs {
    /// The directory of the lock file.
    pub root: Utf8PathBuf,
    /// The directory of `kernels.toml`, `firecracker/`, `fragments/`, … It may not exist yet.
    pub configs: Utf8PathBuf,
    /// The directory of `series.toml` and patches. It may not exist.
    pub patches: Utf8PathBuf,
}

impl ProjectDirs {
    /// Returns who else may write in the directories: `everybody`, `group 100`.
    pub fn writers(&self) -> Option<String> {
        let dirs = [&self.root, &self.configs, &self.patches];
        let shared = dirs.into_iter().filter_map(|dir| fs::metadata(dir).ok());
        shared.filter_map(|dir| writers(dir.mode(), dir.uid(), dir.gid())).min()
    }

    /// Returns the path of the file that is `name` (`configs/…`) in the library. It may not exist yet.
    pub fn path_of(&self, name: &str) -> Utf8PathBuf {
        self.configs.join(name.strip_prefix("configs/").unwrap_or(name))
    }
}

/// Defaults for options of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// `--fc`, `--ch`.
    pub flavor: Option<Flavor>,
    #[serde(default)]
    pub arch: Vec<Arch>,
    /// `--variant`.
    #[serde(default, deserialize_with = "variant")]
    pub variant: Option<VariantChoice>,
    /// `--output`. Relative to the project in the file, and absolute here.
    pub output: Option<Utf8PathBuf>,
    /// `--mirror`. `KCOMPILE_MIRROR` overrides it.
    #[serde(default, deserialize_with = "mirror::deserialize")]
    pub mirror: Vec<String>,
    /// `--toolchain`. The path of a layout is relative to the project in the file, and absolute here.
    #[serde(default, deserialize_with = "toolchain")]
    pub toolchain: Option<ToolchainSpec>,
    /// `--image-cache`. The key that must have signed the images is not the project's to choose.
    #[serde(rename = "image-cache", default, deserialize_with = "one_or_several")]
    pub image_cache: Vec<String>,
    /// `--require`. Added to the profiles of the command line.
    #[serde(default)]
    pub require: Vec<String>,
    /// VERSION. A text or a list.
    #[serde(default, deserialize_with = "one_or_several")]
    pub version: Vec<String>,
    /// `--fragment`, only by name. Applied before the command line's.
    #[serde(default, deserialize_with = "fragment_names")]
    pub fragment: Vec<String>,
    /// `--set`. Applied after `fragment`.
    #[serde(default)]
    pub set: Vec<String>,
    /// `--launcher`. A project may have come from anywhere, so it cannot name a program.
    pub launcher: Option<KnownLauncher>,
}

/// Reads a text as a list of one.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    })
}

/// Reads names of fragments. A path could lead out of the project.
fn fragment_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    match names.iter().find(|name| name.contains('/') || matches!(&***name, "" | "." | "..")) {
        Some(name) => Err(D::Error::custom(format!(
            "`{name}` is not the name of a fragment; a project keeps its fragments in configs/fragments"
        ))),
        None => Ok(names),
    }
}

/// A project, or only the directory of `--configs`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub file: Option<Utf8PathBuf>,
    pub dirs: Option<ProjectDirs>,
    pub defaults: Defaults,
}

impl Project {
    /// Looks for `kcompile.toml` in `cwd` and the directories above it. The files of `configs`, which is
    /// `--configs`, replace those of the project, but not its defaults. `uid` is the user who runs kcompile.
    ///
    /// # Errors
    ///
    /// Exit code 2: the file is invalid or, without `configs`, another user's, or
    /// `configs` is not a directory.
    pub fn find(cwd: &Utf8Path, configs: Option<&Utf8Path>, uid: u32) -> Result<Project> {
        let mut project = Project::default();
        if let Some(file) = cwd.ancestors().map(|dir| dir.join(FILE)).find(|path| path.is_file()) {
            match foreign_owner(&file, cwd, uid)? {
                None => project = Project::read(&file, &read_text(&file, MAX_TOML)?)?,
                Some(_) if configs.is_some() => {}
                Some(owner) => {
                    return Err(Error::usage(format!("{file} belongs to another user ({owner})")).hint(
                        "if you trust its configs, name their directory with --configs; otherwise put your own \
                         kcompile.toml, which may be empty, into this directory",
                    ));
                }
            }
        }
        if let Some(dir) = configs {
            if !dir.is_dir() {
                return Err(Error::usage(format!("--configs {dir}: not a directory"))
                    .hint("give a directory with the layout of the built-in configs/"));
            }
            let (root, configs) = (dir.to_owned(), dir.to_owned());
            project.dirs = Some(ProjectDirs { root, configs, patches: dir.join("patches") });
        }
        Ok(project)
    }

    fn read(file: &Utf8Path, text: &str) -> Result<Project> {
        let mut defaults: Defaults =
            read_toml(file.as_str(), text).map_err(|error| user_config::explain_key(error, text))?;
        // The path is printed for scripts, without escapes.
        if let Some(output) =
            defaults.output.as_ref().filter(|output| !output.as_str().chars().all(is_printable))
        {
            let shown = escape_control(output.as_str());
            return Err(Error::usage(format!("{file}: output: `{shown}` contains control characters"))
                .hint("name a directory with printable characters"));
        }
        let root = file.parent().expect("a file is in a directory").to_owned();
        defaults.output = defaults.output.map(|output| root.join(output));
        if let Some(ToolchainSpec::Oci(reference)) = &mut defaults.toolchain {
            *reference = root.join(&*reference);
        }
        let dirs = ProjectDirs { configs: root.join("configs"), patches: root.join("patches"), root };
        Ok(Project { file: Some(file.to_owned()), dirs: Some(dirs), defaults })
    }

    /// Returns the directories to write the user's files to.
    ///
    /// # Errors
    ///
    /// Exit code 2: the user has none.
    pub fn user_dirs(&self) -> Result<&ProjectDirs> {
        self.dirs.as_ref().ok_or_else(|| {
            Error::usage("cannot write a config: no project directory was found").hint(format!(
                "name a directory with --configs DIR, or create a {FILE}, which may be empty, at the top of your repository"
            ))
        })
    }
}

/// Returns the owner of `file` unless the user `uid` trusts that owner in the directory `cwd`. The file
/// chooses sources and patches, and may lie in a directory above where others may write, such as `/tmp`. If
/// it is a link, both the link and its target must have a trusted owner.
fn foreign_owner(file: &Utf8Path, cwd: &Utf8Path, uid: u32) -> Result<Option<u32>> {
    let owners =
        || Ok([fs::metadata(cwd)?.uid(), fs::metadata(file)?.uid(), fs::symlink_metadata(file)?.uid()]);
    let owners: std::io::Result<[u32; 3]> = owners();
    let [of_cwd, owner, of_link] = owners.context(Kind::Usage, || format!("cannot read {file}"))?;
    Ok([owner, of_link].into_iter().find(|owner| !is_trusted_owner(*owner, uid, of_cwd)))
}

/// Returns who else may write in a directory. A group with the number of the owner is private.
fn writers(mode: u32, owner: u32, group: u32) -> Option<String> {
    if mode & 0o002 != 0 {
        return Some("everybody".to_owned());
    }
    (mode & 0o020 != 0 && group != owner).then(|| format!("group {group}"))
}

/// Trusts oneself, root, and the owner of the working directory, which may be mounted into a container.
fn is_trusted_owner(owner: u32, uid: u32, of_cwd: u32) -> bool {
    [uid, 0, of_cwd].contains(&owner)
}

fn variant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VariantChoice>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn toolchain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ToolchainSpec>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Project> {
        Project::read("/own/kcompile.toml".into(), text)
    }

    #[test]
    fn those_who_may_write_in_a_directory_are_named() {
        let named = |mode| writers(mode, 1000, 100);
        assert_eq!((named(0o40755), named(0o40775)), (None, Some("group 100".to_owned())));
        assert_eq!(named(0o41777), Some("everybody".to_owned()));
        assert_eq!(writers(0o40775, 1000, 1000), None, "the user's own group");
    }

    #[test]
    fn strangers_are_not_believed() {
        for (owner, trusted) in [(1000, true), (0, true), (1002, true), (1001, false)] {
            assert_eq!(is_trusted_owner(owner, 1000, 1002), trusted, "{owner}");
        }
    }

    #[test]
    fn a_project_is_found_from_below() {
        let uid = rustix::process::geteuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir_all(dir.join("own/deep/down")).unwrap();
        std::fs::create_dir_all(dir.join("other")).unwrap();
        std::fs::write(dir.join("own/kcompile.toml"), "flavor = \"firecracker\"\noutput = \"images\"\n")
            .unwrap();
        let found = Project::find(&dir.join("own/deep/down"), None, uid).unwrap();
        assert_eq!(found.defaults.output, Some(dir.join("own/images")));
        let place = found.user_dirs().unwrap();
        assert_eq!(place.path_of("configs/kernels.toml"), dir.join("own/configs/kernels.toml"));
        // The files of --configs, with the defaults of the project.
        let both = Project::find(&dir.join("own"), Some(&dir.join("other")), uid).unwrap();
        assert_eq!(both.user_dirs().unwrap().path_of("configs/kernels.toml"), dir.join("other/kernels.toml"));
        assert_eq!(both.defaults.flavor, Some(Flavor::Firecracker));
        assert!(Project::find(&dir.join("own"), Some(&dir.join("nowhere")), uid).is_err());
        let none = Project::find(&dir.join("other"), None, uid).unwrap();
        assert!(none.user_dirs().unwrap_err().hint_text().unwrap().contains("--configs DIR"));
    }

    #[test]
    fn a_mistake_names_file_line_and_field() {
        assert_eq!(read("").unwrap().defaults, Defaults::default());
        for (text, says) in [
            ("flavour = \"x\"\n", "line 1, column 1: flavour: unknown field `flavour`"),
            ("\nflavor = \"qemu\"\n", "line 2, column 10: flavor: unknown variant `qemu`"),
            ("arch = \"amd64\"\n", "line 1, column 8: arch: invalid type"),
            (
                "mirror = [\"ftp://x\"]\n",
                "line 1, column 10: mirror: the mirror `ftp://x` is not an http or https URL",
            ),
            ("require = [1]\n", "line 1, column 12: require: invalid type"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let message = error.to_string();
            assert!(message.starts_with("/own/kcompile.toml: TOML parse error at "), "{message}");
            assert!(message.contains(says), "`{says}` is not in: {message}");
        }
    }
}
