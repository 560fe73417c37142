//! Pushes layouts to a registry. skopeo handles registries, credentials and retries. kcompile decides which
//! image goes where, and checks all bytes first, because skopeo does not read a blob that the registry has.
//! Then it checks that the registry serves the same digest and lists the artifacts of an image.

mod extra_tags;
mod names;
mod plan_tags;
mod referrers;
pub(super) mod skopeo;

use super::signature::SigningKey;
use crate::host::Host;
use crate::kernel::KernelVersion;
use crate::oci::REFERRERS_SUFFIX;
use crate::oci::read::{Reference, layouts_in, tag_part};
use crate::oci::tags::{self, Tagged, TaggedKind};
use crate::report::{Count, Phase, PhaseGuard, Reporter, Unit};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::text::{format_size, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use extra_tags::newest_of_series;
use names::check_name;
pub use names::check_prefix;
use plan_tags::PlanTags;
use std::collections::{BTreeMap, BTreeSet};

/// A registry, and skopeo's options for it.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The prefix of all repositories, such as `docker.io/foobar`.
    pub prefix: String,
    /// Whether TLS is required, and certificates are checked.
    pub tls_verify: bool,
    /// The file with credentials. By default skopeo uses its own.
    pub authfile: Option<Utf8PathBuf>,
    pub retry_times: u16,
    /// `--sign`: the key that signs all images and their attachments.
    pub signing_key: Option<SigningKey>,
}

impl Registry {
    /// Returns the host and port.
    fn host(&self) -> &str {
        self.prefix.split('/').next().unwrap_or(&self.prefix)
    }
}

/// What to do if a tag in the registry has another digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwritePolicy {
    /// Replaces the tag, with a note.
    Warn,
    /// Pushes nothing.
    Refuse,
}

/// Whether artifacts are pushed with the images that they are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferrerPolicy {
    /// Pushes them, and adds them to the registry's list of referrers.
    Push,
    /// `--no-attest`.
    Skip,
}

/// The tags that images get in the registry besides their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtraTags {
    /// `--tag-series`.
    pub series: bool,
    /// `--tag-build`.
    pub build: bool,
}

/// What a tag in the registry stands for. Series come last, so that they never name an image whose attachments are
/// missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TagKind {
    /// The tag in the layout.
    Own,
    /// A build. No other image replaces it.
    Build,
    /// What decides the image. Another image of the same inputs may replace it.
    Plan,
    /// The newest version of a series.
    Series(KernelVersion),
}

/// A tag of a layout, and the repository and tag that it goes to.
#[derive(Clone, Debug)]
pub struct ImageCopy {
    layout: Utf8PathBuf,
    tagged: Tagged,
    repository: String,
    tag: String,
    kind: TagKind,
}

impl ImageCopy {
    /// Returns `docker://docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7`.
    pub fn destination(&self) -> String {
        format!("docker://{}:{}", self.repository, self.tag)
    }

    /// Returns the digest of its manifest or index.
    pub fn digest(&self) -> Sha256 {
        self.tagged.digest
    }
}

/// Returns what to push of these layouts. Images come before their indexes,
/// and artifacts come last. Reads only manifests.
///
/// The repository has the name of the layout. An artifact goes into the repository of its subject,
/// which is searched in the layouts of the same directory. If the subject is not there, the
/// artifact is skipped with a note. Images get the tags of `extra` too.
///
/// # Errors
///
/// There is no such layout or tag, or registries do not accept its name (exit code 2). Or a
/// layout breaks a rule (3).
pub fn copies(
    references: &[Reference],
    referrers: ReferrerPolicy,
    extra: ExtraTags,
    registry: &Registry,
    reporter: &Reporter,
) -> Result<Vec<ImageCopy>> {
    check_prefix(&registry.prefix)?;
    let mut copies = BTreeMap::new();
    let mut subjects = SubjectLayouts::default();
    let mut extra_copies = Vec::new();
    let mut plan_tags = PlanTags::default();
    for reference in references {
        let layout = &reference.layout;
        for tagged in select_tags(reference)? {
            if tagged.kind.subject().is_some() && referrers == ReferrerPolicy::Skip {
                continue;
            }
            let Some(name) = subjects.repository(layout, &tagged)? else {
                reporter.note(&format!(
                    "{layout}:{} is not pushed, because the image that it is attached to is missing",
                    tagged.tag
                ));
                continue;
            };
            // The name in the layout may be the full reference of another registry.
            let tag = tag_part(&tagged.tag).to_owned();
            check_name(layout, &name, &tag)?;
            let repository = format!("{}/{name}", registry.prefix);
            let copy = ImageCopy { layout: layout.clone(), tagged, repository, tag, kind: TagKind::Own };
            extra_copies.extend(copy.with_extra_tags(extra, reporter)?);
            plan_tags.add(&copy)?;
            insert(copy, &mut copies)?;
        }
    }
    for copy in plan_tags.copies(reporter) {
        insert(copy, &mut copies)?;
    }
    for copy in newest_of_series(extra_copies) {
        insert(copy, &mut copies)?;
    }
    if copies.is_empty() {
        return Err(Error::usage("the layouts have no tag that can be pushed"));
    }
    let mut copies: Vec<ImageCopy> = copies.into_values().collect();
    copies.sort_by_cached_key(|copy| (copy.kind, copy.tagged.kind, copy.destination()));
    Ok(copies)
}

/// Adds a copy.
///
/// # Errors
///
/// Exit code 2 if another image would get the same tag.
fn insert(copy: ImageCopy, copies: &mut BTreeMap<String, ImageCopy>) -> Result<()> {
    let destination = copy.destination();
    let Some(other) = copies.get(&destination) else {
        copies.insert(destination, copy);
        return Ok(());
    };
    if other.layout == copy.layout && other.tagged.digest == copy.tagged.digest {
        return Ok(());
    }
    let [one, two] = [other, &copy].map(|copy| format!("{}:{}", copy.layout, copy.tagged.tag));
    Err(Error::usage(format!("{one} and {two} would both be pushed to {destination}")))
}

/// Returns the selected tags of a layout.
fn select_tags(reference: &Reference) -> Result<Vec<Tagged>> {
    let Reference { layout, tag } = reference;
    // Readers of `oci:PATH:TAG` end the path there.
    if layout.as_str().contains(':') {
        return Err(Error::usage(format!("{layout} has a colon in its path, which skopeo cannot read")));
    }
    let all = tags::tags(layout)?;
    let Some(tag) = tag else { return Ok(all) };
    let is_exact = |tagged: &&Tagged| tagged.tag == *tag || format!("@{}", tagged.digest.oci()) == *tag;
    let found = all.iter().find(is_exact).or_else(|| all.iter().find(|tagged| tag_part(&tagged.tag) == tag));
    match found {
        Some(one) => Ok(vec![one.clone()]),
        None => {
            let tags: Vec<&str> = all.iter().map(|tagged| tagged.tag.as_str()).collect();
            Err(Error::usage(format!("{layout} has no image with the tag {tag}"))
                .hint(format!("its tags are {}", tags.join(", "))))
        }
    }
}

/// Returns the name of a layout, or of an archive without `.tar`.
fn repository_name(layout: &Utf8Path) -> &str {
    let name = layout.file_name().unwrap_or_default();
    if layout.is_file() { name.strip_suffix(".tar").unwrap_or(name).trim_end_matches(".oci") } else { name }
}

/// The possible subjects of artifacts, by directory. Each layout is read once.
#[derive(Default)]
struct SubjectLayouts(BTreeMap<Utf8PathBuf, Vec<SubjectLayout>>);

struct SubjectLayout {
    name: String,
    /// The digests of its tags.
    tagged: BTreeSet<Sha256>,
    /// The digests of the images of its indexes.
    manifests: BTreeSet<Sha256>,
}

impl SubjectLayouts {
    /// Returns the name of the repository, or `None` for an artifact whose subject was not found.
    fn repository(&mut self, layout: &Utf8Path, tagged: &Tagged) -> Result<Option<String>> {
        let name = repository_name(layout);
        let Some(subject) = tagged.kind.subject() else { return Ok(Some(name.to_owned())) };
        let dir = layout.parent().unwrap_or(Utf8Path::new("/"));
        if !self.0.contains_key(dir) {
            self.0.insert(dir.to_owned(), SubjectLayout::sibling_layouts(dir)?);
        }
        let all = &self.0[dir];
        // In the layout of the same name, the subject may also be part of an index.
        let own =
            name.strip_suffix(REFERRERS_SUFFIX).and_then(|name| all.iter().find(|one| one.name == name));
        let has = |one: &&SubjectLayout| one.tagged.contains(&subject);
        let own = own.filter(|one| has(one) || one.manifests.contains(&subject));
        Ok(own.or_else(|| all.iter().find(has)).map(|one| one.name.clone()))
    }
}

impl SubjectLayout {
    fn sibling_layouts(dir: &Utf8Path) -> Result<Vec<SubjectLayout>> {
        let layouts =
            layouts_in(dir)?.into_iter().filter(|layout| !layout.as_str().ends_with(REFERRERS_SUFFIX));
        layouts.map(|layout| SubjectLayout::of(&layout)).collect()
    }

    fn of(layout: &Utf8Path) -> Result<SubjectLayout> {
        let tags = tags::tags(layout)?;
        let mut manifests = BTreeSet::new();
        for index in tags.iter().filter(|tagged| tagged.kind == TaggedKind::Index) {
            manifests.extend(index.images(layout)?);
        }
        let name = layout.file_name().unwrap_or_default().to_owned();
        Ok(SubjectLayout { name, tagged: tags.iter().map(|tagged| tagged.digest).collect(), manifests })
    }
}

/// Checks everything, then copies one after the other, and calls `pushed` for each copy that the registry
/// serves. Notes name the tags that had another digest.
///
/// # Errors
///
/// A tag has another digest and must not be replaced (exit code 1). skopeo is missing (4). A layout is
/// damaged, or the registry refuses, cannot be reached, or serves another digest (3).
pub fn push(
    copies: &[ImageCopy],
    overwrite: OverwritePolicy,
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
    mut pushed: impl FnMut(&ImageCopy) -> Result<()>,
) -> Result<()> {
    let phase = reporter.start(Phase::Push, &format!("to {}", registry.prefix));
    let copies = &extra_tags::without_older(copies, registry, host, reporter)?;
    let mut bytes = 0;
    for (index, copy) in copies.iter().enumerate() {
        progress(&phase, index, copies.len(), &format!("checking {}:{}", copy.layout, copy.tagged.tag));
        if copy.kind == TagKind::Own {
            bytes += tags::check(&copy.layout, &copy.tagged).map_err(|error| {
                error.hint("nothing was pushed; build the kernel again, which replaces the damaged image")
            })?;
        }
    }
    check_tags(copies, overwrite, registry, host, reporter)?;
    for (index, copy) in copies.iter().enumerate() {
        let destination = copy.destination();
        progress(&phase, index, copies.len(), &destination);
        skopeo::copy(copy, registry, host, |line| {
            progress(&phase, index, copies.len(), &format!("{destination}  {line}"));
        })?;
        check_served(copy, registry, host)?;
        if let Some(subject) = copy.tagged.kind.subject() {
            referrers::list(copy, subject, registry, host, reporter)?;
        }
        pushed(copy)?;
    }
    phase.finish(&format!("{}, {}", pluralize(copies.len(), "image", "images"), format_size(bytes)));
    Ok(())
}

fn progress(phase: &PhaseGuard<'_>, done: usize, total: usize, item: &str) {
    phase.progress(Count {
        done: done as u64,
        total: Some(total as u64),
        estimated: false,
        work: None,
        unit: Unit::Steps,
        item,
    });
}

/// Reports the tags of the registry that have another digest. The protocol has no way to keep
/// others from changing them meanwhile.
fn check_tags(
    copies: &[ImageCopy],
    overwrite: OverwritePolicy,
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
) -> Result<()> {
    let (mut others, mut replaced_builds) = (Vec::new(), Vec::new());
    for copy in copies {
        let served = skopeo::served_digest(copy, registry, host)?;
        let Some(other) = served.filter(|served| *served != copy.digest()) else { continue };
        let text = format!("{} has the digest {}", copy.destination(), other.oci());
        match copy.kind {
            TagKind::Own | TagKind::Plan => others.push(text),
            TagKind::Build => replaced_builds.push(text),
            TagKind::Series(version) => reporter.note(&format!("{text} and moves to Linux {version}")),
        }
    }
    if !replaced_builds.is_empty() {
        return Err(Error::build(format!(
            "tags of builds exist in the registry with other images: {}",
            replaced_builds.join(", ")
        ))
        .hint("nothing was pushed; the tag of a build never moves, so push without --tag-build"));
    }
    if overwrite == OverwritePolicy::Refuse && !others.is_empty() {
        return Err(Error::build(format!("tags exist in the registry: {}", others.join(", "))).hint(
            "nothing was pushed; without --no-overwrite these tags are replaced, and --no-attest skips the tags of \
             attached artifacts",
        ));
    }
    others.iter().for_each(|other| reporter.note(&format!("{other} and is replaced")));
    Ok(())
}

/// Compares the digest that the registry serves for the tag.
fn check_served(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<()> {
    let (expected, found) = (copy.digest(), skopeo::served_digest(copy, registry, host)?);
    if found == Some(expected) {
        return Ok(());
    }
    let ImageCopy { layout, tagged, .. } = copy;
    let message = format!(
        "{} is not the image that was pushed: {layout}:{} has the digest {}, the registry serves {}",
        copy.destination(),
        tagged.tag,
        expected.oci(),
        found.map_or_else(|| "nothing".to_owned(), Sha256::oci)
    );
    Err(Error::fetch(message)
        .hint("somebody else pushed to this tag at the same time, or the registry rewrites manifests"))
}
