//! Checks the imports of `src/` and of the suite. Modules import downwards only, no files import
//! each other in a circle, and test files import only from `support`.
//!
//! The files beside a `mod.rs` may use what it defines, and it uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of `src/`, from the top down. Each imports only from those after it.
const ORDER: [&str; 16] = [
    "cli", "ops", "boot", "image", "kbuild", "source", "plan", "kconfig", "catalog", "oci", "cache", "host",
    "report", "cve", "kernel", "util",
];

type Module = Vec<String>;

/// The modules of a source tree with their imports.
#[derive(Default)]
struct Sources {
    /// Modules with their code, without comments, strings and tests.
    code: BTreeMap<Module, String>,
}

impl Sources {
    fn read(root: &Path) -> Sources {
        let mut sources = Sources::default();
        for entry in walkdir::WalkDir::new(root) {
            let path = entry.unwrap().into_path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.add(&path.strip_prefix(root).unwrap().with_extension(""), &text);
            }
        }
        sources
    }

    fn add(&mut self, path: &Path, text: &str) {
        let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        let code = strip(text);
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
        self.code.insert(module, code);
    }

    /// Returns every import as `(importer, imported)`.
    fn imports(&self) -> BTreeSet<(Module, Module)> {
        let mut imports = BTreeSet::new();
        for (module, code) in &self.code {
            for path in paths(code) {
                let imported = self.resolve(module, &path);
                if let Some(imported) = imported.filter(|imported| imported != module) {
                    imports.insert((module.clone(), imported));
                }
            }
        }
        imports
    }

    /// Returns the file that defines what `path` names in `module`. Follows re-exports of a
    /// `mod.rs`.
    fn resolve(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut place = match path.first()?.as_str() {
            "crate" => Module::new(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            child => {
                let below = [&module[..], &[child.to_owned()]].concat();
                return self.code.contains_key(&below).then(|| self.descend(below, &path[1..])).flatten();
            }
        };
        let mut rest = &path[1..];
        while rest.first().is_some_and(|part| part == "super") {
            place.pop()?;
            rest = &rest[1..];
        }
        self.descend(place, rest)
    }

    fn descend(&self, mut place: Module, path: &[String]) -> Option<Module> {
        for (index, part) in path.iter().enumerate() {
            let below = [&place[..], std::slice::from_ref(part)].concat();
            if self.code.contains_key(&below) {
                place = below;
                continue;
            }
            for handed_on in reexports(self.code.get(&place)?) {
                if handed_on.last() == Some(part) {
                    return self.resolve(&place, &[&handed_on[..], &path[index + 1..]].concat());
                }
            }
            break;
        }
        Some(place)
    }
}

/// Removes comments and the content of strings.
fn strip(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Returns every path that may name a module, from `use` (with groups expanded) and from paths with
/// `::`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let starts = !code[..at].ends_with(|c: char| is_word(c) || c == ':') && rest.starts_with(is_word);
        if !starts {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let mut end = rest.find(|c| !(is_word(c) || c == ':')).unwrap_or(rest.len());
        let name = rest[..end].trim_end_matches(':');
        if rest[..end].ends_with("::") && rest[end..].starts_with('{') {
            let group = group(&rest[end..]);
            end += group.len();
            expand(&split(name), &group[1..group.len() - 1], &mut found);
        } else if name.contains("::") {
            found.push(split(name));
        }
        at += end;
    }
    found
}

/// Returns the group in braces that `text` starts with.
fn group(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    &text[..=end.unwrap()]
}

fn expand(prefix: &[String], group: &str, found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let part = part.split(" as ").next().unwrap_or_default();
        match part.split_once("::{") {
            Some((name, below)) => {
                expand(&[prefix, &split(name)].concat(), below.trim_end_matches('}'), found);
            }
            None if part == "self" => found.push(prefix.to_vec()),
            None => found.push([prefix, &split(part)].concat()),
        }
    }
}

fn split(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

/// Returns the paths of `pub use`.
fn reexports(code: &str) -> Vec<Vec<String>> {
    let statements = code.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next());
    statements.flat_map(paths).collect()
}

/// Returns imports that go up or are part of a circle.
fn faults(imports: &BTreeSet<(Module, Module)>) -> Vec<String> {
    let floor =
        |module: &Module| ORDER.iter().position(|name| module.first().is_some_and(|first| first == name));
    let name = |module: &Module| format!("src/{}", module.join("/"));
    let mut faults = Vec::new();
    let mut below: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (importer, imported) in imports {
        if floor(importer).zip(floor(imported)).is_some_and(|(from, to)| from > to) {
            faults.push(format!("{} imports {}, which is above it", name(importer), name(imported)));
        }
        if importer.split_last().is_some_and(|(_, folder)| folder != imported.as_slice()) {
            below.entry(importer).or_default().insert(imported);
        }
    }
    for (importer, all) in &below {
        let on: Vec<String> =
            all.iter().filter(|imported| reaches(imported, importer, &below)).map(|one| name(one)).collect();
        if !on.is_empty() {
            faults.push(format!("{} is in a circle with {}", name(importer), on.join(", ")));
        }
    }
    faults
}

/// Returns whether `from` imports `to`, directly or through other modules.
fn reaches(from: &Module, to: &Module, below: &BTreeMap<&Module, BTreeSet<&Module>>) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        next.extend(below.get(module).into_iter().flatten().copied().filter(|one| seen.insert(one)));
    }
    false
}

fn faults_of(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources = Sources::default();
    files.iter().for_each(|(path, text)| sources.add(&PathBuf::from(path), text));
    faults(&sources.imports())
}

/// Returns what a file of the suite imports from other files, except `support`.
fn imports_of_tests(code: &str) -> Vec<String> {
    let is_support = |path: &[String]| path.get(1).is_some_and(|folder| folder == "support");
    let is_wrong = |path: &Vec<String>| match path[0].as_str() {
        "crate" => !is_support(path),
        "super" => true,
        _ => false,
    };
    paths(&strip(code)).into_iter().filter(is_wrong).map(|path| path.join("::")).collect()
}

#[test]
fn test_files_import_only_from_support() {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite"));
    assert!(sources.code.len() > 60, "{} files were read", sources.code.len());
    for (module, code) in &sources.code {
        let wrong = imports_of_tests(code);
        assert!(wrong.is_empty(), "tests/suite/{}.rs names {}", module.join("/"), wrong.join(", "));
    }
    let planted = "use crate::support::context::TestContext;\nuse crate::{build::inputs, support::git};\n\
                   fn f() { super::plan::f(\"crate::oci\") }\n";
    assert_eq!(imports_of_tests(planted), ["crate::build::inputs", "super::plan::f"]);
}

#[test]
fn imports_go_downwards_and_not_in_circles() {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let imports = sources.imports();
    assert!(imports.len() > 500, "{} imports were read", imports.len());
    let tops: BTreeSet<&str> =
        sources.code.keys().filter_map(|module| module.first()).map(String::as_str).collect();
    let expected = ORDER.into_iter().chain(["main"]).collect();
    assert_eq!(tops, expected, "ORDER has every module of src/");
    let faults = faults(&imports);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn upward_and_circular_imports_are_found() {
    let up = [("oci/mod", "use crate::util::text;\n"), ("util/mod", "pub mod text;\n")];
    assert!(faults_of(&up).is_empty());
    let up = [("oci/mod", "pub struct Layout;\n"), ("util/text", "fn f() -> crate::oci::Layout {}\n")];
    assert_eq!(faults_of(&up), ["src/util/text imports src/oci, which is above it"]);
    let circle = [
        ("oci/mod", "mod a;\nmod b;\npub use b::B;\n"),
        ("oci/a", "use super::{B, c};\n"),
        ("oci/b", "pub struct B(super::a::A);\n"),
    ];
    assert_eq!(
        faults_of(&circle),
        ["src/oci/a is in a circle with src/oci/b", "src/oci/b is in a circle with src/oci/a"]
    );
    let quoted = [
        ("oci/mod", "pub struct Layout;\n"),
        (
            "util/text",
            "// crate::oci\nconst A: &str = \"crate::oci::Layout\";\n#[cfg(test)]\nmod tests { use crate::oci; }\n",
        ),
    ];
    assert!(faults_of(&quoted).is_empty());
}
