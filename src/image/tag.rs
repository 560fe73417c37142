//! Tags of kernel images. A build tags its images with the version, which
//! `--builtin` and `--variant` extend. `kcompile push` can
//! add the tag of the series, which moves, and one with the digest of the build, which does not.

use crate::kernel::{KernelVersion, VersionRequest};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::tag_part;
use crate::oci::tags::Tagged;
use crate::plan::annotations;
use crate::plan::request::TagSuffix;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use oci_spec::image::Descriptor;

/// The number of hexadecimal digits of a build in a tag.
const BUILD_DIGITS: usize = 8;

/// Returns the tag by which `--image-cache` finds an image with this build digest.
pub fn plan_tag(build: Sha256) -> String {
    format!("plan-{build}")
}

/// A tag that begins with a version, `VERSION[-builtin|-minimal][-BUILD]`.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelTag<'a> {
    pub version: VersionRequest,
    pub suffix: TagSuffix,
    /// The first digits of the digest of the build.
    pub build: Option<&'a str>,
}

impl<'a> KernelTag<'a> {
    /// Parses a tag, or returns `None` if it has another form, as the tags that users choose.
    pub fn parse(tag: &'a str) -> Option<KernelTag<'a>> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_build = |text: &str| text.len() == BUILD_DIGITS && text.bytes().all(is_hex);
        let (rest, build) = match tag.rsplit_once('-') {
            Some((rest, build)) if is_build(build) => (rest, Some(build)),
            _ => (tag, None),
        };
        let (version, suffix) = TagSuffix::split(rest);
        Some(KernelTag { version: version.parse().ok()?, suffix, build })
    }
}

/// The images of a tag as their annotations describe them.
#[derive(Debug)]
pub struct TaggedKernel {
    pub version: KernelVersion,
    suffix: TagSuffix,
    build: Option<Sha256>,
}

impl TaggedKernel {
    /// Reads the annotations of an image, or of the images of an index. Returns `None` if they have no kernel
    /// version, or if `tag` is not their version.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the layout breaks a rule.
    pub fn read(reader: &LayoutReader, tagged: &Tagged) -> Result<Option<TaggedKernel>> {
        let refs = reader.images(Some(&tagged.tag))?;
        let images =
            refs.iter().map(|manifest_ref| reader.image(manifest_ref)).collect::<Result<Vec<_>>>()?;
        let Some(first) = images.first() else { return Ok(None) };
        let version = first.oci_annotation("version").and_then(|version| version.parse().ok());
        let Some(version) = version else { return Ok(None) };
        let suffix = annotations::tag_suffix(|key| first.annotation(key));
        let plans =
            images.iter().map(|image| image.annotation(annotations::PLAN)).collect::<Option<Vec<_>>>();
        let kernel = TaggedKernel { version, suffix, build: plans.and_then(|plans| build_digest(&plans)) };
        Ok((suffix.add_to(&version.to_string()) == tag_part(&tagged.tag)).then_some(kernel))
    }

    /// Returns the tag of the series, `6.1`, `6.1-builtin` or `6.1-minimal`, which a release candidate does not have.
    pub fn series_tag(&self) -> Option<String> {
        let (major, minor) = self.version.series();
        let series = VersionRequest::Series(major, minor).to_string();
        self.version.candidate().is_none().then(|| self.suffix.add_to(&series))
    }

    /// Returns the tag of the build, `6.1.192-8f2a91c0`, if the annotations name the plan.
    pub fn build_tag(&self) -> Option<String> {
        let build = self.build?.to_string();
        Some(format!("{}-{}", self.suffix.add_to(&self.version.to_string()), &build[..BUILD_DIGITS]))
    }
}

/// Returns the digest of the build of a tag in the layout's index, or `None` if annotations do not name it.
pub fn build_of(reader: &LayoutReader, outer: &Descriptor) -> Option<Sha256> {
    let refs = reader.manifest_refs(outer).ok()?;
    let images: Vec<_> = refs.iter().filter_map(|manifest_ref| reader.image(manifest_ref).ok()).collect();
    let plans = images.iter().map(|image| image.annotation(annotations::PLAN)).collect::<Option<Vec<_>>>()?;
    build_digest(&plans)
}

/// Returns the digest of a build. It is the digest of its plan, or for several architectures that of their plans'
/// digests, one on each line.
fn build_digest(plans: &[&str]) -> Option<Sha256> {
    match plans {
        [] => None,
        [plan] => plan.strip_prefix("sha256:")?.parse().ok(),
        several => Some(Sha256::of(several.iter().map(|plan| format!("{plan}\n")).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parsed() {
        let parse = |tag| {
            KernelTag::parse(tag)
                .map(|tag| (tag.version.to_string(), tag.suffix, tag.build.unwrap_or_default()))
        };
        let tag = |version: &str, suffix, build| Some((version.to_owned(), suffix, build));
        assert_eq!(parse("6.1.192"), tag("6.1.192", TagSuffix::None, ""));
        assert_eq!(parse("6.1"), tag("6.1", TagSuffix::None, ""));
        assert_eq!(parse("6.18-rc3-builtin"), tag("6.18-rc3", TagSuffix::Builtin, ""));
        assert_eq!(parse("6.1.192-0a1b2c3d"), tag("6.1.192", TagSuffix::None, "0a1b2c3d"));
        assert_eq!(parse("6.1.192-builtin-0a1b2c3d"), tag("6.1.192", TagSuffix::Builtin, "0a1b2c3d"));
        assert_eq!(parse("6.18.3-minimal"), tag("6.18.3", TagSuffix::Minimal, ""));
        assert_eq!(parse("6.18-minimal-0a1b2c3d"), tag("6.18", TagSuffix::Minimal, "0a1b2c3d"));
        for other in [
            "6.1-minimal-builtin",
            "latest",
            "6.1.192-debug",
            "6.1.192-0A1B2C3D",
            "builtin",
            "6.1.192-0a1b2c3",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_build_of_several_architectures_has_a_digest_of_its_own() {
        let plans = ["a", "b"].map(|text| Sha256::of(text).oci());
        let [one, other] = [plans[0].as_str(), plans[1].as_str()];
        assert_eq!(build_digest(&[one]), Some(Sha256::of("a")));
        assert_eq!(build_digest(&[one, other]), Some(Sha256::of(format!("{one}\n{other}\n"))));
        assert_eq!(build_digest(&["x"]), None);
    }
}
