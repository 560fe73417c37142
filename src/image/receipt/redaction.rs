//! Removes paths of this machine and secrets of URLs from documents that leave it. The same build then has
//! the same documents on every machine.

use crate::host::Host;
use crate::kconfig::Config;
use crate::kconfig::file_settings::{self, FileKind};
use crate::kernel::{SourceSpec, ToolchainSpec};
use crate::oci::Compression;
use crate::plan::request::{
    ImageChoice, KernelLink, ModulesLayout, Override, Request, TagSuffix, ToolchainChoice, own_profiles,
};
use crate::plan::{MakePlan, Plan, Toolchain};
use crate::util::text::redact_secrets;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The redaction of a build's documents.
#[derive(Clone, Debug)]
pub struct Redaction {
    /// A command line that repeats the build if its files are in the working directory.
    pub command: String,
    /// The paths of this machine that texts may have, the longest first.
    paths: Vec<Utf8PathBuf>,
}

impl Redaction {
    /// Prepares the redaction for the build of `request` with the final `config`. `own` are further paths of
    /// this machine. `configs` is the directory of `--configs`.
    pub fn new<'a>(
        request: &Request,
        config: &Config,
        host: &Host,
        configs: Option<&Utf8Path>,
        own: impl IntoIterator<Item = &'a Utf8Path>,
    ) -> Redaction {
        let mut paths: Vec<Utf8PathBuf> = own.into_iter().map(Utf8Path::to_owned).collect();
        paths.extend([host.cwd.clone()]);
        paths.extend(host.child_env.get("HOME").map(Utf8PathBuf::from));
        paths.extend(configs.map(Utf8Path::to_owned));
        paths.extend(request.config.iter().chain(&request.patches).cloned());
        paths.extend(source_path(&request.source).map(Utf8Path::to_owned));
        paths.extend(request.overrides.iter().filter_map(|over| match over {
            Override::Fragment(fragment) => Some(host.absolute(Utf8Path::new(fragment))),
            Override::Set(_) => None,
        }));
        let named =
            file_settings::named_paths(config).into_iter().filter(|one| one.kind != FileKind::Unknown);
        paths.extend(named.flat_map(|one| one.paths).map(Utf8PathBuf::from));
        paths.retain(|place| place.is_absolute() && place.file_name().is_some());
        paths.sort_by_key(|place| std::cmp::Reverse(place.as_str().len()));
        paths.dedup();
        let command = command(request, &host.cwd, configs);
        Redaction { command: strip_paths(&command, &paths, ToString::to_string), paths }
    }

    /// Returns a JSON text without paths of this machine and without secrets.
    pub fn redact(&self, json: &str) -> String {
        let quoted =
            |place: &str| serde_json::to_string(place).expect("a string").trim_matches('"').to_owned();
        strip_paths(json, &self.paths, quoted)
    }
}

/// Redacts a text in which paths are written as `quoted` returns them.
fn strip_paths(text: &str, paths: &[Utf8PathBuf], quoted: impl Fn(&str) -> String) -> String {
    paths.iter().fold(redact_secrets(text), |text, place| {
        strip_path(&text, &quoted(place.as_str()), place.file_name().unwrap_or_default())
    })
}

/// Removes the directory `place` from a text. Paths below it become relative, and
/// the directory itself becomes `name`.
fn strip_path(text: &str, place: &str, name: &str) -> String {
    let is_of_a_path = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(place) {
        let (before, after) = (&rest[..at], &rest[at + place.len()..]);
        let begins = !before.ends_with(is_of_a_path);
        redacted.push_str(before);
        rest = after;
        match after.chars().next() {
            Some('/') if begins => rest = &after[1..],
            Some(next) if begins && is_of_a_path(next) => redacted.push_str(place),
            _ if begins => redacted.push_str(name),
            _ => redacted.push_str(place),
        }
    }
    redacted + rest
}

/// Returns the plan with the names of its tools instead of their paths. The digest of the plan
/// is that with the paths.
pub(super) fn plan(plan: &Plan) -> Plan {
    Plan {
        toolchain: Toolchain {
            variables: strip_directories(&plan.toolchain.variables),
            ..plan.toolchain.clone()
        },
        make: make(&plan.make),
        ..plan.clone()
    }
}

/// Returns the variables and targets of make, with the names of tools instead of their paths.
pub fn make(make: &MakePlan) -> MakePlan {
    MakePlan { variables: strip_directories(&make.variables), ..make.clone() }
}

/// Returns the plan of a receipt without the paths of tools, which receipts of older versions have.
pub fn strip_plan_tool_paths(plan: &Value) -> Value {
    let mut plan = plan.clone();
    for part in ["toolchain", "make"] {
        let variables = plan.get_mut(part).and_then(|part| part.get_mut("variables")?.as_object_mut());
        for variable in variables.into_iter().flat_map(Map::values_mut) {
            if let Some(value) = variable.as_str() {
                *variable = strip_tool_path(value).into();
            }
        }
    }
    plan
}

fn strip_directories(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| (name.clone(), strip_tool_path(value))).collect()
}

/// Returns a command or a prefix of commands (`/opt/bin/gcc -B/opt/lib`) with names instead of paths.
pub fn strip_tool_path(command: &str) -> String {
    let word = |word: &str| match word.find('/') {
        Some(slash) if word.starts_with('-') => format!("{}{}", &word[..slash], base_name(&word[slash..])),
        Some(_) if !is_portable(word) => base_name(word).to_owned(),
        _ => word.to_owned(),
    };
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Returns whether a path has the same meaning in another copy of the working directory.
fn is_portable(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Returns the path of a source on this machine.
fn source_path(source: &SourceSpec) -> Option<&Utf8Path> {
    match source {
        SourceSpec::Path(path) => Some(path),
        SourceSpec::Git { url: Some(url), .. } => {
            Some(Utf8Path::new(url.strip_prefix("file://").unwrap_or(url))).filter(|path| path.is_absolute())
        }
        SourceSpec::Git { .. } | SourceSpec::KernelOrg | SourceSpec::Apt { .. } => None,
    }
}

/// Returns the command line that builds `request`. Paths below `cwd` are relative, and other paths become
/// names. It has no options that do not affect the output, such as the output directory and mirrors.
fn command(request: &Request, cwd: &Utf8Path, configs: Option<&Utf8Path>) -> String {
    let Request {
        version,
        flavor,
        arch,
        variant,
        source,
        config,
        overrides,
        patches,
        toolchain: ToolchainChoice { spec, cc, llvm, cross_compile, launcher },
        images,
        mirrors: _,
        configures: _,
        profiles,
        source_date_epoch: _,
    } = request;
    let path = |path: &Utf8Path| match path.strip_prefix(cwd) {
        Ok(below) if below.as_str().is_empty() => ".".to_owned(),
        Ok(below) => below.to_string(),
        Err(_) => path.file_name().unwrap_or_default().to_owned(),
    };
    let mut args: Vec<String> =
        ["kcompile".to_owned(), version.to_string(), format!("--{}", flavor.spec().flag)].into();
    let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
    add("--arch", arch.to_string());
    if !variant.is_default() {
        add("--variant", variant.to_string());
    }
    add("--source", source_arg(source, path));
    config.iter().for_each(|config| add("--config", path(config)));
    for over in overrides {
        match over {
            Override::Fragment(fragment) if is_portable(fragment) => add("--fragment", fragment.clone()),
            Override::Fragment(fragment) => add("--fragment", path(Utf8Path::new(fragment))),
            Override::Set(line) => {
                let setting = line.trim_end();
                add("--set", setting.strip_prefix("CONFIG_").unwrap_or(setting).to_owned());
            }
        }
    }
    patches.iter().for_each(|patches| add("--patches", path(patches)));
    configs.iter().for_each(|configs| add("--configs", path(configs)));
    match spec {
        ToolchainSpec::Host => {}
        ToolchainSpec::Oci(reference) => {
            add("--toolchain", ToolchainSpec::Oci(path(reference).into()).to_string());
        }
        ToolchainSpec::Registry(_) | ToolchainSpec::KernelOrg(_) => add("--toolchain", spec.to_string()),
    }
    let tools = [("--cc", cc), ("--cross-compile", cross_compile), ("--launcher", launcher)];
    for (option, value) in tools {
        value.iter().for_each(|value| add(option, strip_tool_path(value)));
    }
    args.extend(require_args(profiles, &own_profiles(*flavor, *variant)));
    args.extend(llvm.then(|| "--llvm".to_owned()));
    args.extend((request.tag_suffix() == TagSuffix::Builtin).then(|| "--builtin".to_owned()));
    args.extend(image_args(images));
    shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default()
}

/// Returns the options for the profiles. `own` are those that are checked without any.
fn require_args(profiles: &[String], own: &[String]) -> Vec<String> {
    let checks_own = own.iter().all(|name| profiles.contains(name));
    let none = (!checks_own).then_some("none");
    let named = profiles.iter().filter(|name| !(checks_own && own.contains(name)));
    let names = none.into_iter().chain(named.map(String::as_str));
    names.flat_map(|name| ["--require".to_owned(), name.to_owned()]).collect()
}

/// Returns a source as `--source` takes it, with its path changed by `path`.
fn source_arg(source: &SourceSpec, path: impl Fn(&Utf8Path) -> String) -> String {
    let Some(local) = source_path(source).map(path) else { return source.to_string() };
    match source {
        SourceSpec::Git { reference, .. } => {
            SourceSpec::Git { url: Some(local), reference: reference.clone() }.to_string()
        }
        // A directory may have the name `apt`.
        _ if !matches!(local.parse(), Ok(SourceSpec::Path(_))) => format!("./{local}"),
        _ => local,
    }
}

/// Returns the options for the images that differ from the defaults.
fn image_args(images: &ImageChoice) -> Vec<String> {
    let ImageChoice { combined_image, no_modules, module_mode: _, kernel_link, modules_layout, compression } =
        images;
    let mut args = Vec::new();
    args.extend(combined_image.then(|| "--combined-image".to_owned()));
    args.extend(no_modules.then(|| "--no-modules".to_owned()));
    let link = match kernel_link {
        KernelLink::Boot => None,
        KernelLink::None => Some("none".to_owned()),
        KernelLink::At(path) => Some(path.clone()),
    };
    args.extend(link.into_iter().flat_map(|link| ["--kernel-link".to_owned(), link]));
    if *modules_layout != ModulesLayout::default() {
        args.extend(["--modules-layout".to_owned(), value_name(modules_layout)]);
    }
    if *compression != Compression::default() {
        args.extend(["--compression".to_owned(), value_name(compression)]);
    }
    args
}

fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().expect("no value is hidden").get_name().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_keep_their_names() {
        for (command, redaction) in [
            ("gcc", "gcc"),
            ("/opt/cross/bin/gcc-12", "gcc-12"),
            ("../bin/gcc", "gcc"),
            ("tools/gcc", "tools/gcc"),
            ("/opt/cross/bin/aarch64-linux-gnu-", "aarch64-linux-gnu-"),
            (
                "ccache /usr/bin/gcc -O2 --sysroot=/opt/root -B/opt/bin/",
                "ccache gcc -O2 --sysroot=root -Bbin",
            ),
        ] {
            assert_eq!(strip_tool_path(command), redaction);
        }
    }

    #[test]
    fn places_of_the_machine_are_left_out_of_texts() {
        let without = |text: &str| strip_path(text, "/home/me/work", "work");
        for (text, redacted) in [
            ("cannot read /home/me/work/a/b: no", "cannot read a/b: no"),
            ("\"/home/me/work\"", "\"work\""),
            (
                "/home/me/workshop and https://host/home/me/work/x",
                "/home/me/workshop and https://host/home/me/work/x",
            ),
            ("/home/me/work, /home/me/work/x", "work, x"),
        ] {
            assert_eq!(without(text), redacted);
        }
    }
}
