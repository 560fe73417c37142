//! JSON output. `TestContext::run` validates every output of the suite against its schema. These tests run
//! each command, and look at errors.

use crate::support::context::{RunResult, TestContext, run_result};
use crate::support::golden;
use crate::support::schemas;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const BIN: &str = "out/firecracker-kernel-bin-amd64";

/// Returns the error on the last line of standard error.
fn error(result: &RunResult) -> Value {
    let last = result.stderr.lines().last().unwrap_or_default();
    let object: Value = serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {}", result.stderr));
    assert_eq!(object["schema"], 1, "{last}");
    object["error"].clone()
}

#[test]
fn every_command_prints_an_object_with_its_schema() {
    let Some(context) = golden::context() else { return };
    fs::create_dir_all(context.path("work/own")).unwrap();
    fs::write(context.path("work/a"), "CONFIG_A=y\n").unwrap();
    fs::create_dir_all(context.path("work/vulns")).unwrap();
    let record = r#"{"dataType":"CVE_RECORD","cveMetadata":{"cveId":"CVE-2024-1001","state":"PUBLISHED"},
        "containers":{"cna":{"affected":[{"vendor":"Linux","product":"Linux","defaultStatus":"affected"}]}}}"#;
    fs::write(context.path("work/vulns/CVE-2024-1001.json"), record).unwrap();
    let kernel = "6.1.7 --fc --arch amd64";
    let build = format!("{kernel} --config mini.config");
    let source = "--source linux-6.1.7.tar.gz --config mini.config";
    // The golden files have the reports of boots.
    let mut seen = BTreeSet::from(["common", "boot"]);
    for args in [
        &format!("build {build} --timings=json --json"),
        &format!("fetch {kernel} --json"),
        &format!("plan {build} --json"),
        "plan 6.1.7 6.6.60 --fc --json",
        "list --json",
        "list --fragments --json",
        "doctor 6.1.7 --json",
        "check out/firecracker-kernel-modules-amd64 --for firecracker --json",
        &format!("config show {kernel} {source} --json"),
        &format!("config why {kernel} {source} VETH --json"),
        "config diff a mini.config --json",
        "add 6.6.60 --fc --arch amd64 --from 6.1 --configs own --json",
        "update --configs own --json",
        &format!("inspect {BIN} --json"),
        &format!("verify {BIN} --json"),
        &format!("diff {BIN} out/firecracker-kernel-modules-amd64 --json"),
        &format!("cve {BIN} --data vulns --vex k.json --json"),
        "push example.org/x --dry-run --json",
        "cache size --json",
        "cache ls --json",
        "cache check --json",
        "toolchain list --json",
        "cache prune --dry-run --json",
        "clean --json",
    ] {
        let result = context.run(args);
        let words: Vec<&str> = args.split_whitespace().collect();
        let start = "{\n  \"schema\": 1,";
        assert!(result.stdout.starts_with(start), "{args}: {}{}", result.stdout, result.stderr);
        seen.insert(schemas::schema_of(&words));
    }
    schemas::assert_valid("openvex", &fs::read_to_string(context.path("work/k.json")).unwrap());
    seen.insert("openvex");
    for (schema, file) in [("receipt", ""), ("timings", "-timings")] {
        let path = context.path(&format!("work/out/firecracker-6.1.7-amd64{file}.json"));
        schemas::assert_valid(schema, &fs::read_to_string(path).unwrap());
        seen.insert(schema);
    }
    let events = context.run(&format!("{build} --rebuild --progress json")).ok();
    assert!(
        !events.stderr.is_empty() && events.stderr.lines().all(|line| line.starts_with("{\"schema\":1,"))
    );
    seen.extend(["event", "error"]);
    let all = schemas::all();
    let missing: Vec<&String> = all.keys().filter(|name| !seen.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "no command was run for {missing:?}");
}

#[test]
fn a_build_and_a_fetch_print_their_results_as_items() {
    let Some(context) = golden::context() else { return };
    // With an empty prefix the host's compiler is used. The miniature tree makes a real Image with any compiler.
    let args =
        "6.1.7 --fc --arch amd64 --arch arm64 --config mini.config -j1 --progress quiet --cross-compile=";
    let text = context.run(args).ok().stdout;
    let built: Value = serde_json::from_str(&context.run(&format!("{args} --json")).ok().stdout).unwrap();
    let lines = built["items"].as_array().unwrap().iter().map(|item| {
        let [layout, tag, digest] = ["layout", "tag", "digest"].map(|key| item[key].as_str().unwrap());
        let layout = layout.strip_prefix(context.path("work/").as_str()).unwrap();
        format!("{}:{tag} {digest}\n", layout.trim_start_matches('/'))
    });
    assert_eq!(lines.collect::<String>(), text);
    let fetch = |args: &str| context.run(&format!("fetch 6.1.7 --fc {args}")).ok().stdout;
    let fetched: Value = serde_json::from_str(&fetch("--json")).unwrap();
    let item = &fetched["items"][0];
    let line = ["path", "version", "digest"].map(|key| item[key].as_str().unwrap()).join(" ");
    assert_eq!(line, fetch("").trim_end());
}

#[test]
fn errors_are_json_too() {
    let context = TestContext::new();
    for (args, code, kind) in [
        ("plan 6.1 --json", 2, "usage"),
        ("inspect nothing --json", 2, "usage"),
        ("list --json --nonsense", 2, "usage"),
        ("plan --json", 2, "usage"),
        ("plan 6.1 --fc --arch vax --json", 2, "usage"),
        ("fetch 6.1.7 --fc --offline --json", 3, "fetch"),
    ] {
        let result = context.run(args).failed(code, &[]);
        let error = error(&result);
        assert_eq!((&error["kind"], &error["exit_code"]), (&json!(kind), &json!(code)), "{args}: {error}");
        assert_eq!(result.stdout, "", "{args}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.starts_with("error:") && !message.contains('\n'), "{args}: {message}");
    }
    let with_hint = error(&context.run("plan 6.1 --json"));
    assert!(with_hint["hint"].as_str().unwrap().contains("--fc"), "{with_hint}");
    let tip = error(&context.run("list --jsn --json"));
    assert!(tip["hint"].as_str().unwrap().contains("'--json'"), "{tip}");
    // Without --json, or where it is a value or an argument of another program, errors are text.
    for args in ["list --nonsense", "make 6.1 -- --json"] {
        let result = context.run(args);
        assert!(result.code == 2 && result.stderr.contains("error: "), "{args}: {}", result.stderr);
    }
    let value = run_result(context.command("boot nothing --append --json").output().unwrap());
    value.failed(2, &["error: nothing: no such file"]);
    let events = context.run("plan 6.1 --json --progress json").failed(2, &["\"event\":\"error\""]);
    assert_eq!(events.stderr.lines().count(), 1, "{}", events.stderr);
}

#[test]
fn each_kernel_that_fails_has_an_error() {
    let Some(context) = golden::context() else { return };
    let result = context.run("fetch 6.1.7 6.1.8 6.1.9 --fc --json").failed(3, &[]);
    assert_eq!(result.stderr.lines().filter(|line| line.starts_with('{')).count(), 2, "{}", result.stderr);
    let fetched: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(fetched["items"].as_array().unwrap().len(), 1);
    let built = context.run("6.1.7 6.1.9 --fc --arch amd64 --config mini.config --json").failed(3, &[]);
    let built_items: Value = serde_json::from_str(&built.stdout).unwrap();
    assert_eq!(built_items["items"].as_array().unwrap().len(), 2);
    assert!(built.stderr.contains("\"kernel\":\"6.1.9\""), "{}", built.stderr);
}

#[test]
fn the_schemas_refuse_other_output() {
    let valid = json!({ "schema": 1, "items": [{ "layout": "x", "tag": "6.1", "digest": format!("sha256:{}", "0".repeat(64)) }] });
    let validate = |change: fn(&mut Value)| {
        let mut value = valid.clone();
        change(&mut value);
        schemas::validate("build", &value.to_string())
    };
    assert_eq!(validate(|_| ()), Ok(()));
    for change in [
        (|value| value["schema"] = json!(2)) as fn(&mut Value),
        |value| value["more"] = json!(1),
        |value| value["items"][0]["more"] = json!(1),
        |value| value["items"][0]["digest"] = json!("0".repeat(64)),
        |value| drop(value.as_object_mut().unwrap().remove("schema")),
        |value| *value = value["items"].take(),
    ] {
        assert!(validate(change).is_err());
    }
}
