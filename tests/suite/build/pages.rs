//! The pages of `--timings` and `diff --html` in a browser, in light and dark, on a desktop and on a phone.

use crate::support::browser::{Scheme, look};
use crate::support::context::TestContext;
use std::fs;

/// The least contrast of texts, by WCAG 2 level AA.
const MIN_CONTRAST: f64 = 4.5;
const DESKTOP: u32 = 1200;
const PHONE: u32 = 360;

fn check(context: &TestContext, name: &str) {
    let page = fs::read_to_string(context.path(&format!("work/{name}"))).unwrap();
    for scheme in [Scheme::Light, Scheme::Dark] {
        for width in [DESKTOP, PHONE] {
            let Some(shown) = look(context, &page, scheme, width) else { return };
            let case = format!("{name}, {scheme:?}, {width} pixels: {shown:?}");
            println!("{case}");
            assert!(shown.labels > 20 && shown.scripts == 0, "{case}");
            assert!(shown.failed.is_empty() && shown.least >= MIN_CONTRAST, "{case}");
            assert!(shown.smallest >= 12.0, "{case}");
            assert!(shown.width <= width, "the page is wider than the window: {case}");
        }
    }
}

#[test]
fn pages_are_readable_in_a_browser() {
    let context = TestContext::new();
    context.build("--timings --combined-image").ok();
    check(&context, "out/firecracker-6.1.7-amd64-timings.html");
    context.build("-o other --combined-image --set DUMMY=n --set WIREGUARD=m --set BRIDGE=y").ok();
    context.run("diff out/flintlock-kernel other/flintlock-kernel --html diff.html").ok();
    check(&context, "diff.html");
}

#[test]
fn faint_texts_are_found() {
    let context = TestContext::new();
    let page = "<p style='color: #999'>faint <b style='color: #000'>strong</b></p>";
    let Some(shown) = look(&context, page, Scheme::Light, PHONE) else { return };
    assert_eq!((shown.labels, shown.failed.len()), (2, 1), "{shown:?}");
    assert!((shown.least - 2.85).abs() < 0.01, "{shown:?}");
}
