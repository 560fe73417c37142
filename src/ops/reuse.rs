//! Nothing changed, nothing done: the images that a plan made are kept in the cache, by the digest of the
//! plan. The same plan again is answered from what stands in the output directory, when that is proven
//! whole, and else put back from there. Nothing is compiled and make is not called for it.

use crate::cache::Cache;
use crate::host::Host;
use crate::image::pack::{self, PackedImage};
use crate::image::receipt::Known;
use crate::image::{attest, receipt};
use crate::kbuild::sandbox::{self, Confinement};
use crate::kconfig::requirements::Profile;
use crate::oci;
use crate::oci::snapshot::{self, Kept, Seen};
use crate::ops::context::Run;
use crate::plan::Plan;
use crate::report::{Phase, Report};
use crate::util::digest::Sha256;
use crate::util::error::{Context, Kind, Result};
use crate::util::fs::{create_dir, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use crate::util::text::counted;
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
const SEEN: &str = "seen.json";
/// Images that take more than this together go, those that were not used for longest first.
const MOST_BYTES: u64 = 2 << 30;

/// What came of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
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
    confined: bool,
    /// `uname -r`.
    pub release: String,
    /// How many modules.
    pub modules: usize,
    /// What was to be looked at.
    #[serde(rename = "findings")]
    pub findings: Vec<String>,
    #[serde(rename = "images")]
    images: Vec<PackedImage>,
    /// These, and what is attached to them.
    #[serde(rename = "tags")]
    tags: Vec<Kept>,
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
    pub published: String,
    /// Its words, the program's name first.
    pub words: Vec<String>,
    /// Where it was typed.
    pub cwd: Utf8PathBuf,
}

/// The images that `plan` made, in the output directory: they are there, or they are put there. `None`:
/// they have to be made.
pub fn find(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    run: &Run<'_>,
) -> Result<Option<(Made, Vec<PackedImage>)>> {
    let dir = place(plan.digest(), &cache.root);
    let Some(made) = read(&dir, plan).filter(|_| run.reuses()) else { return Ok(None) };
    if made.profiles != digest_of(profiles) || made.host != run.host.installed() {
        return Ok(None);
    }
    if run.sandbox == sandbox::Choice::On && !made.confined {
        return Ok(None);
    }
    let count = counted(made.images.len(), "image", "images");
    let running = run.report.start(Phase::Reuse, &format!("{count} of the same plan"));
    if is_whole(&made, &dir, plan, &run.output) {
        running.finish(&format!("{count}, whole as they were: nothing to do"));
    } else {
        match restore(&made, &dir, plan, run)? {
            Ok(()) => _ = running.finish(&format!("{count} from the cache, nothing compiled")),
            Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
            Err(error) => {
                run.report.note(&format!("the images in the cache are of no use: {error}"));
                return Ok(None);
            }
        }
    }
    if let Some(owner) = cache.foreign_owner(&dir) {
        let made_by = format!("these images were made in the shared cache by user {owner}, who is believed");
        run.report.note(&made_by);
    }
    // A use is a use; whether that can be written does not matter.
    let _ =
        open_file(dir.join(RECORD), Links::Refuse).and_then(|record| record.set_modified(SystemTime::now()));
    made.findings.iter().for_each(|finding| run.report.finding(finding.clone()));
    let images = made.in_output(&run.output);
    Ok(Some((made, images)))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Utf8Path) -> Option<T> {
    serde_json::from_slice(&read_file(path, Links::Refuse, MAX_JSON).ok()?).ok()
}

fn read(dir: &Utf8Path, plan: &Plan) -> Option<Made> {
    let made: Made = read_json(&dir.join(RECORD))?;
    (made.plan == plan.digest()).then_some(made)
}

impl Made {
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
fn is_whole(made: &Made, dir: &Utf8Path, plan: &Plan, output: &Utf8Path) -> bool {
    let before: Seen = read_json(&dir.join(SEEN)).unwrap_or_default();
    let mut seen = before.clone();
    let is_whole = made.tags.iter().all(|tag| tag.is_whole(output, &mut seen));
    if seen != before {
        let _ = write_atomically(&dir.join(SEEN), &serde_json::to_vec(&seen).expect("plain strings"));
    }
    is_whole && made.files.iter().all(|(name, digest)| has_file(output, name, *digest, plan))
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
fn restore(made: &Made, dir: &Utf8Path, plan: &Plan, run: &Run<'_>) -> Result<Result<()>> {
    let Run { output, report, .. } = run;
    oci::check_output(output, made.tags.iter().map(Kept::layout))?;
    let _packing = pack::lock_output(output, report)?;
    let restore = || {
        snapshot::restore(&made.tags, output, dir)?;
        for (name, digest) in &made.files {
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
pub fn typed_command(known: &Known, cache_dir: &Utf8Path) -> Option<TypedCommand> {
    let plan: Sha256 = known.plan_digest.parse().ok()?;
    let record = place(plan, cache_dir).join(RECORD);
    let made: Made = read_json(&record)?;
    Some(made.command).filter(|command| command.published == known.command && command.cwd.is_dir())
}

/// Keeps what `plan` made, for [`find`]. It saves time the next time: where it cannot be kept, it is not.
pub fn keep(
    (plan, profiles, confinement): (&Plan, &[Profile], &Confinement),
    (release, modules): (&str, usize),
    (images, receipt): (&[PackedImage], &Utf8Path),
    command: TypedCommand,
    cache: &Cache,
    (host, report): (&Host, &Report),
) {
    let kept = || -> Result<()> {
        let scratch = cache.scratch()?;
        let made = Made {
            plan: plan.digest(),
            profiles: digest_of(profiles),
            host: host.installed(),
            confined: confinement.is_whole(),
            release: release.to_owned(),
            modules,
            findings: report.findings(),
            images: images.to_vec(),
            tags: snapshot::keep(images.iter().map(|image| &image.written), &scratch.path)?,
            files: keep_files(receipt, &scratch.path.join(FILES))?,
            command,
        };
        let record = serde_json::to_vec(&made).expect("plain strings");
        write_atomically(&scratch.path.join(RECORD), &record)?;
        let dir = place(plan.digest(), &cache.root);
        remove_tree(&dir)?;
        fs::rename(&scratch.path, &dir).context(Kind::Build, || format!("cannot make {dir}"))?;
        remove_unused(cache, &dir)
    };
    if let Err(error) = kept() {
        report.note(&format!("the images are not kept in the cache: {error}"));
    }
}

/// Copies the receipt into `dir`, and the same in others' formats.
fn keep_files(receipt: &Utf8Path, dir: &Utf8Path) -> Result<BTreeMap<String, Sha256>> {
    create_dir(dir)?;
    let ours = ["json"].into_iter().chain(attest::BESIDE).map(|ending| receipt.with_extension(ending));
    let mut kept = BTreeMap::new();
    for path in ours {
        let wrong = || format!("cannot copy {path}");
        let name = path.file_name().unwrap_or_default();
        let bytes = read_file(&path, Links::Refuse, MAX_JSON).context(Kind::Build, wrong)?;
        fs::write(dir.join(name), &bytes).context(Kind::Build, wrong)?;
        kept.insert(name.to_owned(), Sha256::of(&bytes));
    }
    Ok(kept)
}

/// Makes room: `newest` stays in any case.
fn remove_unused(cache: &Cache, newest: &Utf8Path) -> Result<()> {
    let all = all(cache)?;
    let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, dir) in all {
        if bytes > MOST_BYTES && dir != newest {
            remove_tree(&dir)?;
            bytes -= size;
        }
    }
    Ok(())
}

/// What is kept: when it was used last, its bytes, its place; in the order of the time.
fn all(cache: &Cache) -> Result<Vec<(SystemTime, u64, Utf8PathBuf)>> {
    let root = cache.root.join("images");
    let wrong = || format!("cannot read {root}");
    let mut all = Vec::new();
    for entry in root.read_dir_utf8().context(Kind::Build, wrong)?.flatten() {
        let files = WalkDir::new(entry.path()).into_iter().flatten();
        let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let used = fs::symlink_metadata(entry.path().join(RECORD)).and_then(|record| record.modified());
        all.push((used.unwrap_or(SystemTime::UNIX_EPOCH), bytes, entry.into_path()));
    }
    all.sort();
    Ok(all)
}

/// Where the images of the plan with this digest are kept.
fn place(plan: Sha256, cache_dir: &Utf8Path) -> Utf8PathBuf {
    cache_dir.join("images").join(plan.to_string())
}

fn digest_of(profiles: &[Profile]) -> Sha256 {
    Sha256::of(format!("{profiles:?}"))
}
