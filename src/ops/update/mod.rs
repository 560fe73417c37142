//! Updates the kernels of the user's catalog to the newest releases of their series. Asks for releases, fetches
//! and migrates, builds and boots both versions, and writes the catalog last.

mod cves;
mod measure;
mod newest;
mod prepare;

pub use cves::{FixedCve, FixedCves, RecordsChoice};
pub use measure::{Build, Measured};
pub use newest::{Available, SeriesEnd, find};
pub use prepare::{PreparedUpdate, prepare};

use crate::boot;
use crate::catalog::kernels::Entry;
use crate::ops::catalog_files::write_all;
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::util::error::{Kind, Result};
use crate::util::fs::lock_dir;

/// An entry of the user's catalog, with a request for each architecture.
#[derive(Clone, Debug)]
pub struct CatalogKernel {
    pub entry: Entry,
    pub requests: Vec<Request>,
}

/// How an update is proven before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The source verifies, and the config can be migrated.
    Config,
    Build,
    /// The kernel is built and boots.
    Boot,
}

/// What is found out for the report.
#[derive(Clone, Debug, Default)]
pub struct ReportChoice {
    pub commits: bool,
    /// The records for the list of CVEs.
    pub records: Option<RecordsChoice>,
}

/// An update that was written, and what is known of it.
pub struct WrittenUpdate {
    pub prepared: PreparedUpdate,
    /// One for each architecture, if the kernel was built.
    pub builds: Vec<Build>,
    /// The number of commits in between, or why it is not known. `None` if the report does not need it.
    pub commits: Option<Result<usize, String>>,
    /// The CVEs that the update fixes, or why they are not known. `None` if the report does not need it.
    pub cves: Option<Result<FixedCves, String>>,
}

/// Fetches, migrates and proves an update, and then writes it.
///
/// # Errors
///
/// As for [`prepare`]. Exit code 1 if the new kernel cannot be built or does not boot. Nothing is written then.
pub fn update(
    kernel: &CatalogKernel,
    available: &Available,
    proof: Proof,
    report: &ReportChoice,
    ctx: &Context<'_>,
) -> Result<WrittenUpdate> {
    if proof == Proof::Boot {
        let options = boot::Options::default();
        kernel.requests.iter().try_for_each(|one| boot::require_host(one.arch, &options, ctx.host))?;
    }
    let mut prepared = prepare(kernel, available, ctx)?;
    let builds = if proof == Proof::Config { Vec::new() } else { measure::prove(&prepared, proof, ctx)? };
    if proof != Proof::Boot {
        prepared.mark_untested()?;
    }
    let commits = report.commits.then(|| prepared.count_commits(ctx)).transpose()?;
    let cves = match &report.records {
        Some(records) => Some(explained(cves::fixed(&prepared, &builds, records, ctx))?),
        None => None,
    };
    write(&prepared, ctx)?;
    Ok(WrittenUpdate { prepared, builds, commits, cves })
}

/// Turns an error into the reason for a gap in the report, unless the run was interrupted.
fn explained<T>(result: Result<T>) -> Result<Result<T, String>> {
    match result {
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => Err(error),
        result => Ok(result.map_err(|error| error.to_string())),
    }
}

/// Writes configs, catalog and lock file.
fn write(prepared: &PreparedUpdate, ctx: &Context<'_>) -> Result<()> {
    let writing = lock_dir(&ctx.library.project.user_dirs()?.root)?;
    prepared.check_unchanged()?;
    write_all(&prepared.changes)?;
    drop(writing);
    prepared.lock(ctx)
}
