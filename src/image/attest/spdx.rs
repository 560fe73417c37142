//! The software bill of materials, as SPDX 2.3 in JSON. It has the contents of the images, the sources and
//! the tools, and depends only on the plan and the images.

use crate::cve::{CompiledFile, CompiledFiles};
use crate::image::pack::PackedImage;
use crate::image::receipt::FinishedBuild;
use crate::kernel::{KernelVersion, SourceDigest};
use crate::plan::annotations::KERNEL_LICENCE;
use crate::plan::{SourceLocation, SourcePlan};
use crate::util::digest::Sha256;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

/// Registered with IANA.
pub(super) const MEDIA_TYPE: &str = "application/spdx+json";
/// The supplier of what kcompile makes, as in the annotation `vendor` of images.
const MADE_HERE: &str = "Organization: kcompile";
/// The supplier of kernel.org's releases.
const KERNEL_ORG_SUPPLIER: &str = "Organization: kernel.org";
/// SPDX's value for what is unknown.
pub(super) const UNKNOWN: &str = "NOASSERTION";
pub(super) const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const KERNEL: &str = "SPDXRef-Kernel";
const SOURCE: &str = "SPDXRef-Source";
const COMPILED: &str = "SPDXRef-CompiledFiles";
/// The limit of files, which take 300 bytes each. With more, the document would exceed 2 MB, and only the list
/// of compiled files has them.
const MAX_FILES: usize = 6_000;

/// Returns the document about all images of a build.
pub(super) fn document(build: &FinishedBuild<'_>, name: &str) -> Value {
    let FinishedBuild { plan, .. } = build;
    let mut packages = vec![kernel(build), source(build)];
    let mut relationships = vec![related(KERNEL, "GENERATED_FROM", SOURCE)];
    for image in build.images {
        let id = format!("SPDXRef-Image-{}", layout_name(image));
        packages.push(self::image(&id, image, build));
        relationships.push(related(DOCUMENT, "DESCRIBES", &id));
        relationships.push(if image.holds_kernel {
            related(&id, "CONTAINS", KERNEL)
        } else {
            related(&id, "GENERATED_FROM", SOURCE)
        });
    }
    for (index, patch) in plan.patches.iter().enumerate() {
        let id = format!("SPDXRef-Patch-{}", index + 1);
        let mut package = self::package(&id, &patch.name, UNKNOWN);
        package["checksums"] = sha256(patch.sha256);
        package["primaryPackagePurpose"] = json!("SOURCE");
        packages.push(package);
        relationships.push(related(&id, "PATCH_FOR", SOURCE));
    }
    for (tool, version) in &plan.toolchain.identity {
        let id = format!("SPDXRef-Tool-{tool}");
        let mut package = self::package(&id, tool, UNKNOWN);
        package["versionInfo"] = json!(version);
        package["primaryPackagePurpose"] = json!("APPLICATION");
        packages.push(package);
        relationships.push(related(&id, "BUILD_TOOL_OF", KERNEL));
    }
    let mut files = Vec::new();
    if let Some(compiled) = build.compiled_files.filter(|compiled| compiled.files.len() <= MAX_FILES) {
        packages.push(compiled_package(compiled, build));
        relationships.push(related(KERNEL, "GENERATED_FROM", COMPILED));
        files.extend(compiled.files.iter().enumerate().map(|(index, file)| self::file(index, file)));
    }
    let epoch = plan.source_date_epoch.unwrap_or_default();
    let comment = "the date is that of the source, so that the same build gives the same document";
    let mut document = frame(name, epoch, comment, Contents { packages, relationships, files: &files });
    if !files.is_empty() {
        document["files"] = files.into();
    }
    document
}

/// The elements of a document.
pub(super) struct Contents<'a> {
    pub packages: Vec<Value>,
    pub relationships: Vec<Value>,
    /// The caller adds them to the document.
    pub files: &'a [Value],
}

/// Returns a document without files. `comment` is about its date, `epoch`.
pub(super) fn frame(name: &str, epoch: u64, comment: &str, contents: Contents<'_>) -> Value {
    let Contents { packages, relationships, files } = contents;
    // Each document must have its own namespace.
    let about = json!([packages, relationships, files]).to_string();
    json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": DOCUMENT,
        "dataLicense": "CC0-1.0",
        "name": name,
        "documentNamespace": format!("https://kcompile.github.io/spdx/{name}-{}", Sha256::of(about)),
        "creationInfo": {
            "created": crate::util::time::rfc3339(epoch),
            "creators": [concat!("Tool: kcompile-", env!("CARGO_PKG_VERSION"))],
            "comment": comment,
        },
        "packages": packages,
        "relationships": relationships,
    })
}

/// Returns the package of the files that were compiled. SPDX requires a code over their SHA-1 digests.
fn compiled_package(compiled: &CompiledFiles, build: &FinishedBuild<'_>) -> Value {
    let mut package = package(COMPILED, "linux-compiled-files", UNKNOWN);
    let mut digests: Vec<String> = compiled.files.iter().map(|file| hex(&file.sha1)).collect();
    digests.sort_unstable();
    package["versionInfo"] = json!(build.plan.version_text());
    package["primaryPackagePurpose"] = json!("SOURCE");
    package["licenseDeclared"] = json!(KERNEL_LICENCE);
    package["comment"] =
        json!("the sources and headers that the compiler read for the kernel and its modules");
    package["filesAnalyzed"] = json!(true);
    package["packageVerificationCode"] =
        json!({ "packageVerificationCodeValue": hex(&Sha1::digest(digests.concat())) });
    package["hasFiles"] = (0..compiled.files.len()).map(file_id).collect();
    package
}

fn file(index: usize, file: &CompiledFile) -> Value {
    json!({
        "SPDXID": file_id(index),
        "fileName": format!("./{}", file.path),
        "checksums": [{ "algorithm": "SHA1", "checksumValue": hex(&file.sha1) }],
    })
}

fn file_id(index: usize) -> String {
    format!("SPDXRef-File-{}", index + 1)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the package of the kernel file. Scanners look up its vulnerabilities by its CPE.
fn kernel(build: &FinishedBuild<'_>) -> Value {
    let FinishedBuild { plan, compiled, configured, .. } = build;
    let mut package = package(KERNEL, compiled.kernel.file_name().unwrap_or("vmlinux"), UNKNOWN);
    package["supplier"] = json!(MADE_HERE);
    package["versionInfo"] = json!(compiled.release);
    package["primaryPackagePurpose"] = json!("OPERATING_SYSTEM");
    package["checksums"] = sha256(compiled.kernel_sha256);
    package["licenseDeclared"] = json!(KERNEL_LICENCE);
    package["comment"] =
        json!(format!("plan {}, final .config {}", plan.digest().oci(), configured.sha256.oci()));
    package["externalRefs"] = json!([cpe(build)]);
    package
}

fn source(build: &FinishedBuild<'_>) -> Value {
    let FinishedBuild { plan, .. } = build;
    // The checks of the source differ between machines, so they are in the provenance.
    let SourcePlan { origin, digest, .. } = &plan.source;
    let digest = digest.as_ref().expect("known with the source");
    let location = origin.as_deref().and_then(|origin| location(origin, digest));
    let mut package = package(SOURCE, "linux", location.as_deref().unwrap_or(UNKNOWN));
    if let SourceLocation::KernelOrg { .. } = plan.source.location {
        package["supplier"] = json!(KERNEL_ORG_SUPPLIER);
    }
    package["versionInfo"] = json!(plan.version_text());
    package["primaryPackagePurpose"] = json!("SOURCE");
    package["licenseDeclared"] = json!(KERNEL_LICENCE);
    package["sourceInfo"] = json!(match origin {
        Some(origin) => format!("{origin} ({digest})"),
        None => digest.to_string(),
    });
    if let Some(digest) = digest.sha256() {
        package["checksums"] = sha256(digest);
    }
    let purl = format!("pkg:generic/linux@{}", plan.version_text());
    package["externalRefs"] = json!([cpe(build), reference("PACKAGE-MANAGER", "purl", &purl)]);
    package
}

fn image(id: &str, image: &PackedImage, build: &FinishedBuild<'_>) -> Value {
    let name = layout_name(image);
    let mut package = package(id, name, UNKNOWN);
    package["supplier"] = json!(MADE_HERE);
    package["versionInfo"] = json!(image.written.tag);
    package["primaryPackagePurpose"] = json!("CONTAINER");
    package["checksums"] = sha256(image.written.digest);
    package["comment"] = json!("the checksum is the digest of the image's manifest");
    package["licenseDeclared"] = json!(KERNEL_LICENCE);
    let purl = format!(
        "pkg:oci/{name}@{}?arch={}&tag={}",
        image.written.digest.oci(),
        build.plan.arch,
        image.written.tag
    );
    package["externalRefs"] = json!([reference("PACKAGE-MANAGER", "purl", &purl)]);
    package
}

/// Returns the required fields of a package.
pub(super) fn package(id: &str, name: &str, location: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "supplier": UNKNOWN,
        "downloadLocation": location,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
    })
}

/// Returns the download location of the source, as a URL or as `git+URL@COMMIT`, if the origin is a URL.
fn location(origin: &str, digest: &SourceDigest) -> Option<String> {
    if !["https://", "http://", "git://", "ssh://"].iter().any(|scheme| origin.starts_with(scheme)) {
        return None;
    }
    let Some(commit) = digest.commit() else { return Some(origin.to_owned()) };
    let url = origin.split('#').next().unwrap_or(origin);
    let scheme = if url.starts_with("git://") { "" } else { "git+" };
    Some(format!("{scheme}{url}@{commit}"))
}

fn cpe(build: &FinishedBuild<'_>) -> Value {
    let (version, update) = match build.plan.version.and_then(KernelVersion::candidate) {
        Some(candidate) => {
            (build.plan.version_text().replace(&format!("-rc{candidate}"), ""), format!("rc{candidate}"))
        }
        None => (build.plan.version_text(), "*".to_owned()),
    };
    let locator = format!("cpe:2.3:o:linux:linux_kernel:{version}:{update}:*:*:*:*:*:*");
    reference("SECURITY", "cpe23Type", &locator)
}

pub(super) fn reference(category: &str, kind: &str, locator: &str) -> Value {
    json!({ "referenceCategory": category, "referenceType": kind, "referenceLocator": locator })
}

pub(super) fn sha256(digest: Sha256) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": digest.to_string() }])
}

pub(super) fn related(from: &str, how: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to })
}

fn layout_name(image: &PackedImage) -> &str {
    image.written.layout.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_location_where_there_is_one() {
        let commit = &format!("commit:{}", "a".repeat(40)).parse().unwrap();
        let archive = &SourceDigest::Sha256(Sha256::of(b""));
        for (origin, digest, expected) in [
            ("https://cdn.kernel.org/x.tar.xz", archive, Some("https://cdn.kernel.org/x.tar.xz".to_owned())),
            (
                "https://example.org/linux.git#ch-6.2",
                commit,
                Some(format!("git+https://example.org/linux.git@{}", "a".repeat(40))),
            ),
            (
                "git://example.org/linux.git#x",
                commit,
                Some(format!("git://example.org/linux.git@{}", "a".repeat(40))),
            ),
            ("git@example.org:linux.git#x", commit, None),
            ("apt:linux-source-6.1=6.1.192-2", archive, None),
        ] {
            assert_eq!(location(origin, digest), expected, "{origin}");
        }
    }
}
