//! The only reader of process state: environment, working directory, terminal, CPUs, user.

pub mod bubblewrap;
pub mod packages;
pub mod process;

use crate::kernel::Arch;
use crate::report::Terminal;
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::normalize_path;
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use crate::util::text::join_list;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What kcompile knows of the process and the machine it runs on.
#[derive(Clone, Debug)]
pub struct Host {
    /// The working directory, which relative paths of the command line are resolved against.
    pub cwd: Utf8PathBuf,
    /// The command line, beginning with the program's name.
    pub args: Vec<String>,
    /// The default of `--cache-dir`, if there is a home directory.
    pub cache_dir: Option<Utf8PathBuf>,
    /// The machine's architecture, if kcompile supports it.
    pub arch: Option<Arch>,
    /// The number of CPUs that this process may use, by affinity and cgroup quota.
    pub cpus: usize,
    /// Standard error, without colors if `NO_COLOR` is set or `TERM` is `dumb`.
    pub terminal: Terminal,
    /// Whether standard input and standard error are terminals, so that a child can interact with the user.
    pub interactive: bool,
    /// Whether the process runs as root.
    pub root: bool,
    /// The effective user ID.
    pub uid: u32,
    /// The start of the process, in seconds since 1970.
    pub now: u64,
    /// `KCOMPILE_MIRROR`: URLs separated by commas or spaces.
    pub mirrors: Vec<String>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub source_date_epoch: Option<u64>,
    /// The environment of child processes: `PATH` with the sbin directories, `HOME`, `TMPDIR`, and fixed
    /// `LC_ALL=C`, `TZ=UTC`, `PYTHONDONTWRITEBYTECODE=1` and `RUSTUP_HOME=/dev/null`.
    pub child_env: BTreeMap<String, String>,
    /// Additional variables for a child that draws on the terminal, such as `TERM`.
    pub terminal_env: BTreeMap<String, String>,
    /// Additional variables for a compiler launcher. None of them affects the output.
    pub launcher_env: BTreeMap<String, String>,
    /// The proxy variables of the environment, for a child that uses the network.
    pub proxies: BTreeMap<String, String>,
    /// Additional variables for git: the SSH agent and trusted certificates.
    pub git_env: BTreeMap<String, String>,
    /// Ignored variables of the environment, which would change the build.
    pub ignored: Vec<String>,
    /// The distribution, from `/etc/os-release`.
    pub os: OsRelease,
}

/// The fields of `/etc/os-release` that choose a package manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`: `debian`, `fedora`, …
    pub id: String,
    /// `ID_LIKE`: the distributions that it is derived from.
    pub like: Vec<String>,
}

impl Host {
    /// Reads the state of the process and of the machine.
    ///
    /// # Errors
    ///
    /// The working directory is not usable, or `SOURCE_DATE_EPOCH` is not a number (exit code 2).
    pub fn read() -> Result<Host> {
        let env = full_env();
        let cwd =
            std::env::current_dir().context(Kind::Usage, || "cannot find the working directory".into())?;
        let cwd = Utf8PathBuf::from_path_buf(cwd)
            .map_err(|path| Error::usage(format!("the working directory {} is not UTF-8", path.display())))?;
        let is_terminal = std::io::stderr().is_terminal();
        let set = |key: &str| env.get(key).filter(|value| !value.is_empty());
        let source_date_epoch = match set("SOURCE_DATE_EPOCH") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Error::usage(format!("SOURCE_DATE_EPOCH={text}: not a number of seconds since 1970"))
            })?),
        };
        Ok(Host {
            args: args().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            cache_dir: cache_dir(&env).map(|dir| cwd.join(dir)),
            arch: Arch::find(|spec| *spec.uname == *rustix::system::uname().machine().to_string_lossy()),
            cpus: num_cpus::get(),
            terminal: if !is_terminal {
                Terminal::No
            } else if set("NO_COLOR").is_none() && env.get("TERM").is_some_and(|term| term != "dumb") {
                Terminal::Color
            } else {
                Terminal::Plain
            },
            interactive: is_terminal && std::io::stdin().is_terminal(),
            root: rustix::process::geteuid().is_root(),
            uid: rustix::process::geteuid().as_raw(),
            now: now(),
            mirrors: set("KCOMPILE_MIRROR").map_or_else(Vec::new, |urls| {
                urls.split([',', ' ']).filter(|url| !url.is_empty()).map(str::to_owned).collect()
            }),
            source_date_epoch,
            child_env: child_env(&env),
            launcher_env: launcher_env(&env),
            terminal_env: terminal_env(&env),
            proxies: env
                .iter()
                .filter(|(key, _)| is_proxy(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            git_env: git_env(&env),
            ignored: env.keys().filter(|key| affects_build(key)).cloned().collect(),
            os: OsRelease::parse(
                &read_text("/etc/os-release", Links::Follow, MAX_SMALL_FILE).unwrap_or_default(),
            ),
            cwd,
        })
    }

    /// Returns this machine's architecture.
    ///
    /// # Errors
    ///
    /// kcompile does not support it (exit code 2).
    pub fn own_arch(&self) -> Result<Arch> {
        let titles = || join_list(Arch::ALL.iter().map(|arch| arch.spec().title), "or");
        self.arch.ok_or_else(|| Error::usage(format!("the architecture of this machine is not {}", titles())))
    }

    /// Resolves `path` against the working directory.
    pub fn absolute(&self, path: &Utf8Path) -> Utf8PathBuf {
        normalize_path(&self.cwd.join(path))
    }

    /// Finds the program that `name` runs. A name with a slash is a path, and others are looked up
    /// in the `PATH` of child processes.
    pub fn find_program(&self, name: &str) -> Option<Utf8PathBuf> {
        let runs = |path: &Utf8Path| {
            path.is_file() && rustix::fs::access(path.as_std_path(), rustix::fs::Access::EXEC_OK).is_ok()
        };
        if name.contains('/') {
            return Some(self.absolute(name.into())).filter(|path| runs(path));
        }
        let dirs = self.child_env.get("PATH").map(String::as_str).unwrap_or_default().split(':');
        dirs.filter(|dir| dir.starts_with('/'))
            .map(|dir| Utf8Path::new(dir).join(name))
            .find(|path| runs(path))
    }

    /// Returns a digest of the stamps of program directories and package databases. It changes if a tool or
    /// header is installed or updated.
    pub fn installed(&self) -> Sha256 {
        const PACKAGES: [&str; 5] = [
            "/var/lib/dpkg/status",
            "/var/lib/rpm",
            "/usr/lib/sysimage/rpm",
            "/lib/apk/db/installed",
            "/var/lib/pacman/local",
        ];
        let path = self.child_env.get("PATH").map(String::as_str).unwrap_or_default();
        let mut hasher = Hasher::default();
        for path in path.split(':').chain(PACKAGES) {
            let stamp =
                fs::metadata(path).map(|metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
            hasher.update(format!("{path} {:?}\n", stamp.ok()));
        }
        hasher.finish()
    }
}

impl OsRelease {
    /// Parses `KEY=value` lines.
    pub fn parse(text: &str) -> OsRelease {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        OsRelease { id: value("ID"), like: value("ID_LIKE").split_whitespace().map(str::to_owned).collect() }
    }

    /// Returns whether the distribution is `name` or derived from it.
    pub fn is_like(&self, name: &str) -> bool {
        self.id == name || self.like.iter().any(|like| like == name)
    }
}

/// Returns the command line, beginning with the program's name.
pub fn args() -> impl Iterator<Item = std::ffi::OsString> {
    std::env::args_os()
}

/// Returns the time in seconds since 1970, for documents and messages. It does not affect the output.
pub fn now() -> u64 {
    clock().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the time, to compare it with file stamps.
pub fn clock() -> SystemTime {
    SystemTime::now()
}

/// Returns the whole environment, for programs such as skopeo that find the user's credentials there. It is
/// never used for a build, and not stored, since it may have secrets.
pub fn full_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Returns `KCOMPILE_CACHE_DIR`, or else `kcompile` in the XDG cache directory.
fn cache_dir(env: &BTreeMap<String, String>) -> Option<Utf8PathBuf> {
    let set = |key: &str| env.get(key).filter(|value| !value.is_empty()).map(Utf8PathBuf::from);
    // By the XDG Base Directory Specification, relative paths are invalid and must be ignored.
    let xdg = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("kcompile"));
    let home = set("HOME").map(|home| home.join(".cache/kcompile"));
    set("KCOMPILE_CACHE_DIR").or(xdg).or(home)
}

/// Returns whether curl, apt and git take a proxy from this variable.
fn is_proxy(key: &str) -> bool {
    matches!(key.to_lowercase().as_str(), "http_proxy" | "https_proxy" | "all_proxy" | "no_proxy")
}

/// Returns the environment of child processes, with fixed locale and time zone.
fn child_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
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
fn launcher_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const PASSED: [&str; 25] = [
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
    select(env, &PASSED)
}

/// Selects the SSH agent, and the certificates in OpenSSL's variables under the names of git.
fn git_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = [
        ("SSH_AUTH_SOCK", "SSH_AUTH_SOCK"),
        ("SSL_CERT_FILE", "GIT_SSL_CAINFO"),
        ("SSL_CERT_DIR", "GIT_SSL_CAPATH"),
    ];
    names.iter().filter_map(|(from, to)| Some(((*to).to_owned(), env.get(*from)?.clone()))).collect()
}

/// Selects `TERM` and its database and the colors of menuconfig, and sets a locale with line drawing.
fn terminal_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = ["TERM", "TERMINFO", "TERMINFO_DIRS", "COLORTERM", "MENUCONFIG_COLOR", "MENUCONFIG_MODE"];
    select(env, &names).into_iter().chain([("LC_ALL".to_owned(), "C.UTF-8".to_owned())]).collect()
}

/// Returns whether make or Kbuild reads this variable from the environment.
fn affects_build(key: &str) -> bool {
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
        let dir = |pairs: &[(&str, &str)]| cache_dir(&env(pairs)).unwrap().into_string();
        assert_eq!(dir(&[("HOME", "/h")]), "/h/.cache/kcompile");
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/kcompile");
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), "/h/.cache/kcompile");
        assert_eq!(dir(&[("KCOMPILE_CACHE_DIR", "/k"), ("HOME", "/h")]), "/k");
        assert_eq!(cache_dir(&env(&[])), None);
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

    #[test]
    fn os_release_is_parsed() {
        let os = OsRelease::parse("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=\"debian\"\n");
        assert!(os.is_like("debian") && os.is_like("ubuntu") && !os.is_like("fedora"));
    }
}
