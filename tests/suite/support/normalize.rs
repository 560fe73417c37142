//! Removes from texts what differs between runs and hosts, and shortens them.

use crate::support::context::TestContext;
use serde_json::Value;

/// Values up to this width are on one line.
const WIDTH: usize = 118;

/// Replaces paths, ports, times and memory sizes in a text of this context. Keeps the order of JSON
/// keys.
pub(crate) fn normal(context: &TestContext, text: &str) -> String {
    without_places(context, text).lines().map(|line| without_seconds(line) + "\n").collect()
}

pub(crate) fn without_places(context: &TestContext, text: &str) -> String {
    let mut text = text
        .replace(env!("CARGO_BIN_EXE_kcompile"), "kcompile")
        .replace(context.path("").as_str(), "/world/");
    let digit: fn(char) -> bool = |c| c.is_ascii_digit();
    let hex: fn(char) -> bool = |c| c.is_ascii_hexdigit();
    let time: fn(char) -> bool = |c| c != '"';
    let masks = [
        ("http://127.0.0.1:", digit),
        ("\"peak_memory_bytes\": ", digit),
        ("\"secs\": ", digit),
        ("\"nanos\": ", digit),
        ("\"finishedOn\": \"", time),
        ("\"startedOn\": \"", time),
        ("\"started\": \"", time),
        ("\"finished\": \"", time),
        ("\"invocationId\": \"", time),
        ("/directory-", hex),
    ];
    for (prefix, part) in masks {
        text = masked(&text, prefix, part);
    }
    text
}

/// Replaces what follows a prefix by `*`.
pub(crate) fn masked(text: &str, prefix: &str, part: fn(char) -> bool) -> String {
    let mut pieces = text.split(prefix);
    let mut masked = pieces.next().unwrap().to_owned();
    for piece in pieces {
        masked.push_str(prefix);
        let rest = piece.trim_start_matches(part);
        if rest.len() < piece.len() {
            masked.push('*');
        }
        masked.push_str(rest);
    }
    masked
}

/// Numbers with a fraction are always times.
fn without_seconds(line: &str) -> String {
    let before = line.rfind(' ').map_or(0, |space| space + 1);
    let (number, comma) = match line[before..].strip_suffix(',') {
        Some(number) => (number, ","),
        None => (&line[before..], ""),
    };
    if number.contains('.') && number.parse::<f64>().is_ok() {
        return format!("{}0.0{comma}", &line[..before]);
    }
    line.to_owned()
}

/// Formats JSON with indentation. What fits on a line is on one line.
pub(crate) fn compact(json: &str) -> String {
    // The lines of each open block.
    let mut blocks: Vec<Vec<String>> = vec![Vec::new()];
    for line in json.lines() {
        let first = line.trim_start();
        if first.starts_with(['}', ']']) {
            let mut block = blocks.pop().unwrap();
            block.push(line.to_owned());
            let parts: Vec<&str> = block[1..].iter().map(|line| line.trim_start()).collect();
            let joined = format!("{} {}", block[0], parts.join(" "));
            let into = blocks.last_mut().unwrap();
            if joined.len() <= WIDTH {
                into.push(joined);
            } else {
                into.extend(block);
            }
        } else if first.ends_with(['{', '[']) {
            blocks.push(vec![line.to_owned()]);
        } else {
            blocks.last_mut().unwrap().push(line.to_owned());
        }
    }
    blocks.concat().join("\n") + "\n"
}

/// Formats a value in this way with sorted keys.
pub(crate) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// Returns the names and types of a value. Arrays have their first element, and numbers are 0.
pub(crate) fn shape(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.first().map(shape).into_iter().collect(),
        Value::Object(all) => all.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Number(_) => 0.into(),
        _ => value.clone(),
    }
}

/// Returns the parts of an object that differ from another one.
pub(crate) fn differing(all: &Value, first: &Value) -> Value {
    let parts = all.as_object().unwrap().iter().filter(|(key, value)| first[key] != **value);
    parts.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Keeps the first element of a list for each combination of these keys' values.
pub(crate) fn first_of_each(list: &mut Value, keys: &[&str]) {
    let mut seen = Vec::new();
    list.as_array_mut().unwrap().retain(|element| {
        let kind: Vec<Value> = keys.iter().map(|key| element[key].clone()).collect();
        let is_new = !seen.contains(&kind);
        if is_new {
            seen.push(kind);
        }
        is_new
    });
}

/// Does the same for text for people, with every duration as `* s`. Removes progress lines, which
/// come every 15 seconds in long phases.
pub(crate) fn plain(context: &TestContext, text: &str) -> String {
    let is_number = |word: &str| word.trim_start_matches('(').parse::<f64>().is_ok();
    let is_seconds = |word: &str| word.trim_end_matches([',', ':', ')']) == "s";
    let mut masked = String::new();
    let is_count = |line: &&str| {
        let told = line.split_once(": ").map_or("", |(_, told)| told);
        told.starts_with(|c: char| c.is_ascii_digit()) && told.contains("  ")
    };
    for line in without_places(context, text).lines().filter(|line| !is_count(line)) {
        let mut words: Vec<&str> = line.split(' ').collect();
        for at in 1..words.len() {
            if is_seconds(words[at]) && is_number(words[at - 1]) {
                words[at - 1] = "*";
            }
        }
        masked.push_str(words.join(" ").trim_end());
        masked.push('\n');
    }
    masked
}
