//! What is in an image, held against itself and against what the image says: kernel, modules, config,
//! annotations, pairing, receipt.

use super::{Faults, Outcome, Subject, Verified};
use crate::image::inspect::{self, Inspected, KernelFile, ReceiptFound};
use crate::kernel::Arch;
use crate::kernel::binary::{Format, Pvh, expected_format};
use crate::oci::annotations::CREATED;
use crate::oci::read::Image;
use crate::plan::annotations::{self, pairing};
use crate::util::digest::Sha256;
use crate::util::text::counted;

pub(super) fn check(image: &Image, found: &Inspected, is_ours: bool, verified: &mut Verified) {
    let arch: Option<Arch> = found.arch.parse().ok();
    if !found.survey.kernels.is_empty() {
        verified.add(Subject::Kernel, kernel(found, arch));
    }
    if found.modules.is_some() {
        verified.add(Subject::Modules, modules(found, arch));
    }
    verified.add(Subject::Config, config(found));
    if is_ours {
        verified.add(Subject::Annotations, said(found));
    }
    verified.add(Subject::Pairing, paired(image, found));
    verified.add(Subject::Receipt, receipt(found));
}

/// The kernel file is one that the hypervisor loads on this machine, and of the release that is said.
fn kernel(found: &Inspected, arch: Option<Arch>) -> Outcome {
    let mut faults = Faults::default();
    let Some(arch) = arch else {
        return Outcome::NotSaid { detail: format!("no kernel is known for {}", found.arch) };
    };
    for (path, KernelFile { kernel, .. }) in &found.survey.kernels {
        let identity = &kernel.identity;
        let expected = expected_format(arch);
        if identity.format != expected {
            faults.add(format!("{path} is not {expected}: it is {}", identity.format));
        } else if let Some(flavor) = found.flavor.filter(|flavor| flavor.requires_pvh(arch))
            && identity.pvh == Pvh::NoEntry
        {
            faults.add(format!("{path} has no PVH note: {} would not load it", flavor.spec().title));
        }
        let said = found.annotations.get(annotations::KERNEL_RELEASE).map(String::as_str);
        if let (Some(release), Some(said)) = (kernel.release(), said)
            && release != said
        {
            faults.add(format!("{path} is Linux {release}, the image says {said}"));
        }
    }
    let formats: Vec<&str> = found.kernels.iter().map(|kernel| kernel.format.as_str()).collect();
    let release = found.release.as_deref().unwrap_or("of no release that it tells");
    faults.outcome(format!("Linux {release}, {}", formats.join(", ")))
}

/// Every module is for this machine and for the kernel of this release, which would refuse others.
fn modules(found: &Inspected, arch: Option<Arch>) -> Outcome {
    let mut faults = Faults::default();
    let survey = &found.survey;
    // In a modules image it is the directory that modprobe looks in for the kernel of this release.
    let said = found.annotations.get(annotations::KERNEL_RELEASE);
    let release = found.release.as_deref();
    for dir in survey.module_dirs.iter().filter(|dir| Some(dir.as_str()) != release) {
        faults.add(format!("lib/modules/{dir} is for another kernel than {}", release.unwrap_or("any")));
    }
    if let (Some(release), Some(said)) = (release, said)
        && release != said
    {
        faults.add(format!("the modules are for Linux {release}, the image says {said}"));
    }
    let machine = arch.map(|arch| Format::Elf { machine: arch.spec().elf_machine });
    for (path, file) in &survey.modules {
        let module = &file.module;
        if machine.is_some_and(|machine| machine != module.format) {
            faults.add(format!("{path} is no module for {}: it is {}", found.arch, module.format));
            continue;
        }
        match module.release() {
            None => faults.add(format!("{path} does not say for which kernel it is (no vermagic)")),
            Some(of) if Some(of) != release => {
                faults.add(format!("{path} is for Linux {of}, not {}", release.unwrap_or("any")));
            }
            Some(_) => {}
        }
    }
    if !survey.files.keys().any(|path| path.ends_with("modules.dep")) {
        faults.add("there is no modules.dep: modprobe would find none of them".into());
    }
    let count = counted(survey.modules.len(), "module", "modules");
    faults.outcome(format!("{count} for Linux {} on {}", release.unwrap_or_default(), found.arch))
}

/// The config is the one that is said, and where there are two they are the same.
fn config(found: &Inspected) -> Outcome {
    let said = found.annotations.get(annotations::CONFIG_DIGEST);
    let Some(config) = &found.config else {
        return Outcome::NotSaid { detail: "there is none in this image".into() };
    };
    let mut faults = Faults::default();
    if let Some(said) = said.filter(|said| **said != config.sha256.oci()) {
        faults.add(format!("{} has the digest {}, the image says {said}", config.place, config.sha256.oci()));
    }
    let mut inside = found
        .survey
        .kernels
        .iter()
        .filter_map(|(path, file)| Some((path, Sha256::of(file.kernel.config.as_deref()?))));
    if let Some((path, _)) = inside.find(|(_, sha256)| *sha256 != config.sha256) {
        faults.add(format!("{} is another config than the one inside {path}", config.place));
    }
    let said = if said.is_some() { ", as the image says" } else { "" };
    faults.outcome(format!("{}{said}", config.place))
}

/// Annotations and labels say the same, and the date is that of the image.
fn said(found: &Inspected) -> Outcome {
    let mut faults = Faults::default();
    for (key, value) in &found.annotations {
        if found.labels.get(key) != Some(value) {
            faults.add(format!("the annotation {key} is no label, or another one"));
        }
    }
    for key in found.labels.keys().filter(|key| !found.annotations.contains_key(*key)) {
        faults.add(format!("the label {key} is no annotation"));
    }
    if found.annotations.get(CREATED) != found.created.as_ref() {
        faults.add("the date of the annotations is not that of the image's config".into());
    }
    let arch = found.annotations.get(annotations::ARCHITECTURE);
    if arch.is_some_and(|arch| *arch != found.arch) {
        faults.add(format!("the annotations say another architecture than {}", found.arch));
    }
    faults.outcome(format!("{}, also as labels", found.annotations.len()))
}

/// What the image says of its build follows from its kernel and config; and the image beside it says the
/// same. Of a kernel image the config, of a modules image the kernel lies in the other one: what cannot be
/// computed here is believed where the other image is verified too.
fn paired(image: &Image, found: &Inspected) -> Outcome {
    let Some(said) = found.annotations.get(annotations::PAIRING) else {
        return Outcome::NotSaid { detail: "the image does not say which build it is of".into() };
    };
    let mut faults = Faults::default();
    let config: Option<Sha256> =
        found.annotations.get(annotations::CONFIG_DIGEST).and_then(|digest| digest.parse().ok());
    let mut proven = "";
    if let (Some(kernel), Some(config), Some(release)) = (found.kernels.first(), config, &found.release) {
        match pairing(release, kernel.sha256, config).oci() == *said {
            true => proven = ", computed from the kernel",
            false => faults.add(format!("the image says {said}, which is not of its kernel and config")),
        }
    }
    let (tag, arch) = (image.tag.as_deref(), image.config.architecture().to_string());
    // What is wrong with it is told where it is verified itself.
    let beside = inspect::counterpart_image(&image.layout, tag, &arch).ok().flatten();
    let beside = match beside {
        None => String::new(),
        Some(other) => {
            // The pairing follows from them, but can be copied without them.
            let of_build = [annotations::PAIRING, annotations::CONFIG_DIGEST, annotations::KERNEL_RELEASE];
            let says =
                |key: &&str| other.own_annotation(key) == found.annotations.get(*key).map(String::as_str);
            match of_build.iter().all(says) {
                true => format!(", the same in {}", other.layout.file_name().unwrap_or_default()),
                false => {
                    faults.add(format!("{} is of another build", other.layout));
                    String::new()
                }
            }
        }
    };
    let short: String = said.chars().take("sha256:".len() + 12).collect();
    faults.outcome(format!("{short}…{proven}{beside}"))
}

/// The receipt names this image, and says of it what it is.
fn receipt(found: &Inspected) -> Outcome {
    let (path, release, config_sha256, plan) = match &found.receipt {
        ReceiptFound::Absent => {
            return Outcome::NotSaid { detail: "there is none beside the layout, and none attached".into() };
        }
        ReceiptFound::OfAnother { path } => {
            let name = path.file_name().unwrap_or_default();
            return Outcome::NotSaid { detail: format!("{name} is of another build of this version") };
        }
        ReceiptFound::Unreadable { why } => return Outcome::Fails { faults: vec![why.clone()] },
        ReceiptFound::Of { path, release, config_sha256, plan, .. } => (path, release, config_sha256, plan),
    };
    let mut faults = Faults::default();
    let mut differs = |what: &str, here: Option<String>, there: &str| {
        if let Some(here) = here.filter(|here| !there.is_empty() && here != there) {
            faults.add(format!("it says {what} {there}, the image {here}"));
        }
    };
    differs("release", found.release.clone(), release);
    differs("config", found.config.as_ref().map(|config| config.sha256.to_string()), config_sha256);
    let said = found.annotations.get(annotations::PLAN);
    differs("plan", said.map(|said| said.trim_start_matches("sha256:").to_owned()), plan);
    faults.outcome(format!("{} names this image", inspect::document_name(path, "receipt")))
}
