//! Makes a toolchain from the packages of Debian or Ubuntu, with mmdebstrap.
//!
//! The same versions of packages give the same image. What a package manager writes besides the contents of
//! packages (logs, caches, backups, the names of this host and of the mirror) is left out, and every entry has
//! the same owner and date.

use crate::cache::Cache;
use crate::host::Host;
use crate::host::packages::{Dependency, diagnose};
use crate::host::process::{self, CommandLine};
use crate::image::attest;
use crate::image::pack;
use crate::kernel::Arch;
use crate::oci::annotations::{DESCRIPTION, TITLE};
use crate::oci::tags::NewImage;
use crate::oci::{self, Encoder, Entries, Entry, ImageSpec, WrittenImage};
use crate::ops::doctor;
use crate::report::{Phase, Reporter};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, read_text};
use crate::util::text::{format_size, sanitize_line};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::str::FromStr;
use walkdir::WalkDir;

const MMDEBSTRAP: &str = "mmdebstrap";
/// dpkg's list of packages, for scanners. It has about 200 kB.
const STATUS: &str = "var/lib/dpkg/status";
const MAX_STATUS: u64 = 16 << 20;
/// Top directories whose contents are left out. They have data of machines, and no tools.
const EMPTY: [&str; 12] =
    ["boot", "dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var"];
/// Files that differ between runs or name this host or the mirror, and documents.
const LEFT_OUT: [&str; 18] = [
    "etc/.pwd.lock",
    "etc/apt",
    "etc/dpkg/dpkg.cfg.d",
    "etc/fstab",
    "etc/group-",
    "etc/gshadow",
    "etc/gshadow-",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow",
    "etc/shadow-",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
];

/// A release of a distribution, such as `debian:bookworm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    distribution: Distribution,
    release: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distribution {
    Debian,
    Ubuntu,
}

impl Distribution {
    fn name(self) -> &'static str {
        match self {
            Distribution::Debian => "debian",
            Distribution::Ubuntu => "ubuntu",
        }
    }

    /// Returns the components with the packages of a toolchain.
    fn components(self) -> &'static str {
        match self {
            Distribution::Debian => "main",
            Distribution::Ubuntu => "main,universe",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.distribution.name(), self.release)
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(name, release)| {
            let all = [Distribution::Debian, Distribution::Ubuntu];
            Some((all.into_iter().find(|distribution| distribution.name() == name)?, release))
        });
        let is_release = |release: &str| {
            release.starts_with(|first: char| first.is_ascii_lowercase())
                && release
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        };
        match parts.filter(|(_, release)| is_release(release)) {
            Some((distribution, release)) => Ok(Suite { distribution, release: release.to_owned() }),
            None => Err(format!(
                "`{text}` is not a release; expected one such as debian:bookworm or ubuntu:noble"
            )),
        }
    }
}

/// What `kcompile toolchain make` makes.
pub struct NewToolchain<'a> {
    pub suite: &'a Suite,
    /// The architectures that it compiles kernels for.
    pub arches: &'a [Arch],
    /// Archives of packages, as mmdebstrap takes them. Empty means the host's.
    pub mirrors: &'a [String],
    /// The absolute `DIR:TAG`.
    pub reference: &'a Utf8Path,
}

/// Makes a toolchain for this machine, and attaches the list of its packages.
///
/// # Errors
///
/// Exit code 2: the layout cannot be written. 3: mmdebstrap fails. 4: it is not installed.
pub fn make(new: &NewToolchain<'_>, cache: &Cache, host: &Host, reporter: &Reporter) -> Result<WrittenImage> {
    let place = NewImage::parse(new.reference, "oci:toolchains/debian:bookworm")?;
    oci::check_output(place.output, [place.layout])?;
    let why = "makes root file systems from packages";
    diagnose(vec![Dependency::program(MMDEBSTRAP, why, ["mmdebstrap", "", "", "", ""])], "gcc", host)?
        .require()?;
    let scratch = cache.scratch()?;
    let phase = reporter.start(Phase::Source, &new.suite.to_string());
    let tar = scratch.path.join("root.tar");
    bootstrap(new, &tar, host)?;
    let root = scratch.path.join("root");
    unpack(&tar, &root, host)?;
    let status = root.join(STATUS);
    let status = read_text(&status, Links::RefuseAnywhere, MAX_STATUS)
        .context(Kind::Build, || format!("cannot read {status}"))?;
    let packages = attest::installed_packages(&status);
    phase.finish(&format!("{} packages", packages.len()));
    let phase = reporter.start(Phase::Pack, place.layout);
    let _packing = pack::lock_output(place.output, reporter)?;
    let epoch = host.source_date_epoch.unwrap_or_default();
    let suite = new.suite.to_string();
    let annotations = BTreeMap::from([
        (TITLE.to_owned(), suite.clone()),
        (DESCRIPTION.to_owned(), format!("what builds a Linux kernel, from the packages of {suite}")),
    ]);
    let spec =
        ImageSpec { layout: place.layout, tag: place.tag, encoder: Encoder::Zstd, annotations: &annotations };
    let arch = host.own_arch()?.name();
    let image = oci::prepare(place.output, spec, arch, &entries(&root)?, epoch, host.cpus)?;
    let image = image.publish()?;
    attest::attach_packages(place.output, &image, &suite, &packages, epoch)?;
    phase.finish(&format_size(image.size));
    Ok(image)
}

/// Runs mmdebstrap, which writes the root file system to `tar`.
fn bootstrap(new: &NewToolchain<'_>, tar: &Utf8Path, host: &Host) -> Result<()> {
    let packages = doctor::debian_packages(host.own_arch()?, new.arches);
    let mirrors = if new.mirrors.is_empty() {
        host_mirror(new.suite, host)?.into_iter().collect()
    } else {
        new.mirrors.to_vec()
    };
    let mut args = vec!["--quiet".to_owned(), "--variant=essential".to_owned(), "--format=tar".to_owned()];
    args.push(format!("--components={}", new.suite.distribution.components()));
    args.push(format!("--include={}", packages.into_iter().collect::<Vec<_>>().join(",")));
    args.push("--aptopt=Acquire::Languages \"none\"".to_owned());
    // Documents would be unpacked for nothing.
    let documents = LEFT_OUT.iter().filter(|path| path.starts_with("usr/share/"));
    args.extend(documents.map(|path| format!("--dpkgopt=path-exclude=/{path}/*")));
    args.extend([new.suite.release.clone(), tar.to_string()]);
    args.extend(mirrors);
    let mut env = host.child_env.clone();
    env.extend(host.proxies.clone());
    // Packages write dates into some of their files.
    env.insert("SOURCE_DATE_EPOCH".to_owned(), host.source_date_epoch.unwrap_or_default().to_string());
    let command = CommandLine { program: MMDEBSTRAP.to_owned(), args, env, cwd: host.cwd.clone() };
    let output = process::output(&command)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    // apt's errors come before mmdebstrap's own, which says only that apt failed.
    let is_error = |line: &&str| line.starts_with("E: ") || line.starts_with("Err:");
    let errors: Vec<&str> = stderr.lines().filter(is_error).take(2).collect();
    let why = if errors.is_empty() {
        stderr.lines().last().unwrap_or("it printed no error").to_owned()
    } else {
        errors.join("; ")
    };
    Err(Error::fetch(format!("mmdebstrap cannot make {}: {}", new.suite, sanitize_line(&why)))
        .hint("choose another archive of packages with --mirror URL"))
}

/// Returns the archive that apt uses on this host, if it is one of the same distribution.
fn host_mirror(suite: &Suite, host: &Host) -> Result<Option<String>> {
    let args = ["indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
    let listed = process::capture("apt-get", &args, &host.child_env)?.unwrap_or_default();
    let mirrors = listed.lines().filter_map(|line| line.split_once(' '));
    let same = mirrors.filter(|(label, _)| label.eq_ignore_ascii_case(suite.distribution.name()));
    Ok(same.map(|(_, uri)| uri.to_owned()).next())
}

/// Unpacks what is packed later.
fn unpack(tar: &Utf8Path, root: &Utf8Path, host: &Host) -> Result<()> {
    fs::create_dir(root).context(Kind::Build, || format!("cannot create {root}"))?;
    let mut args: Vec<String> =
        ["--extract", "--no-same-owner", "--no-same-permissions", "--file", tar.as_str()]
            .map(str::to_owned)
            .into();
    args.extend(["--directory".to_owned(), root.to_string()]);
    // Only root can create devices.
    args.push("--exclude=./dev/*".to_owned());
    let env = host.child_env.clone();
    let command = CommandLine { program: "tar".to_owned(), args, env, cwd: host.cwd.clone() };
    let output = process::output(&command)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::build(format!(
        "cannot unpack {tar}: {}",
        sanitize_line(stderr.lines().next().unwrap_or_default())
    )))
}

/// Returns the entries of the image.
fn entries(root: &Utf8Path) -> Result<Entries> {
    let mut found = Vec::new();
    for entry in WalkDir::new(root).min_depth(1) {
        process::check()?;
        let entry = entry.context(Kind::Build, || format!("cannot read {root}"))?;
        let path = Utf8PathBuf::from_path_buf(entry.into_path())
            .map_err(|path| Error::build(format!("{} is not UTF-8", path.display())))?;
        let name = path.strip_prefix(root).expect("it is below").to_string();
        if is_packed(&name) {
            found.push((name, path));
        }
    }
    // A hard link names an earlier entry.
    found.sort();
    let mut entries = Entries::new();
    let mut first_names: HashMap<u64, String> = HashMap::new();
    for (name, path) in found {
        let message = || format!("cannot read {path}");
        let metadata = path.symlink_metadata().context(Kind::Build, message)?;
        let entry = if metadata.is_dir() {
            Entry::Dir
        } else if metadata.is_symlink() {
            Entry::SymLink(path.read_link_utf8().context(Kind::Build, message)?.into_string())
        } else if !metadata.is_file() {
            continue;
        } else if let Some(first) = first_names.get(&metadata.ino()).filter(|_| metadata.nlink() > 1) {
            Entry::HardLink(first.clone())
        } else {
            first_names.insert(metadata.ino(), name.clone());
            Entry::File { executable: metadata.permissions().mode() & 0o100 != 0, from: path }
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}

/// Returns whether the image has this path.
fn is_packed(path: &str) -> bool {
    let is_at_or_below =
        |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // The directories that lead to the list of packages are kept too.
    let is_status = STATUS.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_in_empty = EMPTY.iter().any(|dir| is_at_or_below(dir) && path != *dir);
    is_status || !(is_in_empty || LEFT_OUT.iter().any(|left| is_at_or_below(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_parsed() {
        for text in ["debian:bookworm", "debian:sid", "ubuntu:noble", "debian:bookworm-backports"] {
            assert_eq!(text.parse::<Suite>().unwrap().to_string(), text);
        }
        for text in ["debian", "debian:", "fedora:42", "debian:-x", "debian:a/b", "debian:Sid"] {
            assert!(text.parse::<Suite>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_tools_and_the_list_of_packages_are_packed() {
        for path in [
            "usr/bin/gcc",
            "var",
            "var/lib",
            "var/lib/dpkg",
            STATUS,
            "tmp",
            "etc/passwd",
            "etc/group",
            "lib64",
        ] {
            assert!(is_packed(path), "{path}");
        }
        for path in [
            "var/log",
            "var/lib/dpkg/status-old",
            "var/lib/dpkg/info",
            "tmp/x",
            "etc/passwd-",
            "etc/apt/sources.list",
            "usr/share/doc",
        ] {
            assert!(!is_packed(path), "{path}");
        }
    }
}
