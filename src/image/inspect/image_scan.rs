//! Finds the kernels, modules and configs in the root file system of an image.

use super::scan::{Content, FileFacts, LayerScan};
use crate::kernel::binary::{Format, Kernel, Module, module};
use crate::oci::root::{FileId, Node, RootFs, Target};
use crate::util::digest::Sha256;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The content of a root file system, by path.
#[derive(Debug, Default)]
pub struct ImageScan {
    /// Kernels, by their first name.
    pub kernels: BTreeMap<String, KernelFile>,
    /// The kernel path of the hypervisor's configuration. `None` if nothing is there and
    /// the image has no kernel.
    pub kernel_path: Option<KernelPath>,
    /// The `.config` files beside modules or kernels.
    pub configs: Vec<ConfigFile>,
    /// Modules, by their first name.
    pub modules: BTreeMap<String, ModuleFile>,
    /// Files that should be modules and cannot be read, with the reason.
    pub unreadable_modules: BTreeMap<String, String>,
    /// Files that should be configs and cannot be read, with the reason.
    pub unreadable_configs: BTreeMap<String, String>,
    /// The directories in `lib/modules`, which are releases.
    pub module_dirs: BTreeSet<String>,
    /// Second names of files → first names.
    pub hard_links: BTreeMap<String, String>,
    /// Every name of every file and link.
    pub files: BTreeMap<String, FileContent>,
    /// Hard links to missing files, and their targets.
    pub dangling: Vec<(String, String)>,
}

/// A file or a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    File { bytes: u64, sha256: Sha256 },
    Link { to: String },
}

/// A kernel file in an image.
#[derive(Clone, Debug)]
pub struct KernelFile {
    pub size: u64,
    pub sha256: Sha256,
    pub kernel: Rc<Kernel>,
}

/// The kernel path of the hypervisor's configuration, and what is there.
#[derive(Clone, Debug, Serialize)]
pub struct KernelPath {
    /// The path in the configuration, such as `bin/vmlinux`.
    pub path: String,
    /// The path of the file, if links lead to another one.
    pub leads_to: Option<String>,
    /// Why there is no kernel.
    pub problem: Option<String>,
    /// Whether a file or a link is there, even a dangling one.
    #[serde(skip)]
    pub exists: bool,
    /// The key in [`ImageScan::kernels`].
    #[serde(skip)]
    kernel: Option<String>,
}

/// A module in an image.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    /// The size of the file, which may be compressed.
    pub size: u64,
    pub module: Rc<Module>,
}

/// A config in an image.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub path: String,
    pub text: Rc<str>,
    pub sha256: Sha256,
}

impl ImageScan {
    /// Scans `root`, which is merged from these layers. `kernel_path` is the
    /// path in the hypervisor's configuration.
    pub fn of(root: &RootFs, layers: &[Rc<LayerScan>], kernel_path: Option<&str>) -> ImageScan {
        let files = root.files();
        let mut scan = ImageScan { dangling: root.dangling().to_vec(), ..ImageScan::default() };
        let mut module_places = BTreeSet::new();
        for (path, node) in root.nodes() {
            match node {
                Node::Dir => scan.module_dirs.extend(release_of_dir(path).map(str::to_owned)),
                Node::SymLink(to) => {
                    scan.files.insert(path.to_owned(), FileContent::Link { to: to.clone() });
                }
                Node::File(_) if path.rsplit('/').next() == Some("modules.dep") => {
                    module_places.insert(path.rsplit_once('/').map_or("", |(dir, _)| dir));
                }
                _ => {}
            }
        }
        let is_module_place = |path: &str| {
            release_of_module(path).is_some() || dirs_above(path).any(|dir| module_places.contains(dir))
        };
        for (id, names) in &files {
            let facts = &layers[id.layer].files[&id.entry];
            scan.add(names, facts, &is_module_place);
        }
        scan.kernel_path = kernel_path.and_then(|path| scan.inspect_kernel_path(path, root, &files));
        scan
    }

    fn add(&mut self, names: &[&str], facts: &FileFacts, is_module_place: &impl Fn(&str) -> bool) {
        let FileFacts { size, sha256, content } = facts;
        let first = names[0].to_owned();
        for name in names {
            self.files.insert((*name).to_owned(), FileContent::File { bytes: *size, sha256: *sha256 });
        }
        for name in &names[1..] {
            self.hard_links.insert((*name).to_owned(), first.clone());
        }
        let as_module = names.iter().find(|name| module::compression(name).is_some());
        let in_place = || as_module.is_some_and(|name| is_module_place(name));
        match content {
            Content::Kernel(kernel) => {
                let file = KernelFile { size: *size, sha256: *sha256, kernel: kernel.clone() };
                self.kernels.insert(first, file);
            }
            Content::Config(text) => {
                self.configs.push(ConfigFile { path: first, text: text.clone(), sha256: *sha256 });
            }
            Content::Module(module) if in_place() || is_elf_with_vermagic(module) => {
                self.modules.insert(first, ModuleFile { size: *size, module: module.clone() });
            }
            Content::Unreadable(why) if in_place() => {
                self.unreadable_modules.insert(first, why.clone());
            }
            Content::Unreadable(why) if as_module.is_none() => {
                self.unreadable_configs.insert(first, why.clone());
            }
            Content::Other if in_place() => {
                let why = "it is a hard link to a file that does not have the name of a module".to_owned();
                self.unreadable_modules.insert(as_module.map_or(first, |name| (*name).to_owned()), why);
            }
            _ => {}
        }
    }

    fn inspect_kernel_path(
        &self,
        path: &str,
        root: &RootFs,
        files: &BTreeMap<FileId, Vec<&str>>,
    ) -> Option<KernelPath> {
        let exists = root.lstat(path).is_some();
        if self.kernels.is_empty() && !exists {
            return None;
        }
        let mut found =
            KernelPath { path: path.to_owned(), leads_to: None, problem: None, exists, kernel: None };
        match root.resolve(path) {
            Target::Found(to, Node::File(id)) => {
                found.kernel = files[id].first().map(|first| (*first).to_owned());
                found.kernel = found.kernel.filter(|first| self.kernels.contains_key(first));
                found.problem = found.kernel.is_none().then(|| format!("{to} is not a kernel"));
                found.leads_to = (to != path).then_some(to);
            }
            Target::Found(to, _) => found.problem = Some(format!("{to} is not a file")),
            Target::Missing(at) => found.problem = Some(format!("there is no {at}")),
            Target::NotADirectory(at) => found.problem = Some(format!("{at} is not a directory")),
            Target::TooLong => found.problem = Some("too many links".to_owned()),
        }
        Some(found)
    }

    /// Returns the kernel at the path of the hypervisor's configuration. If nothing is
    /// there, returns the only kernel.
    pub fn main_kernel(&self) -> Option<(&String, &KernelFile)> {
        match &self.kernel_path {
            Some(found) if found.exists => self.kernels.get_key_value(found.kernel.as_ref()?),
            _ => self.kernels.iter().next().filter(|_| self.kernels.len() == 1),
        }
    }

    /// Returns `uname -r`, from the kernel's banner, the modules' directory, or the modules.
    pub fn release(&self) -> Option<&str> {
        let main = self.main_kernel().and_then(|(_, file)| file.kernel.release());
        main.or_else(|| self.kernels.values().find_map(|file| file.kernel.release()))
            .or_else(|| self.module_dirs.first().map(String::as_str))
            .or_else(|| self.modules.values().find_map(|file| file.module.release()))
    }

    /// Returns the final `.config` and its place, which is a file or inside the kernel. Of several files,
    /// returns that of the kernel's release.
    pub fn kernel_config(&self) -> Option<(String, &str)> {
        let of_release = |file: &&ConfigFile| {
            let release = self.release().unwrap_or_default();
            file.path.ends_with(&format!("/{release}/config"))
                || file.path.ends_with(&format!("/config-{release}"))
        };
        if let Some(ConfigFile { path, text, .. }) =
            self.configs.iter().find(of_release).or(self.configs.first())
        {
            return Some((path.clone(), text));
        }
        let kernels = self.main_kernel().into_iter().chain(&self.kernels);
        let mut inside = kernels.filter_map(|(path, file)| Some((path, file.kernel.config.as_deref()?)));
        inside.next().map(|(path, text)| (format!("inside {path}"), text))
    }

    /// Returns all names of a file, beginning with the first.
    pub fn hard_link_names(&self, path: &str) -> Vec<String> {
        let second = self.hard_links.iter().filter(|(_, to)| *to == path).map(|(name, _)| name.clone());
        std::iter::once(path.to_owned()).chain(second).collect()
    }

    /// Returns the uncompressed size of all modules.
    pub fn module_bytes(&self) -> u64 {
        self.modules.values().map(|file| file.module.uncompressed_size).sum()
    }
}

/// Other files are named `.ko` too, such as translations to Korean.
fn is_elf_with_vermagic(module: &Module) -> bool {
    matches!(module.format, Format::Elf { .. } | Format::OtherElf) && module.vermagic.is_some()
}

/// Returns the path behind `lib/modules/`, or `usr/lib/modules/` if `lib` is a link.
fn after_modules_dir(path: &str) -> Option<&str> {
    path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/")
}

/// Returns all directories above a path. The root is the empty path.
fn dirs_above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([""])
}

/// Returns the directory in `lib/modules` that a file is in, which is a release.
pub fn release_of_module(path: &str) -> Option<&str> {
    Some(after_modules_dir(path)?.split_once('/')?.0)
}

/// Returns the name of a directory in `lib/modules`, which is a release.
fn release_of_dir(path: &str) -> Option<&str> {
    after_modules_dir(path).filter(|name| !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::binary::Kernel;
    use crate::oci::layer_entries::{Attributes, EntryKind, LayerEntry, LayerInfo};

    /// A layer of these entries; a file's bytes are what it is.
    fn layer(entries: &[(&str, EntryKind, &[u8])]) -> Rc<LayerScan> {
        let entry = |(path, kind, bytes): &(&str, EntryKind, &[u8])| LayerEntry {
            path: (*path).to_owned(),
            kind: kind.clone(),
            size: bytes.len() as u64,
            attributes: Attributes::default(),
        };
        let files = entries.iter().enumerate().filter(|(_, (_, kind, _))| *kind == EntryKind::File);
        let facts = |(at, (path, _, bytes)): (usize, &(&str, EntryKind, &[u8]))| {
            let content = match *bytes {
                bytes if module::compression(path).is_some() => {
                    Content::Module(Rc::new(Module::read(path, bytes).unwrap()))
                }
                bytes if bytes.starts_with(b"CONFIG") => {
                    Content::Config(String::from_utf8(bytes.to_vec()).unwrap().into())
                }
                bytes if bytes.starts_with(b"Linux") => {
                    Content::Kernel(Rc::new(Kernel::read(bytes).unwrap()))
                }
                _ => Content::Other,
            };
            (at, FileFacts { size: bytes.len() as u64, sha256: Sha256::of(bytes), content })
        };
        let files = files.map(facts).collect();
        let zero = Sha256::of("");
        let info = LayerInfo {
            digest: zero,
            diff_id: zero,
            media_type: String::new(),
            size: 0,
            uncompressed_size: 0,
            entries: 0,
            global_records: Vec::new(),
        };
        Rc::new(LayerScan { info, entries: entries.iter().map(entry).collect(), files })
    }

    fn probe(layers: &[Rc<LayerScan>]) -> ImageScan {
        let root = RootFs::merge(layers.iter().map(|layer| layer.entries.as_slice())).unwrap();
        ImageScan::of(&root, layers, Some("bin/vmlinux"))
    }

    const OLD: &[u8] = b"Linux version 6.1.7 (x)\0";
    const NEW: &[u8] = b"Linux version 6.1.8 (x)\0";

    #[test]
    fn every_entry_is_what_its_place_and_bytes_say() {
        use EntryKind::{Dir, File, HardLink};
        let found = probe(&[layer(&[
            ("a/kernel", File, OLD),
            ("bin/vmlinux", HardLink("a/kernel".into()), b""),
            ("lib/modules/6.1.7", Dir, b""),
            ("lib/modules/6.1.7/config", File, b"CONFIG_A=y\n"),
            ("lib/modules/6.1.7/modules.dep", File, b""),
            ("lib/modules/6.1.7/kernel/a.ko", File, b"\0vermagic=6.1.7 SMP\0"),
            ("usr/share/vim/tutor.ko", File, b"Korean"),
        ])]);
        assert_eq!(found.kernels["a/kernel"].kernel.release(), Some("6.1.7"));
        assert_eq!(found.hard_link_names("a/kernel"), ["a/kernel", "bin/vmlinux"]);
        assert_eq!(found.modules.keys().collect::<Vec<_>>(), ["lib/modules/6.1.7/kernel/a.ko"]);
        assert_eq!(found.module_dirs.iter().collect::<Vec<_>>(), ["6.1.7"]);
        assert_eq!(found.kernel_config(), Some(("lib/modules/6.1.7/config".into(), "CONFIG_A=y\n")));
        assert_eq!(found.files.len(), 6);
        let path = found.kernel_path.as_ref().unwrap();
        assert_eq!((path.leads_to.as_deref(), path.problem.as_deref()), (None, None));
        assert_eq!(found.main_kernel().unwrap().0, "a/kernel");
    }

    #[test]
    fn the_kernel_is_the_one_that_its_path_finally_leads_to() {
        use EntryKind::{File, SymLink};
        let lower = layer(&[("bin/vmlinux", File, OLD), ("boot/new", File, NEW), ("boot/text", File, b"no")]);
        let with = |to: &str| probe(&[lower.clone(), layer(&[("bin/vmlinux", SymLink(to.to_owned()), b"")])]);
        assert_eq!(probe(std::slice::from_ref(&lower)).release(), Some("6.1.7"));
        let swapped = with("../boot/new");
        assert_eq!(swapped.release(), Some("6.1.8"));
        assert_eq!(swapped.kernel_path.as_ref().unwrap().leads_to.as_deref(), Some("boot/new"));
        assert_eq!(swapped.kernels.keys().collect::<Vec<_>>(), ["boot/new"], "the other one is hidden");
        for (to, problem) in [
            ("/boot/text", "boot/text is not a kernel"),
            ("gone", "there is no bin/gone"),
            ("/boot", "boot is not a file"),
            ("/boot/new/x", "boot/new is not a directory"),
            ("vmlinux", "too many links"),
        ] {
            let found = with(to);
            assert_eq!(found.kernel_path.as_ref().unwrap().problem.as_deref(), Some(problem));
            assert!(found.main_kernel().is_none(), "{to}");
        }
    }

    #[test]
    fn of_several_configs_it_is_the_one_of_the_release() {
        use EntryKind::File;
        let found = probe(&[layer(&[
            ("bin/vmlinux", File, NEW),
            ("boot/config-6.1.7", File, b"CONFIG_A=y\n"),
            ("boot/config-6.1.8", File, b"CONFIG_A=m\n"),
        ])]);
        assert_eq!(found.kernel_config(), Some(("boot/config-6.1.8".into(), "CONFIG_A=m\n")));
    }
}
