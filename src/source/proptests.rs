//! Properties of the unpacker, tested with many random archives.

use super::archive::{HardLinks, unpack_tar};
use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use tar::EntryType;
use walkdir::WalkDir;

/// An entry of an archive, which may be malicious.
#[derive(Clone, Debug)]
struct Entry {
    path: String,
    kind: EntryType,
    link: String,
    content: Vec<u8>,
    mode: u32,
}

/// Writes raw entries, since the tar crate's writer would refuse some of these names.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        let size = if entry.kind.is_file() { entry.content.len() } else { 0 };
        header.set_size(size as u64);
        header.set_mode(entry.mode);
        header.set_entry_type(entry.kind);
        let bytes = header.as_mut_bytes();
        let path = entry.path.as_bytes();
        bytes[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
        let link = entry.link.as_bytes();
        bytes[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_cksum();
        tar.append(&header, &entry.content[..size]).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Names that often collide, and names that try to leave the tree.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[abc]{1,2}",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => "[ -~]{1,8}",
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let path = prop::collection::vec(part(), 1..5).prop_map(|parts| parts.join("/"));
    let path = (path, prop::bool::weighted(0.85))
        .prop_map(|(path, is_inside)| if is_inside { format!("linux/{path}") } else { path });
    let kind = prop_oneof![
        5 => Just(EntryType::Regular),
        3 => Just(EntryType::Directory),
        3 => Just(EntryType::Symlink),
        1 => Just(EntryType::Link),
        1 => Just(EntryType::Fifo),
        1 => Just(EntryType::Char),
        1 => Just(EntryType::XHeader),
        1 => Just(EntryType::GNULongName),
        1 => Just(EntryType::GNUSparse),
    ];
    let link = prop_oneof![
        2 => prop::collection::vec(part(), 1..5).prop_map(|parts| parts.join("/")),
        1 => Just("/".to_owned()),
        1 => Just("../../outside".to_owned()),
    ];
    (path, kind, link, prop::collection::vec(any::<u8>(), 0..40), 0u32..0o10000)
        .prop_map(|(path, kind, link, content, mode)| Entry { path, kind, link, content, mode })
}

/// Creates a directory with a file outside of the future tree.
fn place() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    fs::create_dir(path.join("in")).unwrap();
    fs::write(path.join("outside"), "as it was").unwrap();
    fs::set_permissions(path.join("outside"), fs::Permissions::from_mode(0o640)).unwrap();
    (dir, path)
}

fn unpack(archive: &[u8], dir: &Utf8Path) -> crate::util::error::Result<()> {
    unpack_tar("x.tar", &mut &archive[..], &dir.join("in/linux"), HardLinks::Refuse, |_| {}).map(|_| ())
}

/// Checks that nothing outside of the tree was created or changed. In the tree, others can write no file, no
/// file is setuid, and no link leads outside.
fn check_outside(dir: &Utf8Path) {
    assert_eq!(fs::read_to_string(dir.join("outside")).unwrap(), "as it was");
    assert_eq!(fs::metadata(dir.join("outside")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
    assert!(fs::read_dir(dir.join("in")).unwrap().all(|entry| entry.unwrap().file_name() == "linux"));
    for entry in WalkDir::new(dir.join("in")).min_depth(1) {
        let entry = entry.unwrap();
        let kind = entry.file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink());
        if kind.is_symlink() {
            let target = entry.path().parent().unwrap().join(fs::read_link(entry.path()).unwrap());
            if let Ok(target) = target.canonicalize() {
                assert!(target.starts_with(dir.join("in/linux").canonicalize().unwrap()), "{target:?}");
            }
        } else if kind.is_file() {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o7022, 0);
        }
    }
}

/// Read-only directories cannot be removed by an ordinary user.
fn clear(dir: &Utf8Path) {
    crate::util::fs::remove_tree(&dir.join("in")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_archive_writes_outside_its_tree(entries in prop::collection::vec(any_entry(), 0..12)) {
        let (_dir, path) = place();
        let _ = unpack(&archive(&entries), &path);
        check_outside(&path);
        clear(&path);
    }

    #[test]
    fn no_damage_makes_it_write_outside_or_panic(
        entries in prop::collection::vec(any_entry(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (_dir, path) = place();
        let mut archive = archive(&entries);
        for (place, byte) in damage {
            let place = place.index(archive.len());
            archive[place] = byte;
        }
        let _ = unpack(&archive, &path);
        check_outside(&path);
        clear(&path);
    }
}

/// Trees like those of kernels: directories, files, links inside, names of every length.
fn valid_tree() -> impl Strategy<Value = Vec<(Vec<String>, Option<Vec<u8>>)>> {
    let name = prop_oneof![8 => "[a-z_]{1,12}", 1 => "[a-z]{101,140}", 1 => "[a-zäöü +,=@-]{1,20}"];
    let path = prop::collection::vec(name, 1..6);
    prop::collection::vec((path, prop::option::of(prop::collection::vec(any::<u8>(), 0..2000))), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_archives_unpack_as_with_gnu_tar(tree in valid_tree(), format in prop::sample::select(vec!["gnu", "pax", "ustar"])) {
        let (_dir, path) = place();
        let source = path.join("source/linux-1.0");
        fs::create_dir_all(&source).unwrap();
        for (parts, content) in &tree {
            let file = source.join(parts.join("/"));
            // A file may have the name of a directory, or the other way round.
            if fs::create_dir_all(file.parent().unwrap()).is_ok() && file.symlink_metadata().is_err() {
                match content {
                    Some(content) => fs::write(&file, content).unwrap(),
                    None => std::os::unix::fs::symlink("target", &file).unwrap(),
                }
            }
        }
        let tar = |args: &[&str], input: &[u8]| {
            let mut child = Command::new("tar").args(args).current_dir(path.join("source")).env("LC_ALL", "C.UTF-8")
                .stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let input = input.to_vec();
            let writing = std::thread::spawn(move || { let _ = stdin.write_all(&input); });
            let output = child.wait_with_output().unwrap();
            writing.join().unwrap();
            (output.status.success(), output.stdout)
        };
        let (made, bytes) = tar(&["--create", "--file=-", &format!("--format={format}"), "linux-1.0"], b"");
        // The old format does not support every name.
        prop_assume!(made);
        let (_, list) = tar(&["--list", "--file=-", "--quoting-style=literal"], &bytes);
        let listed: BTreeSet<String> = String::from_utf8(list).unwrap().lines()
            .map(|line| line.trim_end_matches('/').to_owned()).collect();
        unpack_tar("x.tar", &mut &bytes[..], &path.join("in/linux"), HardLinks::Refuse, |_| {}).unwrap().0.finish().unwrap();
        let unpacked: BTreeSet<String> = WalkDir::new(path.join("in/linux")).into_iter().map(|entry| {
            let entry = entry.unwrap();
            let inside = entry.path().strip_prefix(path.join("in/linux")).unwrap().to_str().unwrap().to_owned();
            format!("linux-1.0/{inside}").trim_end_matches('/').to_owned()
        }).collect();
        prop_assert_eq!(&unpacked, &listed);
        for entry in WalkDir::new(&source).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
            let inside = entry.path().strip_prefix(&source).unwrap();
            let copy = path.join("in/linux").as_std_path().join(inside);
            prop_assert_eq!(fs::read(entry.path()).unwrap(), fs::read(copy).unwrap());
        }
        fs::remove_dir_all(path.join("source")).unwrap();
        clear(&path);
    }
}
