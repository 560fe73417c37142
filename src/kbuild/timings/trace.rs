//! Writes the steps as a trace in the Trace Event Format, which Perfetto and chrome://tracing open.

use super::Timings;
use crate::report::Phase;
use serde_json::{Value, json};

/// The process and the thread of the phases. The steps are in the threads after it.
const PROCESS: u32 = 1;
const PHASES: usize = 0;

/// Returns the trace as JSON. Times are in microseconds since the first phase began.
pub(super) fn render(timings: &Timings) -> String {
    let mut events =
        vec![name("process_name", PHASES, &timings.title()), name("thread_name", PHASES, "phases")];
    let (mut begin, mut compile_begin) = (0.0, 0.0);
    for phase in &timings.phases {
        if phase.phase == Phase::Compile {
            compile_begin = begin;
        }
        events.push(span(phase.phase.title(), "phase", PHASES, begin..begin + phase.seconds));
        begin += phase.seconds;
    }
    // When the last step of each lane ends. Steps of a lane do not overlap.
    let mut lanes: Vec<f64> = Vec::new();
    for step in &timings.steps {
        let end = step.begin + step.seconds;
        let lane = lanes.iter().position(|busy| *busy <= step.begin).unwrap_or(lanes.len());
        if lane == lanes.len() {
            lanes.push(end);
        }
        lanes[lane] = end;
        let mut event = span(
            &step.target,
            &step.tool,
            PHASES + 1 + lane,
            compile_begin + step.begin..compile_begin + end,
        );
        event["args"] = json!({ "tool": step.tool, "module": step.module, "measured": step.measured });
        events.push(event);
    }
    events.extend((1..=lanes.len()).map(|lane| name("thread_name", PHASES + lane, &format!("job {lane}"))));
    let trace = json!({ "displayTimeUnit": "ms", "traceEvents": events });
    serde_json::to_string(&trace).expect("only string keys") + "\n"
}

/// Returns a complete event. `seconds` are its begin and its end.
fn span(name: &str, category: &str, thread: usize, seconds: std::ops::Range<f64>) -> Value {
    let micros = |seconds: f64| (seconds * 1e6).round() as u64;
    json!({
        "name": name, "cat": category, "ph": "X", "pid": PROCESS, "tid": thread,
        "ts": micros(seconds.start), "dur": micros(seconds.end) - micros(seconds.start),
    })
}

/// Returns an event that names the process or a thread.
fn name(what: &str, thread: usize, name: &str) -> Value {
    json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": thread, "args": { "name": name } })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{step, timings};
    use super::*;

    #[test]
    fn steps_that_overlap_have_different_lanes() {
        let mut timings = timings();
        let begins = [("a.o", 0.0, 2.0), ("b.o", 0.5, 1.0), ("c.o", 1.5, 0.5), ("d.o", 2.0, 1.0)];
        timings.steps =
            begins.into_iter().map(|(target, begin, seconds)| step(target, begin, seconds)).collect();
        let trace: Value = serde_json::from_str(&render(&timings)).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let event = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
        let lanes = ["a.o", "b.o", "c.o", "d.o"].map(|name| event(name)["tid"].as_u64().unwrap());
        assert_eq!(lanes, [1, 2, 2, 1]);
        // The phase before took a second.
        assert_eq!((&event("c.o")["ts"], &event("c.o")["dur"]), (&json!(2_500_000), &json!(500_000)));
        assert_eq!((&event("Compile")["ts"], &event("Compile")["tid"]), (&json!(1_000_000), &json!(0)));
        assert!(events.iter().any(|event| event["args"]["name"] == "job 2"), "{events:?}");
    }
}
