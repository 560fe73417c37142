//! The pages of `--timings` and `diff --html` in a browser, in light and dark, on a desktop and on a phone.

use crate::support::browser::{Scheme, look};
use crate::support::context::TestContext;
use crate::support::fixtures::{Item, kernel, layer, named, put_image, put_index};
use serde_json::Value;
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

#[test]
fn names_and_values_of_images_are_shown_as_text() {
    let context = TestContext::new();
    let kernel = kernel("6.1.7");
    for (name, value) in [("a", "first"), ("b", "</td><script>document.title = 1</script><img src=x>")] {
        let config = format!("CONFIG_CMDLINE=\"{value}\"\nCONFIG_NET=y\n");
        let file = format!("etc/<img src=x onerror=alert(1)>/{name}\"><svg onload=alert(2)>");
        let items = [
            ("bin/vmlinux", Item::File(&kernel)),
            ("boot/config-6.1.7", Item::File(config.as_bytes())),
            (file.as_str(), Item::File(b"content")),
        ];
        let layout = context.path("work").join(name);
        put_index(&layout, &[named(put_image(&layout, &[layer(&items)], &Value::Null), "1")]);
    }
    context.run("diff a b --html diff.html").ok();
    let page = fs::read_to_string(context.path("work/diff.html")).unwrap();
    assert!(
        page.contains("&lt;script&gt;document.title = 1") && page.contains("onerror=alert(1)&gt;"),
        "{page}"
    );
    for markup in ["<script", "<img", "<svg"] {
        assert!(!page.contains(markup), "{markup}: {page}");
    }
    // The browser would complain about scripts and images, which the page forbids.
    let Some(shown) = look(&context, &page, Scheme::Light, DESKTOP) else { return };
    assert_eq!((shown.scripts, shown.failed.len()), (0, 0), "{shown:?}");
}
