//! The only reader of process state: environment, working directory, terminal, CPUs, user.

pub mod bubblewrap;
mod compiler_dir;
mod env;
pub mod packages;
pub mod process;
mod terminal;
pub mod tls;
mod tool_root;
pub mod user_config;

pub use compiler_dir::CompilerDir;
pub use env::full_env;
pub use tool_root::{ToolRoot, bind_directories};

use crate::kernel::Arch;
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::normalize_path;
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use crate::util::terminal::{ColorChoice, Terminals};
use crate::util::text::join_list;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};
use user_config::UserConfig;

/// A directory of `PATH` with more entries is not searched for programs.
const MAX_ENTRIES_WITHOUT_TOOLS: usize = 256;

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
    pub terminals: Terminals,
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
    /// Additional variables for sccache's server: where it keeps objects. Make does not get them.
    pub cache_storage_env: BTreeMap<String, String>,
    /// The proxy variables of the environment, for a child that uses the network.
    pub proxies: BTreeMap<String, String>,
    /// Additional variables for git: the SSH agent and trusted certificates.
    pub git_env: BTreeMap<String, String>,
    /// Ignored variables of the environment, which would change the build.
    pub ignored: Vec<String>,
    /// The distribution, from `/etc/os-release`.
    pub os: OsRelease,
    /// The user's defaults.
    pub user: UserConfig,
    /// `--toolchain`: where the build's tools come from, if not from this host.
    pub tool_root: Option<ToolRoot>,
    /// `--toolchain kernel.org:…`: a compiler for each architecture.
    pub compilers: Vec<CompilerDir>,
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
    /// Reads the state of the process and of the machine, and the user's defaults. `color` is `--color`.
    ///
    /// # Errors
    ///
    /// The user config is invalid, the working directory is not usable, `SOURCE_DATE_EPOCH` is not a number, or
    /// a variable that kcompile reads is not UTF-8 (exit code 2).
    pub fn read(color: Option<ColorChoice>) -> Result<Host> {
        env::check_utf8(std::env::vars_os())?;
        let variables = full_env();
        let uid = rustix::process::geteuid().as_raw();
        let user =
            UserConfig::read(env::config_dir(&variables), env::set(&variables, "HOME").as_deref(), uid)?;
        let color = terminal::choose_color(color, &variables, user.color);
        let cwd =
            std::env::current_dir().context(Kind::Usage, || "cannot find the working directory".into())?;
        let cwd = Utf8PathBuf::from_path_buf(cwd)
            .map_err(|path| Error::usage(format!("the working directory {} is not UTF-8", path.display())))?;
        let is_terminal = std::io::stderr().is_terminal();
        let set = |key: &str| variables.get(key).filter(|value| !value.is_empty());
        let source_date_epoch = match set("SOURCE_DATE_EPOCH") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Error::usage(format!("SOURCE_DATE_EPOCH={text}: not a number of seconds since 1970"))
            })?),
        };
        Ok(Host {
            args: args().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            cache_dir: env::cache_dir(&variables, user.cache_dir.as_ref()).map(|dir| cwd.join(dir)),
            arch: Arch::find(|spec| *spec.uname == *rustix::system::uname().machine().to_string_lossy()),
            cpus: num_cpus::get(),
            terminals: Terminals {
                stdout: terminal::detect(&variables, std::io::stdout().is_terminal(), color),
                stderr: terminal::detect(&variables, is_terminal, color),
            },
            interactive: is_terminal && std::io::stdin().is_terminal(),
            root: rustix::process::geteuid().is_root(),
            uid,
            now: now(),
            mirrors: set("KCOMPILE_MIRROR").map_or_else(Vec::new, |urls| {
                urls.split([',', ' ']).filter(|url| !url.is_empty()).map(str::to_owned).collect()
            }),
            source_date_epoch,
            child_env: env::child_env(&variables),
            launcher_env: env::launcher_env(&variables),
            cache_storage_env: env::cache_storage_env(&variables),
            terminal_env: env::terminal_env(&variables),
            proxies: variables
                .iter()
                .filter(|(key, _)| env::is_proxy(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            git_env: env::git_env(&variables),
            ignored: std::env::vars_os()
                .filter_map(|(key, _)| key.into_string().ok())
                .filter(|key| env::affects_build(key))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            os: OsRelease::parse(
                &read_text("/etc/os-release", Links::Follow, MAX_SMALL_FILE).unwrap_or_default(),
            ),
            user,
            cwd,
            tool_root: None,
            compilers: Vec::new(),
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

    /// Returns a digest of the stamps of package databases and of the directories in `PATH` that have tools. It
    /// changes if a tool or header is installed or updated.
    pub fn installed(&self) -> Sha256 {
        if let Some(root) = &self.tool_root {
            return root.digest;
        }
        const PACKAGES: [&str; 5] = [
            "/var/lib/dpkg/status",
            "/var/lib/rpm",
            "/usr/lib/sysimage/rpm",
            "/lib/apk/db/installed",
            "/var/lib/pacman/local",
        ];
        let path = self.child_env.get("PATH").map(String::as_str).unwrap_or_default();
        let mut hasher = Hasher::default();
        for path in path.split(':').filter(|dir| has_tools(dir)).chain(PACKAGES) {
            let stamp =
                fs::metadata(path).map(|metadata| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
            hasher.update(format!("{path} {:?}\n", stamp.ok()));
        }
        hasher.finish()
    }
}

/// Returns whether a directory has programs besides kcompile itself, whose directory users add to `PATH`. A large
/// directory is taken to have some.
fn has_tools(dir: &str) -> bool {
    let is_program = |entry: &fs::DirEntry| {
        let metadata = fs::metadata(entry.path());
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    };
    let Ok(entries) = fs::read_dir(dir) else { return false };
    let mut entries = entries.flatten().filter(|entry| entry.file_name() != "kcompile").enumerate();
    entries.any(|(index, entry)| index >= MAX_ENTRIES_WITHOUT_TOOLS || is_program(&entry))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_parsed() {
        let os = OsRelease::parse("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=\"debian\"\n");
        assert!(os.is_like("debian") && os.is_like("ubuntu") && !os.is_like("fedora"));
    }
}
