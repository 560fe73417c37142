//! What kcompile's own layers are like, so that the same files give the same bytes; and what no layer of a
//! kernel image may have, whoever made it.

use super::Faults;
use crate::oci::layer_entries::{Attributes, Found, FoundKind};
use camino::{Utf8Component, Utf8Path};
use std::collections::BTreeSet;

/// The PAX record of the extended attribute that works as setuid does.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// The rules, while the entries pass by in their order.
pub(super) struct Form {
    /// Seconds since 1970 that every entry must be dated; `None`: any will do.
    date: Option<u64>,
    /// Is it an image of kcompile's, whose entries are all alike?
    is_ours: bool,
    dirs: BTreeSet<String>,
    files: BTreeSet<String>,
    last: Option<String>,
    count: usize,
    faults: Faults,
}

impl Form {
    pub(super) fn new(date: Option<u64>, is_ours: bool) -> Form {
        Form {
            date,
            is_ours,
            dirs: BTreeSet::new(),
            files: BTreeSet::new(),
            last: None,
            count: 0,
            faults: Faults::default(),
        }
    }

    pub(super) fn see(&mut self, found: &Found) {
        self.count += 1;
        self.see_dangers(found);
        if self.is_ours {
            self.see_form(found);
        }
        match found.kind {
            FoundKind::Dir => drop(self.dirs.insert(found.path.clone())),
            FoundKind::File => drop(self.files.insert(found.path.clone())),
            _ => {}
        }
        self.last = Some(found.path.clone());
    }

    /// How many entries there were, and what was wrong with them.
    pub(super) fn finish(self) -> (usize, Faults) {
        (self.count, self.faults)
    }

    /// What may hurt whoever unpacks it.
    fn see_dangers(&mut self, found: &Found) {
        let path = &found.path;
        let mode = found.attributes.mode.unwrap_or_default();
        if mode & 0o7000 != 0 {
            self.faults.add(format!("{path} has the mode {mode:04o}: setuid, setgid or sticky"));
        }
        if mode & 0o002 != 0 && !matches!(found.kind, FoundKind::SymLink(_)) {
            self.faults.add(format!("{path} has the mode {mode:04o}: everybody may write it"));
        }
        if found.attributes.records.iter().any(|key| key == CAPABILITY) {
            self.faults.add(format!("{path} gives whoever runs it a capability"));
        }
        match &found.kind {
            FoundKind::HardLink(to) if !self.files.contains(to) => {
                self.faults.add(format!("{path} is a hard link to {to}, which is no file before it"));
            }
            FoundKind::SymLink(to) if leaves(path, to) => {
                self.faults.add(format!("{path} is a symbolic link that leaves the image: {to}"));
            }
            _ => {}
        }
    }

    /// What two builds of the same files could have otherwise.
    fn see_form(&mut self, found: &Found) {
        let Found { path, kind, attributes, .. } = found;
        let Attributes { stored_path, mode, uid, gid, is_named, mtime, records } = attributes;
        if self.last.as_ref().is_some_and(|last| last > path) {
            self.faults.add(format!("{path} stands behind an entry that sorts after it"));
        }
        let above = path.rsplit_once('/').map(|(above, _)| above);
        if above.is_some_and(|above| !self.dirs.contains(above)) {
            self.faults.add(format!("{path} has no directory entry before it"));
        }
        let slash = if *kind == FoundKind::Dir { "/" } else { "" };
        if *stored_path != format!("{path}{slash}") {
            self.faults.add(format!("{path} stands there as {stored_path}"));
        }
        if (*uid, *gid, *is_named) != (Some(0), Some(0), false) {
            self.faults.add(format!("{path} does not belong to user 0 and group 0, without names"));
        }
        if let Some(key) = records.first() {
            self.faults.add(format!("{path} has a PAX record {key}, which replaces what its header says"));
        }
        let fits = match kind {
            FoundKind::Dir => *mode == Some(0o755),
            FoundKind::File => matches!(mode, Some(0o644 | 0o755)),
            FoundKind::HardLink(_) => *mode == Some(0o644),
            FoundKind::SymLink(_) => *mode == Some(0o777),
        };
        if !fits {
            let mode = mode.map_or_else(|| "none".to_owned(), |mode| format!("{mode:04o}"));
            self.faults.add(format!("{path} has the mode {mode}"));
        }
        if self.date.is_some() && *mtime != self.date {
            let date = mtime.map_or_else(|| "none".to_owned(), crate::util::time::rfc3339);
            self.faults.add(format!("{path} has the date {date}, other than the image"));
        }
    }
}

/// Does a link at this path lead out of the image?
fn leaves(path: &str, to: &str) -> bool {
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

    fn entry(path: &str, kind: FoundKind) -> Found {
        let mode = match kind {
            FoundKind::Dir => 0o755,
            FoundKind::SymLink(_) => 0o777,
            _ => 0o644,
        };
        let slash = if kind == FoundKind::Dir { "/" } else { "" };
        let attributes = Attributes {
            stored_path: format!("{path}{slash}"),
            mode: Some(mode),
            uid: Some(0),
            gid: Some(0),
            is_named: false,
            mtime: Some(17),
            records: Vec::new(),
        };
        Found { path: path.into(), kind, size: 0, attributes }
    }

    fn faults(is_ours: bool, entries: &[Found]) -> Vec<String> {
        let mut form = Form::new(Some(17), is_ours);
        entries.iter().for_each(|entry| form.see(entry));
        form.finish().1.into_texts()
    }

    #[test]
    fn a_layer_of_ours_has_no_faults_and_every_other_form_is_one() {
        use FoundKind::{Dir, File, HardLink, SymLink};
        let good = [
            entry("bin", Dir),
            entry("bin/a", File),
            entry("bin/b", HardLink("bin/a".into())),
            entry("bin/c", SymLink("../bin/a".into())),
        ];
        assert!(faults(true, &good).is_empty());
        let changed = |change: fn(&mut Attributes)| {
            let mut entries = good.to_vec();
            change(&mut entries[1].attributes);
            let (ours, others) = (faults(true, &entries), faults(false, &entries));
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
        assert_eq!(faults(true, &order), ["bin/a stands behind an entry that sorts after it"]);
        assert_eq!(faults(true, &[entry("bin/a", File)]), ["bin/a has no directory entry before it"]);
    }

    #[test]
    fn dangers_are_faults_whoever_made_it() {
        use FoundKind::{File, HardLink, SymLink};
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
            entry("a", HardLink("b".into())),
            entry("a", SymLink("/etc/passwd".into())),
            entry("a/b", SymLink("../../etc".into())),
        ] {
            assert_eq!(faults(false, std::slice::from_ref(&bad)).len(), 1, "{bad:?}");
        }
        assert!(!leaves("lib/a/b", "../../x") && leaves("a", ".."));
    }
}
