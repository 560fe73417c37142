//! `--timings` of the miniature kernel. Timings must not affect the output.

use crate::support::context::TestContext;
use std::fs;

fn numbers(context: &TestContext) -> serde_json::Value {
    let path = context.path("work/out/firecracker-6.1.7-amd64-timings.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn timings_report_step_times_and_object_sizes() {
    let context = TestContext::new();
    context
        .build("--timings=html,json -j 2")
        .ok()
        .says("  timings         out/firecracker-6.1.7-amd64-timings.html")
        .says("  timings         out/firecracker-6.1.7-amd64-timings.json");
    let numbers = numbers(&context);
    let steps = numbers["steps"].as_array().unwrap();
    let step = |target: &str| {
        steps.iter().find(|step| step["target"] == target).unwrap_or_else(|| panic!("{target}: {steps:?}"))
    };
    let compile = numbers["compile_seconds"].as_f64().unwrap();
    for (target, tool, module) in
        [("init/main.o", "CC", false), ("drivers/net/dummy.o", "CC", true), ("vmlinux", "LD", false)]
    {
        let step = step(target);
        assert_eq!((&step["tool"], &step["module"]), (&tool.into(), &module.into()), "{step}");
        let (begin, took) = (step["begin"].as_f64().unwrap(), step["seconds"].as_f64().unwrap());
        // On a busy machine its line may be read when the step has ended. The step then took no
        // time or has no measured end.
        assert!(took >= 0.0 && begin >= 0.0 && begin + took <= compile, "{step} of {compile}");
    }
    assert!(step("init/main.o")["begin"].as_f64() <= step("vmlinux")["begin"].as_f64());

    let objects = &numbers["vmlinux"]["objects"];
    assert!(objects["init/main.o"].as_u64().unwrap() > 0, "{objects}");
    assert!(objects.get("drivers/net/dummy.o").is_none(), "a module is not in vmlinux: {objects}");
    assert!(numbers["vmlinux"]["bytes"].as_u64().unwrap() > 0);
    let directories = numbers["directories"]["directories"].as_array().unwrap();
    let init = directories.iter().find(|dir| dir["name"] == "init").unwrap();
    assert_eq!(
        init["bytes"],
        objects["init/main.o"].as_u64().unwrap() + objects["init/version.o"].as_u64().unwrap_or(0)
    );
    assert_eq!(numbers["phases"][0]["phase"], "source");

    let page = fs::read_to_string(context.path("work/out/firecracker-6.1.7-amd64-timings.html")).unwrap();
    assert!(page.contains("<td>init/main.o</td>"), "{page}");
    for fact in ["Built", "Command", "Compiler", "Config", "Image", "Plan"] {
        assert!(page.contains(&format!("<dt>{fact}</dt><dd>")), "{fact}: {page}");
    }
    let module = numbers["modules"]["drivers/net/dummy.ko"].as_u64().unwrap();
    assert!(module > 0 && page.contains(">dummy.ko "), "{page}");
}

#[test]
fn a_trace_has_the_phases_and_all_steps() {
    let context = TestContext::new();
    let path = "out/firecracker-6.1.7-amd64-timings.trace.json";
    context.build("--timings=trace -j 2").ok().says(path);
    let trace: serde_json::Value =
        serde_json::from_slice(&fs::read(context.path(&format!("work/{path}"))).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let spans: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    for name in ["Source", "Compile", "init/main.o", "drivers/net/dummy.ko"] {
        let span =
            spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{name}: {trace}"));
        assert!(span["ts"].is_u64() && span["dur"].is_u64() && span["tid"].is_u64(), "{span}");
    }
    let compile = spans.iter().find(|span| span["name"] == "Compile").unwrap();
    let begin = compile["ts"].as_u64().unwrap();
    let steps = spans.iter().filter(|span| span["cat"] != "phase");
    assert!(
        steps.clone().count() > 20 && steps.clone().all(|step| step["ts"].as_u64().unwrap() >= begin),
        "{trace}"
    );
}

#[test]
fn timings_do_not_affect_the_output() {
    let context = TestContext::new();
    let plain = context.build("").ok();
    let compiled = |ran: &str| ran.lines().find(|line| line.starts_with("Compile: done")).unwrap().to_owned();
    let timed = context.build("--timings --timings=json").ok();
    assert_eq!(timed.digests(), plain.digests());
    // Objects of an earlier build have sizes but no times.
    let numbers = numbers(&context);
    assert_eq!(numbers["steps"], serde_json::json!([]));
    assert!(compiled(&timed.stderr).ends_with(", 0 steps"), "{}", timed.stderr);
    assert!(numbers["directories"]["bytes"].as_u64().unwrap() > 0);
    let plan = |args: &str| {
        context.run(&format!("plan 6.1.7 --fc --source linux --config mini.config --json {args}")).ok()
    };
    assert_eq!(plan("--timings").stdout, plan("").stdout);
}

#[test]
fn an_unknown_timings_format_is_refused() {
    TestContext::new().run("6.1.7 --fc --timings=pdf").failed(2, &["pdf", "html"]);
}
