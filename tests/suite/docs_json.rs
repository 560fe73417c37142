//! Writes the tables of docs/reference/json.md from the schemas beside it.

use crate::support::schemas;
use serde_json::Value;
use std::fs;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/json.md");
/// What follows this line is generated.
const MARKER: &str = "<!-- Generated from the files in schemas/. -->\n";
/// The sections, in the order in which a new user meets the commands.
const SECTIONS: [&str; 28] = [
    "error",
    "event",
    "build",
    "plan",
    "fetch",
    "list",
    "list-fragments",
    "doctor",
    "check",
    "config-show",
    "config-diff",
    "config-why",
    "add",
    "update",
    "inspect",
    "verify",
    "cve",
    "openvex",
    "diff",
    "boot",
    "push",
    "clean",
    "cache-size",
    "cache-ls",
    "cache-check",
    "toolchain-list",
    "receipt",
    "timings",
];

#[test]
fn the_page_has_every_field_of_every_schema() {
    let schemas = schemas::all();
    let mut known: Vec<&str> = SECTIONS.into_iter().chain(["common"]).collect();
    known.sort_unstable();
    assert_eq!(schemas.keys().map(String::as_str).collect::<Vec<_>>(), known, "a schema has no section");
    let mut text = String::new();
    for name in SECTIONS {
        let schema = &schemas[name];
        let (title, description) = (schema["title"].as_str().unwrap(), description(schema));
        text.push_str(&format!(
            "\n## {title}\n\n{description} [Schema](schemas/{name}.json)\n\n{}",
            table(schema)
        ));
        for (name, schema) in schema["$defs"].as_object().into_iter().flatten() {
            text.push_str(&format!("\n### {name}\n\n{}", table(schema)));
        }
    }
    text.push_str("\n## Common types\n\nSeveral outputs have these. [Schema](schemas/common.json)\n");
    for (name, schema) in schemas["common"]["$defs"].as_object().unwrap() {
        let description = description(schema);
        text.push_str(&format!("\n### {name}\n\n{description}.\n"));
        if schema.get("properties").is_some() {
            text.push_str(&format!("\n{}", table(schema)));
        }
    }
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, found) = page.split_once(MARKER).expect("the page has the marker");
    if std::env::var("KCOMPILE_GOLDEN").is_ok_and(|what| what == "update") {
        fs::write(PAGE, format!("{head}{MARKER}{text}")).unwrap();
        return;
    }
    let differing = found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == text,
        "json.md differs from the schemas (first difference, page and schemas: {differing:?}); \
         KCOMPILE_GOLDEN=update regenerates it"
    );
}

/// A field of an object.
#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
    is_optional: bool,
}

/// A row of a table.
struct Row {
    path: String,
    kind: String,
    content: String,
}

fn table(schema: &Value) -> String {
    let mut rows = Vec::new();
    add_rows(schema, "", &mut rows);
    let line = |Row { path, kind, content }: &Row| format!("| `{path}` | {kind} | {content} |\n");
    format!("| field | type | content |\n|---|---|---|\n{}", rows.iter().map(line).collect::<String>())
}

/// Adds the fields of an object. If there are several forms of it, adds each field once.
fn add_rows(schema: &Value, prefix: &str, rows: &mut Vec<Row>) {
    let Some(forms) = schema["oneOf"].as_array() else {
        fields(schema).into_iter().for_each(|field| add_field(field, prefix, rows));
        return;
    };
    // Each field with the values that choose its forms.
    let mut merged: Vec<Vec<(String, Field<'_>)>> = Vec::new();
    for form in forms {
        let chosen = chosen_value(form, forms);
        for field in fields(form) {
            match merged.iter_mut().find(|known| known[0].1.name == field.name) {
                Some(known) => known.push((chosen.clone(), field)),
                None => merged.push(vec![(chosen.clone(), field)]),
            }
        }
    }
    for found in merged {
        let (chosen, first) = &found[0];
        let mut added = Vec::new();
        add_field(*first, prefix, &mut added);
        if found.iter().any(|(_, field)| description(field.schema) != description(first.schema)) {
            let text = |(chosen, field): &(String, Field<'_>)| match field.schema.get("enum") {
                Some(_) => format!("{} ({})", values(field.schema), lower(description(field.schema))),
                None => format!("{} (for {chosen})", description(field.schema)),
            };
            added[0].content = found.iter().map(text).collect::<Vec<_>>().join(", ");
        } else if found.len() < forms.len() && !chosen.is_empty() {
            let chosen: Vec<&str> = found.iter().map(|(chosen, _)| chosen.as_str()).collect();
            added[0].content.push_str(&format!(" (for {})", chosen.join(", ")));
        }
        rows.append(&mut added);
    }
}

/// Returns the values by which this form differs from the others.
fn chosen_value(form: &Value, forms: &[Value]) -> String {
    let differs =
        |name: &str| forms.iter().any(|other| other["properties"][name] != form["properties"][name]);
    let is_chosen = |field: &Field<'_>| field.schema.get("enum").is_some() && differs(field.name);
    fields(form).into_iter().find(is_chosen).map_or_else(String::new, |field| values(field.schema))
}

/// Returns the fields in the order of `required`, and then the optional ones.
fn fields(schema: &Value) -> Vec<Field<'_>> {
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let optional = properties.keys().map(String::as_str).filter(|name| !required.contains(name));
    let names = required.iter().copied().chain(optional).filter(|name| *name != "schema");
    names
        .map(|name| Field { name, schema: &properties[name], is_optional: !required.contains(&name) })
        .collect()
}

fn add_field(Field { name, schema, is_optional }: Field<'_>, prefix: &str, rows: &mut Vec<Row>) {
    let path = format!("{prefix}{name}");
    let mut content = description(schema).to_owned();
    if let Some(known) = schema["enum"].as_array() {
        let which = if known.len() == 1 { "Always" } else { "One of" };
        content = format!("{content}. {which} {}", values(schema));
    }
    let optional = if is_optional { ", optional" } else { "" };
    rows.push(Row { path: path.clone(), kind: format!("{}{optional}", kind(schema)), content });
    if schema["items"].is_object() {
        add_rows(&schema["items"], &format!("{path}[]."), rows);
    } else {
        add_rows(schema, &format!("{path}."), rows);
    }
}

fn kind(schema: &Value) -> String {
    let link = |reference: &Value| {
        let name = reference.as_str()?.rsplit('/').next()?;
        Some(format!("[{name}](#{name})"))
    };
    if let Some(link) = link(&schema["$ref"]) {
        return link;
    }
    if let Some(link) = link(&schema["anyOf"][0]["$ref"]) {
        return format!("{link} or null");
    }
    if let Some(known) = schema["enum"].as_array() {
        return if known.contains(&Value::Null) { "string or null" } else { "string" }.to_owned();
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec!["object"],
    };
    let inner = if names[0] == "array" { &schema["items"] } else { &schema["additionalProperties"] };
    let inner = if inner.is_object() { format!(" of {}", kind(inner)) } else { String::new() };
    format!("{}{inner}{}", names[0], names[1..].iter().map(|name| format!(" or {name}")).collect::<String>())
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_else(|| panic!("there is no description: {schema:#}"))
}

/// Returns the known values of a field.
fn values(schema: &Value) -> String {
    let values = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    values.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}

/// Returns a text with a small first letter.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
