//! Checks the modules of an image, and the files that depmod and Kbuild write beside them.

use super::origin::{Claim, Origin};
use super::{CheckResult, Problems};
use crate::image::inspect::{ImageInfo, release_of_module};
use crate::kernel::binary::Format;
use crate::kernel::{Arch, KernelVersion, depmod};
use crate::plan::annotations;
use crate::util::text::pluralize;
use std::collections::BTreeSet;

/// The files that Kbuild installs since Linux 2.6.34.
const KBUILD_FILES: [&str; 2] = ["modules.builtin", "modules.order"];
/// The file that Kbuild installs since Linux 5.2.
const BUILTIN_MODINFO: (&str, (u32, u32)) = ("modules.builtin.modinfo", (5, 2));

/// Checks that every module is for this architecture and for this release, because
/// the kernel would refuse others.
pub(super) fn check(info: &ImageInfo, arch: Option<Arch>, origin: Origin) -> CheckResult {
    let mut problems = Problems::default();
    let scan = &info.scan;
    let release = info.release.as_deref();
    check_directories(info, origin, &mut problems);
    for (path, why) in &scan.unreadable_modules {
        problems.add(format!("{path} cannot be read as a module: {why}"));
    }
    let machine = arch.map(|arch| Format::Elf { machine: arch.spec().elf_machine });
    for (path, file) in &scan.modules {
        let module = &file.module;
        if machine.is_some_and(|machine| machine != module.format) {
            problems.add(format!("{path} is not a module for {}: it is {}", info.arch, module.format));
            continue;
        }
        // Each kernel of several has its own directory.
        let expected = release_of_module(path).or(release);
        match module.release() {
            None => problems.add(format!("{path} has no vermagic, so its kernel is unknown")),
            Some(of) if Some(of) != expected => {
                problems.add(format!("{path} is for Linux {of}, not {}", expected.unwrap_or("any")));
            }
            Some(_) => {}
        }
    }
    check_files(info, origin, &mut problems);
    let count = pluralize(scan.modules.len(), "module", "modules");
    problems.result(format!("{count} for Linux {} on {}", release.unwrap_or_default(), info.arch))
}

/// Checks that modules are in the directory in which modprobe looks for them, and that their
/// release is the annotated one.
fn check_directories(info: &ImageInfo, origin: Origin, problems: &mut Problems) {
    let scan = &info.scan;
    let release = info.release.as_deref();
    let of_kernels = scan.kernels.values().filter_map(|file| file.kernel.release());
    let mut releases: BTreeSet<&str> = of_kernels.collect();
    if releases.is_empty() && origin.is_ours() {
        releases.extend(release);
    }
    for dir in scan.module_dirs.iter().filter(|dir| !releases.is_empty() && !releases.contains(dir.as_str()))
    {
        problems.add(format!("lib/modules/{dir} is for another kernel than {}", release.unwrap_or("any")));
    }
    let claimed = info.annotation(annotations::KERNEL_RELEASE);
    if let (Some(release), Some(claimed)) = (release, claimed)
        && release != claimed
    {
        problems.add(format!("the modules are for Linux {release}, but the annotation says {claimed}"));
    }
}

fn check_files(info: &ImageInfo, origin: Origin, problems: &mut Problems) {
    let files = &info.scan.files;
    if !origin.is_ours() {
        if !files.keys().any(|path| path.ends_with("modules.dep")) {
            problems.add("there is no modules.dep, so modprobe would find no modules".into());
        }
        return;
    }
    let release = info.release.as_deref().unwrap_or_default();
    let directory = info.modules.as_ref().map_or("", |modules| modules.directory.as_str());
    let at = |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    let depmod_version = info.annotation(annotations::TOOLCHAIN).and_then(depmod_version);
    let mut expected: Vec<&str> = depmod::files(depmod_version).chain(KBUILD_FILES).collect();
    let version = KernelVersion::from_release(release);
    expected
        .extend(version.filter(|version| version.series() >= BUILTIN_MODINFO.1).map(|_| BUILTIN_MODINFO.0));
    expected.push("config");
    let missing = expected.into_iter().map(at).filter(|path| !files.contains_key(path));
    missing.for_each(|path| problems.add(format!("there is no {path}")));
}

/// Returns depmod's version from the annotation of the tools, `depmod: kmod version 30; …`.
fn depmod_version(tools: &str) -> Option<&str> {
    tools.split("; ").find_map(|tool| tool.strip_prefix("depmod: "))
}

/// Returns whether the image has modules, or should have them by its annotations.
pub(super) fn are_expected(info: &ImageInfo, origin: Origin) -> bool {
    info.modules.is_some() || !info.scan.module_dirs.is_empty() || origin == Origin::Kcompile(Claim::Modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_depmod_is_among_the_tools() {
        let info = depmod_version("cc: gcc 12; depmod: kmod version 30; ld: GNU ld");
        assert_eq!(info, Some("kmod version 30"));
        assert_eq!(depmod_version("depmod: kmod version 34.2"), Some("kmod version 34.2"));
        assert_eq!(depmod_version("cc: gcc 12"), None);
    }
}
