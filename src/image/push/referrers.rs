//! Keeps the list of artifacts that refer to an image, for clients of OCI 1.1. A registry with the referrers
//! API keeps the list itself. For other registries the list is an index under the tag `sha256-<hex>`. Entries
//! of others stay in it.
//!
//! skopeo writes the list with its own credentials. Releases before 1.15 drop the types of artifacts. For
//! them the list is written without credentials, if the registry allows that.

use super::{ImageCopy, Registry, skopeo};
use crate::host::tls::build_client;
use crate::host::{Host, process};
use crate::oci;
use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Duration;

/// The number of times that the list is written and read again.
const ATTEMPTS: usize = 6;
/// The limit of registries for a manifest.
const MAX_INDEX: u64 = 4 << 20;
/// The time in which a registry must answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Makes sure that the registry's list of referrers of `subject` has the artifacts of
/// `copy`, which has been pushed.
///
/// # Errors
///
/// Exit code 3 if the tag has something else, the registry refuses the list, or others keep changing it.
pub(super) fn list(
    copy: &ImageCopy,
    subject: Sha256,
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
) -> Result<()> {
    let ours = oci::referrers(&copy.layout, &copy.tagged)?;
    let anonymous = AnonymousClient::new(registry, &copy.repository)?;
    if anonymous.lists(subject, &ours) {
        return Ok(());
    }
    let tag = format!("sha256-{subject}");
    let reference = format!("docker://{}:{tag}", copy.repository);
    let what = format!("cannot add to the list of artifacts {reference}");
    let failed = |stderr: String| skopeo::failure(&what, &stderr, copy, registry, host);
    for _ in 0..ATTEMPTS {
        process::check()?;
        let current = skopeo::inspect_remote(&reference, registry, &host.cwd)?.map_err(failed)?;
        let Some(index) = merge(current.as_deref(), &ours).map_err(|why| invalid_index_error(&what, &why))?
        else {
            return Ok(());
        };
        match write_by_skopeo(&reference, &index, registry)? {
            None => {}
            Some(stderr) if is_skopeo_too_old(&stderr) => {
                if let Some(why) = anonymous.list(&tag, &ours, &what)? {
                    reporter.warning(format!(
                        "the list of artifacts {reference} is not written; skopeo before 1.15 would drop the types of \
                         artifacts, and writing it without a login failed: {why}"
                    ));
                }
                return Ok(());
            }
            Some(stderr) => return Err(failed(stderr)),
        }
    }
    Err(conflict_error(&what))
}

fn invalid_index_error(what: &str, why: &str) -> Error {
    Error::fetch(format!("{what}: {why}"))
        .hint("delete that tag if nobody needs it, or use --no-attest to push no artifacts")
}

fn conflict_error(what: &str) -> Error {
    Error::fetch(format!("{what}: somebody else keeps changing it")).hint("run the same command again")
}

/// Returns whether skopeo failed because it is too old. Some releases find that they would drop artifact
/// types. Older ones do not know the option.
fn is_skopeo_too_old(stderr: &str) -> bool {
    stderr.contains("must be converted to type") || stderr.contains("unknown flag")
}

/// Returns the list with `ours` added, or `None` if it has them already. Entries of others stay.
///
/// # Errors
///
/// The bytes are not a list of artifacts, or the list becomes too long.
fn merge(current: Option<&[u8]>, ours: &[Value]) -> Result<Option<Vec<u8>>, String> {
    let mut index = match current {
        None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
        Some(bytes) => read_index(bytes)?,
    };
    let manifests = index["manifests"].as_array_mut().expect("read as a list");
    let mut changed = current.is_none();
    for artifact in ours {
        match manifests.iter_mut().find(|one| one["digest"] == artifact["digest"]) {
            Some(there) if there["artifactType"] == artifact["artifactType"] => {}
            Some(there) => {
                there["artifactType"] = artifact["artifactType"].clone();
                changed = true;
            }
            None => {
                manifests.push(artifact.clone());
                changed = true;
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    let merged = serde_json::to_vec(&index).expect("only string keys");
    if merged.len() as u64 > MAX_INDEX {
        return Err(format!("it would be larger than {} MiB, the limit of registries", MAX_INDEX >> 20));
    }
    Ok(Some(merged))
}

fn read_index(bytes: &[u8]) -> Result<Value, String> {
    let is_list = |index: &Value| {
        let has_digest = |entry: &Value| entry.is_object() && entry["digest"].is_string();
        index["schemaVersion"] == 2
            && index.get("mediaType").is_none_or(|kind| kind == INDEX)
            && index["manifests"].as_array().is_some_and(|manifests| manifests.iter().all(has_digest))
    };
    let index = Some(bytes).filter(|bytes| bytes.len() as u64 <= MAX_INDEX);
    let index = index.and_then(|bytes| serde_json::from_slice(bytes).ok()).filter(is_list);
    index.ok_or_else(|| "that tag is not a list of artifacts".to_owned())
}

/// Writes the list by skopeo. Returns skopeo's standard error if that fails.
fn write_by_skopeo(reference: &str, index: &[u8], registry: &Registry) -> Result<Option<String>> {
    let dir = tempfile::tempdir().context(Kind::Build, || "cannot create a temporary directory".into())?;
    let dir = Utf8Path::from_path(dir.path())
        .ok_or_else(|| Error::usage("the path of the temporary directory is not UTF-8"))?;
    let layout = oci::write_index(dir, "list", "list", index)?;
    skopeo::copy_index(&layout, "list", reference, registry)
}

/// A client of the registry without credentials.
struct AnonymousClient {
    client: Client,
    /// The URLs of the repository, in the order in which skopeo tries them.
    bases: Vec<String>,
}

impl AnonymousClient {
    fn new(registry: &Registry, repository: &str) -> Result<AnonymousClient> {
        let client = build_client(|builder| {
            builder
                .timeout(REQUEST_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .danger_accept_invalid_certs(!registry.tls_verify)
        })?;
        let (host, name) = repository.split_once('/').unwrap_or((repository, ""));
        let (host, name) = match host {
            "docker.io" if name.contains('/') => ("registry-1.docker.io", name.to_owned()),
            "docker.io" => ("registry-1.docker.io", format!("library/{name}")),
            host => (host, name.to_owned()),
        };
        let schemes = if registry.tls_verify { &["https"][..] } else { &["https", "http"] };
        let bases = schemes.iter().map(|scheme| format!("{scheme}://{host}/v2/{name}"));
        Ok(AnonymousClient { client, bases: bases.collect() })
    }

    /// Returns whether the registry's referrers API lists all these artifacts.
    fn lists(&self, subject: Sha256, ours: &[Value]) -> bool {
        let request = |url: &str| self.client.get(url).header(ACCEPT, INDEX);
        let Ok(response) = self.send(&format!("referrers/{}", subject.oci()), request) else { return false };
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_index = kind.is_some_and(|kind| kind.split(';').next() == Some(INDEX));
        if response.status() != StatusCode::OK || !is_index {
            return false;
        }
        let Some(index) = body(response).ok().and_then(|bytes| read_index(&bytes).ok()) else { return false };
        let listed = |artifact: &Value| {
            index["manifests"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["digest"] == artifact["digest"]))
        };
        ours.iter().all(listed)
    }

    /// Adds `ours` to the list under a tag. Returns the reason if that needs a login or fails.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the tag has something else, or others keep changing it.
    fn list(&self, tag: &str, ours: &[Value], what: &str) -> Result<Option<String>> {
        for _ in 0..ATTEMPTS {
            process::check()?;
            let (current, version) = match self.read(tag) {
                Ok(read) => read,
                Err(why) => return Ok(Some(why)),
            };
            let merged = merge(current.as_deref(), ours).map_err(|why| invalid_index_error(what, &why))?;
            let Some(index) = merged else { return Ok(None) };
            if let Err(why) = self.write(tag, &index, version.as_ref()) {
                return Ok(Some(why));
            }
        }
        Err(conflict_error(what))
    }

    /// Returns the manifest of a tag, and its `ETag`.
    fn read(&self, tag: &str) -> Result<(Option<Vec<u8>>, Option<HeaderValue>), String> {
        let request = |url: &str| self.client.get(url).header(ACCEPT, INDEX);
        let response = self.send(&format!("manifests/{tag}"), request)?;
        let version = response.headers().get(ETAG).cloned();
        match response.status() {
            StatusCode::OK => Ok((Some(body(response)?), version)),
            StatusCode::NOT_FOUND => Ok((None, None)),
            status => Err(format!("HTTP status {status}")),
        }
    }

    /// Writes a list under a tag, unless somebody else has changed it since this version. Some registries
    /// ignore the version, so the caller reads the list again.
    fn write(&self, tag: &str, index: &[u8], version: Option<&HeaderValue>) -> Result<(), String> {
        let request = |url: &str| {
            let request = self.client.put(url).header(CONTENT_TYPE, INDEX).body(index.to_vec());
            match version {
                Some(version) => request.header(IF_MATCH, version),
                None => request.header(IF_NONE_MATCH, "*"),
            }
        };
        let status = self.send(&format!("manifests/{tag}"), request)?.status();
        if status.is_success() || status == StatusCode::PRECONDITION_FAILED {
            return Ok(());
        }
        Err(format!("HTTP status {status}"))
    }

    /// Returns the first response from one of the URLs.
    fn send(&self, path: &str, request: impl Fn(&str) -> RequestBuilder) -> Result<Response, String> {
        let mut last = String::new();
        for base in &self.bases {
            match request(&format!("{base}/{path}")).send() {
                Ok(response) => return Ok(response),
                Err(error) => last = error.without_url().to_string(),
            }
        }
        Err(last)
    }
}

fn body(response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    response.take(MAX_INDEX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(digest: &str, kind: &str) -> Value {
        json!({ "mediaType": "m", "digest": digest, "size": 1, "artifactType": kind })
    }

    #[test]
    fn nothing_of_others_is_lost_and_nothing_is_there_twice() {
        let merged = |current: Option<&Value>, ours: &[Value]| {
            let bytes = current.map(|value| value.to_string().into_bytes());
            let merged = merge(bytes.as_deref(), ours).unwrap();
            merged.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
        };
        let ours = [artifact("sha256:a", "x"), artifact("sha256:b", "y")];
        let first = merged(None, &ours).unwrap();
        assert_eq!(first["manifests"], json!(ours));
        assert_eq!(merged(Some(&first), &ours), None);
        // Of another tool: fields that nobody here knows, and one of ours without its type.
        let theirs = json!({
            "schemaVersion": 2, "mediaType": INDEX, "annotations": { "a": "b" }, "x-top": [1],
            "manifests": [
                { "mediaType": "m", "digest": "sha256:t", "size": 2, "annotations": { "c": "d" }, "x-new": { "y": 1 } },
                { "mediaType": "m", "digest": "sha256:a", "size": 1 },
            ],
        });
        let both = merged(Some(&theirs), &ours).unwrap();
        let mut expected = theirs.clone();
        expected["manifests"][1]["artifactType"] = "x".into();
        expected["manifests"].as_array_mut().unwrap().push(ours[1].clone());
        assert_eq!(both, expected);
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        let ours = [artifact("sha256:a", "x")];
        let long = "x".repeat(usize::try_from(MAX_INDEX).unwrap());
        for hostile in [
            "",
            "[]",
            "{",
            "{\"schemaVersion\":2}",
            "{\"schemaVersion\":1,\"manifests\":[]}",
            "{\"schemaVersion\":2,\"manifests\":{}}",
            "{\"schemaVersion\":2,\"manifests\":[1]}",
            "{\"schemaVersion\":2,\"manifests\":[{\"digest\":1}]}",
            "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"manifests\":[]}",
            &format!("{{\"schemaVersion\":2,\"manifests\":[],\"x\":\"{long}\"}}"),
            &"[".repeat(100_000),
        ] {
            assert!(merge(Some(hostile.as_bytes()), &ours).is_err(), "{}", &hostile[..hostile.len().min(80)]);
        }
        // One that has hardly any room left.
        let full = format!("{{\"schemaVersion\":2,\"manifests\":[],\"x\":\"{}\"}}", &long[60..]);
        assert_eq!(
            merge(Some(full.as_bytes()), &ours),
            Err("it would be larger than 4 MiB, the limit of registries".into())
        );
    }
}
