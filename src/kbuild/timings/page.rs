//! Renders the page, which begins with what people look for first: where the time and the bytes are.

use super::chart::{self, Treemap};
use super::file_tree::{FileCost, Node};
use super::{Step, Timings};
use crate::util::html::{escape, facts, page, section};
use crate::util::text::{format_duration, format_size, pluralize};
use std::time::Duration;

/// The length of the list of the slowest translation units.
const MAX_SLOWEST: usize = 40;
/// Directories with a smaller share of the whole are left out.
const MIN_SHARE: f64 = 0.002;

pub(super) fn render(timings: &Timings) -> String {
    let files = Node::of(timings);
    let time = Treemap { cost: |cost| cost.seconds, format: seconds };
    let size = Treemap { cost: |cost| (cost.vmlinux + cost.module) as f64, format: bytes };
    let jobs = chart::jobs_running(&timings.jobs_running, timings.jobs, timings.compile_seconds);
    let about_directories = format!(
        "Directories below {:.1} % of the whole are left out. --timings=json has all of them.",
        MIN_SHARE * 100.0
    );
    let body = [
        facts(&timings.facts),
        section(
            "Compile time by directory and file",
            "The time of this run's steps, including modules. The top left has the most. Point at a rectangle for \
             its path and share.",
            &time.draw(&files),
        ),
        section("Bytes by directory and file", &about_bytes(timings), &size.draw(&files)),
        section("Phases", "", &phases(timings)),
        section("Jobs", &about_jobs(timings), &jobs),
        section("Slowest translation units", &about_units(timings), &slowest(&timings.steps)),
        section("Directories", &about_directories, &directories(&files)),
    ];
    page(&timings.title(), &body.concat())
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn bytes(bytes: f64) -> String {
    format_size(bytes as u64)
}

fn phases(timings: &Timings) -> String {
    let whole: f64 = timings.phases.iter().map(|phase| phase.seconds).sum();
    let mut rows = String::from("<table>");
    for phase in &timings.phases {
        rows.push_str(&row(&[phase.phase.title()], &seconds(phase.seconds), phase.seconds / whole));
    }
    rows + &format!("<tr><td>Total</td><td class=\"number\">{}</td><td></td></tr></table>", seconds(whole))
}

/// Renders a row of a table, with a bar for a share of 1.
fn row(texts: &[&str], number: &str, share: f64) -> String {
    let cells: String = texts.iter().map(|text| format!("<td>{}</td>", escape(text))).collect();
    let share = if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    format!(
        "<tr>{cells}<td class=\"number\">{}</td><td class=\"bar\"><i style=\"width:{share:.1}%\"></i></td></tr>\n",
        escape(number)
    )
}

fn about_jobs(timings: &Timings) -> String {
    let busy: f64 = timings.jobs_running.iter().sum::<f64>() / timings.jobs_running.len().max(1) as f64;
    format!(
        "The number of make's steps that ran at the same time. It was {busy:.2} on average. The dashed line is -j {}. \
         Where it is low, make read its files, waited for one step, or linked.",
        timings.jobs
    )
}

fn about_units(timings: &Timings) -> String {
    let units = timings.steps.iter().filter(|step| step.is_translation_unit());
    let (count, took) = units.fold((0, 0.0), |(count, took), step| (count + 1, took + step.seconds));
    format!(
        "This run compiled {} in {}, added up over the files. Files that an earlier run compiled do not count.",
        pluralize(count, "file", "files"),
        format_duration(Duration::from_secs_f64(took))
    )
}

fn slowest(steps: &[Step]) -> String {
    let mut units: Vec<&Step> = steps.iter().filter(|step| step.is_translation_unit()).collect();
    units.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.target.cmp(&b.target)));
    let longest = units.first().map_or(0.0, |unit| unit.seconds);
    let mut rows = String::from("<table>");
    for unit in units.iter().take(MAX_SLOWEST) {
        let tool = if unit.module { format!("{} [M]", unit.tool) } else { unit.tool.clone() };
        let took = format!("{:.2} s", unit.seconds);
        rows.push_str(&row(&[&tool, &unit.target], &took, unit.seconds / longest));
    }
    rows + "</table>"
}

fn about_bytes(timings: &Timings) -> String {
    let modules: u64 = timings.modules.values().sum();
    format!(
        "Code and data of the object files that vmlinux is linked from, {} in total, and of {}, {} in total. vmlinux \
         has {}, since the linker adds tables and padding, and drops and merges sections.",
        format_size(timings.vmlinux.sum()),
        pluralize(timings.modules.len(), "module (.ko)", "modules (.ko)"),
        format_size(modules),
        format_size(timings.vmlinux.bytes)
    )
}

fn directories(files: &Node<'_>) -> String {
    let heading = "<p class=\"row head\"><span>directory</span><span>time</span><span>vmlinux</span><span>modules</span></p>";
    format!("{heading}{}", directory_rows(files, files.cost, 1))
}

/// Renders the directories in a directory as a list that opens and closes, sorted by their share of `whole`.
fn directory_rows(dir: &Node<'_>, whole: FileCost, nesting: usize) -> String {
    let share = |cost: FileCost| {
        let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let parts = [
            of(cost.seconds, whole.seconds),
            of(cost.vmlinux as f64, whole.vmlinux as f64),
            of(cost.module as f64, whole.module as f64),
        ];
        parts.into_iter().fold(0.0, f64::max)
    };
    let mut below: Vec<&Node<'_>> = dir
        .children
        .iter()
        .filter(|node| !node.children.is_empty() && share(node.cost) >= MIN_SHARE)
        .collect();
    below.sort_by(|a, b| share(b.cost).total_cmp(&share(a.cost)));
    let mut html = String::new();
    for node in below {
        let line = format!(
            "<span>{}</span><span>{}</span><span>{}</span><span>{}</span>",
            escape(node.name),
            seconds(node.cost.seconds),
            format_size(node.cost.vmlinux),
            format_size(node.cost.module)
        );
        let inner = directory_rows(node, whole, nesting + 1);
        html += &if inner.is_empty() {
            format!("<p class=\"row\" style=\"--nesting:{nesting}\">{line}</p>\n")
        } else {
            format!(
                "<details style=\"--nesting:{nesting}\"><summary class=\"row\">{line}</summary>\n{inner}</details>\n"
            )
        };
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::tests::{step, timings};
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_escapes_names() {
        let mut timings = timings();
        let target = "drivers/<script>alert(1)</script>/x.o";
        timings.steps = vec![Step { module: true, ..step(target, 0.0, 3.0) }];
        timings.vmlinux.objects = [("fs/\"><img src=x>.o/y.o".to_owned(), 1000)].into();
        timings.modules = [("net/' onload='x/z.ko".to_owned(), 3000)].into();
        timings.facts = vec![("Command", "kcompile '--config <svg onload=x>'".into())];
        let page = render(&timings);
        for text in [
            "CC [M]",
            "3.00 s",
            "1.0 kB",
            "1 module (.ko), 3.0 kB in total",
            "drivers",
            "0.75 on average",
            "<h1>Linux 6.1.7 for Firecracker on amd64</h1>",
            "<dt>Command</dt><dd>kcompile &#39;--config &lt;svg",
        ] {
            assert!(page.contains(text), "`{text}` is not in {page}");
        }
        for markup in [
            "<script",
            "<img",
            "<svg onload",
            "http://",
            "https://",
            "url(",
            "@import",
            " src=\"",
            " href=",
            " onload='",
        ] {
            assert!(!page.contains(markup), "`{markup}` is in {page}");
        }
        let map = page.find("class=\"map\"").unwrap();
        assert!(map < page.find("<h2>Phases").unwrap(), "the treemaps are first");
    }
}
