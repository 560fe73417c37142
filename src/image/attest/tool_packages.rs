//! The software bill of materials of a toolchain: its Debian packages, as SPDX 2.3 in JSON.

use super::spdx::{Contents, DOCUMENT, MEDIA_TYPE, UNKNOWN, frame, package, reference, related, sha256};
use crate::oci::{self, Artifact, WrittenImage};
use crate::util::error::Result;
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fmt::Write as _;

const TOOLCHAIN: &str = "SPDXRef-Toolchain";

/// An installed package of Debian or Ubuntu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebianPackage {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// The source package, with its version if that differs.
    pub source: String,
}

/// Returns the installed packages in dpkg's `status` file.
pub fn installed_packages(status: &str) -> Vec<DebianPackage> {
    let stanza = |text: &str| {
        let field = |key: &str| {
            let lines = text.lines();
            let value = lines.filter_map(|line| line.split_once(": ")).find(|(found, _)| *found == key)?.1;
            Some(value.to_owned())
        };
        let is_installed = field("Status")?.ends_with(" installed");
        let name = field("Package")?;
        is_installed.then(|| DebianPackage {
            version: field("Version").unwrap_or_default(),
            architecture: field("Architecture").unwrap_or_default(),
            source: field("Source").unwrap_or_else(|| name.clone()),
            name,
        })
    };
    status.split("\n\n").filter_map(stanza).collect()
}

/// Attaches the list of `packages` to the image. `suite` is such as `debian:bookworm`. The caller holds the lock
/// of the output directory.
pub fn attach(
    output: &Utf8Path,
    image: &WrittenImage,
    suite: &str,
    packages: &[DebianPackage],
    epoch: u64,
) -> Result<()> {
    let bytes = format!("{:#}\n", document(image, suite, packages, epoch)).into_bytes();
    let artifact = Artifact { name: "toolchain.spdx.json".to_owned(), media_type: MEDIA_TYPE, bytes };
    oci::write_referrers(output, image, &[artifact])
}

fn document(image: &WrittenImage, suite: &str, packages: &[DebianPackage], epoch: u64) -> Value {
    let (distribution, release) = suite.split_once(':').unwrap_or((suite, ""));
    let mut toolchain = package(TOOLCHAIN, suite, UNKNOWN);
    toolchain["primaryPackagePurpose"] = json!("CONTAINER");
    toolchain["checksums"] = sha256(image.digest);
    toolchain["comment"] = json!("the checksum is the digest of the image's manifest");
    let mut all = vec![toolchain];
    let mut relationships = vec![related(DOCUMENT, "DESCRIBES", TOOLCHAIN)];
    for (index, debian) in packages.iter().enumerate() {
        let DebianPackage { name, version, architecture, source } = debian;
        let id = format!("SPDXRef-Package-{}", index + 1);
        let mut package = package(&id, name, UNKNOWN);
        package["versionInfo"] = json!(version);
        package["sourceInfo"] = json!(format!("built from the source package {source}"));
        let version = encode(version);
        let purl =
            format!("pkg:deb/{distribution}/{}@{version}?arch={architecture}&distro={release}", encode(name));
        package["externalRefs"] = json!([reference("PACKAGE-MANAGER", "purl", &purl)]);
        all.push(package);
        relationships.push(related(TOOLCHAIN, "CONTAINS", &id));
    }
    let comment = "the date is SOURCE_DATE_EPOCH or 1970, so that the same packages give the same document";
    frame(suite, epoch, comment, Contents { packages: all, relationships, files: &[] })
}

/// Encodes a part of a package URL.
fn encode(part: &str) -> String {
    let mut encoded = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_dpkg_is_read() {
        let status = "Package: libstdc++6\nStatus: install ok installed\nSource: gcc-12 (12.2.0-14)\n\
                      Architecture: amd64\nVersion: 12.2.0-14+deb12u1\nDescription: x\n Version: no\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: bc\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.07.1-3+b1\n";
        let packages = installed_packages(status);
        let names: Vec<_> = packages.iter().map(|one| (&*one.name, &*one.version, &*one.source)).collect();
        assert_eq!(
            names,
            [("libstdc++6", "12.2.0-14+deb12u1", "gcc-12 (12.2.0-14)"), ("bc", "1.07.1-3+b1", "bc")]
        );
        assert_eq!(encode("4:12.2+~x"), "4:12.2%2B~x");
    }
}
