//! Real clients pull what was pushed to a real registry on loopback, and unpack it. The kernel is
//! at the path of its flavor.

use crate::support::context::{TestContext, has_tool, run_result, skipped};
use crate::support::layouts::descriptor;
use crate::support::registry_daemon::{Daemon, configured_registry};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Starts Debian's docker-registry on a free port, without the referrers API. Returns its host and
/// port.
fn docker_registry(dir: &Utf8Path) -> (Daemon, String) {
    configured_registry(dir, "", "")
}

/// An image in the registry, with its content as the tar crate reads it from the layout.
struct Pushed {
    /// Such as `127.0.0.1:41231/test/firecracker-kernel-bin-amd64:6.1.7`.
    reference: String,
    /// The name of the layout and of directories for it.
    name: String,
    digest: String,
    diff_id: String,
    /// Paths with bytes. A hard link has those of its other name.
    files: BTreeMap<String, Vec<u8>>,
    media_type: String,
}

impl Pushed {
    fn read(layout: &Utf8Path, reference: &str) -> Pushed {
        let read = |descriptor: &Value| {
            fs::read(layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/")))
                .unwrap()
        };
        let json = |descriptor: &Value| serde_json::from_slice::<Value>(&read(descriptor)).unwrap();
        let image = descriptor(layout, "6.1.7");
        let manifest = json(&image);
        let [layer] = &manifest["layers"].as_array().unwrap()[..] else { panic!("more than one layer") };
        let media_type = layer["mediaType"].as_str().unwrap().to_owned();
        let packed = read(layer);
        let mut plain = Vec::new();
        match media_type.rsplit('+').next().unwrap() {
            "gzip" => drop(flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut plain).unwrap()),
            "zstd" => plain = zstd::decode_all(&packed[..]).unwrap(),
            _ => plain = packed,
        }
        let diff_id = format!("sha256:{}", crate::support::context::sha256(&plain));
        assert_eq!(json(&manifest["config"])["rootfs"]["diff_ids"], Value::from(vec![diff_id.clone()]));
        let name = layout.file_name().unwrap().to_owned();
        let digest = image["digest"].as_str().unwrap().to_owned();
        Pushed {
            reference: reference.to_owned(),
            name,
            digest,
            diff_id,
            files: files_of_tar(&plain),
            media_type,
        }
    }

    /// Checks that the tree `root` has exactly these files with these bytes.
    #[track_caller]
    fn check(&self, root: &Utf8Path, client: &str) {
        let mut found = BTreeMap::new();
        for entry in walkdir::WalkDir::new(root) {
            let entry = entry.unwrap();
            if !entry.file_type().is_dir() {
                let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.files), "{client}: {}", self.reference);
        let other: Vec<_> = found.iter().filter(|(path, bytes)| self.files[*path] != **bytes).collect();
        assert!(other.is_empty(), "{client}: {}: other bytes in {:?}", self.reference, other[0].0);
    }
}

fn files_of_tar(plain: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in tar::Archive::new(plain).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Directory => {}
            tar::EntryType::Link => {
                let other = entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned();
                files.insert(path, files[&other].clone());
            }
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                files.insert(path, bytes);
            }
            other => panic!("{path} is of type {other:?}"),
        }
    }
    files
}

/// Runs a client in the context's working directory without the user's settings. Returns standard
/// output.
#[track_caller]
fn client(context: &TestContext, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(context.path("work")).env("HOME", context.path("home"));
    let output = command.env_remove("XDG_RUNTIME_DIR").output().unwrap();
    assert!(output.status.success(), "{}:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_client_pulls_what_was_pushed() {
    if !has_tool("skopeo") || !has_tool("docker-registry") {
        return;
    }
    let context = TestContext::new();
    context.build("--legacy").ok();
    context.run("6.1.7 --ch --source linux --config mini.config").ok();
    // With another date, so that no client uses a layer that it unpacked before.
    let mut zstd = context.command(
        "6.1.7 --ch --source linux --config mini.config --modules-layout flat --compression zstd -o zstd",
    );
    run_result(zstd.env("SOURCE_DATE_EPOCH", "1000000000").output().unwrap()).ok();
    let (_registry, host) = docker_registry(&context.path("registry"));
    let mut pushed = Vec::new();
    for (output, count) in [("out", 12), ("zstd", 4)] {
        let ran = context.run(&format!("push {host}/{output} -o {output} --tls-verify=false")).ok();
        assert_eq!(ran.stdout.lines().count(), count);
        // Attachments are not images.
        for line in ran.stdout.lines().filter(|line| !line.contains("-attest sha256:")) {
            let (reference, _) = line.strip_prefix("docker://").unwrap().split_once(' ').unwrap();
            let name = reference.rsplit('/').next().unwrap().strip_suffix(":6.1.7").unwrap();
            pushed.push(Pushed::read(&context.path("work").join(output).join(name), reference));
        }
    }
    // The same blobs under the tags of the series and of the build.
    let tags = "--tls-verify=false --tag-series --tag-build";
    let tagged = context.run(&format!("push {host}/out {tags}")).ok().stdout;
    assert_eq!((tagged.lines().count(), tagged.matches(":6.1 sha256:").count()), (24, 6), "{tagged}");
    check_kernels(&context, &pushed);
    std::thread::scope(|scope| {
        let clients: [fn(&TestContext, &[Pushed]); 4] = [skopeo, umoci, podman, containerd];
        let (context, pushed) = (&context, &pushed);
        for client in clients {
            scope.spawn(move || client(context, pushed));
        }
    });
    // The registry has no TLS, which a client must notice unless told.
    context.run(&format!("push {host}/x")).failed(
        3,
        &[&format!("to docker://{host}/x/"), "hint: the registry has no TLS; --tls-verify=false allows that"],
    );
}

/// Checks that the kernel is at the path of its flavor, and equals make's vmlinux or what Kbuild's
/// rule for `arch/x86/boot/compressed/vmlinux.bin` makes of it.
fn check_kernels(context: &TestContext, pushed: &[Pushed]) {
    let vmlinux = |flavor: &str| {
        let builds = walkdir::WalkDir::new(context.path("cache/builds")).into_iter().flatten();
        let of_flavor = format!("/kcompile-{flavor}-amd64-");
        let mut paths = builds.filter_map(|entry| Utf8PathBuf::from_path_buf(entry.into_path()).ok());
        paths.find(|path| path.file_name() == Some("vmlinux") && path.as_str().contains(&of_flavor)).unwrap()
    };
    let stripped = context.path("stripped");
    let from = vmlinux("cloud-hypervisor");
    client(context, &["objcopy", "-R", ".comment", "-S", from.as_str(), stripped.as_str()]);
    let kernels = [
        ("firecracker-kernel-bin-amd64", "bin/vmlinux", vmlinux("firecracker")),
        ("firecracker-kernel-bin-amd64", "boot/vmlinux", vmlinux("firecracker")),
        ("flintlock-kernel", "boot/vmlinux", vmlinux("firecracker")),
        ("cloudhypervisor-kernel-bin-amd64", "bin/vmlinux.bin", stripped),
    ];
    for (name, path, made) in kernels {
        // The last image of this name matches the build directory.
        let image = pushed.iter().rfind(|image| image.name == name).unwrap();
        assert!(image.files[path] == fs::read(made).unwrap(), "{name}: {path} is not what make left");
    }
}

fn skopeo(context: &TestContext, pushed: &[Pushed]) {
    for (index, image) in pushed.iter().enumerate() {
        let back = format!("skopeo-{index}");
        let (from, to) = (format!("docker://{}", image.reference), format!("oci:{back}:6.1.7"));
        client(context, &["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]);
        let again = Pushed::read(&context.path("work").join(back), &image.reference);
        assert_eq!(
            (&again.digest, &again.diff_id),
            (&image.digest, &image.diff_id),
            "skopeo: {}",
            image.reference
        );
        assert!(again.files == image.files, "skopeo: {}", image.reference);
    }
}

fn umoci(context: &TestContext, pushed: &[Pushed]) {
    if !has_tool("umoci") {
        return;
    }
    // umoci 0.4 does not support zstd.
    for (index, image) in pushed.iter().filter(|image| !image.media_type.ends_with("zstd")).enumerate() {
        let (back, bundle) = (format!("umoci-{index}"), format!("bundle-{index}"));
        let (from, to) = (format!("docker://{}", image.reference), format!("oci:{back}:x"));
        client(context, &["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]);
        // umoci checks the diff_id.
        client(context, &["umoci", "unpack", "--rootless", "--image", &format!("{back}:x"), &bundle]);
        let root = context.path("work").join(bundle).join("rootfs");
        image.check(&root, "umoci");
        // Two names of one file share an inode.
        let inode = |path: &str| Some(fs::metadata(root.join(path)).ok()?.ino());
        assert_eq!(inode("boot/vmlinux"), inode("bin/vmlinux").filter(|_| root.join("boot").exists()));
    }
}

fn podman(context: &TestContext, pushed: &[Pushed]) {
    if !has_tool("podman") {
        return;
    }
    if !rustix::process::geteuid().is_root() && !runs("podman", &["unshare", "true"]) {
        return skipped("podman cannot make a user namespace here");
    }
    // podman refuses paths of sockets with more than 50 characters.
    let [root, run, tmp] = ["podman/root", "r", "podman/tmp"].map(|name| context.path(name).into_string());
    let podman = |args: &[&str]| {
        let own = ["podman", "--storage-driver", "vfs", "--root", &root, "--runroot", &run, "--tmpdir", &tmp];
        client(context, &[&own, args].concat())
    };
    for (index, image) in pushed.iter().enumerate() {
        podman(&["pull", "-q", "--tls-verify=false", &image.reference]);
        let inspected = podman(&[
            "image",
            "inspect",
            "--format",
            "{{.Digest}} {{index .RootFS.Layers 0}}",
            &image.reference,
        ]);
        assert_eq!(
            inspected.trim(),
            format!("{} {}", image.digest, image.diff_id),
            "podman: {}",
            image.reference
        );
        // A container that is never started. Its files can be exported as a tar, as root and as a
        // user.
        let container = format!("unpacked-{index}");
        podman(&["create", "--name", &container, &image.reference, "none"]);
        let tar = context.path("work").join(&container);
        podman(&["export", "-o", tar.as_str(), &container]);
        let files = files_of_tar(&fs::read(tar).unwrap());
        assert!(files == image.files, "podman: {}: {:?}", image.reference, files.keys());
    }
}

fn containerd(context: &TestContext, pushed: &[Pushed]) {
    if !has_tool("containerd") || !has_tool("ctr") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skipped("containerd runs as root only");
    }
    let dir = context.path("containerd");
    fs::create_dir(&dir).unwrap();
    let config = format!(
        "version = 2\nroot = '{dir}/root'\nstate = '{dir}/state'\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n\
         [grpc]\naddress = '{dir}/sock'\n[ttrpc]\naddress = '{dir}/ttrpc'\n"
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    let (_daemon, ()) = Daemon::start("containerd", &["-c", dir.join("config.toml").as_str()], |line| {
        line.contains("containerd successfully booted").then_some(())
    });
    let socket = dir.join("sock").into_string();
    let ctr = |args: &[&str]| client(context, &[&["ctr", "--address", &socket, "-n", "test"], args].concat());
    for (index, image) in pushed.iter().enumerate() {
        ctr(&["images", "pull", "--plain-http", "--snapshotter", "native", &image.reference]);
        assert!(
            ctr(&["images", "ls"])
                .lines()
                .any(|line| line.starts_with(&image.reference) && line.contains(&image.digest))
        );
        // The name of a snapshot of one layer is its diff_id, which containerd checks. The mount on
        // top of it is a copy of the unpacked directory.
        let (key, snapshots) = (format!("top-{index}"), ["snapshots", "--snapshotter", "native"]);
        ctr(&[&snapshots[..], &["prepare", &key, &image.diff_id]].concat());
        let mount = ctr(&[&snapshots[..], &["mounts", "/mnt", &key]].concat());
        let words: Vec<&str> = mount.split_whitespace().collect();
        let ["mount", "-t", "bind", unpacked, ..] = words[..] else { panic!("{mount}") };
        image.check(Utf8Path::new(unpacked), "containerd");
    }
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
