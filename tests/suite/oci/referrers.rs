//! Besides copying, `push` updates the registry's list of attachments, protects existing tags, and
//! reports refusals.

use crate::support::context::{RunResult, TestContext, has_tool, sha256};
use crate::support::layouts::descriptor;
use crate::support::registry::{self, Registry, request};
use crate::support::registry_daemon::configured_registry;
use crate::support::servers::{Request, respond};
use serde_json::{Value, json};
use std::fs;
use std::sync::Mutex;

const BIN: &str = "firecracker-kernel-bin-amd64";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The user `me` with the password `hush`.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuulzd.YqjLDl8lvpSmVj3De/fioSBHnUa\n";
const KINDS: [&str; 4] = [
    "application/spdx+json",
    "application/vnd.in-toto+json",
    "application/vnd.kcompile.compiled-files.v1+gzip",
    "application/vnd.kcompile.receipt.v1+json",
];

/// Returns a context with the image of one kernel in `out`, or `None` without skopeo.
fn built() -> Option<TestContext> {
    if !has_tool("skopeo") {
        return None;
    }
    let context = TestContext::new();
    context.build("--no-modules").ok();
    Some(context)
}

fn push(context: &TestContext, host: &str, args: &str) -> RunResult {
    context.run(&format!("push {host}/test --tls-verify=false {args}"))
}

/// Returns the path of the referrers list of the context's image.
fn list_path(context: &TestContext) -> String {
    let image = descriptor(&context.path("work/out").join(BIN), "6.1.7");
    format!("/v2/test/{BIN}/manifests/{}", image["digest"].as_str().unwrap().replace(':', "-"))
}

fn list(context: &TestContext, host: &str) -> Value {
    let (status, body) = request(host, "GET", &list_path(context), INDEX, b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// Returns the artifact types of a list, and checks that the registry has each artifact.
fn kinds(list: &Value, host: &str) -> Vec<String> {
    let entry = |entry: &Value| {
        let path = format!("/v2/test/{BIN}/manifests/{}", entry["digest"].as_str().unwrap());
        let (status, body) = request(host, "GET", &path, MANIFEST, b"");
        assert_eq!((status, body.len() as u64), (200, entry["size"].as_u64().unwrap()), "{entry}");
        let manifest: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(entry["artifactType"], manifest["artifactType"]);
        entry["artifactType"].as_str().unwrap().to_owned()
    };
    list["manifests"].as_array().unwrap().iter().map(entry).collect()
}

/// Attaches an artifact of another tool to the image in the registry. Returns its entry in the
/// list.
fn of_another_tool(context: &TestContext, host: &str) -> Value {
    let blob = |bytes: &[u8]| {
        let (status, answer) = request(host, "POST", &format!("/v2/test/{BIN}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
        json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
    };
    let subject = descriptor(&context.path("work/out").join(BIN), "6.1.7");
    // The empty blob was pushed with the other attachments.
    let empty = blob(b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example", "config": empty,
        "layers": [empty], "subject": subject, "annotations": { "a": "b" },
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = format!("sha256:{}", sha256(&bytes));
    let path = format!("/v2/test/{BIN}/manifests/{digest}");
    assert_eq!(request(host, "PUT", &path, MANIFEST, &bytes).0, 201);
    json!({
        "mediaType": MANIFEST, "digest": digest, "size": bytes.len(), "artifactType": "application/vnd.example",
        "annotations": { "a": "b" }, "x-of-theirs": { "deep": [1] },
    })
}

#[test]
fn registries_without_the_referrers_api_get_a_fallback_tag() {
    if !has_tool("docker-registry") {
        return;
    }
    let Some(context) = built() else { return };
    let (_daemon, host) = configured_registry(&context.path("registry"), "", "");
    push(&context, &host, "").ok();
    let first = list(&context, &host);
    assert_eq!((&first["schemaVersion"], &first["mediaType"]), (&2.into(), &INDEX.into()));
    assert_eq!(kinds(&first, &host), KINDS);
    // Without a change, nothing is written.
    push(&context, &host, "").ok();
    assert_eq!(list(&context, &host), first);
    // Entries of other tools are kept when attachments of another build are added.
    let theirs = of_another_tool(&context, &host);
    let mut both = first.clone();
    both["manifests"].as_array_mut().unwrap().insert(0, theirs.clone());
    both["annotations"] = json!({ "of": "theirs" });
    assert_eq!(request(&host, "PUT", &list_path(&context), INDEX, both.to_string().as_bytes()).0, 201);
    context.build("--no-modules --rebuild").ok();
    push(&context, &host, "").ok().says("-attest has the digest sha256:").says(" and is replaced");
    let second = list(&context, &host);
    assert_eq!(second["annotations"], both["annotations"]);
    let (before, after) = (both["manifests"].as_array().unwrap(), second["manifests"].as_array().unwrap());
    // The bill of materials and the compiled files are the same. Provenance and receipt have other times.
    assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 2));
    assert_eq!(kinds(&second, &host)[5..], [KINDS[1], KINDS[3]]);
    // Without attachments there is no list.
    let other = TestContext::new();
    other.build("--no-modules --set PSI=y").ok();
    push(&other, &host, "--no-attest").ok();
    assert_eq!(request(&host, "GET", &list_path(&other), INDEX, b"").0, 404);
}

#[test]
fn registries_with_the_referrers_api_get_no_fallback_tag() {
    let Some(context) = built() else { return };
    let registry = registry::with_referrers();
    let ran = push(&context, registry.host(), "").ok();
    assert_eq!(ran.stdout.lines().count(), 2);
    assert!(!registry.store.lock().unwrap().contains_key(&list_path(&context)));
    assert!(registry.server.log.lock().unwrap().iter().any(|line| line.contains("/referrers/sha256:")));
}

#[test]
fn a_fallback_tag_that_is_not_an_index_is_not_replaced() {
    let Some(context) = built() else { return };
    let image = fs::read(
        context.path("work/out").join(BIN).join("blobs").join(
            descriptor(&context.path("work/out").join(BIN), "6.1.7")["digest"]
                .as_str()
                .unwrap()
                .replace(':', "/"),
        ),
    );
    let long = format!("{{\"schemaVersion\":2,\"manifests\":[],\"x\":\"{}\"}}", "x".repeat(5 << 20));
    for hostile in [&image.unwrap()[..], b"{\"schemaVersion\":2,\"manifests\":[7]}", long.as_bytes()] {
        let registry = registry::honest();
        registry.store.lock().unwrap().insert(list_path(&context), hostile.to_vec());
        let ran = push(&context, registry.host(), "");
        // The image itself was pushed.
        assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stderr);
        ran.failed(3, &["cannot add to the list of artifacts docker://", ":sha256-"]);
        assert!(registry.store.lock().unwrap()[&list_path(&context)] == hostile);
    }
}

/// Returns a registry in which another client writes its list right after ours, this number of
/// times.
fn contested(theirs: &Value, times: usize) -> Registry {
    let left = Mutex::new(times);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs] }).to_string();
    registry::changing(move |request| {
        let mut left = left.lock().unwrap();
        let is_ours = request.method == "PUT" && request.path.contains("/manifests/sha256-") && *left > 0;
        *left -= usize::from(is_ours);
        is_ours.then(|| index.clone().into_bytes())
    })
}

#[test]
fn concurrent_changes_of_the_fallback_tag_are_detected() {
    let Some(context) = built() else { return };
    let theirs = json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", "1".repeat(64)), "size": 7, "artifactType": "x" });
    let registry = contested(&theirs, 2);
    push(&context, registry.host(), "").ok();
    let list: Value = serde_json::from_slice(&registry.store.lock().unwrap()[&list_path(&context)]).unwrap();
    let kinds: Vec<&str> = list["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["artifactType"].as_str().unwrap())
        .collect();
    assert_eq!((list["manifests"][0].clone(), &kinds[1..]), (theirs.clone(), &KINDS[..]));
    // If the registry supports conditional requests, nothing is overwritten.
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs] }).to_string();
    let registry = registry::conditional(index.into_bytes());
    push(&context, registry.host(), "").ok();
    let list: Value = serde_json::from_slice(&registry.store.lock().unwrap()[&list_path(&context)]).unwrap();
    assert_eq!((list["manifests"].as_array().unwrap().len(), &list["manifests"][0]), (5, &theirs));
    let registry = contested(&theirs, 100);
    push(&context, registry.host(), "").failed(3, &["somebody else keeps changing it"]);
}

#[test]
fn registries_with_login_get_the_fallback_tag_or_a_warning() {
    if !has_tool("docker-registry") {
        return;
    }
    let Some(context) = built() else { return };
    fs::write(context.path("htpasswd"), HTPASSWD).unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: x\n    path: {}\n", context.path("htpasswd"));
    let (_daemon, host) = configured_registry(&context.path("registry"), "", &auth);
    let login = |secret: &str| {
        let auths = json!({ "auths": { &host: { "auth": secret } } });
        fs::write(context.path("work/auth.json"), auths.to_string()).unwrap();
    };
    // Without a login, and with a wrong password.
    fs::write(context.path("work/auth.json"), "{\"auths\":{}}").unwrap();
    push(&context, &host, "--authfile auth.json")
        .failed(3, &[&format!("hint: log in first: skopeo login {host}")]);
    login("bWU6bm90aGluZw==");
    let wrong = push(&context, &host, "--authfile auth.json").failed(
        3,
        &[&format!("hint: skopeo is logged in to {host} as me, but the registry refuses this login")],
    );
    assert!(!wrong.stderr.contains("nothing"), "{}", wrong.stderr);
    login("bWU6aHVzaA==");
    let ran = push(&context, &host, "--authfile auth.json").ok();
    assert_eq!(ran.stdout.lines().count(), 2);
    let list = std::process::Command::new("skopeo")
        .args([
            "inspect",
            "--raw",
            "--tls-verify=false",
            "--authfile",
            context.path("work/auth.json").as_str(),
        ])
        .arg(format!("docker://{host}{}", list_path(&context).replace("/v2", "").replace("/manifests/", ":")))
        .output()
        .unwrap();
    if list.status.success() {
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        assert_eq!(list["manifests"].as_array().unwrap().len(), 4, "{list}");
        assert_eq!(list["manifests"][0]["artifactType"], KINDS[0]);
    } else {
        ran.says("warning: the list of artifacts docker://")
            .says("is not written; skopeo before 1.15")
            .says("401");
    }
}

#[test]
fn replacing_an_existing_tag_is_announced() {
    let Some(context) = built() else { return };
    let registry = registry::honest();
    push(&context, registry.host(), "--no-overwrite").ok();
    // The same image again is accepted.
    push(&context, registry.host(), "--no-overwrite").ok();
    let before =
        descriptor(&context.path("work/out").join(BIN), "6.1.7")["digest"].as_str().unwrap().to_owned();
    context.build("--no-modules --set PSI=y").ok();
    let uploads = registry.uploads().len();
    let named = format!("docker://{}/test/{BIN}:6.1.7 has the digest {before}", registry.host());
    let refused = push(&context, registry.host(), "--no-overwrite");
    assert_eq!((refused.stdout.as_str(), registry.uploads().len()), ("", uploads));
    refused.failed(1, &[&named, ":6.1.7-attest has the digest", "hint: nothing was pushed"]);
    let ran = push(&context, registry.host(), "").ok().says(&format!("note: {named} and is replaced"));
    let after =
        descriptor(&context.path("work/out").join(BIN), "6.1.7")["digest"].as_str().unwrap().to_owned();
    assert!(before != after && ran.stdout.contains(&after), "{}", ran.stdout);
}

#[test]
fn no_attest_leaves_out_attachments() {
    let Some(context) = built() else { return };
    let registry = registry::honest();
    let ran = push(&context, registry.host(), "--no-attest").ok();
    let image = descriptor(&context.path("work/out").join(BIN), "6.1.7");
    let line =
        format!("docker://{}/test/{BIN}:6.1.7 {}\n", registry.host(), image["digest"].as_str().unwrap());
    assert_eq!(ran.stdout, line);
    let dry = context.run("push localhost:1/x --dry-run --no-attest").ok();
    assert_eq!(dry.stdout.lines().count(), 1);
}

#[test]
fn read_only_registries_and_refused_attachments_are_distinguished() {
    let Some(context) = built() else { return };
    if has_tool("docker-registry") {
        let readonly = "  maintenance:\n    readonly:\n      enabled: true\n";
        let (_daemon, host) = configured_registry(&context.path("readonly"), readonly, "");
        push(&context, &host, "").failed(3, &[&format!("hint: {host} is read-only")]);
        let cache = format!("proxy:\n  remoteurl: http://{host}\n");
        let (_daemon, cache) = configured_registry(&context.path("cache-of-another"), "", &cache);
        push(&context, &cache, "").failed(3, &[&format!("hint: {cache} is read-only, or a cache")]);
    }
    let answers = |status: &'static str, body: &'static str, to: fn(&Request) -> bool| {
        registry::misbehaving(move |request, stream| {
            if to(request) {
                respond(stream, status, &["Content-Type: application/json"], body.as_bytes());
            }
            to(request)
        })
    };
    let denied =
        "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"requested access to the resource is denied\"}]}";
    let forbidden = answers("403 Forbidden", denied, |request| request.method == "POST");
    push(&context, forbidden.host(), "")
        .failed(3, &[&format!("hint: log in first: skopeo login {}", forbidden.host())]);
    let auths = json!({ "auths": { forbidden.host(): { "auth": "bWU6aHVzaA==" } } });
    fs::write(context.path("work/auth.json"), auths.to_string()).unwrap();
    push(&context, forbidden.host(), "--authfile auth.json").failed(3, &["as me, who may not push there"]);
    let invalid = "{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"unknown field subject\"}]}";
    let no_subjects = answers("400 Bad Request", invalid, |request| {
        request.method == "PUT" && String::from_utf8_lossy(&request.body).contains("\"subject\"")
    });
    let ran = push(&context, no_subjects.host(), "");
    assert_eq!(ran.stdout.lines().count(), 1, "the image is there: {}", ran.stderr);
    ran.failed(3, &["hint: the images were pushed, but", "--no-attest pushes none"]);
    push(&context, no_subjects.host(), "--no-attest").ok();
}
