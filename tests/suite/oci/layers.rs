//! Images of several layers. inspect, verify, diff and check use the merged root file system.

use crate::support::context::{RunResult, TestContext, copy, has_tool, sha256};
use crate::support::fixtures::{Item, kernel, layer, named, put_image, put_index, rewrite};
use crate::support::layouts::add_blob;
use Item::{Dir, File, HardLink, SymLink};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

const BIN: &str = "firecracker-kernel-bin-amd64";

/// Makes an image of these layers in a layout with the name of a Firecracker kernel.
fn image(context: &TestContext, layers: &[Vec<u8>]) {
    let layout = context.path("work").join(BIN);
    let _ = fs::remove_dir_all(&layout);
    let image = named(put_image(&layout, layers, &Value::Null), "6.1.7");
    put_index(&layout, &[image]);
}

fn inspected(context: &TestContext) -> Value {
    context.run(&format!("inspect {BIN} --json")).ok().item()
}

/// Returns verify's output as one line.
fn verified(context: &TestContext, code: i32) -> String {
    let RunResult { code: found, stdout, stderr } = context.run(&format!("verify {BIN}"));
    assert_eq!(found, code, "{stdout}{stderr}");
    stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_link_in_an_upper_layer_replaces_the_kernel() {
    let context = TestContext::new();
    let (old, new) = (kernel("6.1.7"), kernel("6.1.8"));
    let lower = layer(&[("bin", Dir), ("bin/vmlinux", File(&old)), ("opt", Dir), ("opt/new", File(&new))]);
    image(&context, std::slice::from_ref(&lower));
    assert_eq!(inspected(&context)["release"], "6.1.7");
    image(&context, &[lower.clone(), layer(&[("bin/vmlinux", SymLink("../opt/new"))])]);
    let found = inspected(&context);
    assert_eq!(found["release"], "6.1.8");
    assert_eq!(found["kernel_path"], json!({"path": "bin/vmlinux", "leads_to": "opt/new", "problem": null}));
    assert_eq!(found["kernels"].as_array().unwrap().len(), 1, "the other one is hidden: {found:#}");
    let told = context.run(&format!("inspect {BIN}")).ok().stdout;
    assert!(told.contains("bin/vmlinux leads to opt/new"), "{told}");
    let said = verified(&context, 0);
    assert!(
        said.contains(
            "ok kernel Linux 6.1.8, an ELF file for x86-64 with a PVH note; bin/vmlinux leads to opt/new"
        ),
        "{said}"
    );
    let told = context.run(&format!("inspect {BIN} --as flintlock")).ok().stdout;
    assert!(told.contains("\"filename\": \"bin/vmlinux\""), "{told}");

    for (link, says) in [
        ("../opt/none", "there is no opt/none"),
        ("../opt", "opt is not a file"),
        ("vmlinux", "too many links"),
    ] {
        image(&context, &[lower.clone(), layer(&[("bin/vmlinux", SymLink(link))])]);
        let said = verified(&context, 1);
        assert!(said.contains(&format!("FAILED kernel there is no kernel at bin/vmlinux: {says}")), "{said}");
        context.run(&format!("inspect {BIN} --as flintlock")).failed(2, &["has no kernel"]);
    }
    let text = layer(&[("bin/vmlinux", SymLink("../etc/motd")), ("etc/motd", File(b"hello"))]);
    image(&context, &[lower, text]);
    assert!(verified(&context, 1).contains("there is no kernel at bin/vmlinux: etc/motd is not a kernel"));
}

#[test]
fn kcompile_images_have_one_layer_and_a_real_kernel_path() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let layout = context.path("work").join(BIN);
    copy(&context.path("work/out").join(BIN), &layout);
    let new = kernel("6.1.8");
    rewrite(&layout, |parts| {
        let upper = layer(&[("bin/vmlinux", SymLink("new")), ("bin/new", File(&new))]);
        let descriptor = add_blob(&layout, &upper, &json!("application/vnd.oci.image.layer.v1.tar"));
        parts.manifest["layers"].as_array_mut().unwrap().push(descriptor);
        let diff_ids = parts.config["rootfs"]["diff_ids"].as_array_mut().unwrap();
        diff_ids.push(json!(format!("sha256:{}", sha256(&upper))));
    });
    let said = verified(&context, 1);
    for text in [
        "FAILED entries there are 2 layers, but an image of kcompile has one",
        "bin/vmlinux is a symbolic link to new, but an image of kcompile has none",
        "FAILED kernel there are 2 kernels, but an image of kcompile has one",
        "bin/vmlinux (bin/new) is Linux 6.1.8, but the annotation says 6.1.7",
        "FAILED pairing the annotation says sha256:",
        "which does not follow from kernel and config",
    ] {
        assert!(said.contains(text), "`{text}` is not in:\n{said}");
    }
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers() {
    let context = TestContext::new();
    let (one, other) = (kernel("6.1.7"), kernel("6.1.8"));
    let module = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\0vermagic=6.1.7 SMP \0";
    let lower = layer(&[
        ("boot/vmlinux-other", File(&other)),
        ("bin/vmlinux", File(&one)),
        ("lib/modules/6.1.7/modules.dep", File(b"kernel/a.ko:\n")),
        ("lib/modules/6.1.7/kernel/a.ko", File(module)),
        ("lib/modules/6.1.6/kernel/b.ko", File(module)),
    ]);
    image(&context, std::slice::from_ref(&lower));
    let found = inspected(&context);
    assert_eq!((found["kernels"].as_array().unwrap().len(), &found["modules"]["count"]), (2, &json!(2)));

    let upper = layer(&[
        ("boot/.wh.vmlinux-other", File(b"")),
        ("lib/modules/.wh..wh..opq", File(b"")),
        ("lib/modules/6.1.7/modules.dep", File(b"kernel/c.ko:\n")),
        ("lib/modules/6.1.7/kernel/c.ko", File(module)),
    ]);
    image(&context, &[lower.clone(), upper]);
    let found = inspected(&context);
    assert_eq!(found["kernels"][0]["path"], "bin/vmlinux");
    assert_eq!((found["kernels"].as_array().unwrap().len(), &found["modules"]["count"]), (1, &json!(1)));
    assert!(verified(&context, 0).contains("ok modules 1 module for Linux 6.1.7"));

    image(
        &context,
        &[lower.clone(), layer(&[("lib/.wh.modules", File(b"")), ("bin/.wh.vmlinux", File(b""))])],
    );
    let found = inspected(&context);
    assert_eq!(
        (&found["kind"], &found["kernels"][0]["path"]),
        (&json!("kernel"), &json!("boot/vmlinux-other"))
    );

    // Everything is hidden, so the layout has the name of a kernel image but is none.
    let rest = layer(&[(".wh.lib", File(b"")), (".wh.bin", File(b"")), (".wh.boot", File(b""))]);
    image(&context, &[lower, rest]);
    assert_eq!(inspected(&context)["kind"], "other");
    let said = verified(&context, 1);
    assert!(
        said.contains(&format!(
            "FAILED image the name is {BIN}, but the image has neither a kernel nor modules"
        )),
        "{said}"
    );
}

#[test]
fn links_across_layers_are_followed() {
    let context = TestContext::new();
    let (old, new) = (kernel("6.1.7"), kernel("6.1.8"));
    // Like a root file system whose /bin is a link to /usr/bin.
    let lower = layer(&[("usr/bin", Dir), ("bin", SymLink("usr/bin")), ("usr/bin/vmlinux", File(&old))]);
    image(&context, &[lower.clone(), layer(&[("bin/vmlinux", File(&new))])]);
    let found = inspected(&context);
    assert_eq!(
        (&found["release"], &found["kernels"][0]["path"]),
        (&json!("6.1.8"), &json!("usr/bin/vmlinux"))
    );
    assert_eq!(found["kernel_path"]["leads_to"], "usr/bin/vmlinux");
    // A second name keeps the bytes when the first is removed.
    let linked = layer(&[("boot/vmlinux", HardLink("bin/vmlinux")), ("usr/bin/.wh.vmlinux", File(b""))]);
    image(&context, &[lower, linked]);
    let found = inspected(&context);
    assert_eq!((&found["release"], &found["kernels"][0]["path"]), (&json!("6.1.7"), &json!("boot/vmlinux")));
    verified(&context, 0);
    image(&context, &[layer(&[("bin/vmlinux", File(&old)), ("boot/x", HardLink("bin/none"))])]);
    assert!(
        verified(&context, 1).contains("boot/x is a hard link to bin/none, which is not an earlier file")
    );
}

#[test]
fn diff_and_check_use_the_merged_layers() {
    let context = TestContext::new();
    let config = b"# Linux/x86 6.1.7 Kernel Configuration\nCONFIG_X86_64=y\nCONFIG_NET=y\n";
    let other = b"# Linux/x86 6.1.7 Kernel Configuration\nCONFIG_X86_64=y\n# CONFIG_NET is not set\n";
    let kernel = kernel("6.1.7");
    let items =
        [("bin/vmlinux", File(&kernel)), ("boot/config-6.1.7", File(&other[..])), ("boot/old", File(b"x"))];
    let upper = layer(&[("boot/config-6.1.7", File(config)), ("boot/.wh.old", File(b""))]);
    image(&context, &[layer(&items), upper]);
    copy(&context.path("work").join(BIN), &context.path("work/two").join(BIN));
    image(&context, &[layer(&[("bin/vmlinux", File(&kernel)), ("boot/config-6.1.7", File(config))])]);
    let told = context.run(&format!("diff two/{BIN} {BIN} --json")).ok().stdout;
    let difference: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&difference["files"], &difference["inputs"]), (&json!([]), &json!([])), "{difference:#}");
    context.run(&format!("config diff two/{BIN} mini.config")).ok();
    let told = context.run(&format!("check two/{BIN} --for kubernetes")).stdout;
    assert!(!told.contains("CONFIG_NET "), "the upper layer has it:\n{told}");
}

#[test]
fn a_truncated_layer_is_refused() {
    let context = TestContext::new();
    let kernel = kernel("6.1.7");
    // Like the layers of `umoci insert`, without padding and end.
    let whole = layer(&[("bin/vmlinux", File(&kernel))])[..512 + kernel.len()].to_vec();
    image(&context, std::slice::from_ref(&whole));
    assert!(verified(&context, 0).contains("ok kernel Linux 6.1.7"));
    image(&context, &[whole[..whole.len() - 1].to_vec()]);
    let said = verified(&context, 3);
    assert!(
        said.contains("REFUSED blobs") && said.contains("the tar ends in the middle of a file"),
        "{said}"
    );
}

#[test]
fn layers_that_cannot_be_merged_are_refused() {
    let context = TestContext::new();
    let kernel = kernel("6.1.7");
    for (layers, says) in [
        (
            vec![layer(&[("bin", File(b"x"))]), layer(&[("bin/vmlinux", File(&kernel))])],
            "bin/vmlinux is in bin, which is not a directory",
        ),
        (
            vec![layer(&[("a", SymLink("b")), ("b", SymLink("a")), ("a/x", File(b"x"))])],
            "too many names or links",
        ),
        (vec![layer(&[("x/y", File(b"1")), ("l", SymLink("x")), ("l/y", File(b"2"))])], "of the same layer"),
    ] {
        image(&context, &layers);
        context.run(&format!("inspect {BIN}")).failed(3, &[says]);
        let said = verified(&context, 3);
        assert!(said.contains("REFUSED blobs") && said.contains(says) && !said.contains("DAMAGED"), "{said}");
    }
}

/// Returns the paths below a directory. Only empty directories are listed.
fn tree(root: &Utf8Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let what = match entry.file_type() {
            kind if kind.is_dir() => continue,
            kind if kind.is_symlink() => format!("-> {}", fs::read_link(entry.path()).unwrap().display()),
            _ => sha256(&fs::read(entry.path()).unwrap()),
        };
        found.insert(path, what);
    }
    found
}

/// Returns the same for an image, from a diff with an empty image.
fn merged(context: &TestContext) -> BTreeMap<String, String> {
    let reader = kcompile::internals::LayoutReader::open(&context.path("work").join(BIN)).unwrap();
    let image = reader.open_image(None, None).unwrap();
    let survey = kcompile::internals::inspect(&image).unwrap().scan;
    let shown = |content| match content {
        kcompile::internals::FileContent::File { sha256, .. } => sha256.to_string(),
        kcompile::internals::FileContent::Link { to } => format!("-> {to}"),
    };
    survey.files.into_iter().map(|(path, content)| (path, shown(content))).collect()
}

/// Returns random layers with few names, so that they overlap.
fn some_layers(seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let names = ["a", "b", "c"];
    let layers = 2 + next(3);
    let mut all = Vec::new();
    for number in 0..layers {
        let mut items: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for _ in 0..1 + next(5) {
            let depth = 1 + next(3);
            let parts: Vec<&str> = (0..depth).map(|_| names[next(3) as usize]).collect();
            let (dir, name) = parts.split_at(parts.len() - 1);
            let dir: String = dir.iter().map(|part| format!("{part}/")).collect();
            let kind = next(8);
            let name = match kind {
                0 if number > 0 => format!(".wh.{}", name[0]),
                1 if number > 0 => ".wh..wh..opq".to_owned(),
                _ => name[0].to_owned(),
            };
            let prefix = if kind == 4 { "" } else { ["", "/", "../"][next(3) as usize] };
            let to = format!("{prefix}{}", names[next(3) as usize]);
            items.insert(format!("{dir}{name}"), (kind, to));
        }
        let bytes: Vec<String> = items.keys().map(|path| format!("{number} {path}")).collect();
        let items = items.iter().zip(&bytes).map(|((path, (kind, to)), bytes)| {
            let is_whiteout = path.contains(".wh.");
            let item = match kind {
                _ if is_whiteout => File(b""),
                2 => Dir,
                3 => SymLink(to),
                4 if number > 0 => HardLink(to),
                _ => File(bytes.as_bytes()),
            };
            (path.as_str(), item)
        });
        all.push(layer(&items.collect::<Vec<_>>()));
    }
    all
}

/// The merged root file system is the one that umoci unpacks.
#[test]
fn layer_merging_agrees_with_umoci() {
    if !has_tool("umoci") {
        return;
    }
    let context = TestContext::new();
    let count: u64 = std::env::var("KCOMPILE_TEST_LAYERS").map_or(40, |count| count.parse().unwrap());
    let mut compared = 0;
    for seed in 1..=count {
        let layers = some_layers(seed);
        image(&context, &layers);
        if context.run(&format!("inspect {BIN}")).code != 0 {
            continue;
        }
        let bundle = context.path("work/bundle");
        let _ = fs::remove_dir_all(&bundle);
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--rootless", "--image", &format!("{BIN}:6.1.7"), bundle.as_str()]);
        let unpacked = umoci.current_dir(context.path("work")).output().unwrap();
        if !unpacked.status.success() {
            continue;
        }
        assert_eq!(merged(&context), tree(&bundle.join("rootfs")), "seed {seed}");
        compared += 1;
    }
    // The others have a file where they need a directory.
    assert!(compared * 5 > count, "only {compared} of {count} could be unpacked");
}
