//! Caches what one run has read. An index, a manifest, a layer or a receipt is read once, even if
//! many tags lead to it.

use super::scan::{LayerScan, ScanLimits, scan_layer};
use crate::image::receipt::ReceiptFile;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::Image;
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The layouts and receipts that are kept.
const MAX_CACHED: usize = 64;
/// The entries of layers that are kept, which are as many as an image may have.
const MAX_ENTRIES: usize = 200_000;

/// A receipt if the file exists, or why it cannot be read.
type ReceiptResult = std::result::Result<Option<ReceiptFile>, String>;

/// What was read, and the limits for further reading.
#[derive(Default)]
pub struct ReadCache {
    limits: ScanLimits,
    layouts: BTreeMap<Utf8PathBuf, Rc<LayoutReader>>,
    receipts: BTreeMap<Utf8PathBuf, Rc<ReceiptResult>>,
    layers: BTreeMap<LayerKey, Rc<LayerScan>>,
}

/// A blob of a layout, and its expected properties. The same blob in another layout is another file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LayerKey {
    layout: Utf8PathBuf,
    digest: String,
    size: u64,
    media_type: String,
    diff_id: String,
}

impl ReadCache {
    /// Opens a layout.
    ///
    /// # Errors
    ///
    /// There is no such layout (exit code 2), or it breaks a rule (3).
    pub fn layout(&mut self, path: &Utf8Path) -> Result<Rc<LayoutReader>> {
        if let Some(cached) = self.layouts.get(path) {
            return Ok(cached.clone());
        }
        let layout = Rc::new(LayoutReader::open(path)?);
        insert(&mut self.layouts, path, layout.clone());
        Ok(layout)
    }

    pub(super) fn receipt(&mut self, path: &Utf8Path) -> Rc<ReceiptResult> {
        if let Some(cached) = self.receipts.get(path) {
            return cached.clone();
        }
        let receipt = Rc::new(ReceiptFile::read(path).map_err(|error| error.to_string()));
        insert(&mut self.receipts, path, receipt.clone());
        receipt
    }

    /// Reads the layers of an image, the lowest first.
    ///
    /// # Errors
    ///
    /// Exit code 3 if a layer is damaged or breaks a rule.
    pub fn scan(&mut self, image: &Image) -> Result<Vec<Rc<LayerScan>>> {
        self.limits.next_image();
        (0..image.layer_count()).map(|layer| self.scan_layer(image, layer)).collect()
    }

    fn scan_layer(&mut self, image: &Image, layer: usize) -> Result<Rc<LayerScan>> {
        let descriptor = &image.manifest.layers()[layer];
        let key = LayerKey {
            layout: image.layout.clone(),
            digest: descriptor.digest().to_string(),
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            diff_id: image.config.rootfs().diff_ids()[layer].clone(),
        };
        if let Some(cached) = self.layers.get(&key) {
            self.limits.take_layer(cached)?;
            return Ok(cached.clone());
        }
        let scan = Rc::new(scan_layer(image, layer, &mut self.limits)?);
        let cached: usize = self.layers.values().map(|layer| layer.entries.len()).sum();
        if cached + scan.entries.len() > MAX_ENTRIES {
            self.layers.clear();
        }
        self.layers.insert(key, scan.clone());
        Ok(scan)
    }
}

/// Keeps a value, and drops the others if there are too many.
fn insert<T>(cached: &mut BTreeMap<Utf8PathBuf, T>, path: &Utf8Path, value: T) {
    if cached.len() == MAX_CACHED {
        cached.clear();
    }
    cached.insert(path.to_owned(), value);
}
