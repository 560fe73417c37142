//! What the kernel's own build scripts can do beside building, with a kernel whose scripts try.

use crate::world::{World, skipped};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;

/// A kernel that looks around while it is built, and the port that it tries to connect to.
fn prying(world: &World) -> (TcpListener, String) {
    world.tree("6.1.7", "work/linux");
    fs::write(world.path("home/SECRET"), "in the home directory").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let args =
        format!("6.1.7 --fc --source linux --config mini.config --set MINI_PRY=y --set MINI_PRY_PORT={port}");
    (listener, args)
}

/// What it found.
fn found(world: &World) -> BTreeMap<String, String> {
    let builds = walkdir::WalkDir::new(world.path("cache/builds")).into_iter().flatten();
    let found = builds.into_iter().find(|entry| entry.file_name() == "pry.txt").unwrap();
    let text = fs::read_to_string(found.path()).unwrap();
    let fields = text.lines().map(|line| line.split_once(": ").unwrap());
    fields.map(|(name, what)| (name.to_owned(), what.to_owned())).collect()
}

fn receipt(world: &World) -> serde_json::Value {
    let text = fs::read(world.path("work/out/firecracker-6.1.7-amd64.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn the_kernels_scripts_reach_no_network_no_secret_and_no_source() {
    let mut world = World::new();
    world.env.insert("SECRET".into(), "in the environment".into());
    let (_listener, args) = prying(&world);
    let open = world.run(&format!("{args} --sandbox off")).ok();
    let all = found(&world);
    // What the fence is for: without it all this is there, but for the environment.
    assert_eq!((&*all["network"], &*all["environment"]), ("reached", "nothing"));
    assert_eq!((&*all["home"], &*all["source"]), ("in the home directory", "written"));
    assert_eq!(receipt(&world)["sandbox"]["network"], "host");

    let closed = world.run(&format!("{args} --sandbox on --rebuild --cache-dir other"));
    if closed.code == 4 {
        skipped("no namespaces: the kernel's scripts cannot be kept from the network");
        return;
    }
    let closed = closed.ok();
    fs::remove_dir_all(world.path("cache/builds")).unwrap();
    fs::rename(world.path("work/other/builds"), world.path("cache/builds")).unwrap();
    let all = found(&world);
    assert_eq!((&*all["network"], &*all["environment"]), ("none", "nothing"));
    assert_eq!((&*all["home"], &*all["source"]), ("nothing", "refused"));
    assert!(all["temporary"].starts_with(world.path("work/other/tmp").as_str()), "{all:?}");
    assert!(world.names("work/other/tmp").is_empty());
    let sandbox = receipt(&world)["sandbox"].clone();
    let told = ["network", "source", "home"].map(|field| sandbox[field].as_str().unwrap().to_owned());
    assert_eq!(told, ["none", "read-only", "private"]);
    assert_eq!(closed.digests(), open.digests());
}

#[test]
fn a_launcher_that_needs_the_network_keeps_it() {
    let world = World::new();
    let (_listener, args) = prying(&world);
    // A launcher by another name, which does nothing.
    let launcher = world.path("home/distcc");
    fs::write(&launcher, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&launcher, mode).unwrap();
    let args = format!("{args} --launcher {launcher}");
    world
        .run(&format!("{args} --sandbox on"))
        .failed(2, &["--sandbox on: ", "distcc works through the network", "--sandbox auto"]);
    world.run(&args).ok().says("no whole sandbox for the kernel's make: ");
    assert_eq!(found(&world)["network"], "reached");
    assert!(receipt(&world)["sandbox"]["why"].as_str().unwrap().contains("works through the network"));
}

#[test]
fn where_the_host_has_no_namespaces_auto_says_so_and_on_fails() {
    let world = World::new();
    let (_listener, args) = prying(&world);
    // Found first in the PATH: a host that does not let us.
    fs::write(world.path("home/unshare"), "#!/bin/sh\necho 'unshare: not here' >&2\nexit 1\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(world.path("home/unshare"), mode).unwrap();
    let with_path = |args: &str| {
        let path = format!("PATH={}:{}", world.path("home"), std::env::var("PATH").unwrap());
        world.run_by(&["env", &path], args)
    };
    with_path(&format!("{args} --sandbox on")).failed(4, &["this host does not let us: unshare: not here"]);
    with_path(&args).ok().says("no whole sandbox for the kernel's make: unshare: not here");
    assert_eq!((&*found(&world)["network"], &*found(&world)["home"]), ("reached", "nothing"));
}

#[test]
fn images_that_were_made_outside_of_it_do_not_satisfy_it() {
    let world = World::new();
    let open = world.build("--sandbox off").ok().digests();
    world.build("").ok().says("nothing to do");
    let closed = world.build("--sandbox on");
    if closed.code == 4 {
        skipped("no namespaces: there is no whole sandbox here");
        return;
    }
    let closed = closed.ok().says("Compile: done");
    assert!(!closed.stderr.contains("6.1.7, 0 steps"), "objects are no better: {}", closed.stderr);
    assert_eq!(closed.digests(), open);
    world.build("--sandbox on --rebuild").ok().says("6.1.7, 0 steps");
    world.build("--sandbox on").ok().says("nothing to do");
}

/// What `uname` and `hostname` say is in no image.
#[test]
fn another_host_makes_the_same_bytes() {
    let world = World::new();
    let digests = world.build("").ok().digests();
    let ways: [&[&str]; 2] = [
        &[
            "unshare",
            "--user",
            "--map-root-user",
            "--uts",
            "sh",
            "-c",
            "hostname elsewhere && exec \"$0\" \"$@\"",
        ],
        &["setarch", "--uname-2.6"],
    ];
    for way in ways {
        let tried = std::process::Command::new(way[0]).args(&way[1..]).arg("true").output();
        if !tried.is_ok_and(|it| it.status.success()) {
            skipped(&format!("{} does not work here", way[0]));
            continue;
        }
        let args = "6.1.7 --fc --source linux --config mini.config --cache-dir other -o other --rebuild";
        assert_eq!(world.run_by(way, args).ok().digests(), digests);
        kcompile::internals::remove_tree(&world.path("work/other")).unwrap();
    }
}
