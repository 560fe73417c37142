//! The bill of materials, the provenance and the receipt, beside the layouts and attached to the
//! images. Read by these tests, by the formats' libraries, and through skopeo.

use crate::support::context::{TestContext, has_tool, sha256, skipped};
use crate::support::layouts::descriptor;
use crate::support::registry;
use crate::support::servers::mirror;
use camino::Utf8Path;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const BIN: &str = "firecracker-kernel-bin-amd64";
const MODULES: &str = "firecracker-kernel-modules-amd64";
const NAME: &str = "firecracker-6.1.7-amd64";

/// Builds a tarball with a patch, so that the documents have all kinds of entries.
fn build(context: &TestContext) {
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/p")).unwrap();
    fs::write(context.path("work/p/1-new.patch"), "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n").unwrap();
    context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --patches p").ok();
}

fn read(context: &TestContext, file: &str) -> Value {
    serde_json::from_slice(&fs::read(context.path("work/out").join(file)).unwrap()).unwrap()
}

fn blob(layout: &Utf8Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(
        (format!("sha256:{}", sha256(&bytes)), bytes.len() as u64),
        (digest.to_owned(), descriptor["size"].as_u64().unwrap())
    );
    bytes
}

#[test]
fn every_image_has_its_documents_attached() {
    let context = TestContext::new();
    build(&context);
    for name in [BIN, MODULES] {
        let (image, attest) =
            (context.path("work/out").join(name), context.path("work/out").join(format!("{name}-attest")));
        let subject = descriptor(&image, "6.1.7");
        let index: Value =
            serde_json::from_slice(&blob(&attest, &descriptor(&attest, "6.1.7-attest"))).unwrap();
        let mut attached = Vec::new();
        for one in index["manifests"].as_array().unwrap() {
            let manifest: Value = serde_json::from_slice(&blob(&attest, one)).unwrap();
            assert_eq!(manifest["subject"], subject);
            assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
            assert_eq!(blob(&attest, &manifest["config"]), b"{}");
            let [file] = &manifest["layers"].as_array().unwrap()[..] else { panic!("{manifest}") };
            let title = file["annotations"]["org.opencontainers.image.title"].as_str().unwrap();
            assert!(
                blob(&attest, file) == fs::read(context.path("work/out").join(title)).unwrap(),
                "{title}"
            );
            attached.push((title.to_owned(), manifest["artifactType"].as_str().unwrap().to_owned()));
        }
        let expected = [
            (".spdx.json", "application/spdx+json"),
            (".provenance.json", "application/vnd.in-toto+json"),
            (".compiled.json.gz", "application/vnd.kcompile.compiled-files.v1+gzip"),
            (".json", "application/vnd.kcompile.receipt.v1+json"),
        ];
        assert_eq!(attached, expected.map(|(end, kind)| (format!("{NAME}{end}"), kind.to_owned())));
    }
}

/// Collects the files that `oras pull` would write. An entry with a title is a file, and others are
/// followed. Fails if two different files have the same name.
fn pulled(layout: &Utf8Path, descriptor: &Value, files: &mut BTreeMap<String, String>) {
    let title = descriptor["annotations"]["org.opencontainers.image.title"].as_str();
    if let Some(title) = title {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let other = files.insert(title.to_owned(), digest.clone());
        assert!(other.is_none_or(|other| other == digest), "{title} is there twice");
    }
    let kind = descriptor["mediaType"].as_str().unwrap();
    if kind.ends_with(".manifest.v1+json") || kind.ends_with(".index.v1+json") {
        let below: Value = serde_json::from_slice(&blob(layout, descriptor)).unwrap();
        let lists = [&below["manifests"], &below["layers"]];
        lists.iter().filter_map(|list| list.as_array()).flatten().for_each(|one| pulled(layout, one, files));
    }
}

#[test]
fn only_files_have_title_annotations() {
    let context = TestContext::new();
    context.build("--no-modules").ok();
    let attest = context.path("work/out").join(format!("{BIN}-attest"));
    let mut files = BTreeMap::new();
    pulled(&attest, &descriptor(&attest, "6.1.7-attest"), &mut files);
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(
        names,
        [".compiled.json.gz", ".json", ".provenance.json", ".spdx.json"]
            .map(|end| format!("{NAME}{end}"))
            .iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn multi_arch_tags_have_attachments() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    let build = |more: &str| {
        let both = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --arch amd64 --arch arm64";
        let mut command = context.command(&format!("{both} --no-modules {more} --cross-compile"));
        crate::support::context::run_result(command.arg("").output().unwrap())
    };
    build("").ok();
    let (name, out) = ("firecracker-kernel-bin", context.path("work/out"));
    let attest = out.join(format!("{name}-attest"));
    let index = descriptor(&out.join(name), "6.1.7");
    let attached = |tag: &str| -> Vec<(Value, String)> {
        let index: Value = serde_json::from_slice(&blob(&attest, &descriptor(&attest, tag))).unwrap();
        let manifests = index["manifests"].as_array().unwrap().iter().map(|one| blob(&attest, one));
        let manifests = manifests.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        manifests
            .map(|one| (one["subject"].clone(), one["artifactType"].as_str().unwrap().to_owned()))
            .collect()
    };
    let kinds = [
        "application/spdx+json",
        "application/vnd.in-toto+json",
        "application/vnd.kcompile.compiled-files.v1+gzip",
        "application/vnd.kcompile.receipt.v1+json",
    ];
    // The index has the attachments of both architectures, and each image has its own.
    let of_index = attached("6.1.7-attest");
    assert_eq!(
        of_index,
        [kinds, kinds].concat().iter().map(|kind| (index.clone(), (*kind).to_owned())).collect::<Vec<_>>()
    );
    let mut files = BTreeMap::new();
    pulled(&attest, &descriptor(&attest, "6.1.7-attest"), &mut files);
    assert_eq!(files.len(), 8, "{files:?}");
    for arch in ["amd64", "arm64"] {
        let alone = out.join(format!("{name}-{arch}"));
        let subject = descriptor(&alone, "6.1.7");
        let tag = format!("6.1.7-{arch}-attest");
        assert_eq!(attached(&tag), kinds.map(|kind| (subject.clone(), kind.to_owned())));
        let beside = descriptor(&out.join(format!("{name}-{arch}-attest")), "6.1.7-attest");
        assert_eq!(descriptor(&attest, &tag), beside, "the same artifacts");
    }
    context.run(&format!("verify out/{name} out/{name}-attest")).ok();
    // A new build leaves nothing of the old attachments.
    let blobs = || context.names(&format!("work/out/{name}-attest/blobs/sha256"));
    let before = blobs();
    build("--set PSI=y").ok();
    let after = blobs();
    assert_eq!(before.len(), after.len());
    assert_eq!(before.iter().filter(|name| after.contains(name)).collect::<Vec<_>>(), [&sha256(b"{}")]);
    if !has_tool("skopeo") {
        return;
    }
    let registry = registry::honest();
    let ran = context.run(&format!("push {}/test --tls-verify=false", registry.host())).ok();
    for (tag, layout) in
        [("6.1.7-attest", &attest), ("6.1.7-amd64-attest", &attest), ("6.1.7", &out.join(name))]
    {
        let digest = descriptor(layout, tag)["digest"].as_str().unwrap().to_owned();
        assert_eq!(registry.digest(&format!("test/{name}"), tag), Some(digest), "{tag}: {}", ran.stdout);
    }
    let alone = descriptor(&out.join(format!("{name}-arm64-attest")), "6.1.7-attest")["digest"].clone();
    assert_eq!(registry.digest(&format!("test/{name}-arm64"), "6.1.7-attest").as_deref(), alone.as_str());
}

#[test]
fn rebuilding_a_version_replaces_its_attachments() {
    let context = TestContext::new();
    context.build("").ok();
    let blobs = || context.names(&format!("work/out/{BIN}-attest/blobs/sha256"));
    let before = blobs();
    context.build("--set PSI=y").ok();
    let after = blobs();
    assert_eq!(before.len(), after.len());
    // Only the empty config of artifacts stays the same.
    let same: Vec<&String> = after.iter().filter(|name| before.contains(name)).collect();
    assert_eq!(same, [&sha256(b"{}")]);
    // A conflict with one of them is found before anything is built.
    let other = TestContext::new();
    fs::create_dir_all(other.path("work/out").join(BIN)).unwrap();
    fs::create_dir_all(other.path("work/out").join(format!("{BIN}-attest"))).unwrap();
    fs::write(other.path("work/out").join(BIN).join("oci-layout"), "{}").unwrap();
    other.build("").failed(2, &["it is not an OCI layout"]);
}

#[test]
fn the_bill_of_materials_lists_all_inputs() {
    let context = TestContext::new();
    build(&context);
    let (sbom, receipt) =
        (read(&context, &format!("{NAME}.spdx.json")), read(&context, &format!("{NAME}.json")));
    let packages = sbom["packages"].as_array().unwrap();
    let package = |id: &str| packages.iter().find(|one| one["SPDXID"] == format!("SPDXRef-{id}")).unwrap();
    let related = |from: &str, how: &str, to: &str| {
        let [from, to] = [from, to].map(|id| format!("SPDXRef-{id}"));
        let wanted = json!({ "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to });
        assert!(sbom["relationships"].as_array().unwrap().contains(&wanted), "{wanted}");
    };
    let checksum = |id: &str| package(id)["checksums"][0]["checksumValue"].as_str().unwrap().to_owned();
    let tarball = sha256(&fs::read(context.path("work/linux-6.1.7.tar.xz")).unwrap());
    assert_eq!(checksum("Source"), tarball);
    assert_eq!(checksum("Patch-1"), sha256(&fs::read(context.path("work/p/1-new.patch")).unwrap()));
    assert_eq!(package("Tool-cc")["versionInfo"], receipt["plan"]["toolchain"]["identity"]["cc"]);
    assert_eq!(package("Kernel")["name"], "vmlinux");
    for (image, receipt) in [BIN, MODULES].iter().zip(receipt["images"].as_array().unwrap()) {
        let id = format!("Image-{image}");
        assert_eq!(format!("sha256:{}", checksum(&id)), receipt["digest"].as_str().unwrap());
        related("DOCUMENT", "DESCRIBES", &id);
    }
    related(&format!("Image-{BIN}"), "CONTAINS", "Kernel");
    related(&format!("Image-{MODULES}"), "GENERATED_FROM", "Source");
    related("Patch-1", "PATCH_FOR", "Source");
    related("Tool-ld", "BUILD_TOOL_OF", "Kernel");
    assert_eq!(
        package("Kernel")["externalRefs"][0]["referenceLocator"],
        "cpe:2.3:o:linux:linux_kernel:6.1.7:*:*:*:*:*:*:*"
    );
}

/// The minimum elements of NTIA: supplier, name, version, identifier, relationship, author and time.
#[test]
fn the_bill_of_materials_has_the_minimum_elements() {
    let context = TestContext::new();
    build(&context);
    let sbom = read(&context, &format!("{NAME}.spdx.json"));
    let creation = &sbom["creationInfo"];
    assert!(creation["creators"][0].as_str().unwrap().starts_with("Tool: kcompile-"), "{creation}");
    assert!(creation["created"].as_str().unwrap().ends_with('Z'), "{creation}");
    let related = sbom["relationships"].to_string();
    for package in sbom["packages"].as_array().unwrap() {
        let id = package["SPDXID"].as_str().unwrap();
        let made_here = id == "SPDXRef-Kernel" || id.starts_with("SPDXRef-Image-");
        let supplier = if made_here { "Organization: kcompile" } else { "NOASSERTION" };
        assert_eq!(package["supplier"], supplier, "{package}");
        assert!(package["name"].is_string() && related.contains(&format!("\"{id}\"")), "{package}");
        // A patch is known by its checksum.
        assert!(package["versionInfo"].is_string() || package["checksums"].is_array(), "{package}");
    }
    let server = mirror(&context, &["6.1.7"]);
    context.run(&format!("6.1.7 --fc --config mini.config --mirror {} -o of-release", server.url)).ok();
    let sbom = read(&context, &format!("../of-release/{NAME}.spdx.json"));
    let source = sbom["packages"].as_array().unwrap().iter().find(|one| one["SPDXID"] == "SPDXRef-Source");
    assert_eq!(source.unwrap()["supplier"], "Organization: kernel.org");
}

#[test]
fn attestations_are_reproducible_except_for_times() {
    let (here, there) = (TestContext::new(), TestContext::new());
    build(&here);
    build(&there);
    // The JSON spelling. The tag-value format has a hyphen.
    let purposes = read(&here, &format!("{NAME}.spdx.json"))["packages"].to_string();
    assert!(purposes.contains("\"OPERATING_SYSTEM\""), "{purposes}");
    let bytes =
        |context: &TestContext| fs::read(context.path("work/out").join(format!("{NAME}.spdx.json"))).unwrap();
    assert!(bytes(&here) == bytes(&there));
    let provenance = |context: &TestContext| {
        let mut statement = read(context, &format!("{NAME}.provenance.json"));
        let details = &mut statement["predicate"]["runDetails"];
        let receipt = fs::read(context.path("work/out").join(format!("{NAME}.json"))).unwrap();
        assert_eq!(details["byproducts"][0]["digest"]["sha256"], sha256(&receipt));
        details["byproducts"].take();
        details["metadata"].take();
        statement
    };
    let statement = provenance(&here);
    assert_eq!(statement, provenance(&there));
    assert_eq!(statement["subject"][0]["name"], format!("{BIN}:6.1.7"));
    let digest = descriptor(&here.path("work/out").join(BIN), "6.1.7")["digest"].clone();
    assert_eq!(format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()), digest);
    let taken = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(taken[0]["name"], "linux");
    // in-toto requires one of these fields in each descriptor.
    let details = &read(&here, &format!("{NAME}.provenance.json"))["predicate"]["runDetails"];
    let lists = [taken, &statement["subject"], &details["byproducts"]];
    for descriptor in lists.iter().flat_map(|list| list.as_array().unwrap()) {
        assert!(["uri", "digest", "content"].iter().any(|key| descriptor.get(key).is_some()), "{descriptor}");
    }
    let tools = &statement["predicate"]["buildDefinition"]["internalParameters"]["tools"];
    assert_eq!(*tools, read(&here, &format!("{NAME}.json"))["plan"]["toolchain"]["identity"]);
    assert_eq!(taken[1]["digest"]["sha256"], sha256(crate::support::context::CONFIG.as_bytes()));
}

#[test]
fn spdx_and_slsa_libraries_accept_the_documents() {
    let context = TestContext::new();
    build(&context);
    let check = |module: &str, script: &str, file: &str| {
        let python = |script: &str| {
            let mut command = Command::new("python3");
            command.args(["-c", script]).arg(context.path("work/out").join(file));
            command.output()
        };
        if !python(&format!("import {module}")).is_ok_and(|output| output.status.success()) {
            return skipped(&format!("Python's {module} is not installed"));
        }
        let output = python(script).unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    };
    check(
        "spdx_tools.spdx",
        "import sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
wrong = validate_full_spdx_document(parse_file(sys.argv[1]))
sys.exit('\\n'.join(str(one) for one in wrong) or 0)",
        &format!("{NAME}.spdx.json"),
    );
    // The parser rejects unknown and mistyped fields.
    check(
        "in_toto_attestation.v1",
        "import json, sys
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
value = json.load(open(sys.argv[1]))
Statement.copy_from_pb(json_format.ParseDict(value, StatementPb())).validate()
json_format.ParseDict(value['predicate'], Provenance())",
        &format!("{NAME}.provenance.json"),
    );
}

#[test]
fn skopeo_and_push_copy_attachments() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    context.build("--no-modules").ok();
    let index = descriptor(&context.path("work/out").join(format!("{BIN}-attest")), "6.1.7-attest");
    let script =
        format!("skopeo --insecure-policy copy -q --all oci:out/{BIN}-attest:6.1.7-attest oci:copied:x");
    let output =
        Command::new("sh").args(["-ec", &script]).current_dir(context.path("work")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(descriptor(&context.path("work/copied"), "x"), index);

    let registry = registry::honest();
    let ran = context.run(&format!("push {}/test --tls-verify=false", registry.host())).ok();
    let image = descriptor(&context.path("work/out").join(BIN), "6.1.7");
    let expected = [("6.1.7", &image), ("6.1.7-attest", &index)].map(|(tag, one)| {
        format!("docker://{}/test/{BIN}:{tag} {}", registry.host(), one["digest"].as_str().unwrap())
    });
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), expected);
    // Each artifact is available by digest, so that a registry can list referrers.
    let served = format!("/v2/test/{BIN}/manifests/6.1.7-attest");
    let index: Value = serde_json::from_slice(&registry.store.lock().unwrap()[&served]).unwrap();
    for one in index["manifests"].as_array().unwrap() {
        let digest = one["digest"].as_str().unwrap();
        assert_eq!(registry.digest(&format!("test/{BIN}"), digest).as_deref(), Some(digest));
    }
}
