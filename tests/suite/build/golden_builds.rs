//! Golden files of builds, which are receipts, the bytes of images, and the JSON output of
//! commands. [`crate::support::fixed_tools`] keep the host's tools out of the output. Digests with
//! the host's own tools are compared where a golden file for the same tools exists.

use crate::support::context::{TestContext, run_result, sha256, skipped};
use crate::support::fixed_tools;
use crate::support::golden::{compare, context, directory, is_update, printed, repository, section};
use crate::support::layouts::descriptor;
use crate::support::normalize::{compact, normal, pretty, shape};
use crate::support::schemas;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::Command;

fn build(context: &TestContext, args: &str) -> String {
    // An empty prefix selects the host's compiler. The miniature tree makes a real Image with any
    // compiler.
    let mut command = context.command(&format!("{args} --sandbox off --progress plain"));
    if args.contains("arm64") {
        command.arg("--cross-compile=");
    }
    section(args, &run_result(command.output().unwrap()).ok().stdout)
}

fn read(path: &Utf8Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn blob(layout: &Utf8Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
    fs::read(layout.join("blobs").join(digest)).unwrap()
}

/// Returns the layouts of a context, without attachments, since receipts contain times.
fn layouts(context: &TestContext) -> Vec<Utf8PathBuf> {
    let names = context.names("work/out").into_iter();
    let layouts =
        names.map(|name| context.path("work/out").join(name)).filter(|path| path.join("oci-layout").exists());
    layouts.filter(|path| !path.as_str().ends_with("-attest")).collect()
}

/// Returns the entries of all layers of a layout with mode, owner, date, size, digest and name.
fn listings(layout: &Utf8Path) -> String {
    let index: Value = serde_json::from_str(&read(&layout.join("index.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(layout, &index["manifests"][0])).unwrap();
    let Some(layers) = manifest["layers"].as_array() else {
        return compact(&pretty(&manifest));
    };
    let mut text = String::new();
    for layer in layers {
        let stored = blob(layout, layer);
        let plain: Box<dyn Read> = match layer["mediaType"].as_str().unwrap().rsplit('+').next().unwrap() {
            "gzip" => Box::new(flate2::read::GzDecoder::new(&stored[..])),
            "zstd" => Box::new(zstd::Decoder::new(&stored[..]).unwrap()),
            _ => Box::new(&stored[..]),
        };
        for entry in tar::Archive::new(plain).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map_or(String::new(), |to| format!(" -> {}", to.display()));
            text.push_str(&format!(
                "{:04o} {}:{} {} {} {}{link}\n",
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                if header.entry_type().is_file() {
                    sha256(&bytes)[..12].to_owned()
                } else {
                    format!("{:12}", format!("{:?}", header.entry_type()))
                },
                entry.path().unwrap().display(),
            ));
        }
    }
    text
}

/// Returns the receipt, without a plan that another receipt already shows.
fn receipt(context: &TestContext, name: &str) -> String {
    let text = read(&context.path("work/out").join(name));
    schemas::assert_valid("receipt", &text);
    let mut receipt: Value = serde_json::from_str(&text).unwrap();
    receipt["plan"] = json!("*");
    section(name, &compact(&normal(context, &pretty(&receipt))))
}

/// Returns the layer entries and the receipts of a build.
fn left(context: &TestContext) -> String {
    let mut text = String::new();
    for layout in layouts(context) {
        text.push_str(&section(layout.file_name().unwrap(), &listings(&layout)));
    }
    let is_receipt = |name: &String| name.ends_with("64.json");
    text + &context
        .names("work/out")
        .iter()
        .filter(|name| is_receipt(name))
        .map(|name| receipt(context, name))
        .collect::<String>()
}

#[test]
fn a_build_from_kernel_org() {
    let Some(context) = context() else { return };
    let args = "6.1.7 --fc --arch amd64 --config mini.config --set PSI=y -j1 --sandbox off --progress json";
    let first = context.run(&format!("{args} --timings=json")).ok();
    let mut text = section("6.1.7 --fc, from kernel.org", &first.stdout);
    text.push_str(&events(&context, &first.stderr));
    let file = |name: &str| context.path("work/out").join(name);
    // Sorted by key.
    text.push_str(&section(
        "the receipt",
        &compact(&normal(&context, &read(&file("firecracker-6.1.7-amd64.json")))),
    ));
    for layout in layouts(&context) {
        let name = layout.file_name().unwrap();
        text.push_str(&section(&format!("{name}: entries"), &listings(&layout)));
        if name.contains("modules") {
            continue;
        }
        let manifest = blob(&layout, &descriptor(&layout, "6.1.7"));
        let value: Value = serde_json::from_slice(&manifest).unwrap();
        let config: Value = serde_json::from_slice(&blob(&layout, &value["config"])).unwrap();
        for (what, value) in [("manifest", &value), ("config", &config)] {
            text.push_str(&section(&format!("{name}: {what}"), &compact(&pretty(value))));
        }
        for part in ["index.json", "oci-layout"] {
            text.push_str(&section(&format!("{name}: {part}"), &read(&layout.join(part))));
        }
        text.push_str(&attached(&context, name));
    }
    let timings = read(&file("firecracker-6.1.7-amd64-timings.json"));
    schemas::assert_valid("timings", &timings);
    let timings: Value = serde_json::from_str(&timings).unwrap();
    text.push_str(&section("the shape of the timings", &compact(&pretty(&shape(&timings)))));
    for name in ["provenance", "spdx"] {
        let name = format!("firecracker-6.1.7-amd64.{name}.json");
        let plain = normal(&context, &read(&file(&name)));
        text.push_str(&section(&name, &compact(&without_receipts(&context, &plain))));
    }
    text.push_str(&section("the same again", &events(&context, &context.run(args).ok().stderr)));
    compare("build-kernel-org.txt", &text);
}

/// Returns the events of a run. The number of progress events depends on timing.
fn events(context: &TestContext, lines: &str) -> String {
    let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let all: String = all.filter(|event| event["event"] != "progress").map(|event| pretty(&event)).collect();
    section("--progress json", &compact(&normal(context, &all)))
}

/// Returns a text without the digest of the receipt, which contains times.
fn without_receipts(context: &TestContext, text: &str) -> String {
    let receipt = fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap();
    text.replace(&sha256(&receipt), "*")
}

/// Returns the manifests that refer to an image, without digests of files with times.
fn attached(context: &TestContext, name: &str) -> String {
    let layout = context.path("work/out").join(format!("{name}-attest"));
    let index: Value = serde_json::from_str(&read(&layout.join("index.json"))).unwrap();
    let mut text = String::new();
    for one in index["manifests"].as_array().unwrap() {
        let mut one = one.clone();
        let mut manifest: Value = serde_json::from_slice(&blob(&layout, &one)).unwrap();
        for descriptor in manifest["manifests"].as_array_mut().into_iter().flatten().chain([&mut one]) {
            descriptor["digest"] = json!("*");
            descriptor["size"] = json!(0);
        }
        text.push_str(&compact(&pretty(&json!({ "descriptor": one, "manifest": manifest }))));
    }
    section(&format!("{name}-attest"), &text)
}

#[test]
fn a_build_from_a_tarball_with_other_options() {
    let Some(context) = context() else { return };
    let options =
        "--compression zstd --modules-layout flat --also-at boot/vmlinux --legacy --fragment some.config";
    let args = format!("6.1.7 --ch --arch amd64 --source linux-6.1.7.tar.gz --config mini.config {options}");
    let text = build(&context, &args) + &left(&context);
    // The second run compiles nothing and uses memoized results.
    build(&context, &args);
    let inspected = printed(&context, "inspect out/cloudhypervisor-kernel --json");
    compare("build-tarball.txt", &(text + &inspected + &records(&context)));
}

#[test]
fn a_build_from_a_directory() {
    let Some(context) = context() else { return };
    let options = "--compression none --no-modules --require none";
    let args = format!("5.10.77 --fc --arch arm64 --source linux --config odd.config {options}");
    compare("build-directory.txt", &(build(&context, &args) + &left(&context)));
}

#[test]
fn a_build_from_a_repository_with_patches() {
    let Some(context) = context() else { return };
    let Some(source) = repository(&context) else { return };
    let args = format!("6.1.7 --ch --arch amd64 {source} --config mini.config --patches patches");
    let text = build(&context, &args) + &left(&context) + &records(&context);
    compare("build-git.txt", &text);
}

/// Returns what the cache keeps besides sources and images.
fn records(context: &TestContext) -> String {
    let mut records = Vec::new();
    for entry in walkdir::WalkDir::new(context.path("cache")) {
        let path = Utf8PathBuf::from_path_buf(entry.unwrap().into_path()).unwrap();
        let name = path.strip_prefix(context.path("cache")).unwrap().as_str();
        let folder = name.split('/').next().unwrap();
        let is_record =
            name.ends_with(".json") || name == "kcompile.lock" || folder == "known" && path.is_file();
        if !is_record || name.contains("/linux/") || name.contains("/files/") {
            continue;
        }
        let text = read(&path);
        records.push(match serde_json::from_str::<Value>(&text) {
            Ok(mut value) => {
                if name.ends_with("seen.json") {
                    value = first_image(&value);
                }
                anonymize(&mut value);
                section(folder, &compact(&normal(context, &pretty(&value))))
            }
            Err(_) => section(folder, &text),
        });
    }
    records.sort();
    records.concat()
}

/// Returns the first blob of an image among those that were read.
fn first_image(seen: &Value) -> Value {
    let of_image = |(path, _): &(&String, &Value)| !path.contains("-attest/");
    let first = seen.as_object().unwrap().iter().find(of_image);
    first.into_iter().map(|(path, look)| (path.clone(), look.clone())).collect()
}

/// Removes the host's files and receipts from a record.
fn anonymize(value: &mut Value) {
    // A history, whose bytes depend on the compiler and the file system.
    for build in value.as_array_mut().into_iter().flatten() {
        anonymize(build);
        build.get_mut("bytes").into_iter().for_each(|bytes| *bytes = json!("*"));
    }
    for key in ["from", "host", "fingerprint", "steps", "at"] {
        if let Some(value) = value.get_mut(key) {
            *value = if value.is_object() { shape(value) } else { json!("*") };
        }
    }
    let is_receipt = value.get("layout").is_some_and(|layout| layout.to_string().contains("-attest"));
    if is_receipt {
        value["descriptor"] = json!("*");
    }
    let is_receipt = |name: &str| name.contains(".json") || name.contains("-attest");
    match value {
        Value::Object(all) => {
            for (name, value) in all {
                if is_receipt(name) && value.is_string() {
                    *value = json!("*");
                }
                anonymize(value);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(anonymize),
        _ => {}
    }
}

#[test]
fn images_of_two_architectures() {
    let Some(context) = context() else { return };
    let mut text = build(&context, "6.1.7 --fc --arch amd64 --arch arm64 --config mini.config -j1");
    for name in ["firecracker-kernel-bin", "firecracker-kernel-modules"] {
        text.push_str(&section(name, &listings(&context.path("work/out").join(name))));
    }
    context.run("6.1.7 --fc --arch amd64 --config mini.config --set PSI=y --set DUMMY=n -o other --progress quiet").ok();
    let other =
        "6.1.7 --fc --arch amd64 --config mini.config --set PSI=y --set DUMMY=n -o other --cache-dir other";
    fixed_tools::change_kernel(&context, "6.1.7");
    context.run(&format!("{other} --progress quiet")).ok();
    let [bin, modules] = ["bin", "modules"].map(|kind| format!("firecracker-kernel-{kind}-amd64"));
    for args in [
        &format!("verify out/{bin} out/firecracker-kernel-modules --max-modules-size 100 --json"),
        &format!("diff out/{modules} other/{modules} --json"),
        &format!("diff out/{bin} other/{bin} --max-bin-size 1k --json"),
    ] {
        text.push_str(&printed(&context, args));
    }
    let receipt = context.path("work/other/firecracker-6.1.7-amd64.json");
    let inspect = || {
        let told = context.run(&format!("inspect other/{bin} --json")).ok().item();
        section("inspect: a receipt", &compact(&normal(&context, &pretty(&told["receipt"]))))
    };
    // The attached one would be used instead.
    fs::remove_dir_all(context.path(&format!("work/other/{bin}-attest"))).unwrap();
    fs::copy(context.path("work/out/firecracker-6.1.7-amd64.json"), &receipt).unwrap();
    text.push_str(&inspect());
    fs::write(&receipt, "{").unwrap();
    text.push_str(&inspect());
    fs::remove_file(&receipt).unwrap();
    text.push_str(&inspect());
    fs::write(context.path("work/other").join(&bin).join("oci-layout"), "{}").unwrap();
    text.push_str(&printed(&context, &format!("verify other/{bin} --json")));
    let events =
        context.run("6.1.7 6.1.9 --fc --arch amd64 --config mini.config -o x --progress json").stderr;
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if matches!(event["event"].as_str(), Some("error" | "overview")) {
            text.push_str(&section("an event", &compact(&normal(&context, &pretty(&event)))));
        }
    }
    compare("images.txt", &text);
}

#[test]
fn a_bundle() {
    let Some(context) = context() else { return };
    let Some(source) = repository(&context) else { return };
    context.run("fetch 6.1.7 6.6.60 --fc --bundle one.tar").ok();
    context.run(&format!("fetch 6.1.7 --ch {source} --bundle two.tar")).ok();
    let mut text = String::new();
    for name in ["one.tar", "two.tar"] {
        let bytes = fs::read(context.path("work").join(name)).unwrap();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            text.push_str(&section(&format!("{name}: {path}"), ""));
            if path.ends_with(".json") {
                let mut json = String::new();
                entry.read_to_string(&mut json).unwrap();
                text.push_str(&compact(&normal(&context, &pretty(&serde_json::from_str(&json).unwrap()))));
            }
        }
    }
    text.push_str(&records(&context));
    compare("bundle.txt", &text);
}

/// The digests with the host's own tools. There is a file for each set of tools.
#[test]
fn the_digests_of_this_toolchain() {
    let first_line = |tool: &str| -> Option<String> {
        let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap());
        let output = Command::new(tool).arg("--version").env("PATH", path).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    let tools: Option<Vec<String>> = ["gcc", "ld", "make", "depmod"].map(first_line).into_iter().collect();
    let Some(tools) = tools else { return skipped("there is no gcc, ld, make or depmod") };
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    let name = format!("toolchain-{}.txt", &sha256(tools.join("\n").as_bytes())[..8]);
    if !is_update() && !directory().join(&name).exists() {
        return skipped(&format!("no golden digests of {}", tools.join(", ")));
    }
    let mut found = section("tools", &tools.join("\n"));
    for args in ["--fc --arch amd64", "--ch --arch amd64 --legacy", "--fc --arch arm64 --no-modules"] {
        let args = format!("6.1.7 {args} --source linux-6.1.7.tar.xz --config mini.config");
        found.push_str(&build(&context, &args));
    }
    compare(&name, &found);
}
