//! `--toolchain kernel.org:…`: compilers that kernel.org publishes.

use crate::support::context::{RunResult, TestContext, compress, sha256, write_script};
use crate::support::downloads::{answer_range, send_part};
use crate::support::servers::{self, Server, respond};
use crate::support::signing::{Gpg, signer};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use tar::EntryType;

/// The architecture of this machine and of the kernels, as the names of archives have it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
const GCC: &str = "--toolchain kernel.org:gcc-14.2.0";
const GNU_TOOLS: [&str; 8] = ["ld", "as", "ar", "nm", "objcopy", "objdump", "strip", "readelf"];

/// A stand-in for a compiler: it prints another version, and runs this machine's.
const WRAPPER: &str =
    "#!/bin/sh\ncase \"$*\" in --version) echo 'gcc (kernel.org) 14.2.0';; *) exec gcc \"$@\";; esac\n";

/// Returns the path of an archive of GCC for `target` on a server.
fn path(target: &str) -> String {
    format!("/pub/tools/crosstool/files/bin/{HOST}/14.2.0/{HOST}-gcc-14.2.0-nolibc-{target}-linux.tar.xz")
}

fn list_path() -> String {
    format!("/pub/tools/crosstool/files/bin/{HOST}/14.2.0/sha256sums.asc")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, text: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    // Written directly, since the builder refuses some of these names.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    let content = if kind.is_file() {
        text.as_bytes()
    } else {
        header.set_link_name_literal(text).unwrap();
        b""
    };
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// Returns an archive of GCC for `target` whose gcc is `script`, and these entries after it.
fn archive_with(target: &str, script: &str, more: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let bin = format!("gcc-14.2.0-nolibc/{target}-linux/bin/{target}-linux-");
    append(&mut tar, &format!("{bin}gcc"), EntryType::Regular, script);
    append(&mut tar, &format!("{bin}gcc-14.2.0"), EntryType::Link, &format!("{bin}gcc"));
    for tool in GNU_TOOLS {
        append(
            &mut tar,
            &format!("{bin}{tool}"),
            EntryType::Regular,
            &format!("#!/bin/sh\nexec {tool} \"$@\"\n"),
        );
    }
    more.iter().for_each(|(path, kind, text)| append(&mut tar, path, *kind, text));
    compress(&tar.into_inner().unwrap(), "xz")
}

fn archive(target: &str) -> Vec<u8> {
    archive_with(target, WRAPPER, &[])
}

/// Returns the line of an archive in `sha256sums.asc`.
fn list_line(target: &str, archive: &[u8]) -> String {
    format!("{}  {}\n", sha256(archive), path(target).rsplit('/').next().unwrap())
}

/// The files of a server.
struct Published {
    files: BTreeMap<String, Vec<u8>>,
    gpg: Gpg,
    key: String,
}

impl Published {
    /// Publishes compilers for two architectures with a signed list.
    fn new(context: &TestContext) -> Published {
        let (gpg, key) = signer(context);
        let mut published = Published { files: BTreeMap::new(), gpg, key };
        let mut list = String::new();
        for target in ["x86_64", "aarch64"] {
            list.push_str(&list_line(target, &archive(target)));
            published.files.insert(path(target), archive(target));
        }
        published.sign_list(&list);
        published
    }

    fn sign_list(&mut self, list: &str) {
        self.files.insert(list_path(), self.gpg.clear_sign(&self.key, list));
    }

    fn serve(&self) -> Server {
        servers::files(self.files.clone())
    }
}

/// Runs a command with the options of the compiler on this server.
fn run(context: &TestContext, server: &Server, command: &str) -> RunResult {
    context.run(&format!("{command} {GCC} --mirror {} --keyring signer.asc", server.url))
}

const PLAN: &str = "plan 6.1.7 --fc --source linux --config mini.config --json";
const BUILD: &str = "6.1.7 --fc --source linux --config mini.config --require none";

#[test]
fn a_compiler_of_kernel_org_comes_before_the_tools_of_the_host() {
    let mut context = TestContext::new();
    // The date of a directory is that of its newest file.
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    context.tree("6.1.7", "work/linux");
    let server = Published::new(&context).serve();
    let plan = run(&context, &server, PLAN).ok().item()["plan"].clone();
    let toolchain = &plan["toolchain"];
    assert_eq!(toolchain["compiler"]["name"], "kernel.org:gcc-14.2.0");
    assert_eq!(toolchain["compiler"]["sha256"], sha256(&archive(ARCH)));
    assert_eq!(toolchain["variables"]["CROSS_COMPILE"], format!("{ARCH}-linux-"));
    assert_eq!(toolchain["variables"]["CC"], format!("{ARCH}-linux-gcc"));
    assert_eq!(toolchain["variables"]["HOSTCC"], "gcc");
    assert_eq!(toolchain["identity"]["cc"], "gcc (kernel.org) 14.2.0");
    assert!(toolchain["identity"]["make"].as_str().unwrap().starts_with("GNU Make"), "{toolchain}");
    assert!(toolchain["programs"]["cc"].is_null(), "the digest of the archive is enough: {toolchain}");
    let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
    assert!(lock.contains(&format!("https://cdn.kernel.org{}", path(ARCH))), "{lock}");
    assert!(!lock.contains("unverified"), "{lock}");

    let asked = server.log.lock().unwrap().len();
    let built = run(&context, &server, &format!("{BUILD} --offline")).ok();
    assert_eq!(server.log.lock().unwrap().len(), asked, "the cache has the pinned archive");
    let entry = context.path("cache/toolchains").join(sha256(&archive(ARCH)));
    let linked = entry.join(format!("root/{ARCH}-linux/bin/{ARCH}-linux-gcc-14.2.0"));
    assert_eq!(fs::read_to_string(&linked).unwrap(), WRAPPER);
    let image = "out/firecracker-kernel-bin-amd64";
    if ARCH == "x86_64" {
        let inspected = context.run(&format!("inspect {image}")).ok().stdout;
        assert!(inspected.contains("kernel.org:gcc-14.2.0"), "{inspected}");
    }

    // Another path of the cache, and a list that names the same archive.
    let mut other = TestContext::new();
    other.env = context.env.clone();
    other.tree("6.1.7", "work/linux");
    fs::copy(context.path("work/signer.asc"), other.path("work/signer.asc")).unwrap();
    assert_eq!(run(&other, &server, BUILD).ok().digests(), built.digests());
    assert_eq!(run(&other, &server, PLAN).ok().item()["plan"], plan);
    assert_ne!(other.run(PLAN).ok().item()["digest"], run(&other, &server, PLAN).ok().item()["digest"]);

    // A changed program is not used.
    fs::remove_file(&linked).unwrap_or_else(|_| panic!("{linked}"));
    let repaired = run(&context, &server, &format!("{BUILD} --rebuild")).ok();
    assert!(repaired.says("toolchain that was changed; unpacking it again").digests() == built.digests());

    let listed = context.run("toolchain list --json").ok().json();
    assert_eq!(listed["items"][0]["toolchain"], "kernel.org:gcc-14.2.0");
    assert_eq!(listed["items"][0]["digest"], format!("sha256:{}", sha256(&archive(ARCH))));
    // Each architecture has its own archive.
    run(&context, &server, "plan 6.1.7 --fc --arch amd64 --arch arm64 --source linux --config mini.config")
        .ok();
    assert_eq!(context.names("cache/toolchains").len(), 2);
    for (options, says) in [
        ("--cc clang", "--toolchain kernel.org:gcc-14.2.0 and --cc choose two compilers"),
        ("--llvm", "and --llvm choose two compilers"),
        ("--cross-compile x-", "and --cross-compile choose two compilers"),
    ] {
        run(&context, &server, &format!("{PLAN} {options}")).failed(2, &[says]);
    }
    context.run("clean --sources").ok();
    run(&context, &server, &format!("{PLAN} --offline"))
        .failed(3, &["not in the cache, and --offline is given"]);
}

#[test]
fn llvm_of_kernel_org_compiles_for_all_architectures() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let (gpg, key) = signer(&context);
    let mut tar = tar::Builder::new(Vec::new());
    for tool in ["clang", "ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-strip"] {
        let script = "#!/bin/sh\necho 'ClangBuiltLinux clang version 21.1.0'\n";
        append(&mut tar, &format!("llvm-21.1.0-{ARCH}/bin/{tool}"), EntryType::Regular, script);
    }
    let tar = tar.into_inner().unwrap();
    let name = format!("/pub/tools/llvm/files/llvm-21.1.0-{ARCH}.tar");
    // A signature over the uncompressed archive does, without a list.
    let signature = gpg.sign(&key, &tar, "");
    let files = [(format!("{name}.xz"), compress(&tar, "xz")), (format!("{name}.sign"), signature)];
    let server = servers::files(files);
    let options = format!("--toolchain kernel.org:llvm-21.1.0 --mirror {} --keyring signer.asc", server.url);
    let plans = context.run(&format!("{PLAN} --arch amd64 --arch arm64 {options}")).ok().json();
    for item in plans["items"].as_array().unwrap() {
        let toolchain = &item["plan"]["toolchain"];
        assert_eq!(toolchain["variables"]["LLVM"], "1");
        assert_eq!(toolchain["variables"]["HOSTCC"], "gcc");
        assert_eq!(toolchain["compiler"]["sha256"], sha256(&compress(&tar, "xz")));
        assert_eq!(toolchain["identity"]["ld"], "ClangBuiltLinux clang version 21.1.0");
    }
    assert_eq!(context.names("cache/toolchains").len(), 1);

    let other = gpg.sign(&key, b"other bytes", "");
    let forged = [(format!("{name}.xz"), compress(&tar, "xz")), (format!("{name}.sign"), other)];
    let server = servers::files(forged);
    context.run("clean --sources").ok();
    fs::remove_file(context.path("cache/kcompile.lock")).unwrap();
    let options = format!("--toolchain kernel.org:llvm-21.1.0 --mirror {} --keyring signer.asc", server.url);
    context
        .run(&format!("{PLAN} {options}"))
        .failed(3, &["bad signature: Signer", "did not sign these bytes"]);
    assert!(context.names("cache/toolchains").is_empty());
}

#[test]
fn a_compiler_that_nothing_authenticates_is_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let mut published = Published::new(&context);
    let refused = |published: &Published, keyring: &str, says: &[&str]| {
        let server = published.serve();
        context.run(&format!("{PLAN} {GCC} --mirror {} {keyring}", server.url)).failed(3, says);
        assert!(context.names("cache/toolchains").is_empty(), "{says:?}");
        assert!(context.names("cache/tmp").is_empty(), "{says:?}");
    };
    let keyring = "--keyring signer.asc";
    let key = published.key.clone();
    refused(&published, "", &["sha256sums.asc: unknown signature", &key, "--keyring FILE"]);
    let list = list_line(ARCH, &archive(ARCH));
    published.files.insert(list_path(), list.clone().into_bytes());
    refused(
        &published,
        keyring,
        &["--toolchain kernel.org:gcc-14.2.0: nothing authenticates ", "must be signed"],
    );
    published.files.remove(&list_path());
    refused(&published, keyring, &["nothing authenticates "]);
    published.sign_list(&list.replace(ARCH, "other"));
    refused(&published, keyring, &["no signed sha256sums.asc lists it"]);
    published.sign_list(&list_line(ARCH, b"other bytes"));
    refused(&published, keyring, &["checksum mismatch for ", "try another --mirror"]);
    published.sign_list(&list);
    published.files.remove(&path(ARCH));
    refused(&published, keyring, &["404"]);

    // The user's own pin is enough, and another digest is refused.
    let unsigned = servers::files([(path(ARCH), archive(ARCH))]);
    let pin = |digest: &str| {
        let origin = format!("https://cdn.kernel.org{}", path(ARCH));
        let text = format!("[[source]]\norigin = \"{origin}\"\ndigest = \"sha256:{digest}\"\n");
        fs::write(context.path("cache/kcompile.lock"), text).unwrap();
    };
    pin(&"0".repeat(64));
    run(&context, &unsigned, PLAN).failed(3, &["checksum mismatch for "]);
    published.files.insert(path(ARCH), archive(ARCH));
    let signed = published.serve();
    run(&context, &signed, PLAN).failed(3, &["(from its first use)", "in sha256sums.asc", "--update-lock"]);
    run(&context, &signed, &format!("{PLAN} --update-lock")).ok();
    context.run("clean --sources").ok();
    pin(&sha256(&archive(ARCH)));
    run(&context, &unsigned, PLAN).ok();
}

#[test]
fn malicious_and_unusable_compilers_are_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let mut published = Published::new(&context);
    let mut refused = |archive: Vec<u8>, code: i32, says: &[&str]| {
        published.sign_list(&list_line(ARCH, &archive));
        published.files.insert(path(ARCH), archive);
        let _ = fs::remove_file(context.path("cache/kcompile.lock"));
        run(&context, &published.serve(), BUILD).failed(code, says);
        assert!(!context.path("work/out").exists());
    };
    let top = "gcc-14.2.0-nolibc";
    let home = context.path("home/escaped");
    for (path, kind, text, says) in [
        (format!("{top}/link"), EntryType::Link, "/etc/passwd".to_owned(), "refused entry"),
        (
            format!("{top}/link"),
            EntryType::Link,
            format!("{top}/../../etc/passwd"),
            "not a path inside the tree",
        ),
        (format!("{top}/link"), EntryType::Link, format!("{top}/none"), "which is not an earlier file"),
        (format!("{top}/up"), EntryType::Symlink, "../../..".to_owned(), "a link that leaves the tree"),
        (format!("{top}/root"), EntryType::Symlink, home.to_string(), "an absolute link"),
        ("../escaped".to_owned(), EntryType::Regular, String::new(), "outside the archive's top directory"),
        (format!("{top}/dev"), EntryType::Char, String::new(), "of type Char"),
    ] {
        refused(archive_with(ARCH, WRAPPER, &[(&path, kind, &text)]), 3, &[says]);
        assert!(context.names("cache/toolchains").is_empty(), "{says}");
    }
    refused(b"not an archive".to_vec(), 3, &["is not a compressed tarball"]);
    refused(archive("other"), 3, &["has no directory ", "below its top directory"]);
    let broken =
        "#!/bin/sh\ncase \"$*\" in --version) echo 'gcc 14';; *) echo 'cannot find cc1' >&2; exit 1;; esac\n";
    let says = format!(
        "--toolchain kernel.org:gcc-14.2.0: the compiler {ARCH}-linux-gcc cannot compile: cannot find cc1"
    );
    refused(archive_with(ARCH, broken, &[]), 4, &[&says]);
    assert!(!home.exists());
}

#[test]
fn the_download_of_a_compiler_resumes() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let published = Published::new(&context);
    let archive = archive(ARCH);
    let list = published.files[&list_path()].clone();
    let is_alive = std::sync::Arc::new(AtomicBool::new(false));
    let server = {
        let (archive, is_alive) = (archive.clone(), is_alive.clone());
        servers::serve(move |request, stream| {
            if request.path == list_path() {
                return respond(stream, "200 OK", &[], &list);
            }
            if is_alive.load(Ordering::SeqCst) {
                answer_range(request, stream, &archive);
            } else if request.range_start().is_some() {
                respond(stream, "404 Not Found", &[], b"");
            } else {
                send_part(stream, &archive, archive.len() / 2);
            }
        })
    };
    run(&context, &server, PLAN).failed(3, &["--toolchain kernel.org:gcc-14.2.0: "]);
    assert!(context.names("cache/toolchains").is_empty());
    assert_eq!(context.names("cache/partial").len(), 1);
    is_alive.store(true, Ordering::SeqCst);
    run(&context, &server, PLAN).ok();
    let log = server.log.lock().unwrap();
    let last = log.iter().rfind(|line| line.contains(".tar.xz")).unwrap();
    assert!(last.ends_with(&format!("bytes={}-", archive.len() / 2)), "{last}");
    assert!(context.names("cache/partial").is_empty());
}

#[test]
fn the_sandbox_shows_the_compiler() {
    if !crate::support::context::has_tool("bwrap") {
        return;
    }
    let context = TestContext::new();
    let server = Published::new(&context).serve();
    context.tree("6.1.7", "work/linux");
    // A program of this name on the host is not used.
    let fakes = context.path("home/bin");
    write_script(&fakes.join(format!("{ARCH}-linux-gcc")), "exit 1");
    let mut context = context;
    context.env.insert("PATH".into(), format!("{fakes}:{}", std::env::var("PATH").unwrap()));
    run(&context, &server, &format!("{BUILD} --sandbox on")).ok();
}
