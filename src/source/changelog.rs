//! Counts the commits between two releases of a series by kernel.org's ChangeLog files.

use super::context::FetchContext;
use super::http::Http;
use super::newest_release::try_mirrors;
use crate::kernel::KernelVersion;
use crate::util::error::{Error, Result};

/// A ChangeLog of a point release has up to 3 MB.
const MAX_CHANGELOG: u64 = 16 << 20;
/// The most files that are fetched.
const MAX_RELEASES: u32 = 100;

/// Returns the number of commits after `from` up to `to`, which is of the same series.
///
/// # Errors
///
/// Exit code 3: the server has no such files, or they are too many.
pub fn count_commits(
    from: KernelVersion,
    to: KernelVersion,
    mirrors: &[String],
    ctx: &FetchContext<'_>,
) -> Result<usize> {
    if ctx.offline {
        return Err(Error::fetch("--offline: the ChangeLog files of kernel.org are not in the cache"));
    }
    if to.patch.saturating_sub(from.patch) > MAX_RELEASES {
        return Err(Error::fetch(format!("there are more than {MAX_RELEASES} releases in between")));
    }
    let http = Http::new(ctx)?;
    try_mirrors(mirrors, ctx, |mirror| {
        let mut commits = 0;
        for patch in from.patch + 1..=to.patch {
            let version = KernelVersion::new(to.major, to.minor, patch);
            let name = format!("ChangeLog-{version}");
            let dir = format!("{}/pub/linux/kernel/v{}.x", mirror.trim_end_matches('/'), to.major);
            let text = http.text(&format!("{dir}/{name}"), MAX_CHANGELOG)?;
            commits += count(&text.ok_or_else(|| Error::fetch(format!("{mirror} has no {name}")))?);
        }
        Ok(commits)
    })
}

/// Counts the lines `commit <40 digits>`.
fn count(changelog: &str) -> usize {
    let is_commit = |id: &str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    changelog.lines().filter(|line| line.strip_prefix("commit ").is_some_and(is_commit)).count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_headings_of_commits_count() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(
            "commit {id}\nAuthor: A <a@b>\n\n    x\n    \n    commit {id} upstream.\n\ncommit {id}\ncommit {id}0\n"
        );
        assert_eq!(super::count(&text), 2);
        assert_eq!(super::count(""), 0);
    }
}
