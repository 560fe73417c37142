//! `kcompile push` to good, misbehaving and missing registries on loopback.

use crate::support::context::{RunResult, TestContext, copy, has_tool, write_script};
use crate::support::layouts::{add_blob, descriptor, write_layout};
use crate::support::registry::{self, Registry, send};
use crate::support::servers::respond;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

const BIN: &str = "firecracker-kernel-bin-amd64";
const MODULES: &str = "firecracker-kernel-modules-amd64";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Returns a context with the images of one kernel in `out`, or `None` without skopeo.
fn built() -> Option<TestContext> {
    if !has_tool("skopeo") {
        return None;
    }
    let context = TestContext::new();
    context.build("").ok();
    Some(context)
}

fn push(context: &TestContext, registry: &Registry, args: &str) -> RunResult {
    context.run(&format!("push {}/test --tls-verify=false {args}", registry.host()))
}

/// Returns the digest on the line of a destination in standard output.
fn line(registry: &Registry, name: &str, tag: &str, digest: &str) -> String {
    format!("docker://{}/test/{name}:{tag} {digest}\n", registry.host())
}

#[test]
fn every_tag_of_every_layout_is_pushed_and_served() {
    let Some(context) = built() else { return };
    context.tree("6.1.8", "work/newer");
    context.run("6.1.8 --fc --source newer --config mini.config --legacy --compression none").ok();
    let registry = registry::honest();
    let ran = push(&context, &registry, "").ok().says("Push: done in").says(": 12 images, ");
    let mut expected = String::new();
    for (name, tag) in [
        (BIN, "6.1.7"),
        (BIN, "6.1.8"),
        (MODULES, "6.1.7"),
        (MODULES, "6.1.8"),
        ("firecracker-kernel", "6.1.8"),
        ("flintlock-kernel", "6.1.8"),
    ] {
        let digest =
            descriptor(&context.path("work/out").join(name), tag)["digest"].as_str().unwrap().to_owned();
        assert_eq!(registry.digest(&format!("test/{name}"), tag), Some(digest.clone()), "{name}:{tag}");
        expected += &line(&registry, name, tag, &digest);
    }
    // The attachments follow.
    let (images, attached) = ran.stdout.split_at(expected.len());
    assert_eq!(images, expected);
    assert!(attached.lines().all(|line| line.contains("-attest sha256:")), "{attached}");
    assert_eq!(attached.lines().count(), 6);
    // Only manifests are sent a second time.
    let uploads = registry.uploads().len();
    let json = push(&context, &registry, "--json").ok().json();
    let lines = json["items"].as_array().unwrap().iter().map(|item| {
        format!("{} {}\n", item["destination"].as_str().unwrap(), item["digest"].as_str().unwrap())
    });
    assert_eq!(lines.collect::<String>(), ran.stdout);
    let again = &registry.uploads()[uploads..];
    assert!(again.iter().all(|line| line.contains("/manifests/")), "{again:?}");
}

#[test]
fn one_image_can_be_chosen() {
    let Some(context) = built() else { return };
    let registry = registry::honest();
    let ran = push(&context, &registry, &format!("out/{MODULES}:6.1.7")).ok();
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(registry.digest(&format!("test/{MODULES}"), "6.1.7").is_some());
    assert_eq!(registry.digest(&format!("test/{BIN}"), "6.1.7"), None);
}

#[test]
fn push_copies_referrers_with_the_image() {
    let Some(context) = built() else { return };
    let out = context.path("work/out");
    let subject = descriptor(&out.join(BIN), "6.1.7");
    let tag = format!("{}.sbom", subject["digest"].as_str().unwrap().replace(':', "-"));
    // An attachment of the kernel, and one of an image that no longer exists.
    let attest = out.join(format!("{BIN}-attest"));
    let attachment = |subject: &Value| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/spdx+json", "subject": subject,
            "config": add_blob(&attest, b"{}", &json!("application/vnd.oci.empty.v1+json")),
            "layers": [add_blob(&attest, br#"{"spdxVersion":"SPDX-2.3"}"#, &json!("application/spdx+json"))],
        })
    };
    let gone = json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1 });
    let attached = write_layout(&attest, &[(&tag, attachment(&subject)), ("stale", attachment(&gone))]);
    // An index over the kernel, as if it were for two architectures.
    let both = out.join("firecracker-kernel-bin");
    copy(&out.join(BIN), &both);
    let platform = |arch: &str| {
        let mut image = subject.clone();
        image["platform"] = json!({ "os": "linux", "architecture": arch });
        image
    };
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [platform("amd64"), platform("arm64")] });
    let indexed = write_layout(&both, &[("6.1.7", index)]);

    let registry = registry::honest();
    let ran = push(&context, &registry, "")
        .ok()
        .says("stale is not pushed, because the image that it is attached to is missing");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(format!("{}\n", lines[2]), line(&registry, "firecracker-kernel-bin", "6.1.7", &indexed[0]));
    assert_eq!(format!("{}\n", lines[3]), line(&registry, BIN, &tag, &attached[0]));
    // The repository of an index also has its images.
    let child = subject["digest"].as_str().unwrap();
    assert_eq!(registry.digest("test/firecracker-kernel-bin", child).as_deref(), Some(child));
}

#[test]
fn push_detects_a_registry_that_serves_another_image() {
    let Some(context) = built() else { return };
    // Returns reformatted manifests, like a registry that rewrites what it gets.
    let registry = registry::misbehaving(|request, stream| {
        let rewrites = request.method == "GET" && request.path.contains("/manifests/");
        if rewrites {
            send(request, stream, br#"{ "schemaVersion": 2 }"#);
        }
        rewrites
    });
    let expected =
        descriptor(&context.path("work/out").join(BIN), "6.1.7")["digest"].as_str().unwrap().to_owned();
    let found = format!("sha256:{}", crate::support::context::sha256(br#"{ "schemaVersion": 2 }"#));
    let ran = push(&context, &registry, "");
    assert_eq!(ran.stdout, "");
    ran.failed(3, &[&format!("out/{BIN}:6.1.7 has the digest {expected}, the registry serves {found}")]);
}

#[test]
fn registry_refusals_come_with_a_hint() {
    let Some(context) = built() else { return };
    let refuses = registry::misbehaving(|_, stream| {
        respond(stream, "401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], b"");
        true
    });
    let host = refuses.host();
    push(&context, &refuses, "").failed(3, &[&format!("hint: log in first: skopeo login {host}")]);
    // Nobody listens on port 1.
    let down = "push 127.0.0.1:1/test --tls-verify=false";
    let layout = context.path("work/out").join(BIN);
    let error = format!(
        "error: cannot push {layout}:6.1.7 to docker://127.0.0.1:1/test/{BIN}:6.1.7: connection refused\nhint: "
    );
    context.run(down).failed(3, &[&error]);
}

#[test]
fn only_temporary_failures_of_a_registry_are_retried() {
    let Some(mut context) = built() else { return };
    let path = std::env::var("PATH").unwrap();
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("bin")));
    for (error, retries) in [
        ("dial tcp 127.0.0.1:1: connect: connection refused", &["0"][..]),
        ("dial tcp: lookup x on 127.0.0.1:53: no such host", &["0"]),
        ("x509: certificate signed by unknown authority", &["0"]),
        ("invalid status code from registry 403 (Forbidden)", &["0"]),
        ("invalid status code from registry 503 (Service Unavailable)", &["0", "3"]),
        ("read tcp 127.0.0.1:1: connection reset by peer", &["0", "3"]),
        ("net/http: TLS handshake timeout", &["0", "3"]),
    ] {
        let script = format!("echo \"$*\" >> calls\necho 'level=fatal msg=\"{error}\"' >&2\nexit 1");
        write_script(&context.path("bin/skopeo"), &script);
        context.run("push 127.0.0.1:1/test").failed(3, &["error: cannot push "]);
        let calls = fs::read_to_string(context.path("work/calls")).unwrap();
        let looks = calls.lines().filter_map(|line| line.split_once("inspect --raw --retry-times "));
        let looks: Vec<&str> = looks.map(|(_, rest)| rest.split(' ').next().unwrap()).collect();
        assert_eq!(looks, retries, "{error}: {calls}");
        assert!(!calls.contains("copy "), "{error}: {calls}");
        fs::remove_file(context.path("work/calls")).unwrap();
    }
}

#[test]
fn credentials_are_skopeos_own_and_stay_secret() {
    let Some(context) = built() else { return };
    // Base64 of me:hush.
    let registry = registry::misbehaving(|request, stream| {
        let known = request.headers.get("authorization").is_some_and(|sent| sent == "Basic bWU6aHVzaA==");
        if !known {
            respond(stream, "401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], b"");
        }
        !known
    });
    let auth = |name: &str, secret: &str| {
        let auths = json!({ "auths": { registry.host(): { "auth": secret } } });
        fs::write(context.path("work").join(name), auths.to_string()).unwrap();
    };
    auth("right.json", "bWU6aHVzaA==");
    auth("wrong.json", "bWU6bm90aGluZw==");
    let ran = push(&context, &registry, "--authfile right.json").ok();
    assert_eq!(ran.stdout.lines().count(), 4);
    let ran = push(&context, &registry, "--authfile wrong.json --progress json").failed(3, &["skopeo login"]);
    for secret in ["bWU6", "nothing", "hush"] {
        assert!(!ran.stderr.contains(secret), "{}", ran.stderr);
    }
    // The file that the environment names.
    let mut command = context.command(&format!("push {}/test --tls-verify=false", registry.host()));
    command.env("REGISTRY_AUTH_FILE", context.path("work/right.json"));
    crate::support::context::run_result(command.output().unwrap()).ok();
}

#[test]
fn push_finds_damaged_blobs_that_the_registry_already_has() {
    let Some(context) = built() else { return };
    let registry = registry::honest();
    push(&context, &registry, "").ok();
    let layer = {
        let layout = context.path("work/out").join(MODULES);
        let manifest = descriptor(&layout, "6.1.7")["digest"].as_str().unwrap().replace(':', "/");
        let manifest: Value =
            serde_json::from_slice(&fs::read(layout.join("blobs").join(manifest)).unwrap()).unwrap();
        layout.join("blobs").join(manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/"))
    };
    let file = fs::OpenOptions::new().read(true).write(true).open(&layer).unwrap();
    let mut byte = [0];
    let middle = file.metadata().unwrap().len() / 2;
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let uploads = registry.uploads().len();
    let ran = push(&context, &registry, "");
    assert_eq!(ran.stdout, "");
    ran.failed(3, &[layer.file_name().unwrap(), "hint: nothing was pushed"]);
    assert_eq!(registry.uploads().len(), uploads);
}

#[test]
fn a_signal_also_ends_skopeo() {
    let Some(context) = built() else { return };
    let (tell, told) = std::sync::mpsc::channel();
    let registry = registry::misbehaving(move |request, stream| {
        // An upload without an answer. The connection ends with skopeo.
        let stalls = request.method == "PATCH";
        if stalls {
            tell.send("stalled").unwrap();
            let _ = stream.read(&mut [0]);
            tell.send("gone").unwrap();
        }
        stalls
    });
    let mut command = context.command(&format!("push {}/test --tls-verify=false", registry.host()));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(told.recv().unwrap(), "stalled");
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(told.recv().unwrap(), "gone");
    crate::support::context::run_result(child.wait_with_output().unwrap())
        .failed(130, &["error: interrupted"]);
}

#[test]
fn invalid_input_is_refused_before_skopeo_runs() {
    let context = TestContext::new();
    context.build("").ok();
    // skopeo is missing here, and is not needed.
    let run = |args: &str| {
        let mut command = context.command(args);
        command.env("PATH", context.path("home"));
        crate::support::context::run_result(command.output().unwrap())
    };
    run("push localhost:1/x out/nothing").failed(2, &["out/nothing: no such directory"]);
    run("push localhost:1/x linux").failed(2, &["linux is not an OCI layout"]);
    run(&format!("push localhost:1/x out/{BIN}:9"))
        .failed(2, &["has no image with the tag 9", "hint: its tags are 6.1.7"]);
    run("push localhost:1/x -o linux").failed(2, &["linux has no OCI layout", "hint: build a kernel first"]);
    run("push localhost:1/x -o none").failed(2, &["cannot read the output directory", "none"]);
    run("push localhost:1/x -o mini.config").failed(2, &["cannot read the output directory"]);
    run("push foobar").failed(2, &["`foobar` is not a registry with a prefix", "docker.io/foobar"]);
    run("push docker.io/Foo").failed(2, &["`docker.io/Foo` is not a registry with a prefix"]);
    let ran = run("push me:hush@docker.io/foobar").failed(2, &["an `@` in it", "skopeo login"]);
    assert!(!ran.stderr.contains("hush"));
    copy(&context.path("work/out").join(BIN), &context.path("work/Mine"));
    run("push localhost:1/x Mine").failed(2, &["registries do not accept `Mine` as a name"]);
    copy(&context.path("work/out").join(BIN), &context.path("work/other").join(BIN));
    run(&format!("push localhost:1/x out/{BIN} other/{BIN}"))
        .failed(2, &["would both be pushed to docker://localhost:1/x/"]);
    // An index has another media type and would be pushed after the image.
    let other = context.path("work/other").join(BIN);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(&other, "6.1.7")] });
    write_layout(&other, &[("6.1.7", index)]);
    run(&format!("push localhost:1/x out/{BIN} other/{BIN}"))
        .failed(2, &["would both be pushed to docker://localhost:1/x/"]);
    fs::write(context.path("work/other").join(BIN).join("index.json"), "{").unwrap();
    run("push localhost:1/x -o other")
        .failed(3, &["index.json does not have the content that the OCI image specification requires"]);
    run("push localhost:1/x").failed(4, &["this host lacks skopeo"]);
    let ran = run("push localhost:1/x --dry-run --retry-times 7 --authfile my.json").ok();
    assert_eq!(
        ran.stdout.lines().next().unwrap(),
        format!(
            "skopeo copy --preserve-digests --retry-times 7 --authfile {}/my.json oci:out/{BIN}:6.1.7 docker://localhost:1/x/{BIN}:6.1.7",
            context.path("work")
        )
    );
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (4, ""));
}
