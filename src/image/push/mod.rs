//! Layouts to a registry, by skopeo: it knows registries, their credentials and when to try again.
//! Ours is which image goes where; that every byte of it is whole before, since skopeo does not read
//! a blob that the registry has already; that the registry serves the same digest after; and that it lists what is
//! attached to an image.

mod names;
mod referrers;
mod skopeo;

use crate::host::Host;
use crate::oci::REFERRERS_SUFFIX;
use crate::oci::read::locate;
use crate::oci::tags::{self, Tagged, TaggedKind};
use crate::report::{Count, Phase, PhaseGuard, Reporter, Unit};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::{format_size, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use names::{check_name, check_prefix};
use std::collections::{BTreeMap, BTreeSet};

/// Where images go, and how skopeo is to talk to it.
#[derive(Clone, Debug)]
pub struct Registry {
    /// What stands before the names of the repositories: `docker.io/foobar`.
    pub prefix: String,
    /// Whether TLS is required, and certificates are checked.
    pub tls_verify: bool,
    /// Where skopeo finds credentials; `None`: in its own places.
    pub authfile: Option<Utf8PathBuf>,
    /// How often skopeo tries again.
    pub retry_times: u16,
}

impl Registry {
    /// Its host and port.
    fn host(&self) -> &str {
        self.prefix.split('/').next().unwrap_or(&self.prefix)
    }
}

/// What becomes of a tag of the registry that stands for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwritePolicy {
    /// It is named, and replaced.
    Warn,
    /// Nothing is pushed.
    Refuse,
}

/// Does what is attached to images go with them?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferrerPolicy {
    /// It does, and the registry's list of what refers to an image has it.
    Push,
    /// `--no-attest`.
    Skip,
}

/// An image, an index or an attachment of a layout, and the repository that it goes to.
#[derive(Clone, Debug)]
pub struct ImageCopy {
    layout: Utf8PathBuf,
    tagged: Tagged,
    repository: String,
}

impl ImageCopy {
    /// `docker://docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7`
    pub fn destination(&self) -> String {
        format!("docker://{}:{}", self.repository, self.tagged.tag)
    }

    /// Of its manifest or index, here and, once it is pushed, there.
    pub fn digest(&self) -> Sha256 {
        self.tagged.digest
    }
}

/// The layouts directly below `dir`, sorted by name.
///
/// Errors (exit code 2): `dir` cannot be read, or holds none.
pub fn layouts_in(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let hint = "build a kernel first, or say where the layouts are with -o DIR";
    let entries = dir
        .read_dir_utf8()
        .context(Kind::Usage, || format!("cannot read the output directory {dir}"))
        .map_err(|error| error.hint(hint))?;
    let mut layouts: Vec<Utf8PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        // What begins with a dot is a layout in the making.
        .filter(|path| {
            path.join("oci-layout").is_file() && path.file_name().is_some_and(|name| !name.starts_with('.'))
        })
        .collect();
    layouts.sort();
    match layouts.is_empty() {
        true => Err(Error::usage(format!("{dir} holds no OCI layout")).hint(hint)),
        false => Ok(layouts),
    }
}

/// What is to be pushed of these layouts, given as absolute `LAYOUT[:TAG]`, and where it goes: images
/// before the indexes over them, both before what is attached to them. Reads manifests only.
///
/// A layout's name becomes the name of its repository. An attachment goes into the repository of the
/// image that it is attached to, which is looked for in the layouts beside its own; of one whose image
/// is not there any more, a note is all that comes.
///
/// Errors: no such layout or tag, or a name or tag that no registry takes (exit code 2); a layout
/// that breaks a rule (3).
pub fn copies(
    references: &[Utf8PathBuf],
    referrers: ReferrerPolicy,
    registry: &Registry,
    reporter: &Reporter,
) -> Result<Vec<ImageCopy>> {
    check_prefix(&registry.prefix)?;
    let mut copies = BTreeMap::new();
    let mut subjects = SubjectLayouts::default();
    for reference in references {
        let (layout, selected) = select_tags(reference)?;
        for tagged in selected {
            if tagged.kind.subject().is_some() && referrers == ReferrerPolicy::Skip {
                continue;
            }
            let Some(name) = subjects.repository(&layout, &tagged)? else {
                reporter.note(&format!("{layout}:{} is attached to no image here: not pushed", tagged.tag));
                continue;
            };
            check_name(&layout, &name, &tagged.tag)?;
            let repository = format!("{}/{name}", registry.prefix);
            let copy = ImageCopy { layout: layout.clone(), tagged, repository };
            let is_another =
                |other: &ImageCopy| other.layout != layout || other.tagged.digest != copy.tagged.digest;
            if let Some(other) = copies.insert(copy.destination(), copy.clone()).filter(is_another) {
                return Err(Error::usage(format!(
                    "{} and {layout} would both become {}",
                    other.layout,
                    copy.destination()
                )));
            }
        }
    }
    if copies.is_empty() {
        return Err(Error::usage("nothing to push: none of the layouts has a tag that can be pushed"));
    }
    let mut copies: Vec<ImageCopy> = copies.into_values().collect();
    copies.sort_by_cached_key(|copy| (copy.tagged.kind, copy.destination()));
    Ok(copies)
}

/// The layout of a reference, and those of its tags that are meant.
fn select_tags(reference: &Utf8Path) -> Result<(Utf8PathBuf, Vec<Tagged>)> {
    let (layout, tag) = locate(reference);
    // Readers of `oci:PATH:TAG` end the path there.
    if layout.as_str().contains(':') {
        return Err(Error::usage(format!("{layout} has a colon in its path, which skopeo cannot read")));
    }
    let all = tags::tags(&layout)?;
    let Some(tag) = tag else { return Ok((layout, all)) };
    match all.iter().find(|tagged| tagged.tag == tag) {
        Some(one) => Ok((layout, vec![one.clone()])),
        None => {
            let tags: Vec<&str> = all.iter().map(|tagged| tagged.tag.as_str()).collect();
            Err(Error::usage(format!("{layout} has no image of the tag {tag}"))
                .hint(format!("it has {}", tags.join(", "))))
        }
    }
}

/// What the layouts of a directory hold that something may be attached to. Each layout is read once.
#[derive(Default)]
struct SubjectLayouts(BTreeMap<Utf8PathBuf, Vec<SubjectLayout>>);

/// A layout, but for those of attachments.
struct SubjectLayout {
    name: String,
    /// What its tags stand for.
    tagged: BTreeSet<Sha256>,
    /// The images of its indexes.
    manifests: BTreeSet<Sha256>,
}

impl SubjectLayouts {
    /// The name of the repository in the registry; `None`: an attachment, and nothing beside it has its subject.
    fn repository(&mut self, layout: &Utf8Path, tagged: &Tagged) -> Result<Option<String>> {
        let name = layout.file_name().unwrap_or_default();
        let Some(subject) = tagged.kind.subject() else { return Ok(Some(name.to_owned())) };
        let dir = layout.parent().unwrap_or(Utf8Path::new("/"));
        if !self.0.contains_key(dir) {
            self.0.insert(dir.to_owned(), SubjectLayout::sibling_layouts(dir)?);
        }
        let all = &self.0[dir];
        // The layout that it is called after may have its subject below an index over architectures.
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

/// Copies them all, one after the other, and calls `pushed` for each that the registry then serves.
/// Everything is read and checked before the first one is copied, and tags that stand for something else are named.
///
/// Errors: a tag stands for something else, and is not to be overwritten (exit code 1); skopeo is missing (4); a layout
/// is damaged, the registry refuses, cannot be reached, or serves another digest (3).
pub fn push(
    copies: &[ImageCopy],
    overwrite: OverwritePolicy,
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
    mut pushed: impl FnMut(&ImageCopy) -> Result<()>,
) -> Result<()> {
    let phase = reporter.start(Phase::Push, &format!("to {}", registry.prefix));
    let mut bytes = 0;
    for (index, copy) in copies.iter().enumerate() {
        progress(&phase, index, copies.len(), &format!("checking {}:{}", copy.layout, copy.tagged.tag));
        bytes += tags::check(&copy.layout, &copy.tagged).map_err(|error| {
            error.hint("nothing was pushed: build the image again, it is replaced by a whole one")
        })?;
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
    phase.progress(Count { done: done as u64, total: Some(total as u64), unit: Unit::Steps, item });
}

/// Names the tags of the registry that stand for something else than they will. The protocol has no way to keep others
/// from writing there meanwhile.
fn check_tags(
    copies: &[ImageCopy],
    overwrite: OverwritePolicy,
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
) -> Result<()> {
    let mut others = Vec::new();
    for copy in copies {
        let there = skopeo::served_digest(copy, registry, host)?;
        if let Some(other) = there.filter(|there| *there != copy.digest()) {
            others.push(format!("{} stands for {}", copy.destination(), other.oci()));
        }
    }
    if overwrite == OverwritePolicy::Refuse && !others.is_empty() {
        return Err(Error::build(others.join("; ")).hint(
            "nothing was pushed: without --no-overwrite these tags are replaced; --no-attest leaves those of \
             attachments out",
        ));
    }
    others.iter().for_each(|other| reporter.note(&format!("{other}, and is replaced")));
    Ok(())
}

/// Asks the registry for the tag, and hashes what it serves.
fn check_served(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<()> {
    let (expected, found) = (copy.digest(), skopeo::served_digest(copy, registry, host)?);
    if found == Some(expected) {
        return Ok(());
    }
    let ImageCopy { layout, tagged, .. } = copy;
    let message = format!(
        "{} is another image than was pushed: {layout}:{} is {}, the registry serves {}",
        copy.destination(),
        tagged.tag,
        expected.oci(),
        found.map_or_else(|| "nothing".to_owned(), Sha256::oci)
    );
    Err(Error::fetch(message)
        .hint("somebody pushed to this tag at the same time, or the registry changes what it gets"))
}
