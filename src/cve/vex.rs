//! An OpenVEX 0.2.0 document with a statement for each record. Scanners that read it do not report what was
//! not compiled.

use super::assess::{Assessment, Finding, Verdict};
use crate::kernel::KernelVersion;
use crate::util::digest::Sha256;
use serde_json::{Value, json};

/// The media type by which other tools attach such documents.
pub const MEDIA_TYPE: &str = "application/vnd.openvex+json";
const CONTEXT: &str = "https://openvex.dev/ns/v0.2.0";

/// An image that the statements are about.
#[derive(Clone, Debug)]
pub struct Product {
    /// The package URL, as in the SBOM.
    pub purl: String,
    /// The digest of its manifest.
    pub digest: Sha256,
}

/// Returns the document. `records` names the data, and `now` is in seconds since 1970.
pub fn document(
    assessment: &Assessment<'_>,
    version: KernelVersion,
    products: &[Product],
    records: &str,
    now: u64,
) -> Value {
    let products: Vec<Value> = products.iter().map(|product| self::product(product, version)).collect();
    let statements: Vec<Value> =
        assessment.findings.iter().map(|finding| statement(finding, version, &products, records)).collect();
    // The same statements have the same id.
    let id = Sha256::of(serde_json::to_vec(&statements).expect("only string keys"));
    json!({
        "@context": CONTEXT,
        "@id": format!("https://kcompile.github.io/vex/{id}"),
        "author": "kcompile",
        "role": "Document Creator",
        "timestamp": crate::util::time::rfc3339(now),
        "version": 1,
        "tooling": concat!("kcompile ", env!("CARGO_PKG_VERSION")),
        "statements": statements,
    })
}

fn product(product: &Product, version: KernelVersion) -> Value {
    json!({
        "@id": product.purl,
        "identifiers": { "purl": product.purl },
        "hashes": { "sha-256": product.digest },
        "subcomponents": [{ "@id": format!("pkg:generic/linux@{version}") }],
    })
}

fn statement(finding: &Finding<'_>, version: KernelVersion, products: &[Value], records: &str) -> Value {
    let id = &finding.record.id;
    let mut statement = json!({
        "vulnerability": { "@id": format!("https://www.cve.org/CVERecord?id={id}"), "name": id },
        "products": products,
    });
    let fields = match finding.verdict {
        Verdict::Affected => {
            let action = match finding.fixed_in {
                Some(release) => format!("update to Linux {release} or later"),
                None => format!("no later release of Linux {version}'s series has the fix in {records}"),
            };
            json!({ "status": "affected", "action_statement": action })
        }
        Verdict::Undetermined => {
            let reason = finding.reason.as_deref().unwrap_or_default();
            json!({ "status": "under_investigation", "status_notes": reason })
        }
        Verdict::NotCompiled => json!({
            "status": "not_affected",
            "justification": "vulnerable_code_not_present",
            "impact_statement": format!("none of these files was compiled: {}", finding.record.files.join(", ")),
        }),
        Verdict::Fixed => {
            json!({ "status": "fixed", "status_notes": format!("Linux {version} has the fix, by {records}") })
        }
        Verdict::NotIntroduced => json!({
            "status": "not_affected",
            "justification": "vulnerable_code_not_present",
            "impact_statement": format!("the fault came with a version after Linux {version}"),
        }),
    };
    let all = statement.as_object_mut().expect("an object");
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    statement
}
