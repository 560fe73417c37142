//! Checks the entries of layers. Layers of kcompile must be reproducible, and no layer of a
//! kernel image may be dangerous.

use super::Problems;
use super::origin::Origin;
use crate::oci::layer_entries::{Attributes, EntryKind, LayerEntry};
use crate::oci::root::is_whiteout;
use camino::{Utf8Component, Utf8Path};
use std::collections::BTreeSet;

/// The PAX record of the extended attribute that gives a file capabilities.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// Checks the entries of one layer in their order.
pub(super) struct LayerChecker<'a> {
    /// The date that every entry must have, in seconds since 1970.
    date: Option<u64>,
    is_ours: bool,
    /// The path of the kernel. Its second name is the only link in an image of kcompile.
    kernel_path: Option<&'a str>,
    dirs: BTreeSet<String>,
    last: Option<String>,
    hard_links: usize,
    problems: &'a mut Problems,
}

impl<'a> LayerChecker<'a> {
    pub(super) fn new(
        date: Option<u64>,
        origin: Origin,
        kernel_path: Option<&'a str>,
        problems: &'a mut Problems,
    ) -> LayerChecker<'a> {
        LayerChecker {
            date,
            is_ours: origin.is_ours(),
            kernel_path,
            dirs: BTreeSet::new(),
            last: None,
            hard_links: 0,
            problems,
        }
    }

    pub(super) fn add(&mut self, entry: &LayerEntry) {
        self.check_security(entry);
        if self.is_ours {
            self.check_metadata(entry);
            self.check_kind(entry);
            if entry.kind == EntryKind::Dir {
                self.dirs.insert(entry.path.clone());
            }
            self.last = Some(entry.path.clone());
        }
    }

    /// Checks the keys of global PAX records.
    pub(super) fn finish(self, global_records: &[String]) {
        if let Some(key) = global_records.first().filter(|_| self.is_ours) {
            self.problems.add(format!("a global PAX record {key} overrides the headers"));
        }
        if global_records.iter().any(|key| key == CAPABILITY) {
            self.problems.add("a global PAX record gives every file a capability".to_owned());
        }
    }

    /// Checks for entries that are dangerous to unpack.
    fn check_security(&mut self, entry: &LayerEntry) {
        let path = &entry.path;
        let mode = entry.attributes.mode.unwrap_or_default();
        if mode & 0o7000 != 0 {
            self.problems.add(format!("{path} has the mode {mode:04o}, with setuid, setgid or sticky"));
        }
        if mode & 0o002 != 0 && !matches!(entry.kind, EntryKind::SymLink(_)) {
            self.problems.add(format!("{path} has the mode {mode:04o}, and everybody may write to it"));
        }
        if entry.attributes.records.iter().any(|key| key == CAPABILITY) {
            self.problems.add(format!("{path} has a file capability"));
        }
        match &entry.kind {
            EntryKind::SymLink(to) if escapes_root(path, to) => {
                self.problems.add(format!("{path} is a symbolic link that leaves the image: {to}"));
            }
            EntryKind::Special => self.problems.add(format!("{path} is a device or a pipe")),
            _ => {}
        }
    }

    /// Checks that there are only files and directories, and one hard link to the kernel.
    fn check_kind(&mut self, entry: &LayerEntry) {
        let path = &entry.path;
        if is_whiteout(path) {
            self.problems.add(format!("{path} is a whiteout, which hides a file of a lower layer"));
        }
        match &entry.kind {
            EntryKind::HardLink(to) => {
                self.hard_links += 1;
                let is_kernel = [path, to].iter().any(|name| Some(name.as_str()) == self.kernel_path);
                if !is_kernel || self.hard_links > 1 {
                    self.problems.add(format!(
                        "{path} is a hard link to {to}, but only the kernel may have a second name"
                    ));
                }
            }
            EntryKind::SymLink(to) => {
                self.problems
                    .add(format!("{path} is a symbolic link to {to}, but an image of kcompile has none"));
            }
            _ => {}
        }
    }

    /// Checks the metadata that could differ between two builds of the same files.
    fn check_metadata(&mut self, entry: &LayerEntry) {
        let LayerEntry { path, kind, attributes, .. } = entry;
        let Attributes { stored_path, mode, uid, gid, is_named, mtime, records } = attributes;
        if self.last.as_ref().is_some_and(|last| last >= path) {
            self.problems.add(format!("{path} is not in sorted order"));
        }
        let above = path.rsplit_once('/').map(|(above, _)| above);
        if above.is_some_and(|above| !self.dirs.contains(above)) {
            self.problems.add(format!("{path} has no directory entry before it"));
        }
        let slash = if *kind == EntryKind::Dir { "/" } else { "" };
        if *stored_path != format!("{path}{slash}") {
            self.problems.add(format!("{path} is stored as {stored_path}"));
        }
        if (*uid, *gid, *is_named) != (Some(0), Some(0), false) {
            self.problems.add(format!("{path} does not belong to user 0 and group 0, without names"));
        }
        if let Some(key) = records.first() {
            self.problems.add(format!("{path} has a PAX record {key}, which overrides its header"));
        }
        let fits = match kind {
            EntryKind::Dir => *mode == Some(0o755),
            EntryKind::File => matches!(mode, Some(0o644 | 0o755)),
            EntryKind::HardLink(_) => *mode == Some(0o644),
            // `check_kind` refuses them.
            EntryKind::SymLink(_) | EntryKind::Special => true,
        };
        if !fits {
            let mode = mode.map_or_else(|| "none".to_owned(), |mode| format!("{mode:04o}"));
            self.problems.add(format!("{path} has the mode {mode}"));
        }
        if self.date.is_some() && *mtime != self.date {
            let date = mtime.map_or_else(|| "none".to_owned(), crate::util::time::rfc3339);
            self.problems.add(format!("{path} has the date {date}, which is not that of the image"));
        }
    }
}

/// Returns whether a link at this path leads out of the image.
fn escapes_root(path: &str, to: &str) -> bool {
    let mut depth = path.matches('/').count();
    for part in Utf8Path::new(to).components() {
        match part {
            Utf8Component::Normal(_) => depth += 1,
            Utf8Component::CurDir => {}
            Utf8Component::ParentDir if depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::verify::origin::Claim;

    fn entry(path: &str, kind: EntryKind) -> LayerEntry {
        let mode = match kind {
            EntryKind::Dir => 0o755,
            EntryKind::SymLink(_) => 0o777,
            _ => 0o644,
        };
        let slash = if kind == EntryKind::Dir { "/" } else { "" };
        let attributes = Attributes {
            stored_path: format!("{path}{slash}"),
            mode: Some(mode),
            uid: Some(0),
            gid: Some(0),
            is_named: false,
            mtime: Some(17),
            records: Vec::new(),
        };
        LayerEntry { path: path.into(), kind, size: 0, attributes }
    }

    fn problems(origin: Origin, entries: &[LayerEntry]) -> Vec<String> {
        let mut problems = Problems::default();
        let mut checker = LayerChecker::new(Some(17), origin, Some("bin/a"), &mut problems);
        entries.iter().for_each(|entry| checker.add(entry));
        checker.finish(&[]);
        problems.into_texts()
    }

    const OURS: Origin = Origin::Kcompile(Claim::Kernel);

    #[test]
    fn a_layer_of_ours_has_no_problems_and_every_other_form_is_one() {
        use EntryKind::{Dir, File, HardLink};
        let good = [entry("bin", Dir), entry("bin/a", File), entry("bin/b", HardLink("bin/a".into()))];
        assert!(problems(OURS, &good).is_empty());
        let changed = |change: fn(&mut Attributes)| {
            let mut entries = good.to_vec();
            change(&mut entries[1].attributes);
            let (ours, others) = (problems(OURS, &entries), problems(Origin::Other, &entries));
            assert_eq!(ours.len(), 1, "{ours:?}");
            assert!(others.is_empty(), "{others:?}");
        };
        changed(|attributes| attributes.uid = Some(1000));
        changed(|attributes| attributes.gid = None);
        changed(|attributes| attributes.is_named = true);
        changed(|attributes| attributes.mtime = Some(18));
        changed(|attributes| attributes.mode = Some(0o600));
        changed(|attributes| attributes.stored_path = "./bin/a".into());
        changed(|attributes| attributes.records = vec!["uid".into()]);
        let order = [entry("bin", Dir), entry("bin/b", File), entry("bin/a", File)];
        assert_eq!(problems(OURS, &order), ["bin/a is not in sorted order"]);
        let twice = [entry("bin", Dir), entry("bin", Dir)];
        assert_eq!(problems(OURS, &twice), ["bin is not in sorted order"]);
        assert_eq!(problems(OURS, &[entry("bin/a", File)]), ["bin/a has no directory entry before it"]);
    }

    #[test]
    fn a_layer_of_ours_has_no_links_but_the_kernels_second_name() {
        use EntryKind::{File, HardLink, SymLink};
        let link = |to: &str| HardLink(to.to_owned());
        for (entries, says) in [
            (vec![entry("a", File), entry("b", link("a"))], "b is a hard link to a, but only the kernel"),
            (
                vec![entry("b", SymLink("c".into()))],
                "b is a symbolic link to c, but an image of kcompile has none",
            ),
            (vec![entry(".wh.a", File)], ".wh.a is a whiteout"),
        ] {
            let reported = problems(OURS, &entries);
            assert!(reported.len() == 1 && reported[0].starts_with(says), "{reported:?}");
            assert!(problems(Origin::Other, &entries).is_empty());
        }
        let first = [entry("a", File), entry("bin", EntryKind::Dir), entry("bin/a", link("a"))];
        assert!(problems(OURS, &first).is_empty(), "the name that sorts first has the bytes");
        let mut third = first.to_vec();
        third.push(entry("c", link("bin/a")));
        assert_eq!(
            problems(OURS, &third),
            ["c is a hard link to bin/a, but only the kernel may have a second name"]
        );
    }

    #[test]
    fn dangers_are_problems_whoever_made_it() {
        use EntryKind::{File, Special, SymLink};
        let mut setuid = entry("a", File);
        setuid.attributes.mode = Some(0o4755);
        let mut open = entry("a", File);
        open.attributes.mode = Some(0o666);
        let mut capable = entry("a", File);
        capable.attributes.records = vec![CAPABILITY.into()];
        for bad in [
            setuid,
            open,
            capable,
            entry("a", Special),
            entry("a", SymLink("/etc/passwd".into())),
            entry("a/b", SymLink("../../etc".into())),
        ] {
            assert_eq!(problems(Origin::Other, std::slice::from_ref(&bad)).len(), 1, "{bad:?}");
        }
        assert!(!escapes_root("lib/a/b", "../../x") && escapes_root("a", ".."));
        let mut all = Problems::default();
        LayerChecker::new(None, Origin::Other, None, &mut all).finish(&[CAPABILITY.to_owned()]);
        assert_eq!(all.into_texts(), ["a global PAX record gives every file a capability"]);
    }
}
