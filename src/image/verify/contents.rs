//! What is in an image, held against itself and against what the image says: kernel, config, annotations, receipt.

use super::origin::{Claim, Origin};
use super::{Outcome, Problems, Subject, modules};
use crate::image::inspect::{self, Inspected, KernelFile, ReceiptFound};
use crate::kernel::binary::{Format, Pvh, expected_format};
use crate::kernel::{Arch, Flavor};
use crate::oci::annotations::CREATED;
use crate::plan::annotations;
use crate::util::digest::Sha256;

pub(super) fn check(found: &Inspected, origin: Origin, add: &mut impl FnMut(Subject, Outcome)) {
    let arch: Option<Arch> = found.arch.parse().ok();
    if !found.survey.kernels.is_empty() || origin == Origin::Kcompile(Claim::Kernel) {
        add(Subject::Kernel, kernel(found, arch, origin));
    }
    if modules::are_expected(found, origin) {
        add(Subject::Modules, modules::check(found, arch, origin));
    }
    add(Subject::Config, config(found, origin));
    if origin.is_ours() {
        add(Subject::Annotations, said(found));
    }
}

/// The kernel is at the place that the hypervisor's configuration names, is one that the hypervisor loads on this
/// machine, and of the release that is said.
fn kernel(found: &Inspected, arch: Option<Arch>, origin: Origin) -> Outcome {
    let mut problems = Problems::default();
    let Some(arch) = arch else {
        return Outcome::not_said(format!("no kernel is known for {}", found.arch));
    };
    let at_path = found.kernel_path.as_ref();
    // Others may keep it elsewhere; but a link there must lead to one.
    let wrong = at_path.filter(|at| at.exists || origin.is_ours());
    if let Some((at, problem)) = wrong.and_then(|at| Some((at, at.problem.as_ref()?))) {
        problems.add(format!("there is no kernel at {}: {problem}", at.path));
    }
    if found.survey.kernels.is_empty() {
        problems.add("there is no kernel".to_owned());
    }
    if origin.is_ours() && found.survey.kernels.len() > 1 {
        problems
            .add(format!("it has {} kernels: an image of kcompile's has one", found.survey.kernels.len()));
    }
    let main = found.survey.main_kernel();
    // The others are what the hypervisor does not see.
    let checked = main.into_iter().chain(found.survey.kernels.iter().filter(|_| main.is_none()));
    for (path, KernelFile { kernel, .. }) in checked {
        let leads_to = at_path.filter(|_| main.is_some()).and_then(|at| Some((at, at.leads_to.as_ref()?)));
        let shown = leads_to.map_or(path.clone(), |(at, to)| format!("{} ({to})", at.path));
        kernel.problems.iter().for_each(|problem| problems.add(format!("{shown}: {problem}")));
        if let Some(problem) = wrong_format(kernel.identity.format, kernel.identity.pvh, arch, found.flavor) {
            problems.add(format!("{shown} {problem}"));
        }
        let said = found.says(annotations::KERNEL_RELEASE);
        if let (Some(release), Some(said)) = (kernel.release(), said)
            && release != said
        {
            problems.add(format!("{shown} is Linux {release}, the image says {said}"));
        }
    }
    let formats: Vec<&str> = found.kernels.iter().map(|kernel| kernel.format.as_str()).collect();
    let release = found.release.as_deref().unwrap_or("of no release that it tells");
    let leads_to = at_path.and_then(|at| Some(format!("; {} leads to {}", at.path, at.leads_to.as_ref()?)));
    problems.outcome(format!("Linux {release}, {}{}", formats.join(", "), leads_to.unwrap_or_default()))
}

/// What keeps the hypervisor from loading a kernel; where none is named, any kernel will do.
fn wrong_format(format: Format, pvh: Pvh, arch: Arch, flavor: Option<Flavor>) -> Option<String> {
    let expected = expected_format(arch);
    let is_kernel =
        matches!(format, Format::Elf { .. } | Format::BzImage | Format::Image { .. } | Format::Gzip);
    if format != expected && !(flavor.is_none() && is_kernel) {
        return Some(format!("is not {expected}: it is {format}"));
    }
    let flavor = flavor.filter(|flavor| flavor.requires_pvh(arch) && pvh == Pvh::NoEntry)?;
    Some(format!("has no PVH note: {} would not load it", flavor.spec().title))
}

/// The config is the one that is said, and where there are two they are the same.
fn config(found: &Inspected, origin: Origin) -> Outcome {
    let said = found.says(annotations::CONFIG_DIGEST);
    let mut problems = Problems::default();
    for (path, why) in &found.survey.unreadable_configs {
        problems.add(format!("{path}: {why}"));
    }
    let Some(config) = &found.config else {
        if origin == Origin::Kcompile(Claim::Modules) {
            problems.add("there is none beside the modules".into());
        }
        return match problems.is_empty() {
            true => Outcome::not_said("there is none in this image"),
            false => problems.outcome(""),
        };
    };
    if let Some(said) = said.filter(|said| *said != config.sha256.oci()) {
        problems.add(format!(
            "{} has the digest {}, the image says {said}",
            config.place,
            config.sha256.oci()
        ));
    }
    let others = found.survey.configs.iter().filter(|_| origin.is_ours());
    for other in others.filter(|other| other.sha256 != config.sha256) {
        problems.add(format!("{} is another config than {}", other.path, config.place));
    }
    let inside = found.survey.main_kernel().into_iter();
    let mut inside =
        inside.filter_map(|(path, file)| Some((path, Sha256::of(file.kernel.config.as_deref()?))));
    if let Some((path, _)) = inside.find(|(_, sha256)| *sha256 != config.sha256) {
        problems.add(format!("{} is another config than the one inside {path}", config.place));
    }
    let said = if said.is_some() { ", as the image says" } else { "" };
    problems.outcome(format!("{}{said}", config.place))
}

/// Annotations and labels say the same, and the date is that of the image.
fn said(found: &Inspected) -> Outcome {
    let mut problems = Problems::default();
    for (key, value) in &found.annotations {
        if found.labels.get(key) != Some(value) {
            problems.add(format!("the annotation {key} is no label, or another one"));
        }
    }
    for key in found.labels.keys().filter(|key| !found.annotations.contains_key(*key)) {
        problems.add(format!("the label {key} is no annotation"));
    }
    if found.annotations.get(CREATED) != found.created.as_ref() {
        problems.add("the date of the annotations is not that of the image's config".into());
    }
    let arch = found.annotations.get(annotations::ARCHITECTURE);
    if arch.is_some_and(|arch| *arch != found.arch) {
        problems.add(format!("the annotations say another architecture than {}", found.arch));
    }
    problems.outcome(format!("{}, also as labels", found.annotations.len()))
}

/// The receipt names this image, and says of it what it is.
pub(super) fn receipt(found: &Inspected, receipt: &ReceiptFound) -> Outcome {
    let (path, release, config_sha256, plan) = match receipt {
        ReceiptFound::Absent => {
            return Outcome::not_said("there is none beside the layout, and none attached");
        }
        ReceiptFound::OfAnother { path } => {
            let name = path.file_name().unwrap_or_default();
            return Outcome::not_said(format!("{name} is of another build of this version"));
        }
        ReceiptFound::Unreadable { why } => return Outcome::Fails { faults: vec![why.clone()] },
        ReceiptFound::Of { path, release, config_sha256, plan, .. } => (path, release, config_sha256, plan),
    };
    let mut problems = Problems::default();
    let mut differs = |what: &str, here: Option<String>, there: &str| {
        if let Some(here) = here.filter(|here| !there.is_empty() && here != there) {
            problems.add(format!("it says {what} {there}, the image {here}"));
        }
    };
    differs("release", found.release.clone(), release);
    differs("config", found.config.as_ref().map(|config| config.sha256.to_string()), config_sha256);
    let said = found.says(annotations::PLAN);
    differs("plan", said.map(|said| said.trim_start_matches("sha256:").to_owned()), plan);
    problems.outcome(format!("{} names this image", inspect::document_name(path, "receipt")))
}
