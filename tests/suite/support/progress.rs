//! Reads `--progress json` and the log of make.

use crate::support::context::TestContext;
use crate::support::processes::{Process, descendants};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Parses an event of `--progress json`.
pub(crate) fn event(line: impl AsRef<str>) -> Option<serde_json::Value> {
    serde_json::from_str(line.as_ref()).ok()
}

/// Starts a build that stalls. Returns it with its processes.
pub(crate) fn start_stalled_build(context: &TestContext, more: &str) -> (Child, Vec<Process>) {
    context.tree("6.1.7", "work/linux");
    let mut command = context.command(&format!(
        "6.1.7 --fc --source linux --config mini.config --set MINI_STALL=y --progress json -j 2 {more}"
    ));
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let lines = &mut BufReader::new(child.stderr.as_mut().unwrap()).lines();
    // After the start of the compile phase, the log shows when make stalls.
    assert!(lines.any(|line| line.unwrap().contains("\"phase\":\"compile\"")));
    wait_until_make_stalls(context);
    let below = descendants(&child);
    (child, below)
}

/// Waits until the log shows that make stalls.
pub(crate) fn wait_until_make_stalls(context: &TestContext) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "make never stalled");
        let log = find_build_file(context, "kcompile.log");
        let log = log.map(|log| std::fs::read_to_string(log).unwrap_or_default()).unwrap_or_default();
        if log.contains("  STALL   waiting") {
            return;
        }
        std::thread::yield_now();
    }
}

/// Returns a file of this name in the build directories.
pub(crate) fn find_build_file(context: &TestContext, name: &str) -> Option<PathBuf> {
    let found = walkdir::WalkDir::new(context.path("cache/builds")).into_iter().flatten();
    found.map(walkdir::DirEntry::into_path).find(|path| path.file_name().is_some_and(|found| found == name))
}
