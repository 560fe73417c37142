//! Finds what CVE records are joined with: an image, the images of a receipt, or only a version.

use crate::cve::{CompiledFiles, Product, Subject};
use crate::image::attest::COMPILED_SUFFIX;
use crate::image::inspect::{self, ReadCache};
use crate::image::receipt::ReceiptFile;
use crate::kernel::KernelVersion;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::Image;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};

/// A kernel that CVE records are joined with.
pub struct CveTarget {
    pub version: KernelVersion,
    /// The files that were compiled, and where that is written.
    pub compiled: Option<(Utf8PathBuf, CompiledFiles)>,
    /// The images of the kernel.
    pub images: Vec<Image>,
    /// What the reader must know about the verdicts.
    pub notes: Vec<String>,
}

impl CveTarget {
    /// Returns a kernel of which only the version is known.
    pub fn of_version(version: KernelVersion) -> CveTarget {
        CveTarget { version, compiled: None, images: Vec::new(), notes: Vec::new() }.with_notes()
    }

    /// Returns the kernel of an image.
    ///
    /// # Errors
    ///
    /// Exit code 2: the image does not name its kernel's version.
    pub fn of_image(image: Image) -> Result<CveTarget> {
        let mut cache = ReadCache::default();
        let compiled = inspect::compiled_files(&image, &mut cache)?;
        let version = match &compiled {
            Some((_, files)) => Some(files.version),
            None => {
                let found = inspect::inspect(&image)?;
                let version = found.version.and_then(|version| version.parse().ok());
                version.or_else(|| KernelVersion::from_release(&found.release?))
            }
        };
        let version = version.ok_or_else(|| {
            Error::usage(format!("{}: the image does not say which kernel it has", image.layout))
        })?;
        Ok(CveTarget { version, compiled, images: vec![image], notes: Vec::new() }.with_notes())
    }

    /// Returns the kernel of a receipt, or of a list of compiled files.
    ///
    /// # Errors
    ///
    /// Exit code 3: the file is neither.
    pub fn of_file(path: &Utf8Path) -> Result<CveTarget> {
        if path.as_str().ends_with(COMPILED_SUFFIX) {
            let files = read_compiled(path)?;
            let target = CveTarget {
                version: files.version,
                compiled: Some((path.to_owned(), files)),
                images: Vec::new(),
                notes: Vec::new(),
            };
            return Ok(target.with_notes());
        }
        let receipt =
            ReceiptFile::read(path)?.ok_or_else(|| Error::usage(format!("{path} does not exist")))?;
        let version = KernelVersion::from_release(&receipt.kernel_release).ok_or_else(|| {
            Error::usage(format!("{path} is not the receipt of a build"))
                .hint("give an image as LAYOUT[:TAG], a receipt or a kernel version")
        })?;
        let sibling = path.with_extension(COMPILED_SUFFIX);
        let compiled = if sibling.exists() { Some(read_compiled(&sibling)?) } else { None };
        let plan = receipt.plan_digest.parse::<Sha256>().ok();
        let compiled = compiled.filter(|files| Some(files.plan) == plan).map(|files| (sibling, files));
        let images = images_of(&receipt, path.parent().unwrap_or("/".into()))?;
        Ok(CveTarget { version, compiled, images, notes: Vec::new() }.with_notes())
    }

    /// Takes the compiled files of another target, whose kernel may have another version.
    pub fn with_files_of(self, other: CveTarget) -> CveTarget {
        let notes = match &other.compiled {
            Some(_) => vec![format!("judged with the files that Linux {} compiled", other.version)],
            None => Vec::new(),
        };
        CveTarget { compiled: other.compiled, notes, ..self }
    }

    fn with_notes(mut self) -> CveTarget {
        let version = self.version;
        let Some((_, files)) = &self.compiled else {
            self.notes.push("no list of compiled files: all verdicts are by the version alone".to_owned());
            return self;
        };
        if files.source.patches > 0 {
            let patches = crate::util::text::pluralize(files.source.patches, "patch was", "patches were");
            self.notes
                .push(format!("{patches} applied, but the kernel is judged as Linux {version} without them"));
        }
        match &*files.source.kind {
            "apt" => self.notes.push(format!(
                "the source is a distribution's package, judged as Linux {version}; the distribution may have \
                 fixed more"
            )),
            "git" | "directory" => self.notes.push(format!(
                "the source is judged as Linux {version}; it may have other changes than that release"
            )),
            _ => {}
        }
        self
    }

    pub fn subject(&self) -> Subject<'_> {
        Subject { version: self.version, compiled: self.compiled.as_ref().map(|(_, files)| files) }
    }

    /// Returns the images as the SBOM names them.
    pub fn products(&self) -> Vec<Product> {
        let product = |image: &Image| {
            let name = image.layout.file_name().unwrap_or_default();
            let arch = image.config.architecture();
            let tag = image.tag.as_ref().map_or_else(String::new, |tag| format!("&tag={tag}"));
            let purl = format!("pkg:oci/{name}@{}?arch={arch}{tag}", image.digest.oci());
            Product { purl, digest: image.digest }
        };
        self.images.iter().map(product).collect()
    }
}

fn read_compiled(path: &Utf8Path) -> Result<CompiledFiles> {
    let bytes = read_file(path, Links::Follow, MAX_JSON).context(Kind::Fetch, cannot("read", path))?;
    CompiledFiles::from_bytes(path.as_str(), &bytes)
}

/// Opens the images of a receipt that are still in its directory.
fn images_of(receipt: &ReceiptFile, dir: &Utf8Path) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for one in &receipt.images {
        // The receipt may name any path.
        let layout = dir.join(one.layout.rsplit('/').next().unwrap_or_default());
        if !layout.join("index.json").is_file() {
            continue;
        }
        let reader = LayoutReader::open(&layout)?;
        if reader.find(&one.tag).is_none() {
            continue;
        }
        for found in reader.images(Some(&one.tag))? {
            let image = reader.image(&found)?;
            if image.digest.oci() == one.digest {
                images.push(image);
            }
        }
    }
    Ok(images)
}
