//! The tags by which `--image-cache` finds images, `plan-` and the build digest. Only images that a toolchain
//! image built have a build digest. Their attachments get `plan-…-attest`.

use super::{ImageCopy, TagKind};
use crate::image::tag::plan_tag;
use crate::oci::REFERRERS_SUFFIX;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::tags::TaggedKind;
use crate::plan::annotations;
use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use std::collections::BTreeMap;

/// The images of a push that have a build digest, and the attachments of all images.
#[derive(Default)]
pub(super) struct PlanTags {
    /// By the digest of the image. The same image may have several tags.
    images: BTreeMap<Sha256, PlanTag>,
    attachments: BTreeMap<Sha256, ImageCopy>,
}

struct PlanTag {
    tag: String,
    copy: ImageCopy,
}

impl PlanTags {
    /// Adds a copy of the push.
    pub(super) fn add(&mut self, copy: &ImageCopy) -> Result<()> {
        match copy.tagged.kind {
            TaggedKind::Image => {
                let reader = LayoutReader::open(&copy.layout)?;
                for manifest_ref in reader.images(Some(&copy.tagged.tag))? {
                    let image = reader.image(&manifest_ref)?;
                    // Labels do not count, because images that are built on top of it inherit them.
                    let annotations = image.manifest.annotations().as_ref();
                    let build = annotations.and_then(|all| all.get(annotations::BUILD)?.parse().ok());
                    if let Some(build) = build {
                        let tag = PlanTag { tag: plan_tag(build), copy: copy.clone() };
                        self.images.entry(image.digest).or_insert(tag);
                    }
                }
            }
            TaggedKind::ReferrersIndex(subject) => {
                self.attachments.entry(subject).or_insert_with(|| copy.clone());
            }
            TaggedKind::Index | TaggedKind::Referrer(_) => {}
        }
        Ok(())
    }

    /// Returns the copies under the additional tags. An image whose receipt is not pushed gets none, because the
    /// receipt tells others which images belong together.
    pub(super) fn copies(self, reporter: &Reporter) -> Vec<ImageCopy> {
        let mut copies = BTreeMap::new();
        for (digest, PlanTag { tag, copy }) in self.images {
            let Some(attachment) = self.attachments.get(&digest) else {
                reporter.note(&format!(
                    "{}:{} gets no tag for --image-cache, because its receipt is not pushed",
                    copy.layout, copy.tagged.tag
                ));
                continue;
            };
            // The attachments go first, so that nobody finds the image without them.
            let attached = format!("{tag}{REFERRERS_SUFFIX}");
            let attached = ImageCopy { tag: attached, kind: TagKind::Own, ..attachment.clone() };
            let image = ImageCopy { tag, kind: TagKind::Plan, ..copy };
            copies.insert(image.destination(), [attached, image]);
        }
        copies.into_values().flatten().collect()
    }
}
