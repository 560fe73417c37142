//! `cache check` finds and removes what a broken disk left, and keeps what is intact.

use crate::support::context::TestContext;
use crate::support::downloads::{answer_range, archive_server};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

fn found(context: &TestContext, code: i32) -> BTreeSet<(String, String)> {
    let ran = context.run("doctor --cache --json");
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    let checkup: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let found = checkup["items"].as_array().unwrap().iter();
    let text = |one: &serde_json::Value, field: &str| one[field].as_str().unwrap().to_owned();
    let root = format!("{}/", context.path("cache"));
    found.map(|one| (text(one, "what"), text(one, "path").replace(&root, ""))).collect()
}

#[test]
fn damaged_cache_entries_are_found_and_removed() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = archive_server(&bytes, |_, request, stream, bytes| answer_range(request, stream, bytes));
    let args = format!("6.1.7 --fc --config mini.config --mirror {}", server.url);
    let digests = context.run(&args).ok().digests();
    context.build("-o elsewhere").ok();
    assert_eq!(found(&context, 0), BTreeSet::new());
    let whole = context.snapshot("cache");
    context.run("doctor --cache").ok();
    assert_eq!(context.snapshot("cache"), whole);

    let cache = |name: &str| context.path("cache").join(name);
    let archive = context.names("cache/archives").into_iter().find(|name| !name.contains('.')).unwrap();
    let tree = context.names("cache/trees").remove(0);
    let [history, images] = ["history", "images"].map(|dir| context.names(&format!("cache/{dir}")));
    // A changed byte of an archive, half a record, half a tree, a changed file of a tree, and
    // abandoned work.
    let mut bytes = fs::read(cache("archives").join(&archive)).unwrap();
    bytes[100] ^= 1;
    fs::write(cache("archives").join(&archive), bytes).unwrap();
    fs::write(cache("known/question.json"), "{\"question\":").unwrap();
    fs::write(cache("history").join(&history[0]), "").unwrap();
    fs::remove_file(cache("images").join(&images[0]).join("record.json")).unwrap();
    fs::create_dir_all(cache("trees/sha256-half/linux")).unwrap();
    fs::create_dir_all(cache("git/broken")).unwrap();
    fs::write(cache("tmp/stray"), "x").unwrap();
    let readme = cache("trees").join(&tree).join("linux/README");
    let mut mode = fs::metadata(&readme).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o644);
    fs::set_permissions(&readme, mode).unwrap();
    fs::write(&readme, "other").unwrap();
    let unfinished = cache("releases/.tmp-abc");
    let old = SystemTime::now() - Duration::from_secs(120);
    File::create(&unfinished).unwrap().set_modified(old).unwrap();
    File::create(cache("releases/.tmp-new")).unwrap();
    // The source of a build in place.
    kcompile::internals::remove_tree(&context.path("work/linux")).unwrap();

    let all = found(&context, 0);
    let what: Vec<&str> = all.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        what,
        [
            "archive without its record, or record without its archive",
            "build of a removed source",
            "damaged archive",
            "damaged record",
            "damaged record",
            "damaged source tree",
            "incomplete git repository",
            "incomplete source tree",
            "incomplete temporary file",
            "packed images without their record",
            "unknown file",
        ]
    );
    assert!(all.iter().all(|(_, path)| !cache(path).exists()), "{all:?}");
    assert!(cache("releases/.tmp-new").exists(), "somebody may be writing it");
    assert_eq!(found(&context, 0), BTreeSet::new());
    assert_eq!(context.run(&args).ok().digests(), digests);

    fs::write(cache("kcompile.lock"), "nonsense").unwrap();
    let left = context.run("doctor --cache");
    assert_eq!(left.code, 1);
    assert!(left.stdout.contains("DAMAGED") && left.stdout.contains("kcompile.lock"), "{}", left.stdout);
    assert!(cache("kcompile.lock").exists());
}

#[test]
fn cache_entries_of_a_newer_version_are_kept() {
    let context = TestContext::new();
    let server = crate::support::servers::mirror(&context, &["6.1.7"]);
    context.run(&format!("fetch 6.1.7 --fc --mirror {}", server.url)).ok();
    let change = |path: &str, change: fn(&mut serde_json::Value)| {
        let path = context.path(path);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
    };
    let tree = format!("cache/trees/{}", context.names("cache/trees")[0]);
    change(&format!("{tree}/source.json"), |source| {
        source["new"] = 1.into();
        source["checks"][0]["link"] = "transparency-log".into();
        source["checks"][0]["outcome"] = "witnessed".into();
    });
    let record = context.names("cache/archives").into_iter().find(|name| name.ends_with(".json")).unwrap();
    change(&format!("cache/archives/{record}"), |record| {
        record["new"] = 1.into();
        record["proofs"]["sums"] = "witnessed".into();
    });
    let before = ["cache/trees", "cache/archives"].map(|dir| context.snapshot(dir));
    context.run("doctor --cache").ok();
    context.run("fetch 6.1.7 --fc --offline").ok();
    assert_eq!(["cache/trees", "cache/archives"].map(|dir| context.snapshot(dir)), before);
}
