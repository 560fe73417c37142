//! Copies the images of a build from a registry into a private directory, and checks them there. All of it is
//! untrusted until the checks have passed.

use crate::image::attest;
use crate::image::inspect::ImageInfo;
use crate::image::pack::PackedImage;
use crate::image::receipt::{self, ImageCacheOrigin, ReceiptFile};
use crate::image::remote::{self, SignedPull};
use crate::image::signature::RequiredSignature;
use crate::image::tag::plan_tag;
use crate::image::verify::{self, CheckResult, VerifyCache, VerifyReport};
use crate::oci::annotations::CREATED;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::{self, Artifact, REFERRERS_SUFFIX, WrittenImage};
use crate::ops::context::Context;
use crate::plan::{Contents, ImagePlan, Plan, annotations};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::text::format_size;
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageManifest};
use std::fs;
use std::rc::Rc;

/// The limit of an image in a registry. The largest kernels have about 1 GB with all their modules.
const MAX_IMAGE: u64 = 4 << 30;

/// The annotations of an image that only its build knows.
const OF_BUILD: [&str; 4] =
    [annotations::PLAN, annotations::PAIRING, annotations::CONFIG_DIGEST, annotations::KERNEL_RELEASE];

/// An image that a build needs, and its build digest.
pub(super) struct WantedImage<'a> {
    pub image: &'a ImagePlan,
    pub tag: &'a str,
    pub build: Sha256,
}

/// The images of a build, in a private directory. All checks have passed.
pub(super) struct Candidate {
    pub images: Vec<PackedImage>,
    /// The receipt and the other documents, by the names of their files.
    pub documents: Vec<(String, Vec<u8>)>,
    /// `uname -r`.
    pub release: String,
    pub modules: usize,
    /// The digest of the plan that made the images.
    pub plan: String,
    /// The final `.config`, and its place in an image.
    pub config: String,
    pub config_path: Utf8PathBuf,
}

/// A search in one image cache.
pub(super) struct Lookup<'a> {
    pub prefix: &'a str,
    pub signature: &'a RequiredSignature,
    /// An empty directory.
    pub dir: &'a Utf8Path,
    pub plan: &'a Plan,
    pub ctx: &'a Context<'a>,
}

impl Lookup<'_> {
    /// Copies and checks the images `wanted`, of which the first is that of the kernel. Returns `None` if the
    /// registry does not have the kernel.
    ///
    /// # Errors
    ///
    /// Exit code 3 or 4: the registry or skopeo fails, or an image is not right.
    pub fn fetch(&self, wanted: &[WantedImage<'_>]) -> Result<Option<Candidate>> {
        let (kernel, others) = wanted.split_first().expect("a plan has an image of its kernel");
        let output = self.output();
        create_dir(&output)?;
        create_dir(&self.work())?;
        let Some(first) = self.pull(kernel)? else { return Ok(None) };
        let (artifacts, receipt) = self.documents(kernel, &first)?;
        let mut images = vec![first];
        for other in others {
            let is_listed = receipt.images.iter().any(|one| one.layout == other.image.layout);
            if matches!(other.image.contents, Contents::Modules { .. }) && !is_listed {
                continue;
            }
            let image = self.pull(other)?.ok_or_else(|| {
                Error::fetch(format!("it has the kernel of this build, but not {}", other.image.layout))
            })?;
            images.push(image);
        }
        for PackedImage { written, .. } in &images {
            if !receipt.images.iter().any(|one| one.digest == written.digest.oci()) {
                let layout = written.layout.file_name().unwrap_or_default();
                return Err(Error::fetch(format!("{layout} is not of the same build as the kernel")));
            }
            oci::write_referrers(&output, written, &artifacts)?;
        }
        self.write_documents(&artifacts, kernel)?;
        let infos = images.iter().map(|image| self.verify(image)).collect::<Result<Vec<_>>>()?;
        self.candidate(images, &infos, &receipt, &artifacts).map(Some)
    }

    /// Returns the directory with the layouts and documents, like an output directory.
    fn output(&self) -> Utf8PathBuf {
        self.dir.join("out")
    }

    fn work(&self) -> Utf8PathBuf {
        self.dir.join("skopeo")
    }

    fn reference(&self, wanted: &WantedImage<'_>) -> String {
        format!("docker://{}/{}:{}", self.prefix, wanted.image.layout, plan_tag(wanted.build))
    }

    /// Copies an image, if the registry has it.
    fn pull(&self, wanted: &WantedImage<'_>) -> Result<Option<PackedImage>> {
        let (reference, host) = (self.reference(wanted), self.ctx.host);
        let Some(bytes) = remote::manifest(&reference, host)? else { return Ok(None) };
        let of_image = |error: Error| error.with_prefix(&wanted.image.layout);
        let size = check_manifest(&bytes, wanted).map_err(of_image)?;
        let (layout, digest) = (self.output().join(&wanted.image.layout), Sha256::of(&bytes));
        self.copy(&reference, &layout, wanted.tag)?;
        let arch = self.plan.arch.name();
        let image =
            LayoutReader::open(&layout)?.open_image(Some(wanted.tag), Some(arch)).map_err(of_image)?;
        if image.digest != digest {
            let (now, before) = (image.digest.oci(), digest.oci());
            return Err(of_image(Error::fetch(format!("the registry served {before}, and then {now}"))));
        }
        let written = WrittenImage {
            layout,
            tag: wanted.tag.to_owned(),
            digest,
            manifest_size: bytes.len() as u64,
            size,
            architecture: arch.to_owned(),
        };
        let holds_kernel = !matches!(wanted.image.contents, Contents::Modules { .. });
        Ok(Some(PackedImage { written, holds_kernel }))
    }

    fn copy(&self, reference: &str, layout: &Utf8Path, tag: &str) -> Result<()> {
        let (signature, work) = (self.signature, &*self.work());
        SignedPull { reference, layout, tag, signature, work }.run(self.ctx.host)
    }

    /// Copies the documents that are attached to the image of the kernel.
    fn documents(
        &self,
        kernel: &WantedImage<'_>,
        image: &PackedImage,
    ) -> Result<(Vec<Artifact>, ReceiptFile)> {
        let layout = self.dir.join("attached");
        let reference = format!("{}{REFERRERS_SUFFIX}", self.reference(kernel));
        self.copy(&reference, &layout, &format!("{}{REFERRERS_SUFFIX}", kernel.tag))?;
        let path = receipt::path(&self.output(), self.plan);
        let stem = path.file_stem().expect("a receipt has a name");
        let reader = LayoutReader::open(&layout)?;
        let artifacts = attest::read_attached(&reader, kernel.tag, image.written.digest, stem)?;
        let receipt = artifacts.last().expect("the receipt is there");
        let receipt = ReceiptFile::parse(path.file_name().unwrap_or_default().into(), &receipt.bytes)?;
        Ok((artifacts, receipt))
    }

    /// Writes the documents beside the layouts. The receipt tells where the images are from.
    fn write_documents(&self, artifacts: &[Artifact], kernel: &WantedImage<'_>) -> Result<()> {
        let output = self.output();
        artifacts.iter().try_for_each(|one| write_atomically(&output.join(&one.name), &one.bytes))?;
        let key = match self.signature {
            RequiredSignature::Key(key) => Some(key.sha256.oci()),
            RequiredSignature::None => None,
        };
        let origin = ImageCacheOrigin { reference: self.reference(kernel), key };
        receipt::add_image_cache(&receipt::path(&output, self.plan), &origin)
    }

    /// Checks an image as `kcompile verify` does.
    fn verify(&self, image: &PackedImage) -> Result<Rc<ImageInfo>> {
        let WrittenImage { layout, tag, .. } = &image.written;
        let mut info = None;
        verify::verify(layout, Some(tag), &mut VerifyCache::default(), |report| {
            if let Some(problem) = first_problem(&report) {
                let layout = layout.file_name().unwrap_or_default();
                return Err(Error::fetch(format!("{layout}: {problem}")));
            }
            info = report.inspected;
            Ok(())
        })?;
        info.ok_or_else(|| Error::fetch(format!("{layout} is not an image")))
    }

    /// Checks the images against each other, and gathers what a build would know of them.
    fn candidate(
        &self,
        images: Vec<PackedImage>,
        infos: &[Rc<ImageInfo>],
        receipt: &ReceiptFile,
        artifacts: &[Artifact],
    ) -> Result<Candidate> {
        let kernel = &infos[0];
        let of_build = |info: &ImageInfo| OF_BUILD.map(|key| info.annotation(key).map(str::to_owned));
        if let Some(other) = infos.iter().find(|info| of_build(info) != of_build(kernel)) {
            let layout = other.layout.file_name().unwrap_or_default();
            return Err(Error::fetch(format!("{layout} is not of the same build as the kernel")));
        }
        let configs = infos.iter().filter_map(|info| Some((info, info.scan.kernel_config()?)));
        let expected = kernel.annotation(annotations::CONFIG_DIGEST);
        let mut configs = configs.filter(|(_, (_, text))| Some(&*Sha256::of(text).oci()) == expected);
        let Some((info, (place, config))) = configs.next() else {
            return Err(Error::fetch("the images do not have their final .config, so it cannot be checked"));
        };
        let has_modules = config.lines().any(|line| line == "CONFIG_MODULES=y");
        if has_modules && self.plan.images.len() != images.len() {
            return Err(Error::fetch("the kernel loads modules, but its receipt names no image of them"));
        }
        let output = self.output();
        let read = |name: &str| fs::read(output.join(name)).context(Kind::Build, cannot("read", name));
        let documents = artifacts.iter().map(|one| Ok((one.name.clone(), read(&one.name)?)));
        Ok(Candidate {
            documents: documents.collect::<Result<_>>()?,
            release: kernel.release.clone().unwrap_or_default(),
            modules: infos
                .iter()
                .filter_map(|info| info.modules.as_ref())
                .map(|all| all.count)
                .max()
                .unwrap_or(0),
            plan: format!("sha256:{}", receipt.plan_digest),
            config: config.to_owned(),
            config_path: format!(
                "{}:{}: {place}",
                info.layout.file_name().unwrap_or_default(),
                self.plan.tag()
            )
            .into(),
            images,
        })
    }
}

/// Returns the first problem of an image, if a check failed.
fn first_problem(report: &VerifyReport) -> Option<String> {
    report.checks.iter().find_map(|check| match &check.result {
        CheckResult::Passed { .. } | CheckResult::NotApplicable { .. } => None,
        CheckResult::Failed { problems } => problems.first().cloned(),
        CheckResult::Damaged { why } | CheckResult::Rejected { why } => Some(why.clone()),
    })
}

/// Checks that a manifest has the annotations that this machine would write, besides those that only the build
/// knows. Returns the size of its layers.
fn check_manifest(bytes: &[u8], wanted: &WantedImage<'_>) -> Result<u64> {
    let manifest: ImageManifest = serde_json::from_slice(bytes)
        .context(Kind::Fetch, || "it is not the manifest of an image".to_owned())?;
    let found = manifest.annotations().clone().unwrap_or_default();
    let mut expected = wanted.image.annotations.clone();
    expected.insert(annotations::BUILD.to_owned(), wanted.build.oci());
    for (key, value) in &expected {
        if found.get(key) != Some(value) {
            let found = found.get(key).map_or_else(|| "missing".to_owned(), |found| format!("`{found}`"));
            return Err(Error::fetch(format!("the annotation {key} is {found}, not `{value}`")));
        }
    }
    let is_known = |key: &str| expected.contains_key(key) || key == CREATED || OF_BUILD.contains(&key);
    if let Some(key) = found.keys().filter(|key| !is_known(key)).min() {
        return Err(Error::fetch(format!("the annotation {key} is not one of kcompile")));
    }
    if let Some(key) = OF_BUILD.iter().find(|key| !found.contains_key(**key)) {
        return Err(Error::fetch(format!("the annotation {key} is missing")));
    }
    let size: u64 = manifest.layers().iter().map(Descriptor::size).fold(0, u64::saturating_add);
    if size > MAX_IMAGE {
        let (size, most) = (format_size(size), format_size(MAX_IMAGE));
        return Err(Error::fetch(format!("its layers have {size}, but at most {most} are supported")));
    }
    Ok(size)
}
