//! The root file system that the layers of an image make together, by the OCI image specification (layer.md,
//! "Changeset Application"): an entry of an upper layer replaces a lower one, whiteouts remove lower ones, and the
//! directory of an entry is found through the symbolic links that are there already. Pure: names, no bytes of files.

use super::layer_entries::{EntryKind, LayerEntry};
use std::collections::{BTreeMap, BTreeSet};

/// What a whiteout's name begins with.
const WHITEOUT: &str = ".wh.";
/// What names of aufs begin with. [`OPAQUE`] is one of them that has a meaning in layers; the others have none.
const WHITEOUT_META: &str = ".wh..wh.";
/// Hides all that lower layers have in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Linux gives up after so many links, too (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Names of a path and of the links on its way.
const MAX_STEPS: usize = 256;
/// Of an image, with the directories that have no entry of their own.
const MAX_NODES: usize = 400_000;
/// The paths of all of them.
const MAX_NAMES: usize = 64 << 20;

/// The entry that has the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// The layer, the lowest is 0.
    pub layer: usize,
    /// Which entry of that layer.
    pub entry: usize,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Dir,
    /// A file; all its hard links have the same id.
    File(FileId),
    /// A symbolic link with this text.
    SymLink(String),
    /// A device, a pipe or a socket.
    Special,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// To this path, which is no link, and what is there. The empty path is the root.
    Found(String, &'a Node),
    /// Nowhere: nothing is at this path.
    Missing(String),
    /// Nowhere: this path is no directory, and there are names behind it.
    NotADirectory(String),
    /// Nowhere: there are too many links or names on the way.
    TooLong,
}

/// The merged root file system.
#[derive(Clone, Debug, Default)]
pub struct RootFs {
    /// By path, without the root itself.
    nodes: BTreeMap<String, PlacedNode>,
    /// Bytes of all paths.
    names: usize,
    /// Hard links to nothing, and what they link to.
    dangling: Vec<(String, String)>,
    /// Where this layer has hidden lower entries already.
    hidden: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct PlacedNode {
    node: Node,
    /// The layer that it is from.
    layer: usize,
}

impl RootFs {
    /// Merges layers, the lowest first.
    ///
    /// Errors: an entry that cannot be unpacked, or that readers unpack differently; too many names.
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

    /// All paths but the root's own, and what is there.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, placed)| (path.as_str(), &placed.node))
    }

    /// What is at this very path; no link is followed.
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(|placed| &placed.node)
    }

    /// What is at a path, where links in the directories above it are followed, but not itself.
    pub fn lstat(&self, path: &str) -> Option<&Node> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.resolve(above) {
            Target::Found(dir, Node::Dir) => self.at(&join(&dir, name)),
            _ => None,
        }
    }

    /// The files that are left, with all their names in order.
    pub fn files(&self) -> BTreeMap<FileId, Vec<&str>> {
        let mut files: BTreeMap<FileId, Vec<&str>> = BTreeMap::new();
        for (path, node) in self.nodes() {
            if let Node::File(id) = node {
                files.entry(*id).or_default().push(path);
            }
        }
        files
    }

    /// Hard links to what is no file, and what they link to. They are not among the nodes.
    pub fn dangling(&self) -> &[(String, String)] {
        &self.dangling
    }

    /// Where this path leads when every link is followed. Links with an absolute text, or with more `..` than there
    /// are directories, stay inside the root, as for a process whose root it is.
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

    /// Hides what `name` stands for in the lower layers.
    fn white_out(
        &mut self,
        above: &str,
        name: &str,
        hidden: &str,
        layer: usize,
        found: &LayerEntry,
    ) -> Result<(), String> {
        if matches!(hidden, "" | "." | "..") {
            return Err(format!("{} is a whiteout of nothing", found.path.escape_debug()));
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

    /// Removes what lower layers have below this path. Directories that this layer has entries in stay.
    fn hide_below(&mut self, dir: &str, layer: usize) {
        // Once a layer, or many links to one directory would cost as many passes over it.
        if !self.hidden.insert(dir.to_owned()) {
            return;
        }
        let lower = below(&self.nodes, dir).filter(|(_, placed)| placed.layer < layer);
        let lower: Vec<String> = lower.map(|(path, _)| path.clone()).collect();
        // From below, so that a directory is looked at when what was in it is gone.
        for path in lower.iter().rev() {
            if below(&self.nodes, path).next().is_none() {
                self.remove(path);
            }
        }
    }

    /// The path of the directory `path`, where all links are followed and what is missing is made.
    fn make_dirs(&mut self, path: &str, layer: usize, found: &LayerEntry) -> Result<String, String> {
        let shown = found.path.escape_debug();
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
                    Some(_) => {
                        return Err(format!(
                            "{} is no directory, and has {shown} in it",
                            walk.at.escape_debug()
                        ));
                    }
                },
                Step::NotADirectory(at) => {
                    return Err(format!("{} is no directory, and has {shown} in it", at.escape_debug()));
                }
                Step::TooLong => {
                    return Err(format!("{shown} leads over too many names or links"));
                }
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
                return Err(format!("{shown} replaces {place} of the same layer, which some readers keep"));
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
            return Err(format!("more than {MAX_NODES} paths, or {MAX_NAMES} bytes of them"));
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

/// Does this entry hide another one?
pub fn is_whiteout(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with(WHITEOUT))
}

/// What is below a directory, without itself.
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

/// A path on the way through its names and the links among them.
struct Walk {
    /// The directory that was reached, or at the end what is there.
    at: String,
    /// The names that are left, the next one last.
    rest: Vec<String>,
    links: usize,
    steps: usize,
}

enum Step {
    Next,
    /// All names are behind us.
    End,
    /// Nothing is at this path.
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
        // The length of a path is bounded where it is read.
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
