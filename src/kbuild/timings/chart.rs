//! Draws the charts of the page as SVG. [`escape_html`] escapes every text that comes from a build.

use super::treemap::{Rect, squarified};
use super::{Cost, Directory};
use crate::util::text::format_duration;
use std::fmt::Write as _;
use std::time::Duration;

/// The width of a chart. Browsers scale it.
const WIDTH: f64 = 1120.0;
const TREEMAP_HEIGHT: f64 = 620.0;
const LINE_HEIGHT: f64 = 150.0;
/// Rectangles with a shorter side are not drawn.
const MIN_SIZE: f64 = 4.0;
const MAX_DEPTH: usize = 5;
/// The height of a name in a rectangle, and the width of one of its letters.
const NAME_HEIGHT: f64 = 15.0;
const LETTER: f64 = 6.4;

/// Escapes `text` for HTML and XML, also inside quotes, and spells out control characters.
pub(super) fn escape_html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            character if character.is_control() => safe.extend(character.escape_default()),
            character => safe.push(character),
        }
    }
    safe
}

/// Draws the number of running jobs over time as an area, and `-j` as a line.
pub(super) fn jobs_running(running: &[f64], jobs: usize, seconds: f64) -> String {
    let (left, top, width, height) = (30.0, 8.0, WIDTH - 40.0, LINE_HEIGHT - 30.0);
    let most = running.iter().copied().fold(jobs as f64, f64::max).max(1.0);
    let y = |value: f64| top + height * (1.0 - value / most);
    let part = width / running.len().max(1) as f64;
    let mut path = format!("M{left:.1} {:.1}", y(0.0));
    for (index, value) in running.iter().enumerate() {
        let x = left + index as f64 * part;
        write!(path, "L{x:.1} {y:.1}L{:.1} {y:.1}", x + part, y = y(*value)).expect("writing to a string");
    }
    write!(path, "L{:.1} {:.1}Z", left + width, y(0.0)).expect("writing to a string");
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {LINE_HEIGHT}\" role=\"img\"><path class=\"area\" d=\"{path}\"/>\
         <line class=\"limit\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{limit:.1}\" y2=\"{limit:.1}\"/>\
         <text x=\"0\" y=\"{:.1}\">{jobs}</text><text x=\"0\" y=\"{:.1}\">0</text>",
        left + width,
        y(jobs as f64) + 4.0,
        y(0.0),
        limit = y(jobs as f64),
    );
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let anchor = ["start", "middle", "middle", "middle", "end"][quarter as usize];
        write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            left + width * share,
            LINE_HEIGHT - 6.0,
            format_duration(Duration::from_secs_f64(seconds.max(0.0) * share))
        )
        .expect("writing to a string");
    }
    svg.push_str("</svg>");
    svg
}

/// Draws a treemap of the directories. `cost` selects what is drawn, and `format` formats it.
pub(super) fn treemap(top: &Directory, cost: fn(Cost) -> f64, format: fn(f64) -> String) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {TREEMAP_HEIGHT}\" role=\"img\">");
    let whole = Rect { x: 0.0, y: 0.0, width: WIDTH, height: TREEMAP_HEIGHT };
    let total = cost(top.whole());
    if total > 0.0 {
        let map = Map { cost, format, total };
        map.draw_inside(&mut svg, top, "", whole, 0, None);
    }
    svg.push_str("</svg>");
    svg
}

struct Map {
    cost: fn(Cost) -> f64,
    format: fn(f64) -> String,
    total: f64,
}

/// A rectangle of the treemap with its labels.
struct Tile<'a> {
    name: &'a str,
    path: &'a str,
    cost: f64,
    depth: usize,
    hue: u32,
}

impl Map {
    /// Draws the content of `dir` into `within`. Each top directory has the same colour in every
    /// map, and the directories in it have shades of that colour.
    fn draw_inside(
        &self,
        svg: &mut String,
        dir: &Directory,
        path: &str,
        within: Rect,
        depth: usize,
        hue: Option<u32>,
    ) {
        let below = dir.directories.iter().map(|below| ((self.cost)(below.whole()), Some(below)));
        let own = std::iter::once(((self.cost)(dir.own), None));
        let mut parts: Vec<_> = own.chain(below).enumerate().collect();
        parts.retain(|(_, (cost, _))| *cost > 0.0);
        parts.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
        let sizes: Vec<f64> = parts.iter().map(|(_, (cost, _))| *cost).collect();
        for ((index, (cost, below)), rect) in parts.iter().zip(squarified(&sizes, within)) {
            if rect.width.min(rect.height) < MIN_SIZE {
                continue;
            }
            // Steps around the colour circle that do not repeat soon.
            let hue = hue.unwrap_or((*index as u32 * 137) % 360);
            let name = below.map_or("files", |below| &below.name);
            let whole_name = match (below, path) {
                (Some(_), "") => name.to_owned(),
                (Some(_), _) => format!("{path}/{name}"),
                (None, "") => "files in the top directory".to_owned(),
                (None, _) => format!("files in {path}"),
            };
            self.draw(svg, &Tile { name, path: &whole_name, cost: *cost, depth, hue }, rect);
            let inner = rect.inside(NAME_HEIGHT + 2.0, 2.0).filter(|_| rect.height > 3.0 * NAME_HEIGHT);
            if let (Some(below), Some(inner), true) = (below, inner, depth + 1 < MAX_DEPTH)
                && !below.directories.is_empty()
            {
                self.draw_inside(svg, below, &whole_name, inner, depth + 1, Some(hue));
            }
        }
    }

    fn draw(&self, svg: &mut String, tile: &Tile<'_>, rect: Rect) {
        let Tile { name, path, cost, depth, hue } = *tile;
        let Rect { x, y, width, height } = rect;
        let light = 38 + 9 * depth;
        write!(
            svg,
            "<g><title>{}: {}, {:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"hsl({hue} 38% {light}%)\"/>",
            escape_html(path),
            (self.format)(cost),
            cost / self.total * 100.0
        )
        .expect("writing to a string");
        let letters = ((width - 6.0) / LETTER) as usize;
        if letters >= 3 && height >= NAME_HEIGHT {
            let with_cost = format!("{name} {}", (self.format)(cost));
            let text = if with_cost.chars().count() <= letters { &with_cost } else { name };
            let text: String = text.chars().take(letters).collect();
            let dark = if light > 55 { " class=\"dark\"" } else { "" };
            write!(
                svg,
                "<text{dark} x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 3.0,
                y + 12.0,
                escape_html(&text)
            )
            .expect("writing to a string");
        }
        svg.push_str("</g>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            escape_html("<b a=\"x\" c='y'>&\u{1b}[2J"),
            "&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;\\u{1b}[2J"
        );
    }

    #[test]
    fn the_height_of_the_area_is_the_number_of_jobs() {
        let svg = jobs_running(&[2.0, 0.0], 2, 10.0);
        // Half of the width at the top, half at the bottom.
        assert!(
            svg.contains("d=\"M30.0 128.0L30.0 8.0L570.0 8.0L570.0 128.0L1110.0 128.0L1110.0 128.0Z\""),
            "{svg}"
        );
        assert!(svg.contains(">10 s</text>"), "{svg}");
        assert!(jobs_running(&[], 4, 0.0).contains("<svg"));
    }

    #[test]
    fn the_treemap_nests_directories_with_their_shares() {
        let file = |name: &str, bytes| Directory {
            name: name.into(),
            bytes,
            own: Cost { seconds: 0.0, bytes },
            ..Directory::default()
        };
        let drivers = Directory {
            bytes: 75,
            directories: vec![file("net", 50), file("<i>", 25)],
            ..file("drivers", 0)
        };
        let drivers = Directory { bytes: 75, ..drivers };
        let top =
            Directory { bytes: 100, directories: vec![drivers, file("fs", 25)], ..Directory::default() };
        let svg = treemap(&top, |cost| cost.bytes as f64, |bytes| format!("{bytes} B"));
        for title in [
            "drivers: 75 B, 75.0 %",
            "drivers/net: 50 B, 50.0 %",
            "fs: 25 B, 25.0 %",
            "drivers/&lt;i&gt;: 25 B",
        ] {
            assert!(svg.contains(&format!("<title>{title}")), "`{title}` is not in {svg}");
        }
        assert!(!svg.contains("<i>"), "{svg}");
    }
}
