//! Which images are of one build: by what they say, computed anew where it can be, and by the image beside this one.

use super::{CheckResult, Problems};
use crate::image::inspect::{ImageInfo, ReadCache, counterpart_image};
use crate::plan::annotations::{self, pairing};
use crate::util::digest::Sha256;

/// What an image says of its build, and whether that follows from its kernel and config. Of a kernel image the config,
/// of a modules image the kernel lies in the other one: what cannot be computed here is believed where the other image is
/// verified too.
pub(super) struct PairingClaim {
    /// `None`: it says nothing.
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
        let problem = claimed
            .as_ref()
            .filter(|_| differs)
            .map(|claimed| format!("the image says {claimed}, which is not of its kernel and config"));
        PairingClaim { claimed, is_computed: computed.is_some() && !differs, problem }
    }

    /// Checks it also against the image of this tag beside it.
    pub(super) fn check(&self, info: &ImageInfo, tag: Option<&str>, cache: &mut ReadCache) -> CheckResult {
        let Some(claimed) = &self.claimed else {
            return CheckResult::not_applicable("the image does not say which build it is of");
        };
        let mut problems = Problems::default();
        self.problem.iter().for_each(|problem| problems.add(problem.clone()));
        // What is wrong with it is told where it is verified itself.
        let sibling = counterpart_image(&info.layout, tag, &info.arch, cache).ok().flatten();
        let sibling = sibling.map_or_else(String::new, |other| {
            // The pairing follows from them, but can be copied without them.
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
