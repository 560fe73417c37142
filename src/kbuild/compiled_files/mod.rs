//! Lists the files that the compiler read for vmlinux and for each module. Kbuild's own `.cmd` files name
//! them. Files of earlier configs in the build directory do not count, because the list begins with what
//! vmlinux and the modules are linked from.

mod command_file;
mod options;
mod roots;

use super::archives::{MAX_OBJECTS, members};
use super::{BuildDir, Compiled};
use crate::cve::{CompiledFile, CompiledFiles, KernelSource};
use crate::kconfig::Config;
use crate::plan::Plan;
use crate::report::Reporter;
use crate::source::BUILD_DIR_PREFIX;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::normalize_path;
use crate::util::read::{Links, MAX_JSON, read_file, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use options::Options;
use roots::command_file;
use sha1::{Digest as _, Sha1};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use walkdir::WalkDir;

/// The limit of a `.cmd` file. Those of archives have 100 kB.
const MAX_COMMAND_FILE: u64 = 4 << 20;
/// The limit of a source. The largest header of Linux has 22 MB.
const MAX_SOURCE: u64 = 64 << 20;
/// The limit of names in the tree. Kernel trees have about 84,000 entries.
const MAX_TREE: usize = 500_000;

impl BuildDir<'_> {
    /// Lists the files that were compiled for this kernel and its modules. If Kbuild did not record them, a note
    /// says so.
    pub fn compiled_files(
        &self,
        config: &Config,
        compiled: &Compiled,
        reporter: &Reporter,
    ) -> Option<CompiledFiles> {
        let files = self.list_compiled_files(config, compiled);
        files.map_err(|error| reporter.note(&error.to_string())).ok()
    }

    fn list_compiled_files(&self, config: &Config, compiled: &Compiled) -> Result<CompiledFiles> {
        let Plan { flavor, arch, source, patches, .. } = self.plan;
        let listing = list(&BuiltTree {
            build: &self.path,
            tree: &self.tree.path,
            srcarch: arch.spec().srcarch,
            config,
            has_modules: compiled.modules,
        })?;
        Ok(CompiledFiles {
            schema: CompiledFiles::SCHEMA,
            version: self.tree.identity.version,
            release: compiled.release.clone(),
            flavor: *flavor,
            arch: *arch,
            plan: self.plan.digest(),
            source: KernelSource { kind: source.location.kind().to_owned(), patches: patches.len() },
            components: listing.components,
            component_sets: listing.component_sets,
            files: listing.files,
            tree: listing.tree,
        })
    }
}

/// A build directory in which make has built a kernel.
pub struct BuiltTree<'a> {
    /// The absolute path of the build directory.
    pub build: &'a Utf8Path,
    /// The absolute path of the source tree.
    pub tree: &'a Utf8Path,
    /// The directory below `arch/`.
    pub srcarch: &'a str,
    pub config: &'a Config,
    pub has_modules: bool,
}

/// The parts of [`CompiledFiles`] that a build directory knows.
pub struct Listing {
    pub components: Vec<String>,
    pub component_sets: Vec<Vec<u32>>,
    pub files: Vec<CompiledFile>,
    pub tree: BTreeMap<String, Vec<String>>,
}

/// Lists the files that were compiled.
///
/// # Errors
///
/// Exit code 1: the list would be incomplete.
pub fn list(built: &BuiltTree<'_>) -> Result<Listing> {
    let BuiltTree { build, tree, srcarch, config, has_modules } = *built;
    let mut walk = Walk::new(build, tree);
    walk.add("vmlinux", &roots::vmlinux(build, tree, srcarch, config))?;
    if has_modules {
        for module in roots::modules(build) {
            walk.add(&module, std::slice::from_ref(&module))?;
        }
    }
    let (files, component_sets) = walk.files(&mut Options::new(tree, config))?;
    if !files.iter().any(|file| file.path.starts_with("init/")) {
        return Err(Error::build(format!(
            "cannot list the compiled files: {build} does not name those of init/"
        )));
    }
    Ok(Listing { components: walk.components, component_sets, files, tree: tree_names(tree)? })
}

/// Where a path of a command leads.
#[derive(Clone, Debug)]
enum Place {
    /// A file of the source tree, as an index in [`Walk::sources`].
    Source(u32),
    /// A file that Kbuild made, as a path in the build directory.
    Built(Rc<str>),
    /// A header of the compiler, or a word that is no path.
    Outside,
}

/// What a built file is made from.
#[derive(Default)]
struct Node {
    sources: Vec<u32>,
    built: Vec<Rc<str>>,
}

struct Walk<'a> {
    build: &'a Utf8Path,
    tree: &'a Utf8Path,
    /// The paths of sources in the tree, and the components that each is in.
    sources: Vec<(String, Vec<u32>)>,
    source_ids: HashMap<String, u32>,
    places: HashMap<String, Place>,
    nodes: HashMap<Rc<str>, Rc<Node>>,
    components: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(build: &'a Utf8Path, tree: &'a Utf8Path) -> Walk<'a> {
        Walk {
            build,
            tree,
            sources: Vec::new(),
            source_ids: HashMap::new(),
            places: HashMap::new(),
            nodes: HashMap::new(),
            components: Vec::new(),
        }
    }

    /// Adds a component with everything that its files are made from.
    fn add(&mut self, component: &str, roots: &[String]) -> Result<()> {
        let id = self.components.len() as u32;
        self.components.push(component.to_owned());
        let mut todo: Vec<Rc<str>> = roots.iter().map(|root| root.as_str().into()).collect();
        let mut done: HashSet<Rc<str>> = todo.iter().cloned().collect();
        while let Some(path) = todo.pop() {
            let node = self.node(&path)?;
            for source in &node.sources {
                let components = &mut self.sources[*source as usize].1;
                if components.last() != Some(&id) {
                    components.push(id);
                }
            }
            todo.extend(node.built.iter().filter(|path| done.insert((*path).clone())).cloned());
        }
        Ok(())
    }

    fn node(&mut self, path: &Rc<str>) -> Result<Rc<Node>> {
        if let Some(node) = self.nodes.get(path) {
            return Ok(node.clone());
        }
        let node = Rc::new(self.read_node(path)?);
        if self.nodes.len() < MAX_OBJECTS {
            self.nodes.insert(path.clone(), node.clone());
        }
        Ok(node)
    }

    fn read_node(&mut self, path: &str) -> Result<Node> {
        let mut node = Node::default();
        if path.ends_with(".a") {
            let build = self.build;
            let objects = members(&build.join(path)).into_iter();
            let names = objects.filter_map(|object| Some(object.strip_prefix(build).ok()?.as_str().into()));
            node.built = names.collect();
            return Ok(node);
        }
        let file = self.build.join(command_file(path));
        let text = match read_file(&file, Links::RefuseAnywhere, MAX_COMMAND_FILE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // A generated source need not have one, but the sources of an object would be missing.
            Err(error) if path.ends_with(".o") || path.ends_with(".ko") => {
                let message = format!("cannot list the files that {path} was compiled from");
                return Err(Error::build(message).caused_by(error));
            }
            Err(_) => return Ok(node),
        };
        let parsed = command_file::parse(&text);
        for input in &parsed.inputs {
            self.add_place(input, &mut node);
        }
        if parsed.inputs.is_empty() {
            self.add_arguments(path, parsed.command, &mut node);
        } else {
            self.add_included_binaries(&parsed.inputs, &mut node);
        }
        Ok(node)
    }

    /// Adds the files that a linker or a generator got as arguments.
    fn add_arguments(&mut self, path: &str, command: &str, node: &mut Node) {
        let mut is_program = true;
        for word in command.split_whitespace() {
            let was_program = std::mem::replace(&mut is_program, is_separator(word));
            let word = word.trim_matches(['\'', '"', ';', '(', ')']);
            if was_program || word == path {
                continue;
            }
            if let Some(list) = word.strip_prefix('@') {
                // A list of objects, which `ar` and `ld` read.
                let list = self.build.join(list);
                let text = read_text(list, Links::RefuseAnywhere, MAX_JSON).unwrap_or_default();
                text.split_whitespace().for_each(|word| self.add_argument(word, node));
            } else {
                self.add_argument(word, node);
            }
        }
    }

    fn add_argument(&mut self, word: &str, node: &mut Node) {
        if word.starts_with('-') || !word.contains(['.', '/']) {
            return;
        }
        match self.place(word) {
            Place::Built(path) if !is_tool(&path) => {
                let is_made = path.ends_with(".a") || self.build.join(command_file(&path)).is_file();
                node.built.extend(is_made.then_some(path));
            }
            Place::Source(id) => {
                let path = &self.sources[id as usize].0;
                let is_file = !is_tool(path) && self.tree.join(path).is_file();
                node.sources.extend(is_file.then_some(id));
            }
            Place::Built(_) | Place::Outside => {}
        }
    }

    /// Adds the files that an assembler source includes by `.incbin`, such as the vDSO.
    fn add_included_binaries(&mut self, inputs: &[&str], node: &mut Node) {
        for input in inputs.iter().filter(|input| input.ends_with(".S")) {
            let path = normalize_path(&self.build.join(input));
            let Ok(text) = read_file(&path, Links::RefuseAnywhere, MAX_SOURCE) else { continue };
            let text = String::from_utf8_lossy(&text);
            for rest in text.split(".incbin").skip(1) {
                let Some(name) = rest.trim_start().strip_prefix('"') else { continue };
                self.add_argument(name.split('"').next().unwrap_or_default(), node);
            }
        }
    }

    fn add_place(&mut self, input: &str, node: &mut Node) {
        match self.place(input) {
            Place::Source(id) => node.sources.push(id),
            Place::Built(path) => node.built.push(path),
            Place::Outside => {}
        }
    }

    /// Returns where a path leads that a command in the build directory names.
    fn place(&mut self, input: &str) -> Place {
        if let Some(place) = self.places.get(input) {
            return place.clone();
        }
        let path = normalize_path(&self.build.join(input));
        let place = if let Ok(built) = path.strip_prefix(self.build) {
            Place::Built(built.as_str().into())
        } else if let Ok(source) = path.strip_prefix(self.tree) {
            let source = source.to_string();
            let next = self.sources.len() as u32;
            let id = *self.source_ids.entry(source.clone()).or_insert(next);
            if id == next {
                self.sources.push((source, Vec::new()));
            }
            Place::Source(id)
        } else {
            Place::Outside
        };
        self.places.insert(input.to_owned(), place.clone());
        place
    }

    /// Returns the files with their digests, sorted, and the sets of components that they are in.
    fn files(&self, options: &mut Options<'_>) -> Result<(Vec<CompiledFile>, Vec<Vec<u32>>)> {
        let mut sets: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
        for (index, (_, components)) in self.sources.iter().enumerate() {
            if !components.is_empty() {
                sets.entry(components).or_default().push(index);
            }
        }
        let mut files = BTreeMap::new();
        for (set, (_, indexes)) in sets.iter().enumerate() {
            for index in indexes {
                let path = &self.sources[*index].0;
                let (path, bytes) = self.read_source(path)?;
                let file = CompiledFile {
                    sha256: Sha256::of(&bytes),
                    sha1: Sha1::digest(&bytes).into(),
                    components: set as u32,
                    option: options.of(&path),
                    path: path.clone(),
                };
                files.entry(path).or_insert(file);
            }
        }
        Ok((files.into_values().collect(), sets.into_keys().map(<[u32]>::to_vec).collect()))
    }

    /// Reads a source. If links in the tree lead to it, returns its own path.
    fn read_source(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let full = self.tree.join(path);
        if let Ok(bytes) = read_file(&full, Links::RefuseAnywhere, MAX_SOURCE) {
            return Ok((path.to_owned(), bytes));
        }
        let real = full.canonicalize_utf8().context(Kind::Build, cannot("read", &full))?;
        let inside = real.strip_prefix(self.tree).map_or(path, Utf8Path::as_str).to_owned();
        let bytes = read_file(&real, Links::RefuseAnywhere, MAX_SOURCE);
        Ok((inside, bytes.context(Kind::Build, cannot("read", &real))?))
    }
}

/// Returns whether the next word of a command is a program.
fn is_separator(word: &str) -> bool {
    matches!(word, "&&" | "||" | "|" | "{" | "(" | "then" | "do" | "!") || word.ends_with(';')
}

/// Returns whether a path is a part of Kbuild, and not of the kernel.
fn is_tool(path: &str) -> bool {
    ["scripts/", "tools/"].iter().any(|dir| path.starts_with(dir))
        || [".sh", ".pl", ".py", ".awk", ".mk"].iter().any(|end| path.ends_with(end))
}

/// Returns the names of all files of a source tree by their directories, without build directories.
fn tree_names(tree: &Utf8Path) -> Result<BTreeMap<String, Vec<String>>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let is_source =
        |name: &str, depth: usize| name != ".git" && !(depth == 1 && name.starts_with(BUILD_DIR_PREFIX));
    let entries = WalkDir::new(tree)
        .into_iter()
        .filter_entry(|entry| entry.file_name().to_str().is_some_and(|name| is_source(name, entry.depth())));
    for (count, entry) in entries.enumerate() {
        let entry = entry.map_err(|error| Error::build(format!("cannot list {tree}")).caused_by(error))?;
        if count > MAX_TREE {
            return Err(Error::build(format!("{tree} has more than {MAX_TREE} files")));
        }
        if entry.file_type().is_dir() {
            continue;
        }
        let Ok(path) = Utf8PathBuf::from_path_buf(entry.into_path()) else { continue };
        let Ok(path) = path.strip_prefix(tree) else { continue };
        let dir = path.parent().map(Utf8Path::as_str).unwrap_or_default().to_owned();
        names.entry(dir).or_default().push(path.file_name().unwrap_or_default().to_owned());
    }
    names.values_mut().for_each(|names| names.sort_unstable());
    Ok(names)
}
