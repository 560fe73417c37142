//! `kcompile inspect` shows the content of an image and parts of machine specifications.

use crate::support::context::{TestContext, copy, sha256};
use crate::support::fixtures::{Item, kernel, layer, named, put_image_for, put_index};
use crate::support::layouts::add_blob;
use serde_json::{Value, json};
use std::fs;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

fn inspected(context: &TestContext, image: &str) -> Value {
    context.run(&format!("inspect {image} --json")).ok().item()
}

#[test]
fn inspect_reports_contents_and_origin() {
    let context = TestContext::new();
    let built = context.build("--set IKCONFIG=y").ok();
    let before = context.snapshot("work/out");
    let kernel = inspected(&context, BIN);
    assert_eq!(kernel["digest"].as_str(), Some(built.digests()[0].as_str()));
    assert_eq!((&kernel["kind"], &kernel["tag"]), (&json!("kernel"), &json!("6.1.7")));
    assert_eq!((&kernel["release"], &kernel["flavor"]), (&json!("6.1.7"), &json!("firecracker")));
    let file = &kernel["kernels"][0];
    assert_eq!((&file["path"], &file["also_at"]), (&json!("bin/vmlinux"), &json!(["boot/vmlinux"])));
    assert_eq!(
        (&file["pvh"], &file["format"]),
        (&json!(true), &json!("an ELF file for x86-64 with a PVH note"))
    );
    assert!(file["banner"].as_str().unwrap().starts_with("Linux version 6.1.7 (kcompile@kcompile) ("));
    assert_eq!(file["build_id"].as_str().unwrap().len(), 40);
    assert_eq!(kernel["config"]["place"], "inside bin/vmlinux");
    assert_eq!(
        (&kernel["receipt"]["state"], kernel["layers"][0]["entries"].as_u64()),
        (&json!("of"), Some(4))
    );
    assert!(kernel["receipt"]["command"].as_str().unwrap().contains("--config mini.config"));
    assert_eq!(kernel["annotations"], kernel["labels"]);

    let modules = inspected(&context, &format!("{MODULES}:6.1.7"));
    assert_eq!((&modules["kind"], &modules["release"]), (&json!("modules"), &json!("6.1.7")));
    assert_eq!(modules["modules"]["directory"], "lib/modules/6.1.7");
    assert_eq!(modules["modules"]["releases"], json!(["6.1.7"]));
    assert_eq!(modules["modules"]["count"], 4, "bridge, dummy, llc, stp");
    assert_eq!(modules["config"]["place"], "lib/modules/6.1.7/config");
    assert_eq!(modules["config"]["sha256"], kernel["config"]["sha256"]);
    assert_eq!(context.snapshot("work/out"), before, "nothing was written");
}

#[test]
fn inspect_fits_80_columns() {
    let context = TestContext::new();
    context.build("--legacy").ok();
    let told = context.run(&format!("inspect {BIN} {MODULES} out/flintlock-kernel")).ok().stdout;
    for text in [
        "out/firecracker-kernel-bin-amd64:6.1.7\nimage   a kernel: Linux 6.1.7 for Firecracker on amd64\n        sha256:",
        "\nkernel  bin/vmlinux, boot/vmlinux, ",
        "\nmodules 4 modules in lib/modules/6.1.7, ",
        "\n\nout/flintlock-kernel:6.1.7\nimage   a kernel and its modules: ",
        "bin/vmlinux, boot/vmlinux, ",
        "\nreceipt out/firecracker-6.1.7-amd64.json\n",
        "$ ",
    ] {
        assert!(told.contains(text), "`{text}` is not in:\n{told}");
    }
    // Line breaks depend on the size of the kernel.
    let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
    let kernel = ": an ELF file for x86-64 with a PVH note Linux version 6.1.7 (kcompile@kcompile) (";
    assert!(words.contains(kernel), "`{kernel}` is not in:\n{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    let all: Value =
        serde_json::from_str(&context.run(&format!("inspect {BIN} {MODULES} --json")).ok().stdout).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_receipt_of_another_image_is_ignored() {
    let context = TestContext::new();
    context.build("").ok();
    let receipt = context.path("work/out/firecracker-6.1.7-amd64.json");
    // The attached one would be used.
    fs::remove_dir_all(context.path(&format!("work/{BIN}-attest"))).unwrap();
    fs::write(&receipt, fs::read_to_string(&receipt).unwrap().replace("sha256:", "sha256:0")).unwrap();
    assert_eq!(inspected(&context, BIN)["receipt"]["state"], "of-another");
    fs::write(&receipt, "{").unwrap();
    assert_eq!(inspected(&context, BIN)["receipt"]["state"], "unreadable");
    let shown = context.run(&format!("inspect {BIN}")).ok().stdout;
    let on_one_line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(on_one_line.contains("is not a receipt"), "{shown}");
    fs::remove_file(&receipt).unwrap();
    assert_eq!(inspected(&context, BIN)["receipt"]["state"], "absent");
}

#[test]
fn inspect_prints_flintlock_and_capmvm_specifications() {
    let context = TestContext::new();
    context.build("--modules-layout flat").ok();
    let told = context.run(&format!("inspect {BIN} --as flintlock --registry docker.io/foobar/")).ok();
    let spec: Value = serde_json::from_str(&told.stdout).unwrap();
    let image = |name: &str| format!("docker.io/foobar/firecracker-kernel-{name}-amd64:6.1.7");
    assert_eq!(
        (&spec["kernel"]["image"], &spec["kernel"]["filename"]),
        (&json!(image("bin")), &json!("bin/vmlinux"))
    );
    assert_eq!(spec["kernel"]["cmdline"]["console"], "ttyS0");
    assert_eq!(
        spec["additionalVolumes"],
        json!([{"id": "modules", "mountPoint": "/lib/modules/6.1.7", "source": {"containerSource": image("modules")}}])
    );
    // The modules' own layout gives the same result.
    let other =
        context.run(&format!("inspect {MODULES}:6.1.7 --as flintlock --registry docker.io/foobar")).ok();
    assert_eq!(other.stdout, told.stdout);
    let told = context.run(&format!("inspect {BIN} --as capmvm --registry docker.io/foobar")).ok().stdout;
    let expected = format!(
        "  image: \"{}\"\n  filename: \"bin/vmlinux\"\nkernelCmdline:\n  console: \"ttyS0\"\n",
        image("bin")
    );
    assert!(told.contains(&expected), "{told}");
    let volume = format!(
        "volumes:\n- id: \"modules\"\n  image: \"{}\"\n  mountPoint: \"/lib/modules/6.1.7\"\n",
        image("modules")
    );
    assert!(told.ends_with(&volume), "{told}");
}

#[test]
fn tree_layout_modules_need_a_bind_mount() {
    let context = TestContext::new();
    context.build("").ok();
    let told = context.run(&format!("inspect {BIN} --as capmvm")).ok();
    assert!(told.stdout.contains("mountPoint: \"/opt/kernel-modules\""), "{}", told.stdout);
    told.says("mount --bind /opt/kernel-modules/lib/modules/6.1.7 /lib/modules/6.1.7")
        .says("--modules-layout flat");
    fs::remove_dir_all(context.path("work").join(MODULES)).unwrap();
    let told = context
        .run(&format!("inspect {BIN} --as capmvm"))
        .ok()
        .says("the layout beside the kernel has no modules image");
    assert!(!told.stdout.contains("volumes"));
}

#[test]
fn modules_of_another_kernel_are_refused_in_a_specification() {
    let context = TestContext::new();
    context.build("").ok();
    let modules = context.path("work").join(MODULES);
    crate::support::context::copy(&modules, &context.path("work/kept"));
    context.build("--set LOCALVERSION=\"-other\"").ok();
    fs::remove_dir_all(&modules).unwrap();
    fs::rename(context.path("work/kept"), &modules).unwrap();
    context.run(&format!("inspect {BIN} --as flintlock")).failed(1, &["do not belong together"]);
}

#[test]
fn images_that_cannot_be_inspected_are_a_usage_error() {
    let context = TestContext::new();
    context.build("").ok();
    context.run("inspect nowhere").failed(2, &["no such directory"]);
    context.run("inspect linux").failed(2, &["is not an OCI layout"]);
    context
        .run(&format!("inspect {BIN}:6.1.8"))
        .failed(2, &["no image with the tag 6.1.8", "its tags are 6.1.7"]);
    context.run(&format!("inspect {BIN} {MODULES} --as capmvm")).failed(2, &["--as needs exactly one image"]);
    context.run(&format!("inspect {BIN} --as capmvm --json")).failed(2, &["cannot be used with"]);

    // Output before a damaged image is complete.
    let blobs = context.path("work").join(MODULES).join("blobs/sha256");
    let layer = blobs.read_dir_utf8().unwrap().map(|blob| blob.unwrap().into_path());
    let layer = layer.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    fs::write(&layer, vec![0; layer.metadata().unwrap().len() as usize]).unwrap();
    let ran = context.run(&format!("inspect {BIN} {MODULES} --json")).failed(3, &["checksum mismatch"]);
    ran.item();
}

#[test]
fn control_characters_of_an_image_are_escaped() {
    let context = TestContext::new();
    context.build("").ok();
    let layout = context.path("work").join(BIN);
    // The same image with annotations and a tag that try to clear the screen.
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &str| layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut manifest: Value = serde_json::from_slice(&fs::read(blob(&digest)).unwrap()).unwrap();
    manifest["annotations"]["org.opencontainers.image.version"] = json!("6.1.7\u{1b}[2J\u{9b}31m");
    let bytes = manifest.to_string();
    fs::write(blob(&sha256(bytes.as_bytes())), &bytes).unwrap();
    index["manifests"][0]["digest"] = json!(format!("sha256:{}", sha256(bytes.as_bytes())));
    index["manifests"][0]["size"] = json!(bytes.len());
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = json!("x\u{1b}[2J");
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let is_plain = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n');
    for args in ["", "--json", "--as capmvm"] {
        let told = context.run(&format!("inspect {BIN} {args}")).ok();
        assert!(is_plain(&told.stdout) && is_plain(&told.stderr), "{}{}", told.stdout, told.stderr);
    }
    let refused = context.run(&format!("inspect {BIN}:6")).failed(2, &["its tags are x\\u{1b}[2J"]);
    assert!(is_plain(&refused.stderr), "{}", refused.stderr);
}

/// Copies a kernel image and its attachments to another directory, like a copy from a registry.
fn copied(context: &TestContext) -> String {
    for end in ["", "-attest"] {
        let name = format!("firecracker-kernel-bin-amd64{end}");
        copy(&context.path("work/out").join(&name), &context.path("work/copied").join(&name));
    }
    "copied/firecracker-kernel-bin-amd64:6.1.7".into()
}

/// Returns the blob of an attached file by the end of its name beside the layouts.
fn attached(context: &TestContext, end: &str) -> camino::Utf8PathBuf {
    let bytes = fs::read(context.path(&format!("work/out/firecracker-6.1.7-amd64{end}"))).unwrap();
    context.path("work/copied/firecracker-kernel-bin-amd64-attest/blobs/sha256").join(sha256(&bytes))
}

#[test]
fn receipts_and_provenance_are_read_from_attachments() {
    let context = TestContext::new();
    context.build("").ok();
    let image = copied(&context);
    let beside = inspected(&context, BIN);
    let found = inspected(&context, &image);
    for key in ["state", "source_verified", "tools", "plan", "command", "findings"] {
        assert_eq!(found["receipt"][key], beside["receipt"][key], "{key}");
    }
    assert_eq!(found["receipt"]["path"].as_str().unwrap(), attached(&context, ".json"));
    let text = context.run(&format!("inspect {image}")).ok().stdout;
    assert!(text.contains("\nreceipt attached in copied/firecracker-kernel-bin-amd64-attest\n"), "{text}");
    // The provenance has the time and the builder.
    let statement: Value = serde_json::from_slice(
        &fs::read(context.path("work/out/firecracker-6.1.7-amd64.provenance.json")).unwrap(),
    )
    .unwrap();
    let metadata = &statement["predicate"]["runDetails"]["metadata"];
    for found in [&beside, &found] {
        assert_eq!(found["provenance"]["started"], metadata["startedOn"], "{found}");
        assert_eq!(found["provenance"]["finished"], metadata["finishedOn"]);
        assert_eq!(found["provenance"]["builder"], "https://kcompile.github.io/builder/local/v1");
    }
    assert_eq!(found["provenance"]["path"].as_str().unwrap(), attached(&context, ".provenance.json"));
    // Other commands use it too.
    let told = context.run(&format!("verify {image} --rebuild")).ok().stdout;
    assert!(told.contains("ok       receipt      the receipt attached in\n"), "{told}");
    assert!(told.contains("ok       firecracker-kernel-bin-amd64:6.1.7\n"), "{told}");
    context.build("--set PSI=y").ok();
    let difference: Value =
        serde_json::from_str(&context.run(&format!("diff {image} {BIN} --json")).ok().stdout).unwrap();
    assert_eq!(difference["tools"], json!([]));
    // A file of another build of this version is not a receipt of the image.
    fs::copy(
        context.path("work/out/firecracker-6.1.7-amd64.json"),
        context.path("work/copied/firecracker-6.1.7-amd64.json"),
    )
    .unwrap();
    assert_eq!(inspected(&context, &image)["receipt"]["path"], found["receipt"]["path"]);
}

#[test]
fn an_attached_receipt_must_match_its_image() {
    let context = TestContext::new();
    context.build("--no-modules").ok();
    let image = copied(&context);
    let receipt = attached(&context, ".json");
    let whole = fs::read(&receipt).unwrap();
    let state = || inspected(&context, &image)["receipt"]["state"].clone();
    assert_eq!(state(), "of");
    for damaged in [&whole[..whole.len() - 2], &[b"x", &whole[1..]].concat(), &vec![b'['; whole.len()]] {
        fs::write(&receipt, damaged).unwrap();
        assert_eq!(state(), "unreadable");
        context.run(&format!("verify {image}")).failed(1, &[]);
    }
    fs::remove_file(&receipt).unwrap();
    std::os::unix::fs::symlink(context.path("work/out/firecracker-6.1.7-amd64.json"), &receipt).unwrap();
    assert_eq!(state(), "unreadable");
    // A damaged layout or another file in its place is not a fault of the image.
    let attest = context.path("work/copied/firecracker-kernel-bin-amd64-attest");
    fs::write(attest.join("index.json"), "[]").unwrap();
    assert_eq!(state(), "unreadable");
    fs::remove_dir_all(&attest).unwrap();
    assert_eq!(state(), "absent");
    fs::write(&attest, "").unwrap();
    assert_eq!(state(), "absent");
}

#[test]
fn multi_arch_tags_have_specifications() {
    let context = TestContext::new();
    let layout = context.path("work/firecracker-kernel-bin");
    let image = |arch: &str, path: &str| {
        put_image_for(&layout, &[layer(&[(path, Item::File(&kernel("6.1.7")))])], arch)
    };
    let kind = json!("application/vnd.oci.image.index.v1+json");
    let images = [image("amd64", "bin/vmlinux"), image("arm64", "bin/Image")];
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": images}).to_string();
    put_index(&layout, &[named(add_blob(&layout, index.as_bytes(), &kind), "6.1.7")]);
    let spec = |args: &str| -> Value {
        let told = context.run(&format!("inspect firecracker-kernel-bin:6.1.7 --as flintlock {args}")).ok();
        serde_json::from_str(&told.stdout).unwrap()
    };
    let arm = spec("--arch arm64");
    assert_eq!(arm["kernel"]["image"], "REGISTRY/PREFIX/firecracker-kernel-bin:6.1.7");
    assert_eq!(
        (&arm["kernel"]["filename"], &arm["kernel"]["cmdline"]["pci"]),
        (&json!("bin/Image"), &Value::Null)
    );
    let pc = spec("--arch amd64");
    assert_eq!(
        (&pc["kernel"]["filename"], &pc["kernel"]["cmdline"]["pci"]),
        (&json!("bin/vmlinux"), &json!("off"))
    );
    if cfg!(target_arch = "x86_64") {
        assert_eq!(spec(""), pc, "this machine's");
    }
}

#[test]
fn inspect_prints_what_starts_a_hypervisor() {
    let context = TestContext::new();
    context.build("").ok();
    let told = context.run(&format!("inspect {BIN} --as firecracker")).ok();
    let told = told.says("`kcompile extract 6.1.7 --fc` writes vmlinux");
    let config: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(
        config["boot-source"],
        json!({"kernel_image_path": "vmlinux", "boot_args": "console=ttyS0 panic=1 reboot=k pci=off"})
    );
    assert_eq!(config["machine-config"], json!({"vcpu_count": 2, "mem_size_mib": 1024}));
    assert_eq!(config["drives"][0]["is_root_device"], true);
    context
        .run(&format!("inspect {BIN} --as cloud-hypervisor"))
        .failed(2, &["the kernel is for Firecracker", "use --as firecracker"]);
    context.run("6.1.7 --ch --source linux --config mini.config").ok();
    let told = context.run("inspect out/cloudhypervisor-kernel-bin-amd64 --as cloud-hypervisor").ok().stdout;
    assert!(told.starts_with("cloud-hypervisor --kernel vmlinux.bin --disk path=rootfs.ext4 \\\n"), "{told}");
    assert!(told.contains("--cmdline 'console=ttyS0 panic=1 reboot=t root=/dev/vda rw'"), "{told}");
}
