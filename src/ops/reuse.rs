//! Reuses the images of an earlier build of the same plan. The cache has images by the digest of their plan.
//! Images in the output directory stay if they are intact, and are restored from the cache if not. Make does not run.

use crate::cache::Cache;
use crate::image::pack::{self, PackedImage};
use crate::image::receipt::ReceiptFile;
use crate::image::{attest, receipt};
use crate::kbuild::sandbox::{self, SandboxReport};
use crate::kconfig::requirements::Profile;
use crate::oci;
use crate::oci::snapshot::{self, TagSnapshot, VerifiedBlobs};
use crate::ops::check_config::list_command;
use crate::ops::context::Context;
use crate::plan::Plan;
use crate::report::{Phase, SettingsWarning};
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt, cannot};
use crate::util::fs::{create_dir, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use crate::util::text::pluralize;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;
use walkdir::WalkDir;

/// Written last. An entry without it is incomplete.
const RECORD: &str = "record.json";
/// The documents beside the layouts.
const FILES: &str = "files";
/// The blobs that were verified, with their file stamps.
const VERIFIED: &str = "seen.json";
/// The limit of all images in the cache. The least recently used are removed first.
const MAX_BYTES: u64 = 2 << 30;

/// The record of a build in the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedBuild {
    /// The digest of the plan.
    plan: Sha256,
    /// The digest of the requirement profiles that the final config was checked against. They do not affect
    /// the output, but decide whether a build succeeds.
    profiles: Sha256,
    /// The digest of the host's packages. Kconfig probes tools and headers, and the config depends on them.
    host: Sha256,
    /// Whether make ran in a complete sandbox.
    #[serde(rename = "confined")]
    sandboxed: bool,
    /// `uname -r`.
    pub release: String,
    pub modules: usize,
    #[serde(rename = "findings")]
    pub warnings: Vec<String>,
    images: Vec<PackedImage>,
    /// The tags of the images and of their attachments.
    tags: Vec<TagSnapshot>,
    /// The documents beside the layouts by name, such as the receipt.
    files: BTreeMap<String, Sha256>,
    #[serde(default)]
    command: TypedCommand,
}

/// The command line of a build with its paths, which receipts do not record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TypedCommand {
    /// The command line in the receipt.
    #[serde(rename = "published")]
    pub redacted: String,
    /// The arguments, beginning with the program's name.
    #[serde(rename = "words")]
    pub args: Vec<String>,
    pub cwd: Utf8PathBuf,
}

/// Returns the images of `plan` in the output directory, after restoring them from the cache if necessary.
/// With `None`, they have to be built.
pub fn find(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<(CachedBuild, Vec<PackedImage>)>> {
    let dir = entry_dir(plan.digest(), &cache.root);
    let Some(cached_build) = read(&dir, plan).filter(|_| ctx.may_reuse()) else { return Ok(None) };
    if cached_build.profiles != digest_of(profiles) || cached_build.host != ctx.host.installed() {
        return Ok(None);
    }
    if ctx.sandbox == sandbox::SandboxMode::On && !cached_build.sandboxed {
        return Ok(None);
    }
    let count = pluralize(cached_build.images.len(), "image", "images");
    let phase = ctx.reporter.start(Phase::Reuse, &format!("{count} of the same plan"));
    if is_intact(&cached_build, &dir, plan, &ctx.output) {
        phase.finish(&format!("{count}, intact: nothing to do"));
    } else {
        match restore(&cached_build, &dir, plan, ctx)? {
            Ok(()) => _ = phase.finish(&format!("{count} restored from the cache, nothing compiled")),
            Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
            Err(error) => {
                ctx.reporter.note(&format!("cannot reuse the images in the cache: {error}"));
                return Ok(None);
            }
        }
    }
    if let Some(owner) = cache.foreign_owner(&dir) {
        let built_by =
            format!("the cached images were built by user {owner} of the shared cache, who is trusted");
        ctx.reporter.note(&built_by);
    }
    // Records the use. A failure does not matter.
    let _ =
        open_file(dir.join(RECORD), Links::Refuse).and_then(|record| record.set_modified(SystemTime::now()));
    let is_setting = |warning: &String| {
        warning.split(' ').next().is_some_and(|word| word.starts_with("CONFIG_") && word.contains('='))
    };
    let (settings, others) = cached_build.warnings.iter().cloned().partition::<Vec<_>, _>(is_setting);
    let settings = settings.into_iter().map(SettingsWarning::from_text).collect();
    ctx.reporter.warnings_of_settings(settings, &list_command(plan));
    others.into_iter().for_each(|warning| ctx.reporter.warning(warning));
    let images = cached_build.in_output(&ctx.output);
    Ok(Some((cached_build, images)))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Utf8Path) -> Option<T> {
    serde_json::from_slice(&read_file(path, Links::Refuse, MAX_JSON).ok()?).ok()
}

fn read(dir: &Utf8Path, plan: &Plan) -> Option<CachedBuild> {
    let cached_build: CachedBuild = read_json(&dir.join(RECORD))?;
    (cached_build.plan == plan.digest()).then_some(cached_build)
}

impl CachedBuild {
    /// Returns the images with their layouts in `output`.
    fn in_output(&self, output: &Utf8Path) -> Vec<PackedImage> {
        let mut images = self.images.clone();
        for PackedImage { written, .. } in &mut images {
            written.layout = output.join(written.layout.file_name().unwrap_or_default());
        }
        images
    }
}

/// Returns whether all images and documents are intact in the output directory.
fn is_intact(cached_build: &CachedBuild, dir: &Utf8Path, plan: &Plan, output: &Utf8Path) -> bool {
    let before: VerifiedBlobs = read_json(&dir.join(VERIFIED)).unwrap_or_default();
    let mut verified = before.clone();
    let is_whole = cached_build.tags.iter().all(|tag| tag.is_intact(output, &mut verified));
    if verified != before {
        let _ = write_atomically(&dir.join(VERIFIED), &serde_json::to_vec(&verified).expect("plain strings"));
    }
    is_whole && cached_build.files.iter().all(|(name, digest)| has_file(output, name, *digest, plan))
}

/// Returns whether `name` is in the output directory, unmodified. A receipt need only be of this plan, since
/// other commands add to it.
fn has_file(output: &Utf8Path, name: &str, digest: Sha256, plan: &Plan) -> bool {
    let path = output.join(name);
    let text = read_file(&path, Links::Refuse, MAX_JSON).unwrap_or_default();
    if path != receipt::path(output, plan) {
        return Sha256::of(&text) == digest;
    }
    let receipt: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    receipt["plan_digest"].as_str() == Some(&plan.digest().to_string())
}

/// Restores missing images and documents. The inner error is about the cache, the outer one about `output`.
fn restore(cached_build: &CachedBuild, dir: &Utf8Path, plan: &Plan, ctx: &Context<'_>) -> Result<Result<()>> {
    let Context { output, reporter, .. } = ctx;
    oci::check_output(output, cached_build.tags.iter().map(TagSnapshot::layout))?;
    let _packing = pack::lock_output(output, reporter)?;
    let restore = || {
        snapshot::restore(&cached_build.tags, output, dir)?;
        for (name, digest) in &cached_build.files {
            if !has_file(output, name, *digest, plan) {
                let kept = dir.join(FILES).join(name);
                let text = read_file(&kept, Links::Refuse, MAX_JSON)
                    .context(Kind::Build, || format!("cannot read {kept}"))?;
                write_atomically(&output.join(name), &text)?;
            }
        }
        Ok(())
    };
    Ok(restore())
}

/// Returns the command line behind `known.command`, if this machine's cache still has it.
pub fn typed_command(known: &ReceiptFile, cache_dir: &Utf8Path) -> Option<TypedCommand> {
    let plan: Sha256 = known.plan_digest.parse().ok()?;
    let record = entry_dir(plan, cache_dir).join(RECORD);
    let cached_build: CachedBuild = read_json(&record)?;
    Some(cached_build.command).filter(|command| command.redacted == known.command && command.cwd.is_dir())
}

/// A build whose images and documents are written.
pub struct NewCachedBuild<'a> {
    pub plan: &'a Plan,
    pub profiles: &'a [Profile],
    pub sandbox: &'a SandboxReport,
    /// `uname -r`.
    pub release: &'a str,
    pub modules: usize,
    pub images: &'a [PackedImage],
    pub receipt: &'a Utf8Path,
    pub command: TypedCommand,
}

/// Stores a build in the cache for [`find`]. Failing to store it is not an error, since it only saves time.
pub fn store(build: NewCachedBuild<'_>, cache: &Cache, ctx: &Context<'_>) {
    if let Err(error) = try_store(build, cache, ctx) {
        ctx.reporter.note(&format!("cannot store the images in the cache: {error}"));
    }
}

fn try_store(build: NewCachedBuild<'_>, cache: &Cache, ctx: &Context<'_>) -> Result<()> {
    let scratch = cache.scratch()?;
    let plan = build.plan.digest();
    let written = build.images.iter().map(|image| &image.written);
    let cached_build = CachedBuild {
        plan,
        profiles: digest_of(build.profiles),
        host: ctx.host.installed(),
        sandboxed: build.sandbox.is_complete(),
        release: build.release.to_owned(),
        modules: build.modules,
        warnings: ctx.reporter.warnings(),
        images: build.images.to_vec(),
        tags: snapshot::snapshot_tags(written, &scratch.path)?,
        files: store_files(build.receipt, &scratch.path.join(FILES))?,
        command: build.command,
    };
    let record = serde_json::to_vec(&cached_build).expect("plain strings");
    write_atomically(&scratch.path.join(RECORD), &record)?;
    let dir = entry_dir(plan, &cache.root);
    remove_tree(&dir)?;
    fs::rename(&scratch.path, &dir).context(Kind::Build, || format!("cannot create {dir}"))?;
    remove_unused(cache, &dir)
}

/// Copies the receipt and the other documents to `dir`.
fn store_files(receipt: &Utf8Path, dir: &Utf8Path) -> Result<BTreeMap<String, Sha256>> {
    create_dir(dir)?;
    let ours =
        ["json"].into_iter().chain(attest::DOCUMENT_SUFFIXES).map(|ending| receipt.with_extension(ending));
    let mut kept = BTreeMap::new();
    for path in ours.filter(|path| path.exists()) {
        let name = path.file_name().unwrap_or_default();
        let bytes = read_file(&path, Links::Refuse, MAX_JSON).context(Kind::Build, cannot("copy", &path))?;
        fs::write(dir.join(name), &bytes).context(Kind::Build, cannot("copy", &path))?;
        kept.insert(name.to_owned(), Sha256::of(&bytes));
    }
    Ok(kept)
}

/// Removes the least recently used entries above the limit, but never `newest`.
fn remove_unused(cache: &Cache, newest: &Utf8Path) -> Result<()> {
    let all = list_entries(cache)?;
    let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, dir) in all {
        if bytes > MAX_BYTES && dir != newest {
            remove_tree(&dir)?;
            bytes -= size;
        }
    }
    Ok(())
}

/// Returns the last use, size and directory of each entry, the oldest first.
fn list_entries(cache: &Cache) -> Result<Vec<(SystemTime, u64, Utf8PathBuf)>> {
    let root = cache.root.join("images");
    let mut all = Vec::new();
    for entry in root.read_dir_utf8().context(Kind::Build, cannot("read", &root))?.flatten() {
        let files = WalkDir::new(entry.path()).into_iter().flatten();
        let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let used = fs::symlink_metadata(entry.path().join(RECORD)).and_then(|record| record.modified());
        all.push((used.unwrap_or(SystemTime::UNIX_EPOCH), bytes, entry.into_path()));
    }
    all.sort();
    Ok(all)
}

/// Returns the directory of the plan with this digest.
fn entry_dir(plan: Sha256, cache_dir: &Utf8Path) -> Utf8PathBuf {
    cache_dir.join("images").join(plan.to_string())
}

fn digest_of(profiles: &[Profile]) -> Sha256 {
    Sha256::of(format!("{profiles:?}"))
}
