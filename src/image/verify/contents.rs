//! What is in an image, held against itself and against what the image says: kernel, config, annotations, receipt.

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

/// The kernel is at the place that the hypervisor's configuration names, is one that the hypervisor loads on this
/// machine, and of the release that is said.
fn kernel(info: &ImageInfo, arch: Option<Arch>, origin: Origin) -> CheckResult {
    let mut problems = Problems::default();
    let Some(arch) = arch else {
        return CheckResult::not_applicable(format!("no kernel is known for {}", info.arch));
    };
    let at_path = info.kernel_path.as_ref();
    // Others may keep it elsewhere; but a link there must lead to one.
    let message = at_path.filter(|at| at.exists || origin.is_ours());
    if let Some((at, problem)) = message.and_then(|at| Some((at, at.problem.as_ref()?))) {
        problems.add(format!("there is no kernel at {}: {problem}", at.path));
    }
    if info.scan.kernels.is_empty() {
        problems.add("there is no kernel".to_owned());
    }
    if origin.is_ours() && info.scan.kernels.len() > 1 {
        problems.add(format!("it has {} kernels: an image of kcompile's has one", info.scan.kernels.len()));
    }
    let main = info.scan.main_kernel();
    // The others are what the hypervisor does not see.
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
            problems.add(format!("{label} is Linux {release}, the image says {claimed}"));
        }
    }
    let formats: Vec<&str> = info.kernels.iter().map(|kernel| kernel.format.as_str()).collect();
    let release = info.release.as_deref().unwrap_or("of no release that it tells");
    let leads_to = at_path.and_then(|at| Some(format!("; {} leads to {}", at.path, at.leads_to.as_ref()?)));
    problems.result(format!("Linux {release}, {}{}", formats.join(", "), leads_to.unwrap_or_default()))
}

/// What keeps the hypervisor from loading a kernel; where none is named, any kernel will do.
fn format_problem(format: Format, pvh: Pvh, arch: Arch, flavor: Option<Flavor>) -> Option<String> {
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
fn config(info: &ImageInfo, origin: Origin) -> CheckResult {
    let claimed = info.annotation(annotations::CONFIG_DIGEST);
    let mut problems = Problems::default();
    for (path, why) in &info.scan.unreadable_configs {
        problems.add(format!("{path}: {why}"));
    }
    let Some(config) = &info.config else {
        if origin == Origin::Kcompile(Claim::Modules) {
            problems.add("there is none beside the modules".into());
        }
        return match problems.is_empty() {
            true => CheckResult::not_applicable("there is none in this image"),
            false => problems.result(""),
        };
    };
    if let Some(claimed) = claimed.filter(|claimed| *claimed != config.sha256.oci()) {
        problems.add(format!(
            "{} has the digest {}, the image says {claimed}",
            config.place,
            config.sha256.oci()
        ));
    }
    let others = info.scan.configs.iter().filter(|_| origin.is_ours());
    for other in others.filter(|other| other.sha256 != config.sha256) {
        problems.add(format!("{} is another config than {}", other.path, config.place));
    }
    let inside = info.scan.main_kernel().into_iter();
    let mut inside =
        inside.filter_map(|(path, file)| Some((path, Sha256::of(file.kernel.config.as_deref()?))));
    if let Some((path, _)) = inside.find(|(_, sha256)| *sha256 != config.sha256) {
        problems.add(format!("{} is another config than the one inside {path}", config.place));
    }
    let claimed = if claimed.is_some() { ", as the image says" } else { "" };
    problems.result(format!("{}{claimed}", config.place))
}

/// Annotations and labels say the same, and the date is that of the image.
fn check_annotations(info: &ImageInfo) -> CheckResult {
    let mut problems = Problems::default();
    for (key, value) in &info.annotations {
        if info.labels.get(key) != Some(value) {
            problems.add(format!("the annotation {key} is no label, or another one"));
        }
    }
    for key in info.labels.keys().filter(|key| !info.annotations.contains_key(*key)) {
        problems.add(format!("the label {key} is no annotation"));
    }
    if info.annotations.get(CREATED) != info.created.as_ref() {
        problems.add("the date of the annotations is not that of the image's config".into());
    }
    let arch = info.annotations.get(annotations::ARCHITECTURE);
    if arch.is_some_and(|arch| *arch != info.arch) {
        problems.add(format!("the annotations say another architecture than {}", info.arch));
    }
    problems.result(format!("{}, also as labels", info.annotations.len()))
}

/// The receipt names this image, and says of it what it is.
pub(super) fn receipt(info: &ImageInfo, receipt: &ReceiptState) -> CheckResult {
    let (path, release, config_sha256, plan) = match receipt {
        ReceiptState::Missing => {
            return CheckResult::not_applicable("there is none beside the layout, and none attached");
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
            problems.add(format!("it says {what} {there}, the image {here}"));
        }
    };
    differs("release", info.release.clone(), release);
    differs("config", info.config.as_ref().map(|config| config.sha256.to_string()), config_sha256);
    let claimed = info.annotation(annotations::PLAN);
    differs("plan", claimed.map(|claimed| claimed.trim_start_matches("sha256:").to_owned()), plan);
    problems.result(format!("{} names this image", inspect::document_name(path, "receipt")))
}
