//! Validates JSON output against docs/reference/schemas. The tests are stricter than the published schemas, and
//! refuse fields that a schema does not describe.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/schemas");
/// Nothing is fetched from here.
const BASE: &str = "https://kcompile.invalid/";

struct Validator {
    schemas: Schemas,
    by_name: BTreeMap<String, SchemaIndex>,
}

/// Returns all schemas by name.
pub(crate) fn all() -> BTreeMap<String, Value> {
    let files = fs::read_dir(DIR).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let schema = serde_json::from_str(&fs::read_to_string(&path).unwrap());
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, schema.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect()
}

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let mut all = all();
        for (name, schema) in &mut all {
            forbid_other_fields(schema);
            compiler.add_resource(&format!("{BASE}{name}.json"), schema.clone()).unwrap();
        }
        let mut compile = |name: &String| {
            let index = compiler.compile(&format!("{BASE}{name}.json"), &mut schemas);
            (name.clone(), index.unwrap_or_else(|error| panic!("{name}.json: {error:#}")))
        };
        let by_name = all.keys().map(&mut compile).collect();
        Validator { schemas, by_name }
    })
}

fn forbid_other_fields(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(forbid_other_fields);
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_other_fields),
        _ => {}
    }
}

/// Returns what is wrong with a JSON text.
pub(crate) fn validate(name: &str, text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Validator { schemas, by_name } = validator();
    schemas.validate(&value, by_name[name]).map_err(|error| format!("{error:#}"))
}

#[track_caller]
pub(crate) fn assert_valid(name: &str, text: &str) {
    if let Err(why) = validate(name, text) {
        panic!("this is not valid against docs/reference/schemas/{name}.json: {why}\n{text}");
    }
}

/// Validates the output of a run of kcompile that prints JSON.
#[track_caller]
pub(crate) fn check_run(args: &[&str], code: i32, stdout: &str, stderr: &str) {
    let options: Vec<&str> = args.iter().copied().take_while(|word| *word != "--").collect();
    let is_event_stream = options.windows(2).any(|pair| pair == ["--progress", "json"]);
    let of_stderr = if is_event_stream { "event" } else { "error" };
    let is_json = options.contains(&"--json");
    if is_json || is_event_stream {
        let lines = stderr.lines().filter(|line| line.starts_with('{'));
        lines.for_each(|line| assert_valid(of_stderr, line));
    }
    if is_json && !stdout.is_empty() {
        assert_valid(schema_of(&options), stdout);
    }
    if is_json && stdout.is_empty() && (1..=4).contains(&code) {
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with('{'), "{args:?} failed, and its last line is not JSON:\n{stderr}");
    }
}

/// Returns the schema of the output of a command.
pub(crate) fn schema_of(options: &[&str]) -> &'static str {
    let has = |option: &str| options.contains(&option);
    match options {
        ["build" | "fetch", ..] if has("--dry-run") => "plan",
        ["plan", ..] => "plan",
        ["fetch", ..] => "fetch",
        ["list", ..] if has("--fragments") => "list-fragments",
        ["list", ..] => "list",
        ["doctor", ..] if has("--cache") => "cache-check",
        ["doctor", ..] | ["toolchain", "check", ..] => "doctor",
        ["toolchain", "list", ..] => "toolchain-list",
        ["check", ..] => "check",
        ["config", "show", ..] => "config-show",
        ["config", "diff", ..] => "config-diff",
        ["config", "why", ..] => "config-why",
        ["add", ..] => "add",
        ["update", ..] => "update",
        ["inspect", ..] => "inspect",
        ["verify", ..] => "verify",
        ["cve", ..] => "cve",
        ["diff", ..] => "diff",
        ["boot", ..] => "boot",
        ["push", ..] => "push",
        ["clean", ..] | ["cache", "prune", ..] => "clean",
        ["cache", "size", ..] => "cache-size",
        ["cache", "ls", ..] => "cache-ls",
        ["cache", "check", ..] => "cache-check",
        _ if has("--dry-run") => "plan",
        _ => "build",
    }
}
