//! `--image-cache`: builds whose images another machine has pushed.

use crate::support::context::{RunResult, TestContext, copy, has_tool, sha256, skipped};
use crate::support::fixtures::{named, put_image_for, put_index, replace, rewrite};
use crate::support::forgery::{
    copy_repositories, correct_checksum, forge_attachments, manifest_digest, move_repositories, skopeo_push,
};
use crate::support::layouts::words;
use crate::support::registry::{self, Registry};
use crate::support::servers::respond;
use crate::support::toolchain::{host_arch, write_toolchain};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// What the registry does instead of answering.
type Fault = Arc<Mutex<&'static str>>;

/// Two machines with the same toolchain image, and a registry.
struct Machines {
    first: TestContext,
    second: TestContext,
    registry: Registry,
    fault: Fault,
}

const TARBALL: &str = "6.1.7 --fc --source linux-6.1.7.tar.zst --config mini.config --require none";

fn bin() -> String {
    format!("firecracker-kernel-bin-{}", host_arch())
}

fn modules() -> String {
    format!("firecracker-kernel-modules-{}", host_arch())
}

impl Machines {
    fn new() -> Option<Machines> {
        if !has_tool("bwrap") || !has_tool("skopeo") {
            return None;
        }
        let fault = Fault::default();
        let mode = fault.clone();
        let registry = registry::misbehaving(move |request, stream| {
            let is_pull = matches!(request.method.as_str(), "GET" | "HEAD");
            match *mode.lock().unwrap() {
                "dies" if is_pull && request.path.contains("/blobs/") => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc");
                    true
                }
                "other" if is_pull && request.path.contains("/blobs/") => {
                    respond(stream, "200 OK", &[], b"{}");
                    true
                }
                "unauthorized" => {
                    let realm = "WWW-Authenticate: Basic realm=\"x\"";
                    respond(stream, "401 Unauthorized", &[realm], b"");
                    true
                }
                _ => false,
            }
        });
        let (first, second) = (TestContext::new(), TestContext::new());
        write_toolchain(&first);
        copy(&first.path("work/tools"), &second.path("work/tools"));
        for context in [&first, &second] {
            registry.allow(context);
            context.tarball("6.1.7", "zst");
        }
        Some(Machines { first, second, registry, fault })
    }

    /// Builds on the first machine, and pushes the images to `…/<prefix>`.
    fn publish(&self, prefix: &str, build: &str, push: &str) -> RunResult {
        self.first.run(&format!("{TARBALL} --toolchain oci:tools:1 {build}")).ok();
        self.push(prefix, push).ok()
    }

    fn push(&self, prefix: &str, options: &str) -> RunResult {
        let host = self.registry.host();
        self.first.run(&format!("push {host}/{prefix} --tls-verify=false {options}"))
    }

    /// Builds on the second machine with the image cache `…/<prefix>`.
    fn build(&self, prefix: &str, options: &str) -> RunResult {
        let cache = format!("docker://{}/{prefix}", self.registry.host());
        self.second.run(&format!("{TARBALL} --toolchain oci:tools:1 --image-cache {cache} {options}"))
    }

    /// Builds on the second machine, which must compile, and forgets the images.
    fn compiles(&self, prefix: &str, options: &str, says: &str) {
        let built = self.build(prefix, options).ok().says(says);
        assert!(!built.stderr.contains("nothing compiled"), "{}", built.stderr);
        for dir in ["cache/images", "work/out"] {
            fs::remove_dir_all(self.second.path(dir)).unwrap();
        }
    }

    /// Returns the tags of a repository.
    fn tags(&self, prefix: &str, name: &str) -> Vec<String> {
        let start = format!("/v2/{prefix}/{name}/manifests/");
        let store = self.registry.store.lock().unwrap();
        let tags = store.keys().filter_map(|path| path.strip_prefix(&start));
        tags.filter(|tag| !tag.starts_with("sha256")).map(str::to_owned).collect()
    }

    fn plan_tag(&self, prefix: &str, name: &str) -> String {
        let tags = self.tags(prefix, name);
        tags.into_iter().find(|tag| tag.starts_with("plan-") && !tag.ends_with("-attest")).unwrap()
    }

    fn receipt(&self) -> Value {
        let path = self.second.path(&format!("work/out/firecracker-6.1.7-{}.json", host_arch()));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

#[test]
fn another_machine_takes_the_images_and_compiles_nothing() {
    let Some(machines) = Machines::new() else { return };
    let Machines { first, second, .. } = &machines;
    let pushed = machines.publish("test", "--combined-image", "");
    let build = machines.plan_tag("test", &bin());
    assert_eq!(build.len(), "plan-".len() + 64);
    assert!(pushed.stdout.contains(&format!("{}:{build} sha256:", bin())), "{}", pushed.stdout);
    let tags = machines.tags("test", &bin());
    assert_eq!(tags, ["6.1.7", "6.1.7-attest", &build, &format!("{build}-attest")]);
    assert_ne!(machines.plan_tag("test", &modules()), build);

    // It asks for fewer images, has another name for the toolchain, and lacks the source's tree.
    fs::rename(second.path("work/tools"), second.path("work/other")).unwrap();
    let cache = format!("docker://{}/test", machines.registry.host());
    let found = second
        .run(&format!(
            "{TARBALL} --toolchain oci:other --image-cache docker://localhost:1/none --image-cache {cache} \
             --image-cache-unsigned"
        ))
        .ok()
        .says("the images of the image cache localhost:1/none are not used: ")
        .says("nothing compiled");
    let digest = |name: &str| machines.registry.digest(&format!("test/{name}"), "6.1.7").unwrap();
    assert_eq!(found.digests(), [digest(&bin()), digest(&modules())]);
    assert!(second.names("cache/trees").is_empty(), "{:?}", second.names("cache/trees"));
    let reference = format!("{cache}/{}:{build}", bin());
    let receipt = machines.receipt();
    assert_eq!(receipt["image_cache"], json!({ "reference": reference, "key": null }));
    let plan = |context: &TestContext| context.run(&format!("inspect out/{} --json", bin())).ok().item();
    let (here, there) = (plan(second), plan(first));
    assert_eq!(here["receipt"]["plan"], there["receipt"]["plan"]);
    assert_eq!(here["receipt"]["image_cache"]["reference"], reference.as_str());
    assert!(there["receipt"].get("image_cache").is_none());
    let shown = words(&second.run(&format!("inspect out/{}", bin())).ok().stdout);
    assert!(shown.contains(&format!("from the image cache {reference}")), "{shown}");
    second.run(&format!("verify out/{} out/{}", bin(), modules())).ok();
    for ending in ["spdx.json", "provenance.json", "compiled.json.gz"] {
        let name = format!("work/out/firecracker-6.1.7-{}.{ending}", host_arch());
        assert_eq!(fs::read(second.path(&name)).unwrap(), fs::read(first.path(&name)).unwrap(), "{ending}");
    }
    // The attachments are those of the builder, so they can be pushed again.
    let attached = |context: &TestContext| {
        let layout = context.path(&format!("work/out/{}-attest", modules()));
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        index["manifests"][0]["digest"].clone()
    };
    assert_eq!(attached(first), attached(second));
    // `--rebuild` compiles, and gives the same layers.
    let rebuilt = second.run(&format!(
        "{TARBALL} --toolchain oci:other --image-cache {cache} --image-cache-unsigned --rebuild"
    ));
    assert!(!rebuilt.ok().stderr.contains("nothing compiled"));
    assert_eq!(plan(second)["layers"], there["layers"]);
    assert!(machines.receipt().get("image_cache").is_none());
}

#[test]
fn what_is_missing_or_wrong_is_compiled() {
    let Some(machines) = Machines::new() else { return };
    machines.publish("test", "--compression none", "");
    let options = "--compression none --image-cache-unsigned";
    machines.compiles("missing", options, "the image cache 127.0.0.1:");
    let fails = |fault: &'static str, says: &str| {
        *machines.fault.lock().unwrap() = fault;
        machines.compiles("test", options, says);
        *machines.fault.lock().unwrap() = "";
    };
    fails("dies", "are not used: skopeo cannot copy the image: ");
    fails("other", "Digest did not match");
    fails("unauthorized", "are not used: skopeo cannot copy the image: ");

    // The tag leads to the image of another plan.
    machines.publish("other", "--compression none --set PSI=n -o other", "-o other");
    let (build, other) = (machines.plan_tag("test", &bin()), machines.plan_tag("other", &bin()));
    assert_ne!(build, other);
    move_repositories(&machines.registry.store, "other", &[(&other, &build)]);
    machines.compiles("other", options, "the annotation io.github.kcompile.build is `sha256:");

    // Annotations that lie, and a kernel that was changed.
    let forged = |prefix: &str, change: &dyn Fn(&mut crate::support::fixtures::Parts)| {
        let out = machines.first.path(&format!("work/{prefix}"));
        copy(&machines.first.path("work/out"), &out);
        let layout = out.join(bin());
        let before = manifest_digest(&layout);
        rewrite(&layout, change);
        let store = &machines.registry.store;
        copy_repositories(store, "test", prefix);
        skopeo_push(&machines.registry, &layout, &format!("{prefix}/{}:{build}", bin()));
        forge_attachments(
            store,
            &format!("/v2/{prefix}/{}", bin()),
            &build,
            &before,
            &manifest_digest(&layout),
        );
    };
    forged("release", &|parts| {
        for annotations in [&mut parts.manifest["annotations"], &mut parts.config["config"]["Labels"]] {
            annotations["io.github.kcompile.kernel.release"] = json!("6.1.7-other");
        }
    });
    machines.compiles("release", options, "but the annotation says 6.1.7-other");
    forged("label", &|parts| parts.manifest["annotations"]["x"] = json!("y"));
    machines.compiles("label", options, "the annotation x is not one of kcompile");
    forged("kernel", &|parts| replace(&mut parts.tar, b"Linux version 6.1.7", b"Linux version 6.1.8"));
    machines.compiles("kernel", options, &format!("{}: ", bin()));
    forged("link", &|parts| {
        // The type of the first entry.
        parts.tar[156] = b'2';
        parts.tar[157..157 + 12].copy_from_slice(b"../../../etc");
        correct_checksum(&mut parts.tar[..512]);
    });
    machines.compiles("link", options, &format!("{}: ", bin()));
    // A receipt of other images.
    copy_repositories(&machines.registry.store, "test", "receipt");
    let there = machines.registry.digest(&format!("test/{}", modules()), "6.1.7").unwrap();
    let hex = there.trim_start_matches("sha256:");
    let repository = format!("/v2/receipt/{}", bin());
    forge_attachments(&machines.registry.store, &repository, &build, hex, &"0".repeat(64));
    machines.compiles("receipt", options, "is not of the same build as the kernel");
    // Documents are missing.
    copy_repositories(&machines.registry.store, "test", "bare");
    let attached = format!("/v2/bare/{}/manifests/{build}-attest", bin());
    machines.registry.store.lock().unwrap().remove(&attached).unwrap();
    machines.compiles("bare", options, "are not used: ");
    // Something else than an image.
    let place = format!("/v2/bare/{}/manifests/{build}", bin());
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] });
    machines.registry.store.lock().unwrap().insert(place, index.to_string().into_bytes());
    machines.compiles("bare", options, "it is not the manifest of an image");
    // The true images still serve.
    assert!(machines.build("test", options).ok().stderr.contains("nothing compiled"));
}

/// Writes the keys of the tests, or returns `None` if this skopeo cannot sign.
fn write_keys(machines: &Machines) -> Option<()> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/sigstore");
    for context in [&machines.first, &machines.second] {
        for name in ["first.key", "first.pub", "second.key", "second.pub"] {
            fs::copy(format!("{dir}/{name}"), context.path("work").join(name)).unwrap();
        }
        fs::write(context.path("work/passphrase"), "passphrase").unwrap();
    }
    let layout = machines.first.path("work/probe");
    let image = put_image_for(&layout, &[], host_arch());
    put_index(&layout, &[named(image, "1")]);
    let probe = machines.push("probe", "--sign first.key --sign-passphrase passphrase probe");
    if probe.code != 0 {
        assert!(probe.stderr.contains("signing needs a skopeo with sigstore signatures"), "{}", probe.stderr);
        skipped("this skopeo cannot make sigstore signatures");
        return None;
    }
    Some(())
}

#[test]
fn images_need_the_signature_of_the_users_key() {
    let Some(machines) = Machines::new() else { return };
    if write_keys(&machines).is_none() {
        return;
    }
    let signed = "--sign first.key --sign-passphrase passphrase";
    machines.publish("test", "", signed);
    let build = machines.plan_tag("test", &bin());
    machines.compiles(
        "test",
        "--image-cache-key second.pub",
        "are not used: skopeo cannot copy the image: Source image rejected",
    );
    let found = machines.build("test", "--image-cache-key first.pub").ok().says(", signed, nothing compiled");
    assert_eq!(found.digests()[0], machines.registry.digest(&format!("test/{}", bin()), "6.1.7").unwrap());
    let key = sha256(&fs::read(machines.second.path("work/first.pub")).unwrap());
    assert_eq!(machines.receipt()["image_cache"]["key"], format!("sha256:{key}"));
    // The user's own config has the key, and the project only the registry.
    fs::remove_dir_all(machines.second.path("work/out")).unwrap();
    fs::create_dir_all(machines.second.path("home/.config/kcompile")).unwrap();
    let config = format!("image_cache_key = \"{}\"\n", machines.second.path("work/first.pub"));
    fs::write(machines.second.path("home/.config/kcompile/config.toml"), config).unwrap();
    let project = format!("image-cache = \"docker://{}/test\"\n", machines.registry.host());
    fs::write(machines.second.path("work/kcompile.toml"), project).unwrap();
    machines
        .second
        .run(&format!("{TARBALL} --toolchain oci:tools:1"))
        .ok()
        .says(", signed, nothing compiled");
    fs::remove_file(machines.second.path("work/kcompile.toml")).unwrap();
    fs::remove_file(machines.second.path("home/.config/kcompile/config.toml")).unwrap();
    fs::remove_dir_all(machines.second.path("work/out")).unwrap();

    // The signature is of another tag, or there is none.
    copy_repositories(&machines.registry.store, "test", "unsigned");
    machines.compiles("unsigned", "--image-cache-key first.pub", "Source image rejected");
    machines.publish("test", "--set PSI=n -o other", &format!("-o other {signed}"));
    let tags = machines.tags("test", &bin());
    let is_plan = |tag: &&String| tag.starts_with("plan-") && !tag.ends_with("-attest");
    let other = tags.iter().filter(is_plan).find(|tag| **tag != build).unwrap();
    let place = |tag: &str| format!("/v2/test/{}/manifests/{tag}", bin());
    let bytes = machines.registry.store.lock().unwrap()[&place(other)].clone();
    machines.registry.store.lock().unwrap().insert(place(&build), bytes);
    machines.compiles("test", "--image-cache-key first.pub", "the annotation io.github.kcompile.build is");
}

#[test]
fn image_caches_need_a_toolchain_image_and_a_key() {
    let context = TestContext::new();
    let refused = |options: &str, says: &[&str]| context.build(options).failed(2, says);
    let cache = "--image-cache docker://localhost:1/x";
    refused(
        &format!("{cache} --image-cache-unsigned"),
        &["--image-cache: tools of this host compile the kernel", "--toolchain oci:DIR[:TAG]"],
    );
    refused(&format!("{cache} --toolchain oci:tools"), &["--toolchain oci:tools"]);
    if has_tool("bwrap") {
        write_toolchain(&context);
        let cache = format!("{cache} --toolchain oci:tools");
        refused(&cache, &["--image-cache: nothing says which key", "--image-cache-key FILE"]);
        refused(&format!("{cache} --image-cache-key none.pub"), &["--image-cache-key: ", "none.pub"]);
        fs::write(context.path("work/not.pub"), "x").unwrap();
        refused(&format!("{cache} --image-cache-key not.pub"), &["not.pub is not a public key in PEM"]);
        refused(&format!("{cache} --image-cache-unsigned --offline"), &["--offline is given"]);
        refused(&format!("{cache} --image-cache-unsigned --require-signature"), &["--require-signature"]);
        refused(
            "--toolchain oci:tools --image-cache localhost:1/x --image-cache-unsigned",
            &["--image-cache: `localhost:1/x` is not a registry", "docker://REGISTRY/PREFIX"],
        );
        refused(
            "--toolchain oci:tools --image-cache docker://me:hush@x/y --image-cache-unsigned",
            &["has an `@` in its name"],
        );
    }
    refused(&format!("{cache} --image-cache-key a --image-cache-unsigned"), &["cannot be used with"]);
    // A project names the registry only. Without a key it is not used.
    fs::write(context.path("work/kcompile.toml"), "image-cache = [\"docker://localhost:1/x\"]\n").unwrap();
    context.build("").ok().says("image-cache of kcompile.toml is not used: tools of this host compile");
    fs::write(context.path("work/kcompile.toml"), "image_cache_key = \"x.pub\"\n").unwrap();
    refused("", &["unknown field `image_cache_key`", "a project cannot set `image_cache_key`"]);
}

#[test]
fn images_of_this_hosts_tools_get_no_tag_for_image_caches() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    context.build("").ok();
    let pushed = context.run(&format!("push {}/test --tls-verify=false", registry.host())).ok().stdout;
    assert!(!pushed.contains("plan-"), "{pushed}");
}
