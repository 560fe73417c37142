//! Adds a kernel to the user's catalog: fetches and pins its source, migrates the config of the nearest
//! version, and writes entry and configs, either all or none.

mod migrate;

pub(super) use migrate::migrate;
pub use migrate::{AddedSetting, MigratedConfig, UpstreamChanges, base};

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::{Catalog, Entry, Status};
use crate::kernel::{Arch, Flavor, SourceSpec, Variant, VersionRequest};
use crate::ops::catalog_files::{CATALOG, FileChange, user_catalog, write_all};
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::plan::{BaseConfig, SourceIdentity, VerificationStep};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::fs::lock_dir;
use crate::util::text::sanitize_line;
use crate::util::time;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::collections::BTreeSet;

/// A kernel that is ready to be added.
#[derive(Debug, Serialize)]
pub struct NewKernel {
    /// Its entry for the catalog.
    pub entry: Entry,
    /// Its source and how it was verified.
    pub source: SourceIdentity,
    /// One for each architecture.
    pub configs: Vec<MigratedConfig>,
    /// The path of the user's catalog.
    pub catalog: Utf8PathBuf,
    /// Whether the catalog gets the entry. It may have the kernel already if only its minimal config is new.
    #[serde(skip)]
    pub adds_entry: bool,
}

/// One architecture of the kernel that is added.
pub struct NewKernelRequest<'a> {
    pub request: Request,
    pub base: BaseConfig<'a>,
    /// The version or series in the name of the new config.
    pub config_version: VersionRequest,
    /// The kernel that the config belongs to. Without it, the two kernels are not compared.
    pub older: Option<Request>,
}

/// Fetches the source and migrates the configs. Of the user's files, it writes only the lock file.
///
/// # Errors
///
/// The catalog has the kernel already or cannot have its source (exit code 2), the source cannot be fetched
/// or verified (3), or the config cannot be migrated or does not meet a requirement profile (1).
pub fn prepare(requested: &[NewKernelRequest<'_>], ctx: &Context<'_>) -> Result<NewKernel> {
    let dirs = ctx.library.project.user_dirs()?;
    let catalog = dirs.path_of(CATALOG);
    let own = user_catalog(&catalog)?.1;
    for NewKernelRequest { request, .. } in requested {
        if let SourceSpec::Path(path) = &request.source {
            return Err(Error::usage(format!("--source {path}: a catalog cannot name a local path"))
                .hint("give kernel.org, git+URL[#REF] or apt[:PACKAGE]"));
        }
        if request.variant == Variant::Node {
            check_new(request.version, request.flavor, request.arch, &own, &catalog)?;
        }
    }
    let is_new = |one: &NewKernelRequest<'_>| {
        check_new(one.request.version, one.request.flavor, one.request.arch, &own, &catalog).is_ok()
    };
    let adds_entry = requested.iter().any(is_new);
    let migrated = requested
        .iter()
        .map(|requested| migrate::migrate(requested, dirs, ctx))
        .collect::<Result<Vec<_>>>()?;
    let (mut sources, configs): (Vec<SourceIdentity>, Vec<MigratedConfig>) = migrated.into_iter().unzip();
    let (source, request) = (sources.remove(0), &requested[0].request);
    let mut froms: Vec<String> = configs.iter().map(|config| config.from.in_catalog()).collect();
    froms.dedup();
    let default = &request.flavor.spec().source;
    let entry = Entry {
        version: request.version.in_catalog(),
        flavor: request.flavor,
        arch: requested.iter().map(|one| one.request.arch).collect::<BTreeSet<_>>().into_iter().collect(),
        source: (request.source != *default).then(|| request.source.to_string()),
        sha256: pin(request, &source),
        status: Status::Untested,
        minimal: Status::Untested,
        supported_source: None,
        note: Some(format!("its config was carried over from {}", froms.join(" and "))),
    };
    Ok(NewKernel { entry, source, configs, catalog, adds_entry })
}

/// Returns the digest for the catalog, which only an authenticated release of kernel.org has. Other sources
/// are pinned in the lock file, since a digest in the catalog counts as verification.
pub(super) fn pin(request: &Request, source: &SourceIdentity) -> Option<Sha256> {
    let is_release =
        request.source == SourceSpec::KernelOrg && matches!(request.version, VersionRequest::Exact(_));
    source.digest.sha256().filter(|_| is_release && source.is_authenticated())
}

/// Writes configs and entry. If one of them cannot be written, the old files are restored.
///
/// # Errors
///
/// A file cannot be written (exit code 1), or the catalog got such an entry in the meantime (2).
pub fn write(new_kernel: &NewKernel, ctx: &Context<'_>) -> Result<()> {
    let NewKernel { entry, source, configs, catalog: path, adds_entry } = new_kernel;
    let _writing = lock_dir(&ctx.library.project.user_dirs()?.root)?;
    let (text, own) = user_catalog(path)?;
    for arch in entry.arch.iter().filter(|_| *adds_entry) {
        check_new(entry.request(), entry.flavor, *arch, &own, path)?;
    }
    let new_text =
        || with_entry(text.as_deref().unwrap_or(HEADER), entry, &pin_comment(source, ctx.host.now));
    let text = adds_entry.then(new_text);
    // An unreadable entry would make the whole catalog unreadable.
    Catalog::read(&ConfigLibrary::from_texts(text.as_deref().map(|text| (CATALOG, text))))?;
    // The entry is written last. If the process is killed before, a config without an entry is left.
    let files = configs.iter().map(|config| (&config.path, &config.text));
    let files = files.chain(text.iter().map(|text| (path, text)));
    let changes = files.map(|(path, text)| FileChange { path: path.clone(), text: Some(text.clone()) });
    write_all(&changes.collect::<Vec<_>>())
}

fn check_new(
    version: VersionRequest,
    flavor: Flavor,
    arch: Arch,
    own: &Catalog,
    path: &Utf8Path,
) -> Result<()> {
    let found = own.find(version, flavor, arch).is_some_and(|entry| entry.arch.contains(&arch));
    if !found {
        return Ok(());
    }
    let version = version.in_catalog();
    Err(Error::usage(format!("{path} already has an entry for {version}, {flavor}, {arch}"))
        .hint("remove the entry, or change its config with `kcompile config edit`"))
}

/// The first lines of a new catalog.
const HEADER: &str = "\
# Our kernels, over those of the built-in catalog. A version of two numbers stands for its series; `sha256` is
# that of kernel.org's linux-<version>.tar.xz.
";

/// Returns the catalog `text` with one more entry at its end. `pin_comment` follows the digest.
fn with_entry(text: &str, entry: &Entry, pin_comment: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let arches: Vec<String> = entry.arch.iter().map(|arch| quoted(&arch.to_string())).collect();
    let mut lines = vec![
        "[[kernel]]".to_owned(),
        format!("version = {}", quoted(&entry.version)),
        format!("flavor = {}", quoted(&entry.flavor.to_string())),
        format!("arch = [{}]", arches.join(", ")),
    ];
    lines.extend(entry.source.as_deref().map(|source| format!("source = {}", quoted(source))));
    lines.extend(entry.sha256.map(|sha256| format!("sha256 = \"{sha256}\" # {pin_comment}")));
    lines.push(format!("status = {}", quoted(entry.status.name())));
    lines.extend(entry.note.as_deref().map(|note| format!("note = {}", quoted(note))));
    format!("{}\n\n{}\n", text.trim_end(), lines.join("\n")).trim_start().to_owned()
}

/// Formats how the source was verified, for the comment after its digest.
pub(super) fn pin_comment(source: &SourceIdentity, now: u64) -> String {
    let proofs = source.checks.iter().filter(|check| {
        check.step != VerificationStep::LockFile && check.status == crate::plan::StepStatus::Authenticated
    });
    let proofs: Vec<&str> = proofs.map(|check| check.detail.as_str()).collect();
    sanitize_line(&format!("{}, {}", proofs.join(", "), &time::rfc3339(now)[..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            version: "6.6.60".into(),
            flavor: Flavor::Firecracker,
            arch: vec![Arch::Amd64, Arch::Arm64],
            source: Some("git+https://example.org/\"x\"#y".into()),
            sha256: Some(Sha256::of("x")),
            status: Status::Untested,
            minimal: Status::Untested,
            supported_source: None,
            note: Some("its config was carried over from 6.1".into()),
        }
    }

    #[test]
    fn an_entry_goes_to_the_end_and_is_read_again() {
        let ours = "# mine\n[[kernel]]\nversion = \"6.1\" # keep\nflavor = \"firecracker\"\narch = [\"amd64\"]\n\
                    status = \"supported\"";
        let text = with_entry(ours, &entry(), "signed by somebody");
        assert!(text.starts_with(&format!("{ours}\n\n[[kernel]]\n")) && text.ends_with("\n"), "{text}");
        assert!(text.contains("\" # signed by somebody\n"), "{text}");
        let read = Catalog::read(&ConfigLibrary::from_texts([(CATALOG, text.as_str())])).unwrap();
        assert_eq!(read.kernels.len(), 2);
        assert_eq!(read.kernels[1], entry());
        assert!(with_entry("", &entry(), "").starts_with("[[kernel]]\n"));
        let path = Utf8Path::new("x");
        let new = |version: &str, arch| {
            check_new(version.parse().unwrap(), Flavor::Firecracker, arch, &read, path).is_ok()
        };
        assert!(!new("6.6.60", Arch::Arm64) && !new("6.1", Arch::Amd64));
        assert!(new("6.1", Arch::Arm64) && new("6.6.61", Arch::Amd64));
    }
}
