//! The distribution's kernel source package: downloaded and verified by the host's own apt, and the
//! tarball inside its .deb unpacked without unpacking the .deb.

use super::archive::decompress;
use super::archive_store::{self, Kept, Proofs, Unknown};
use super::context::{Fetching, verify};
use super::directory::check_tree;
use super::stream::{Stream, unpack};
use super::tree::Tree;
use super::tree_manifest::Contents;
use super::tree_store::{keep, keep_unlisted};
use crate::catalog::lockfile;
use crate::host::Host;
use crate::host::process::{self, CommandLine, Stream as Output};
use crate::kernel::SourceDigest;
use crate::plan::{Check, Link, SourceIdentity, SourcePlan};
use crate::report::{Count, Running, Unit};
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::file_stamp::{self, Fingerprint};
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::io::BufReader;
use std::path::Path;
use walkdir::WalkDir;

/// What apt's lists on this machine know of `package`: its version, a space, the digest of its .deb (empty
/// where they do not tell); `None` where there is no apt or no such package. Takes half a second.
pub fn candidate(package: &str, host: &Host) -> Option<String> {
    host.find_program("apt-cache")?;
    let shown =
        process::capture("apt-cache", &["show", "--no-all-versions", package], &host.child_env).ok()?;
    let field = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some(format!("{} {}", field("Version")?.trim(), field("SHA256").unwrap_or_default().trim()))
}

/// What the file system says of all that apt answers from (its lists, its configuration, what is
/// installed), and whether that has come to rest; `None` where there is no apt.
pub fn state() -> Option<(String, bool)> {
    let now = file_stamp::now();
    let (mut hasher, mut is_settled) = (Hasher::default(), true);
    for place in ["/var/lib/apt/lists", "/etc/apt", "/var/lib/dpkg/status"] {
        for entry in WalkDir::new(place).sort_by_file_name().into_iter().flatten() {
            // The times of a directory change with apt's own locks and temporary files.
            let Some(metadata) = entry.metadata().ok().filter(|metadata| !metadata.is_dir()) else {
                continue;
            };
            let fingerprint = Fingerprint::of(&metadata);
            is_settled &= fingerprint.is_settled(now);
            hasher.update(format!("{} {fingerprint:?}\n", entry.path().display()));
        }
    }
    Path::new("/var/lib/dpkg/status").is_file().then(|| (hasher.finish().to_string(), is_settled))
}

/// Takes the package from the archives that are kept, else downloads it with `apt-get download`, which
/// checks it against the signed lists; and unpacks the kernel tarball in it.
pub(super) fn fetch(
    package: &str,
    version: Option<&str>,
    pin: Option<Sha256>,
    plan: &SourcePlan,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    if let Some(kept) = kept_deb(package, version, pin, fetching)? {
        let name = kept.origin.strip_prefix("apt:").unwrap_or(&kept.origin);
        let path = archive_store::path(fetching.cache, kept.sha256);
        fetching.name_owner(&path);
        let locked =
            fetching.lock.of(&kept.origin).filter(|locked| locked.digest.sha256() == Some(kept.sha256));
        let check = match locked {
            _ if pin.is_some() => Check::proves(Link::Apt, "as in the signed lists of apt"),
            Some(locked) if !locked.unverified => {
                Check::proves(Link::LockFile, format!("sha256 as in {}", lockfile::NAME))
            }
            _ => Check::holds(Link::Transport, "kept in the cache; apt's lists here do not tell of it"),
        };
        let unpacked = keep(&SourceDigest::Sha256(kept.sha256), fetching, |tree| {
            verify(name, kept.sha256, digest_of(&path)?)?;
            unpack_deb_as(&path, name, (kept.sha256, &kept.origin, check), tree, fetching, running)
        });
        match unpacked {
            Err(error) if error.kind == Kind::Fetch => {
                fetching.report.note(&format!("{error}; the archive in the cache is thrown away"));
                archive_store::forget(fetching.cache, kept.sha256)?;
            }
            unpacked => return unpacked,
        }
    }
    if fetching.offline {
        return Err(fetching.not_here(&plan.name));
    }
    if fetching.host.find_program("apt-get").is_none() {
        return Err(
            Error::host("--source apt: this host has no apt-get").hint("use kernel.org, git or a tarball")
        );
    }
    let fill = |tree: &Utf8Path| {
        let scratch = fetching.cache.scratch()?;
        let deb = download(package, version, &scratch.path, fetching, running)?;
        let digest = digest_of(&deb)?;
        verify(&plan.name, pin.unwrap_or(digest), digest)?;
        let origin = match (&plan.origin, deb.file_name().and_then(|name| name.split('_').nth(1))) {
            (Some(origin), _) => origin.clone(),
            // An epoch's colon is `%3a` in the name of the file.
            (None, Some(version)) => format!("apt:{package}={}", version.replace("%3a", ":")),
            (None, None) => format!("apt:{package}"),
        };
        let check = Check::proves(Link::Apt, "by the signed lists of apt");
        let source = (digest, origin.as_str(), check);
        let identity = unpack_deb_as(&deb, &plan.name, source, tree, fetching, running)?;
        let kept = Kept {
            origin,
            sha256: digest,
            proofs: Proofs::default(),
            zstd: None,
            unknown: Unknown::default(),
        };
        archive_store::keep(fetching.cache, &deb, None, &kept)?;
        Ok(identity)
    };
    match pin {
        Some(pin) => keep(&SourceDigest::Sha256(pin), fetching, fill),
        None => keep_unlisted(&plan.name, fetching, fill),
    }
}

/// The package among the archives that are kept: the one that apt's lists mean; without lists, the one
/// of the version asked for, or the newest.
fn kept_deb(
    package: &str,
    version: Option<&str>,
    pin: Option<Sha256>,
    fetching: &Fetching<'_>,
) -> Result<Option<Kept>> {
    if let Some(pin) = pin {
        return Ok(archive_store::find(fetching.cache, pin));
    }
    if !fetching.offline {
        return Ok(None);
    }
    let prefix = format!("apt:{package}=");
    let rank = |kept: &Kept| {
        let found = kept.origin.strip_prefix(&prefix)?;
        version.is_none_or(|version| version == found).then(|| order(found))
    };
    let packages =
        archive_store::all(fetching.cache)?.into_iter().filter_map(|kept| Some((rank(&kept)?, kept)));
    Ok(packages.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, kept)| kept))
}

/// Where a package's version stands among others, as deb-version(7) has it: by epoch, upstream version and
/// revision.
fn order(version: &str) -> (u64, Vec<Run>, Vec<Run>) {
    let (epoch, version) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = version.rsplit_once('-').unwrap_or((version, "0"));
    (number(epoch), runs(upstream), runs(revision))
}

/// The ranks of characters that are no digits, and the number behind them.
type Run = (Vec<u32>, u64);

/// A tilde comes before the end of a run, that before letters, those before all else.
fn runs(text: &str) -> Vec<Run> {
    const END: u32 = 1;
    let rank = |character: char| match character {
        '~' => 0,
        letter if letter.is_ascii_alphabetic() => u32::from(letter),
        other => 256 + u32::from(other),
    };
    let (mut runs, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (others, digits) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        runs.push((others.chars().map(rank).chain([END]).collect(), number(&digits[..end])));
        rest = &digits[end..];
    }
    runs.push((vec![END], 0));
    runs
}

fn number(digits: &str) -> u64 {
    if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u64::MAX) }
}

fn digest_of(deb: &Utf8Path) -> Result<Sha256> {
    open_file(deb, Links::Refuse)
        .and_then(Sha256::of_reader)
        .context(Kind::Fetch, || format!("cannot read {deb}"))
}

/// Unpacks a .deb of this digest, which came from `origin` and of which `check` is known.
fn unpack_deb_as(
    deb: &Utf8Path,
    name: &str,
    (digest, origin, check): (Sha256, &str, Check),
    tree: &Utf8Path,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<SourceIdentity> {
    let (contents, date) = unpack_deb(deb, name, tree, fetching.jobs, running)?;
    contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
    Ok(SourceIdentity {
        origin: Some(origin.to_owned()),
        digest: SourceDigest::Sha256(digest),
        version: check_tree(tree, name)?,
        date,
        checks: vec![check],
    })
}

fn download(
    package: &str,
    version: Option<&str>,
    dir: &Utf8Path,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Utf8PathBuf> {
    let wanted = version.map_or_else(|| package.to_owned(), |version| format!("{package}={version}"));
    let command = CommandLine {
        program: "apt-get".into(),
        // Status lines on standard output: `dlstatus:1:42.0000:Retrieving file 1 of 1 (3s remaining)`.
        args: ["-q", "-o", "APT::Status-Fd=1", "download", &wanted].map(str::to_owned).into(),
        env: fetching
            .host
            .child_env
            .iter()
            .chain(&fetching.host.proxies)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        cwd: dir.to_owned(),
    };
    let log = tempfile::tempfile_in(dir).context(Kind::Build, || format!("cannot write in {dir}"))?;
    let mut said = Vec::new();
    let status = process::run(&command, &log, None, |stream, line| {
        let percent =
            line.strip_prefix("dlstatus:").and_then(|rest| rest.split(':').nth(1)?.parse::<f64>().ok());
        match percent {
            Some(percent) => running.progress(Count {
                done: percent as u64,
                total: Some(100),
                unit: Unit::Steps,
                item: &format!("{wanted}: apt-get download, in percent"),
            }),
            None if stream == Output::Err && line.starts_with("E:") => {
                said.push(line.trim_start_matches("E: ").to_owned());
            }
            None => {}
        }
    })?;
    if !status.success() {
        return Err(Error::fetch(format!("`{command}` failed: {}", said.join("; "))).hint(
            "`apt-get update` renews the lists; `apt-cache search linux-source` shows the source packages",
        ));
    }
    let entries = dir.read_dir_utf8().context(Kind::Fetch, || format!("cannot read {dir}"))?;
    let mut debs = entries
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .filter(|path| path.extension() == Some("deb"));
    debs.next().ok_or_else(|| Error::fetch(format!("`{command}` left no .deb")))
}

/// A .deb is an `ar` archive whose member `data.tar.*` holds the files; the kernel's tarball is one
/// of them. Returns what the tree holds, and its date.
fn unpack_deb(
    deb: &Utf8Path,
    name: &str,
    tree: &Utf8Path,
    threads: usize,
    running: &Running<'_>,
) -> Result<(Contents, u64)> {
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
                    threads,
                    copy: None,
                };
                let unpacked = unpack(inner, tree, running)?;
                return Ok((unpacked.contents, unpacked.date));
            }
        }
    }
    Err(Error::fetch(format!("{name}: no linux-source-….tar.* in it"))
        .hint("`apt-cache search linux-source` shows the source packages"))
}

#[cfg(test)]
mod tests {
    use super::order;

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
        assert!(sorted.is_sorted_by(|a, b| order(a) < order(b)));
        assert_eq!(order("6.1"), order("0:6.01-0"));
    }
}
