//! What the files of a layer are, by their bytes, in one pass. What cannot be told of a file, or is wrong with it, is a
//! value: only a layer that cannot be read is an error.

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
/// The configs of a layer that are kept, all together.
const MAX_CONFIGS: usize = 32 << 20;

/// A layer that was read.
#[derive(Debug)]
pub struct LayerScan {
    /// The layer as a whole.
    pub info: LayerInfo,
    /// Its entries, in their order.
    pub entries: Vec<LayerEntry>,
    /// Those that are files, by their place among the entries.
    pub files: BTreeMap<usize, FileFacts>,
}

/// What a file is.
#[derive(Clone, Debug)]
pub struct FileFacts {
    /// Its bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: Sha256,
    /// By its bytes, and by its name where bytes do not tell.
    pub content: Content,
}

/// By the bytes of a file, and by its name where they do not tell.
#[derive(Clone, Debug)]
pub enum Content {
    /// A kernel.
    Kernel(Rc<Kernel>),
    /// Called as modules are.
    Module(Rc<Module>),
    /// The `.config` of a kernel.
    Config(Rc<str>),
    /// Anything else.
    Other,
    /// It is called as modules or configs are, and cannot be read as one, and why.
    Unreadable(String),
}

/// What reading layers may still cost, in one run of the program.
#[derive(Default)]
pub struct ScanLimits {
    layers: Limits,
    /// For what is compressed inside of files.
    nested: UnpackBudget,
}

impl ScanLimits {
    /// The next image may have as much as the one before it.
    pub(super) fn next_image(&mut self) {
        self.layers.next_image();
    }

    /// Takes what a layer of it has that was read before.
    pub(super) fn take_layer(&mut self, layer: &LayerScan) -> Result<()> {
        self.layers.take_layer(&layer.info)
    }
}

/// Reads a layer of `image`.
///
/// Errors (exit code 3): it is damaged, breaks a rule, or unpacks to more than is left.
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
    // What is left; and if it was the layer that could not be read, it cannot be now.
    io::copy(&mut hashed, &mut io::sink())?;
    let (sha256, size) = hashed.finish();
    if size != found.size {
        return Err(io::Error::other(format!("it ends after {size} of {} bytes", found.size)));
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
        kernel
            .problems
            .push(format!("the config inside it and those before it have more than {MAX_CONFIGS} bytes"));
    }
    Ok(Content::Kernel(Rc::new(kernel)))
}

fn config(found: &LayerEntry, reader: &mut impl Read, budget: &mut usize) -> io::Result<Content> {
    let too_many = || Content::Unreadable(format!("{} bytes are too many for a config", found.size));
    if found.size > MAX_CONFIG {
        return Ok(too_many());
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(match String::from_utf8(bytes).ok().filter(|text| Config::parse(text).is_plausible()) {
        // Other things are called so, too.
        None if found.path == "config" => Content::Other,
        None => Content::Unreadable("it is not a kernel config".to_owned()),
        Some(text) if reserve(budget, text.len()) => Content::Config(text.into()),
        Some(_) => too_many(),
    })
}

/// Takes so many bytes of the room that is left, if they fit.
fn reserve(budget: &mut usize, bytes: usize) -> bool {
    let left = budget.checked_sub(bytes);
    *budget = left.unwrap_or(*budget);
    left.is_some()
}
