//! A layer is a list of entries, `d PATH`, `f PATH`, `l PATH -> TARGET`, `h PATH -> ENTRY` or `c PATH`.

use super::*;
use crate::oci::layer_entries::Attributes;

fn entries(lines: &str) -> Vec<LayerEntry> {
    let entry = |line: &str| {
        let (kind, path) = line.split_once(' ').unwrap();
        let (path, to) = path.split_once(" -> ").unwrap_or((path, ""));
        let kind = match kind {
            "d" => EntryKind::Dir,
            "f" => EntryKind::File,
            "l" => EntryKind::SymLink(to.to_owned()),
            "h" => EntryKind::HardLink(to.to_owned()),
            _ => EntryKind::Special,
        };
        LayerEntry { path: path.to_owned(), kind, size: 0, attributes: Attributes::default() }
    };
    lines.split(", ").filter(|line| !line.is_empty()).map(entry).collect()
}

fn merged(layers: &[&str]) -> Result<RootFs, String> {
    let layers: Vec<Vec<LayerEntry>> = layers.iter().map(|lines| entries(lines)).collect();
    RootFs::merge(layers.iter().map(Vec::as_slice))
}

/// Returns all nodes as `path/`, `path=LAYER.ENTRY` or `path->TARGET`.
fn listing(layers: &[&str]) -> String {
    let root = merged(layers).unwrap();
    let one = |(path, node): (&str, &Node)| match node {
        Node::Dir => format!("{path}/"),
        Node::File(id) => format!("{path}={}.{}", id.layer, id.entry),
        Node::SymLink(to) => format!("{path}->{to}"),
        Node::Special => format!("{path}!"),
    };
    root.nodes().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_upper_entry_replaces_a_lower_one() {
    assert_eq!(listing(&["d a, f a/b", "f a/b"]), "a/ a/b=1.0");
    assert_eq!(listing(&["d a, f a/b", "d a, f a/c"]), "a/ a/b=0.1 a/c=1.1", "directories are merged");
    assert_eq!(listing(&["d a, f a/b", "f a"]), "a=1.0", "a file in the place of a directory");
    assert_eq!(listing(&["f a", "d a, f a/b"]), "a/ a/b=1.1");
    assert_eq!(listing(&["f a", "l a -> b"]), "a->b");
    assert_eq!(listing(&["l a -> b", "d a"]), "a/", "a directory replaces a link to one");
    assert_eq!(listing(&["f a/b/c", "c a/b/c"]), "a/ a/b/ a/b/c!", "directories without entries are made");
}

#[test]
fn whiteouts_hide_only_what_lower_layers_have() {
    assert_eq!(listing(&["f a, f b", "f .wh.a"]), "b=0.1");
    assert_eq!(listing(&["d a, f a/b, f a/c/d, f ab", "f .wh.a"]), "ab=0.3", "with all that is in it");
    for order in ["f .wh.a, f a", "f a, f .wh.a"] {
        assert!(listing(&["f a", order]).starts_with("a=1."), "{order}");
    }
    for order in ["f .wh.a, d a, f a/new", "d a, f a/new, f .wh.a"] {
        assert!(listing(&["d a, f a/old", order]).starts_with("a/ a/new=1."), "{order}");
    }
    for order in ["f a/.wh..wh..opq, f a/new", "f a/new, f a/.wh..wh..opq"] {
        let made = listing(&["d a, f a/old, f a/b/old", order]);
        assert!(made.starts_with("a/ a/new=1.") && !made.contains("old"), "{made}");
    }
    assert_eq!(listing(&["f a/b/old", "f a/b/new, f a/.wh..wh..opq"]), "a/ a/b/ a/b/new=1.0");
    assert_eq!(listing(&["f a", "f .wh.a", "f a"]), "a=2.0", "and comes again");
    assert_eq!(listing(&["f .wh.a, f a", ""]), "a=0.1", "nothing is below the lowest");
    assert_eq!(listing(&["f a", "f .wh..wh.plnk, f gone/.wh.a"]), "a=0.0", "of aufs, or of nothing");
    assert_eq!(listing(&["f usr/lib/a, l lib -> usr/lib", "f lib/.wh.a"]), "lib->usr/lib usr/ usr/lib/");
}

#[test]
fn parents_are_found_through_links() {
    assert_eq!(
        listing(&["d usr/lib, l lib -> usr/lib", "f lib/a"]),
        "lib->usr/lib usr/ usr/lib/ usr/lib/a=1.0"
    );
    assert_eq!(listing(&["d x, l a -> /x", "f a/b"]), "a->/x x/ x/b=1.0", "absolute: from the root");
    assert_eq!(
        listing(&["d x, l d/a -> ../../../x", "f d/a/b"]),
        "d/ d/a->../../../x x/ x/b=1.0",
        "never above it"
    );
    assert_eq!(listing(&["l a -> b/c", "f a/d"]), "a->b/c b/ b/c/ b/c/d=1.0", "what it leads to is made");
    assert!(merged(&["f a, f a/b"]).unwrap_err().contains("a/b is in a, which is not a directory"));
    assert!(merged(&["l a -> b, l b -> a, f a/c"]).unwrap_err().contains("too many names or links"));
    let deep = format!("f {}x", "a/".repeat(MAX_STEPS + 1));
    assert!(merged(&[&deep]).unwrap_err().contains("too many names or links"));
}

#[test]
fn hard_links_reach_lower_layers() {
    assert_eq!(listing(&["f a", "h b -> a"]), "a=0.0 b=0.0");
    assert_eq!(listing(&["f a", "h b -> a, f .wh.a"]), "b=0.0", "its bytes stay under the other name");
    assert_eq!(listing(&["f a", "h b -> a", "f a"]), "a=2.0 b=0.0");
    assert_eq!(
        listing(&["f usr/a, l x -> usr, l s -> t", "h b -> x/a, h c -> s"]),
        "b=0.0 c->t s->t usr/ usr/a=0.0 x->usr"
    );
    let root = merged(&["d d", "h a -> gone, h b -> d"]).unwrap();
    assert_eq!(root.dangling(), [("a".into(), "gone".into()), ("b".into(), "d".into())]);
    let root = merged(&["f a, f c", "h b -> a, f .wh.c"]).unwrap();
    assert_eq!(root.files(), [(FileId { layer: 0, entry: 0 }, vec!["a", "b"])].into());
}

#[test]
fn two_entries_of_a_layer_for_one_path_are_refused() {
    for invalid in ["d x, l a -> x, f x/b, f a/b", "f a/b, f a", "d a, l a -> b", "f a, h a -> a"] {
        let error = merged(&[invalid]).unwrap_err();
        assert!(error.contains("of the same layer"), "{invalid}: {error}");
    }
    assert_eq!(listing(&["d a, f a/b, d a"]), "a/ a/b=0.1", "directories are written twice by some tools");
    assert!(merged(&["f .wh."]).unwrap_err().contains("a whiteout without a name"));
}

#[test]
fn paths_are_resolved_as_after_chroot() {
    let root =
        merged(&["f boot/k, l bin/k -> ../boot/k, l x -> /bin, l loop -> loop, l up -> ../../bin, c dev"])
            .unwrap();
    let file = Node::File(FileId { layer: 0, entry: 0 });
    for path in ["boot/k", "bin/k", "x/k", "up/k", "/x/../bin//./k"] {
        assert_eq!(root.resolve(path), Target::Found("boot/k".into(), &file), "{path}");
    }
    assert_eq!(root.resolve(""), Target::Found(String::new(), &Node::Dir));
    assert_eq!(root.resolve("bin"), Target::Found("bin".into(), &Node::Dir));
    assert_eq!(root.resolve("x/none/k"), Target::Missing("bin/none".into()));
    assert_eq!(root.resolve("boot/k/x"), Target::NotADirectory("boot/k".into()));
    assert_eq!(root.resolve("loop"), Target::TooLong);
}

#[test]
fn the_number_of_paths_is_bounded() {
    let deep = |name: usize| format!("f {}{name}", format!("{name}/").repeat(200));
    let layers: Vec<String> = (0..2100).map(deep).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    assert!(merged(&layers).unwrap_err().contains("more than 400000 paths"));
}
