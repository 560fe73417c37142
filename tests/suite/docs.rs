//! Checks of the pages. Links resolve, pages show what the program prints, and they follow
//! docs/style.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const KCOMPILE: &str = env!("CARGO_BIN_EXE_kcompile");
/// The generated page.
const CLI: &str = "docs/reference/cli.md";

#[test]
fn relative_links_and_anchors_resolve() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = without_code(&read(&page));
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            if !target.exists()
                || (!anchor.is_empty() && is_page && !anchors(&read(&target)).contains(anchor))
            {
                broken.push(format!("{}: {link}", shown(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_index_links_every_page() {
    let index = Path::new(ROOT).join("docs/README.md");
    let linked: BTreeSet<PathBuf> = links(&read(&index))
        .iter()
        .filter_map(|link| index.parent().unwrap().join(link.split('#').next().unwrap()).canonicalize().ok())
        .collect();
    let docs = Path::new(ROOT).join("docs").canonicalize().unwrap();
    let missing: Vec<String> = pages()
        .into_iter()
        .map(|page| page.canonicalize().unwrap())
        .filter(|page| page.starts_with(&docs) && !page.ends_with("docs/README.md") && !linked.contains(page))
        .map(|page| shown(&page))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not link {missing:?}");
}

#[test]
fn pages_that_code_and_scripts_name_exist() {
    let mut missing = Vec::new();
    let places =
        ["src", "scripts", "tests/suite", "action.yml", "configs/kernels.toml", ".github", "Cargo.toml"];
    for file in places.into_iter().flat_map(|place| files(&Path::new(ROOT).join(place))) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (at, _) in text.match_indices("docs/") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_lowercase() || "/-.".contains(*c)).collect();
            let name = name.trim_end_matches('.');
            if name.ends_with(".md") && !Path::new(ROOT).join(name).is_file() {
                missing.push(format!("{}: {name}", shown(&file)));
            }
        }
    }
    assert!(missing.is_empty(), "there are no such pages:\n{}", missing.join("\n"));
}

#[test]
fn source_files_that_pages_name_exist() {
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        for name in text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("src/")) {
            let is_pattern = name.contains(['<', '*', '{', ' ', '…', '\n']);
            if !is_pattern && !Path::new(ROOT).join(name).exists() {
                missing.push(format!("{}: {name}", shown(&page)));
            }
        }
    }
    assert!(missing.is_empty(), "there are no such files:\n{}", missing.join("\n"));
}

#[test]
fn the_readme_has_at_most_90_lines() {
    let lines = read(&Path::new(ROOT).join("README.md")).lines().count();
    assert!(lines <= 90, "README.md has {lines} lines");
}

#[test]
fn the_command_line_reference_is_what_the_program_prints() {
    let mut sections = Vec::new();
    add_help(&[], &mut sections);
    let index: String = sections.iter().map(|(name, _)| format!("- [{name}](#{})\n", slug(name))).collect();
    let texts: String =
        sections.iter().map(|(name, help)| format!("\n## {name}\n\n```text\n{help}\n```\n")).collect();
    let page = format!(
        "# Command line\n\nThis page is generated from the program's `--help`. Do not edit it. This command \
         regenerates it:\n\n```sh\nKCOMPILE_GOLDEN=update cargo test --locked --test suite -- docs\n```\n\n{index}{texts}"
    );
    let path = Path::new(ROOT).join(CLI);
    if std::env::var("KCOMPILE_GOLDEN").is_ok_and(|what| what == "update") {
        fs::write(&path, &page).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differing = found.lines().zip(page.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == page,
        "{CLI} is not what --help prints (first difference, page and program: {differing:?}); \
         KCOMPILE_GOLDEN=update regenerates it"
    );
}

#[test]
fn at_most_one_sentence_in_four_has_a_colon_or_a_semicolon() {
    let Some(output) = prose(&[]) else { return };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn scripts_prose_counts_colons_and_semicolons() {
    let dir = tempfile::tempdir().unwrap();
    let counts = |text: &str| {
        let page = dir.path().join("page.md");
        fs::write(&page, text).unwrap();
        let output = prose(&[page.to_str().unwrap()])?;
        Some((output.status.success(), String::from_utf8(output.stdout).unwrap()))
    };
    let plain = "# A: heading\n\nThis is a sentence. This is another one `a: b; c`.\n\n```\na: b; c d\n```\n\
                 \n- The third one is an item.\n- The fourth one [is too](a:b).\n";
    let Some((is_good, text)) = counts(plain) else { return };
    assert!(is_good && text.contains("0 of     4"), "{text}");
    let (is_good, text) = counts(&format!("{plain}\n| this cell has: a colon | |\n|---|---|\n")).unwrap();
    assert!(is_good && text.contains("1 of     5"), "{text}");
    let (is_good, text) =
        counts(&format!("{plain}\nOne is here; another follows. Read this page:\n")).unwrap();
    assert!(!is_good && text.contains("2 of     6"), "{text}");
}

/// Runs `scripts/prose`. Returns `None` without Python.
fn prose(args: &[&str]) -> Option<std::process::Output> {
    let output = Command::new("python3").arg(format!("{ROOT}/scripts/prose")).args(args).output();
    if output.is_err() {
        println!("skipped: python3 is not installed");
    }
    output.ok()
}

/// Adds the help of a command, and then of its subcommands.
fn add_help(command: &[&str], sections: &mut Vec<(String, String)>) {
    let output = Command::new(KCOMPILE)
        .args(command)
        .arg("--help")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let name = ["kcompile"].iter().chain(command).copied().collect::<Vec<_>>().join(" ");
    sections.push((name, help.join("\n")));
    let listed = help.iter().skip_while(|line| **line != "Commands:").skip(1);
    // The description of a command continues in lines with deeper indentation.
    let entries = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = entries.filter(|entry| !entry.starts_with(' ')).filter_map(|entry| entry.split(' ').next());
    for name in names.filter(|name| *name != "help") {
        add_help(&[command, &[name]].concat(), sections);
    }
}

/// Returns every Markdown file of the repository.
fn pages() -> Vec<PathBuf> {
    let tops = fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap().path());
    // Skips build output and cloned repositories.
    let ours = tops.filter(|path| !["target", ".git", "out", "fuzz"].iter().any(|name| path.ends_with(name)));
    let mut pages: Vec<PathBuf> = ours.flat_map(|top| files(&top)).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(pages.len() > 30, "only {} pages were found", pages.len());
    pages.sort();
    pages
}

/// Returns the regular files at and below a path.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(path).into_iter().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap_or(path).display().to_string()
}

/// Returns a page without its code blocks and code spans.
fn without_code(text: &str) -> String {
    let mut is_code = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.split('`').step_by(2).collect()
}

/// Returns the targets of inline links.
fn links(text: &str) -> Vec<String> {
    let targets = text.match_indices("](").map(|(at, found)| &text[at + found.len()..]);
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// Returns the anchors of a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        let heading = line.trim_start_matches('#');
        if !is_code && heading.len() < line.len() && heading.starts_with(' ') {
            let anchor = slug(heading.trim());
            // A second heading of the same name gets a number.
            let numbered = (1..).map(|number| format!("{anchor}-{number}"));
            let free = [anchor.clone()].into_iter().chain(numbered).find(|name| !anchors.contains(name));
            anchors.extend(free);
        }
    }
    anchors
}

/// Returns the anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
