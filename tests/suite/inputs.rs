//! What decides the bytes of an image is in its plan, or is refused: nothing reaches a kernel unseen.

use crate::servers;
use crate::sources::{commit, repository, sh};
use crate::world::{World, have};
use std::fs;

#[test]
fn the_users_git_config_does_not_decide_where_a_source_comes_from() {
    if !have("git") {
        return;
    }
    let world = World::new();
    let asked = repository(&world);
    crate::world::copy(&asked, &world.path("elsewhere/linux"));
    let other = world.path("elsewhere/linux");
    sh(&other, "echo other >> COPYING; git add COPYING");
    commit(&other);
    let (here, elsewhere) =
        (servers::git(world.path("repos").as_str()), servers::git(world.path("elsewhere").as_str()));
    let fetch = format!("fetch 6.1.7 --ch --source git+{}/linux/.git", here.url);
    let plain = world.run(&format!("{fetch} --cache-dir plain")).ok();
    // Another server in its place; a proxy that is not there.
    let rewritten = format!("[url \"{}/\"]\n\tinsteadOf = {}/\n", elsewhere.url, here.url);
    for (cache, config) in [("rewritten", &*rewritten), ("proxy", "[http]\n\tproxy = http://127.0.0.1:1\n")] {
        fs::write(world.path("home/.gitconfig"), config).unwrap();
        let fetched = world.run(&format!("{fetch} --cache-dir {cache}")).ok();
        assert_eq!(fetched.digests(), plain.digests(), "{config}");
    }
    assert!(elsewhere.log.lock().unwrap().is_empty());
}
