//! Reads the files of a layer in one pass and finds out what they are. Problems of a file are values. Only a
//! layer that cannot be read is an error.

use crate::image::kernel_image::{is_kernel, is_kernel_config};
use crate::kconfig::Config;
use crate::kernel::binary::{Kernel, Module, module};
use crate::oci::layer_entries::{EntryKind, LayerEntry, LayerInfo, Limits, UnpackBudget};
use crate::oci::read::Image;
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

/// A kernel's `.config` has about 150 kB.
const MAX_CONFIG: u64 = 16 << 20;
/// All configs of a layer that are kept.
const MAX_CONFIGS: usize = 32 << 20;

/// A layer that was read.
#[derive(Debug)]
pub struct LayerScan {
    pub info: LayerInfo,
    /// The entries, in the order of the layer.
    pub entries: Vec<LayerEntry>,
    /// The files, by their place in `entries`.
    pub files: BTreeMap<usize, FileFacts>,
}

/// The properties of a file.
#[derive(Clone, Debug)]
pub struct FileFacts {
    pub size: u64,
    pub sha256: Sha256,
    pub content: Content,
}

/// The content of a file, by its bytes and its name.
#[derive(Clone, Debug)]
pub enum Content {
    Kernel(Rc<Kernel>),
    /// A file that is named as a module.
    Module(Rc<Module>),
    /// The `.config` of a kernel.
    Config(Rc<str>),
    Other,
    /// A file that is named as a module or a config and cannot be read, with the reason.
    Unreadable(String),
}

/// The limits for reading layers, in one run of the program.
#[derive(Default)]
pub struct ScanLimits {
    layers: Limits,
    /// For compressed data inside of files.
    nested: UnpackBudget,
}

impl ScanLimits {
    /// Resets the limits of an image.
    pub(super) fn next_image(&mut self) {
        self.layers.next_image();
    }

    /// Takes the entries and bytes of a layer that was read before.
    pub(super) fn take_layer(&mut self, layer: &LayerScan) -> Result<()> {
        self.layers.take_layer(&layer.info)
    }
}

/// Reads a layer of `image`.
///
/// # Errors
///
/// Exit code 3 if the layer is damaged, breaks a rule, or decompresses to more than the limit.
pub fn scan_layer(image: &Image, layer: usize, limits: &mut ScanLimits) -> Result<LayerScan> {
    let (mut entries, mut files) = (Vec::new(), BTreeMap::new());
    let ScanLimits { layers, nested } = limits;
    nested.grant(image.manifest.layers()[layer].size());
    let mut budget = MAX_CONFIGS;
    let info = image.visit_layer(layer, layers, |found, reader| {
        if found.kind == EntryKind::File {
            let message = || format!("{}: {}", image.layout, found.path.escape_debug());
            let facts = facts(found, reader, nested, &mut budget).context(Kind::Fetch, message)?;
            files.insert(entries.len(), facts);
        }
        entries.push(found.clone());
        Ok(())
    })?;
    Ok(LayerScan { info, entries, files })
}

fn facts(
    found: &LayerEntry,
    reader: &mut dyn Read,
    nested: &mut UnpackBudget,
    budget: &mut usize,
) -> io::Result<FileFacts> {
    let mut hashed = HashingReader::new(reader);
    let content = content(found, &mut hashed, budget);
    // Reads the rest. If the layer could not be read, this fails too.
    io::copy(&mut hashed, &mut io::sink())?;
    let (sha256, size) = hashed.finish();
    if size != found.size {
        return Err(io::Error::other(format!("the file ends after {size} of {} bytes", found.size)));
    }
    let content = content.or_else(|why| match why.downcast::<Error>() {
        Ok(ours) => Err(io::Error::other(ours)),
        Err(why) => Ok(Content::Unreadable(why.to_string())),
    })?;
    nested.take(match &content {
        Content::Module(module) if module.uncompressed_size != size => module.uncompressed_size,
        Content::Kernel(kernel) => kernel.config.as_ref().map_or(0, |config| config.len() as u64),
        _ => 0,
    })?;
    Ok(FileFacts { size, sha256, content })
}

fn content(found: &LayerEntry, reader: &mut impl Read, budget: &mut usize) -> io::Result<Content> {
    if module::compression(&found.path).is_some() {
        return Ok(Content::Module(Rc::new(Module::read(&found.path, reader)?)));
    }
    if is_kernel_config(&found.path) {
        return config(found, reader, budget);
    }
    let mut kernel = Kernel::read(reader)?;
    if !is_kernel(&found.path, &kernel) {
        return Ok(Content::Other);
    }
    if kernel.config.as_ref().is_some_and(|config| !reserve(budget, config.len())) {
        kernel.config = None;
        kernel.problems.push(format!(
            "the config inside it is not read; the configs of the layer have more than {MAX_CONFIGS} bytes"
        ));
    }
    Ok(Content::Kernel(Rc::new(kernel)))
}

fn config(found: &LayerEntry, reader: &mut impl Read, budget: &mut usize) -> io::Result<Content> {
    let too_large = || Content::Unreadable(format!("{} bytes are too many for a config", found.size));
    if found.size > MAX_CONFIG {
        return Ok(too_large());
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes).ok().filter(|text| Config::parse(text).is_plausible()) {
        // Files of other programs have this name too.
        None if found.path == "config" => Content::Other,
        None => Content::Unreadable("it is not a kernel config".to_owned()),
        Some(text) if reserve(budget, text.len()) => Content::Config(text.into()),
        Some(_) => too_large(),
    })
}

/// Takes `bytes` from the budget. Returns whether so many were left.
fn reserve(budget: &mut usize, bytes: usize) -> bool {
    let left = budget.checked_sub(bytes);
    *budget = left.unwrap_or(*budget);
    left.is_some()
}
