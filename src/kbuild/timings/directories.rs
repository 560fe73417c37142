//! What each directory costs: the steps and the objects in it and below it, summed up. Pure.

use super::{ObjectSizes, Step};
use serde::Serialize;
use std::collections::BTreeMap;

/// A directory of the kernel, with all below it.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Directory {
    /// Its own name; empty at the top.
    pub name: String,
    /// Seconds of its steps in this run.
    pub seconds: f64,
    /// Bytes of its objects in vmlinux.
    pub bytes: u64,
    /// Those of the files that lie in it and in no directory below it.
    #[serde(rename = "own")]
    pub own: Cost,
    /// Directories in it, in the order of their names.
    pub directories: Vec<Directory>,
}

/// Seconds and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Of steps.
    pub seconds: f64,
    /// In vmlinux.
    pub bytes: u64,
}

impl Directory {
    /// The directories that the targets of steps and the objects lie in.
    pub(super) fn of(steps: &[Step], objects: &ObjectSizes) -> Directory {
        let mut own: BTreeMap<Vec<&str>, Cost> = BTreeMap::new();
        for step in steps.iter().filter(|step| step.measured) {
            own.entry(parts(&step.target)).or_default().seconds += step.seconds;
        }
        for (object, bytes) in &objects.objects {
            own.entry(parts(object)).or_default().bytes += bytes;
        }
        let sorted: Vec<(Vec<&str>, Cost)> = own.into_iter().collect();
        Directory::from_sorted("", &sorted, 0)
    }

    /// What all in it costs.
    pub(super) fn whole(&self) -> Cost {
        Cost { seconds: self.seconds, bytes: self.bytes }
    }

    /// Of sorted paths that agree in their first `depth` parts.
    fn from_sorted(name: &str, paths: &[(Vec<&str>, Cost)], depth: usize) -> Directory {
        let here = paths.iter().take_while(|(path, _)| path.len() == depth).count();
        let own = paths[..here].first().map(|(_, cost)| *cost).unwrap_or_default();
        let directories: Vec<Directory> = paths[here..]
            .chunk_by(|(a, _), (b, _)| a[depth] == b[depth])
            .map(|chunk| Directory::from_sorted(chunk[0].0[depth], chunk, depth + 1))
            .collect();
        Directory {
            name: name.to_owned(),
            seconds: own.seconds + directories.iter().map(|dir| dir.seconds).sum::<f64>(),
            bytes: own.bytes + directories.iter().map(|dir| dir.bytes).sum::<u64>(),
            own,
            directories,
        }
    }
}

/// The directories that a file lies in. What is deeper than any kernel's counts for the one above it.
fn parts(path: &str) -> Vec<&str> {
    const MAX_DEPTH: usize = 24;
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    dir.split('/').filter(|part| !part.is_empty()).take(MAX_DEPTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_costs_what_is_in_it_and_below() {
        let step = |target: &str, seconds| Step {
            tool: "CC".into(),
            target: target.into(),
            module: false,
            begin: 0.0,
            seconds,
            measured: true,
        };
        let steps = [step("fs/ext4/inode.o", 2.0), step("fs/open.o", 1.0), step("vmlinux", 4.0)];
        let objects = [("fs/ext4/inode.o", 10), ("fs/ext4/dir.o", 5), ("kernel/fork.o", 7)];
        let objects = objects.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        let top = Directory::of(&steps, &ObjectSizes { bytes: 30, objects });
        assert_eq!((top.seconds, top.bytes, top.own), (7.0, 22, Cost { seconds: 4.0, bytes: 0 }));
        let names: Vec<&str> = top.directories.iter().map(|dir| &*dir.name).collect();
        assert_eq!(names, ["fs", "kernel"]);
        let fs = &top.directories[0];
        assert_eq!((fs.seconds, fs.bytes, fs.own.seconds), (3.0, 15, 1.0));
        assert_eq!((&*fs.directories[0].name, fs.directories[0].bytes), ("ext4", 15));
    }

    #[test]
    fn nothing_costs_nothing() {
        assert_eq!(Directory::of(&[], &ObjectSizes::default()), Directory::default());
    }
}
