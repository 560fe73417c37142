//! Tests of events and summaries. The suite tests the output on standard error.

use super::*;
use serde_json::{Value, json};

fn summary() -> KernelSummary {
    KernelSummary {
        release: "6.1.7".into(),
        images: vec![Image { layout: "out/kernel-bin".into(), tag: "6.1.7".into(), bytes: 1_234_567 }],
        cache_stats: None,
        modules: 1,
        warnings: Vec::new(),
        times: vec![(Phase::Source, Duration::from_millis(1_500)), (Phase::Compile, Duration::from_secs(75))],
        plan: format!("sha256:{}", "ab".repeat(32)),
        receipt: "out/kernel.json".into(),
        timings: Vec::new(),
        consumer_fields: vec![ConsumerField { label: "kernel filename", value: "bin/vmlinux".into() }],
    }
}

#[test]
fn a_summary_names_images_warnings_and_times() {
    let quiet = summary().to_string();
    for line in [
        "  kernel release  6.1.7, 1 module\n",
        "  image           out/kernel-bin:6.1.7  1.2 MB\n",
        "  receipt         out/kernel.json\n",
        "  time            1 min 16 s: source 1.5 s, compile 1 min 15 s\n",
        "  warnings        none\n",
        "\n  next:\n    kcompile boot out/kernel-bin:6.1.7\n    kcompile extract out/kernel-bin:6.1.7\n    skopeo copy oci:out/kernel-bin:6.1.7 docker://REGISTRY/kernel-bin:6.1.7\n",
        "\n  for Flintlock and CAPMVM:\n    kernel filename  bin/vmlinux",
    ] {
        assert!(quiet.contains(line), "`{line}` is not in:\n{quiet}");
    }
    assert!(!quiet.contains("  cache ") && !quiet.contains("  timings "), "{quiet}");
    let told = KernelSummary {
        modules: 0,
        cache_stats: Some(CompilerCacheStats { hits: 1, misses: 2, ..Default::default() }),
        warnings: vec!["a".into(), "b".into()],
        timings: vec!["out/timings.html".into()],
        ..summary()
    };
    let told = told.to_string();
    for line in [
        "6.1.7, 0 modules\n",
        "  timings         out/timings.html\n",
        "  cache           1 hits, 2 misses (33.3 % hits)\n",
        "  warnings        2, above\n",
    ] {
        assert!(told.contains(line), "`{line}` is not in:\n{told}");
    }
}

#[test]
fn a_summary_on_a_terminal_leaves_the_images_to_standard_output() {
    let text = format!("{:#}", summary());
    assert!(!text.contains("  image ") && !text.contains("skopeo"), "{text}");
    assert!(text.contains("\n    kcompile push REGISTRY/PREFIX\n"), "{text}");
    assert!(text.ends_with("\n\n  1 image, 1.2 MB:"), "{text}");
    let other = KernelSummary {
        images: vec![Image { layout: "my dir/kernel-bin".into(), tag: "6.1.7".into(), bytes: 1 }],
        ..summary()
    };
    let text = format!("{other:#}");
    let next = "\n  next:\n    kcompile boot 'my dir/kernel-bin:6.1.7'\n    kcompile extract 'my dir/kernel-bin:6.1.7'\n    kcompile push REGISTRY/PREFIX -o 'my dir'\n";
    assert!(text.contains(next), "{text}");
}

#[test]
fn an_estimate_is_marked_for_programs() {
    let count = Count { done: 3, total: Some(9), estimated: true, work: None, unit: Unit::Steps, item: "x" };
    let progress = Event::Progress { phase: Phase::Compile, count, seconds_left: Some(2.5) };
    let told = json_of(None, &progress);
    assert_eq!(
        (&told["total"], &told["estimated"], &told["seconds_left"]),
        (&json!(9), &json!(true), &json!(2.5))
    );
}

#[test]
fn a_run_summary_counts_the_kernels_that_were_built() {
    let ending = |kernel: &str, outcome| KernelResult { kernel: kernel.into(), outcome, seconds: 61.0 };
    let kernels =
        vec![ending("6.1 firecracker", Ok("6.1.7".into())), ending("6.6", Err("make failed".into()))];
    let text = RunSummary { kernels, seconds: 3_700.0 }.to_string();
    assert_eq!(
        text,
        "\n  1 of 2 kernels built in 1 h 01 min\n\
         \n    built   6.1 firecracker  Linux 6.1.7, after 1 min 01 s\
         \n    FAILED  6.6              make failed"
    );
}

#[test]
fn a_compiler_cache_is_counted_from_before_the_run() {
    let before = CompilerCacheStats { hits: 10, misses: 5, uncacheable: 1, storage_errors: 2 };
    let after = CompilerCacheStats { hits: 19, misses: 6, uncacheable: 3, storage_errors: 2 };
    assert_eq!(
        after.since(before),
        CompilerCacheStats { hits: 9, misses: 1, uncacheable: 2, storage_errors: 0 }
    );
    // The counters were reset in the meantime.
    assert_eq!(before.since(after), CompilerCacheStats::default());
    let text = after.since(before).to_string();
    assert_eq!(text, "9 hits, 1 misses (90.0 % hits), 2 uncacheable calls");
    assert_eq!(CompilerCacheStats::default().to_string(), "0 hits, 0 misses (0.0 % hits)");
}

/// An event as a line of `--progress json`.
fn json_of(kernel: Option<&str>, event: &Event<'_>) -> Value {
    serde_json::to_value(ScopedEvent { kernel, event }).unwrap()
}

#[test]
fn events_are_flat_objects_that_name_their_kernel() {
    let start = Event::Start { phase: Phase::Source, what: "linux-6.1.7.tar.xz" };
    assert_eq!(
        json_of(None, &start),
        json!({"event": "start", "phase": "source", "what": "linux-6.1.7.tar.xz"})
    );
    let count = Count { done: 3, total: None, estimated: false, work: None, unit: Unit::Bytes, item: "x" };
    let progress = Event::Progress { phase: Phase::Compile, count, seconds_left: None };
    assert_eq!(
        json_of(Some("6.1"), &progress),
        json!({"kernel": "6.1", "event": "progress", "phase": "compile", "done": 3, "total": null, "unit": "bytes", "item": "x"})
    );
    let error =
        Event::Error { text: "make failed", hint: None, kind: "build", code: 1, excerpt: None, phase: None };
    assert_eq!(
        json_of(None, &error),
        json!({"event": "error", "text": "make failed", "hint": null, "kind": "build", "code": 1})
    );
    let summary = summary();
    let told = json_of(None, &Event::KernelSummary { summary: &summary, text: "" });
    assert_eq!((&told["event"], &told["images"][0]["bytes"]), (&json!("summary"), &json!(1_234_567)));
}

#[test]
fn warnings_and_notes_are_kept_once_and_without_secrets() {
    let report = Reporter::new(Progress::Quiet, Verbosity::Normal, Terminals::default(), ErrorFormat::Text);
    let text = "https://me:secret@host/x is not signed";
    report.warning(text.to_owned());
    report.warning(text.to_owned());
    let kept = report.warnings();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].contains("host/x is not signed") && !kept[0].contains("secret"), "{kept:?}");
    report.note("a note");
    report.note("a note");
    assert_eq!(*lock(&report.notes), ["a note"]);
}

#[test]
fn each_kernel_has_separate_warnings_and_times() {
    let report = Reporter::new(Progress::Quiet, Verbosity::Normal, Terminals::default(), ErrorFormat::Text);
    let first = report.for_kernel("6.1");
    let second = report.for_kernel("6.6");
    let took = first.start(Phase::Patch, "patches").finish("one patch");
    assert_eq!(first.times(), [(Phase::Patch, took)]);
    assert!(second.times().is_empty() && report.times().is_empty());
    first.reset();
    assert!(first.times().is_empty());
}

#[test]
fn what_goes_to_a_terminal_has_no_control_characters_and_no_secrets() {
    let text = sanitize("\u{1b}[2J of https://me:secret@host/x");
    assert!(!text.contains('\u{1b}') && !text.contains("secret"), "{text}");
}

#[test]
fn phases_have_names_for_people_and_for_programs() {
    for phase in [Phase::Source, Phase::Patch, Phase::Configure, Phase::Compile, Phase::Install, Phase::Pack]
    {
        assert_eq!(serde_json::to_value(phase).unwrap(), json!(phase.title().to_lowercase()));
    }
}
