//! The variables of the environment: which ones kcompile reads, and which ones its children get.

use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The variables that kcompile itself reads, and those of all its children.
const OWN_VARIABLES: [&str; 10] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "TERM",
    "NO_COLOR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "KCOMPILE_CACHE_DIR",
    "KCOMPILE_MIRROR",
    "SOURCE_DATE_EPOCH",
];
/// The variables of ccache, sccache, distcc and icecc that do not affect the output.
const LAUNCHER_VARIABLES: [&str; 25] = [
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "CCACHE_DIR",
    "CCACHE_CONFIGPATH",
    "CCACHE_MAXSIZE",
    "CCACHE_MAXFILES",
    "CCACHE_TEMPDIR",
    "CCACHE_REMOTE_STORAGE",
    "CCACHE_REMOTE_ONLY",
    "CCACHE_RESHARE",
    "CCACHE_READONLY",
    "CCACHE_RECACHE",
    "CCACHE_COMPRESSLEVEL",
    "SCCACHE_DIR",
    "SCCACHE_CACHE_SIZE",
    "SCCACHE_CONF",
    "SCCACHE_SERVER_PORT",
    "SCCACHE_IDLE_TIMEOUT",
    "DISTCC_HOSTS",
    "DISTCC_POTENTIAL_HOSTS",
    "DISTCC_DIR",
    "ICECC_SCHEDULER",
    "ICECC_TEST_SOCKET",
    "ICECC_VERSION",
];
/// How the variables begin that tell sccache's server where to keep objects, with the credentials for it
/// (sccache's docs/Configuration.md).
const CACHE_STORAGE_PREFIXES: [&str; 14] = [
    "SCCACHE_BUCKET",
    "SCCACHE_REGION",
    "SCCACHE_ENDPOINT",
    "SCCACHE_S3_",
    "SCCACHE_REDIS",
    "SCCACHE_MEMCACHED",
    "SCCACHE_GCS_",
    "SCCACHE_AZURE_",
    "SCCACHE_GHA_",
    "SCCACHE_WEBDAV_",
    "SCCACHE_OSS_",
    "SCCACHE_COS_",
    "AWS_",
    "ACTIONS_",
];
/// The variables of a child that draws on the terminal.
const TERMINAL_VARIABLES: [&str; 6] =
    ["TERM", "TERMINFO", "TERMINFO_DIRS", "COLORTERM", "MENUCONFIG_COLOR", "MENUCONFIG_MODE"];
/// The variables of git, by their names here and there.
const GIT_VARIABLES: [(&str, &str); 3] = [
    ("SSH_AUTH_SOCK", "SSH_AUTH_SOCK"),
    ("SSL_CERT_FILE", "GIT_SSL_CAINFO"),
    ("SSL_CERT_DIR", "GIT_SSL_CAPATH"),
];
/// The variables by which skopeo finds credentials.
const PUSH_VARIABLES: [&str; 3] = ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];

/// Fails if a variable that kcompile or one of its children reads is not UTF-8. It would have no effect.
pub(super) fn check_utf8(env: impl Iterator<Item = (OsString, OsString)>) -> Result<()> {
    let is_read = |key: &str| {
        let lists: [&[&str]; 4] = [&OWN_VARIABLES, &LAUNCHER_VARIABLES, &TERMINAL_VARIABLES, &PUSH_VARIABLES];
        lists.iter().any(|list| list.contains(&key))
            || GIT_VARIABLES.iter().any(|(name, _)| *name == key)
            || is_proxy(key)
            || is_cache_storage(key)
    };
    let is_lost =
        |(key, value): &(OsString, OsString)| value.to_str().is_none() && key.to_str().is_some_and(is_read);
    match env.into_iter().find(is_lost) {
        None => Ok(()),
        Some((key, _)) => {
            Err(Error::usage(format!("{}: the value of this variable is not UTF-8", key.display()))
                .hint("set it to a text in UTF-8, or unset it"))
        }
    }
}

/// Returns the whole environment, for programs such as skopeo that find the user's credentials there. It is
/// never used for a build, and not stored, since it may have secrets.
pub fn full_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Returns `KCOMPILE_CACHE_DIR`, or else the user config's directory, or else `kcompile` in the XDG cache directory.
pub(super) fn cache_dir(
    env: &BTreeMap<String, String>,
    configured: Option<&Utf8PathBuf>,
) -> Option<Utf8PathBuf> {
    let explicit = set(env, "KCOMPILE_CACHE_DIR").or(configured.cloned());
    explicit.or_else(|| xdg_dir(env, "XDG_CACHE_HOME", ".cache"))
}

/// Returns `kcompile` in the XDG configuration directory.
pub(super) fn config_dir(env: &BTreeMap<String, String>) -> Option<Utf8PathBuf> {
    xdg_dir(env, "XDG_CONFIG_HOME", ".config")
}

/// Returns `kcompile` in an XDG directory, or in the directory `default` of the home directory.
fn xdg_dir(env: &BTreeMap<String, String>, key: &str, default: &str) -> Option<Utf8PathBuf> {
    // By the XDG Base Directory Specification, relative paths are invalid and must be ignored.
    let xdg = set(env, key).filter(|path| path.is_absolute());
    Some(xdg.or_else(|| set(env, "HOME").map(|home| home.join(default)))?.join("kcompile"))
}

/// Returns a path in a variable that is set and not empty.
pub(super) fn set(env: &BTreeMap<String, String>, key: &str) -> Option<Utf8PathBuf> {
    env.get(key).filter(|value| !value.is_empty()).map(Utf8PathBuf::from)
}

/// Returns whether curl, apt and git take a proxy from this variable.
pub(super) fn is_proxy(key: &str) -> bool {
    matches!(key.to_lowercase().as_str(), "http_proxy" | "https_proxy" | "all_proxy" | "no_proxy")
}

/// Returns the environment of child processes, with fixed locale and time zone.
pub(super) fn child_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut child = select(env, &["HOME", "TMPDIR"]);
    let mut path = env.get("PATH").cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    // depmod is in /sbin, which is not in the PATH of ordinary users on Debian.
    for dir in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        if !path.split(':').any(|have| have == dir) {
            path = format!("{path}:{dir}");
        }
    }
    child.insert("PATH".into(), path);
    child.insert("LC_ALL".into(), "C".into());
    child.insert("TZ".into(), "UTC".into());
    // The kernel's scripts must not write bytecode to the source tree.
    child.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    // Kconfig runs rustc for its version. The rustc of rustup looks for toolchains in HOME, which is the
    // user's only for launchers and without a sandbox. This makes it find none everywhere. The distribution's
    // rustc ignores it.
    child.insert("RUSTUP_HOME".into(), "/dev/null".into());
    child
}

fn select(env: &BTreeMap<String, String>, keys: &[&str]) -> BTreeMap<String, String> {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), env.get(*key)?.clone()))).collect()
}

/// Selects variables of ccache, sccache, distcc and icecc. Leaves out those that weaken checks, change
/// command lines or choose another compiler.
pub(super) fn launcher_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    select(env, &LAUNCHER_VARIABLES)
}

/// Selects the variables for sccache's server. They may have passwords.
pub(super) fn cache_storage_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let storage = env.iter().filter(|(key, _)| is_cache_storage(key));
    storage.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn is_cache_storage(key: &str) -> bool {
    CACHE_STORAGE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Selects the SSH agent, and the certificates in OpenSSL's variables under the names of git.
pub(super) fn git_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    GIT_VARIABLES.iter().filter_map(|(from, to)| Some(((*to).to_owned(), env.get(*from)?.clone()))).collect()
}

/// Selects `TERM` and its database and the colors of menuconfig, and sets a locale with line drawing.
pub(super) fn terminal_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    select(env, &TERMINAL_VARIABLES)
        .into_iter()
        .chain([("LC_ALL".to_owned(), "C.UTF-8".to_owned())])
        .collect()
}

/// Returns whether make or Kbuild reads this variable from the environment.
pub(super) fn affects_build(key: &str) -> bool {
    const NAMES: [&str; 23] = [
        "ARCH",
        "SUBARCH",
        "SRCARCH",
        "CROSS_COMPILE",
        "CC",
        "HOSTCC",
        "LD",
        "AR",
        "NM",
        "OBJCOPY",
        "STRIP",
        "LLVM",
        "LLVM_IAS",
        "KCFLAGS",
        "KAFLAGS",
        "KCPPFLAGS",
        "MAKEFLAGS",
        "MFLAGS",
        "GNUMAKEFLAGS",
        "MAKEFILES",
        "LOCALVERSION",
        "O",
        "DEPMOD",
    ];
    NAMES.contains(&key) || ["KBUILD_", "KCONFIG_", "INSTALL_"].iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_cache_follows_the_xdg_rules() {
        let dir = |pairs: &[(&str, &str)]| cache_dir(&env(pairs), None).unwrap().into_string();
        assert_eq!(dir(&[("HOME", "/h")]), "/h/.cache/kcompile");
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/kcompile");
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), "/h/.cache/kcompile");
        assert_eq!(dir(&[("KCOMPILE_CACHE_DIR", "/k"), ("HOME", "/h")]), "/k");
        assert_eq!(cache_dir(&env(&[]), None), None);
        // The user config is between them.
        let own = Utf8PathBuf::from("/own");
        let with_own = |pairs: &[(&str, &str)]| cache_dir(&env(pairs), Some(&own)).unwrap();
        assert_eq!(with_own(&[("XDG_CACHE_HOME", "/xdg")]), own);
        assert_eq!(with_own(&[("KCOMPILE_CACHE_DIR", "/given")]), "/given");
    }

    #[test]
    fn a_child_gets_few_variables() {
        let child =
            child_env(&env(&[("PATH", "/bin"), ("MAKEFLAGS", "-n"), ("AWS_SECRET", "x"), ("LANG", "tr_TR")]));
        assert_eq!(child["PATH"], "/bin:/usr/local/sbin:/usr/sbin:/sbin");
        assert_eq!(
            child.keys().map(String::as_str).collect::<Vec<_>>(),
            ["LC_ALL", "PATH", "PYTHONDONTWRITEBYTECODE", "RUSTUP_HOME", "TZ"]
        );
        let with_rust = child_env(&env(&[("HOME", "/home/user"), ("RUSTUP_HOME", "/home/user/.rustup")]));
        assert_eq!(with_rust["RUSTUP_HOME"], "/dev/null", "the same whatever the user's HOME");
    }

    #[test]
    fn variables_of_kbuild_are_recognised() {
        for key in ["MAKEFLAGS", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "ARCH", "INSTALL_MOD_PATH", "LLVM"] {
            assert!(affects_build(key), "{key}");
        }
        assert!(!affects_build("PATH") && !affects_build("HOME"));
    }
}
