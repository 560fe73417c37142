//! The rules for code in `docs/style.md` that clippy does not check.

use std::path::Path;

/// Tables of data, which may be longer than other files.
const DATA: [&str; 1] = ["catalog/toolchain_quirks.rs"];
const MAX_LINES: usize = 400;
const MAX_BOOL_ARMS: usize = 12;
const MAX_TUPLE_PARAMETERS: usize = 6;

/// Path below `src/` and text of every source file.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&root).into_iter().map(|entry| entry.unwrap().into_path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.map(read).collect()
}

/// The lines that are an arm of a match on a bool.
fn bool_arms(text: &str) -> impl Iterator<Item = &str> {
    let is_arm = |line: &&str| ["true =>", "false =>"].iter().any(|arm| line.trim_start().starts_with(arm));
    text.lines().filter(is_arm)
}

/// The heads of the functions that take a tuple apart in their parameters.
fn tuple_parameters(text: &str) -> Vec<&str> {
    let heads = text.match_indices("fn ").filter_map(|(start, _)| {
        let head = &text[start..];
        let end = head.find(['{', ';'])?;
        Some(&head[..end])
    });
    let has_tuple = |head: &&str| {
        head.split_once('(').is_some_and(|(_, parameters)| {
            let mut rest = parameters;
            while let Some((before, after)) = rest.split_once('(') {
                let begins = before.trim_end();
                // `(a, b): (A, B)`, not the type of a parameter or of a function.
                if begins.is_empty() || begins.ends_with(',') {
                    return after.split_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(':'));
                }
                rest = after;
            }
            false
        })
    };
    heads.filter(has_tuple).collect()
}

/// `std::thread::spawn` and `Scope::spawn` panic at a limit of processes. `util/threads.rs` does not.
#[test]
fn threads_are_started_without_a_panic() {
    let starts = |text: &str| {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        ["thread::spawn(", "scope.spawn(", "enable_steady_tick("].iter().any(|start| code.contains(start))
    };
    let is_test = |name: &str| name.ends_with("tests.rs") || name.ends_with("fuzz.rs");
    let found = sources().into_iter().filter(|(name, text)| !is_test(name) && starts(text));
    let found: Vec<String> = found.map(|(name, _)| name).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn source_files_have_at_most_400_lines() {
    let is_long = |text: &str| text.lines().count() > MAX_LINES;
    let long: Vec<_> =
        sources().into_iter().filter(|(name, text)| is_long(text) && !DATA.contains(&&**name)).collect();
    let names: Vec<_> = long.iter().map(|(name, text)| format!("{name}: {}", text.lines().count())).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn conditions_are_written_with_if() {
    assert_eq!(bool_arms("match x {\n    true => 1,\n    false => 2,\n    Some(true) => 3,\n}").count(), 2);
    let sources = sources();
    let arms: Vec<_> =
        sources.iter().flat_map(|(name, text)| bool_arms(text).map(move |arm| (name, arm))).collect();
    assert!(arms.len() <= MAX_BOOL_ARMS, "{} arms of matches on bools: {arms:#?}", arms.len());
}

#[test]
fn parameters_are_not_grouped_in_tuples() {
    let planted = "fn a((b, c): (u8, u8), d: &str) {}\nfn e(\n    f: (u8, u8),\n    g: impl Fn(u8),\n) {}\nfn h(i: u8, (j, k): P) {}";
    assert_eq!(tuple_parameters(planted).len(), 2);
    let sources = sources();
    let found: Vec<_> = sources
        .iter()
        .flat_map(|(name, text)| tuple_parameters(text).into_iter().map(move |head| (name, head)))
        .collect();
    assert!(found.len() <= MAX_TUPLE_PARAMETERS, "{} functions: {found:#?}", found.len());
}
