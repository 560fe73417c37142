//! Writes the part of a machine specification that is about the kernel. This is the image, the file in it,
//! the volume of the modules with its mount point, and the kernel's command line.

use super::ImageInfo;
use super::hypervisor::{self, SpecFragment, filename};
use crate::image::pack::PackedImage;
use crate::kernel::{Arch, Flavor, FlavorSpec, Platform};
use crate::plan::request::ModulesLayout;
use crate::plan::{Contents, Plan};
use crate::report::ConsumerField;
use crate::util::error::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The mount point of a volume that has the modules in `lib/modules/<release>` and so
/// cannot be mounted at `/lib/modules`.
const MODULES_MOUNT: &str = "/opt/kernel-modules";

/// The program that reads the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Consumer {
    /// JSON for Flintlock's MicroVMSpec (api/types/microvm.proto)
    Flintlock,
    /// YAML for spec.template.spec of CAPMVM's MicrovmMachineTemplate
    Capmvm,
    /// JSON for `firecracker --config-file`
    Firecracker,
    /// A command line of cloud-hypervisor
    CloudHypervisor,
}

/// The content of a specification, without the names of a consumer.
struct Machine<'a> {
    image: &'a str,
    filename: &'a str,
    cmdline: BTreeMap<&'a str, &'a str>,
    volume: Option<Volume>,
    provider: &'a str,
}

/// A volume of Flintlock, which is a block device that cloud-init mounts.
struct Volume {
    image: String,
    mount_point: String,
}

/// Returns the part of a specification for a kernel and its modules, which may be in the same image. `prefix`
/// is the registry that they are pushed to.
///
/// # Errors
///
/// Exit code 2 if the image has no kernel or no tag, or its hypervisor is unknown.
pub fn fragment(
    consumer: Consumer,
    kernel: &ImageInfo,
    modules: Option<&ImageInfo>,
    prefix: &str,
) -> Result<SpecFragment> {
    let format = match consumer {
        Consumer::Flintlock => flintlock,
        Consumer::Capmvm => capmvm,
        Consumer::Firecracker => return hypervisor::example(Flavor::Firecracker, kernel, modules),
        Consumer::CloudHypervisor => return hypervisor::example(Flavor::CloudHypervisor, kernel, modules),
    };
    let filename = filename(kernel)?;
    let flavor = kernel
        .flavor
        .ok_or_else(|| Error::usage(format!("{}: the hypervisor of the image is unknown", kernel.layout)))?;
    let image = in_registry(kernel, prefix)?;
    let mut notes = Vec::new();
    let volume = match modules {
        Some(modules) => Some(volume(modules, prefix, &mut notes)?),
        None => {
            notes.push(
                "no volume for modules, because the layout beside the kernel has no modules image".to_owned(),
            );
            None
        }
    };
    let machine = Machine {
        image: &image,
        filename,
        cmdline: command_line(flavor, kernel.arch.parse().ok()),
        volume,
        provider: flavor.spec().image_prefix,
    };
    Ok(SpecFragment { text: format(&machine), notes })
}

/// Returns what a specification names of the images of a build, for its summary.
pub fn summary_fields(plan: &Plan, release: &str, images: &[PackedImage]) -> Vec<ConsumerField> {
    let mut fields = Vec::new();
    let mut field = |label, value: String| fields.push(ConsumerField { label, value });
    let has_modules = images.iter().any(|image| !image.holds_kernel);
    for image in &plan.images {
        match &image.contents {
            Contents::Kernel { path, kernel_link: None } => field("kernel filename", path.clone()),
            Contents::Kernel { path, kernel_link: Some(link) } => {
                field("kernel filename", format!("{path} or {link}"));
            }
            Contents::Modules { layout: ModulesLayout::Flat } if has_modules => {
                field("modules volume", format!("mounted at /lib/modules/{release}"));
            }
            Contents::Modules { layout: ModulesLayout::Tree } if has_modules => {
                field("modules volume", format!("mounted at {MODULES_MOUNT}"));
                field(
                    "in the guest",
                    format!("{MODULES_MOUNT}/lib/modules/{release} bound to /lib/modules/{release}"),
                );
            }
            Contents::Modules { .. } | Contents::Combined { .. } => {}
        }
    }
    fields
}

/// Returns the name that `kcompile push` gives an image.
fn in_registry(image: &ImageInfo, prefix: &str) -> Result<String> {
    let name = image.layout.file_name().unwrap_or_default();
    match &image.tag {
        Some(tag) => Ok(format!("{prefix}/{name}:{tag}")),
        None => Err(Error::usage(format!("{} has no tag, which registries require", image.layout))),
    }
}

fn volume(modules: &ImageInfo, prefix: &str, notes: &mut Vec<String>) -> Result<Volume> {
    let image = in_registry(modules, prefix)?;
    let release = modules.release.as_deref().unwrap_or_default();
    let directory = modules.modules.as_ref().map_or("", |found| found.directory.as_str());
    let target = format!("/lib/modules/{release}");
    if directory.is_empty() {
        return Ok(Volume { image, mount_point: target });
    }
    notes.push(format!(
        "the volume has the modules in {directory}; in the guest, run mkdir -p {target} && \
         mount --bind {MODULES_MOUNT}/{directory} {target} (an image built with --modules-layout flat is mounted \
         at {target} directly)"
    ));
    Ok(Volume { image, mount_point: MODULES_MOUNT.to_owned() })
}

/// Returns Flintlock's defaults, so that users can change them. They are `DefaultKernelCmdLine` in
/// `infrastructure/microvm/{firecracker,cloudhypervisor}`. An option without a value has an empty one here.
fn command_line(flavor: Flavor, arch: Option<Arch>) -> BTreeMap<&'static str, &'static str> {
    let FlavorSpec { flintlock_options, flintlock_pc_options, .. } = flavor.spec();
    let is_pc = arch.is_some_and(|arch| arch.spec().platform == Platform::Pc);
    let pc_options = if is_pc { flintlock_pc_options } else { &[][..] };
    let every = [("reboot", "k"), ("panic", "1")];
    [&every, *flintlock_options, pc_options].concat().into_iter().collect()
}

fn flintlock(machine: &Machine<'_>) -> String {
    let Machine { image, filename, cmdline, volume, provider } = machine;
    let volumes = volume.as_ref().map(|Volume { image, mount_point }| {
        json!({"id": "modules", "mountPoint": mount_point, "source": {"containerSource": image}})
    });
    let spec = json!({
        "kernel": {"image": image, "filename": filename, "cmdline": cmdline, "addNetworkConfig": true},
        "additionalVolumes": volumes.into_iter().collect::<Vec<_>>(),
        "provider": provider,
    });
    format!("{spec:#}\n")
}

fn capmvm(machine: &Machine<'_>) -> String {
    let Machine { image, filename, cmdline, volume, provider } = machine;
    // A JSON string is a YAML string too.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from("# in spec.template.spec of a MicrovmMachineTemplate\n");
    let mut line = |indent: usize, key: &str, value: &str| {
        writeln!(text, "{:indent$}{key}:{value}", "").expect("writing to a string");
    };
    let value = |text: &str| format!(" {}", quoted(text));
    line(0, "kernel", "");
    line(2, "image", &value(image));
    line(2, "filename", &value(filename));
    line(0, "kernelCmdline", "");
    cmdline.iter().for_each(|(key, word)| line(2, key, &value(word)));
    line(0, "provider", &value(provider));
    if let Some(Volume { image, mount_point }) = volume {
        line(0, "volumes", "");
        line(0, "- id", &value("modules"));
        line(2, "image", &value(image));
        line(2, "mountPoint", &value(mount_point));
    }
    text
}
