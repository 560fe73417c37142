//! The values that shells complete, by what an option or argument is called in the help. A mistake in the user's
//! files gives fewer candidates, and no error.

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::project::Project;
use crate::cli::resolve::{CatalogFiles, OUTPUT};
use crate::host::Host;
use crate::kconfig::requirements;
use crate::kernel::{Arch, Flavor};
use crate::oci::layout_reader::LayoutReader;
use crate::ops::toolchain;
use camino::Utf8Path;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// Adds the candidates to all arguments of `command` and its subcommands.
pub fn add_to(command: clap::Command) -> clap::Command {
    command.mut_args(add_to_arg).mut_subcommands(add_to)
}

fn add_to_arg(arg: clap::Arg) -> clap::Arg {
    let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str().to_owned());
    match (name.as_deref(), arg.get_id().as_str()) {
        (Some("VERSION"), _) => arg.add(ArgValueCandidates::new(versions)),
        (Some("NAME|FILE"), _) => arg.add(ArgValueCompleter::new(with_paths(fragments))),
        (Some("PROFILE"), _) => arg.add(ArgValueCandidates::new(profiles)),
        (Some("SPEC"), _) => arg.add(ArgValueCompleter::new(with_paths(toolchains))),
        (Some("ARCH"), _) => arg.add(ArgValueCandidates::new(arches)),
        (_, "flavor") => arg.add(ArgValueCandidates::new(flavors)),
        (Some("LAYOUT" | "LAYOUT[:TAG]" | "IMAGE|RECEIPT"), _) if arg.get_possible_values().is_empty() => {
            arg.add(ArgValueCompleter::new(with_paths(images)))
        }
        (Some("LAYOUT|VERSION" | "IMAGE|VERSION" | "IMAGE|RECEIPT|VERSION"), _) => {
            arg.add(ArgValueCompleter::new(with_paths(images_and_versions)))
        }
        _ => arg,
    }
}

/// Returns the candidates that begin with the typed word, and paths.
fn with_paths(
    candidates: fn() -> Vec<CompletionCandidate>,
) -> impl Fn(&OsStr) -> Vec<CompletionCandidate> + Send + Sync + 'static {
    move |word| {
        let typed = word.to_string_lossy();
        let fits = |one: &CompletionCandidate| one.get_value().to_string_lossy().starts_with(&*typed);
        let mut found: Vec<CompletionCandidate> = candidates().into_iter().filter(fits).collect();
        found.extend(PathCompleter::any().complete(word));
        found
    }
}

/// Returns the catalog's versions, with the flavor and the status of each.
fn versions() -> Vec<CompletionCandidate> {
    let channels = [
        ("latest", "newest release of kernel.org"),
        ("longterm", "newest longterm release of kernel.org"),
        ("mainline", "newest release or release candidate"),
        ("all", "every supported kernel of the flavor"),
    ];
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in catalog().kernels {
        let title = format!("{}, {}", entry.flavor.spec().title, entry.status.name());
        versions.entry(entry.version).or_default().push(title);
    }
    let of_catalog = versions.into_iter().map(|(version, titles)| candidate(version, &titles.join("; ")));
    of_catalog.chain(channels.map(|(name, help)| candidate(name, help))).collect()
}

/// Returns the names of the fragments, each with its description.
fn fragments() -> Vec<CompletionCandidate> {
    library().fragments().map(|(name, what)| candidate(name, what)).collect()
}

/// Returns the names of the requirement profiles.
fn profiles() -> Vec<CompletionCandidate> {
    requirements::names(&library()).into_iter().map(CompletionCandidate::new).collect()
}

/// Returns this host's tools, and the toolchains in the cache.
fn toolchains() -> Vec<CompletionCandidate> {
    let host = candidate("host", "the tools of this host");
    let cached = Host::read(None).ok().and_then(|host| {
        let entries = host.cache_dir.as_ref()?.join("toolchains").read_dir_utf8().ok()?;
        Some(entries.flatten().filter_map(|entry| toolchain::spec_of(entry.path())).collect::<Vec<_>>())
    });
    let cached = cached.into_iter().flatten().map(|spec| candidate(spec, "in the cache"));
    std::iter::once(host).chain(cached).collect()
}

fn arches() -> Vec<CompletionCandidate> {
    Arch::ALL.iter().map(|arch| CompletionCandidate::new(arch.name())).collect()
}

fn flavors() -> Vec<CompletionCandidate> {
    Flavor::ALL.iter().map(|flavor| candidate(flavor.name(), flavor.spec().title)).collect()
}

/// Returns the images in the output directory, as LAYOUT:TAG.
fn images() -> Vec<CompletionCandidate> {
    let Ok(host) = Host::read(None) else { return Vec::new() };
    let project = Project::find(&host.cwd, None, host.uid).ok();
    let output = project.and_then(|project| project.defaults.output).unwrap_or(OUTPUT.into());
    let Ok(entries) = host.absolute(&output).read_dir_utf8() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(layout) = LayoutReader::open(entry.path()) else { continue };
        let place = output.join(entry.file_name());
        found.extend(layout.names().map(|tag| CompletionCandidate::new(format!("{place}:{tag}"))));
    }
    found
}

/// Returns the images in the output directory, and the catalog's versions.
fn images_and_versions() -> Vec<CompletionCandidate> {
    images().into_iter().chain(versions()).collect()
}

fn candidate(value: impl Into<std::ffi::OsString>, help: &str) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(help.to_owned().into()))
}

fn files() -> Option<CatalogFiles> {
    CatalogFiles::read(None::<&Utf8Path>, &Host::read(None).ok()?).ok()
}

fn library() -> ConfigLibrary {
    files().map_or_else(ConfigLibrary::built_in, |files| files.library)
}

fn catalog() -> Catalog {
    files()
        .map(|files| files.catalog)
        .unwrap_or_else(|| Catalog::read(&ConfigLibrary::built_in()).unwrap_or_default())
}
