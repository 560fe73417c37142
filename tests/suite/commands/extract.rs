//! `kcompile extract` writes plain files out of images.

use crate::support::context::{TestContext, sha256};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

fn inspected(context: &TestContext, image: &str) -> Value {
    context.run(&format!("inspect {image} --json")).ok().item()
}

#[test]
fn extract_writes_what_inspect_describes() {
    let context = TestContext::new();
    context.build("").ok();
    let kernel = inspected(&context, BIN);
    let bytes = |name: &str| fs::read(context.path(&format!("work/{name}"))).unwrap();
    for (args, stdout, file) in [
        ("6.1 --fc", "vmlinux\n", "vmlinux"),
        (&*format!("{BIN}:6.1.7 -o new/kernel"), "new/kernel\n", "new/kernel"),
        (&*format!("{MODULES} -o vmlinux"), "vmlinux\n", "vmlinux"),
    ] {
        assert_eq!(context.run(&format!("extract {args}")).ok().stdout, stdout);
        let digest = format!("sha256:{}", sha256(&bytes(file)));
        assert_eq!(kernel["kernels"][0]["sha256"], digest, "{args}");
    }

    // The image of the kernel leads to the modules beside it.
    let told = context.run(&format!("extract {BIN} --modules root --config made/config")).ok();
    assert_eq!(told.stdout, "root/lib/modules/6.1.7\nmade/config\n");
    let config = format!("sha256:{}", sha256(&bytes("made/config")));
    assert_eq!(inspected(&context, MODULES)["config"]["sha256"], config);
    assert_eq!(bytes("root/lib/modules/6.1.7/config"), bytes("made/config"));
    let dep = String::from_utf8(bytes("root/lib/modules/6.1.7/modules.dep")).unwrap();
    let modules: Vec<&str> = dep.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(modules.len(), 4);
    for module in modules {
        assert!(bytes(&format!("root/lib/modules/6.1.7/{module}")).len() > 100, "{module}");
    }

    // A second time the directory is there.
    let again = context.run(&format!("extract {BIN} --modules root"));
    again.failed(2, &["root/lib/modules/6.1.7 exists already", "remove it first"]);
}

#[test]
fn every_kind_of_image_is_extracted_to_the_same_files() {
    let context = TestContext::new();
    context.build("--combined-image --modules-layout flat").ok();
    context.run(&format!("extract {BIN} -o one/vmlinux --modules one --config one/config")).ok();
    context.run("extract out/flintlock-kernel -o two/vmlinux --modules two --config two/config").ok();
    for name in ["vmlinux", "config", "lib/modules/6.1.7/modules.dep"] {
        let read = |dir: &str| fs::read(context.path(&format!("work/{dir}/{name}"))).unwrap();
        assert_eq!(read("one"), read("two"), "{name}");
    }
}

#[test]
fn debuggers_get_the_unstripped_kernel_of_the_same_build() {
    let context = TestContext::new();
    context.tree("5.15.12", "work/other");
    context.run("5.15.12 --ch --source other --config mini.config").ok();
    context.build("").ok();
    let told = context.run("extract 5.15 --ch --debug symbols").ok().stdout;
    assert_eq!(told, "symbols/vmlinux\nsymbols/System.map\n");
    context.run("extract 5.15 --ch").ok();
    let bytes = |name: &str| fs::read(context.path(&format!("work/{name}"))).unwrap();
    let banner = |bytes: &[u8]| bytes.windows(22).any(|part| part == b"Linux version 5.15.12 ");
    assert!(banner(&bytes("symbols/vmlinux")) && banner(&bytes("vmlinux.bin")));
    assert!(bytes("symbols/vmlinux").len() > bytes("vmlinux.bin").len(), "one has symbols");
    context.run("clean --builds").ok();
    context
        .run("extract 5.15 --ch --debug more")
        .failed(2, &["has the kernel with build id", "build it again with --rebuild"]);
    assert!(!context.path("work/more").exists());
}

#[test]
fn nothing_is_written_for_a_wrong_request() {
    let context = TestContext::new();
    context.build("--no-modules").ok();
    symlink("target", context.path("work/link")).unwrap();
    fs::create_dir_all(context.path("work/root")).unwrap();
    symlink(context.path("home"), context.path("work/root/lib")).unwrap();
    fs::write(context.path("work/empty"), "").unwrap();
    let before = context.snapshot("work");
    for (args, says) in [
        (format!("{BIN} -o link"), "link is not a regular file"),
        (format!("{BIN} -o root"), "root is not a regular file"),
        (format!("{BIN} -o /dev/null"), "/dev/null is not a regular file"),
        (format!("{BIN} --modules new"), "has no modules"),
        (format!("{BIN}:6.1.8"), "6.1.8"),
        ("6.6 --fc".to_owned(), "no image of 6.6 for amd64"),
        ("empty".to_owned(), "empty is not an OCI layout"),
        ("nothing".to_owned(), "nothing: no such file or directory"),
        (format!("{BIN} --cache-dir x"), "--debug"),
    ] {
        context.run(&format!("extract {args}")).failed(2, &[says]);
    }
    assert_eq!(context.snapshot("work"), before);
    context.run("clean --builds").ok();
    context.build("").ok();
    let built = context.snapshot("work");
    context.run(&format!("extract {BIN} --modules root")).failed(2, &["leads out of it"]);
    assert_eq!(context.snapshot("work"), built);
}

#[test]
fn a_damaged_image_leaves_no_file() {
    let context = TestContext::new();
    context.build("").ok();
    let blobs = context.path(&format!("work/{BIN}/blobs/sha256"));
    let largest = fs::read_dir(&blobs).unwrap().map(|found| found.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let before = context.snapshot("work");
    context.run(&format!("extract {BIN} -o vmlinux")).failed(3, &["mismatch"]);
    assert_eq!(context.snapshot("work"), before);
}
