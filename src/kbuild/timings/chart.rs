//! Draws the charts of the page. Texts of a chart are HTML, so that they keep their size on a phone.

use super::file_tree::{FileCost, Node};
use super::treemap::{Rect, squarified};
use crate::util::html::escape;
use crate::util::text::format_duration;
use std::fmt::Write as _;
use std::time::Duration;

/// The size for which treemaps are laid out. Browsers stretch it to the width of the window.
const WIDTH: f64 = 1150.0;
const HEIGHT: f64 = 600.0;
/// Rectangles with a shorter side are not drawn.
const MIN_SIZE: f64 = 3.0;
const MAX_DEPTH: usize = 6;
/// The height of the name of a directory above its content.
const NAME_HEIGHT: f64 = 18.0;
/// The least width of a name.
const MIN_NAME: f64 = 34.0;

/// Draws the number of running jobs over time as an area, and `-j` as a line.
pub(super) fn jobs_running(running: &[f64], jobs: usize, seconds: f64) -> String {
    let most = running.iter().copied().fold(jobs as f64, f64::max).max(1.0);
    let y = |value: f64| 100.0 * (1.0 - value / most);
    let part = 1000.0 / running.len().max(1) as f64;
    let mut path = String::from("M0 100");
    for (index, value) in running.iter().enumerate() {
        let x = index as f64 * part;
        write!(path, "L{x:.1} {y:.1}L{:.1} {y:.1}", x + part, y = y(*value)).expect("writing to a string");
    }
    let limit = y(jobs as f64);
    let quarters = (0..=4).map(|quarter| {
        let at = seconds.max(0.0) * f64::from(quarter) / 4.0;
        format!("<span>{}</span>", format_duration(Duration::from_secs_f64(at)))
    });
    format!(
        "<div class=\"jobs\"><svg viewBox=\"0 0 1000 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"running \
         jobs over time\"><path d=\"{path}L1000 100Z\"/><line x1=\"0\" x2=\"1000\" y1=\"{limit:.1}\" y2=\"{limit:.1}\"/>\
         </svg><p>{}</p></div>",
        quarters.collect::<String>()
    )
}

/// A treemap of files.
pub(super) struct Treemap {
    /// Returns what the areas show.
    pub(super) cost: fn(FileCost) -> f64,
    pub(super) format: fn(f64) -> String,
}

/// A directory whose content is drawn.
struct Level<'a> {
    dir: &'a Node<'a>,
    path: &'a str,
    depth: usize,
    area: Rect,
}

impl Treemap {
    /// Draws a treemap of all files. Each top directory has a color, and what is in it has shades of that color.
    pub(super) fn draw(&self, top: &Node<'_>) -> String {
        let mut html = String::from("<div class=\"map\">\n");
        let total = (self.cost)(top.cost);
        if total > 0.0 {
            let area = Rect { x: 0.0, y: 0.0, width: WIDTH, height: HEIGHT };
            self.draw_content(&mut html, &Level { dir: top, path: "", depth: 0, area }, total);
        }
        html + "</div>"
    }

    fn draw_content(&self, html: &mut String, level: &Level<'_>, total: f64) {
        let Level { dir, path, depth, area } = *level;
        let mut parts: Vec<(usize, &Node<'_>)> = dir.children.iter().enumerate().collect();
        parts.retain(|(_, node)| (self.cost)(node.cost) > 0.0);
        parts.sort_by(|(_, a), (_, b)| (self.cost)(b.cost).total_cmp(&(self.cost)(a.cost)));
        let sizes: Vec<f64> = parts.iter().map(|(_, node)| (self.cost)(node.cost)).collect();
        for ((index, node), rect) in parts.into_iter().zip(squarified(&sizes, area)) {
            if rect.width.min(rect.height) < MIN_SIZE {
                continue;
            }
            let slash = if path.is_empty() { "" } else { "/" };
            let whole_path = format!("{path}{slash}{}", node.name);
            // Steps around the colour circle that do not repeat soon.
            let hue = if depth == 0 { format!("--hue:{};", (index * 137) % 360) } else { String::new() };
            let percent = |length: f64, whole: f64| length / whole * 100.0;
            write!(
                html,
                "<div class=\"tile\" style=\"{hue}--depth:{depth};left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%\" \
                 title=\"{}: {}, {:.1} %\">",
                percent(rect.x, area.width),
                percent(rect.y, area.height),
                percent(rect.width, area.width),
                percent(rect.height, area.height),
                escape(&whole_path),
                (self.format)((self.cost)(node.cost)),
                (self.cost)(node.cost) / total * 100.0
            )
            .expect("writing to a string");
            self.draw_inside(html, &Level { dir: node, path: &whole_path, depth, area: rect }, total);
            html.push_str("</div>\n");
        }
    }

    /// Draws the name of a tile and, if the tile is large enough, its children.
    fn draw_inside(&self, html: &mut String, tile: &Level<'_>, total: f64) {
        let Level { dir: node, path, depth, area } = *tile;
        if area.width >= MIN_NAME && area.height >= NAME_HEIGHT {
            let cost = (self.format)((self.cost)(node.cost));
            write!(html, "<span>{} {cost}</span>", escape(node.name)).expect("writing to a string");
        }
        let is_large =
            area.height > 3.0 * NAME_HEIGHT && area.width > 2.0 * MIN_NAME && depth + 1 < MAX_DEPTH;
        if !is_large || node.children.is_empty() {
            return;
        }
        let inner = Rect { x: 0.0, y: 0.0, width: area.width - 4.0, height: area.height - NAME_HEIGHT - 3.0 };
        html.push_str("<div>");
        self.draw_content(html, &Level { dir: node, path, depth: depth + 1, area: inner }, total);
        html.push_str("</div>");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::timings;
    use super::*;

    #[test]
    fn the_height_of_the_area_is_the_number_of_jobs() {
        let html = jobs_running(&[2.0, 0.0], 2, 10.0);
        // Half of the width at the top, half at the bottom.
        assert!(html.contains("d=\"M0 100L0.0 0.0L500.0 0.0L500.0 100.0L1000.0 100.0L1000 100Z\""), "{html}");
        assert!(html.contains("<span>10 s</span>"), "{html}");
        assert!(jobs_running(&[], 4, 0.0).contains("<svg"));
    }

    #[test]
    fn the_treemap_nests_files_in_directories_with_their_shares() {
        let mut timings = timings();
        timings.vmlinux.objects = [("drivers/net/a.o", 50), ("drivers/<i>/b.o", 25), ("fs/open.o", 25)]
            .map(|(name, bytes)| (name.into(), bytes))
            .into();
        let map = Treemap { cost: |cost| cost.vmlinux as f64, format: |bytes| format!("{bytes} B") };
        let html = map.draw(&Node::of(&timings));
        for title in [
            "drivers: 75 B, 75.0 %",
            "drivers/net/a.o: 50 B, 50.0 %",
            "fs/open.o: 25 B, 25.0 %",
            "drivers/&lt;i&gt;/b.o: 25 B",
        ] {
            assert!(html.contains(&format!("title=\"{title}")), "`{title}` is not in {html}");
        }
        assert!(!html.contains("<i>"), "{html}");
        assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    }
}
