//! The content of layouts, which images are added and replaced, and which tools read them.

use crate::support::context::{TestContext, has_tool};
use camino::Utf8Path;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Command;

const BIN: &str = "firecracker-kernel-bin-amd64";
const MODULES: &str = "firecracker-kernel-modules-amd64";

fn json(path: &Utf8Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Utf8Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(format!("sha256:{}", crate::support::context::sha256(&bytes)), digest);
    assert_eq!(bytes.len() as u64, descriptor["size"].as_u64().unwrap());
    bytes
}

/// Returns tags with manifests and configs, and checks all digests.
fn images(layout: &Utf8Path) -> BTreeMap<String, (Value, Value)> {
    assert_eq!(fs::read(layout.join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = json(&layout.join("index.json"));
    let image = |descriptor: &Value| {
        let manifest: Value = serde_json::from_slice(&blob(layout, descriptor)).unwrap();
        let config: Value = serde_json::from_slice(&blob(layout, &manifest["config"])).unwrap();
        let tag = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
        (tag, (manifest, config))
    };
    index["manifests"].as_array().unwrap().iter().map(image).collect()
}

/// Returns path, type, mode, and size or link target, in tar order.
fn entries(layout: &Utf8Path, tag: &str) -> Vec<(String, tar::EntryType, u32, String)> {
    let (manifest, config) = images(layout).remove(tag).unwrap();
    let bytes = blob(layout, &manifest["layers"][0]);
    let mut plain = Vec::new();
    match manifest["layers"][0]["mediaType"].as_str().unwrap().rsplit('+').next().unwrap() {
        "gzip" => drop(flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap()),
        "zstd" => plain = zstd::decode_all(&bytes[..]).unwrap(),
        _ => plain = bytes,
    }
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", crate::support::context::sha256(&plain))
    );
    tar::Archive::new(&plain[..])
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            let detail = match entry.link_name().unwrap() {
                Some(link) => link.display().to_string(),
                None => entry.size().to_string(),
            };
            (entry.path().unwrap().display().to_string(), header.entry_type(), header.mode().unwrap(), detail)
        })
        .collect()
}

fn paths(context: &TestContext, layout: &str, tag: &str) -> Vec<String> {
    entries(&context.path("work/out").join(layout), tag).into_iter().map(|(path, ..)| path).collect()
}

#[test]
fn images_contain_the_expected_files() {
    let context = TestContext::new();
    let ran = context.build("").ok();
    assert_eq!(paths(&context, BIN, "6.1.7"), ["bin/", "bin/vmlinux", "boot/", "boot/vmlinux"]);
    let modules = paths(&context, MODULES, "6.1.7");
    for name in ["modules.dep", "modules.builtin", "modules.order", "config", "kernel/drivers/net/dummy.ko"] {
        assert!(modules.contains(&format!("lib/modules/6.1.7/{name}")), "{name}: {modules:?}");
    }
    assert!(!modules.iter().any(|path| path.ends_with("/build") || path.ends_with("/source")));
    assert!(modules.is_sorted());
    let (manifest, config) = images(&context.path("work/out").join(BIN)).remove("6.1.7").unwrap();
    assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("amd64"), Some("linux")));
    assert_eq!(config["history"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["annotations"], config["config"]["Labels"]);
    assert_eq!(manifest["annotations"]["org.opencontainers.image.version"], "6.1.7");
    assert_eq!(ran.stdout.lines().count(), 2);
    let index = json(&context.path("work/out").join(BIN).join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(ran.stdout.lines().next().unwrap(), format!("out/{BIN}:6.1.7 {digest}"));
}

/// Returns the bytes of a file in an image.
fn file(layout: &Utf8Path, tag: &str, path: &str) -> Vec<u8> {
    let (manifest, _) = images(layout).remove(tag).unwrap();
    let packed = blob(layout, &manifest["layers"][0]);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&packed[..]));
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap().to_str() == Some(path)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn annotations_describe_the_image_and_its_counterpart() {
    let context = TestContext::new();
    context.build("--legacy").ok();
    let out = context.path("work/out");
    let receipt = json(&out.join("firecracker-6.1.7-amd64.json"));
    let layouts = [BIN, MODULES, "flintlock-kernel"].map(|name| out.join(name));
    // The common part can be computed from both images.
    let digest = |bytes: &[u8]| format!("sha256:{}", crate::support::context::sha256(bytes));
    let kernel = digest(&file(&layouts[0], "6.1.7", "bin/vmlinux"));
    let config = digest(&file(&layouts[1], "6.1.7", "lib/modules/6.1.7/config"));
    let pairing = digest(format!("6.1.7\n{kernel}\n{config}\n").as_bytes());
    for layout in &layouts {
        let (manifest, _) = images(layout).remove("6.1.7").unwrap();
        let says = |key: &str| manifest["annotations"][key].as_str().unwrap().to_owned();
        assert_eq!(says("org.opencontainers.image.title"), layout.file_name().unwrap());
        assert_eq!(says("org.opencontainers.image.licenses"), "GPL-2.0-only WITH Linux-syscall-note");
        let ours = |key: &str| says(&format!("io.github.kcompile.{key}"));
        assert_eq!((ours("flavor").as_str(), ours("architecture").as_str()), ("firecracker", "amd64"));
        assert_eq!((ours("kernel.release"), ours("config.digest")), ("6.1.7".into(), config.clone()));
        assert_eq!(ours("source.digest"), receipt["plan"]["source"]["digest"].as_str().unwrap());
        assert_eq!(ours("plan"), format!("sha256:{}", receipt["plan_digest"].as_str().unwrap()));
        let compiler = receipt["plan"]["toolchain"]["identity"]["cc"].as_str().unwrap();
        assert!(ours("toolchain").contains(&format!("cc: {compiler}; ")), "{}", ours("toolchain"));
        assert_eq!(ours("pairing"), pairing);
    }
    // Other shapes of the same kernel have the same pairing, and other kernels have another one.
    let pairing_of = |args: &str, output: &str| {
        context.build(&format!("-o {output} --no-modules {args}")).ok();
        let (manifest, _) = images(&context.path("work").join(output).join(BIN)).remove("6.1.7").unwrap();
        manifest["annotations"]["io.github.kcompile.pairing"].as_str().unwrap().to_owned()
    };
    assert_eq!(pairing_of("--kernel-link none --compression zstd", "same"), pairing);
    assert_ne!(pairing_of("--set DUMMY=n", "other"), pairing);
}

#[test]
fn vmlinux_is_stripped_and_keeps_its_pvh_note() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.run("6.1.7 --ch --source linux --config mini.config --compression none").ok();
    let layout = context.path("work/out/cloudhypervisor-kernel-bin-amd64");
    assert_eq!(entries(&layout, "6.1.7")[1].0, "bin/vmlinux.bin");
    let (manifest, _) = images(&layout).remove("6.1.7").unwrap();
    let tar = blob(&layout, &manifest["layers"][0]);
    let kernel = &tar[1024..];
    assert_eq!(&kernel[..4], b"\x7fELF");
    // An ELF note: name size 4, some size of the address, type 18 (XEN_ELFNOTE_PHYS32_ENTRY), "Xen".
    assert!(kernel.windows(8).any(|bytes| bytes == b"\x12\0\0\0Xen\0"), "no PVH note");
    assert!(!kernel.windows(5).any(|bytes| bytes == b"GCC: "), ".comment is still there");
}

#[test]
fn the_output_directory_does_not_affect_the_digests() {
    let (here, there) = (TestContext::new(), TestContext::new());
    let args = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --legacy";
    here.tarball("6.1.7", "xz");
    crate::support::context::copy(
        &here.path("work/linux-6.1.7.tar.xz"),
        &there.path("work/linux-6.1.7.tar.xz"),
    );
    let first = here.run(args).ok();
    let second =
        there.command(&format!("{args} -o deep/er/out -j 3")).env("TZ", "Asia/Tokyo").output().unwrap();
    assert_eq!(first.digests(), crate::support::context::run_result(second).ok().digests());
    assert_eq!(first.digests().len(), 4);
}

#[test]
fn a_new_version_is_added_and_the_same_one_replaced() {
    let context = TestContext::new();
    context.build("").ok();
    context.tree("6.1.8", "work/newer");
    context.run("6.1.8 --fc --source newer --config mini.config").ok();
    let layout = context.path("work/out").join(BIN);
    let before = images(&layout);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["6.1.7", "6.1.8"]);
    let blobs = context.names(&format!("work/out/{BIN}/blobs/sha256")).len();
    context.build("--set DEBUG_INFO=y").ok();
    let after = images(&layout);
    assert_eq!(before["6.1.8"], after["6.1.8"]);
    assert_ne!(before["6.1.7"], after["6.1.7"]);
    assert_eq!(context.names(&format!("work/out/{BIN}/blobs/sha256")).len(), blobs, "unused blobs were left");
}

#[test]
fn a_kernel_without_modules_gives_one_image() {
    let context = TestContext::new();
    let ran = context.build("--set MODULES=n").ok().says("no image of modules is written");
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(!context.path("work/out").join(MODULES).exists());
    let only = TestContext::new();
    only.build("--no-modules").ok();
    assert!(!only.path("work/out").join(MODULES).exists());
}

#[test]
fn image_options_change_the_layout() {
    let context = TestContext::new();
    context.build("--legacy --kernel-link k/linux --modules-layout flat --compression zstd").ok();
    assert_eq!(link_of(&context, "out"), ("k/linux".into(), "bin/vmlinux".into()));
    assert!(paths(&context, MODULES, "6.1.7").contains(&"modules.dep".to_owned()));
    let combined = paths(&context, "flintlock-kernel", "6.1.7");
    for path in ["bin/vmlinux", "boot/vmlinux", "boot/config-6.1.7", "lib/modules/6.1.7/modules.dep"] {
        assert!(combined.contains(&path.to_owned()), "{path}: {combined:?}");
    }
}

/// Returns the last entry of the kernel image, which is a hard link, and its target.
fn link_of(context: &TestContext, output: &str) -> (String, String) {
    let entries = entries(&context.path("work").join(output).join(BIN), "6.1.7");
    let (path, kind, _, to) = entries.last().unwrap().clone();
    assert_eq!(kind, tar::EntryType::Link, "{entries:?}");
    (path, to)
}

#[test]
fn the_kernel_is_also_linked_in_boot_by_default() {
    let context = TestContext::new();
    context.build("--no-modules").ok();
    assert_eq!(link_of(&context, "out"), ("boot/vmlinux".into(), "bin/vmlinux".into()));
    // The old name of the option.
    context.build("--no-modules --also-at k/linux -o other").ok();
    assert_eq!(link_of(&context, "other"), ("k/linux".into(), "bin/vmlinux".into()));
    context.build("--no-modules --kernel-link none").ok();
    assert_eq!(paths(&context, BIN, "6.1.7"), ["bin/", "bin/vmlinux"]);
    context.run("6.1.7 --ch --source linux --config mini.config --no-modules").ok();
    assert_eq!(
        paths(&context, "cloudhypervisor-kernel-bin-amd64", "6.1.7"),
        ["bin/", "bin/vmlinux.bin", "boot/", "boot/vmlinux.bin"]
    );
}

#[test]
fn foreign_output_directories_are_not_touched() {
    let context = TestContext::new();
    fs::create_dir(context.path("work/mine")).unwrap();
    fs::write(context.path("work/mine/thesis.tex"), "x").unwrap();
    fs::write(context.path("work/file"), "x").unwrap();
    context.build("-o mine").failed(2, &["has other files (thesis.tex)"]);
    context.build("-o file").failed(2, &["is a file"]);
    context.build("-o a:b").failed(2, &["has a colon in its path"]);
    fs::create_dir_all(context.path("work/out").join(MODULES)).unwrap();
    fs::create_dir_all(context.path("work/out/x")).unwrap();
    fs::write(context.path("work/out/x/oci-layout"), "{}").unwrap();
    context.build("").failed(2, &["it is not an OCI layout"]);
    assert_eq!(context.names("work/mine"), ["thesis.tex"]);
    assert!(!context.path("cache").exists(), "found out before anything was done");
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let output = Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\" 6.1.7 --fc --source linux --config mini.config"])
        .arg(env!("CARGO_BIN_EXE_kcompile"))
        .current_dir(context.path("work"))
        .env("KCOMPILE_CACHE_DIR", context.path("cache"))
        .output()
        .unwrap();
    assert!(output.status.success());
    for entry in walkdir::WalkDir::new(context.path("work/out")).min_depth(1) {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let wanted = if entry.file_type().is_dir() { 0o755 } else { 0o644 };
        if entry.file_name() != ".kcompile.lock" {
            assert_eq!(mode, wanted, "{}", entry.path().display());
        }
    }
}

#[test]
fn skopeo_and_umoci_read_the_layouts() {
    if !has_tool("skopeo") || !has_tool("umoci") {
        return;
    }
    let context = TestContext::new();
    context.build("").ok();
    for layout in [BIN, MODULES] {
        let script = format!(
            "skopeo --insecure-policy copy -q oci:out/{layout}:6.1.7 oci:copy-{layout}:x && \
             umoci unpack --rootless --image copy-{layout}:x bundle-{layout}"
        );
        let output =
            Command::new("sh").args(["-ec", &script]).current_dir(context.path("work")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let kernel = fs::read(context.path(&format!("work/bundle-{BIN}/rootfs/bin/vmlinux"))).unwrap();
    assert_eq!(&kernel[..4], b"\x7fELF");
    assert!(context.path(&format!("work/bundle-{MODULES}/rootfs/lib/modules/6.1.7/modules.dep")).is_file());
}

#[test]
fn a_damaged_layout_stops_the_build_before_it_changes_anything() {
    let context = TestContext::new();
    context.build("").ok();
    let before = images(&context.path("work/out").join(BIN));
    fs::write(context.path("work/out").join(MODULES).join("index.json"), "{").unwrap();
    context
        .build("--set PSI=y")
        .failed(3, &["index.json does not have the content that the OCI image specification requires"]);
    assert_eq!(images(&context.path("work/out").join(BIN)), before);
}

#[test]
fn lock_files_that_are_links_are_refused() {
    let context = TestContext::new();
    context.build("").ok();
    fs::remove_file(context.path("work/out/.kcompile.lock")).unwrap();
    fs::write(context.path("work/precious"), "precious").unwrap();
    std::os::unix::fs::symlink("../precious", context.path("work/out/.kcompile.lock")).unwrap();
    context.build("--rebuild").failed(1, &["cannot lock"]);
    assert_eq!(fs::read_to_string(context.path("work/precious")).unwrap(), "precious");
    std::os::unix::fs::symlink("nowhere", context.path("work/dangling")).unwrap();
    context.build("-o dangling").failed(2, &["is a dangling link"]);
}
