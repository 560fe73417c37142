//! `config.toml` in the user's configuration directory. It has defaults that do not affect the output.

use crate::report::Progress;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::mirror;
use crate::util::read::{Links, MAX_SMALL_FILE, open_file, read_all};
use crate::util::terminal::ColorChoice;
use crate::util::toml::read_toml;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use std::io;
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt;

const FILE: &str = "config.toml";
/// The keys of the file.
const KEYS: [&str; 8] =
    ["cache_dir", "jobs", "progress", "color", "mirror", "launcher", "keyring", "image_cache_key"];

/// The user's defaults for options. The command line, the environment and a project override them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// `--cache-dir`.
    pub cache_dir: Option<Utf8PathBuf>,
    /// `--jobs`.
    pub jobs: Option<NonZeroU16>,
    /// `--progress`.
    pub progress: Option<Progress>,
    /// `--color`.
    pub color: Option<ColorChoice>,
    /// `--mirror`.
    #[serde(default, deserialize_with = "mirror::deserialize")]
    pub mirror: Vec<String>,
    /// `--launcher`, only one that does not affect the output.
    pub launcher: Option<KnownLauncher>,
    /// `--keyring`. These keys are trusted in addition to those of the command line.
    #[serde(default)]
    pub keyring: Vec<Utf8PathBuf>,
    /// `--image-cache-key`.
    pub image_cache_key: Option<Utf8PathBuf>,
}

/// A launcher that does not affect the output, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownLauncher {
    Ccache,
    Sccache,
    Distcc,
    Icecc,
    None,
}

impl KnownLauncher {
    /// Returns the program, unless there is none.
    pub fn program(self) -> Option<&'static str> {
        match self {
            KnownLauncher::Ccache => Some("ccache"),
            KnownLauncher::Sccache => Some("sccache"),
            KnownLauncher::Distcc => Some("distcc"),
            KnownLauncher::Icecc => Some("icecc"),
            KnownLauncher::None => None,
        }
    }
}

impl UserConfig {
    /// Reads the file in `dir`, if there is one. A path in it may begin with `~/`, or is relative to `dir`.
    ///
    /// # Errors
    ///
    /// Exit code 2: the file is invalid or not a regular file, or another user can write it.
    pub fn read(dir: Option<Utf8PathBuf>, home: Option<&Utf8Path>, uid: u32) -> Result<UserConfig> {
        let Some(dir) = dir else { return Ok(UserConfig::default()) };
        let path = dir.join(FILE);
        // Without access to the directory it is another user's, as after `su` without a new HOME.
        if path.symlink_metadata().is_err() {
            return Ok(UserConfig::default());
        }
        let text = read_own_file(&path, uid)?;
        let mut config: UserConfig = read_toml(path.as_str(), &text)?;
        let resolve = |path: &mut Utf8PathBuf| {
            *path = match (path.strip_prefix("~"), home) {
                (Ok(below), Some(home)) => home.join(below),
                _ => dir.join(&path),
            };
        };
        let paths = config.cache_dir.iter_mut().chain(&mut config.keyring).chain(&mut config.image_cache_key);
        paths.for_each(resolve);
        Ok(config)
    }
}

/// Reads a file that nobody but the user `uid` and root can change. It names trusted keys.
fn read_own_file(path: &Utf8Path, uid: u32) -> Result<String> {
    let cannot_read = || format!("cannot read {path}");
    let file = open_file(path, Links::Follow).context(Kind::Usage, cannot_read)?;
    let found = file.metadata().context(Kind::Usage, cannot_read)?;
    if ![uid, 0].contains(&found.uid()) {
        return Err(Error::usage(format!("{path} belongs to another user ({})", found.uid()))
            .hint("set XDG_CONFIG_HOME or HOME to your own directory"));
    }
    if found.mode() & 0o002 != 0 {
        return Err(
            Error::usage(format!("{path}: everybody can write this file")).hint(format!("chmod o-w {path}"))
        );
    }
    let text = read_all(file, MAX_SMALL_FILE).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
    });
    text.context(Kind::Usage, cannot_read)
}

/// Says where a key belongs if a project has a key of the user config.
pub fn explain_key(error: Error, project: &str) -> Error {
    let table: toml::Table = project.parse().unwrap_or_default();
    match KEYS.iter().find(|key| !["mirror", "launcher"].contains(key) && table.contains_key(**key)) {
        Some(key) => {
            error.hint(format!("a project cannot set `{key}`; put it into kcompile/{FILE} in ~/.config"))
        }
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_complete() {
        let error = read_toml::<UserConfig>("x", "x = 1\n").unwrap_err().to_string();
        assert!(KEYS.iter().all(|key| error.contains(&format!("`{key}`"))), "{error}");
        assert_eq!(error.matches('`').count(), 2 * (KEYS.len() + 1), "{error}");
    }

    #[test]
    fn paths_are_relative_to_the_file_or_to_the_home_directory() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(dir.join(FILE), "cache_dir = \"~/cache\"\nkeyring = [\"a.asc\", \"/b.asc\"]\n")
            .unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let config = UserConfig::read(Some(dir.to_owned()), Some("/home/user".into()), uid).unwrap();
        assert_eq!(config.cache_dir.unwrap(), "/home/user/cache");
        assert_eq!(config.keyring, [dir.join("a.asc"), "/b.asc".into()]);
    }
}
