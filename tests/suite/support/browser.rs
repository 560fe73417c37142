//! Looks at a page in headless Chromium.

use crate::support::context::{TestContext, has_tool};
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// Measures the page in a frame, whose scripts are its own. A page with a Content-Security-Policy runs none.
const MEASURE: &str = r#"
const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = color => color.match(/[\d.]+/g).map(Number);
const frame = document.getElementById('frame');
frame.onload = () => {
  const page = frame.contentDocument;
  const style = element => frame.contentWindow.getComputedStyle(element);
  const background = element => {
    for (; element; element = element.parentElement) {
      const color = numbers(style(element).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const result = { labels: 0, least: 99, failed: [], smallest: 99, width: page.documentElement.scrollWidth, scripts: page.scripts.length };
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const box = element.getBoundingClientRect();
    if (!texts.currentNode.data.trim() || !box.width || !box.height) continue;
    const [one, other] = [luminance(numbers(style(element).color)), luminance(background(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    result.labels++;
    result.least = Math.min(result.least, contrast);
    result.smallest = Math.min(result.smallest, parseFloat(style(element).fontSize));
    if (contrast < 4.5) result.failed.push(texts.currentNode.data.trim().slice(0, 40) + ' ' + contrast.toFixed(2));
  }
  document.getElementById('result').textContent = JSON.stringify(result);
};
"#;

/// What a browser shows of a page.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    /// The number of visible texts.
    pub labels: usize,
    /// The least contrast of a text and its background, by WCAG.
    pub least: f64,
    /// Texts with a contrast below 4.5.
    pub failed: Vec<String>,
    /// The smallest text, in pixels.
    pub smallest: f64,
    /// The width of the content.
    pub width: u32,
    pub scripts: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// Returns what Chromium shows in a window of this width. Returns `None` without Chromium.
pub(crate) fn look(context: &TestContext, page: &str, scheme: Scheme, width: u32) -> Option<Shown> {
    let program = ["chromium", "google-chrome"].into_iter().find(|program| has_tool(program))?;
    let quoted = Value::from(page).to_string().replace("</", "<\\/");
    let harness = format!(
        "<!DOCTYPE html><meta charset=utf-8><iframe id=frame style=\"width:{width}px;height:900px;border:0\"></iframe>\
         <pre id=result></pre><script>{MEASURE}frame.srcdoc = {quoted};</script>"
    );
    let path = context.path("harness.html");
    fs::write(&path, harness).unwrap();
    let scheme = match scheme {
        Scheme::Dark => 0,
        Scheme::Light => 1,
    };
    let output = Command::new(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=20000", "--window-size=1400,1000"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", context.path("browser")))
        .arg(format!("file://{path}"))
        .env("HOME", context.path("home"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("CONSOLE"), "the browser complains: {errors}");
    let dom = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = dom.split_once("<pre id=\"result\">").unwrap_or_else(|| panic!("{dom}\n{errors}"));
    let json = rest.split("</pre>").next().unwrap();
    let json = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    Some(serde_json::from_str(&json).unwrap_or_else(|why| panic!("{why}: {json}\n{errors}")))
}
