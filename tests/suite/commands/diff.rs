//! `kcompile diff` shows what differs between two images and why, and checks size limits.

use crate::support::context::{RunResult, TestContext, has_tool};
use crate::support::fixtures::{
    Item, kernel, layer, named, put_image, put_image_for, put_index, replace, rewrite,
};
use crate::support::layouts::add_blob;
use Item::{File, HardLink, SymLink};
use camino::Utf8PathBuf;
use serde_json::{Value, json};

const BIN: &str = "firecracker-kernel-bin-amd64";
const MODULES: &str = "firecracker-kernel-modules-amd64";

/// Builds one tree twice, into `a` and `out`, with these options.
fn context(first: &str, second: &str) -> TestContext {
    let context = TestContext::new();
    context.build(&format!("--compression none -o a {first}")).ok();
    context.build(&format!("--compression none {second}")).ok();
    context
}

fn json(context: &TestContext, image: &str) -> Value {
    serde_json::from_str(&context.run(&format!("diff a/{image} out/{image} --json")).ok().stdout).unwrap()
}

fn causes(file: &Value) -> Vec<&str> {
    file["causes"].as_array().unwrap().iter().map(|cause| cause["cause"].as_str().unwrap()).collect()
}

#[test]
fn equal_images_are_reported_as_equal() {
    let context = context("", "");
    let told = context.run(&format!("diff a/{BIN} out/{BIN}:6.1.7")).ok().stdout;
    assert!(told.ends_with("\nthe images are identical\n"), "{told}");
    assert_eq!(json(&context, MODULES)["equal"], true);
    assert_eq!(json(&context, MODULES)["files"], json!([]));
}

#[test]
fn config_differences_are_grouped_with_their_effects() {
    let context = context("", "--set DUMMY=n --set WIREGUARD=m --set PSI=y --set BRIDGE=y");
    let before = context.snapshot("work");
    let told = context.run(&format!("diff a/{MODULES} out/{MODULES}")).ok().stdout;
    for text in [
        "a/firecracker-kernel-modules-amd64:6.1.7  sha256:",
        "different inputs\n  config\n",
        "changed (",
        "BRIDGE: m -> y",
        "new modules (1)\n  kernel/drivers/net/wireguard/wireguard.ko\n",
        "removed modules (",
        "kernel/drivers/net/dummy.ko",
        "io.github.kcompile.config.digest:",
    ] {
        assert!(told.contains(text), "`{text}` is not in:\n{told}");
    }
    let difference = json(&context, MODULES);
    assert_eq!(difference["inputs"], json!(["config"]));
    assert_eq!(difference["modules"]["new"], json!(["kernel/drivers/net/wireguard/wireguard.ko"]));
    assert!(
        difference["modules"]["gone"].as_array().unwrap().contains(&json!("kernel/drivers/net/dummy.ko"))
    );
    // The kernel image has no config, but the image beside it does.
    let kernel = json(&context, BIN);
    let changed = kernel["config"]["changed"].as_array().unwrap();
    assert!(changed.contains(&json!({"symbol": "BRIDGE", "from": "m", "to": "y"})), "{changed:?}");
    assert_eq!(kernel["files"][0]["path"], "bin/vmlinux");
    assert!(causes(&kernel["files"][0]).contains(&"inputs"), "{kernel:#}");
    assert_eq!(context.snapshot("work"), before, "nothing was written");
}

#[test]
fn a_page_shows_sizes_by_directory_and_settings() {
    let context = context("", "--set DUMMY=n --set WIREGUARD=m");
    context.run(&format!("diff a/{MODULES} out/{MODULES} --html pages.html")).ok();
    let page = std::fs::read_to_string(context.path("work/pages.html")).unwrap();
    for text in [
        "<h2>Sizes by directory</h2>",
        "<span>drivers</span>",
        "<span>dummy.ko</span>",
        "<span>wireguard.ko</span><span>0\u{a0}B</span>",
        "<td>DUMMY</td><td>m</td><td>n</td>",
        "<dt>Different inputs</dt>",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let same = context.run(&format!("diff a/{BIN} a/{BIN} --html pages.html")).ok();
    assert!(same.stdout.contains("identical"));
    let page = std::fs::read_to_string(context.path("work/pages.html")).unwrap();
    assert!(page.contains("the images are identical"), "the page is replaced: {page}");
}

#[test]
fn two_versions_are_compared_module_by_module() {
    let context = TestContext::new();
    context.build("-o a").ok();
    context.tree("6.1.8", "work/newer");
    context.run("6.1.8 --fc --source newer --config mini.config").ok();
    let difference = json(&context, MODULES);
    assert_eq!(difference["inputs"][0], "version");
    assert_eq!((&difference["modules"]["new"], &difference["modules"]["gone"]), (&json!([]), &json!([])));
    let files = difference["files"].as_array().unwrap();
    let dummy = files.iter().find(|file| file["path"] == "kernel/drivers/net/dummy.ko").unwrap();
    assert_eq!(dummy["sections"], json!([".modinfo", ".note.gnu.build-id"]), "its vermagic");
}

#[test]
fn a_changed_date_or_compiler_is_named_as_the_cause() {
    if !has_tool("gcc-11") || !has_tool("gcc-12") {
        return;
    }
    let mut context = TestContext::new();
    context.build("-o a --cc gcc-11").ok();
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1600000000".into());
    context.build("--cc gcc-12").ok();
    let difference = json(&context, BIN);
    let file = &difference["files"][0];
    assert_eq!(&causes(file)[..2], ["compiler", "time-stamp"], "{file:#}");
    assert!(file["causes"][0]["first"].as_str().unwrap().contains(" 11."), "{file:#}");
    assert!(file["causes"][1]["second"].as_str().unwrap().contains("Sep 13"), "{file:#}");
    assert!(file["sections"].as_array().unwrap().contains(&json!(".comment")), "{file:#}");
    assert!(
        difference["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "cc"),
        "{difference:#}"
    );
    let told = context.run(&format!("diff a/{BIN} out/{BIN}")).ok().stdout;
    let said = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("another compiler: ") && said.contains("a time stamp: "), "{told}");
    assert!(told.contains("\ntools\n  cc: "), "{told}");
}

#[test]
fn embedded_paths_and_build_ids_are_found() {
    let context = context("", "");
    let (a, b): (Utf8PathBuf, Utf8PathBuf) =
        (context.path("work/a").join(BIN), context.path("work/out").join(BIN));
    let id = |tar: &[u8]| tar.windows(4).position(|bytes| bytes == b"GNU\0").unwrap() + 4;
    rewrite(&b, |parts| {
        let at = id(&parts.tar);
        parts.tar[at] ^= 0xff;
    });
    let difference = json(&context, BIN);
    assert_eq!(causes(&difference["files"][0]), ["build-id-only"], "{difference:#}");
    assert_eq!(difference["inputs"], json!([]));
    for (layout, path) in [(a, b"\0/me/main.c\0"), (b, b"\0/it/main.c\0")] {
        rewrite(&layout, |parts| replace(&mut parts.tar, b"\0init/main.c"[..].into(), &path[..12]));
    }
    let difference = json(&context, BIN);
    let file = &difference["files"][0];
    assert_eq!(causes(file), ["embedded-path"], "{file:#}");
    assert_eq!(file["causes"][0]["first"], "/me/main.c");
    assert_eq!(file["causes"][0]["second"], "/it/main.c");
}

#[test]
fn exceeding_a_size_limit_fails_and_reports_the_excess() {
    let context = context("", "");
    let within = "--max-bin-size 1MB --max-modules-size 1MiB";
    context.run(&format!("diff a/{BIN} out/{BIN} {within}")).ok();
    let told = context.run(&format!("verify out/{BIN} out/{MODULES} {within}")).ok().stdout;
    assert_eq!(told.matches("within the limits").count(), 2, "{told}");
    // The kernel has two names and counts once.
    let inspected = context.run(&format!("inspect out/{BIN} --json")).ok().item();
    assert_eq!(inspected["kernels"][0]["also_at"], json!(["boot/vmlinux"]));
    let bytes = inspected["kernels"][0]["bytes"].as_u64().unwrap();
    context.run(&format!("diff a/{BIN} out/{BIN} --max-bin-size {bytes}")).ok();
    context.run(&format!("verify out/{BIN} --max-bin-size {}", bytes - 1)).failed(1, &[]);
    let over = "--max-bin-size 1kB --max-modules-size 1000";
    context
        .run(&format!("diff a/{BIN} out/{BIN} {over}"))
        .failed(1, &["the kernel bin/vmlinux, ", "is over 1.0 kB"]);
    context.run(&format!("diff a/{MODULES} out/{MODULES} {over}")).failed(1, &["the size of 4 modules, "]);
    let told = context.run(&format!("verify out/{BIN} {over}"));
    assert!(told.code == 1 && told.stdout.contains("FAILED   size"), "{}", told.stdout);
    let told = context.run(&format!("diff a/{BIN} out/{BIN} --json {over}"));
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told.code, json["over_budget"].as_array().unwrap().len()), (1, 1));
    context.run(&format!("diff a/{BIN} out/{BIN} --max-bin-size much")).failed(2, &["`much` is not a size"]);
}

#[test]
fn images_that_cannot_be_compared_are_a_usage_error() {
    let context = context("", "");
    context.tree("6.1.8", "work/newer");
    context.run("6.1.8 --fc --source newer --config mini.config").ok();
    context.run(&format!("diff a/{BIN} out/{BIN}")).failed(2, &["has several images", "6.1.7, 6.1.8"]);
    context.run(&format!("diff a/{BIN} nowhere")).failed(2, &["no such directory"]);
}

#[test]
fn files_on_only_one_side_are_reported() {
    let context = TestContext::new();
    let kernel = kernel("6.1.7");
    let put = |name: &str, items: &[(&str, Item<'_>)]| {
        let layout = context.path("work").join(name);
        let image = put_image(&layout, &[layer(items)], &Value::Null);
        put_index(&layout, &[named(image, "1")]);
    };
    let many: Vec<String> = (0..150).map(|number| format!("etc/many/{number:03}")).collect();
    let mut first = vec![
        ("bin/vmlinux", File(&kernel)),
        ("boot/System.map", File(b"map")),
        ("boot/vmlinux", HardLink("bin/vmlinux")),
        ("etc/both", File(b"one")),
        ("etc/link", SymLink("here")),
        ("etc/turns", File(b"a file")),
    ];
    first.extend(many.iter().map(|path| (path.as_str(), File(b"x"))));
    put("a", &first);
    put(
        "b",
        &[
            ("bin/vmlinux", File(&kernel)),
            ("etc/both", File(b"two")),
            ("etc/link", SymLink("there")),
            ("etc/new", SymLink("both")),
            ("etc/turns", SymLink("both")),
        ],
    );
    let told = context.run("diff a b").ok().stdout;
    for text in [
        "\nonly in the first (152)\n  boot/System.map, 3 B\n  boot/vmlinux, ",
        "\n  and 132 more\n",
        "\nonly in the second (1)\n  etc/new, a link to both\n",
        "\nchanged links (2)\n  etc/link: a link to here -> a link to there\n  etc/turns: 6 B -> a link to both\n",
        "\nbytes\n  etc/both",
    ] {
        assert!(told.contains(text), "`{text}` is not in:\n{told}");
    }
    let json: Value = serde_json::from_str(&context.run("diff a b --json").ok().stdout).unwrap();
    let files = json["files"].as_array().unwrap();
    assert_eq!((files.len(), &json["more_files"]), (156, &json!(0)), "all of them: {json:#}");
    let new = files.iter().find(|file| file["path"] == "etc/new").unwrap();
    assert_eq!(
        (&new["second_link"], &new["first"], &new["second"]),
        (&json!("both"), &Value::Null, &Value::Null)
    );
}

#[test]
fn differences_outside_the_files_are_reported() {
    let context = TestContext::new();
    context.build("-o a --compression none").ok();
    context.build("--compression gzip").ok();
    let told = context.run(&format!("diff a/{BIN} out/{BIN}")).ok().stdout;
    assert!(told.contains("\nthe files are equal, but the images store them differently\n"), "{told}");
    assert!(!told.contains("\nbytes\n") && !told.contains("only in the"), "{told}");
}

#[test]
fn multi_arch_tags_are_compared_image_by_image() {
    let context = TestContext::new();
    let layout = context.path("work/x");
    let kernels = ["6.1.7", "6.1.8"].map(kernel);
    let image =
        |kernel: &[u8], arch: &str| put_image_for(&layout, &[layer(&[("bin/vmlinux", File(kernel))])], arch);
    let index = |images: &[Value]| {
        let kind = json!("application/vnd.oci.image.index.v1+json");
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": images}).to_string();
        add_blob(&layout, index.as_bytes(), &kind)
    };
    let [old, new] = &kernels;
    let first = index(&[image(old, "amd64"), image(old, "arm64")]);
    let second = index(&[image(new, "amd64"), image(old, "arm64")]);
    put_index(&layout, &[named(first, "1"), named(second, "2"), named(image(new, "arm64"), "3")]);
    let inputs = |args: &str| -> Value {
        let told = context.run(&format!("diff {args} --json")).ok();
        serde_json::from_str::<Value>(&told.stdout).unwrap()["inputs"].clone()
    };
    assert_eq!(inputs("x:1 x:2 --arch amd64"), json!(["version"]));
    assert_eq!(inputs("x:1 x:2 --arch arm64"), json!([]));
    // The other image selects the architecture if it has only one.
    assert_eq!(inputs("x:3 x:1"), json!(["version"]));
    context.run("diff x:1 x:3").ok().says("comparing the images for arm64 (see --arch)");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(inputs("x:1 x:2"), json!(["version"]), "this machine's");
    }
    context.run("diff x:1 x:3 --arch amd64").ok().says("comparing the images for amd64");
    context.run("diff x x:1").failed(2, &["has several images", "select one with", "1, 2, 3"]);
}

#[test]
fn large_files_are_compared_without_their_sections() {
    let context = TestContext::new();
    let most = 64 << 20;
    let put = |name: &str| {
        let path = format!("\0/home/{name}/main.c\0");
        let sized = |size: usize| [vec![0; size - path.len()], path.clone().into_bytes()].concat();
        let (fits, large) = (sized(most), sized(most + 1));
        let image = [layer(&[("etc/fits", File(&fits)), ("etc/large", File(&large))])];
        let layout = context.path("work").join(name);
        put_index(&layout, &[named(put_image(&layout, &image, &Value::Null), "1")]);
    };
    put("a");
    put("b");
    let text = bounded(&context, "diff a b").stdout;
    for expected in [
        "\n  etc/fits\n    an embedded path: /home/a/main.c -> /home/b/main.c\n",
        "\n  etc/large (sections not compared: the file is larger than 64 MiB)\n",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
    let json: Value = serde_json::from_str(&bounded(&context, "diff a b --json").stdout).unwrap();
    let skipped: Vec<&Value> =
        json["files"].as_array().unwrap().iter().map(|file| &file["skipped"]).collect();
    assert_eq!(skipped, [&Value::Null, &json!("large-file")]);
}

/// A 64-bit ELF file with `count` empty sections, whose names are long.
fn elf_with_sections(count: u16) -> Vec<u8> {
    const NAME: usize = 256;
    let names = (0..count).flat_map(|number| format!("{number:0NAME$}\0").into_bytes());
    let names: Vec<u8> = names.collect();
    let header = |name: usize, kind: u32, from: u64, size: usize| {
        let mut header = [0; 64];
        header[0..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&from.to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        header
    };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[18] = 62; // e_machine
    file[40] = 64; // e_shoff
    file[58] = 64; // e_shentsize
    file[60..62].copy_from_slice(&(count + 2).to_le_bytes()); // e_shnum
    file[62] = 1; // e_shstrndx
    file.extend(header(0, 0, 0, 0));
    file.extend(header(0, 3, 64 * (u64::from(count) + 3), names.len()));
    (0..usize::from(count)).for_each(|number| file.extend(header(number * (NAME + 1), 1, 0, 0)));
    file.extend(names);
    file
}

#[test]
fn the_memory_for_sections_is_bounded() {
    let context = TestContext::new();
    let paths: Vec<String> = (0..8).map(|number| format!("etc/{number}")).collect();
    let mut elf = elf_with_sections(19_000);
    for name in ["a", "b"] {
        elf.extend(name.as_bytes());
        let items: Vec<(&str, Item<'_>)> = paths.iter().map(|path| (path.as_str(), File(&elf))).collect();
        let layout = context.path("work").join(name);
        put_index(&layout, &[named(put_image(&layout, &[layer(&items)], &Value::Null), "1")]);
    }
    let json: Value = serde_json::from_str(&bounded(&context, "diff a b --json").stdout).unwrap();
    let reasons: Vec<&Value> =
        json["files"].as_array().unwrap().iter().map(|file| &file["skipped"]).collect();
    let (read, skipped) = reasons.split_at(2);
    assert_eq!(read, [&Value::Null; 2]);
    assert_eq!(skipped, [&json!("many-names"); 6]);
}

/// Runs kcompile with 100 MB of memory.
fn bounded(context: &TestContext, args: &str) -> RunResult {
    context.run_by(&["sh", "-c", "ulimit -S -d 97656; exec \"$0\" \"$@\""], args).ok()
}
