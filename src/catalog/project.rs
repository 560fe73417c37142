//! Where the user's own files lie, and the defaults that come with them: a directory with a
//! `kcompile.toml`, in which or below which kcompile runs, or what `--configs DIR` names.
//!
//! ```text
//! kcompile.toml     defaults of the command line; may be empty        --configs DIR
//! kcompile.lock     what the sources were at their first use          DIR/kcompile.lock
//! configs/          laid out like the project's own `configs/`        DIR/
//! patches/          series.toml and patches                           DIR/patches/
//! ```

use crate::catalog::text::{read_text, read_toml};
use crate::kernel::{Arch, Flavor};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::MAX_TOML;
use crate::util::text::{escape_control, has_credentials, is_printable, redact_credentials};
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The file that marks a project.
pub const FILE: &str = "kcompile.toml";

/// The user's own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectDirs {
    /// Where the lock file lies.
    pub root: Utf8PathBuf,
    /// Of `kernels.toml`, `firecracker/`, `fragments/`, …; may not be there yet.
    pub configs: Utf8PathBuf,
    /// Of `series.toml` and patches; may not be there.
    pub patches: Utf8PathBuf,
}

impl ProjectDirs {
    /// What `--configs DIR` names. Errors (exit code 2): `dir` is no directory.
    pub fn of_configs(dir: &Utf8Path) -> Result<ProjectDirs> {
        match dir.is_dir() {
            true => Ok(ProjectDirs {
                root: dir.to_owned(),
                configs: dir.to_owned(),
                patches: dir.join("patches"),
            }),
            false => Err(Error::usage(format!("--configs {dir}: not a directory"))),
        }
    }

    /// Returns who else may write where the user's files lie: `everybody`, `group 100`.
    pub fn writers(&self) -> Option<String> {
        let dirs = [&self.root, &self.configs, &self.patches];
        let shared = dirs.into_iter().filter_map(|dir| fs::metadata(dir).ok());
        shared.filter_map(|dir| writers(dir.mode(), dir.uid(), dir.gid())).min()
    }

    /// Where the file lies, or will lie, that the library calls `name` (`configs/…`).
    pub fn path_of(&self, name: &str) -> Utf8PathBuf {
        self.configs.join(name.strip_prefix("configs/").unwrap_or(name))
    }
}

/// Defaults of the command line, which wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// `--fc`, `--ch`.
    pub flavor: Option<Flavor>,
    /// `--arch`.
    #[serde(default)]
    pub arch: Vec<Arch>,
    /// `--output`: absolute once read; in the file it is relative to the project.
    pub output: Option<Utf8PathBuf>,
    /// `--mirror`; `KCOMPILE_MIRROR` wins, too.
    #[serde(default, deserialize_with = "mirrors")]
    pub mirror: Vec<String>,
    /// `--require`: profiles in addition to those of the command line.
    #[serde(default)]
    pub require: Vec<String>,
}

/// A project, or only what `--configs` names, or nothing of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    /// Its `kcompile.toml`.
    pub file: Option<Utf8PathBuf>,
    /// The user's own files.
    pub dirs: Option<ProjectDirs>,
    /// What `kcompile.toml` says.
    pub defaults: Defaults,
}

impl Project {
    /// Looks for `kcompile.toml` in `cwd` and the directories above it. `configs` is `--configs`: its files
    /// take the place of the project's, whose defaults stay. `uid` is the user who runs kcompile.
    ///
    /// Errors (exit code 2): a mistake in the file, with its line and field; it belongs to somebody else, and
    /// there is no `configs` to say what is meant; `configs` is no directory.
    pub fn find(cwd: &Utf8Path, configs: Option<&Utf8Path>, uid: u32) -> Result<Project> {
        let file = cwd.ancestors().map(|dir| dir.join(FILE)).find(|path| path.is_file());
        let mut project = match file {
            Some(file) => match (foreign_owner(&file, cwd, uid)?, configs) {
                (None, _) => Project::read(&file, &read_text(&file, MAX_TOML)?)?,
                (Some(_), Some(_)) => Project::default(),
                (Some(owner), None) => {
                    return Err(Error::usage(format!("{file} belongs to another user ({owner})")).hint(
                        "if its configs are to be believed, name their directory with --configs; a \
                         kcompile.toml of your own, which may be empty, is found first",
                    ));
                }
            },
            None => Project::default(),
        };
        if let Some(dir) = configs {
            project.dirs = Some(ProjectDirs::of_configs(dir)?);
        }
        Ok(project)
    }

    fn read(file: &Utf8Path, text: &str) -> Result<Project> {
        let mut defaults: Defaults = read_toml(file.as_str(), text)?;
        // It is printed for scripts, which want the path as it is.
        if let Some(output) =
            defaults.output.as_ref().filter(|output| !output.as_str().chars().all(is_printable))
        {
            let shown = escape_control(output.as_str());
            return Err(Error::usage(format!(
                "{file}: output: `{shown}` holds characters that a terminal obeys"
            ))
            .hint("name a directory with plain characters"));
        }
        let root = file.parent().expect("a file is in a directory").to_owned();
        defaults.output = defaults.output.map(|output| root.join(output));
        let dirs = ProjectDirs { configs: root.join("configs"), patches: root.join("patches"), root };
        Ok(Project { file: Some(file.to_owned()), dirs: Some(dirs), defaults })
    }

    /// Where to write the user's files. Errors (exit code 2): there is no such place.
    pub fn user_dirs(&self) -> Result<&ProjectDirs> {
        self.dirs.as_ref().ok_or_else(|| {
            Error::usage("there is no directory of your own to write to").hint(format!(
                "give one with --configs DIR, or put a {FILE} (it may be empty) at the top of your repository"
            ))
        })
    }
}

/// The owner of `file` where that is nobody whom the user `uid` believes in the directory `cwd`. It says what is
/// built, from where, and with which patches, and lies above, where others may write: in `/tmp`, say. A link
/// chooses as well as what it leads to.
fn foreign_owner(file: &Utf8Path, cwd: &Utf8Path, uid: u32) -> Result<Option<u32>> {
    let owners =
        || Ok([fs::metadata(cwd)?.uid(), fs::metadata(file)?.uid(), fs::symlink_metadata(file)?.uid()]);
    let owners: std::io::Result<[u32; 3]> = owners();
    let [of_cwd, owner, of_link] = owners.context(Kind::Usage, || format!("cannot read {file}"))?;
    Ok([owner, of_link].into_iter().find(|owner| !is_trusted_owner(*owner, uid, of_cwd)))
}

/// Who beside its owner may write in a directory. A group with the number of its user is that user's own.
fn writers(mode: u32, owner: u32, group: u32) -> Option<String> {
    if mode & 0o002 != 0 {
        return Some("everybody".to_owned());
    }
    (mode & 0o020 != 0 && group != owner).then(|| format!("group {group}"))
}

/// Oneself, root, and whoever owns the directory that one works in, as in a container that has it mounted.
fn is_trusted_owner(owner: u32, uid: u32, of_cwd: u32) -> bool {
    [uid, 0, of_cwd].contains(&owner)
}

/// What is wrong with the URL of a mirror, if anything is.
pub fn mirror_error(url: &str) -> Option<String> {
    let printed = redact_credentials(url);
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Some(format!("the mirror `{printed}` is not an http or https URL"));
    }
    // It would stand in receipts and logs, and in the list of processes already.
    has_credentials(url)
        .then(|| format!("the mirror `{printed}` names a login, which does not belong into a URL"))
}

fn mirrors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mirrors = Vec::<String>::deserialize(deserializer)?;
    match mirrors.iter().find_map(|mirror| mirror_error(mirror)) {
        Some(message) => Err(D::Error::custom(message)),
        None => Ok(mirrors),
    }
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
