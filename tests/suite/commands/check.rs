//! Requirement profiles in `check` and before builds.

use crate::support::context::{TestContext, compress};
use crate::support::fixtures::{craft, tar_with};
use crate::support::servers::mirror;
use serde_json::{Value, json};
use std::fs;

const MODULES: &str = "out/firecracker-kernel-modules-amd64";
const HEADER: &str = "# Linux/x86 5.10.77 Kernel Configuration\n";
const PROFILE: &str = "title = \"mine\"\nsource = \"me\"\n[[kernel]]\nversion = \">=5.8\"\nlevel = \"required\"\n\
                       reason = \"new things\"\n[[option]]\nsymbols = [\"NET\", \"A|B\"]\nlevel = \"required\"\n\
                       reason = \"a network\"\n[[option]]\nsymbols = [\"KSM\"]\nlevel = \"recommended\"\n\
                       reason = \"saves memory\"\n[[option]]\nsymbols = [\"DEVKMEM\"]\nlevel = \"forbidden\"\n\
                       reason = \"unsafe\"\n";

/// Returns a context with a profile `mine` in `own`, and `x.config` with this text.
fn context(config: &str) -> TestContext {
    let context = TestContext::new();
    fs::create_dir_all(context.path("work/own/requirements")).unwrap();
    fs::write(context.path("work/own/requirements/mine.toml"), PROFILE).unwrap();
    fs::write(context.path("work/x.config"), config).unwrap();
    context
}

#[test]
fn a_config_is_checked_against_a_user_profile() {
    let context = context(&format!("{HEADER}CONFIG_NET=y\nCONFIG_B=m\n"));
    let told = context.run("check x.config --for mine --configs own").ok();
    assert!(told.stdout.starts_with("x.config: Linux 5.10.77 on amd64\n"), "{}", told.stdout);
    assert!(told.stdout.contains("mine: 0 required and 1 recommended not met, 4 met"), "{}", told.stdout);
    assert!(told.stdout.contains("recommended  KSM ") && told.stdout.contains("saves memory (me)"));
    assert!(!told.stdout.contains("NET ") && told.stdout.lines().all(|line| line.chars().count() <= 80));
    assert!(
        context
            .run("check x.config --for mine --configs own --all")
            .ok()
            .stdout
            .contains("met          NET ")
    );

    fs::write(context.path("work/x.config"), format!("{HEADER}CONFIG_NET=y\nCONFIG_DEVKMEM=y\n")).unwrap();
    let told = context.run("check x.config --for mine --configs own --kernel 4.19.215");
    assert_eq!(told.code, 1, "{}", told.stderr);
    let places =
        ["REQUIRED     kernel version", "REQUIRED     A | B", "FORBIDDEN    DEVKMEM", "recommended  KSM"]
            .map(|text| told.stdout.find(text).unwrap_or_else(|| panic!("{text}: {}", told.stdout)));
    assert!(places.is_sorted(), "{}", told.stdout);

    let told = context.run("check x.config --for mine --configs own --json");
    let json: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((told.code, &json["ok"], &json["kernel"]), (1, &json!(false), &json!("5.10.77")));
    assert_eq!(json["profiles"][0]["failed"], 2);
    let devkmem =
        json["outcomes"].as_array().unwrap().iter().find(|one| one["symbols"][0] == "DEVKMEM").unwrap();
    assert_eq!(
        (&devkmem["verdict"], &devkmem["found"], &devkmem["level"]),
        (&json!("failed"), &json!("y"), &json!("forbidden"))
    );
}

#[test]
fn several_profiles_are_grouped() {
    let context = context(&format!("{HEADER}CONFIG_X86_64=y\n"));
    let told = context.run("check x.config --for kubernetes-1.37 cilium --for calico,docker");
    assert_eq!(told.code, 1);
    let places = ["\nkubernetes-1.37: ", "\ncilium: ", "\ncalico: ", "\ndocker: "]
        .map(|name| told.stdout.find(name).unwrap());
    // An address is never broken into lines, since people open it.
    let fits = |line: &str| line.chars().count() <= 80 || line.contains("https://");
    assert!(places.is_sorted() && told.stdout.lines().all(fits), "{}", told.stdout);
    // Gone before 5.10, and x86 settings do not matter for arm64.
    assert!(!told.stdout.contains("NF_NAT_IPV4") && !told.stdout.contains("MEMCG_SWAP"), "{}", told.stdout);
}

#[test]
fn check_asks_for_what_the_config_does_not_say() {
    let context = context("CONFIG_NET=y\nCONFIG_B=y\n");
    let check = |args: &str| context.run(&format!("check {args}"));
    check("x.config --for mine --configs own")
        .failed(2, &["no header with the kernel version", "--kernel VERSION"]);
    check("x.config --for mine --configs own --kernel 6.1.7")
        .failed(2, &["the architecture of the config is unknown", "--arch"]);
    check("x.config --for mine --configs own --kernel 6.1.7 --arch amd64").ok();
    check("x.config --kernel 6.1.7 --arch amd64")
        .failed(2, &["the hypervisor is unknown", "kubernetes-1.37", "hardening"]);
    assert!(check("x.config --kernel 6.1.7 --arch amd64 --fc").stdout.contains("\nfirecracker: "));
    check("x.config --for nobody")
        .failed(2, &["unknown requirement profile `nobody`", "the known profiles are calico"]);
    check("nowhere").failed(2, &["no such file or directory, and not a kernel version"]);
    check("work").failed(2, &["no such file"]);
    check("own --for docker").failed(2, &["is not an OCI layout"]);
    fs::write(context.path("work/linux-5.12.config"), format!("{HEADER}CONFIG_X86_64=y\n")).unwrap();
    check("linux-5.12.config --for docker")
        .says("the file name says Linux 5.12, but the header says 5.10.77");
    fs::write(context.path("work/no.config"), "hello\nworld\n").unwrap();
    check("no.config --for docker").failed(2, &["not a kernel config"]);
    let wrong = PROFILE.replace("\"recommended\"", "\"nice\"");
    fs::write(context.path("work/own/requirements/mine.toml"), wrong).unwrap();
    check("x.config --for mine --configs own").failed(
        2,
        &["own/requirements/mine.toml: TOML parse error at line 13, column 9: level: unknown variant `nice`"],
    );
}

#[test]
fn catalog_configs_meet_the_profile_of_their_hypervisor() {
    let context = TestContext::new();
    for kernel in ["5.10 --fc", "6.1 --fc", "5.10 --ch", "6.1 --ch"] {
        for profile in ["", "--for flintlock", "--for kubernetes-1.37", "--for docker"] {
            let told = context.run(&format!("check {kernel} {profile}")).ok();
            assert!(told.stderr.contains("checked the settings of"), "{}", told.stderr);
            assert!(
                told.stdout.contains(" open") && !told.stdout.contains("met          "),
                "{}",
                told.stdout
            );
        }
    }
    assert!(!context.path("cache").exists());
    context.run("check 6.1 --for docker").failed(2, &["--fc or --ch"]);
}

#[test]
fn an_image_is_checked_by_its_embedded_config() {
    let context = context("");
    context.build("").ok();
    let told = context.run(&format!("check {MODULES}")).ok();
    assert!(told.stdout.contains(": Linux 6.1.7 on amd64\n\nfirecracker: 0 required"), "{}", told.stdout);
    context.run(&format!("check {MODULES}:6.1.7 --for firecracker cloud-hypervisor")).ok();
    let told = context.run(&format!("check {MODULES}:6.1.7 --for kubernetes"));
    assert!(told.code == 1 && told.stdout.contains("NAMESPACES"), "{}", told.stdout);
    context
        .run(&format!("check {MODULES}:6.1.8"))
        .failed(2, &["no image with the tag 6.1.8", "its tags are 6.1.7"]);
    context
        .run("check out/firecracker-kernel-bin-amd64")
        .failed(2, &["has no kernel config", "beside it has one: firecracker-kernel-modules-amd64"]);
    context.tree("6.1.8", "work/newer");
    let args =
        "6.1.8 --fc --source newer --config mini.config --modules-layout flat --compression zstd --legacy";
    context.run(args).ok();
    context.run(&format!("check {MODULES}")).failed(2, &["several images", "6.1.7, 6.1.8"]);
    context.run(&format!("check {MODULES}:6.1.8")).ok();
    assert!(context.run("check out/flintlock-kernel --for firecracker").ok().stdout.contains("Linux 6.1.8"));
}

#[test]
fn check_refuses_damaged_layouts_and_names_the_rule() {
    let context = context("");
    context.build("--compression none").ok();
    let good = context.path("work").join(MODULES);
    let index: Value = serde_json::from_slice(&fs::read(good.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| good.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let manifest_path = blob(&index["manifests"][0]["digest"]);
    let manifest: Value = serde_json::from_slice(&fs::read(&manifest_path).unwrap()).unwrap();
    let layer_path = blob(&manifest["layers"][0]["digest"]);
    let refused = |path: &camino::Utf8Path, bytes: &[u8], says: &str| {
        let before = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        context.run(&format!("check {MODULES}")).failed(3, &[says]);
        fs::write(path, before).unwrap();
    };
    let mut layer = fs::read(&layer_path).unwrap();
    layer[..3].copy_from_slice(b"LIB");
    refused(&layer_path, &layer, "checksum mismatch");
    refused(&layer_path, &layer[1..], "size mismatch: expected");
    refused(
        &good.join("index.json"),
        b"{",
        "does not have the content that the OCI image specification requires",
    );
    refused(&good.join("index.json"), &vec![b' '; 5 << 20], "larger than 4 MiB");
    refused(
        &good.join("oci-layout"),
        b"{\"imageLayoutVersion\":\"2.0.0\"}",
        "not an OCI layout of version 1.0.0",
    );
    let mut changed = fs::read(&manifest_path).unwrap();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    refused(&manifest_path, &changed, "checksum mismatch");
    let text = index.to_string();
    let twice = text.replace("\"manifests\":[", &format!("\"manifests\":[{},", index["manifests"][0]));
    fs::write(good.join("index.json"), twice).unwrap();
    context.run(&format!("check {MODULES}:6.1.7")).failed(3, &["several images with the tag 6.1.7"]);
    fs::write(good.join("index.json"), &text).unwrap();
    context.run(&format!("check {MODULES}")).ok();
    fs::rename(&layer_path, context.path("work/elsewhere")).unwrap();
    std::os::unix::fs::symlink(context.path("work/elsewhere"), &layer_path).unwrap();
    context.run(&format!("check {MODULES}")).failed(3, &["cannot read "]);
}

#[test]
fn check_refuses_malicious_layers_and_writes_nothing() {
    use tar::EntryType::{GNULongName, GNUSparse, Regular, Symlink, XHeader};
    let context = TestContext::new();
    let config = format!("{HEADER}CONFIG_NET=y\n").into_bytes();
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let length = rest.len() + 2;
        format!("{length}{rest}").into_bytes()
    };
    let fine = tar_with(&[("./lib/modules/5.10.77/config", Regular, &config)]);
    for (stored, kind) in
        [(fine.clone(), ""), (compress(&fine, "gz"), "+gzip"), (compress(&fine, "zst"), "+zstd")]
    {
        craft(&context, &fine, &stored, &format!("layer.v1.tar{kind}"));
        let told = context.run("check crafted --for hardening");
        assert!(told.code == 1 && told.stdout.contains("Linux 5.10.77"), "{}{}", told.stdout, told.stderr);
    }
    craft(&context, b"another", &fine, "layer.v1.tar");
    context.run("check crafted --for hardening").failed(3, &["diff_id mismatch: expected"]);
    let mut behind = fine.clone();
    *behind.last_mut().unwrap() = 1;
    craft(&context, &behind, &behind, "layer.v1.tar");
    context.run("check crafted --for hardening").failed(3, &["the layer has bytes after the end of the tar"]);
    craft(&context, &fine, &fine, "layer.v1.tar+bzip2");
    context.run("check crafted --for hardening").failed(3, &["layers of type"]);
    for (entries, says) in [
        (vec![("../config", Regular, &config[..])], "`../config` is not a path inside the image"),
        (vec![("/config", Regular, &config)], "`/config` is not a path inside the image"),
        (
            vec![("config", Regular, &config), ("./config", Regular, &config)],
            "two entries have the name config",
        ),
        (vec![("sparse", GNUSparse, b"")], "sparse has the unsupported type GNUSparse"),
        (vec![("1", GNULongName, b"x"), ("2", GNULongName, b"y")], "two long names"),
        (vec![("config", Symlink, b"x")], "is not a file, but has 1 bytes"),
        (vec![("p", XHeader, &record("size", "9999")), ("config", Regular, &config)], "changes the size"),
        (vec![("p", XHeader, &[b'x'; 20 << 10]), ("config", Regular, &config)], "more than 16 KiB"),
        (vec![("p", XHeader, &record("path", "../../config")), ("x", Regular, &config)], "not a path inside"),
    ] {
        let tar = tar_with(&entries);
        craft(&context, &tar, &tar, "layer.v1.tar");
        context.run("check crafted --for hardening").failed(3, &[says]);
    }
    let huge = vec![b'\n'; 17 << 20];
    let tar = tar_with(&[("config", Regular, &huge)]);
    craft(&context, &tar, &compress(&tar, "gz"), "layer.v1.tar+gzip");
    context.run("check crafted --for hardening").failed(3, &["bytes are too many for a config"]);
    craft(&context, &fine, &compress(&fine, "gz")[..60], "layer.v1.tar+gzip");
    context.run("check crafted --for hardening").failed(3, &["cannot read the layer"]);
    assert_eq!(context.names("work"), ["crafted", "mini.config"]);
}

#[test]
fn unmet_requirements_stop_a_build_before_compiling() {
    let context = TestContext::new();
    let ran = context.build("--require kubernetes").failed(
        1,
        &["the final .config does not meet kubernetes: CONFIG_NAMESPACES is missing, wanted y", "hint: "],
    );
    assert!(!ran.stderr.contains("Compile") && !context.path("work/out").exists(), "{}", ran.stderr);
    context.build("--require nobody").failed(2, &["unknown requirement profile `nobody`"]);
    context.run("plan 6.1 --fc --require nobody").failed(2, &["unknown requirement profile `nobody`"]);
    // The flavor's own profile is checked by default.
    context.build("--set KVM_GUEST=n").failed(1, &["does not meet firecracker: CONFIG_KVM_GUEST is not set"]);
    context.build("--set KVM_GUEST=n --require none").ok();
    context.build("--require none --require kubernetes").failed(1, &["does not meet kubernetes"]);
}

#[test]
fn unmet_recommendations_are_warnings_and_counted_in_the_receipt() {
    let context = TestContext::new();
    let receipt = || -> Value {
        serde_json::from_slice(&fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap())
            .unwrap()
    };
    context.build("").ok();
    assert_eq!(receipt()["findings"], json!([]));
    assert_eq!(receipt()["requirements"][0]["profile"], "firecracker");
    assert_eq!(receipt()["requirements"][0]["failures"], json!([]));
    context.build("--set MSDOS_PARTITION=n").ok().says(
        "warning: recommendations of profile firecracker are not met: CONFIG_MSDOS_PARTITION is not set, wanted y",
    );
    let requirements = &receipt()["requirements"][0];
    assert_eq!((&requirements["failed"], &requirements["advised"]), (&json!(0), &json!(1)));
    assert_eq!(requirements["failures"][0]["symbols"], json!(["MSDOS_PARTITION"]));
    context.build("--set MSDOS_PARTITION=n --require none").ok();
    assert_eq!((&receipt()["findings"], &receipt()["requirements"]), (&json!([]), &json!([])));
}

#[test]
fn kernels_that_the_hypervisor_cannot_load_are_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let ch = "6.1.7 --ch --source linux --config mini.config --set PVH=n";
    context.run(ch).failed(1, &["does not meet cloud-hypervisor: CONFIG_PVH is not set"]);
    // The kernel file is checked too, not only the config.
    context
        .run(&format!("{ch} --require none"))
        .failed(1, &["has no PVH note, so Cloud Hypervisor cannot load it"]);
    assert!(!context.path("work/out").exists());
    context.build("--set PVH=n").ok().says("note: the kernel has no PVH note");
}

#[test]
fn a_version_is_checked_for_real_when_it_is_configured() {
    let mut context = context("");
    context.env.insert("KCOMPILE_MIRROR".into(), mirror(&context, &["6.1.7"]).url);
    // The miniature kernel has no KSM: what the config asks for is dropped.
    let dir = context.path("work/own/firecracker");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("linux-x86_64-6.1.config"), "CONFIG_NET=y\nCONFIG_A=y\nCONFIG_KSM=y\n").unwrap();
    let check = |more: &str| context.run(&format!("check 6.1.7 --fc --for mine --configs own --all {more}"));
    let asked = check("").ok().stdout;
    assert!(asked.contains("open         A | B") && asked.contains("open         NET "), "{asked}");
    let configured = check("--configure");
    assert_eq!(configured.code, 1, "{}", configured.stderr);
    assert!(configured.stdout.contains("REQUIRED     A | B"), "{}", configured.stdout);
    assert!(configured.stdout.contains("met          NET "), "{}", configured.stdout);
    // A source of the user's is configured too.
    context.tree("6.1.7", "work/linux");
    let own = check("--source linux");
    assert_eq!((own.code, own.stdout), (1, configured.stdout), "{}", own.stderr);
    for option in ["--configure", "--source linux"] {
        context
            .run(&format!("check x.config --for mine --configs own {option}"))
            .failed(2, &["--configure and --source are for a version, and x.config is none"]);
    }
}
