//! Adds up the time of steps and the size of objects for each directory.

use super::{ObjectSizes, Step};
use serde::Serialize;
use std::collections::BTreeMap;

/// A directory of the kernel with everything below it.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Directory {
    /// The last part of its path. Empty at the top.
    pub name: String,
    /// The time of its steps in this run.
    pub seconds: f64,
    /// The size of its objects in vmlinux.
    pub bytes: u64,
    /// The cost of the files in this directory, without those in directories below it.
    pub own: Cost,
    /// The directories in it, sorted by name.
    pub directories: Vec<Directory>,
}

/// The time of steps and the size of objects in vmlinux.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    pub seconds: f64,
    pub bytes: u64,
}

impl Directory {
    /// Returns the tree of all directories that hold targets of steps or objects.
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

    /// Builds a directory from sorted paths that have the same first `depth` parts.
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

/// Returns the directories above a file. Deeper ones than any kernel has are merged into the last one.
fn parts(path: &str) -> Vec<&str> {
    const MAX_DEPTH: usize = 24;
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    dir.split('/').filter(|part| !part.is_empty()).take(MAX_DEPTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_add_up_what_is_in_them() {
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
    fn an_empty_build_has_no_directories() {
        assert_eq!(Directory::of(&[], &ObjectSizes::default()), Directory::default());
    }
}
