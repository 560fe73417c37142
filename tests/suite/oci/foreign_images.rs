//! Images of other tools in every form. They are read, or reported as not being kernel images. Only
//! wrong bytes are damage.

use crate::support::context::{RunResult, TestContext, compress, sha256};
use crate::support::fixtures::{Item, kernel, layer, named, put_image, put_index, put_manifest, tar_with};
use crate::support::layouts::add_blob;
use Item::{Dir, File, HardLink, SymLink};
use camino::Utf8PathBuf;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use tar::EntryType;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Returns the layout `x` with these named descriptors.
fn layout(context: &TestContext) -> Utf8PathBuf {
    let layout = context.path("work/x");
    let _ = fs::remove_dir_all(&layout);
    layout
}

/// Makes a layout with one image of these uncompressed layers.
fn image(context: &TestContext, layers: &[Vec<u8>]) {
    let layout = layout(context);
    let image = named(put_image(&layout, layers, &Value::Null), "1");
    put_index(&layout, &[image]);
}

/// Checks that verify succeeds, and returns its output as one line.
#[track_caller]
fn whole(context: &TestContext) -> String {
    let RunResult { code, stdout, stderr } = context.run("verify x");
    let said = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(code == 0 && !said.contains("DAMAGED") && !said.contains("FAILED"), "{stdout}{stderr}");
    let inspected = context.run("inspect x");
    assert!(!inspected.stdout.contains("on the machine that built it"), "{}", inspected.stdout);
    said
}

#[track_caller]
fn not_a_kernel_image(context: &TestContext) {
    let said = whole(context);
    assert!(said.contains("- image not a kernel image"), "{said}");
    let told = context.run("inspect x").ok().stdout;
    assert!(told.contains("image   not a kernel image, for amd64") && !told.contains("Linux"), "{told}");
    let told = context.run("inspect x --json").ok().item();
    assert_eq!(
        (&told["kind"], &told["kernels"], &told["modules"]),
        (&json!("other"), &json!([]), &Value::Null)
    );
}

#[test]
fn other_images_are_not_kernel_images() {
    let context = TestContext::new();
    let initrd = compress(b"070701 a cpio archive", "gz");
    image(
        &context,
        &[layer(&[
            ("boot/System.map-6.1.7", File(b"ffffffff81000000 T _stext\nffffffff82000000 D linux_banner\n")),
            ("boot/initrd.img-6.1.7", File(&initrd)),
            ("boot/dmesg", File(b"[    0.000000] Linux version 6.1.7 (me@here) (gcc)\n")),
            ("boot/config", File(b"\xff\xfe not a config")),
        ])],
    );
    not_a_kernel_image(&context);
    // Beside a kernel it is not a second image.
    let kernel = kernel("6.1.7");
    image(&context, &[layer(&[("boot/vmlinux", File(&kernel)), ("boot/initrd.img", File(&initrd))])]);
    let said = whole(&context);
    assert!(said.contains("ok kernel Linux 6.1.7, an ELF file for x86-64 with a PVH note"), "{said}");
    let told = context.run("inspect x --json").ok().item();
    assert_eq!(told["kernels"].as_array().unwrap().len(), 1, "{told:#}");
}

/// Returns the root file system of a system, with many files and some that kernel images must not
/// have.
fn root_file_system() -> Vec<u8> {
    // Its program headers are far from the start, unlike a kernel's.
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(200, 0);
    (program[18], program[34], program[54], program[56]) = (62, 0x20, 56, 4);
    let blob = vec![7; 2 << 20];
    let names: Vec<String> = (0..1000).map(|number| format!("usr/share/doc/{number}")).collect();
    let mut items = vec![
        ("./", Dir),
        ("dev/null", Item::Other(EntryType::Char)),
        ("etc/passwd", File(b"root:x:0:0::/:/bin/sh\n")),
        ("bin", SymLink("usr/bin")),
        ("usr/bin/sh", File(&program)),
        ("usr/bin/su", HardLink("usr/bin/sh")),
        ("usr/lib/os-release", File(b"ID=x\n")),
        ("etc/motd", SymLink("/run/motd")),
        ("usr/share/vim/tutor.ko", File(b"Korean")),
        ("usr/share/vim/tutor.ko.xz", File(b"not xz")),
        ("usr/share/blob", File(&blob)),
    ];
    items.extend(names.iter().map(|name| (name.as_str(), File(b"x"))));
    layer(&items)
}

#[test]
fn a_root_file_system_is_not_a_kernel_image() {
    let context = TestContext::new();
    let root = root_file_system();
    image(&context, std::slice::from_ref(&root));
    not_a_kernel_image(&context);
    // With a kernel it is read like any other image.
    let kernel = kernel("6.1.7");
    image(
        &context,
        &[root.clone(), layer(&[("boot/vmlinux", File(&kernel)), ("boot/vmlinuz", SymLink("vmlinux"))])],
    );
    let said = whole(&context);
    assert!(said.contains("- entries 1013 entries of a root file system"), "{said}");
    assert!(said.contains("ok kernel Linux 6.1.7"), "{said}");

    // Wrong bytes are damage here too.
    image(&context, std::slice::from_ref(&root));
    let blob = context.path("work/x/blobs/sha256").join(sha256(&root));
    let mut flipped = root.clone();
    flipped[1 << 20] ^= 1;
    fs::write(&blob, flipped).unwrap();
    let told = context.run("verify x");
    assert!(
        told.code == 3 && told.stdout.contains("DAMAGED  blobs") && told.stdout.contains("checksum mismatch"),
        "{}",
        told.stdout
    );
    fs::remove_file(&blob).unwrap();
    let told = context.run("verify x");
    assert!(
        told.code == 3 && told.stdout.contains("DAMAGED  blobs"),
        "a layer that is missing: {}",
        told.stdout
    );
}

/// Returns a layer in eStargz format, which has a gzip member for each file with its headers, a
/// landmark, a member with the table of contents, and an empty member as footer whose extra field
/// points to that table.
fn estargz(files: &[(&str, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let header = |path: &str, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let padding = |size: usize| vec![0; size.next_multiple_of(512) - size];
    let (mut plain, mut stored, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    let mut pending = Vec::new();
    let landmark = (".no.prefetch.landmark", &b"\x0f"[..]);
    for (path, bytes) in std::iter::once(&landmark).chain(files) {
        pending.extend(header(path, bytes.len()));
        stored.extend(compress(&pending, "gz"));
        plain.append(&mut pending);
        let digest = format!("sha256:{}", sha256(bytes));
        entries.push(json!({"name": path, "type": "reg", "size": bytes.len(), "mode": 420, "offset": stored.len(), "digest": digest, "chunkDigest": digest}));
        // The payload has two members.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        stored.extend([compress(first, "gz"), compress(second, "gz")].concat());
        plain.extend_from_slice(bytes);
        pending = padding(bytes.len());
    }
    stored.extend(compress(&pending, "gz"));
    plain.append(&mut pending);
    let toc_at = stored.len();
    let toc = json!({"version": 1, "entries": entries}).to_string();
    let toc =
        [header("stargz.index.json", toc.len()), toc.clone().into_bytes(), padding(toc.len()), vec![0; 1024]]
            .concat();
    stored.extend(compress(&toc, "gz"));
    plain.extend(toc);
    let extra = format!("{toc_at:016x}STARGZ");
    let mut footer = flate2::GzBuilder::new()
        .extra([&b"SG\x16\0"[..], extra.as_bytes()].concat())
        .write(Vec::new(), flate2::Compression::none());
    footer.flush().unwrap();
    stored.extend(footer.finish().unwrap());
    (stored, plain)
}

#[test]
fn estargz_is_a_layer_like_any_other() {
    let context = TestContext::new();
    let kernel = [kernel("6.1.7"), vec![7; 3 << 20]].concat();
    let layout = layout(&context);
    let (stored, plain) = estargz(&[("bin/vmlinux", &kernel), ("etc/empty", b"")]);
    let mut blob = add_blob(&layout, &stored, &json!(GZIP));
    blob["annotations"] = json!({"containerd.io/snapshot/stargz/toc.digest": "sha256:0"});
    let image = put_manifest(&layout, &[(blob, format!("sha256:{}", sha256(&plain)))], "amd64", &Value::Null);
    put_index(&layout, &[named(image, "1")]);
    let said = whole(&context);
    assert!(said.contains("ok kernel Linux 6.1.7, an ELF file for x86-64"), "{said}");
    let told = context.run("inspect x --json").ok().item();
    assert_eq!(
        (&told["kernels"][0]["path"], &told["kernels"][0]["bytes"]),
        (&json!("bin/vmlinux"), &json!(kernel.len()))
    );
    assert_eq!(told["kernels"].as_array().unwrap().len(), 1, "the landmark and the table are none");
}

#[test]
fn docker_media_types_are_accepted() {
    let context = TestContext::new();
    let layout = layout(&context);
    let tar = layer(&[("bin/vmlinux", File(&kernel("6.1.7")))]);
    let docker = |kind: &str| json!(format!("application/vnd.docker.{kind}"));
    let stored = add_blob(&layout, &compress(&tar, "gz"), &docker("image.rootfs.diff.tar.gzip"));
    let rootfs = json!({"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))]});
    let config =
        json!({"architecture": "amd64", "os": "linux", "docker_version": "24", "rootfs": rootfs}).to_string();
    let config = add_blob(&layout, config.as_bytes(), &docker("container.image.v1+json"));
    let kind = docker("distribution.manifest.v2+json");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [stored]}).to_string();
    let manifest = add_blob(&layout, manifest.as_bytes(), &kind);
    put_index(&layout, &[named(manifest.clone(), "1")]);
    assert!(whole(&context).contains("ok kernel Linux 6.1.7"));
    let told = context.run("inspect x").ok().stdout;
    assert!(told.contains(" as gzip\n"), "{told}");

    let kind = docker("distribution.manifest.list.v2+json");
    let mut one = manifest;
    one["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let list = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [one]}).to_string();
    let list = add_blob(&layout, list.as_bytes(), &kind);
    put_index(&layout, &[named(list, "1")]);
    assert!(whole(&context).contains("ok kernel Linux 6.1.7"));
    context.run("inspect x:1 --as flintlock").failed(2, &["the hypervisor of the image is unknown"]);
}

#[test]
fn long_names_and_global_headers_are_read() {
    let context = TestContext::new();
    let long = format!("lib/modules/6.1.7/kernel/{}", "directory/".repeat(12));
    let module = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\0vermagic=6.1.7 SMP \0";
    let kernel = kernel("6.1.7");
    let path = format!("{long}module.ko");
    // The tar crate writes GNU long names, and git-archive starts with a global header.
    let items = layer(&[
        ("bin/vmlinux", File(&kernel)),
        ("lib/modules/6.1.7/modules.dep", File(format!("{path}:\n").as_bytes())),
        (path.as_str(), File(module)),
        ("link", SymLink(&long)),
    ]);
    let comment = b"52 comment=0123456789012345678901234567890123456789\n";
    let global = tar_with(&[("pax_global_header", EntryType::XGlobalHeader, comment)]);
    // Without the two blocks at its end.
    image(&context, &[[&global[..global.len() - 1024], &items].concat()]);
    let said = whole(&context);
    assert!(said.contains("ok modules 1 module for Linux 6.1.7"), "{said}");
    let told = context.run("inspect x --json").ok().item();
    assert_eq!((&told["modules"]["count"], &told["layers"][0]["entries"]), (&json!(1), &json!(4)));
}

fn index_over(layout: &camino::Utf8Path, manifests: &[Value]) -> Value {
    let kind = json!("application/vnd.oci.image.index.v1+json");
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    add_blob(layout, index.to_string().as_bytes(), &kind)
}

#[test]
fn nested_indexes_are_followed() {
    let context = TestContext::new();
    let layout = layout(&context);
    let one = put_image(&layout, &[layer(&[("bin/vmlinux", File(&kernel("6.1.7")))])], &Value::Null);
    let other = put_image(&layout, &[layer(&[("etc/motd", File(b"hello"))])], &Value::Null);
    let inner = index_over(&layout, &[one.clone(), other.clone()]);
    let outer = index_over(&layout, &[inner.clone(), one.clone()]);
    put_index(&layout, &[named(outer, "1")]);
    let said = whole(&context);
    assert_eq!(said.matches("ok blobs").count(), 2, "each is there once: {said}");
    assert!(said.contains("ok kernel Linux 6.1.7") && said.contains("not a kernel image"), "{said}");
    assert_eq!(context.run("inspect x").ok().stdout.matches("\nimage   ").count(), 2);

    // Eight levels, in which each index names the one below a hundred times.
    let mut tower = inner;
    for _ in 0..6 {
        tower = index_over(&layout, &vec![tower; 100]);
    }
    put_index(&layout, &[named(tower.clone(), "1")]);
    assert_eq!(whole(&context).matches("ok blobs").count(), 2);
    for _ in 0..3 {
        tower = index_over(&layout, &[tower]);
    }
    put_index(&layout, &[named(tower, "1")]);
    let told = context.run("verify x");
    assert!(told.code == 3 && told.stdout.contains("REFUSED  blobs"), "{}", told.stdout);
    context.run("inspect x").failed(3, &["indexes are nested more than 8 levels deep"]);
}

#[test]
fn artifacts_are_not_kernel_images() {
    let context = TestContext::new();
    let layout = layout(&context);
    let manifest = json!("application/vnd.oci.image.manifest.v1+json");
    let artifact = |config: (&[u8], &str), file: (&[u8], &str), kind: Option<&str>| {
        let mut value = json!({
            "schemaVersion": 2, "mediaType": manifest,
            "config": add_blob(&layout, config.0, &json!(config.1)),
            "layers": [add_blob(&layout, file.0, &json!(file.1))],
        });
        if let Some(kind) = kind {
            value["artifactType"] = json!(kind);
        }
        add_blob(&layout, value.to_string().as_bytes(), &manifest)
    };
    let empty = (&b"{}"[..], "application/vnd.oci.empty.v1+json");
    let image_config =
        json!({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}})
            .to_string();
    let image_config = (image_config.as_bytes(), "application/vnd.oci.image.config.v1+json");
    let oras = artifact(empty, (b"a file", "text/plain"), Some("application/vnd.example.sbom"));
    let old_oras =
        artifact((b"{}", "application/vnd.unknown.config.v1+json"), (b"a file", "text/plain"), None);
    let helm = artifact(
        (b"{\"name\":\"x\"}", "application/vnd.cncf.helm.config.v1+json"),
        (b"tgz", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
        None,
    );
    let cosign = artifact(image_config, (b"{}", "application/vnd.dev.cosign.simplesigning.v1+json"), None);
    let blob = add_blob(&layout, b"anything", &json!("application/vnd.example.thing"));
    for (descriptor, says) in [
        (oras.clone(), "an artifact of type application/vnd.example.sbom"),
        (old_oras, "an artifact of type application/vnd.unknown.config.v1+json"),
        (helm, "an artifact of type application/vnd.cncf.helm"),
        (cosign, "an artifact of type application/vnd.dev.cosign.simplesigning.v1+json"),
        (blob, "a blob of type application/vnd.example.thing"),
    ] {
        put_index(&layout, &[named(descriptor, "1")]);
        let said = whole(&context);
        assert!(said.contains(&format!("- image not a kernel image: {says}")), "{said}");
        assert!(said.contains("sizes and digests"), "{said}");
        context.run("inspect x").failed(2, &["no image of this name, only ", says]);
    }
    // A manifest with another media type.
    let mut disguised = oras.clone();
    disguised["mediaType"] = json!("application/vnd.example.thing");
    put_index(&layout, &[named(disguised, "1")]);
    let told = context.run("verify x");
    assert!(told.code == 1 && told.stdout.contains("FAILED   image"), "{}", told.stdout);
    // Beside a kernel they do not count.
    let kernel = put_image(&layout, &[layer(&[("bin/vmlinux", File(&kernel("6.1.7")))])], &Value::Null);
    put_index(&layout, &[named(kernel, "1"), named(oras, "2")]);
    assert!(whole(&context).contains("ok kernel Linux 6.1.7"));
    assert_eq!(context.run("inspect x").ok().stdout.matches("image   ").count(), 1);
    fs::write(layout.join("blobs/sha256").join(sha256(b"a file")), "a bomb").unwrap();
    let told = context.run("verify x");
    assert!(told.code == 3 && told.stdout.contains("DAMAGED  blobs"), "{}", told.stdout);
}

#[test]
fn labels_replace_missing_annotations() {
    let context = TestContext::new();
    let layout = layout(&context);
    let tar = layer(&[("bin/vmlinux", File(&kernel("6.1.7")))]);
    let blob = add_blob(&layout, &tar, &json!("application/vnd.oci.image.layer.v1.tar"));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Labels": {"io.github.kcompile.flavor": "firecracker", "io.github.kcompile.kernel.release": "6.1.8"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))]},
    });
    let config =
        add_blob(&layout, config.to_string().as_bytes(), &json!("application/vnd.oci.image.config.v1+json"));
    let kind = json!("application/vnd.oci.image.manifest.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [blob]});
    put_index(&layout, &[named(add_blob(&layout, manifest.to_string().as_bytes(), &kind), "1")]);
    let told = context.run("inspect x --json").ok().item();
    assert_eq!(told["flavor"], "firecracker");
    let told = context.run("verify x");
    assert!(
        told.code == 1 && told.stdout.contains("bin/vmlinux is Linux 6.1.7, but the annotation says 6.1.8"),
        "{}",
        told.stdout
    );
}
