//! The distribution's kernel source package. The host's apt downloads and verifies it, and the tarball in its
//! .deb is unpacked without unpacking the .deb.

use super::archive::{HardLinks, decompress};
use super::archive_store::{self, Proofs, StoredArchive, Unknown};
use super::context::{FetchContext, check_digest};
use super::directory::check_tree;
use super::stream::{Stream, Unpacked, unpack};
use super::tree::Tree;
use super::tree_store::{store, store_unpinned};
use crate::catalog::lockfile;
use crate::host::Host;
use crate::host::process::{self, CommandLine, Stream as Output};
use crate::kernel::SourceDigest;
use crate::plan::{Check, SourceIdentity, SourcePlan, VerificationStep};
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::file_stamp::{self, FileStamp};
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::io::BufReader;
use std::path::Path;
use walkdir::WalkDir;

/// Looks up `package` in apt's lists. Returns its version, a space and the digest of its .deb, which is empty
/// if the lists lack it. `None` means that there is no apt or no such package. Takes half a second.
///
/// # Errors
///
/// No process can be started (exit code 4), or kcompile was interrupted.
pub fn candidate(package: &str, host: &Host) -> Result<Option<String>> {
    if host.find_program("apt-cache").is_none() {
        return Ok(None);
    }
    let record = process::capture("apt-cache", &["show", "--no-all-versions", package], &host.child_env)?;
    let record = record.unwrap_or_default();
    let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let sha256 = field("SHA256").unwrap_or_default().trim();
    Ok(field("Version").map(|version| format!("{} {sha256}", version.trim())))
}

/// Returns a hash over the metadata of all files that apt reads (lists, configuration, status), and whether
/// one of them is racy. `None` means that there is no apt.
pub fn state() -> Option<(String, bool)> {
    let now = file_stamp::now();
    let (mut hasher, mut is_racy) = (Hasher::default(), false);
    for place in ["/var/lib/apt/lists", "/etc/apt", "/var/lib/dpkg/status"] {
        for entry in WalkDir::new(place).sort_by_file_name().into_iter().flatten() {
            // The times of a directory change with apt's own locks and temporary files.
            let Some(metadata) = entry.metadata().ok().filter(|metadata| !metadata.is_dir()) else {
                continue;
            };
            let stamp = FileStamp::of(&metadata);
            is_racy |= stamp.is_racy(now);
            hasher.update(format!("{} {stamp:?}\n", entry.path().display()));
        }
    }
    Path::new("/var/lib/dpkg/status").is_file().then(|| (hasher.finish().to_string(), is_racy))
}

/// Takes the package from the stored archives, or else downloads it with `apt-get download`, which checks it
/// against the signed lists. Unpacks the kernel tarball in it.
pub(super) fn fetch(
    package: &str,
    version: Option<&str>,
    pin: Option<Sha256>,
    plan: &SourcePlan,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    if let Some(archive) = stored_deb(package, version, pin, ctx)?
        && let Some(tree) = unpack_stored(&archive, pin, ctx, phase)?
    {
        return Ok(tree);
    }
    if ctx.offline {
        return Err(ctx.not_cached_error(&plan.name));
    }
    if ctx.host.find_program("apt-get").is_none() {
        return Err(
            Error::host("--source apt: this host has no apt-get").hint("use kernel.org, git or a tarball")
        );
    }
    let fill = |tree: &Utf8Path| {
        let scratch = ctx.cache.scratch()?;
        let deb = download(package, version, &scratch.path, ctx, phase)?;
        let digest = digest_of(&deb)?;
        check_digest(&plan.name, pin.unwrap_or(digest), digest)?;
        let origin = match (&plan.origin, deb.file_name().and_then(|name| name.split('_').nth(1))) {
            (Some(origin), _) => origin.clone(),
            // The file name has `%3a` for the colon of an epoch.
            (None, Some(version)) => format!("apt:{package}={}", version.replace("%3a", ":")),
            (None, None) => format!("apt:{package}"),
        };
        let (proofs, unknown) = (Proofs::default(), Unknown::default());
        let archive = StoredArchive { origin, sha256: digest, proofs, zstd: None, unknown };
        let check = Check::authenticated(VerificationStep::Apt, "by the signed lists of apt");
        let identity = unpack_deb(&archive, &deb, &plan.name, check, tree, ctx, phase)?;
        archive_store::store(ctx.cache, &deb, None, &archive)?;
        Ok(identity)
    };
    match pin {
        Some(pin) => store(&SourceDigest::Sha256(pin), ctx, fill),
        None => store_unpinned(&plan.name, ctx, fill),
    }
}

/// Unpacks a stored package. `None` means that it was damaged and has been removed.
fn unpack_stored(
    archive: &StoredArchive,
    pin: Option<Sha256>,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Option<Tree>> {
    let name = archive.origin.strip_prefix("apt:").unwrap_or(&archive.origin);
    let path = archive_store::path(ctx.cache, archive.sha256);
    ctx.note_foreign_owner(&path);
    let locked = ctx.lock.of(&archive.origin).filter(|locked| locked.digest.sha256() == Some(archive.sha256));
    let check = match locked {
        _ if pin.is_some() => Check::authenticated(VerificationStep::Apt, "as in the signed lists of apt"),
        Some(locked) if !locked.unverified => {
            Check::authenticated(VerificationStep::LockFile, format!("sha256 as in {}", lockfile::NAME))
        }
        _ => Check::consistent(
            VerificationStep::Transport,
            "kept in the cache; apt's lists on this host do not have it",
        ),
    };
    let unpacked = store(&SourceDigest::Sha256(archive.sha256), ctx, |tree| {
        check_digest(name, archive.sha256, digest_of(&path)?)?;
        unpack_deb(archive, &path, name, check, tree, ctx, phase)
    });
    match unpacked {
        Err(error) if error.kind == Kind::Fetch => {
            ctx.reporter.note(&format!("{error}; removing the archive from the cache"));
            archive_store::remove(ctx.cache, archive.sha256)?;
            Ok(None)
        }
        unpacked => unpacked.map(Some),
    }
}

/// Returns the stored package that apt's lists have. Offline without lists, returns the
/// requested version or the newest.
fn stored_deb(
    package: &str,
    version: Option<&str>,
    pin: Option<Sha256>,
    ctx: &FetchContext<'_>,
) -> Result<Option<StoredArchive>> {
    if let Some(pin) = pin {
        return Ok(archive_store::find(ctx.cache, pin));
    }
    if !ctx.offline {
        return Ok(None);
    }
    let prefix = format!("apt:{package}=");
    let rank = |archive: &StoredArchive| {
        let found = archive.origin.strip_prefix(&prefix)?;
        version.is_none_or(|version| version == found).then(|| version_key(found))
    };
    let packages =
        archive_store::all(ctx.cache)?.into_iter().filter_map(|archive| Some((rank(&archive)?, archive)));
    Ok(packages.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, archive)| archive))
}

/// Returns the newest of several versions of a package.
pub fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions.max_by_key(|version| version_key(version))
}

/// Returns a key that orders package versions as in deb-version(7): by epoch, upstream version and revision.
fn version_key(version: &str) -> (u64, Vec<VersionPart>, Vec<VersionPart>) {
    let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = version.rsplit_once('-').unwrap_or((version, "0"));
    (number(epoch), version_parts(upstream), version_parts(revision))
}

/// The ranks of characters that are not digits, and the number after them.
type VersionPart = (Vec<u32>, u64);

/// Splits a version into its parts. The order is tilde, end of a part, letters, other characters.
fn version_parts(text: &str) -> Vec<VersionPart> {
    const END: u32 = 1;
    let rank = |character: char| match character {
        '~' => 0,
        letter if letter.is_ascii_alphabetic() => u32::from(letter),
        other => 256 + u32::from(other),
    };
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (others, digits) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        parts.push((others.chars().map(rank).chain([END]).collect(), number(&digits[..end])));
        rest = &digits[end..];
    }
    parts.push((vec![END], 0));
    parts
}

fn number(digits: &str) -> u64 {
    if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) }
}

fn digest_of(deb: &Utf8Path) -> Result<Sha256> {
    open_file(deb, Links::Refuse)
        .and_then(Sha256::of_reader)
        .context(Kind::Fetch, || format!("cannot read {deb}"))
}

/// Unpacks the kernel tarball in the .deb at `deb`, which is `archive` with the verification step `check`.
fn unpack_deb(
    archive: &StoredArchive,
    deb: &Utf8Path,
    name: &str,
    check: Check,
    tree: &Utf8Path,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<SourceIdentity> {
    let Unpacked { contents, date, .. } = unpack_inner_tarball(deb, name, tree, ctx.jobs, phase)?;
    contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
    Ok(SourceIdentity {
        origin: Some(archive.origin.clone()),
        digest: SourceDigest::Sha256(archive.sha256),
        version: check_tree(tree, name)?,
        date,
        checks: vec![check],
    })
}

fn download(
    package: &str,
    version: Option<&str>,
    dir: &Utf8Path,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Utf8PathBuf> {
    let package_spec = version.map_or_else(|| package.to_owned(), |version| format!("{package}={version}"));
    let command = CommandLine {
        program: "apt-get".into(),
        // Status lines on standard output: `dlstatus:1:42.0000:Retrieving file 1 of 1 (3s remaining)`.
        args: ["-q", "-o", "APT::Status-Fd=1", "download", &package_spec].map(str::to_owned).into(),
        env: ctx
            .host
            .child_env
            .iter()
            .chain(&ctx.host.proxies)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        cwd: dir.to_owned(),
    };
    let log = tempfile::tempfile_in(dir).context(Kind::Build, || format!("cannot write in {dir}"))?;
    let mut apt_errors = Vec::new();
    let status = process::run(&command, &log, None, |stream, line| {
        let percent =
            line.strip_prefix("dlstatus:").and_then(|rest| rest.split(':').nth(1)?.parse::<f64>().ok());
        match percent {
            Some(percent) => phase.progress(Count {
                done: percent as u64,
                total: Some(100),
                estimated: false,
                work: None,
                unit: Unit::Steps,
                item: &format!("{package_spec}: apt-get download, in percent"),
            }),
            None if stream == Output::Err && line.starts_with("E:") => {
                apt_errors.push(line.trim_start_matches("E: ").to_owned());
            }
            None => {}
        }
    })?;
    if !status.success() {
        let why = apt_errors.first().map_or("it printed no error", String::as_str);
        return Err(Error::fetch(format!("`apt-get download {package_spec}` failed: {why}")).hint(
            "update the lists with `apt-get update`; `apt-cache search linux-source` shows the source packages",
        ));
    }
    let entries = dir.read_dir_utf8().context(Kind::Fetch, || format!("cannot read {dir}"))?;
    let mut debs = entries
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .filter(|path| path.extension() == Some("deb"));
    debs.next().ok_or_else(|| Error::fetch(format!("`apt-get download {package_spec}` left no .deb")))
}

/// Unpacks the kernel tarball in a .deb, an `ar` archive with the files in its member `data.tar.*`.
fn unpack_inner_tarball(
    deb: &Utf8Path,
    name: &str,
    tree: &Utf8Path,
    threads: usize,
    phase: &PhaseGuard<'_>,
) -> Result<Unpacked> {
    let corrupt = || format!("{name}: corrupt .deb");
    let file = open_file(deb, Links::Refuse).context(Kind::Fetch, corrupt)?;
    let total = file.metadata().context(Kind::Fetch, corrupt)?.len();
    let mut archive = ar::Archive::new(BufReader::with_capacity(1 << 20, file));
    while let Some(member) = archive.next_entry() {
        let member = member.context(Kind::Fetch, corrupt)?;
        if !member.header().identifier().starts_with(b"data.tar") {
            continue;
        }
        let data = decompress(name, BufReader::new(member), 1)?;
        let mut data = tar::Archive::new(data);
        for entry in data.entries().context(Kind::Fetch, corrupt)? {
            let entry = entry.context(Kind::Fetch, corrupt)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let file_name = path.rsplit('/').next().unwrap_or_default();
            if entry.header().entry_type().is_file()
                && file_name.starts_with("linux-source-")
                && file_name.contains(".tar.")
            {
                let inner = Stream {
                    name: file_name,
                    reader: entry,
                    total: Some(total),
                    expected: None,
                    signature: None,
                    hard_links: HardLinks::Refuse,
                    threads,
                    copy: None,
                };
                return unpack(inner, tree, phase);
            }
        }
    }
    Err(Error::fetch(format!("{name}: the package has no linux-source-….tar.*"))
        .hint("`apt-cache search linux-source` shows the source packages"))
}

#[cfg(test)]
mod tests {
    use super::version_key;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        // Each of them `dpkg --compare-versions` says is older than the next.
        let sorted = [
            "6.1~rc1-1",
            "6.1-1~exp1",
            "6.1-1",
            "6.1-1a",
            "6.1-1+b1",
            "6.1-10",
            "6.1a-1",
            "6.1+x-1",
            "6.1.7-1",
            "6.1.192-1",
            "6.12-1",
            "1:5.10-1",
        ];
        assert!(sorted.is_sorted_by(|a, b| version_key(a) < version_key(b)));
        assert_eq!(version_key("6.1"), version_key("0:6.01-0"));
    }
}
