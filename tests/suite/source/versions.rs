//! Versions as series, channels and ends of life.

use crate::support::context::TestContext;
use crate::support::servers::{self, Server, respond};
use std::fs;

const DIR: &str = "/pub/linux/kernel/v6.x";

const RELEASES: &str = r#"{"latest_stable": {"version": "6.17.8"}, "releases": [
    {"iseol": false, "version": "6.18-rc6", "moniker": "mainline"},
    {"iseol": false, "version": "6.17.8", "moniker": "stable"},
    {"iseol": true, "version": "6.16.12", "moniker": "stable"},
    {"iseol": false, "version": "6.12.58", "moniker": "longterm"},
    {"iseol": false, "version": "6.1.7", "moniker": "longterm"}]}"#;

/// Returns a mirror with releases.json, a listing and these versions.
fn mirror(context: &TestContext, versions: &[&str]) -> Server {
    let mut files = vec![("/releases.json".to_owned(), RELEASES.as_bytes().to_vec())];
    let mut listing = "<html><a href=\"../\">../</a>".to_owned();
    for version in versions {
        let suffix = if version.contains("-rc") { "gz" } else { "xz" };
        let bytes = fs::read(context.tarball(version, suffix)).unwrap();
        let path = match suffix {
            "gz" => format!("/torvalds/t/linux-{version}.tar.gz"),
            _ => format!("{DIR}/linux-{version}.tar.xz"),
        };
        listing.push_str(&format!("<a href=\"linux-{version}.tar.xz\">linux-{version}.tar.xz</a>\n"));
        files.push((path, bytes));
    }
    files.push((format!("{DIR}/"), listing.into_bytes()));
    servers::files(files)
}

#[test]
fn channels_resolve_by_releases_json() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.17.8", "6.12.58", "6.1.7"]);
    for (channel, version) in [("latest", "6.17.8"), ("longterm", "6.12.58")] {
        let ran = context.run(&format!("fetch {channel} --fc --mirror {}", server.url)).ok();
        assert!(ran.stdout.contains(&format!(" {version} sha256:")), "{}", ran.stdout);
        assert!(
            ran.stderr.contains(&format!("{channel} is Linux {version}, according to the releases.json of ")),
            "{}",
            ran.stderr
        );
    }
    let plan = context.run(&format!("plan mainline --ch --mirror {}", server.url)).ok();
    assert!(plan.stdout.contains("Linux 6.18-rc6 for Cloud Hypervisor"), "{}", plan.stdout);
    assert!(plan.stdout.contains("linux-6.18-rc6.tar.gz"), "{}", plan.stdout);
    assert!(plan.stdout.contains(&format!("from {}", server.url)), "{}", plan.stdout);
    // kernel.org's file server has no release candidates.
    let candidate = context.run("plan 6.18-rc6 --fc").ok().stdout;
    assert!(candidate.contains("from https://git.kernel.org\n"), "{candidate}");
    let release = context.run("plan 6.17.8 --fc").ok().stdout;
    assert!(release.contains("from https://cdn.kernel.org\n"), "{release}");
    let asked = server.log.lock().unwrap().iter().filter(|line| line.contains("releases.json")).count();
    assert_eq!(asked, 2, "once without a cache, once for the cache");
    assert!(context.run("fetch latest --fc --offline").failed(3, &["not in the cache"]).stdout.is_empty());
    assert!(
        context
            .run(&format!("fetch latest --fc --offline --mirror {}", server.url))
            .ok()
            .stdout
            .contains("6.17.8")
    );
    context
        .run("fetch latest --fc --mirror http://127.0.0.1:1")
        .failed(3, &["cannot fetch http://127.0.0.1:1/releases.json"]);
}

#[test]
fn a_series_is_looked_up_in_its_directory() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.2.9", "6.2.16", "6.16.12"]);
    let fetch = |series: &str| context.run(&format!("fetch {series} --fc --mirror {}", server.url)).ok();
    assert!(fetch("6.1").stdout.contains(" 6.1.7 "));
    // Not in releases.json any more, but in the directory.
    assert!(fetch("6.2").stdout.contains(" 6.2.16 "));
    assert!(
        fetch("6.16").says("warning: Linux 6.16 has reached its end of life").stdout.contains(" 6.16.12 ")
    );
}

#[test]
fn a_cached_release_list_works_without_the_server() {
    let context = TestContext::new();
    let server = servers::serve(|request, stream| match request.path.as_str() {
        "/releases.json" => respond(stream, "200 OK", &[], RELEASES.as_bytes()),
        _ => respond(stream, "404 Not Found", &[], b""),
    });
    context.run(&format!("fetch latest --fc --mirror {}", server.url)).failed(3, &["HTTP status 404"]);
    context
        .run(&format!("fetch latest --fc --mirror {}", server.url))
        .failed(3, &["according to the releases.json of "]);
    let lists = context.names("cache/releases");
    let path = context.path(&format!("cache/releases/{}", lists[0]));
    fs::write(&path, "<html>").unwrap();
    context
        .run(&format!("fetch latest --fc --mirror {}", server.url))
        .failed(3, &["releases.json is not a list of kernel releases"]);
}

#[test]
fn end_of_life_series_are_warned_about_with_their_date() {
    let context = TestContext::new();
    context.tree("5.12.19", "work/linux");
    context
        .run("5.12.19 --fc --source linux --config mini.config")
        .ok()
        .says("warning: Linux 5.12 has reached its end of life (2021-07-20)");
}

#[test]
fn series_that_ended_after_the_build_are_warned_about() {
    let context = TestContext::new();
    fs::create_dir(context.path("work/own")).unwrap();
    let ends = |day: &str| {
        let series = format!("[[series]]\nseries = \"6.1\"\nend_of_life = \"{day}\"\n");
        fs::write(context.path("work/own/kernels.toml"), series).unwrap();
    };
    ends("2999-12-31");
    assert!(!context.build("--configs own").ok().stderr.contains("end of life"));
    ends("2020-02-29");
    let again = context.build("--configs own").ok().says("nothing to do");
    again.says("warning: Linux 6.1 has reached its end of life (2020-02-29)");
}

#[test]
fn release_candidates_have_no_signature() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.18-rc6"]);
    let args = format!("fetch 6.18-rc6 --fc --mirror {}", server.url);
    context.run(&format!("{args} --require-signature")).failed(
        3,
        &["nobody signs linux-6.18-rc6.tar.gz, and neither the catalog nor kcompile.lock pins it"],
    );
    context
        .run(&args)
        .ok()
        .says("not verified: linux-6.18-rc6.tar.gz")
        .says("nobody signs release candidates");
}
