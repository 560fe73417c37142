//! The provenance, as SLSA v1 in an in-toto statement v1. It has the request, the inputs, the builder and the
//! time. It is not signed, because the host that builds cannot attest to itself.

use super::{BuildRun, RECEIPT};
use crate::image::receipt::{self, FinishedBuild};
use crate::kernel::SourceDigest;
use crate::plan::SourceIdentity;
use crate::util::digest::Sha256;
use serde_json::{Value, json};

/// The media type of in-toto statements.
pub(in crate::image) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// docs/reference/images.md explains the parameters.
const BUILD_TYPE: &str = "https://kcompile.github.io/build/v1";
/// A user who runs kcompile on a machine of their own.
const BUILDER: &str = "https://kcompile.github.io/builder/local/v1";

/// Returns the statement about all images of a build.
pub(super) fn statement(build: &FinishedBuild<'_>, run: &BuildRun<'_>, receipt_bytes: &[u8]) -> Value {
    let FinishedBuild { plan, configured, .. } = build;
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
                    "invocationId": format!("{}-{}", Sha256::of(receipt_bytes).short(), run.began),
                    "startedOn": crate::util::time::rfc3339(run.began),
                    "finishedOn": crate::util::time::rfc3339(run.ended),
                },
                "byproducts": [{
                    "name": run.receipt.file_name(),
                    "digest": { "sha256": Sha256::of(receipt_bytes).to_string() },
                    "mediaType": RECEIPT,
                }],
            },
        },
    })
}

/// Returns the source, the layers of the config and the patches. in-toto requires a URI or a digest of each.
/// Tools have neither, so they are among the parameters.
fn dependencies(build: &FinishedBuild<'_>) -> Vec<Value> {
    let FinishedBuild { plan, source, .. } = build;
    let file =
        |name: &str, sha256: Sha256| json!({ "name": name, "digest": { "sha256": sha256.to_string() } });
    let mut all = vec![source_descriptor(source)];
    all.extend(plan.toolchain.root.map(|root| file("toolchain", root)));
    all.extend(plan.toolchain.compiler.iter().map(|compiler| file(&compiler.name, compiler.sha256)));
    // The directory of a file on this machine is private.
    let name = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    all.extend(plan.config.iter().map(|layer| file(&name(&layer.name), layer.sha256)));
    all.extend(plan.config_files.iter().map(|(symbol, sha256)| file(&format!("CONFIG_{symbol}"), *sha256)));
    all.extend(plan.patches.iter().map(|patch| file(&patch.name, patch.sha256)));
    all
}

fn source_descriptor(source: &SourceIdentity) -> Value {
    // The names of in-toto, which has none for the content of a directory.
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
