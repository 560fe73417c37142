//! A registry in memory that implements what skopeo needs to push, and can misbehave. Also layouts
//! as other tools write them.

use crate::support::context::{TestContext, sha256};
use crate::support::servers::{Request, Server, respond, serve};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// The content by path, `/v2/<name>/manifests/<tag>` and `/v2/<name>/blobs/<digest>`.
pub(crate) type Store = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

pub(crate) struct Registry {
    pub server: Server,
    pub store: Store,
}

impl Registry {
    /// Returns its host and port.
    pub(crate) fn host(&self) -> &str {
        self.server.url.strip_prefix("http://").unwrap()
    }

    /// Lets skopeo use the registry without TLS in this context.
    pub(crate) fn allow(&self, context: &TestContext) {
        let settings = context.path("home/.config/containers");
        fs::create_dir_all(&settings).unwrap();
        let insecure = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", self.host());
        fs::write(settings.join("registries.conf"), insecure).unwrap();
    }

    /// Returns the requests that uploaded something.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let log = self.server.log.lock().unwrap();
        let carries = |line: &&String| ["POST ", "PATCH ", "PUT "].iter().any(|word| line.starts_with(word));
        log.iter().filter(carries).cloned().collect()
    }

    /// Returns the digest of a tag's manifest.
    pub(crate) fn digest(&self, name: &str, tag: &str) -> Option<String> {
        let store = self.store.lock().unwrap();
        store.get(&format!("/v2/{name}/manifests/{tag}")).map(|bytes| format!("sha256:{}", sha256(bytes)))
    }
}

/// Starts a well-behaved registry without the referrers API.
pub(crate) fn honest() -> Registry {
    misbehaving(|_, _| false)
}

/// Starts a registry that stores other bytes if `other` returns some.
pub(crate) fn changing(other: impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Registry {
    let store = Store::default();
    let held = store.clone();
    let server = serve(move |request, stream| {
        let body = other(request).unwrap_or_else(|| request.body.clone());
        answer(&Request { body, ..request.clone() }, stream, &held);
    });
    Registry { server, store }
}

/// Starts a registry with conditional requests. Before the first write to a tag `sha256-…`, another
/// client writes `theirs` to it.
pub(crate) fn conditional(theirs: Vec<u8>) -> Registry {
    let store = Store::default();
    let (held, theirs) = (store.clone(), Mutex::new(Some(theirs)));
    let server = serve(move |request, stream| {
        if request.method == "PUT" && request.path.contains("/manifests/sha256-") {
            let there = {
                let mut store = held.lock().unwrap();
                let theirs = theirs.lock().unwrap().take();
                theirs.map(|theirs| store.insert(request.path.clone(), theirs));
                store.get(&request.path).map(|bytes| format!("\"{}\"", sha256(bytes)))
            };
            let holds = match &there {
                Some(version) => request.headers.get("if-match") == Some(version),
                None => request.headers.get("if-none-match").is_some_and(|any| any == "*"),
            };
            if !holds {
                return respond(stream, "412 Precondition Failed", &[], b"");
            }
        }
        answer(request, stream, &held);
    });
    Registry { server, store }
}

/// Starts a registry with the referrers API of OCI 1.1.
pub(crate) fn with_referrers() -> Registry {
    let store = Store::default();
    let (held, listed) = (store.clone(), store.clone());
    let server = serve(move |request, stream| match request.path.split_once("/referrers/") {
        Some((repository, subject)) => send(request, stream, &referrers(&listed, repository, subject)),
        None => answer(request, stream, &held),
    });
    Registry { server, store }
}

fn referrers(store: &Store, repository: &str, subject: &str) -> Vec<u8> {
    let store = store.lock().unwrap();
    let manifests =
        store.iter().filter(|(path, _)| path.starts_with(&format!("{repository}/manifests/sha256:")));
    let referring = manifests.filter_map(|(_, bytes)| {
        let manifest: Value = serde_json::from_slice(bytes).ok()?;
        let digest = format!("sha256:{}", sha256(bytes));
        let refers = manifest["subject"]["digest"] == subject;
        let (kind, artifact) = (&manifest["mediaType"], &manifest["artifactType"]);
        refers.then(
            || json!({ "mediaType": kind, "digest": digest, "size": bytes.len(), "artifactType": artifact }),
        )
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": referring.collect::<Vec<_>>(),
    });
    index.to_string().into_bytes()
}

/// Sends a request to a server. Returns the status and the body.
pub(crate) fn request(host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {kind}\r\nAccept: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..split]).split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[split + 4..].to_vec())
}

/// Starts a registry in which `fault` may answer a request instead.
pub(crate) fn misbehaving(
    fault: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Registry {
    let store = Store::default();
    let held = store.clone();
    let server = serve(move |request, stream| {
        if !fault(request, stream) {
            answer(request, stream, &held);
        }
    });
    Registry { server, store }
}

fn answer(request: &Request, stream: &mut TcpStream, store: &Store) {
    let mut store = store.lock().unwrap();
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let upload = path.split_once("/blobs/uploads/").map(|(repository, _)| repository);
    match (request.method.as_str(), upload) {
        ("GET", _) if path == "/v2/" => respond(stream, "200 OK", &[], b"{}"),
        // One upload at a time for each connection. The bytes are stored under the name of the
        // upload.
        ("POST", Some(repository)) => {
            let place = format!("{repository}/blobs/uploads/{}", store.len());
            store.insert(place.clone(), Vec::new());
            respond(stream, "202 Accepted", &[&format!("Location: {place}")], b"");
        }
        ("PATCH", Some(_)) => {
            store.insert(path.to_owned(), request.body.clone());
            respond(stream, "202 Accepted", &[&format!("Location: {path}")], b"");
        }
        ("PUT", Some(repository)) => {
            let bytes = store.remove(path).unwrap_or_default();
            let digest = query.strip_prefix("digest=").unwrap().replace("%3A", ":");
            assert_eq!(digest, format!("sha256:{}", sha256(&bytes)), "a blob that is not its digest");
            store.insert(format!("{repository}/blobs/{digest}"), bytes);
            respond(stream, "201 Created", &[], b"");
        }
        ("PUT", None) => {
            let (repository, _) = path.split_once("/manifests/").unwrap();
            // A manifest is stored by tag and by digest.
            let digest = format!("sha256:{}", sha256(&request.body));
            store.insert(format!("{repository}/manifests/{digest}"), request.body.clone());
            store.insert(path.to_owned(), request.body.clone());
            respond(stream, "201 Created", &[], b"");
        }
        ("GET" | "HEAD", None) => match store.get(path) {
            Some(bytes) => send(request, stream, bytes),
            None => respond(stream, "404 Not Found", &[], b""),
        },
        _ => respond(stream, "405 Method Not Allowed", &[], b""),
    }
}

/// Answers with these bytes, or with their length to HEAD.
pub(crate) fn send(request: &Request, stream: &mut TcpStream, bytes: &[u8]) {
    let manifest: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let kind = manifest["mediaType"].as_str().unwrap_or("application/octet-stream");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: {kind}\r\nETag: \"{}\"\r\nConnection: close\r\n\r\n",
        bytes.len(),
        sha256(bytes)
    );
    let body = if request.method == "HEAD" { &[][..] } else { bytes };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
