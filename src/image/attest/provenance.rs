//! The statement of provenance: SLSA v1 in an in-toto statement v1. It says what was asked for, what was
//! taken, what built it and when. It is not signed: the host that built cannot vouch for itself.

use super::{Build, RECEIPT};
use crate::image::receipt;
use crate::kernel::SourceDigest;
use crate::plan::SourceIdentity;
use crate::util::digest::Sha256;
use serde_json::{Value, json};

/// What in-toto statements have as their media type.
pub(in crate::image) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// What the parameters below mean: docs/reference/images.md.
const BUILD_TYPE: &str = "https://kcompile.github.io/build/v1";
/// Somebody ran kcompile on a machine of theirs.
const BUILDER: &str = "https://kcompile.github.io/builder/local/v1";

/// The statement about all images of a build; `said` is what the receipt says.
pub(super) fn statement(build: &Build<'_>, receipt_bytes: &[u8]) -> Value {
    let Build { plan, configured, .. } = build;
    let subject = build.images.iter().map(|image| {
        let name = image.written.layout.file_name().unwrap_or_default();
        json!({
            "name": format!("{name}:{}", image.written.tag),
            "digest": { "sha256": image.written.digest.to_string() },
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
        })
    });
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject.collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "version": plan.version_text(),
                    "flavor": plan.flavor,
                    "arch": plan.arch,
                    "source": build.source.origin,
                    "make": receipt::redaction::make(&plan.make),
                    "images": plan.images,
                    "sourceDateEpoch": plan.source_date_epoch,
                },
                "internalParameters": {
                    "plan": plan.digest().oci(),
                    "rules": plan.rules,
                    "config": configured.sha256.oci(),
                    "tools": plan.toolchain.identity,
                    "toolDigests": plan.toolchain.programs,
                },
                "resolvedDependencies": dependencies(build),
            },
            "runDetails": {
                "builder": { "id": BUILDER, "version": { "kcompile": plan.kcompile } },
                "metadata": {
                    "invocationId": format!("{}-{}", Sha256::of(receipt_bytes).short(), build.began),
                    "startedOn": crate::util::time::rfc3339(build.began),
                    "finishedOn": crate::util::time::rfc3339(build.ended),
                },
                "byproducts": [{
                    "name": build.receipt.file_name(),
                    "digest": { "sha256": Sha256::of(receipt_bytes).to_string() },
                    "mediaType": RECEIPT,
                }],
            },
        },
    })
}

/// The source, the layers of the config, the patches. Each has a digest, which in-toto wants of a descriptor where it
/// has no URI; tools have neither, and are among the parameters.
fn dependencies(build: &Build<'_>) -> Vec<Value> {
    let Build { plan, source, .. } = build;
    let file =
        |name: &str, sha256: Sha256| json!({ "name": name, "digest": { "sha256": sha256.to_string() } });
    let mut all = vec![source_descriptor(source)];
    // Where a file lay on this machine is nobody's business.
    let name = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    all.extend(plan.config.iter().map(|layer| file(&name(&layer.name), layer.sha256)));
    all.extend(plan.config_files.iter().map(|(symbol, sha256)| file(&format!("CONFIG_{symbol}"), *sha256)));
    all.extend(plan.patches.iter().map(|patch| file(&patch.name, patch.sha256)));
    all
}

fn source_descriptor(source: &SourceIdentity) -> Value {
    // in-toto's names. That of a directory's content is our own.
    let (kind, value) = match &source.digest {
        SourceDigest::Sha256(sha256) => ("sha256", sha256.to_string()),
        SourceDigest::Commit(commit) => ("gitCommit", commit.to_string()),
        SourceDigest::Content(sha256) => ("kcompileContent", sha256.to_string()),
    };
    let mut descriptor = json!({
        "name": "linux",
        "digest": { kind: value },
        "annotations": { "verified": source.verified() },
    });
    if let Some(origin) = &source.origin {
        descriptor["uri"] = json!(origin);
    }
    descriptor
}
