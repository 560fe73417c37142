//! A root file system whose programs build the kernel, in place of this machine's. They run in a sandbox only.

use super::{Host, OsRelease, bubblewrap};
use crate::host::process::{self, CommandLine};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::read::{Links, MAX_SMALL_FILE, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::collections::BTreeMap;
use std::fs;
use std::process::Output;

/// The directories with programs and what they need. The others, such as `/home` and `/var`, stay hidden, so
/// that they do not cover the source and the build directory, which have the paths of this machine.
const DIRECTORIES: [&str; 11] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix", "gnu"];
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// An unpacked root file system with the tools of a build.
#[derive(Clone, Debug)]
pub struct ToolRoot {
    /// The toolchain, such as `oci:tools:1`.
    pub name: String,
    /// Its directory on this machine.
    pub path: Utf8PathBuf,
    /// The image ID, the digest of its config.
    pub digest: Sha256,
    /// The distribution in it.
    pub os: OsRelease,
    /// The command that runs a program in it.
    sandbox: Vec<String>,
    env: BTreeMap<String, String>,
}

impl ToolRoot {
    /// Prepares the root in the directory `path`.
    ///
    /// # Errors
    ///
    /// The root has no shell, or this host has no bubblewrap or does not allow its namespaces (exit code 4).
    pub fn new(name: String, path: Utf8PathBuf, digest: Sha256, host: &Host) -> Result<ToolRoot> {
        let mut env = host.child_env.clone();
        env.insert("PATH".to_owned(), PATH.join(":"));
        env.insert("HOME".to_owned(), "/tmp".to_owned());
        env.remove("TMPDIR");
        let root = ToolRoot { name, path, digest, os: OsRelease::default(), sandbox: Vec::new(), env };
        if let Some(missing) = ["sh", "true"].into_iter().find(|name| root.find_program(name).is_none()) {
            return Err(Error::host(format!("the toolchain lacks {missing}"))
                .hint("an image for --toolchain is a root file system with a shell, make, a compiler, …"));
        }
        let mut files = root.bind_arguments();
        files.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(str::to_owned));
        files.extend(["--remount-ro", "/"].map(str::to_owned));
        let sandbox = bubblewrap::find_command(&files, Utf8Path::new("/"), &root.env, host)
            .map_err(|error| error.with_prefix("--toolchain needs a sandbox"))?;
        let os = ["etc/os-release", "usr/lib/os-release"]
            .into_iter()
            .find_map(|name| read_text(root.path.join(name), Links::RefuseAnywhere, MAX_SMALL_FILE).ok());
        let os = OsRelease::parse(&os.unwrap_or_default());
        Ok(ToolRoot { os, sandbox, ..root })
    }

    /// Returns the arguments of bubblewrap that show the root's directories as those of `/`.
    pub fn bind_arguments(&self) -> Vec<String> {
        bind_directories(&self.path, &DIRECTORIES)
    }

    /// Returns the environment in which programs of the root run, from that of this host's children.
    pub fn env(&self, mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
        env.insert("PATH".to_owned(), PATH.join(":"));
        env
    }

    /// Finds a program as [`Host::find_program`] does. Links are followed inside the root. Returns its path there.
    pub fn find_program(&self, name: &str) -> Option<Utf8PathBuf> {
        if name.starts_with('/') {
            return Some(Utf8PathBuf::from(name)).filter(|path| self.is_program(path));
        }
        PATH.into_iter().map(|dir| Utf8Path::new(dir).join(name)).find(|path| self.is_program(path))
    }

    fn is_program(&self, path: &Utf8Path) -> bool {
        let open = || {
            let (flags, mode) = (OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let root = rustix::fs::open(self.path.as_std_path(), flags | OFlags::DIRECTORY, mode)?;
            let file = rustix::fs::openat2(root, path.as_std_path(), flags, mode, ResolveFlags::IN_ROOT)?;
            rustix::fs::fstat(file)
        };
        open().is_ok_and(|found| {
            FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
                && Mode::from_raw_mode(found.st_mode).contains(Mode::XUSR)
        })
    }

    /// Runs a program of the root, without input.
    ///
    /// # Errors
    ///
    /// bubblewrap cannot be started (exit code 4).
    fn output(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut argv = self.sandbox.iter().cloned();
        let bwrap = argv.next().expect("a command has a program");
        let args = argv.chain([program.to_owned()]).chain(args.iter().map(|arg| (*arg).to_owned()));
        let command =
            CommandLine { program: bwrap, args: args.collect(), env: self.env.clone(), cwd: "/".into() };
        process::output(&command)
    }

    /// Checks that no directory of the root would cover `path`, which make reads or writes.
    ///
    /// # Errors
    ///
    /// `path` lies in one of them (exit code 2).
    pub fn check_uncovered(&self, what: &str, path: &Utf8Path) -> Result<()> {
        let is_covered = |dir: &&&str| {
            path.starts_with(Utf8Path::new("/").join(dir)) && self.path.join(dir).symlink_metadata().is_ok()
        };
        match DIRECTORIES.iter().find(is_covered) {
            None => Ok(()),
            Some(dir) => Err(Error::usage(format!(
                "--toolchain: {what} {path} lies in /{dir}, which is the toolchain's own during the build"
            ))
            .hint("use a directory elsewhere, such as one in /home or /srv")),
        }
    }
}

/// Returns the arguments of bubblewrap that show `directories` of a root file system as those of `/`, read-only.
pub fn bind_directories(root: &Utf8Path, directories: &[&str]) -> Vec<String> {
    let mut arguments = Vec::new();
    for name in directories {
        let (path, place) = (root.join(name), format!("/{name}"));
        match fs::read_link(&path).ok().and_then(|target| Utf8PathBuf::from_path_buf(target).ok()) {
            Some(target) => arguments.extend(["--symlink".to_owned(), target.into_string(), place]),
            None if path.is_dir() => {
                arguments.extend(["--ro-bind".to_owned(), path.into_string(), place]);
            }
            None => {}
        }
    }
    arguments
}

impl Host {
    /// Finds a program of the toolchain, which is this host's own or that of `--toolchain`.
    pub fn find_tool(&self, name: &str) -> Option<Utf8PathBuf> {
        match &self.tool_root {
            None => self.find_program(name),
            Some(root) => root.find_program(name),
        }
    }

    /// Runs a program of the toolchain, without input.
    ///
    /// # Errors
    ///
    /// It cannot be started (exit code 4).
    pub fn tool_output(&self, program: &str, args: &[&str]) -> Result<Output> {
        if let Some(root) = &self.tool_root {
            return root.output(program, args);
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let command = CommandLine {
            program: program.to_owned(),
            args,
            env: self.child_env.clone(),
            cwd: self.cwd.clone(),
        };
        process::output(&command)
    }

    /// Returns the name of `--toolchain`, or `None` for the tools of this host.
    pub fn toolchain_name(&self) -> Option<&str> {
        let compiler = || self.compilers.first().map(|compiler| compiler.name.as_str());
        self.tool_root.as_ref().map(|root| root.name.as_str()).or_else(compiler)
    }

    /// Returns what a program of the toolchain prints, or `None` if it fails.
    ///
    /// # Errors
    ///
    /// It cannot be started (exit code 4).
    pub fn capture_tool(&self, program: &str, args: &[&str]) -> Result<Option<String>> {
        if self.tool_root.is_none() {
            return process::capture(program, args, &self.child_env);
        }
        let output = self.tool_output(program, args)?;
        let stdout = || String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(output.status.success().then(stdout))
    }

    /// Returns the distribution of the toolchain.
    pub fn tool_os(&self) -> &OsRelease {
        self.tool_root.as_ref().map_or(&self.os, |root| &root.os)
    }
}
