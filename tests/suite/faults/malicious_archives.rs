//! Damaged and malicious archives from a server that lists their checksums.

use crate::support::context::{RunResult, TestContext, compress, has_tool, sha256, tar_of};
use crate::support::servers;
use crate::support::tls::Tls;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tar::EntryType;

const DIR: &str = "/pub/linux/kernel/v6.x";

/// Fetches 6.1.7 from a server that sends these bytes.
fn fetch(context: &TestContext, bytes: &[u8]) -> RunResult {
    let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(bytes));
    let server = servers::files([
        (format!("{DIR}/linux-6.1.7.tar.xz"), bytes.to_vec()),
        (format!("{DIR}/sha256sums.asc"), list.into_bytes()),
    ]);
    context.run(&format!("fetch 6.1.7 --fc --mirror {}", server.url))
}

/// Checks that nothing is left.
#[track_caller]
fn nothing_left(context: &TestContext) {
    for dir in ["trees", "tmp", "partial", "archives"] {
        assert!(
            context.names(&format!("cache/{dir}")).is_empty(),
            "{dir}: {:?}",
            context.names(&format!("cache/{dir}"))
        );
    }
}

#[test]
fn a_corrupt_archive_is_reported_with_its_offset() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "trees/x");
    let tar = tar_of(&tree, "linux-6.1.7");
    for suffix in ["xz", "gz", "zst", "bz2"] {
        let whole = compress(&tar, suffix);
        fetch(&context, &whole[..whole.len() / 2])
            .failed(3, &["linux-6.1.7.tar.xz: corrupt archive, at byte "]);
        for place in [whole.len() / 3, whole.len() / 2, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[place] ^= 0x40;
            fetch(&context, &flipped).failed(3, &["linux-6.1.7.tar.xz: corrupt archive, at byte "]);
            nothing_left(&context);
        }
        nothing_left(&context);
    }
}

#[test]
fn an_xz_with_a_huge_dictionary_is_refused() {
    let context = TestContext::new();
    let mut xz = compress(b"hello", "xz");
    // The block header follows the stream header of 12 bytes. It has its size, flags, the filter
    // (0x21), the size of its properties, the size of the dictionary as a code (40 is 4 GiB),
    // padding and a CRC32.
    let size = (usize::from(xz[12]) + 1) * 4;
    let dictionary = 12 + xz[12..12 + size].iter().position(|byte| *byte == 0x21).unwrap() + 2;
    xz[dictionary] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..12 + size - 4]);
    xz[12 + size - 4..12 + size].copy_from_slice(&crc.sum().to_le_bytes());
    fetch(&context, &xz).failed(3, &["decompression needs more memory than the limit of 66 MiB"]);
    nothing_left(&context);
}

#[test]
fn large_files_of_a_repository_are_streamed() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let repo = crate::support::git::repository(&context);
    crate::support::git::sh(&repo, "truncate -s 700M bomb && git add bomb");
    crate::support::git::commit(&repo);
    let limits = "ulimit -v 600000; exec \"$0\" \"$@\"";
    context.run_by(&["sh", "-c", limits], &format!("fetch 6.1.7 --ch --source git+{repo}")).ok();
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let context = TestContext::new();
    let tar = tar_with("linux/x", EntryType::Regular, 0, "", |_| {});
    // 12 GiB of zeros in 180 small frames after the end of the tar.
    let frame = zstd::encode_all(&vec![0; 64 << 20][..], 1).unwrap();
    let bomb = [&compress(&tar, "zst")[..], &frame.repeat(192)].concat();
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(&bomb));
    let server = servers::files([
        (format!("{DIR}/linux-6.1.7.tar.xz"), bomb),
        (format!("{DIR}/sha256sums.asc"), list.into_bytes()),
    ]);
    // Address space is more than memory, since threads that might use it count too.
    let limits = "ulimit -v 2000000; ulimit -f 10000; exec \"$0\" \"$@\"";
    let ran = context.run_by(&["sh", "-c", limits], &format!("fetch 6.1.7 --fc --mirror {}", server.url));
    ran.failed(3, &["linux-6.1.7.tar.xz: more than 10 GiB when decompressed"]);
    nothing_left(&context);
}

/// Returns a tar with the directory `linux` and this entry. `spoil` may change its header.
fn tar_with(path: &str, kind: EntryType, size: u64, link: &str, spoil: impl Fn(&mut tar::Header)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_size(0);
    header.set_entry_type(EntryType::Directory);
    header.as_mut_bytes()[..6].copy_from_slice(b"linux/");
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    header.as_mut_bytes()[..100].fill(0);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    spoil(&mut header);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn malicious_entries_are_refused_by_name() {
    let context = TestContext::new();
    fs::write(context.path("outside"), "as it was").unwrap();
    let same = |_: &mut tar::Header| {};
    let entry = |path: &str, kind, link: &str| tar_with(path, kind, 0, link, same);
    for (tar, says) in [
        (entry("linux/../../outside", EntryType::Regular, ""), "`../../outside`: not a path inside the tree"),
        (entry("../outside", EntryType::Regular, ""), "../outside"),
        (entry("/etc/passwd", EntryType::Regular, ""), "/etc/passwd"),
        (
            entry("other/x", EntryType::Regular, ""),
            "the archive has more at its top than the directory `linux`",
        ),
        (entry("linux/x", EntryType::Symlink, "/etc"), "an absolute link"),
        (entry("linux/x", EntryType::Symlink, "a/../../.."), "a link that leaves the tree"),
        (entry("linux/.", EntryType::Symlink, "x"), "not a path inside the tree"),
        (entry("linux/.", EntryType::Regular, ""), "`.`: not a path inside the tree"),
        (entry("linux//.", EntryType::Symlink, "x"), "`/.`: not a path inside the tree"),
        (entry("/.", EntryType::Symlink, "/etc"), "`/.`: outside the archive's top directory"),
        (entry("linux/x", EntryType::Link, "linux/y"), "refused entry `linux/x`: of type Link"),
        (entry("linux/x", EntryType::Fifo, ""), "refused entry `linux/x`: of type Fifo"),
        (entry("linux/x", EntryType::Char, ""), "refused entry `linux/x`: of type Char"),
        (entry("linux/x", EntryType::Block, ""), "refused entry `linux/x`: of type Block"),
        (entry("linux/x", EntryType::GNUSparse, ""), "refused entry `linux/x`: of type GNUSparse"),
        (tar_with("linux/x", EntryType::Regular, 9 << 30, "", same), "more than 8 GiB when unpacked"),
    ] {
        let ran = fetch(&context, &compress(&tar, "xz")).failed(3, &[says]);
        assert!(ran.stderr.contains("linux-6.1.7.tar.xz"), "{}", ran.stderr);
        nothing_left(&context);
    }
    assert_eq!(fs::read_to_string(context.path("outside")).unwrap(), "as it was");
}

/// Returns a tar with `linux/` and these entries, each written by the tar crate.
fn tar_of_entries(entries: impl Fn(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    entries(&mut tar);
    tar.into_inner().unwrap()
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).unwrap();
}

fn link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(EntryType::Symlink);
    tar.append_link(&mut header, path, target).unwrap();
}

#[test]
fn entries_that_overwrite_each_other_are_refused() {
    let context = TestContext::new();
    let victim = context.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("x"), "as it was").unwrap();
    for (path, mode) in [(victim.clone(), 0o700), (victim.join("x"), 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let before = context.snapshot("victim");
    let dir = |tar: &mut tar::Builder<Vec<u8>>, path: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_entry_type(EntryType::Directory);
        tar.append_data(&mut header, path, &[][..]).unwrap();
    };
    let through = |target: &str| {
        tar_of_entries(|tar| {
            link(tar, "linux/dir", target);
            file(tar, "linux/dir/x", b"x");
        })
    };
    let moded = |target: &str| {
        tar_of_entries(|tar| {
            link(tar, "linux/dir", target);
            dir(tar, "linux/dir/");
        })
    };
    let twice = tar_of_entries(|tar| {
        file(tar, "linux/x", b"1");
        file(tar, "linux/x", b"2");
    });
    let over = tar_of_entries(|tar| {
        link(tar, "linux/x", "y");
        file(tar, "linux/x", b"2");
    });
    let beneath = tar_of_entries(|tar| {
        file(tar, "linux/x", b"1");
        file(tar, "linux/x/y", b"2");
    });
    let directory = tar_of_entries(|tar| {
        dir(tar, "linux/x/");
        link(tar, "linux/x", victim.as_str());
    });
    for (tar, says) in [
        (through("inner"), "`dir`: a path through a file or a link"),
        (through(victim.as_str()), "`dir`: an absolute link"),
        (through("../../../../../victim"), "`dir`: a link that leaves the tree"),
        (moded("inner"), "`dir`: a path through a file or a link"),
        (moded(victim.as_str()), "`dir`: an absolute link"),
        (twice, "`x`: a second entry of this name"),
        (over, "`x`: a second entry of this name"),
        (beneath, "`x`: a path through a file or a link"),
        (directory, "`x`: a second entry of this name"),
    ] {
        fetch(&context, &compress(&tar, "xz")).failed(3, &["refused entry", says]);
        nothing_left(&context);
    }
    assert_eq!(context.snapshot("victim"), before);
}

#[test]
fn contradictory_tar_records_are_refused() {
    let context = TestContext::new();
    let pax = |records: &[(&str, &[u8])]| {
        tar_of_entries(|tar| {
            tar.append_pax_extensions(records.iter().copied()).unwrap();
            file(tar, "linux/x", b"12345");
        })
    };
    for (tar, says) in [
        (pax(&[("size", b"4")]), "the sizes in its PAX record and its header differ"),
        (pax(&[("path", b"linux/a\0b")]), "has a NUL byte"),
        (pax(&[("path", format!("linux/{}", "x".repeat(2000)).as_bytes())]), "the name is too long"),
        (pax(&[("path", b"linux/../../x")]), "not a path inside the tree"),
        (pax(&[("path", &[b'l', 0xff])]), "not UTF-8"),
    ] {
        fetch(&context, &compress(&tar, "xz")).failed(3, &["refused entry", says]);
        nothing_left(&context);
    }
}

#[test]
fn unpacked_files_are_never_writable_by_others() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "trees/x");
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("linux-6.1.7", &tree).unwrap();
    for (path, mode) in
        [("linux-6.1.7/suid", 0o4755), ("linux-6.1.7/open", 0o777), ("linux-6.1.7/sgid", 0o2666)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(mode);
        tar.append_data(&mut header, path, &[][..]).unwrap();
    }
    let xz = compress(&tar.into_inner().unwrap(), "xz");
    let server = servers::files([(format!("{DIR}/linux-6.1.7.tar.xz"), xz)]);
    for umask in ["000", "022", "077"] {
        let args = format!(
            "6.1.7 --fc --config mini.config --mirror {} --cache-dir cache-{umask} -o out-{umask}",
            server.url
        );
        context.run_by(&["sh", "-c", &format!("umask {umask}; exec \"$0\" \"$@\"")], &args).ok();
        // All files in the cache, including those of make.
        for file in walkdir::WalkDir::new(context.path(&format!("work/cache-{umask}"))) {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o7777;
            let is_link = file.path_is_symlink();
            assert!(is_link || mode & 0o7022 == 0, "umask {umask}: {} {mode:o}", file.path().display());
        }
        let trees = format!("work/cache-{umask}/trees");
        let entry = context.path(&format!("{trees}/{}", context.names(&trees)[0]));
        let is_source =
            |file: &walkdir::DirEntry| !file.file_name().to_string_lossy().starts_with("kcompile-");
        for file in walkdir::WalkDir::new(entry.join("linux")).into_iter().filter_entry(is_source) {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o7777;
            let wanted: &[u32] = match (file.depth(), file.file_type()) {
                (0, _) => &[0o755],
                (_, kind) if kind.is_symlink() => continue,
                (_, kind) if kind.is_dir() => &[0o555],
                _ => &[0o444, 0o555],
            };
            assert!(wanted.contains(&mode), "umask {umask}: {} {mode:o}", file.path().display());
        }
    }
}

#[test]
fn a_redirect_from_https_to_http_and_a_bad_certificate_are_refused() {
    if !has_tool("openssl") {
        return;
    }
    let mut context = TestContext::new();
    let tls = Tls::start(&context);
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let plain = servers::files([(format!("{DIR}/linux-6.1.7.tar.xz"), bytes)]);
    let answer = format!("HTTP/1.0 302 Found\r\nLocation: {}{DIR}/linux-6.1.7.tar.xz\r\n\r\n", plain.url);
    let missing = "HTTP/1.0 404 Not Found\r\n\r\n";
    for (name, text) in [
        ("linux-6.1.7.tar.xz", answer.as_str()),
        ("linux-6.1.7.tar.sign", missing),
        ("sha256sums.asc", missing),
    ] {
        fs::write(context.path(&format!("work/tls{DIR}/{name}")), text).unwrap();
    }
    let fetch = format!("fetch 6.1.7 --fc --mirror {}", tls.url);
    // No trusted authority signed the certificate.
    context.run(&fetch).failed(3, &["cannot fetch https://localhost", "certificate"]);
    context.env.insert("SSL_CERT_FILE".into(), context.path("work/cert.pem").into_string());
    context.run(&fetch).failed(3, &["a redirect from https to http is refused"]);
    assert!(plain.log.lock().unwrap().is_empty());
}
