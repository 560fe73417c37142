//! Checks which images are of one build, by their annotations, their content and the image beside them.

use super::{CheckResult, Problems};
use crate::image::inspect::{ImageInfo, ReadCache, counterpart_image};
use crate::plan::annotations::{self, pairing};
use crate::util::digest::Sha256;

/// The annotated pairing of an image, and whether it follows from the kernel and the config. An image without
/// a kernel cannot be computed here, but only together with the kernel's image.
pub(super) struct PairingClaim {
    claimed: Option<String>,
    is_computed: bool,
    problem: Option<String>,
}

impl PairingClaim {
    pub(super) fn of(info: &ImageInfo) -> PairingClaim {
        let claimed = info.annotation(annotations::PAIRING).map(str::to_owned);
        let config: Option<Sha256> =
            info.annotation(annotations::CONFIG_DIGEST).and_then(|digest| digest.parse().ok());
        let computed = match (info.scan.main_kernel(), config, &info.release) {
            (Some((_, kernel)), Some(config), Some(release)) => {
                Some(pairing(release, kernel.sha256, config).oci())
            }
            _ => None,
        };
        let differs = computed.is_some() && computed != claimed;
        let problem = claimed.as_ref().filter(|_| differs).map(|claimed| {
            format!("the annotation says {claimed}, which does not follow from kernel and config")
        });
        PairingClaim { claimed, is_computed: computed.is_some() && !differs, problem }
    }

    /// Checks the pairing, also against the image with this tag beside it.
    pub(super) fn check(&self, info: &ImageInfo, tag: Option<&str>, cache: &mut ReadCache) -> CheckResult {
        let Some(claimed) = &self.claimed else {
            return CheckResult::not_applicable("the image has no annotation about its build");
        };
        let mut problems = Problems::default();
        self.problem.iter().for_each(|problem| problems.add(problem.clone()));
        // Its own problems are reported when it is verified.
        let sibling = counterpart_image(&info.layout, tag, &info.arch, cache).ok().flatten();
        let sibling = sibling.map_or_else(String::new, |other| {
            // The pairing could have been copied without the values that it follows from.
            let of_build = [annotations::PAIRING, annotations::CONFIG_DIGEST, annotations::KERNEL_RELEASE];
            if of_build.iter().all(|key| other.annotation(key) == info.annotation(key)) {
                return format!(", the same in {}", other.layout.file_name().unwrap_or_default());
            }
            problems.add(format!("{} is of another build", other.layout));
            String::new()
        });
        let short: String = claimed.chars().take("sha256:".len() + 12).collect();
        let computed = if self.is_computed { ", computed from the kernel" } else { "" };
        problems.result(format!("{short}…{computed}{sibling}"))
    }
}
