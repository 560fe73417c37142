//! Merges the layers of an image into a root file system, by the OCI image specification (layer.md,
//! "Changeset Application"). An entry of an upper layer replaces a lower one, whiteouts remove lower ones,
//! and the directory of an entry is found through the existing symbolic links. It works on names only,
//! without the bytes of files.

use super::layer_entries::{EntryKind, LayerEntry};
use std::collections::{BTreeMap, BTreeSet};

/// The prefix of a whiteout's name.
const WHITEOUT: &str = ".wh.";
/// The prefix of names of aufs. Only [`OPAQUE`] has a meaning in layers.
const WHITEOUT_META: &str = ".wh..wh.";
/// Hides everything that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// The limit of Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The names in a path and in the links that it leads through.
const MAX_STEPS: usize = 256;
/// The paths of an image, with directories that have no entry.
const MAX_NODES: usize = 400_000;
/// The bytes of all paths.
const MAX_NAMES: usize = 64 << 20;

/// The entry that has the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// The layer. The lowest is 0.
    pub layer: usize,
    /// The place of the entry in the layer.
    pub entry: usize,
}

/// A node of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Dir,
    /// A file. All its hard links have the same id.
    File(FileId),
    /// A symbolic link with this target.
    SymLink(String),
    /// A device, a pipe or a socket.
    Special,
}

/// The result of resolving a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The path without links, and its node. The empty path is the root.
    Found(String, &'a Node),
    /// There is nothing at this path.
    Missing(String),
    /// This path is not a directory, and more names follow it.
    NotADirectory(String),
    /// The path leads through too many links or names.
    TooLong,
}

/// The merged root file system.
#[derive(Clone, Debug, Default)]
pub struct RootFs {
    /// By path, without the root itself.
    nodes: BTreeMap<String, PlacedNode>,
    /// Bytes of all paths.
    names: usize,
    /// Hard links to missing files, and their targets.
    dangling: Vec<(String, String)>,
    /// The paths below which this layer has hidden lower entries.
    hidden: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct PlacedNode {
    node: Node,
    layer: usize,
}

impl RootFs {
    /// Merges layers, the lowest first.
    ///
    /// # Errors
    ///
    /// An entry cannot be unpacked, or readers unpack it differently, or there are too many names.
    pub fn merge<'a>(layers: impl IntoIterator<Item = &'a [LayerEntry]>) -> Result<RootFs, String> {
        let mut root = RootFs::default();
        for (layer, entries) in layers.into_iter().enumerate() {
            root.hidden.clear();
            for (entry, found) in entries.iter().enumerate() {
                root.add(FileId { layer, entry }, found)?;
            }
        }
        Ok(root)
    }

    /// Returns all paths and their nodes, without the root.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, placed)| (path.as_str(), &placed.node))
    }

    /// Returns the node of a path. No link is followed.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(|placed| &placed.node)
    }

    /// Returns the node of a path. Links in its directories are followed, but not the last one.
    pub fn lstat(&self, path: &str) -> Option<&Node> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.resolve(above) {
            Target::Found(dir, Node::Dir) => self.at(&join(&dir, name)),
            _ => None,
        }
    }

    /// Returns the files with all their names, sorted.
    pub fn files(&self) -> BTreeMap<FileId, Vec<&str>> {
        let mut files: BTreeMap<FileId, Vec<&str>> = BTreeMap::new();
        for (path, node) in self.nodes() {
            if let Node::File(id) = node {
                files.entry(*id).or_default().push(path);
            }
        }
        files
    }

    /// Returns the hard links to missing files, and their targets. They are not among the nodes.
    pub fn dangling(&self) -> &[(String, String)] {
        &self.dangling
    }

    /// Resolves a path and follows every link. Absolute links, and links with more `..` than there are
    /// directories, stay inside the root, as after chroot.
    pub fn resolve(&self, path: &str) -> Target<'_> {
        let mut walk = Walk::new(path);
        loop {
            match walk.step(self) {
                Step::Next => {}
                Step::Missing(path) => return Target::Missing(path),
                Step::End => break,
                Step::NotADirectory(path) => return Target::NotADirectory(path),
                Step::TooLong => return Target::TooLong,
            }
        }
        match self.at(&walk.at) {
            Some(node) => Target::Found(walk.at, node),
            None => Target::Found(walk.at, &Node::Dir),
        }
    }

    fn add(&mut self, id: FileId, found: &LayerEntry) -> Result<(), String> {
        let (above, name) = found.path.rsplit_once('/').unwrap_or(("", &found.path));
        if name.is_empty() {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(above, name, hidden, id.layer, found);
        }
        let place = join(&self.make_dirs(above, id.layer, found)?, name);
        let node = match &found.kind {
            EntryKind::Dir => Node::Dir,
            EntryKind::File => Node::File(id),
            EntryKind::SymLink(to) => Node::SymLink(to.clone()),
            EntryKind::Special => Node::Special,
            EntryKind::HardLink(to) => match self.lstat(to) {
                Some(node) if *node != Node::Dir => node.clone(),
                _ => {
                    self.dangling.push((place, to.clone()));
                    return Ok(());
                }
            },
        };
        self.put(place, node, id.layer, found)
    }

    /// Removes what a whiteout hides in the lower layers.
    fn white_out(
        &mut self,
        above: &str,
        name: &str,
        hidden: &str,
        layer: usize,
        found: &LayerEntry,
    ) -> Result<(), String> {
        if matches!(hidden, "" | "." | "..") {
            return Err(format!("{} is a whiteout without a name", found.path.escape_debug()));
        }
        let Target::Found(dir, Node::Dir) = self.resolve(above) else { return Ok(()) };
        if name == OPAQUE {
            self.hide_below(&dir, layer);
        } else if !name.starts_with(WHITEOUT_META) {
            let place = join(&dir, hidden);
            if self.nodes.get(&place).is_some_and(|placed| placed.layer < layer && placed.node != Node::Dir) {
                self.remove(&place);
            } else {
                self.hide_below(&place, layer);
                let is_empty = below(&self.nodes, &place).next().is_none();
                if is_empty && self.nodes.get(&place).is_some_and(|placed| placed.layer < layer) {
                    self.remove(&place);
                }
            }
        }
        Ok(())
    }

    /// Removes what lower layers have below this path. Directories in which this layer has entries stay.
    fn hide_below(&mut self, dir: &str, layer: usize) {
        // Only once in a layer. Otherwise many links to one directory would cost as many passes.
        if !self.hidden.insert(dir.to_owned()) {
            return;
        }
        let lower = below(&self.nodes, dir).filter(|(_, placed)| placed.layer < layer);
        let lower: Vec<String> = lower.map(|(path, _)| path.clone()).collect();
        // The deepest paths come first, so that a directory is empty when its turn comes.
        for path in lower.iter().rev() {
            if below(&self.nodes, path).next().is_none() {
                self.remove(path);
            }
        }
    }

    /// Resolves the directory `path`, and creates what is missing.
    fn make_dirs(&mut self, path: &str, layer: usize, found: &LayerEntry) -> Result<String, String> {
        let shown = found.path.escape_debug();
        let not_a_directory =
            |at: &str| format!("{shown} is in {}, which is not a directory", at.escape_debug());
        let mut walk = Walk::new(path);
        loop {
            match walk.step(self) {
                Step::Next => {}
                Step::Missing(missing) => {
                    self.insert(missing.clone(), Node::Dir, layer)?;
                    walk.at = missing;
                }
                Step::End => match self.at(&walk.at) {
                    None | Some(Node::Dir) => return Ok(walk.at),
                    Some(_) => return Err(not_a_directory(&walk.at)),
                },
                Step::NotADirectory(at) => return Err(not_a_directory(&at)),
                Step::TooLong => return Err(format!("{shown} leads through too many names or links")),
            }
        }
    }

    fn put(&mut self, place: String, node: Node, layer: usize, found: &LayerEntry) -> Result<(), String> {
        if let Some(old) = self.nodes.get_mut(&place) {
            if old.node == Node::Dir && node == Node::Dir {
                old.layer = layer;
                return Ok(());
            }
            let of_this_layer = |placed: &PlacedNode| placed.layer == layer;
            if of_this_layer(old) || below(&self.nodes, &place).any(|(_, placed)| of_this_layer(placed)) {
                let (shown, place) = (found.path.escape_debug(), place.escape_debug());
                return Err(format!(
                    "{shown} replaces {place} of the same layer, which readers treat differently"
                ));
            }
            let lower: Vec<String> = below(&self.nodes, &place).map(|(path, _)| path.clone()).collect();
            lower.iter().for_each(|path| self.remove(path));
            self.remove(&place);
        }
        self.insert(place, node, layer)
    }

    fn insert(&mut self, path: String, node: Node, layer: usize) -> Result<(), String> {
        self.names += path.len();
        if self.nodes.len() == MAX_NODES || self.names > MAX_NAMES {
            return Err(format!(
                "the image has more than {MAX_NODES} paths, or more than {MAX_NAMES} bytes of paths"
            ));
        }
        self.nodes.insert(path, PlacedNode { node, layer });
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        if self.nodes.remove(path).is_some() {
            self.names -= path.len();
        }
    }
}

/// Returns whether this entry is a whiteout.
pub fn is_whiteout(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(WHITEOUT))
}

/// Returns the nodes below a directory, without the directory.
fn below<'a>(
    nodes: &'a BTreeMap<String, PlacedNode>,
    dir: &str,
) -> impl Iterator<Item = (&'a String, &'a PlacedNode)> + use<'a> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    let from = nodes.range(prefix.clone()..);
    from.take_while(move |(path, _)| path.starts_with(&prefix))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A walk along a path and the links in it.
struct Walk {
    /// The path so far.
    at: String,
    /// The remaining names, the next one last.
    rest: Vec<String>,
    links: usize,
    steps: usize,
}

enum Step {
    Next,
    /// The walk has reached the end of the path.
    End,
    /// There is nothing at this path.
    Missing(String),
    NotADirectory(String),
    TooLong,
}

impl Walk {
    fn new(path: &str) -> Walk {
        let mut walk = Walk { at: String::new(), rest: Vec::new(), links: 0, steps: 0 };
        walk.push(path);
        walk
    }

    fn push(&mut self, path: &str) {
        // The reader of the layer has limited the length of the path.
        let names = path.split('/').filter(|name| !matches!(*name, "" | ".")).rev();
        self.rest.extend(names.map(str::to_owned));
    }

    fn step(&mut self, root: &RootFs) -> Step {
        let Some(name) = self.rest.pop() else { return Step::End };
        self.steps += 1;
        if self.steps > MAX_STEPS || self.rest.len() > MAX_STEPS {
            return Step::TooLong;
        }
        if name == ".." {
            self.at.truncate(self.at.rfind('/').unwrap_or(0));
            return Step::Next;
        }
        let next = join(&self.at, &name);
        match root.at(&next) {
            None => return Step::Missing(next),
            Some(Node::Dir) => self.at = next,
            Some(Node::SymLink(to)) => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Step::TooLong;
                }
                if to.starts_with('/') {
                    self.at.clear();
                }
                self.push(to);
            }
            Some(_) if self.rest.is_empty() => self.at = next,
            Some(_) => return Step::NotADirectory(next),
        }
        Step::Next
    }
}

#[cfg(test)]
mod tests;
