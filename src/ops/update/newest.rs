//! Finds the newest release for an entry of the catalog, and the one that it has now. Downloads nothing.

use super::CatalogKernel;
use crate::cache::Cache;
use crate::catalog::kernels::Entry;
use crate::catalog::lockfile::LockFile;
use crate::kernel::{KernelVersion, SourceSpec, VersionRequest, source_package};
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::plan::{KERNEL_ORG, git_branch, release_url};
use crate::source::{self, SeriesState};
use crate::util::error::{Error, Result};
use crate::util::text::file_name;
use serde::Serialize;

/// A release that an entry can be updated to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Available {
    /// What the entry or the lock file has now: a version, a commit or the version of a package. `None` if the
    /// source of a series or a branch was never fetched.
    pub current: Option<String>,
    /// `None` for a source that does not move, such as a tag.
    pub newest: Option<String>,
    pub update: bool,
    /// The end of the series, if it is known and past.
    pub end_of_life: Option<SeriesEnd>,
}

/// A series that gets no more releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeriesEnd {
    /// The day or month, if the catalog knows it.
    pub date: Option<String>,
    /// The newest release of the next longterm series, if kernel.org's list has one.
    pub next_longterm: Option<KernelVersion>,
}

/// Finds the newest release for `kernel`.
///
/// # Errors
///
/// Exit code 3: the server cannot be reached, or has no such series or branch.
pub fn find(kernel: &CatalogKernel, ctx: &Context<'_>) -> Result<Available> {
    let request = &kernel.requests[0];
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let lock = ctx.lock()?;
    let fetching = ctx.fetch_context(&cache, &lock);
    match &request.source {
        SourceSpec::KernelOrg => {
            let series = request.version.floor().series();
            let found = source::newest_of_series(series, &request.mirrors, &fetching)?;
            Ok(of_release(&kernel.entry, &found, &lock, ctx))
        }
        SourceSpec::Git { url, reference } => {
            let (url, reference) = git_branch(url.as_deref(), reference.as_deref(), request.version);
            let newest = source::branch_commit(&url, &reference, &fetching)?.map(|id| id.to_string());
            let locked = lock.of(&format!("{url}#{reference}"));
            let current = locked.and_then(|locked| Some(locked.digest.commit()?.to_string()));
            Ok(with_update(current, newest, ctx, request))
        }
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            let candidate = source::apt_candidate(&package, ctx.host)?.ok_or_else(|| {
                Error::fetch(format!("apt knows no package {package}")).hint("run apt-get update")
            })?;
            let newest = candidate.split_whitespace().next().map(str::to_owned);
            let prefix = format!("apt:{package}=");
            let locked = lock.origins().filter_map(|origin| origin.strip_prefix(&prefix));
            let current = source::newest_package(locked).map(str::to_owned);
            Ok(with_update(current, newest, ctx, request))
        }
        SourceSpec::Path(path) => {
            Err(Error::usage(format!("the catalog names a local path, which has no releases: {path}"))
                .hint("name kernel.org, git+URL[#REF] or apt[:PACKAGE] as the source"))
        }
    }
}

/// Compares what a lock file has with what a server has.
fn with_update(
    current: Option<String>,
    newest: Option<String>,
    ctx: &Context<'_>,
    request: &Request,
) -> Available {
    let update = newest.is_some() && newest != current;
    let date = ctx.catalog.end_date(request.version.floor(), ctx.host.now).map(str::to_owned);
    let end_of_life = date.map(|date| SeriesEnd { date: Some(date), next_longterm: None });
    Available { current, newest, update, end_of_life }
}

fn of_release(entry: &Entry, found: &SeriesState, lock: &LockFile, ctx: &Context<'_>) -> Available {
    let request = entry.request();
    let current = match request {
        VersionRequest::Exact(version) => Some(version),
        VersionRequest::Series(..) => newest_locked(request, lock),
    };
    let date = ctx.catalog.end_date(request.floor(), ctx.host.now).map(str::to_owned);
    let has_ended = found.has_ended || date.is_some();
    Available {
        update: current.is_none_or(|current| current < found.newest),
        current: current.map(|version| version.to_string()),
        newest: Some(found.newest.to_string()),
        end_of_life: has_ended.then_some(SeriesEnd { date, next_longterm: found.next_longterm }),
    }
}

/// Returns the newest release of a series that the lock file has.
fn newest_locked(series: VersionRequest, lock: &LockFile) -> Option<KernelVersion> {
    let version = |origin: &str| -> Option<KernelVersion> {
        let version = file_name(origin).strip_prefix("linux-")?.split_once(".tar.")?.0.parse().ok()?;
        (origin == release_url(KERNEL_ORG, version)).then_some(version)
    };
    lock.origins().filter_map(version).filter(|version| series.admits(*version)).max()
}
