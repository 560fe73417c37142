//! Adds up what files cost in a tree of directories, down to the files.

use super::{Step, Timings};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Deeper directories than any kernel has are merged into the last one.
const MAX_DEPTH: usize = 24;

/// What a file cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct FileCost {
    pub(super) seconds: f64,
    /// The bytes in vmlinux.
    pub(super) vmlinux: u64,
    /// The bytes of a module.
    pub(super) module: u64,
}

impl AddAssign for FileCost {
    fn add_assign(&mut self, other: FileCost) {
        self.seconds += other.seconds;
        self.vmlinux += other.vmlinux;
        self.module += other.module;
    }
}

/// A file, or a directory with everything in it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Node<'a> {
    /// The last part of its path. Empty at the top.
    pub(super) name: &'a str,
    pub(super) cost: FileCost,
    /// What is in a directory, sorted by name.
    pub(super) children: Vec<Node<'a>>,
}

impl<'a> Node<'a> {
    /// Returns the tree of all targets of steps, objects of vmlinux, and modules.
    pub(super) fn of(timings: &'a Timings) -> Node<'a> {
        let mut files: BTreeMap<Vec<&str>, FileCost> = BTreeMap::new();
        let mut add = |path: &'a str, cost| *files.entry(parts(path)).or_default() += cost;
        for Step { target, seconds, .. } in timings.steps.iter().filter(|step| step.measured) {
            add(target, FileCost { seconds: *seconds, ..FileCost::default() });
        }
        for (object, &vmlinux) in &timings.vmlinux.objects {
            add(object, FileCost { vmlinux, ..FileCost::default() });
        }
        for (path, &module) in &timings.modules {
            add(path, FileCost { module, ..FileCost::default() });
        }
        let sorted: Vec<(Vec<&str>, FileCost)> = files.into_iter().collect();
        Node::from_sorted("", &sorted, 0)
    }

    /// Builds a node from sorted paths that have the same first `depth` parts.
    fn from_sorted(name: &'a str, paths: &[(Vec<&'a str>, FileCost)], depth: usize) -> Node<'a> {
        let own = paths.iter().take_while(|(path, _)| path.len() == depth).count();
        let chunks = paths[own..].chunk_by(|(a, _), (b, _)| a[depth] == b[depth]);
        let children: Vec<Node<'_>> =
            chunks.map(|chunk| Node::from_sorted(chunk[0].0[depth], chunk, depth + 1)).collect();
        let mut cost = FileCost::default();
        paths[..own].iter().for_each(|(_, own)| cost += *own);
        children.iter().for_each(|child| cost += child.cost);
        Node { name, cost, children }
    }
}

fn parts(path: &str) -> Vec<&str> {
    path.splitn(MAX_DEPTH, '/').filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::timings;
    use super::*;

    #[test]
    fn directories_add_up_their_files() {
        let timings = timings();
        let top = Node::of(&timings);
        assert_eq!(top.cost, FileCost { seconds: 7.0, vmlinux: 22, module: 30 });
        let names: Vec<&str> = top.children.iter().map(|child| child.name).collect();
        assert_eq!(names, ["fs", "kernel", "vmlinux"]);
        let fs = &top.children[0];
        assert_eq!(fs.cost, FileCost { seconds: 3.0, vmlinux: 15, module: 30 });
        let ext4 = &fs.children[0];
        let names: Vec<&str> = ext4.children.iter().map(|child| child.name).collect();
        assert_eq!((ext4.name, names), ("ext4", vec!["dir.o", "ext4.ko", "inode.o"]));
        assert_eq!(ext4.children[2].cost, FileCost { seconds: 2.0, vmlinux: 10, module: 0 });
    }

    #[test]
    fn a_file_that_is_also_a_directory_is_counted_once() {
        let mut timings = timings();
        timings.modules = [("a".to_owned(), 1), ("a/b".to_owned(), 2)].into();
        let top = Node::of(&timings);
        let a = top.children.iter().find(|child| child.name == "a").unwrap();
        assert_eq!((a.cost.module, a.children.len()), (3, 1));
    }
}
