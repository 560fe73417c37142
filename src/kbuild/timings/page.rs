//! Renders the page, which is one HTML file without scripts and without anything from the network.

use super::chart::{self, escape_html};
use super::{Directory, Step, Timings};
use crate::util::text::{format_duration, format_size, pluralize};
use std::fmt::Write as _;
use std::time::Duration;

const STYLE: &str = include_str!("page.css");
/// The length of the list of the slowest translation units.
const MAX_SLOWEST: usize = 40;
/// Directories with a smaller share of the whole are left out.
const MIN_SHARE: f64 = 0.002;

pub(super) fn render(timings: &Timings) -> String {
    let Timings { release, flavor, arch, directories, vmlinux, .. } = timings;
    let title = format!("Linux {} for {} on {arch}", escape_html(release), flavor.spec().title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let mut section = |name: &str, about: &str, content: &str| {
        writeln!(page, "<section>\n<h2>{name}</h2>\n<p>{about}</p>\n{content}\n</section>")
            .expect("writing to a string");
    };
    section("Phases", "", &phases(timings));
    section(
        "Jobs",
        &about_jobs(timings),
        &chart::jobs_running(&timings.jobs_running, timings.jobs, timings.compile_seconds),
    );
    section("Slowest translation units", &about_units(timings), &slowest(&timings.steps));
    section(
        "Compile time by directory",
        "The time of this run's steps, including modules. Point at a rectangle for its path and share.",
        &chart::treemap(directories, |cost| cost.seconds, seconds),
    );
    section(
        "vmlinux by directory",
        &about_bytes(timings),
        &chart::treemap(directories, |cost| cost.bytes as f64, bytes),
    );
    let about = format!(
        "Directories below {:.1} % of both are left out. --timings=json has all of them.",
        MIN_SHARE * 100.0
    );
    let whole =
        Whole { seconds: directories.seconds.max(f64::MIN_POSITIVE), bytes: (vmlinux.sum() as f64).max(1.0) };
    let heading = "<p class=\"row head\"><span>directory</span><span>seconds</span><span>bytes</span></p>";
    section("Directories", &about, &format!("{heading}{}", tree(directories, whole)));
    page.push_str("</body>\n</html>\n");
    page
}

/// The cost of the whole kernel.
#[derive(Clone, Copy)]
struct Whole {
    seconds: f64,
    bytes: f64,
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
        rows.push_str(&row(&[phase.phase.title(), &seconds(phase.seconds)], phase.seconds / whole));
    }
    write!(rows, "<tr><td>Total</td><td>{}</td><td></td></tr></table>", seconds(whole))
        .expect("writing to a string");
    rows
}

/// Renders a row of a table, with a bar for a share of 1.
fn row(cells: &[&str], share: f64) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape_html(cell))).collect();
    let share = if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    format!("<tr>{cells}<td class=\"bar\"><i style=\"width:{share:.1}%\"></i></td></tr>\n")
}

fn about_jobs(timings: &Timings) -> String {
    let busy: f64 = timings.jobs_running.iter().sum::<f64>() / timings.jobs_running.len().max(1) as f64;
    format!(
        "The number of make's steps that ran at the same time. It was {busy:.2} on average, with -j {}. Where it is \
         low, make read its files, waited for one step, or linked.",
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
        rows.push_str(&row(&[&tool, &unit.target, &took], unit.seconds / longest));
    }
    rows.push_str("</table>");
    rows
}

fn about_bytes(timings: &Timings) -> String {
    format!(
        "Code and data of the object files that vmlinux is linked from, {} in total. vmlinux has {}, since the linker \
         adds tables and padding, and drops and merges sections. Modules do not count.",
        format_size(timings.vmlinux.sum()),
        format_size(timings.vmlinux.bytes)
    )
}

/// Renders a directory and those in it as a list that opens and closes, sorted by cost. `whole` is
/// the cost of the kernel.
fn tree(dir: &Directory, whole: Whole) -> String {
    let share = |dir: &Directory| (dir.seconds / whole.seconds).max(dir.bytes as f64 / whole.bytes);
    let mut below: Vec<&Directory> = dir.directories.iter().filter(|dir| share(dir) >= MIN_SHARE).collect();
    below.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let mut html = String::new();
    for dir in below {
        let line = format!(
            "<span>{}</span><span>{}</span><span>{}</span>",
            escape_html(&dir.name),
            seconds(dir.seconds),
            format_size(dir.bytes)
        );
        let inner = tree(dir, whole);
        html += &if inner.is_empty() {
            format!("<p class=\"row\">{line}</p>\n")
        } else {
            format!("<details><summary class=\"row\">{line}</summary>\n{inner}</details>\n")
        };
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::{ObjectSizes, PhaseTime};
    use super::*;
    use crate::kernel::{Arch, Flavor};
    use crate::report::Phase;

    #[test]
    fn the_page_loads_nothing_and_escapes_names() {
        let step = Step {
            tool: "CC".into(),
            target: "drivers/<script>alert(1)</script>/x.o".into(),
            module: true,
            begin: 0.0,
            seconds: 3.0,
            measured: true,
        };
        let objects =
            ObjectSizes { bytes: 2000, objects: [("fs/\"><img src=x>.o/y.o".to_owned(), 1000)].into() };
        let timings = Timings {
            release: "6.1.7".into(),
            flavor: Flavor::Firecracker,
            arch: Arch::Amd64,
            jobs: 2,
            phases: vec![PhaseTime { phase: Phase::Compile, seconds: 4.0 }],
            compile_seconds: 4.0,
            jobs_running: vec![1.0, 0.5],
            directories: Directory::of(std::slice::from_ref(&step), &objects),
            steps: vec![step],
            vmlinux: objects,
        };
        let page = render(&timings);
        for text in [
            "CC [M]",
            "3.00 s",
            "1.0 kB",
            "drivers",
            "0.75 on average",
            "Linux 6.1.7 for Firecracker on amd64",
        ] {
            assert!(page.contains(text), "`{text}` is not in {page}");
        }
        for markup in
            ["<script", "<img", "http://", "https://", "url(", "@import", " src=\"", " href=", " onload"]
        {
            assert!(!page.contains(markup), "`{markup}` is in {page}");
        }
    }
}
