//! What the build digest covers, and what it does not.

use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::Locked;
use crate::catalog::patches::{PatchBytes, PatchFile};
use crate::catalog::tool_versions::Tools;
use crate::catalog::{ConfigLibrary, toolchain_quirks};
use crate::kernel::{Arch, Flavor, SourceDigest, SourceSpec, ToolchainSpec, Variant};
use crate::oci::Compression;
use crate::plan::request::ToolchainChoice;
use crate::plan::request::{ImageChoice, KernelLink, ModuleMode, ModulesLayout, Override, Request};
use crate::plan::{Inputs, Plan, SourceIdentity, Text, Toolchain};
use crate::util::digest::Sha256;
use std::collections::{BTreeMap, BTreeSet};

const URL: &str = "https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz";
const RULE: &str = r#"
    [[rule]]
    id = "old"
    tool = "host-gcc"
    from = "12"
    tree = [{ file = "a.h", has = "old()" }]
    variables = { WERROR = "0" }
    reason = "it breaks"
    source = "seen"
"#;

type Change = Box<dyn Fn(&mut Build)>;

/// What a plan is made from.
#[derive(Clone)]
struct Build {
    request: Request,
    inputs: Inputs,
    config_files: BTreeMap<String, Sha256>,
}

impl Build {
    fn new() -> Build {
        let library = ConfigLibrary::from_texts([]);
        let request = Request {
            variant: Variant::Node,
            version: "6.1.7".parse().unwrap(),
            flavor: Flavor::Firecracker,
            arch: Arch::Amd64,
            source: SourceSpec::KernelOrg,
            config: Some("/a/config".into()),
            overrides: Vec::new(),
            patches: None,
            toolchain: ToolchainChoice { spec: ToolchainSpec::Oci("tools".into()), ..Default::default() },
            images: ImageChoice::default(),
            mirrors: Vec::new(),
            configures: true,
            profiles: Vec::new(),
            source_date_epoch: None,
        };
        let identity = BTreeMap::from(["cc", "hostcc", "ld"].map(|tool| (tool.to_owned(), "12.2.0".into())));
        let lock = |digest: &str| Locked { digest: digest_of(digest), unverified: true };
        let inputs = Inputs {
            catalog: Catalog::default(),
            config: Some(Text { name: "/a/config".into(), text: "CONFIG_PVH=y\n".into() }),
            lock: crate::catalog::lockfile::LockFile::default()
                .or(&BTreeMap::from([(URL.to_owned(), lock("source"))])),
            tools: Tools::new(&identity, None),
            toolchain: Toolchain { root: Some(Sha256::of("root")), identity, ..Default::default() },
            library,
            ..Default::default()
        };
        Build { request, inputs, config_files: BTreeMap::new() }
    }

    /// Returns the plan before the source is there.
    fn plan(&self) -> Plan {
        let plan = Plan::new(&self.request, &self.inputs, None).unwrap();
        Plan { config_files: self.config_files.clone(), ..plan }
    }

    /// Returns the build digest of the kernel's image.
    fn kernel(&self) -> Option<Sha256> {
        let plan = self.plan();
        plan.build_digest(&plan.images[0])
    }
}

fn digest_of(text: &str) -> SourceDigest {
    SourceDigest::Sha256(Sha256::of(text))
}

fn changed(change: impl Fn(&mut Build)) -> Option<Sha256> {
    let mut build = Build::new();
    change(&mut build);
    build.kernel()
}

#[test]
fn every_input_changes_the_build_digest() {
    let changes: Vec<(&str, Change)> = vec![
        ("version", Box::new(|build| build.request.version = "6.1.8".parse().unwrap())),
        ("flavor", Box::new(|build| build.request.flavor = Flavor::CloudHypervisor)),
        ("arch", Box::new(|build| build.request.arch = Arch::Arm64)),
        ("source", Box::new(|build| build.inputs.lock = lock_with("other"))),
        ("config", Box::new(|build| build.inputs.config.as_mut().unwrap().text += "CONFIG_PSI=y\n")),
        (
            "--set",
            Box::new(|build| {
                let line = "CONFIG_PSI=y\n".to_owned();
                build.inputs.overrides.push(Text { name: "--set PSI=y".into(), text: line.clone() });
                build.request.overrides.push(Override::Set(line));
            }),
        ),
        ("patch", Box::new(|build| build.inputs.patches.patches.push(patch("a.patch", None)))),
        ("strip", Box::new(|build| build.inputs.patches.patches.push(patch("a.patch", Some(0))))),
        ("toolchain", Box::new(|build| build.inputs.toolchain.root = Some(Sha256::of("other")))),
        (
            "variable",
            Box::new(|build| {
                build.inputs.toolchain.variables.insert("CC".into(), "clang".into());
            }),
        ),
        (
            "program",
            Box::new(|build| {
                build.inputs.toolchain.programs.insert("launcher".into(), Sha256::of("x"));
            }),
        ),
        ("rule", Box::new(|build| build.inputs.rules = rules())),
        ("date", Box::new(|build| build.request.source_date_epoch = Some(1))),
        ("--builtin", Box::new(|build| build.request.images.module_mode = ModuleMode::Builtin)),
        ("--no-modules", Box::new(|build| build.request.images.no_modules = true)),
        ("--kernel-link", Box::new(|build| build.request.images.kernel_link = KernelLink::None)),
        ("--compression", Box::new(|build| build.request.images.compression = Compression::None)),
        (
            "file of the config",
            Box::new(|build| {
                build.config_files.insert("INITRAMFS_SOURCE".into(), Sha256::of("x"));
            }),
        ),
    ];
    let mut digests = BTreeMap::from([(Build::new().kernel().unwrap(), "nothing")]);
    for (what, change) in changes {
        let digest = changed(|build| {
            if what == "version" {
                build.inputs.lock = build.inputs.lock.clone().or(&BTreeMap::from([(
                    URL.replace("6.1.7", "6.1.8"),
                    Locked { digest: digest_of("source"), unverified: true },
                )]));
            }
            change(build);
        });
        let other = digests.insert(digest.unwrap_or_else(|| panic!("{what}: no digest")), what);
        assert_eq!(other, None, "{what}");
    }
}

fn lock_with(digest: &str) -> crate::catalog::lockfile::LockFile {
    let locked = Locked { digest: digest_of(digest), unverified: true };
    crate::catalog::lockfile::LockFile::default().or(&BTreeMap::from([(URL.to_owned(), locked)]))
}

fn patch(name: &str, strip: Option<u8>) -> PatchFile {
    let bytes = PatchBytes::InMemory((*b"x").into());
    PatchFile { name: name.into(), sha256: Sha256::of("x"), strip, reason: None, bytes }
}

fn rules() -> Vec<toolchain_quirks::Rule> {
    toolchain_quirks::read(&ConfigLibrary::from_texts([("configs/toolchains.toml", RULE)])).unwrap()
}

#[test]
fn what_does_not_affect_an_image_leaves_its_build_digest() {
    let same = Build::new().kernel();
    assert!(same.is_some());
    for (what, digest) in [
        ("other images", changed(|build| build.request.images.combined_image = true)),
        ("the layout of modules", changed(|build| build.request.images.modules_layout = ModulesLayout::Flat)),
        ("a mirror", changed(|build| build.request.mirrors = vec!["https://mirror".into()])),
        ("a profile", changed(|build| build.request.profiles = vec!["cilium".into()])),
        ("a path", changed(|build| build.inputs.config.as_mut().unwrap().name = "/b/config".into())),
        ("a launcher", changed(|build| build.inputs.toolchain.launcher = Some("ccache".into()))),
        (
            "the name of the toolchain",
            changed(|build| {
                build.request.toolchain.spec = ToolchainSpec::Registry("docker://x/y:1".into());
            }),
        ),
    ] {
        assert_eq!(digest, same, "{what}");
    }
    let mut plan = Build::new().plan();
    plan.kcompile = "another";
    assert_eq!(plan.build_digest(&plan.images[0]), same);
    // The names of patches.
    let named = |name: &str| changed(|build| build.inputs.patches.patches.push(patch(name, None)));
    assert_eq!(named("a.patch"), named("b.patch"));
    // The modules have a digest of their own, which depends on their layout.
    let modules = |build: &Build| {
        let plan = build.plan();
        plan.build_digest(&plan.images[1])
    };
    let mut flat = Build::new();
    flat.request.images.modules_layout = ModulesLayout::Flat;
    assert!(modules(&Build::new()) != same && modules(&Build::new()) != modules(&flat));
}

#[test]
fn the_source_adds_nothing_to_what_its_digest_says() {
    let mut build = Build::new();
    build.inputs.rules = rules();
    let first = build.kernel();
    let source = |digest: SourceDigest, date: u64| SourceIdentity {
        origin: Some(URL.into()),
        digest,
        version: "6.1.7".parse().unwrap(),
        date,
        checks: Vec::new(),
    };
    let with = |digest: SourceDigest, date: u64, defects: &[&str]| {
        let defects: BTreeSet<String> = defects.iter().map(ToString::to_string).collect();
        let plan = Plan::new(&build.request, &build.inputs, Some((&source(digest, date), &defects))).unwrap();
        plan.build_digest(&plan.images[0])
    };
    assert!(first.is_some());
    assert_eq!(with(digest_of("source"), 7, &["old"]), first);
    assert_eq!(with(digest_of("source"), 7, &[]), first);
    assert_ne!(with(digest_of("other"), 7, &[]), first);
    // The date of a directory is not part of its digest.
    let content = || SourceDigest::Content(Sha256::of("source"));
    assert_ne!(with(content(), 7, &[]), with(content(), 8, &[]));
}

#[test]
fn images_of_unknown_inputs_have_no_build_digest() {
    let host = |build: &mut Build| build.request.toolchain.spec = ToolchainSpec::Host;
    assert_eq!(changed(host), None);
    assert_eq!(changed(|build| build.inputs.toolchain.root = None), None);
    assert_eq!(changed(|build| build.inputs.lock = Default::default()), None);
    assert_eq!(changed(|build| build.request.version = "6.1".parse().unwrap()), None);
}
