//! Finds the newest release of kernel.org, of a channel or a series. Downloads no release.

use super::context::FetchContext;
use super::http::Http;
use super::kernel_proofs::{fetch_checksums, parse_checksums};
use super::releases::{Releases, newest_listed};
use crate::catalog::kernels::end_of_life_warning;
use crate::kernel::{Channel, KernelVersion};
use crate::plan::KERNEL_ORG;
use crate::util::error::{Error, Kind, Result};
use crate::util::text::format_age;

/// Returns the version that a channel of kernel.org has today. Without `mirrors`, asks kernel.org.
pub fn resolve(channel: Channel, mirrors: &[String], ctx: &FetchContext<'_>) -> Result<KernelVersion> {
    let http = if ctx.offline { None } else { Some(Http::new(ctx)?) };
    try_mirrors(mirrors, ctx, |mirror| {
        let mirror = mirror.trim_end_matches('/');
        let releases = Releases::load(mirror, ctx.cache, http.as_ref())?;
        let version = releases.as_ref().and_then(|releases| releases.of(channel));
        let Some((version, releases)) = version.zip(releases) else {
            let why = if ctx.offline { "is not in the cache" } else { "does not have that version" };
            return Err(Error::fetch(format!("cannot resolve `{channel}`: releases.json of {mirror} {why}"))
                .hint("name a version, such as 6.1.7"));
        };
        let age = format_age(releases.age);
        ctx.reporter
            .note(&format!("{channel} is Linux {version}, according to the releases.json of {age} ago"));
        Ok(version)
    })
}

/// The newest release of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesState {
    pub newest: KernelVersion,
    /// Whether kernel.org releases no more versions of the series.
    pub has_ended: bool,
    /// The newest release of the next longterm series, if it is known.
    pub next_longterm: Option<KernelVersion>,
}

/// Returns the newest release of `series`, and whether the series has ended. Without `mirrors`, asks kernel.org.
/// Downloads no release.
pub fn newest_of_series(
    series: (u32, u32),
    mirrors: &[String],
    ctx: &FetchContext<'_>,
) -> Result<SeriesState> {
    let http = if ctx.offline { None } else { Some(Http::new(ctx)?) };
    try_mirrors(mirrors, ctx, |mirror| {
        let mirror = mirror.trim_end_matches('/');
        let releases = Releases::load(mirror, ctx.cache, http.as_ref())?;
        let known = releases.as_ref().and_then(|releases| releases.newest(series));
        let newest = match (known, &http) {
            (Some(version), _) => version,
            (None, Some(http)) => newest_in_listings(http, mirror, series, ctx)?,
            (None, None) => {
                let (major, minor) = series;
                return Err(Error::fetch(format!(
                    "--offline: the releases of Linux {major}.{minor} on {mirror} are not in the cache"
                )));
            }
        };
        // releases.json has every series that is maintained.
        let has_ended = releases.as_ref().is_some_and(|list| list.has_ended(series) || known.is_none());
        let next_longterm = releases.and_then(|releases| releases.next_longterm(series));
        Ok(SeriesState { newest, has_ended, next_longterm })
    })
}

/// Tries one mirror after the other, while they fail with exit code 3. Without `mirrors`, asks kernel.org.
pub(super) fn try_mirrors<T>(
    mirrors: &[String],
    ctx: &FetchContext<'_>,
    mut attempt: impl FnMut(&str) -> Result<T>,
) -> Result<T> {
    let kernel_org = [KERNEL_ORG.to_owned()];
    let mirrors = if mirrors.is_empty() { &kernel_org } else { mirrors };
    let mut last = None;
    for mirror in mirrors {
        if let Some(error) = last.take() {
            ctx.reporter.note(&format!("{error}; trying the next mirror"));
        }
        match attempt(mirror) {
            Err(error) if error.kind == Kind::Fetch => last = Some(error),
            done => return done,
        }
    }
    Err(last.expect("there is a mirror"))
}

/// Finds the newest release of a series by `releases.json`, the list of checksums or the directory listing.
pub(super) fn newest_of(
    http: &Http<'_>,
    mirror: &str,
    series: (u32, u32),
    ctx: &FetchContext<'_>,
) -> Result<KernelVersion> {
    if let Some(releases) = Releases::load(mirror, ctx.cache, Some(http))? {
        if releases.has_ended(series) {
            ctx.reporter.warning(end_of_life_warning(series, None));
        }
        if let Some(version) = releases.newest(series) {
            return Ok(version);
        }
    }
    newest_in_listings(http, mirror, series, ctx)
}

/// Finds the newest release of a series by the list of checksums or the directory listing.
fn newest_in_listings(
    http: &Http<'_>,
    mirror: &str,
    series: (u32, u32),
    ctx: &FetchContext<'_>,
) -> Result<KernelVersion> {
    let list = fetch_checksums(http, mirror, series.0, ctx)?.unwrap_or_default().text;
    let listed =
        parse_checksums(&list).map(|(version, _)| version).filter(|version| version.series() == series);
    match listed.max() {
        Some(version) => Ok(version),
        None => newest_listed(http, mirror, series)?.ok_or_else(|| {
            Error::fetch(format!("{mirror} lists no release of Linux {}.{}", series.0, series.1))
                .hint("`kcompile list` shows the known kernels")
        }),
    }
}
