//! Checks the kernel, the config, the annotations and the receipt of an image against each other.

use super::origin::{Claim, Origin};
use super::{CheckName, CheckResult, Problems, modules};
use crate::image::inspect::{self, ImageInfo, KernelFile, ReceiptState};
use crate::kernel::binary::{Format, Pvh, expected_format};
use crate::kernel::{Arch, Flavor};
use crate::oci::annotations::CREATED;
use crate::plan::annotations;
use crate::util::digest::Sha256;

pub(super) fn check(info: &ImageInfo, origin: Origin, add: &mut impl FnMut(CheckName, CheckResult)) {
    let arch: Option<Arch> = info.arch.parse().ok();
    if !info.scan.kernels.is_empty() || origin == Origin::Kcompile(Claim::Kernel) {
        add(CheckName::Kernel, kernel(info, arch, origin));
    }
    if modules::are_expected(info, origin) {
        add(CheckName::Modules, modules::check(info, arch, origin));
    }
    add(CheckName::Config, config(info, origin));
    if origin.is_ours() {
        add(CheckName::Annotations, check_annotations(info));
    }
}

/// Checks that the kernel is at the path of the hypervisor's configuration, that the hypervisor can load it,
/// and that its release is the annotated one.
fn kernel(info: &ImageInfo, arch: Option<Arch>, origin: Origin) -> CheckResult {
    let mut problems = Problems::default();
    let Some(arch) = arch else {
        return CheckResult::not_applicable(format!("kernels for {} are not known", info.arch));
    };
    let at_path = info.kernel_path.as_ref();
    // Images of others may have the kernel elsewhere, but a link must lead to one.
    let checked_path = at_path.filter(|at| at.exists || origin.is_ours());
    if let Some((at, problem)) = checked_path.and_then(|at| Some((at, at.problem.as_ref()?))) {
        problems.add(format!("there is no kernel at {}: {problem}", at.path));
    }
    if info.scan.kernels.is_empty() {
        problems.add("there is no kernel".to_owned());
    }
    if origin.is_ours() && info.scan.kernels.len() > 1 {
        problems
            .add(format!("there are {} kernels, but an image of kcompile has one", info.scan.kernels.len()));
    }
    let main = info.scan.main_kernel();
    // The hypervisor does not use the other kernels.
    let checked = main.into_iter().chain(info.scan.kernels.iter().filter(|_| main.is_none()));
    for (path, KernelFile { kernel, .. }) in checked {
        let leads_to = at_path.filter(|_| main.is_some()).and_then(|at| Some((at, at.leads_to.as_ref()?)));
        let label = leads_to.map_or(path.clone(), |(at, to)| format!("{} ({to})", at.path));
        kernel.problems.iter().for_each(|problem| problems.add(format!("{label}: {problem}")));
        if let Some(problem) = format_problem(kernel.identity.format, kernel.identity.pvh, arch, info.flavor)
        {
            problems.add(format!("{label} {problem}"));
        }
        let claimed = info.annotation(annotations::KERNEL_RELEASE);
        if let (Some(release), Some(claimed)) = (kernel.release(), claimed)
            && release != claimed
        {
            problems.add(format!("{label} is Linux {release}, but the annotation says {claimed}"));
        }
    }
    let formats: Vec<&str> = info.kernels.iter().map(|kernel| kernel.format.as_str()).collect();
    let release = info.release.as_deref().unwrap_or("of an unknown release");
    let leads_to = at_path.and_then(|at| Some(format!("; {} leads to {}", at.path, at.leads_to.as_ref()?)));
    problems.result(format!("Linux {release}, {}{}", formats.join(", "), leads_to.unwrap_or_default()))
}

/// Returns why the hypervisor cannot load a kernel. If the hypervisor is unknown, every kernel passes.
fn format_problem(format: Format, pvh: Pvh, arch: Arch, flavor: Option<Flavor>) -> Option<String> {
    let expected = expected_format(arch);
    let is_kernel =
        matches!(format, Format::Elf { .. } | Format::BzImage | Format::Image { .. } | Format::Gzip);
    if format != expected && !(flavor.is_none() && is_kernel) {
        return Some(format!("is not {expected}: it is {format}"));
    }
    let flavor = flavor.filter(|flavor| flavor.requires_pvh(arch) && pvh == Pvh::NoEntry)?;
    Some(format!("has no PVH note, so {} would not load it", flavor.spec().title))
}

/// Checks the config against its annotated digest, and that all configs of the image are the same.
fn config(info: &ImageInfo, origin: Origin) -> CheckResult {
    let claimed = info.annotation(annotations::CONFIG_DIGEST);
    let mut problems = Problems::default();
    for (path, why) in &info.scan.unreadable_configs {
        problems.add(format!("{path}: {why}"));
    }
    let Some(config) = &info.config else {
        if origin == Origin::Kcompile(Claim::Modules) {
            problems.add("there is no config beside the modules".into());
        }
        if problems.is_empty() {
            return CheckResult::not_applicable("the image has no config");
        }
        return problems.result("");
    };
    if let Some(claimed) = claimed.filter(|claimed| *claimed != config.sha256.oci()) {
        problems.add(format!(
            "{} has the digest {}, but the annotation says {claimed}",
            config.place,
            config.sha256.oci()
        ));
    }
    let others = info.scan.configs.iter().filter(|_| origin.is_ours());
    for other in others.filter(|other| other.sha256 != config.sha256) {
        problems.add(format!("{} differs from {}", other.path, config.place));
    }
    let inside = info.scan.main_kernel().into_iter();
    let mut inside =
        inside.filter_map(|(path, file)| Some((path, Sha256::of(file.kernel.config.as_deref()?))));
    if let Some((path, _)) = inside.find(|(_, sha256)| *sha256 != config.sha256) {
        problems.add(format!("{} differs from the config inside {path}", config.place));
    }
    let claimed = if claimed.is_some() { ", as annotated" } else { "" };
    problems.result(format!("{}{claimed}", config.place))
}

/// Checks that annotations and labels are the same, and that the date is that of the image.
fn check_annotations(info: &ImageInfo) -> CheckResult {
    let mut problems = Problems::default();
    for (key, value) in &info.annotations {
        if info.labels.get(key) != Some(value) {
            problems.add(format!("the label of the annotation {key} is missing or differs"));
        }
    }
    for key in info.labels.keys().filter(|key| !info.annotations.contains_key(*key)) {
        problems.add(format!("the label {key} has no annotation"));
    }
    if info.annotations.get(CREATED) != info.created.as_ref() {
        problems.add("the date in the annotations is not that of the image's config".into());
    }
    let arch = info.annotations.get(annotations::ARCHITECTURE);
    if arch.is_some_and(|arch| *arch != info.arch) {
        problems.add(format!("the architecture in the annotations is not {}", info.arch));
    }
    problems.result(format!("{}, also as labels", info.annotations.len()))
}

/// Checks that the receipt names this image and agrees with it.
pub(super) fn receipt(info: &ImageInfo, receipt: &ReceiptState) -> CheckResult {
    let (path, release, config_sha256, plan) = match receipt {
        ReceiptState::Missing => {
            return CheckResult::not_applicable("no receipt is beside the layout or attached");
        }
        ReceiptState::Mismatched { path } => {
            let name = path.file_name().unwrap_or_default();
            return CheckResult::not_applicable(format!("{name} is of another build of this version"));
        }
        ReceiptState::Unreadable { why } => return CheckResult::Failed { problems: vec![why.clone()] },
        ReceiptState::Matching { path, release, config_sha256, plan, .. } => {
            (path, release, config_sha256, plan)
        }
    };
    let mut problems = Problems::default();
    let mut differs = |what: &str, here: Option<String>, there: &str| {
        if let Some(here) = here.filter(|here| !there.is_empty() && here != there) {
            problems.add(format!("the receipt has the {what} {there}, the image {here}"));
        }
    };
    differs("release", info.release.clone(), release);
    differs("config", info.config.as_ref().map(|config| config.sha256.to_string()), config_sha256);
    let claimed = info.annotation(annotations::PLAN);
    differs("plan", claimed.map(|claimed| claimed.trim_start_matches("sha256:").to_owned()), plan);
    problems.result(format!("{} names this image", inspect::document_name(path, "receipt")))
}
