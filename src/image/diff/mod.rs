//! Compares two images by their inputs, sizes, config, modules and annotations. For files that differ, finds
//! the sections that differ and the likely cause.

mod cause;
mod page;

pub use cause::Cause;
pub use page::render as page;

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
use std::rc::Rc;

/// The number of files whose sections are compared. A difference in all of 7000 modules
/// shows in the first ones.
const MAX_FILES: usize = 100;
/// The size of a file whose sections are compared. It is read into memory.
const MAX_FILE: u64 = 64 << 20;
/// The memory for section names and paths of one image.
const MAX_MEMORY: usize = 16 << 20;

/// The differences of two images, as `diff --json` prints them. Field names are part of the contract.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub first: DiffSide,
    pub second: DiffSide,
    /// Whether they are the same image.
    pub equal: bool,
    /// The inputs that differ, of `version`, `architecture`, `flavor`, `source`, `config` and `tools`.
    pub inputs: Vec<String>,
    pub sizes: Vec<SizeChange>,
    pub annotations: Vec<Change>,
    pub tools: Vec<Change>,
    /// `None` if the final config of an image is unknown.
    pub config: Option<Comparison>,
    pub modules: ModulesChange,
    /// Files that differ or that only one image has.
    pub files: Vec<FileChange>,
    /// The number of files that differ and are not in `files`.
    pub more_files: usize,
}

/// One of the two images.
#[derive(Debug, Serialize)]
pub struct DiffSide {
    pub layout: camino::Utf8PathBuf,
    pub tag: Option<String>,
    /// The digest of the manifest, `sha256:…`.
    pub digest: String,
}

#[derive(Debug, Serialize)]
pub struct Change {
    pub name: String,
    pub first: Option<String>,
    pub second: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SizeChange {
    pub name: String,
    pub first: u64,
    pub second: u64,
}

/// The differences of the modules, by their path below the modules' directory.
#[derive(Debug, Default, Serialize)]
pub struct ModulesChange {
    /// The number of modules of both images.
    pub count: (usize, usize),
    /// Modules that only the second has.
    pub new: Vec<String>,
    /// Modules that only the first has.
    #[serde(rename = "gone")]
    pub removed: Vec<String>,
    /// Modules of another size, the largest change first.
    pub sizes: Vec<SizeChange>,
}

/// A file that differs, or that only one image has.
#[derive(Debug, Serialize)]
pub struct FileChange {
    /// The path, for modules below their directory.
    pub path: String,
    /// The size in the first image, if it has the file.
    pub first: Option<u64>,
    /// The size in the second image, if it has the file.
    pub second: Option<u64>,
    /// The target in the first image, if it has a symbolic link there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_link: Option<String>,
    /// The target in the second image, if it has a symbolic link there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_link: Option<String>,
    /// The ELF sections that differ. Empty if other parts differ, or the file is not ELF.
    pub sections: Vec<String>,
    /// The likely causes, the most certain first.
    pub causes: Vec<Cause>,
    /// Why sections and causes are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkipReason>,
}

/// Why the sections of a file were not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    LargeFile,
    ManyNames,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SkipReason::LargeFile => write!(f, "the file is larger than {} MiB", MAX_FILE >> 20),
            SkipReason::ManyNames => f.write_str("the files have too many section names and paths"),
        }
    }
}

/// Compares two images that have been inspected.
///
/// # Errors
///
/// Exit code 3 if one of them breaks a rule.
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

/// Returns the final config of an image, from it or from its counterpart.
fn config_of(image: &ImageInfo) -> Option<Config> {
    if let Some((_, text)) = image.scan.kernel_config() {
        return Some(Config::parse(text));
    }
    let sibling = inspect::counterpart(image).ok().flatten()?;
    inspect::check_pair(image, &sibling).ok()?;
    sibling.scan.kernel_config().map(|(_, text)| Config::parse(text))
}

/// Compares the tools by the receipts, or by the annotations if an image has no receipt.
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

/// Returns a path without the modules' directory, whose name has the release.
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
    // A file with the same second name in both images is listed once, under its first name.
    let links = (second_names(first), second_names(second));
    let is_listed_elsewhere =
        |name: &String| links.0.get(name).is_some_and(|to| links.1.get(name) == Some(to));
    let differ: Vec<&String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name) && !is_listed_elsewhere(name))
        .collect();
    let in_both = |name: &&&String| [&one, &other].iter().all(|files| size_of(files, name).is_some());
    // Kernels sort before modules if an image has both.
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
        let (mut sections, mut likely, mut skipped) = (Vec::new(), Vec::new(), None);
        match (sections_of.0.get(name), sections_of.1.get(name)) {
            (Some(Ok(one)), Some(Ok(other))) => {
                sections = one.differing_sections(other);
                likely = causes(one, other, &sections, &inputs);
            }
            (Some(Err(reason)), _) | (_, Some(Err(reason))) => skipped = Some(*reason),
            _ => {}
        }
        FileChange {
            path: name.clone(),
            first: size_of(&one, name),
            second: size_of(&other, name),
            first_link: link_of(&one, name),
            second_link: link_of(&other, name),
            sections,
            causes: likely,
            skipped,
        }
    };
    Ok((listed.into_iter().map(change).collect(), more.len()))
}

/// Second names of files → first names, both without the modules' directory.
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

type SectionsResult = std::result::Result<Rc<ElfSections>, SkipReason>;

/// Reads the sections of these files of an image, one file at a time.
fn sections_of(
    image: &Image,
    found: &ImageInfo,
    names: &BTreeSet<&String>,
) -> Result<BTreeMap<String, SectionsResult>> {
    let mut sections_of = BTreeMap::new();
    if names.is_empty() {
        return Ok(sections_of);
    }
    let mut memory = MAX_MEMORY;
    image.visit_files(&image.root()?, |paths, entry, reader| {
        let size = entry.size;
        let keys = paths.iter().map(|path| key(found, path)).filter(|name| names.contains(name));
        let keys: Vec<String> = keys.collect();
        if size == 0 || keys.is_empty() {
            return Ok(());
        }
        let mut sections = Err(SkipReason::LargeFile);
        if size <= MAX_FILE {
            // A buffer that grows would take twice the size of the file.
            let mut bytes = vec![0; usize::try_from(size).expect("at most MAX_FILE")];
            let read = reader.read_exact(&mut bytes);
            read.context(Kind::Fetch, || format!("{}: {}", image.layout, paths[0].escape_debug()))?;
            let elf = ElfSections::of(&bytes);
            let left = memory.checked_sub(elf.memory());
            memory = left.unwrap_or(memory);
            sections = left.map(|_| Rc::new(elf)).ok_or(SkipReason::ManyNames);
        }
        sections_of.extend(keys.into_iter().map(|key| (key, sections.clone())));
        Ok(())
    })?;
    Ok(sections_of)
}
