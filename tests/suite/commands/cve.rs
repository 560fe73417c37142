//! `kcompile cve`: records of a directory and of a git server, joined with what the miniature kernel compiled.

use crate::support::context::{TestContext, has_tool};
use crate::support::git::{COMMIT, sh};
use crate::support::layouts::descriptor;
use crate::support::servers;
use kcompile::internals::CompiledFiles;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const NAME: &str = "work/out/firecracker-6.1.7-amd64";

/// Writes a record that affects 5.15 up to 6.1.8, and later series up to 6.7.
fn record(context: &TestContext, id: &str, files: &[&str], score: Option<f64>) {
    let metrics = score.map(|score| json!({ "cvssV3_1": { "baseScore": score } }));
    let entry = |status: &str, versions: Value| {
        json!({ "vendor": "Linux", "product": "Linux", "defaultStatus": status, "programFiles": files,
                "versions": versions })
    };
    let versions = json!([
        { "version": "5.15", "status": "affected" },
        { "version": "0", "lessThan": "5.15", "status": "unaffected", "versionType": "semver" },
        { "version": "6.1.9", "lessThanOrEqual": "6.1.*", "status": "unaffected", "versionType": "semver" },
        { "version": "6.8", "lessThanOrEqual": "*", "status": "unaffected",
          "versionType": "original_commit_for_fix" }
    ]);
    let commits = json!([{ "version": "1da177e4", "lessThan": "4534a70b", "status": "affected", "versionType": "git" }]);
    let record = json!({
        "dataType": "CVE_RECORD", "dataVersion": "5.1",
        "cveMetadata": { "cveId": id, "state": "PUBLISHED" },
        "containers": { "cna": {
            "title": format!("fault {id}"),
            "metrics": metrics.into_iter().collect::<Vec<_>>(),
            "affected": [entry("unaffected", commits), entry("affected", versions)]
        } }
    });
    write(context, &format!("2024/{id}.json"), record.to_string().as_bytes());
}

fn write(context: &TestContext, name: &str, bytes: &[u8]) {
    let path = context.path("work/vulns/cve/published").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn records(context: &TestContext) {
    record(context, "CVE-2024-1001", &["init/main.c"], Some(9.8));
    record(context, "CVE-2024-1002", &["drivers/net/dummy.c"], Some(5.5));
    record(context, "CVE-2024-1003", &["include/linux/netdevice.h"], None);
    record(context, "CVE-2024-1004", &["drivers/net/wireguard/wireguard.c"], Some(7.8));
    record(context, "CVE-2024-1005", &["fs/smb/client/inode.c"], Some(7.0));
    record(context, "CVE-2024-1006", &["arch/arm64/kernel/head.c"], None);
    record(context, "CVE-2024-1007", &[], None);
}

fn verdicts(json: &Value) -> BTreeMap<String, String> {
    let findings = json["findings"].as_array().unwrap().iter();
    findings
        .map(|one| (one["id"].as_str().unwrap().into(), one["verdict"].as_str().unwrap().into()))
        .collect()
}

fn compiled(context: &TestContext) -> CompiledFiles {
    let bytes = fs::read(context.path(&format!("{NAME}.compiled.json.gz"))).unwrap();
    CompiledFiles::from_bytes("x", &bytes).unwrap()
}

#[test]
fn compiled_files_are_those_of_the_final_config() {
    let context = TestContext::new();
    context.build("--set VETH=m").ok();
    assert!(compiled(&context).by_path().contains_key("drivers/net/veth.c"));
    // The build directory still has the objects of the earlier config.
    context.build("").ok();
    let found = compiled(&context);
    let files = found.by_path();
    let components = |path: &str| found.components_of(files[path]);
    assert_eq!(components("init/main.c"), ["vmlinux"]);
    assert_eq!(components("drivers/net/dummy.c"), ["drivers/net/dummy.ko"]);
    let header = components("include/linux/module.h");
    assert!(header.contains(&"vmlinux") && header.contains(&"drivers/net/dummy.ko"), "{header:?}");
    assert_eq!(files["drivers/net/dummy.c"].option.as_deref(), Some("CONFIG_DUMMY"));
    assert_eq!(files["init/main.c"].option, None);
    for path in ["drivers/net/veth.c", "drivers/net/wireguard/wireguard.c", "scripts/basic/fixdep.c"] {
        assert!(!files.contains_key(path), "{path}");
        assert!(found.tree_has(path), "{path}");
    }
    let main = fs::read(context.path("work/linux/init/main.c")).unwrap();
    assert_eq!(files["init/main.c"].sha256.to_string(), crate::support::context::sha256(&main));
    assert!(files.keys().all(|path| !path.starts_with('/')));
    let sbom: Value =
        serde_json::from_slice(&fs::read(context.path(&format!("{NAME}.spdx.json"))).unwrap()).unwrap();
    assert_eq!(sbom["files"].as_array().unwrap().len(), found.files.len());
}

#[test]
fn records_are_joined_with_compiled_files() {
    let context = TestContext::new();
    records(&context);
    context.build("").ok();
    let expected = [
        ("CVE-2024-1001", "affected"),
        ("CVE-2024-1002", "affected"),
        ("CVE-2024-1003", "affected"),
        ("CVE-2024-1004", "not-compiled"),
        ("CVE-2024-1005", "undetermined"),
        ("CVE-2024-1006", "not-compiled"),
        ("CVE-2024-1007", "undetermined"),
    ];
    let expected: BTreeMap<String, String> =
        expected.map(|(id, verdict)| (id.to_owned(), verdict.to_owned())).into();
    for target in [format!("{BIN}:6.1.7"), "6.1".to_owned(), "out/firecracker-6.1.7-amd64.json".to_owned()] {
        let found = context.run(&format!("cve {target} --data vulns --json")).ok().json();
        assert_eq!(verdicts(&found), expected, "{target}");
        assert_eq!(found["version"], "6.1.7");
        assert_eq!(found["next_release"], json!({ "version": "6.1.9", "fixes": 3 }));
    }
    // Without the file beside the layout, the attached list is read.
    fs::remove_file(context.path(&format!("{NAME}.compiled.json.gz"))).unwrap();
    let found = context.run(&format!("cve {BIN} --data vulns --json")).ok().json();
    assert_eq!(verdicts(&found), expected);
    let dummy =
        &found["findings"].as_array().unwrap().iter().find(|one| one["id"] == "CVE-2024-1002").unwrap();
    assert_eq!(dummy["files"][0]["components"], json!(["drivers/net/dummy.ko"]));
    assert_eq!((&dummy["option"], &dummy["severity"]), (&json!("CONFIG_DUMMY"), &json!("medium")));
    let text = context.run(&format!("cve {BIN} --data vulns")).ok().stdout;
    for expected in
        ["CVE-2024-1001", "drivers/net/dummy.c in drivers/net/dummy.ko", "Linux 6.1.9 fixes 3 of 3"]
    {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
    assert!(!text.contains("CVE-2024-1004"), "{text}");
    let all = context.run(&format!("cve {BIN} --data vulns --show all")).ok().stdout;
    assert!(all.contains("fs/smb/client/inode.c is not in this source"), "{all}");
    let markdown = context.run(&format!("cve {BIN} --data vulns --markdown")).ok().stdout;
    assert!(markdown.contains("| 9.8 | [CVE-2024-1001](https://www.cve.org/"), "{markdown}");
}

#[test]
fn without_an_image_the_version_decides() {
    let context = TestContext::new();
    records(&context);
    let found = context.run("cve 6.1.8 --data vulns --json").ok().json();
    assert!(verdicts(&found).values().all(|verdict| verdict == "affected"), "{found}");
    assert!(found["notes"][0].as_str().unwrap().contains("by the version alone"), "{found}");
    for (version, verdict) in [("6.1.9", "fixed"), ("5.10.1", "not-introduced"), ("6.8-rc2", "undetermined")]
    {
        let found = context.run(&format!("cve {version} --data vulns --json")).ok().json();
        assert!(verdicts(&found).values().all(|found| found == verdict), "{version}: {found}");
    }
    context.run("cve 6.1 --data vulns").failed(2, &["no image of 6.1"]);
    context.build("").ok();
    let found =
        context.run("cve 6.1.8 --compiled out/firecracker-6.1.7-amd64.json --data vulns --json").ok().json();
    assert_eq!(found["counts"]["affected"], 3);
    assert!(found["notes"][0].as_str().unwrap().contains("that Linux 6.1.7 compiled"), "{found}");
}

#[test]
fn fail_on_counts_what_is_not_known() {
    let context = TestContext::new();
    record(&context, "CVE-2024-1002", &["drivers/net/dummy.c"], Some(5.5));
    record(&context, "CVE-2024-1004", &["drivers/net/wireguard/wireguard.c"], Some(9.8));
    context.build("").ok();
    let run = |more: &str| context.run(&format!("cve {BIN} --data vulns {more}"));
    run("--fail-on medium").failed(1, &["1 CVE of severity medium or higher"]);
    run("--fail-on high").ok();
    record(&context, "CVE-2024-1003", &["init/main.c"], None);
    run("--fail-on high").failed(1, &["--unscored ignore"]);
    run("--fail-on high --unscored ignore").ok();
    record(&context, "CVE-2024-1005", &["fs/smb/client/inode.c"], Some(8.0));
    run("--fail-on high --unscored ignore").failed(1, &["1 may affect it"]);
    run("--fail-on high --unscored ignore --undetermined ignore").ok();
    run("--unscored ignore").failed(2, &["--fail-on"]);
}

#[test]
fn patched_sources_are_judged_by_their_version() {
    let context = TestContext::new();
    records(&context);
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/p")).unwrap();
    fs::write(context.path("work/p/1-new.patch"), "--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n").unwrap();
    context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --patches p").ok();
    let found = context.run(&format!("cve {BIN} --data vulns --json")).ok().json();
    assert_eq!(
        found["notes"],
        json!(["1 patch was applied, but the kernel is judged as Linux 6.1.7 without them"])
    );
}

#[test]
fn openvex_documents_have_a_statement_for_each_record() {
    let context = TestContext::new();
    records(&context);
    context.build("").ok();
    let attest = context.path("work").join(format!("{BIN}-attest"));
    let kinds = || -> Vec<String> {
        let blob = |descriptor: &Value| -> Value {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            serde_json::from_slice(&fs::read(attest.join("blobs").join(digest)).unwrap()).unwrap()
        };
        let index = blob(&descriptor(&attest, "6.1.7-attest"));
        let kind = |one: &Value| blob(one)["artifactType"].as_str().unwrap().to_owned();
        index["manifests"].as_array().unwrap().iter().map(kind).collect()
    };
    let before = kinds();
    for _ in 0..2 {
        context.run(&format!("cve {BIN} --data vulns --vex k.json --attach")).ok().says("wrote k.json");
        // In place of the one before.
        assert_eq!(kinds(), [&before[..], &["application/vnd.openvex+json".to_owned()]].concat());
    }
    context.run(&format!("verify {BIN}")).ok();
    let text = fs::read_to_string(context.path("work/k.json")).unwrap();
    crate::support::schemas::assert_valid("openvex", &text);
    let document: Value = serde_json::from_str(&text).unwrap();
    let status: BTreeMap<&str, (&str, bool)> = document["statements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let has_reason = one["justification"] == "vulnerable_code_not_present";
            (one["vulnerability"]["name"].as_str().unwrap(), (one["status"].as_str().unwrap(), has_reason))
        })
        .collect();
    assert_eq!(status.len(), 7);
    assert_eq!(status["CVE-2024-1001"], ("affected", false));
    assert_eq!(status["CVE-2024-1004"], ("not_affected", true));
    assert_eq!(status["CVE-2024-1005"], ("under_investigation", false));
    let digest = descriptor(&context.path("work").join(BIN), "6.1.7")["digest"].as_str().unwrap().to_owned();
    let product = &document["statements"][0]["products"][0];
    let purl = format!("pkg:oci/firecracker-kernel-bin-amd64@{digest}?arch=amd64&tag=6.1.7");
    assert_eq!(product["@id"], purl);
    let sbom = fs::read_to_string(context.path(&format!("{NAME}.spdx.json"))).unwrap();
    assert!(sbom.contains(&purl));
    context.run("cve 6.1.8 --data vulns --vex k.json").failed(2, &["is about images"]);
}

#[test]
fn records_are_fetched_once_and_kept() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    records(&context);
    let commit = |message: &str| {
        let repo = context.path("work/vulns");
        sh(&repo, &format!("git init -q -b master . && git add -A && {COMMIT} && : {message}"));
    };
    commit("first");
    fs::create_dir(context.path("repos")).unwrap();
    fs::rename(context.path("work/vulns"), context.path("repos/vulns")).unwrap();
    let server = servers::git(context.path("repos").as_str());
    let data = format!("--data git+{}/vulns/.git", server.url);
    context.run(&format!("cve 6.1.8 {data} --offline")).failed(3, &["are not in the cache"]);
    let count = |more: &str| {
        let found = context.run(&format!("cve 6.1.8 {data} --json {more}")).ok().json();
        (found["records"]["count"].as_u64().unwrap(), found["records"]["commit"].as_str().unwrap().len())
    };
    assert_eq!(count(""), (7, 40));
    fs::rename(context.path("repos/vulns"), context.path("work/vulns")).unwrap();
    record(&context, "CVE-2024-1008", &["init/main.c"], None);
    commit("second");
    fs::rename(context.path("work/vulns"), context.path("repos/vulns")).unwrap();
    // Not asked again for a day.
    assert_eq!(count(""), (7, 40));
    assert_eq!(count("--max-age 0m"), (8, 40));
    let index = fs::read_dir(context.path("cache/cve")).unwrap().map(|entry| entry.unwrap().path());
    let index: Vec<_> = index.filter(|path| path.to_str().unwrap().contains("index-")).collect();
    // A damaged index is made anew.
    fs::write(&index[0], "{").unwrap();
    assert_eq!(count("--offline"), (8, 40));
    fs::rename(context.path("repos/vulns"), context.path("repos/moved")).unwrap();
    context.run(&format!("cve 6.1.8 {data} --max-age 0m")).ok().says("using the CVE records from the cache");
    context.run("cache check").ok();
}

#[test]
fn hostile_records_are_skipped_with_a_count() {
    let context = TestContext::new();
    record(&context, "CVE-2024-1001", &["init/main.c"], None);
    write(&context, "2024/CVE-2024-2001.json", b"{");
    write(&context, "2024/CVE-2024-2002.json", "[".repeat(200_000).as_bytes());
    write(&context, "2024/CVE-2024-2003.json", &vec![b' '; 300 << 10]);
    write(&context, "2024/CVE-2024-\u{1b}[2J.json", b"{}");
    write(&context, "2024/CVE-2024-2004.json", br#"{"dataType":"CVE_RECORD","cveMetadata":{"cveId":"CVE-2024-2004","state":"PUBLISHED"},"containers":{"cna":{"affected":[{"vendor":"x","product":"y"}]}}}"#);
    std::os::unix::fs::symlink("/dev/zero", context.path("work/vulns/cve/published/2024/CVE-2024-2005.json"))
        .unwrap();
    let check = |data: &str| {
        let result = context.run(&format!("cve 6.1.8 --data {data} --json")).ok();
        let found = result.json();
        assert_eq!(found["records"]["count"], 1, "{found}");
        let count = |reason: &str| {
            let skipped = found["records"]["skipped"].as_array().unwrap();
            skipped.iter().find(|one| one["reason"] == reason).map_or(0, |one| one["count"].as_u64().unwrap())
        };
        assert_eq!((count("invalid"), count("too-large"), count("other-product")), (3, 1, 1), "{found}");
        assert!(!result.stderr.contains('\u{1b}'), "{}", result.stderr);
    };
    check("vulns");
    if has_tool("git") {
        sh(&context.path("work/vulns"), &format!("git init -q -b master . && git add -A && {COMMIT}"));
        check("vulns");
    }
    fs::create_dir(context.path("work/empty")).unwrap();
    context.run("cve 6.1.8 --data empty").failed(3, &["has no CVE records"]);
    context.run("cve 6.1.8 --data nowhere").failed(3, &["cannot read"]);
}

#[test]
fn diff_says_which_cves_lie_between_two_kernels() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    records(&context);
    context.build("").ok();
    context.tree("6.1.9", "work/new");
    context.run("6.1.9 --fc --source new --config mini.config").ok();
    let diff = || context.run(&format!("diff {BIN}:6.1.7 {BIN}:6.1.9 --json")).ok().json();
    // Without records in the cache.
    assert_eq!(diff().get("cves"), None);
    // As `kcompile cve` keeps those of the default repository.
    context.run("cve 6.1.7 --data vulns --json").ok();
    let name = "https://git.kernel.org/pub/scm/linux/security/vulns.git#master";
    let cache = context.path("cache/cve");
    let index = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).next().unwrap();
    let index: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    let short = &crate::support::context::sha256(name.as_bytes())[..12];
    let last = json!({ "name": name, "commit": index["key"], "at": 0 });
    fs::write(cache.join(format!("fetched-{short}.json")), last.to_string()).unwrap();
    fs::write(cache.join(format!("index-{short}.json")), index.to_string()).unwrap();
    let cves = diff()["cves"].clone();
    let ids: Vec<&str> =
        cves["only_first"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["CVE-2024-1001", "CVE-2024-1002", "CVE-2024-1003"]);
    assert_eq!(cves["only_second"], json!([]));
    let text = context.run(&format!("diff {BIN}:6.1.7 {BIN}:6.1.9")).ok().stdout;
    assert!(text.contains("CVEs that affect only the first (3)\n  CVE-2024-1001: fault"), "{text}");
}
