//! What a consumer's machine specification says of a kernel: the image, the file in it, the volume of its
//! modules and where that is mounted, the kernel's command line.

use super::ImageInfo;
use crate::kernel::{Arch, Flavor, FlavorSpec, Platform};
use crate::util::error::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Where a volume goes that has the modules in `lib/modules/<release>`: it cannot be mounted there.
const MODULES_MOUNT: &str = "/opt/kernel-modules";

/// Who reads the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Consumer {
    /// JSON for Flintlock's MicroVMSpec (api/types/microvm.proto)
    Flintlock,
    /// YAML for spec.template.spec of CAPMVM's MicrovmMachineTemplate
    Capmvm,
}

/// A part of a specification.
#[derive(Debug)]
pub struct SpecFragment {
    /// As its consumer takes it.
    pub text: String,
    /// What its user should know.
    pub notes: Vec<String>,
}

/// What a specification says of a machine, whatever its consumer calls it.
struct Machine<'a> {
    image: &'a str,
    filename: &'a str,
    cmdline: BTreeMap<&'a str, &'a str>,
    volume: Option<Volume>,
    provider: &'a str,
}

/// Volumes of Flintlock are block devices, which cloud-init mounts.
struct Volume {
    image: String,
    mount_point: String,
}

/// What `consumer` has to know of the kernel in one image and the modules in another, or in the same one;
/// `prefix` is the place in a registry that they are pushed to.
///
/// Errors (exit code 2): the kernel's image has no tag, or nothing tells the hypervisor.
pub fn fragment(
    consumer: Consumer,
    kernel: &ImageInfo,
    modules: Option<&ImageInfo>,
    prefix: &str,
) -> Result<SpecFragment> {
    let filename = match (&kernel.kernel_path, kernel.scan.main_kernel()) {
        (Some(at), Some(_)) if at.exists => &at.path,
        (_, Some((path, _))) => path,
        (at, None) => {
            let problem = at.as_ref().and_then(|at| Some(format!(": {}", at.problem.as_ref()?)));
            let problem = problem.unwrap_or_default();
            return Err(Error::usage(format!("{} has no kernel in it{problem}", kernel.layout))
                .hint("give the layout of the kernel"));
        }
    };
    let flavor = kernel.flavor.ok_or_else(|| {
        Error::usage(format!("{}: nothing in it tells the hypervisor that it is for", kernel.layout))
    })?;
    let image = in_registry(kernel, prefix)?;
    let mut notes = Vec::new();
    let volume = match modules {
        Some(modules) => Some(volume(modules, prefix, &mut notes)?),
        None => {
            notes.push("there are no modules beside the kernel: no volume for them".to_owned());
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
    let text = match consumer {
        Consumer::Flintlock => flintlock(&machine),
        Consumer::Capmvm => capmvm(&machine),
    };
    Ok(SpecFragment { text, notes })
}

/// The name that `kcompile push` gives an image.
fn in_registry(image: &ImageInfo, prefix: &str) -> Result<String> {
    let name = image.layout.file_name().unwrap_or_default();
    match &image.tag {
        Some(tag) => Ok(format!("{prefix}/{name}:{tag}")),
        None => Err(Error::usage(format!("{} has no tag: a registry needs one", image.layout))),
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
        "the volume has the modules in {directory}, so in the guest: mkdir -p {target} && \
         mount --bind {MODULES_MOUNT}/{directory} {target} (an image built with --modules-layout flat is mounted \
         on {target} itself)"
    ));
    Ok(Volume { image, mount_point: MODULES_MOUNT.to_owned() })
}

/// Flintlock's own defaults, said so that they can be changed: `DefaultKernelCmdLine` of its
/// `infrastructure/microvm/{firecracker,cloudhypervisor}`. A value there without a name is empty here.
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
