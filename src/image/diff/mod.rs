//! How two images differ, in groups that a person can read: what they are built from, sizes, config, modules,
//! annotations; and where their bytes differ, which file, which section of it, and the likely cause.

mod cause;

pub use cause::Cause;

use crate::image::inspect::{self, FileContent, ImageInfo, KernelInfo, ReceiptState};
use crate::kconfig::explain::Renames;
use crate::kconfig::{self, Comparison, Config};
use crate::kernel::binary::ElfSections;
use crate::oci::annotations::REVISION;
use crate::oci::read::Image;
use crate::plan::annotations;
use crate::util::error::{Kind, Result, ResultExt};
use cause::{CauseInputs, causes};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// So many files are looked into; what differs in all of 7000 modules differs in the first ones.
const MAX_FILES: usize = 100;
/// A file is held in memory while it is looked into.
const MAX_FILE: u64 = 256 << 20;

/// What differs. Serialised, it is what `diff --json` prints: field names are part of the contract.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The one image.
    pub first: DiffSide,
    /// The other.
    pub second: DiffSide,
    /// Are they the same image?
    pub equal: bool,
    /// Which of the inputs differ: `version`, `architecture`, `source`, `config`, `tools`.
    #[serde(rename = "inputs")]
    pub inputs: Vec<String>,
    /// What → bytes.
    pub sizes: Vec<SizeChange>,
    /// Annotation → its values.
    pub annotations: Vec<Change>,
    /// Tool → its versions.
    pub tools: Vec<Change>,
    /// The final configs; `None`: one of them has none, or it is not known.
    pub config: Option<Comparison>,
    /// The modules.
    pub modules: ModulesChange,
    /// Files that both have, with other bytes, and files that only one has.
    pub files: Vec<FileChange>,
    /// Files that differ and were not looked into.
    #[serde(rename = "more_files")]
    pub more_files: usize,
}

/// One of the two.
#[derive(Debug, Serialize)]
pub struct DiffSide {
    /// The layout's directory.
    pub layout: camino::Utf8PathBuf,
    /// Its tag.
    pub tag: Option<String>,
    /// Of the manifest: `sha256:…`.
    pub digest: String,
}

/// A text of both.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Of what.
    pub name: String,
    /// In the first.
    pub first: Option<String>,
    /// In the second.
    pub second: Option<String>,
}

/// A size of both, where they differ.
#[derive(Debug, Serialize)]
pub struct SizeChange {
    /// Of what.
    pub name: String,
    /// In the first.
    pub first: u64,
    /// In the second.
    pub second: u64,
}

/// The modules, by their path below their directory.
#[derive(Debug, Default, Serialize)]
pub struct ModulesChange {
    /// How many there are, in both.
    pub count: (usize, usize),
    /// Only in the second.
    pub new: Vec<String>,
    /// Only in the first.
    #[serde(rename = "gone")]
    pub removed: Vec<String>,
    /// With another size, the largest change first.
    pub sizes: Vec<SizeChange>,
}

/// A file with other bytes, or one that only one of the two has.
#[derive(Debug, Serialize)]
pub struct FileChange {
    /// Its path; of what belongs to modules, below their directory.
    pub path: String,
    /// Its size in the first; `None`: no file is there.
    pub first: Option<u64>,
    /// In the second.
    pub second: Option<u64>,
    /// In the first it is a symbolic link with this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_link: Option<String>,
    /// In the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_link: Option<String>,
    /// The ELF sections that differ; none where the difference lies outside of all, or it is no ELF file.
    pub sections: Vec<String>,
    /// The likely causes, the surest first.
    #[serde(rename = "causes")]
    pub causes: Vec<Cause>,
}

/// Compares two images, of which each has been read once already.
///
/// Errors (exit code 3): one of them breaks a rule.
pub fn diff(
    images: (&Image, &Image),
    found: (&ImageInfo, &ImageInfo),
    renames: &Renames,
) -> Result<Difference> {
    let (first, second) = found;
    let configs = (config_of(first), config_of(second));
    let config = match &configs {
        (Some(one), Some(other)) => Some(kconfig::compare(one, other, renames)),
        _ => None,
    };
    let tools = tools(first, second);
    let inputs = inputs(first, second, config.as_ref(), &tools);
    let (files, more_files) = files(images, found, configs.0.as_ref(), &inputs)?;
    Ok(Difference {
        first: side(first),
        second: side(second),
        equal: first.digest == second.digest,
        sizes: sizes(first, second),
        annotations: changes(&first.annotations, &second.annotations),
        modules: modules(first, second),
        inputs,
        tools,
        config,
        files,
        more_files,
    })
}

fn side(image: &ImageInfo) -> DiffSide {
    DiffSide { layout: image.layout.clone(), tag: image.tag.clone(), digest: image.digest.oci() }
}

/// The final config of an image: in it, or in the image beside it that belongs to it.
fn config_of(image: &ImageInfo) -> Option<Config> {
    if let Some((_, text)) = image.scan.kernel_config() {
        return Some(Config::parse(text));
    }
    let sibling = inspect::counterpart(image).ok().flatten()?;
    inspect::check_pair(image, &sibling).ok()?;
    sibling.scan.kernel_config().map(|(_, text)| Config::parse(text))
}

/// Of the receipts, where both have one; else of what both images say of themselves.
fn tools(first: &ImageInfo, second: &ImageInfo) -> Vec<Change> {
    if let (ReceiptState::Matching { tools: one, .. }, ReceiptState::Matching { tools: other, .. }) =
        (&first.receipt, &second.receipt)
    {
        return changes(one, other);
    }
    let claimed = |image: &ImageInfo| -> BTreeMap<String, String> {
        let claimed = image.annotation(annotations::TOOLCHAIN);
        claimed.map(|claimed| ("toolchain".to_owned(), claimed.to_owned())).into_iter().collect()
    };
    changes(&claimed(first), &claimed(second))
}

fn changes(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<Change> {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    names
        .into_iter()
        .filter(|name| first.get(*name) != second.get(*name))
        .map(|name| Change {
            name: name.clone(),
            first: first.get(name).cloned(),
            second: second.get(name).cloned(),
        })
        .collect()
}

fn inputs(
    first: &ImageInfo,
    second: &ImageInfo,
    config: Option<&Comparison>,
    tools: &[Change],
) -> Vec<String> {
    let revision = |image: &ImageInfo| image.annotation(REVISION).map(str::to_owned);
    let digest = |image: &ImageInfo| image.annotation(annotations::CONFIG_DIGEST).map(str::to_owned);
    let config = config.map_or_else(|| digest(first) != digest(second), |config| !config.is_equal());
    let differ = [
        ("version", first.release != second.release),
        ("architecture", first.arch != second.arch),
        ("flavor", first.flavor != second.flavor),
        ("source", revision(first) != revision(second)),
        ("config", config),
        ("tools", !tools.is_empty()),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

fn sizes(first: &ImageInfo, second: &ImageInfo) -> Vec<SizeChange> {
    let kernel = |image: &ImageInfo| {
        let kernels = &image.scan.kernels;
        let main = image.scan.main_kernel().map(|(_, kernel)| kernel).or(kernels.values().next());
        main.map_or(0, |kernel| kernel.size)
    };
    let modules = |image: &ImageInfo| image.modules.as_ref().map_or(0, |modules| modules.bytes);
    let stored = |image: &ImageInfo| image.layers.iter().map(|layer| layer.bytes).sum();
    let all = [
        ("kernel", kernel(first), kernel(second)),
        ("modules", modules(first), modules(second)),
        ("image", stored(first), stored(second)),
    ];
    let differ = all.into_iter().filter(|(_, first, second)| first != second);
    differ.map(|(name, first, second)| SizeChange { name: name.to_owned(), first, second }).collect()
}

/// A path as it is compared: without the directory that has the release in its name.
fn key(image: &ImageInfo, path: &str) -> String {
    let directory = image.modules.as_ref().map_or("", |modules| modules.directory.as_str());
    path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path).to_owned()
}

fn modules(first: &ImageInfo, second: &ImageInfo) -> ModulesChange {
    let all = |image: &ImageInfo| -> BTreeMap<String, u64> {
        image.scan.modules.iter().map(|(path, file)| (key(image, path), file.size)).collect()
    };
    let (one, other) = (all(first), all(second));
    let only = |of: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>| {
        of.keys().filter(|path| !other.contains_key(*path)).cloned().collect::<Vec<_>>()
    };
    let in_both = one.iter().filter_map(|(path, &size)| Some((path, size, *other.get(path)?)));
    let mut sizes: Vec<SizeChange> = in_both
        .filter(|(_, first, second)| first != second)
        .map(|(path, first, second)| SizeChange { name: path.clone(), first, second })
        .collect();
    sizes.sort_by_key(|change| std::cmp::Reverse(change.first.abs_diff(change.second)));
    ModulesChange {
        count: (one.len(), other.len()),
        new: only(&other, &one),
        removed: only(&one, &other),
        sizes,
    }
}

fn files(
    (first_image, second_image): (&Image, &Image),
    (first, second): (&ImageInfo, &ImageInfo),
    config: Option<&Config>,
    inputs: &[String],
) -> Result<(Vec<FileChange>, usize)> {
    let all = |image: &ImageInfo| -> BTreeMap<String, FileContent> {
        image.scan.files.iter().map(|(path, file)| (key(image, path), file.clone())).collect()
    };
    let (one, other) = (all(first), all(second));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    // A file with the same second name in both is told once, under its first.
    let links = (second_names(first), second_names(second));
    let is_listed_elsewhere =
        |name: &String| links.0.get(name).is_some_and(|to| links.1.get(name) == Some(to));
    let differ: Vec<&String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name) && !is_listed_elsewhere(name))
        .collect();
    let in_both = |name: &&&String| [&one, &other].iter().all(|files| size_of(files, name).is_some());
    // Kernels sort before modules where both are in one image.
    let compared: BTreeSet<&String> = differ.iter().filter(in_both).take(MAX_FILES).copied().collect();
    let (listed, more): (Vec<&String>, Vec<&String>) =
        differ.iter().partition(|name| compared.contains(*name) || !in_both(name));
    let sections_of =
        (sections_of(first_image, first, &compared)?, sections_of(second_image, second, &compared)?);
    let banner = |image: &ImageInfo, name: &String| {
        let is_named = |kernel: &&KernelInfo| kernel.path == *name || kernel.other_paths.contains(name);
        image.kernels.iter().find(is_named).and_then(|kernel| kernel.banner.clone())
    };
    let change = |name: &String| {
        let banners = (banner(first, name), banner(second, name));
        let inputs = CauseInputs { banners: (banners.0.as_deref(), banners.1.as_deref()), config, inputs };
        let (sections, causes) = match (sections_of.0.get(name), sections_of.1.get(name)) {
            (Some(one), Some(other)) => {
                let sections = one.differing_sections(other);
                let causes = causes(one, other, &sections, &inputs);
                (sections, causes)
            }
            _ => (Vec::new(), Vec::new()),
        };
        FileChange {
            path: name.clone(),
            first: size_of(&one, name),
            second: size_of(&other, name),
            first_link: link_of(&one, name),
            second_link: link_of(&other, name),
            sections,
            causes,
        }
    };
    Ok((listed.into_iter().map(change).collect(), more.len()))
}

/// Second names of files → the first ones, as they are compared.
fn second_names(image: &ImageInfo) -> BTreeMap<String, String> {
    let links = image.scan.hard_links.iter();
    links.map(|(name, to)| (key(image, name), key(image, to))).collect()
}

fn size_of(files: &BTreeMap<String, FileContent>, name: &str) -> Option<u64> {
    match files.get(name)? {
        FileContent::File { bytes, .. } => Some(*bytes),
        FileContent::Link { .. } => None,
    }
}

fn link_of(files: &BTreeMap<String, FileContent>, name: &str) -> Option<String> {
    match files.get(name)? {
        FileContent::File { .. } => None,
        FileContent::Link { to } => Some(to.clone()),
    }
}

/// Looks into these files of an image, one after the other. One that is too large to be held is left out.
fn sections_of(
    image: &Image,
    found: &ImageInfo,
    names: &BTreeSet<&String>,
) -> Result<BTreeMap<String, ElfSections>> {
    let mut sections_of = BTreeMap::new();
    if names.is_empty() {
        return Ok(sections_of);
    }
    image.visit_files(&image.root()?, |paths, size, reader| {
        let keys = paths.iter().map(|path| key(found, path)).filter(|name| names.contains(name));
        let keys: Vec<String> = keys.collect();
        if size == 0 || size > MAX_FILE || keys.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = reader.take(MAX_FILE).read_to_end(&mut bytes);
        read.context(Kind::Fetch, || format!("{}: {}", image.layout, paths[0].escape_debug()))?;
        let elf_sections = ElfSections::of(&bytes);
        sections_of.extend(keys.into_iter().map(|key| (key, elf_sections.clone())));
        Ok(())
    })?;
    Ok(sections_of)
}
