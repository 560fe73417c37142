//! Nothing changed, nothing done: the images that a plan made are kept in the cache, by the digest of the
//! plan. The same plan again is answered from what stands in the output directory, when that is proven
//! whole, and else put back from there. Nothing is compiled and make is not called for it.

use crate::cache::Cache;
use crate::host::Host;
use crate::image::pack::{self, PackedImage};
use crate::image::receipt::ReceiptFile;
use crate::image::{attest, receipt};
use crate::kbuild::sandbox::{self, SandboxReport};
use crate::kconfig::requirements::Profile;
use crate::oci;
use crate::oci::snapshot::{self, TagSnapshot, VerifiedBlobs};
use crate::ops::context::Context;
use crate::plan::Plan;
use crate::report::{Phase, Reporter};
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{create_dir, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use crate::util::text::pluralize;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self};
use std::time::SystemTime;
use walkdir::WalkDir;

/// Written last: without it the images are not whole.
const RECORD: &str = "record.json";
/// What lies beside the layouts.
const FILES: &str = "files";
/// Which blobs were read, and where.
const VERIFIED: &str = "seen.json";
/// Images that take more than this together go, those that were not used for longest first.
const MAX_BYTES: u64 = 2 << 30;

/// What came of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CachedBuild {
    /// Its digest.
    #[serde(rename = "plan")]
    plan: Sha256,
    /// Of the requirement profiles that the final config was held against: they decide no byte, but
    /// whether there is a kernel at all.
    #[serde(rename = "profiles")]
    profiles: Sha256,
    /// What the host had then: Kconfig asks it about tools and headers, and with others there is another config.
    #[serde(rename = "host")]
    host: Sha256,
    /// Was make in a whole sandbox?
    #[serde(rename = "confined")]
    sandboxed: bool,
    /// `uname -r`.
    pub release: String,
    /// How many modules.
    pub modules: usize,
    /// What was to be looked at.
    #[serde(rename = "findings")]
    pub warnings: Vec<String>,
    #[serde(rename = "images")]
    images: Vec<PackedImage>,
    /// These, and what is attached to them.
    #[serde(rename = "tags")]
    tags: Vec<TagSnapshot>,
    /// What lies beside the layouts, by name: the receipt, and the same in others' formats.
    #[serde(rename = "files")]
    files: BTreeMap<String, Sha256>,
    /// What was typed.
    #[serde(default)]
    command: TypedCommand,
}

/// A command line of this machine, whose paths no receipt has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TypedCommand {
    /// As the receipt has it.
    #[serde(rename = "published")]
    pub redacted: String,
    /// Its words, the program's name first.
    #[serde(rename = "words")]
    pub args: Vec<String>,
    /// Where it was typed.
    pub cwd: Utf8PathBuf,
}

/// The images that `plan` made, in the output directory: they are there, or they are put there. `None`:
/// they have to be made.
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
        phase.finish(&format!("{count}, whole as they were: nothing to do"));
    } else {
        match restore(&cached_build, &dir, plan, ctx)? {
            Ok(()) => _ = phase.finish(&format!("{count} from the cache, nothing compiled")),
            Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
            Err(error) => {
                ctx.reporter.note(&format!("the images in the cache are of no use: {error}"));
                return Ok(None);
            }
        }
    }
    if let Some(owner) = cache.foreign_owner(&dir) {
        let made_by = format!("these images were made in the shared cache by user {owner}, who is believed");
        ctx.reporter.note(&made_by);
    }
    // A use is a use; whether that can be written does not matter.
    let _ =
        open_file(dir.join(RECORD), Links::Refuse).and_then(|record| record.set_modified(SystemTime::now()));
    cached_build.warnings.iter().for_each(|finding| ctx.reporter.warning(finding.clone()));
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
    /// The images as they lie in `output`.
    fn in_output(&self, output: &Utf8Path) -> Vec<PackedImage> {
        let mut images = self.images.clone();
        for PackedImage { written, .. } in &mut images {
            written.layout = output.join(written.layout.file_name().unwrap_or_default());
        }
        images
    }
}

/// Does everything stand whole in the output directory?
fn is_intact(cached_build: &CachedBuild, dir: &Utf8Path, plan: &Plan, output: &Utf8Path) -> bool {
    let before: VerifiedBlobs = read_json(&dir.join(VERIFIED)).unwrap_or_default();
    let mut verified = before.clone();
    let is_whole = cached_build.tags.iter().all(|tag| tag.is_intact(output, &mut verified));
    if verified != before {
        let _ = write_atomically(&dir.join(VERIFIED), &serde_json::to_vec(&verified).expect("plain strings"));
    }
    is_whole && cached_build.files.iter().all(|(name, digest)| has_file(output, name, *digest, plan))
}

/// Is the file there as it was? To a receipt other commands may have added: it has to be of this plan.
fn has_file(output: &Utf8Path, name: &str, digest: Sha256, plan: &Plan) -> bool {
    let path = output.join(name);
    let text = read_file(&path, Links::Refuse, MAX_JSON).unwrap_or_default();
    if path != receipt::path(output, plan) {
        return Sha256::of(&text) == digest;
    }
    let receipt: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    receipt["plan_digest"].as_str() == Some(&plan.digest().to_string())
}

/// Puts back what is missing. The inner error is one of the cache, the outer one of the output directory.
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

/// What was typed where the receipt `known` has `known.command`; `None`: not on this machine, or it is forgotten.
pub fn typed_command(known: &ReceiptFile, cache_dir: &Utf8Path) -> Option<TypedCommand> {
    let plan: Sha256 = known.plan_digest.parse().ok()?;
    let record = entry_dir(plan, cache_dir).join(RECORD);
    let cached_build: CachedBuild = read_json(&record)?;
    Some(cached_build.command).filter(|command| command.redacted == known.command && command.cwd.is_dir())
}

/// Keeps what `plan` made, for [`find`]. It saves time the next time: where it cannot be kept, it is not.
pub fn store(
    (plan, profiles, confinement): (&Plan, &[Profile], &SandboxReport),
    (release, modules): (&str, usize),
    (images, receipt): (&[PackedImage], &Utf8Path),
    command: TypedCommand,
    cache: &Cache,
    (host, reporter): (&Host, &Reporter),
) {
    let kept = || -> Result<()> {
        let scratch = cache.scratch()?;
        let cached_build = CachedBuild {
            plan: plan.digest(),
            profiles: digest_of(profiles),
            host: host.installed(),
            sandboxed: confinement.is_complete(),
            release: release.to_owned(),
            modules,
            warnings: reporter.warnings(),
            images: images.to_vec(),
            tags: snapshot::snapshot_tags(images.iter().map(|image| &image.written), &scratch.path)?,
            files: store_files(receipt, &scratch.path.join(FILES))?,
            command,
        };
        let record = serde_json::to_vec(&cached_build).expect("plain strings");
        write_atomically(&scratch.path.join(RECORD), &record)?;
        let dir = entry_dir(plan.digest(), &cache.root);
        remove_tree(&dir)?;
        fs::rename(&scratch.path, &dir).context(Kind::Build, || format!("cannot make {dir}"))?;
        remove_unused(cache, &dir)
    };
    if let Err(error) = kept() {
        reporter.note(&format!("the images are not kept in the cache: {error}"));
    }
}

/// Copies the receipt into `dir`, and the same in others' formats.
fn store_files(receipt: &Utf8Path, dir: &Utf8Path) -> Result<BTreeMap<String, Sha256>> {
    create_dir(dir)?;
    let ours =
        ["json"].into_iter().chain(attest::DOCUMENT_SUFFIXES).map(|ending| receipt.with_extension(ending));
    let mut kept = BTreeMap::new();
    for path in ours {
        let message = || format!("cannot copy {path}");
        let name = path.file_name().unwrap_or_default();
        let bytes = read_file(&path, Links::Refuse, MAX_JSON).context(Kind::Build, message)?;
        fs::write(dir.join(name), &bytes).context(Kind::Build, message)?;
        kept.insert(name.to_owned(), Sha256::of(&bytes));
    }
    Ok(kept)
}

/// Makes room: `newest` stays in any case.
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

/// What is kept: when it was used last, its bytes, its place; in the order of the time.
fn list_entries(cache: &Cache) -> Result<Vec<(SystemTime, u64, Utf8PathBuf)>> {
    let root = cache.root.join("images");
    let message = || format!("cannot read {root}");
    let mut all = Vec::new();
    for entry in root.read_dir_utf8().context(Kind::Build, message)?.flatten() {
        let files = WalkDir::new(entry.path()).into_iter().flatten();
        let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let used = fs::symlink_metadata(entry.path().join(RECORD)).and_then(|record| record.modified());
        all.push((used.unwrap_or(SystemTime::UNIX_EPOCH), bytes, entry.into_path()));
    }
    all.sort();
    Ok(all)
}

/// Where the images of the plan with this digest are kept.
fn entry_dir(plan: Sha256, cache_dir: &Utf8Path) -> Utf8PathBuf {
    cache_dir.join("images").join(plan.to_string())
}

fn digest_of(profiles: &[Profile]) -> Sha256 {
    Sha256::of(format!("{profiles:?}"))
}
