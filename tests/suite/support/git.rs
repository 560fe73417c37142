//! Repositories of the miniature kernel tree.

use crate::support::context::TestContext;
use camino::Utf8Path;
use std::process::Command;

pub(crate) const COMMIT: &str = "git -c user.name=t -c user.email=t@example.org -c commit.gpgsign=false commit -q --date=@1700000000 -m x";

pub(crate) fn sh(dir: &Utf8Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).env("HOME", dir).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Commits the index of a repository.
pub(crate) fn commit(repo: &Utf8Path) {
    sh(repo, COMMIT);
}

/// Makes a repository with the branch `ch-6.1.7` and an older commit below it.
pub(crate) fn repository(context: &TestContext) -> camino::Utf8PathBuf {
    let tree = context.tree("6.1.7", "repos/linux");
    sh(
        &tree,
        &format!(
            "git init -q -b ch-6.1.7 . && git add README && {COMMIT} && git add . && GIT_COMMITTER_DATE=@1700000000 {COMMIT} && git branch other"
        ),
    );
    tree
}
