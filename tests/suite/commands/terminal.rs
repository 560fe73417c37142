//! What is printed on a terminal, in CI and with `--quiet`, `--verbose` and `--color`.

use crate::support::context::{RunResult, TestContext};
use crate::support::terminal::{on_terminal_of, without_colors};

const BUILD: &str = "6.1.7 --fc --arch amd64 --source linux --config mini.config --sandbox off";

/// Runs kcompile on a terminal of 80 columns, which is standard output and standard error.
fn on_terminal(context: &TestContext, args: &str) -> Option<RunResult> {
    on_terminal_of(context, 80, args)
}

fn context() -> TestContext {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context
}

fn utf8_terminal() -> TestContext {
    let mut context = context();
    for (key, value) in [("TERM", "xterm"), ("LANG", "C.UTF-8")] {
        context.env.insert(key.into(), value.into());
    }
    context
}

#[test]
fn a_terminal_shows_progress_and_each_image_once() {
    let context = utf8_terminal();
    let Some(ran) = on_terminal(&context, BUILD) else { return };
    let shown = ran.ok().stdout;
    for name in ["out/firecracker-kernel-bin-amd64:6.1.7", "out/firecracker-kernel-modules-amd64:6.1.7"] {
        assert_eq!(shown.matches(&format!("{name} sha256:")).count(), 1, "{shown}");
        assert!(!shown.contains(&format!("image           {name}")), "{shown}");
    }
    for text in ["\u{1b}[32m✓\u{1b}[0m Compile", "/~", "\u{1b}]9;4;1;", "kcompile push REGISTRY/PREFIX\r\n"]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let last = shown.rfind("\u{1b}]9;4;").unwrap();
    assert!(shown[last..].starts_with("\u{1b}]9;4;0;"), "{shown}");
    let piped = context.run(&format!("{BUILD} -o other")).ok();
    let image = "\n  image           other/firecracker-kernel-bin-amd64:6.1.7  ";
    assert_eq!(piped.stderr.matches(image).count(), 1, "{}", piped.stderr);
    assert!(!format!("{}{}", piped.stdout, piped.stderr).contains('\u{1b}'));
}

#[test]
fn a_failed_build_clears_the_progress_of_the_terminal() {
    let context = utf8_terminal();
    let Some(ran) = on_terminal(&context, &format!("{BUILD} --set MINI_FAIL=y")) else { return };
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let last = ran.stdout.rfind("\u{1b}]9;4;").unwrap();
    assert!(ran.stdout[last..].starts_with("\u{1b}]9;4;0;"), "{}", ran.stdout);
    assert!(ran.stdout[last..].contains("error:"), "{}", ran.stdout);
}

#[test]
fn a_dumb_terminal_and_ci_get_plain_lines() {
    for (key, value) in [("CI", "true"), ("TERM", "dumb")] {
        let mut context = utf8_terminal();
        context.env.insert(key.into(), value.into());
        let Some(ran) = on_terminal(&context, BUILD) else { return };
        let shown = ran.ok().stdout;
        assert!(shown.contains("Compile: make -j") && !shown.contains("\u{1b}]"), "{key}: {shown}");
        assert!(!shown.contains("\u{1b}[J"), "{key}: {shown}");
    }
}

#[test]
fn a_terminal_without_utf_8_gets_only_ascii() {
    let mut context = utf8_terminal();
    context.env.insert("LANG".into(), "C".into());
    let Some(ran) = on_terminal(&context, BUILD) else { return };
    let shown = ran.ok().stdout;
    assert!(shown.is_ascii() && shown.contains("ok\u{1b}[0m Compile"), "{shown}");
}

#[test]
fn color_is_chosen_by_the_option_and_the_environment() {
    let mut context = TestContext::new();
    let has_color =
        |context: &TestContext, args: &str| context.run(args).stderr.contains("\u{1b}[1;31merror:");
    assert!(!has_color(&context, "6.1.7"));
    assert!(has_color(&context, "6.1.7 --color always") && has_color(&context, "plan 6.1.7 --color=always"));
    context.env.insert("CLICOLOR_FORCE".into(), "1".into());
    assert!(has_color(&context, "6.1.7") && !has_color(&context, "6.1.7 --color never"));
    context.env.insert("NO_COLOR".into(), "1".into());
    assert!(!has_color(&context, "6.1.7"));
}

#[test]
fn quiet_prints_only_warnings_and_verbose_the_lines_of_make() {
    let context = context();
    let verbose = context.run(&format!("{BUILD} -v")).ok();
    for text in ["\n  CC      init/main.o\n", "Entering directory", "\nCompile: done in "] {
        assert!(verbose.stderr.contains(text), "{text}: {}", verbose.stderr);
    }
    let quiet = context.run(&format!("{BUILD} -q --rebuild")).ok();
    assert_eq!((quiet.stderr.as_str(), quiet.digests()), ("", verbose.digests()));
    context.run(&format!("{BUILD} -q -v")).failed(2, &["cannot be used with"]);
}

#[test]
fn a_build_without_disk_space_stops_before_it_compiles() {
    let context = context();
    context.run(&format!("{BUILD} -q")).ok();
    let history = context.path("cache/history/firecracker-amd64-6.1.json");
    let text = std::fs::read_to_string(&history).unwrap();
    let mut records: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(records[0]["steps"].as_u64().unwrap() > 20, "{text}");
    records[0]["bytes"] = (1_u64 << 60).into();
    std::fs::write(&history, records.to_string()).unwrap();
    let ran = context.run(&format!("{BUILD} --set PSI=y --require none --builtin -o other"));
    ran.failed(4, &["the build needs about ", " on the disk of ", " free", "--cache-dir"]);
    assert!(!context.path("work/other").exists());
}

#[test]
fn tables_are_as_wide_as_the_terminal() {
    let context = utf8_terminal();
    for columns in [40, 80, 120] {
        for args in ["list", "check mini.config --for docker --arch amd64 --kernel 6.1.7"] {
            let Some(ran) = on_terminal_of(&context, columns, args) else { return };
            let shown = without_colors(&ran.stdout);
            // A URL cannot be broken.
            let lines = shown.lines().filter(|line| !line.contains("://"));
            let widest = lines.max_by_key(|line| line.trim_end().chars().count()).unwrap().trim_end();
            let width = widest.chars().count();
            let columns = columns as usize;
            assert!(width <= columns + 1 && width > columns / 2, "{args} at {columns}: `{widest}`");
        }
    }
}

#[test]
fn results_are_red_and_green_on_a_terminal() {
    let context = utf8_terminal();
    context.run(&format!("{BUILD} -q")).ok();
    context.run(&format!("{BUILD} -q --set PSI=y --require none -o other")).ok();
    let image = "out/firecracker-kernel-bin-amd64";
    for (args, painted) in [
        (format!("verify {image}"), "  \u{1b}[32mok\u{1b}[0m"),
        (
            format!("diff {image} other/firecracker-kernel-bin-amd64"),
            "PSI: \u{1b}[1;31mn\u{1b}[0m -> \u{1b}[32my\u{1b}[0m",
        ),
        ("list".into(), "\u{1b}[32msupported\u{1b}[0m"),
        ("doctor 6.1.7".into(), "\u{1b}[32mok\u{1b}[0m"),
        (
            "check mini.config --for docker --arch amd64 --kernel 6.1.7".into(),
            "\u{1b}[33mrecommended\u{1b}[0m",
        ),
    ] {
        let Some(ran) = on_terminal(&context, &args) else { return };
        assert!(ran.stdout.contains(painted), "{args}: {}", ran.stdout);
        assert!(!context.run(&args).stdout.contains('\u{1b}'), "{args}");
    }
}
