//! A source and patches for it.

use crate::support::context::{RunResult, TestContext, compress, tar_of};
use camino::Utf8PathBuf;
use std::collections::BTreeSet;
use std::fs;

/// Ten lines, some of which the patches of these tests change.
pub(crate) const LINES: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
/// A hunk that changes the second line.
pub(crate) const HUNK: &str = "@@ -1,4 +1,4 @@\n 1\n-2\n+two\n 3\n 4\n";
/// The lines after the change.
pub(crate) const CHANGED: &str = "1\ntwo\n3\n4\n5\n6\n7\n8\n9\n10\n";
pub(crate) const FETCH: &str = "fetch 6.1.7 --fc --source linux.tar.gz --patches p";

/// A tarball of the miniature kernel tree with additional files, and patches for it.
pub(crate) struct Patching {
    pub(crate) context: TestContext,
}

impl Patching {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Patching {
        let context = TestContext::new();
        let tree = context.tree("6.1.7", "tree");
        for (name, bytes) in files {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let tar = tar_of(&tree, "linux-6.1.7");
        fs::write(context.path("work/linux.tar.gz"), compress(&tar, "gz")).unwrap();
        Patching { context }
    }

    /// Replaces the files in the directory of patches.
    pub(crate) fn write(&self, patches: &[(&str, &[u8])]) {
        let dir = self.context.path("work/p");
        let _ = fs::remove_dir_all(&dir);
        for (name, bytes) in patches {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn fetch(&self, patches: &[(&str, &[u8])]) -> RunResult {
        self.write(patches);
        self.context.run(FETCH)
    }

    pub(crate) fn trees(&self) -> BTreeSet<String> {
        self.context.names("cache/trees").into_iter().collect()
    }

    /// Returns the patched tree.
    #[track_caller]
    pub(crate) fn tree(&self, patches: &[(&str, &[u8])]) -> (RunResult, Utf8PathBuf) {
        let before = self.trees();
        let ran = self.fetch(patches).ok();
        let made = self.trees();
        let mut made = made.difference(&before).filter(|name| name.contains('+'));
        let tree = self.context.path(&format!("cache/trees/{}/linux", made.next().expect("a patched tree")));
        (ran, tree)
    }

    /// Checks that the patches are refused for these reasons and leave nothing.
    #[track_caller]
    pub(crate) fn refused(&self, patches: &[(&str, &[u8])], says: &[&str]) {
        self.fetch(patches).failed(1, says);
        assert_eq!(self.trees().iter().filter(|name| name.contains('+')).count(), 0);
        assert!(self.context.names("cache/tmp").is_empty());
    }
}

/// Returns `--- a/NAME`, `+++ b/NAME` and a hunk.
pub(crate) fn diff(name: &str, hunk: &str) -> String {
    format!("--- a/{name}\n+++ b/{name}\n{hunk}")
}

pub(crate) fn one(patch: &str) -> [(&'static str, &[u8]); 1] {
    [("1.patch", patch.as_bytes())]
}

pub(crate) fn read(tree: &Utf8PathBuf, name: &str) -> Option<String> {
    fs::read_to_string(tree.join(name)).ok()
}
