//! The context of a test, with its own working directory, home and cache, and the inputs of builds.

use crate::support::schemas;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Output};

/// The program under test.
const KCOMPILE: &str = env!("CARGO_BIN_EXE_kcompile");
/// The settings that most tests use, which meet the profiles of both hypervisors and have a few
/// modules.
pub(crate) const CONFIG: &str = "\
CONFIG_MODULES=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_PARAVIRT=y\nCONFIG_KVM_GUEST=y\nCONFIG_PVH=y\n\
CONFIG_ACPI=y\nCONFIG_PCI=y\nCONFIG_PCI_MSI=y\nCONFIG_PCI_MMCONFIG=y\nCONFIG_PCIEPORTBUS=y\n\
CONFIG_HOTPLUG_PCI_ACPI=y\nCONFIG_MEMORY_HOTPLUG=y\nCONFIG_BLK_DEV_INITRD=y\n\
CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\nCONFIG_VIRTIO_BLK=y\n\
CONFIG_VIRTIO_NET=y\nCONFIG_VIRTIO_CONSOLE=y\nCONFIG_VIRTIO_BALLOON=y\nCONFIG_VIRTIO_MEM=y\n\
CONFIG_VIRTIO_PMEM=y\nCONFIG_BLK_DEV_PMEM=y\nCONFIG_VMGENID=y\nCONFIG_VIRTIO_IOMMU=y\nCONFIG_VIRTIO_FS=y\nCONFIG_FUSE_FS=y\nCONFIG_DAX=y\n\
CONFIG_VSOCKETS=y\nCONFIG_VIRTIO_VSOCKETS=y\nCONFIG_HW_RANDOM=y\nCONFIG_HW_RANDOM_VIRTIO=y\n\
CONFIG_SERIAL_8250=y\nCONFIG_SERIAL_8250_CONSOLE=y\nCONFIG_EXT4_FS=y\nCONFIG_OVERLAY_FS=y\n\
CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_DUMMY=m\nCONFIG_BRIDGE=m\n";

pub(crate) struct TestContext {
    dir: tempfile::TempDir,
    pub env: BTreeMap<String, String>,
}

/// The exit code and the output of a run of kcompile.
pub(crate) struct RunResult {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl RunResult {
    #[track_caller]
    pub(crate) fn ok(self) -> RunResult {
        assert_eq!(self.code, 0, "stderr:\n{}", self.stderr);
        self
    }

    /// Checks that the run failed with this exit code and printed all of these texts.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &[&str]) -> RunResult {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        for said in says {
            assert!(self.stderr.contains(said), "`{said}` is not in:\n{}", self.stderr);
        }
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> RunResult {
        assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        self
    }

    /// Returns the JSON on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|why| panic!("{why}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// Returns the only item of the JSON on standard output.
    #[track_caller]
    pub(crate) fn item(&self) -> serde_json::Value {
        let json = self.json();
        assert_eq!(json["items"].as_array().map(Vec::len), Some(1), "{json:#}");
        json["items"][0].clone()
    }

    /// Returns the digests on standard output.
    pub(crate) fn digests(&self) -> Vec<String> {
        self.stdout.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    }
}

impl TestContext {
    pub(crate) fn new() -> TestContext {
        let dir = tempfile::tempdir().unwrap();
        let context = TestContext { dir, env: BTreeMap::new() };
        for name in ["work", "home"] {
            fs::create_dir(context.path(name)).unwrap();
        }
        fs::write(context.path("work/mini.config"), CONFIG).unwrap();
        context
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.dir.path()).unwrap().join(name)
    }

    /// Returns a command of kcompile in the working directory with a clean environment.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = Command::new(KCOMPILE);
        if ignores_signals() {
            // kcompile respects signals that nohup or a shell's `&` ignores, and tests of Ctrl-C
            // would hang.
            command = Command::new("/usr/bin/env");
            command.arg("--default-signal=HUP,INT,QUIT").arg(KCOMPILE);
        }
        command.args(args.split_whitespace()).current_dir(self.path("work")).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap()).env("HOME", self.path("home")).envs(&self.env);
        // Coverage data would be written to the working directory.
        command.env(
            "KCOMPILE_CACHE_DIR",
            self.env.get("KCOMPILE_CACHE_DIR").map_or(self.path("cache").into_string(), Clone::clone),
        );
        command
    }

    /// Runs kcompile, and validates JSON output.
    #[track_caller]
    pub(crate) fn run(&self, args: &str) -> RunResult {
        let result = run_result(self.command(args).output().unwrap());
        let words: Vec<&str> = args.split_whitespace().collect();
        schemas::check_run(&words, result.code, &result.stdout, &result.stderr);
        result
    }

    /// Runs kcompile through another program, such as a shell that sets limits.
    pub(crate) fn run_by(&self, program: &[&str], args: &str) -> RunResult {
        let command = self.command(args);
        let mut by = Command::new(program[0]);
        by.args(&program[1..]).arg(command.get_program()).args(command.get_args());
        by.current_dir(command.get_current_dir().unwrap()).env_clear();
        by.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        run_result(by.output().unwrap())
    }

    /// Builds the directory `linux` with [`CONFIG`]. Creates the directory if it is missing.
    pub(crate) fn build(&self, args: &str) -> RunResult {
        if !self.path("work/linux").exists() {
            self.tree("6.1.7", "work/linux");
        }
        self.run(&format!("6.1.7 --fc --source linux --config mini.config {args}"))
    }

    /// Copies the miniature kernel tree with this version.
    pub(crate) fn tree(&self, version: &str, at: &str) -> Utf8PathBuf {
        let to = self.path(at);
        copy(Utf8Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mini-linux")), &to);
        let makefile = fs::read_to_string(to.join("Makefile")).unwrap();
        let (major, rest) = version.split_once('.').unwrap();
        let (minor, patch) = rest.split_once('.').unwrap_or((rest, "0"));
        let (minor, candidate) = match minor.split_once('-') {
            Some((minor, candidate)) => (minor, format!("-{candidate}")),
            None => (minor, String::new()),
        };
        let numbers = [
            ("VERSION", major),
            ("PATCHLEVEL", minor),
            ("SUBLEVEL", patch.split('-').next().filter(|_| candidate.is_empty()).unwrap_or("0")),
            ("EXTRAVERSION", &candidate),
        ];
        let line = |line: &str| match numbers.iter().find(|(name, _)| line.starts_with(&format!("{name} =")))
        {
            Some((name, number)) => format!("{name} = {number}\n"),
            None => format!("{line}\n"),
        };
        fs::write(to.join("Makefile"), makefile.lines().map(line).collect::<String>()).unwrap();
        to
    }

    /// Writes `linux-<version>.tar.<suffix>` to the working directory.
    pub(crate) fn tarball(&self, version: &str, suffix: &str) -> Utf8PathBuf {
        let tree = self.tree(version, &format!("trees/{version}-{suffix}"));
        let path = self.path(&format!("work/linux-{version}.tar.{suffix}"));
        fs::write(&path, compress(&tar_of(&tree, &format!("linux-{version}")), suffix)).unwrap();
        path
    }

    /// Returns the type, mode and digest of every path below a directory, to detect any change.
    pub(crate) fn snapshot(&self, dir: &str) -> BTreeMap<String, String> {
        use std::os::unix::fs::PermissionsExt;
        let found = walkdir::WalkDir::new(self.path(dir)).into_iter().map(|entry| {
            let entry = entry.unwrap();
            let content = match entry.file_type() {
                kind if kind.is_dir() => String::new(),
                kind if kind.is_symlink() => fs::read_link(entry.path()).unwrap().display().to_string(),
                _ => sha256(&fs::read(entry.path()).unwrap()),
            };
            let mode = entry.metadata().unwrap().permissions().mode();
            (entry.path().display().to_string(), format!("{mode:o} {content}"))
        });
        found.collect()
    }

    /// Returns the sorted file names in a directory, or nothing if it is missing.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => Vec::new(),
        };
        names.sort();
        names
    }
}

impl Drop for TestContext {
    /// The cache has read-only directories, which an ordinary user cannot empty.
    fn drop(&mut self) {
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.dir.path()).status();
    }
}

pub(crate) fn run_result(output: Output) -> RunResult {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    RunResult {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Returns whether a tool is installed, and prints if it is not, since a test must not pass
/// silently.
pub(crate) fn has_tool(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap();
    let found = path.split(':').any(|dir| Utf8Path::new(dir).join(tool).is_file());
    if !found {
        skipped(&format!("{tool} is not installed"));
    }
    found
}

/// Returns whether this process ignores the signals of a terminal.
fn ignores_signals() -> bool {
    // HUP, INT and QUIT are 1, 2 and 3.
    signals("self", "SigIgn") & 0b111 != 0
}

/// Returns a signal mask of a process, SigIgn or SigCgt of proc(5).
pub(crate) fn signals(process: &str, mask: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let found = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(found.trim(), 16).unwrap()
}

/// Prints why a test or a part of it is skipped.
pub(crate) fn skipped(why: &str) {
    // The test harness hides what a passing test prints by `eprintln!`.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Writes an executable shell script.
pub(crate) fn write_script(path: &Utf8Path, lines: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn copy(from: &Utf8Path, to: &Utf8Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").args(["-R", "-P", "-p", "--"]).args([from, to]).status().unwrap();
    assert!(status.success());
}

/// Returns an uncompressed tar of a directory, with all paths below `top`.
pub(crate) fn tar_of(dir: &Utf8Path, top: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    // Sorted on every file system, since golden files have digests of such archives.
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        let entry = entry.unwrap();
        let name = Utf8Path::new(top).join(entry.path().strip_prefix(dir).unwrap().to_str().unwrap());
        tar.append_path_with_name(entry.path(), name).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn compress(bytes: &[u8], suffix: &str) -> Vec<u8> {
    match suffix {
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zst" => {
            // With a checksum, like the `zstd` program, so that all damage is detected.
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => panic!("{suffix}"),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    kcompile::internals::Sha256::of(bytes).to_string()
}
