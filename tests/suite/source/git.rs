//! Git sources, with branches, commits and pins in the lock file.

use crate::support::context::{TestContext, has_tool};
use crate::support::git::{COMMIT, repository, sh};
use crate::support::servers;
use std::fs;
use std::process::Command;

#[test]
fn a_branch_is_fetched_to_depth_one() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let source = format!("--source git+{}/linux/.git", server.url);
    let ran = context.run(&format!("6.1.7 --ch --config mini.config {source}")).ok().says("unencrypted");
    assert!(ran.stdout.starts_with("out/cloudhypervisor-kernel-bin-amd64:6.1.7 "), "{}", ran.stdout);
    let repo = context.path(&format!("cache/git/{}", context.names("cache/git")[0]));
    assert_eq!(fs::read_to_string(repo.join("shallow")).unwrap().lines().count(), 1);
    let receipt = fs::read_to_string(context.path("work/out/cloudhypervisor-6.1.7-amd64.json")).unwrap();
    assert!(receipt.contains("\"digest\": \"commit:") && receipt.contains("1700000000"), "{receipt}");
    context.run(&format!("fetch 6.1.8 --ch {source}")).failed(
        3,
        &[
            "has no branch or tag `ch-6.1.8`",
            "hint: name a branch, a tag or a commit with git+URL#REF; without #REF it is `ch-VERSION`",
            "for example, ch-6.1.7, other",
        ],
    );
    context.run(&format!("fetch 6.1.7 --ch {source}#other")).ok();
    assert!(context.run(&format!("fetch 6.1.7 --ch {source} --offline")).ok().stdout.contains("commit:"));
    context
        .run("fetch 6.1.7 --ch --source git+http://127.0.0.1:1/x")
        .failed(3, &["cannot fetch http://127.0.0.1:1/x#ch-6.1.7"]);
}

#[test]
fn a_branch_that_moves_is_refused_until_it_is_accepted() {
    if !has_tool("git") {
        return;
    }
    let mut context = TestContext::new();
    let repo = repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let source = format!("--source git+{}/linux/.git", server.url);
    let fetch = format!("fetch 6.1.7 --ch {source}");
    let first = context.run(&fetch).ok();
    let commit = first.digests()[0].trim_start_matches("commit:").to_owned();
    let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
    assert!(lock.contains(&format!("/linux/.git#ch-6.1.7\"\ndigest = \"commit:{commit}\"")), "{lock}");
    // Another history under the same name.
    sh(
        &repo,
        &format!(
            "git checkout -q --orphan forced && echo forced >README && git add . && {COMMIT} && git branch -f ch-6.1.7"
        ),
    );
    context
        .run(&fetch)
        .failed(3, &["#ch-6.1.7 has moved: kcompile.lock pins the commit", &commit, "with --update-lock"]);
    assert_eq!(context.run(&format!("{fetch} --offline")).ok().digests(), first.digests());
    let second = context.run(&format!("{fetch} --update-lock")).ok();
    assert_ne!(second.digests(), first.digests());
    assert_eq!(context.run(&fetch).ok().digests(), second.digests());
    // A full commit id never moves, so it needs no server once it is cached.
    let pinned = context.run(&format!("{fetch}#{commit} --require-signature")).ok();
    assert_eq!(pinned.digests(), first.digests());
    context
        .run(&format!("{fetch} --require-signature --cache-dir new"))
        .failed(3, &["nobody signs", "pins it"]);
    // Without the repository, the commit of the lock file is in the cache.
    fs::rename(context.path("repos/linux"), context.path("repos/gone")).unwrap();
    let gone = context.run(&fetch).ok().says("cannot fetch").says("using the commit that kcompile.lock pins");
    assert_eq!(gone.digests(), second.digests());
    context.run(&format!("{fetch} --cache-dir new")).failed(3, &["cannot fetch", "/linux/.git#ch-6.1.7"]);
    context.env.insert("https_proxy".into(), "http://127.0.0.1:1".into());
    context
        .run("fetch 6.1.7 --ch --source git+https://127.0.0.1:2/x")
        .failed(3, &["cannot fetch https://127.0.0.1:2/x#ch-6.1.7"]);
}

#[test]
fn a_full_commit_id_is_never_a_branch_name() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let repo = repository(&context);
    let commit = Command::new("git").args(["rev-parse", "ch-6.1.7"]).current_dir(&repo).output().unwrap();
    let commit = String::from_utf8(commit.stdout).unwrap().trim().to_owned();
    sh(
        &repo,
        &format!(
            "git config uploadpack.allowAnySHA1InWant true && echo other >README && git add . && {COMMIT} && \
             git update-ref refs/heads/{commit} HEAD && git update-ref refs/tags/{commit} HEAD"
        ),
    );
    let server = servers::git(context.path("repos").as_str());
    let source = format!("git+{}/linux/.git#{commit}", server.url);
    let fetched = context.run(&format!("fetch 6.1.7 --ch --source {source} --require-signature")).ok();
    assert_eq!(fetched.digests(), [format!("commit:{commit}")]);
    // Neither is one in the lock file.
    let other =
        context.run(&format!("fetch 6.1.7 --ch --source git+{}/linux/.git#ch-6.1.7", server.url)).ok();
    let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
    let locked = format!("#{commit}\"\ndigest = ");
    let wrong =
        lock.replace(&format!("{locked}\"commit:{commit}\""), &format!("{locked}\"{}\"", other.digests()[0]));
    assert_ne!(wrong, lock);
    fs::write(context.path("cache/kcompile.lock"), wrong).unwrap();
    context
        .run(&format!("fetch 6.1.7 --ch --source {source}"))
        .failed(3, &["has changed since its first use", "found commit:", "hint: "]);
}

#[test]
fn a_commit_is_cached_apart_from_its_branch() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let repo = repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let fetch = format!("fetch 6.1.7 --ch --source git+{}/linux/.git", server.url);
    let first = context.run(&format!("{fetch}#ch-6.1.7")).ok().digests();
    sh(&repo, &format!("git checkout -q ch-6.1.7 && echo other >README && git add . && {COMMIT}"));
    let second = context.run(&format!("{fetch}#ch-6.1.7 --update-lock")).ok().digests();
    assert_ne!(first, second);
    // The branch has moved, which does not affect the commit.
    let commit = first[0].strip_prefix("commit:").unwrap();
    assert_eq!(context.run(&format!("{fetch}#{commit}")).ok().digests(), first);
    assert_eq!(context.run(&format!("{fetch}#ch-6.1.7")).ok().digests(), second);
}

#[test]
fn a_source_of_the_wrong_version_is_not_pinned() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    repository(&context);
    let server = servers::git(context.path("repos").as_str());
    context
        .run(&format!("fetch 6.1.8 --ch --source git+{}/linux/.git#ch-6.1.7", server.url))
        .failed(2, &["the source is Linux 6.1.7, but 6.1.8 was requested"]);
    assert!(!context.path("cache/kcompile.lock").exists());
}

#[test]
fn git_servers_that_ask_for_a_login_fail_without_a_prompt() {
    let context = TestContext::new();
    let asking = servers::serve(|_, stream| {
        servers::respond(stream, "401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], b"");
    });
    context
        .run(&format!("fetch 6.1.7 --ch --source git+{}/x.git", asking.url))
        .failed(3, &["/x.git#ch-6.1.7", "asks for a login, and kcompile never prompts"]);
}

#[test]
fn a_local_repository_is_read_in_place() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let repo = repository(&context);
    // The work tree is ignored.
    fs::write(repo.join("Makefile"), "broken").unwrap();
    context.run(&format!("6.1.7 --ch --config mini.config --source git+{repo}")).ok();
    assert!(context.names("cache/git").is_empty());
    context
        .run(&format!("fetch 6.1.7 --ch --source git+{repo}#nowhere"))
        .failed(3, &["has no branch or tag `nowhere`", "hint: name a branch, a tag or a commit"]);
    context
        .run(&format!("fetch 6.1.8 --ch --source git+{repo}"))
        .failed(3, &["has no branch or tag `ch-6.1.8`", "without #REF it is `ch-VERSION`"]);
}
