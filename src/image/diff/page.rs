//! Renders the comparison of two images as an HTML page.

use super::{Change, Difference, SizeChange, key};
use crate::image::inspect::{FileContent, ImageInfo};
use crate::kconfig::{Comparison, Setting};
use crate::util::html::{escape, facts, page, section};
use crate::util::text::{format_size, pluralize};
use std::collections::BTreeMap;

/// Deeper directories are merged into the last one.
const MAX_DEPTH: usize = 24;

/// Returns the page. `found` are the images of `difference`, and `names` is what the page calls them.
pub fn render(difference: &Difference, found: (&ImageInfo, &ImageInfo), names: [&str; 2]) -> String {
    let Difference { first, second, inputs, sizes, tools, annotations, config, modules, .. } = difference;
    let summary = if difference.equal {
        "none, the images are identical".to_owned()
    } else if inputs.is_empty() {
        "none that the images name".to_owned()
    } else {
        inputs.join(", ")
    };
    let mut body = facts(&[
        ("First", format!("{}, {}", names[0], first.digest)),
        ("Second", format!("{}, {}", names[1], second.digest)),
        ("Different inputs", summary),
        ("Modules", format!("{} and {}", modules.count.0, modules.count.1)),
    ]);
    if !sizes.is_empty() {
        body += &section(
            "Sizes",
            "",
            &table(["part", "change"], &sizes.iter().map(size_row).collect::<Vec<_>>()),
        );
    }
    let about = "Uncompressed sizes. The largest changes are first. Files of the same size are left out.";
    body += &section("Sizes by directory", about, &directories(found));
    body += &settings(config.as_ref());
    for (heading, changes) in [("Tools", tools), ("Annotations", annotations)] {
        if !changes.is_empty() {
            body += &section(
                heading,
                "",
                &table(["name", ""], &changes.iter().map(change_row).collect::<Vec<_>>()),
            );
        }
    }
    page(&format!("{} and {}", names[0], names[1]), &body)
}

/// Renders a table of rows, with a column for each image between the others. `rows` are HTML.
fn table([first_column, last_column]: [&str; 2], rows: &[String]) -> String {
    format!(
        "<table><tr><th>{first_column}</th><th>first</th><th>second</th><th class=\"number\">{last_column}</th></tr>\n{}</table>",
        rows.concat()
    )
}

/// Renders a row of texts.
fn row(texts: [&str; 3]) -> String {
    let [name, first, second] = texts.map(escape);
    format!("<tr><td>{name}</td><td>{first}</td><td>{second}</td><td></td></tr>\n")
}

fn change_row(Change { name, first, second }: &Change) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    row([name, &text(first), &text(second)])
}

fn size_row(SizeChange { name, first, second }: &SizeChange) -> String {
    let [first_text, second_text] = [*first, *second].map(size);
    let (name, change) = (escape(name), size_change(*first, *second));
    format!(
        "<tr><td class=\"name\">{name}</td><td class=\"name\">{first_text}</td><td class=\"name\">{second_text}</td><td class=\"number\">{change}</td></tr>\n"
    )
}

/// Formats a size that is not broken into two lines.
fn size(bytes: u64) -> String {
    format_size(bytes).replace(' ', "\u{a0}")
}

/// Renders by how much a size has changed.
fn size_change(first: u64, second: u64) -> String {
    let by = size(first.abs_diff(second));
    let percent = match first {
        0 => String::new(),
        _ => format!(", {:.1}\u{a0}%", first.abs_diff(second) as f64 / first as f64 * 100.0),
    };
    match second.cmp(&first) {
        std::cmp::Ordering::Equal => "same".to_owned(),
        std::cmp::Ordering::Greater => format!("<span class=\"more\">+{by}{percent}</span>"),
        std::cmp::Ordering::Less => format!("<span class=\"less\">−{by}{percent}</span>"),
    }
}

/// A file, or a directory with everything in it, in both images.
struct Node<'a> {
    name: &'a str,
    first: u64,
    second: u64,
    children: Vec<Node<'a>>,
}

/// The sizes of a file in both images.
type Sizes = (u64, u64);

impl<'a> Node<'a> {
    /// Builds a node from sorted paths that have the same first `depth` parts.
    fn from_sorted(name: &'a str, paths: &[(Vec<&'a str>, Sizes)], depth: usize) -> Node<'a> {
        let own = paths.iter().take_while(|(path, _)| path.len() == depth).count();
        let chunks = paths[own..].chunk_by(|(a, _), (b, _)| a[depth] == b[depth]);
        let mut children: Vec<Node<'_>> =
            chunks.map(|chunk| Node::from_sorted(chunk[0].0[depth], chunk, depth + 1)).collect();
        children.sort_by_key(|node| std::cmp::Reverse((node.first.abs_diff(node.second), node.first)));
        let sum = |of: fn(&Sizes) -> u64| paths.iter().map(|(_, sizes)| of(sizes)).sum();
        Node { name, first: sum(|sizes| sizes.0), second: sum(|sizes| sizes.1), children }
    }

    /// Renders what is in a directory as a list that opens and closes.
    fn rows(&self, nesting: usize) -> String {
        let is_shown = |node: &&Node<'_>| !node.children.is_empty() || node.first != node.second;
        let mut html = String::new();
        for node in self.children.iter().filter(is_shown) {
            let line = format!(
                "<span>{}</span><span>{}</span><span>{}</span><span>{}</span>",
                escape(node.name),
                size(node.first),
                size(node.second),
                size_change(node.first, node.second)
            );
            let inner = node.rows(nesting + 1);
            html += &if inner.is_empty() {
                format!("<p class=\"row\" style=\"--nesting:{nesting}\">{line}</p>\n")
            } else {
                let open = if nesting < 3 { " open" } else { "" };
                format!(
                    "<details{open} style=\"--nesting:{nesting}\"><summary class=\"row\">{line}</summary>\n{inner}</details>\n"
                )
            };
        }
        html
    }
}

fn directories(found: (&ImageInfo, &ImageInfo)) -> String {
    let files = [found.0, found.1].map(|image| {
        let is_first_name = |path: &&String| !image.scan.hard_links.contains_key(*path);
        let sizes = image.scan.files.iter().filter(|(path, _)| is_first_name(path));
        let sizes = sizes.filter_map(|(path, file)| match file {
            FileContent::File { bytes, .. } => Some((key(image, path), *bytes)),
            FileContent::Link { .. } => None,
        });
        sizes.collect::<BTreeMap<String, u64>>()
    });
    let mut both: BTreeMap<Vec<&str>, Sizes> = BTreeMap::new();
    for (path, bytes) in &files[0] {
        both.entry(parts(path)).or_default().0 += bytes;
    }
    for (path, bytes) in &files[1] {
        both.entry(parts(path)).or_default().1 += bytes;
    }
    let sorted: Vec<(Vec<&str>, Sizes)> = both.into_iter().collect();
    let rows = Node::from_sorted("", &sorted, 0).rows(1);
    let heading = "<p class=\"row head\"><span>directory or file</span><span>first</span><span>second</span><span>change</span></p>";
    format!("{heading}{rows}")
}

fn parts(path: &str) -> Vec<&str> {
    path.splitn(MAX_DEPTH, '/').filter(|part| !part.is_empty()).collect()
}

fn settings(config: Option<&Comparison>) -> String {
    let Some(Comparison { new, removed, renamed, changed }) = config else {
        return section("Settings", "The final config of an image is not known.", "");
    };
    let text = |settings: &[Setting]| {
        let texts: Vec<String> = settings.iter().map(|one| format!("{}={}", one.symbol, one.value)).collect();
        texts.join(", ")
    };
    let mut rows: Vec<String> =
        changed.iter().map(|one| row([one.symbol.as_str(), &one.from, &one.to])).collect();
    let only = |list: &[Setting], row_of: fn(&Setting) -> String| {
        list.iter().filter(|one| one.is_on()).map(row_of).collect::<Vec<_>>()
    };
    rows.extend(only(removed, |one| row([one.symbol.as_str(), &one.value, ""])));
    rows.extend(only(new, |one| row([one.symbol.as_str(), "", &one.value])));
    rows.extend(
        renamed.iter().map(|one| row(["renamed", &text(std::slice::from_ref(&one.old)), &text(&one.new)])),
    );
    let off = [new, removed].into_iter().flatten().filter(|one| !one.is_on()).count();
    let about = match off {
        0 => String::new(),
        off => format!(
            "{} that only one config has are off and left out.",
            pluralize(off, "setting", "settings")
        ),
    };
    match rows[..] {
        [] => section("Settings", "The settings are equal.", ""),
        _ => section("Settings", &about, &table(["option", ""], &rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_change_by_bytes_and_percent() {
        assert_eq!(size_change(1000, 1500), "<span class=\"more\">+500\u{a0}B, 50.0\u{a0}%</span>");
        assert_eq!(size_change(2000, 1000), "<span class=\"less\">−1.0\u{a0}kB, 50.0\u{a0}%</span>");
        assert_eq!(size_change(0, 7), "<span class=\"more\">+7\u{a0}B</span>");
        assert_eq!(size_change(7, 7), "same");
    }

    #[test]
    fn directories_have_the_largest_changes_first() {
        let sorted = vec![
            (vec!["kernel", "drivers", "a.ko"], (10, 20)),
            (vec!["kernel", "fs", "<b>.ko"], (100, 0)),
            (vec!["kernel", "fs", "same.ko"], (5, 5)),
        ];
        let html = Node::from_sorted("", &sorted, 0).rows(1);
        assert!(html.find("<span>fs").unwrap() < html.find("<span>drivers").unwrap(), "{html}");
        assert!(html.contains("&lt;b&gt;.ko") && !html.contains("same.ko"), "{html}");
        assert!(html.contains("<span>kernel</span><span>115\u{a0}B</span><span>25\u{a0}B</span>"), "{html}");
    }

    #[test]
    fn values_of_settings_are_escaped() {
        let mut config = Comparison::default();
        config.new.push(Setting { symbol: "CMDLINE".into(), value: "\"<script>x</script>\"".into() });
        let html = settings(Some(&config));
        assert!(html.contains("&quot;&lt;script&gt;") && !html.contains("<script"), "{html}");
    }
}
