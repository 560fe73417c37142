//! Finds releases of kernel.org by `releases.json`, which has current series, or by directory listings.

use super::http::Http;
use crate::cache::Cache;
use crate::kernel::{Channel, KernelVersion};
use crate::plan::KERNEL_ORG;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, read_text};
use crate::util::text::format_age;
use camino::Utf8Path;
use serde::Deserialize;
use std::fs;
use std::time::{Duration, SystemTime};

/// The file has about 10 kB.
const MAX_RELEASES: u64 = 1 << 20;
/// A listing of `v6.x/` has about 1 MB.
const MAX_LISTING: u64 = 16 << 20;
/// A newer list is not fetched again. Kernels are released once or twice a week.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// `releases.json` and its age.
#[derive(Debug)]
pub(super) struct Releases {
    list: List,
    /// The time since it was fetched.
    pub age: Duration,
}

#[derive(Debug, Deserialize)]
struct List {
    latest_stable: Latest,
    releases: Vec<Release>,
}

#[derive(Debug, Deserialize)]
struct Latest {
    version: String,
}

#[derive(Debug, Deserialize)]
struct Release {
    moniker: String,
    version: String,
    #[serde(default)]
    iseol: bool,
}

impl Releases {
    /// Loads the list of `server`, from the cache if it is new enough or the server cannot be reached. `None`
    /// means that there is no list.
    pub(super) fn load(server: &str, cache: &Cache, http: Option<&Http<'_>>) -> Result<Option<Releases>> {
        let url = match server {
            // The file server does not have it.
            KERNEL_ORG => "https://www.kernel.org/releases.json".to_owned(),
            mirror => format!("{mirror}/releases.json"),
        };
        let path = cache.root.join("releases").join(format!("{}.json", Sha256::of(&url).short()));
        let cached = Self::cached(&path);
        if let Some(fresh) = cached.as_ref().filter(|cached| cached.age < MAX_AGE || http.is_none()) {
            return Ok(Some(Releases { list: parse(&url, &fresh.text)?, age: fresh.age }));
        }
        let Some(http) = http else { return Ok(None) };
        match (http.text(&url, MAX_RELEASES), cached) {
            (Ok(Some(text)), _) => {
                let list = parse(&url, &text)?;
                // `plan` creates no cache, and another user's list cannot be replaced.
                let _ = write_atomically(&path, text.as_bytes());
                Ok(Some(Releases { list, age: Duration::ZERO }))
            }
            (Ok(None), _) => Ok(None),
            (Err(error), Some(cached)) if error.kind == Kind::Fetch => {
                http.note(&format!("{error}; using the list of {} ago", format_age(cached.age)));
                Ok(Some(Releases { list: parse(&url, &cached.text)?, age: cached.age }))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn cached(path: &Utf8Path) -> Option<CachedList> {
        let text = read_text(path, Links::Refuse, MAX_RELEASES).ok()?;
        let fetched = fs::symlink_metadata(path).and_then(|file| file.modified()).ok()?;
        // The age of a file from the future is unknown.
        let age = SystemTime::now().duration_since(fetched).unwrap_or(Duration::MAX);
        Some(CachedList { text, age })
    }

    /// Returns the version of `channel`.
    pub(super) fn of(&self, channel: Channel) -> Option<KernelVersion> {
        let newest = |moniker: &str| {
            let releases = self.list.releases.iter().filter(|release| release.moniker == moniker);
            releases.filter_map(|release| release.version.parse().ok()).max()
        };
        match channel {
            Channel::Latest => self.list.latest_stable.version.parse().ok(),
            Channel::Longterm => newest("longterm"),
            Channel::Mainline => newest("mainline"),
        }
    }

    /// Returns the newest release of a series.
    pub(super) fn newest(&self, series: (u32, u32)) -> Option<KernelVersion> {
        let versions = self.list.releases.iter().filter_map(|release| release.version.parse().ok());
        versions
            .filter(|version: &KernelVersion| version.series() == series && version.candidate().is_none())
            .max()
    }

    /// Returns the newest release of the first longterm series after `series`.
    pub(super) fn next_longterm(&self, series: (u32, u32)) -> Option<KernelVersion> {
        let longterm = self.list.releases.iter().filter(|one| one.moniker == "longterm" && !one.iseol);
        let versions = longterm.filter_map(|one| one.version.parse::<KernelVersion>().ok());
        versions.filter(|version| version.series() > series).min_by_key(|version| version.series())
    }

    /// Returns whether the series is no longer maintained.
    pub(super) fn has_ended(&self, series: (u32, u32)) -> bool {
        self.list.releases.iter().any(|release| {
            release.iseol
                && release.version.parse().is_ok_and(|version: KernelVersion| version.series() == series)
        })
    }
}

struct CachedList {
    text: String,
    age: Duration,
}

fn parse(url: &str, text: &str) -> Result<List> {
    serde_json::from_str(text).context(Kind::Fetch, || format!("{url} is not a list of kernel releases"))
}

/// Returns the newest release of `series` in the server's directory listing. `None` means that there is no
/// listing, or no such release in it.
pub(super) fn newest_listed(
    http: &Http<'_>,
    server: &str,
    series: (u32, u32),
) -> Result<Option<KernelVersion>> {
    let url = format!("{server}/pub/linux/kernel/v{}.x/", series.0);
    Ok(http
        .text(&url, MAX_LISTING)?
        .and_then(|html| parse_listing(&html).filter(|v| v.series() == series).max()))
}

/// Returns every `linux-<version>.tar.xz` that occurs in the page.
fn parse_listing(html: &str) -> impl Iterator<Item = KernelVersion> {
    html.split("linux-").skip(1).filter_map(|rest| rest.split_once(".tar.xz")?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"latest_stable": {"version": "7.2.13"}, "releases": [
        {"iseol": false, "version": "7.3-rc7", "moniker": "mainline", "source": "x"},
        {"iseol": false, "version": "7.2.13", "moniker": "stable"},
        {"iseol": true, "version": "7.1.13", "moniker": "stable"},
        {"iseol": false, "version": "6.18.49", "moniker": "longterm"},
        {"iseol": false, "version": "6.6.152", "moniker": "longterm"},
        {"iseol": false, "version": "6.1.158", "moniker": "longterm"},
        {"iseol": false, "version": "next-20261117", "moniker": "linux-next"}]}"#;

    #[test]
    fn channels_and_series_are_found() {
        let releases = Releases { list: parse("x", JSON).unwrap(), age: Duration::ZERO };
        let of = |channel| releases.of(channel).unwrap().to_string();
        assert_eq!(of(Channel::Latest), "7.2.13");
        assert_eq!(of(Channel::Longterm), "6.18.49");
        assert_eq!(of(Channel::Mainline), "7.3-rc7");
        assert_eq!(releases.newest((6, 1)).unwrap().to_string(), "6.1.158");
        assert_eq!((releases.newest((7, 3)), releases.newest((5, 2))), (None, None));
        assert!(releases.has_ended((7, 1)) && !releases.has_ended((7, 2)));
        let next = |series| releases.next_longterm(series).map(|version| version.to_string());
        assert_eq!(next((5, 2)).as_deref(), Some("6.1.158"));
        assert_eq!(next((6, 1)).as_deref(), Some("6.6.152"));
        assert_eq!(next((6, 18)), None);
        assert!(parse("x", "<html>").is_err());
    }

    #[test]
    fn versions_in_a_directory_listing() {
        let html = "<a href=\"linux-5.2.21.tar.xz\">linux-5.2.21.tar.xz</a> <a href=\"linux-5.2.9.tar.gz\">\
                    <a href=\"linux-5.2.3.tar.sign\"> <a href=\"linux-5.20.tar.xz\"> linux-x.tar.xz linux-";
        let mut versions: Vec<String> = parse_listing(html).map(|version| version.to_string()).collect();
        versions.dedup();
        assert_eq!(versions, ["5.2.21", "5.20"]);
    }
}
