//! Kills kcompile at random moments of every phase, alone or with all of its processes. Checks what
//! is left, and that the next run makes the right images.
//!
//! Kills once in each phase here. `scripts/campaign KILLS` kills thousands of times.

use crate::support::context::{TestContext, run_result};
use crate::support::downloads::{archive_server, noisy_archive};
use crate::support::layouts::layouts_are_whole;
use crate::support::processes::{descendants, wait_until_gone};
use crate::support::progress::event;
use crate::support::random::{Random, number_from_env, seeded};
use crate::support::servers::{Request, Server};
use camino::Utf8PathBuf;
use kcompile::internals::remove_tree;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

/// The phase in which a run is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Fetch,
    Unpack,
    Configure,
    Make,
    Install,
    Pack,
    Layout,
    Reuse,
}

const PHASES: [Phase; 8] = [
    Phase::Fetch,
    Phase::Unpack,
    Phase::Configure,
    Phase::Make,
    Phase::Install,
    Phase::Pack,
    Phase::Layout,
    Phase::Reuse,
];

impl Phase {
    /// Returns the event of `--progress json` that starts the phase.
    fn event(self) -> &'static str {
        match self {
            Phase::Fetch | Phase::Unpack => "source",
            Phase::Configure => "configure",
            Phase::Make => "compile",
            Phase::Install => "install",
            Phase::Pack | Phase::Layout => "pack",
            Phase::Reuse => "reuse",
        }
    }
}

/// The processes that are killed.
#[derive(Clone, Copy, Debug)]
enum Victims {
    /// kcompile alone.
    Alone,
    /// All processes at once, as when a container or a machine is switched off.
    All,
}

/// One worker of the crash tests, which kills one run after the other.
struct Place {
    context: TestContext,
    server: Server,
    random: Random,
    /// The digests of an undisturbed run.
    digests: Vec<String>,
    /// The duration of each phase.
    seconds: BTreeMap<String, f64>,
    /// The phases in which kills happened.
    fell: BTreeMap<String, usize>,
}

impl Place {
    fn new(seed: u64) -> Place {
        let context = TestContext::new();
        let archive = noisy_archive(&context, seed);
        let server = archive_server(&archive, |_, request, stream, bytes| drip(request, stream, bytes));
        let mut place = Place {
            context,
            server,
            random: Random(seed),
            digests: Vec::new(),
            seconds: BTreeMap::new(),
            fell: BTreeMap::new(),
        };
        for _ in ["compiled", "put back"] {
            remove_tree(&place.context.path("work/out")).unwrap();
            let undisturbed = run_result(place.context.command(&place.args()).output().unwrap()).ok();
            for event in undisturbed.stderr.lines().filter_map(event) {
                if event["event"] == "finish" {
                    let phase = event["phase"].as_str().unwrap().to_owned();
                    place.seconds.entry(phase).or_insert(event["seconds"].as_f64().unwrap());
                }
            }
            place.digests = undisturbed.digests();
        }
        assert_eq!(place.digests.len(), 2);
        place
    }

    fn args(&self) -> String {
        format!("6.1.7 --fc --config mini.config -j 2 --progress json --mirror {}", self.server.url)
    }

    /// Kills a run in `phase` and checks that nothing is lost.
    fn kill_in(&mut self, phase: Phase) {
        self.undo(phase);
        let victims = if self.random.next().is_multiple_of(3) { Victims::All } else { Victims::Alone };
        let fell = self.kill(phase, victims);
        let case = format!("{phase:?}, {victims:?}, fell: {fell}");
        layouts_are_whole(&self.context.path("work/out"), &case);
        *self.fell.entry(fell).or_default() += 1;
        let again = run_result(self.context.command(&self.args()).output().unwrap());
        assert_eq!(again.code, 0, "{case}: {}", again.stderr);
        assert_eq!(again.digests(), self.digests, "{case}: {}", again.stderr);
        layouts_are_whole(&self.context.path("work/out"), &case);
        self.nothing_is_left(&case);
    }

    /// Removes results that would make a run skip `phase`.
    fn undo(&mut self, phase: Phase) {
        let remove = |path: &str| remove_tree(&self.context.path(path)).unwrap();
        let build = self.build_dir();
        let in_build = |name: &str| remove_tree(&build.join(name)).unwrap();
        match phase {
            Phase::Fetch => ["cache/trees", "cache/archives"].into_iter().for_each(remove),
            Phase::Unpack => remove("cache/trees"),
            Phase::Configure => [".kcompile-configured", ".config"].into_iter().for_each(in_build),
            Phase::Make => in_build(""),
            Phase::Install | Phase::Pack | Phase::Layout | Phase::Reuse => {}
        }
        if phase == Phase::Reuse {
            return remove("work/out");
        }
        // Cached images must not be restored.
        remove("cache/images");
        // Into new or existing layouts.
        if self.random.next().is_multiple_of(2) {
            remove("work/out");
        }
    }

    /// Returns the only build directory.
    fn build_dir(&self) -> Utf8PathBuf {
        let trees = walkdir::WalkDir::new(self.context.path("cache/trees")).min_depth(3).max_depth(3);
        let found = trees.into_iter().flatten().find(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.file_type().is_dir() && name.starts_with("kcompile-")
        });
        Utf8PathBuf::from_path_buf(found.expect("every run ends with a build").into_path()).unwrap()
    }

    /// Starts a run and kills it at a random moment after `phase` has started. Returns where the
    /// kill happened.
    fn kill(&mut self, phase: Phase, victims: Victims) -> String {
        let mut child = self.context.command(&self.args());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let begins = |event: &serde_json::Value| event["event"] == "start" && event["phase"] == phase.event();
        let mut last = String::from("before the first phase");
        for line in lines.by_ref() {
            let Some(event) = event(&line) else { continue };
            if begins(&event) {
                last = phase.event().to_owned();
                break;
            }
        }
        let (from, to) = if phase == Phase::Layout { (0.4, 1.3) } else { (0.0, 1.1) };
        let usual = self.seconds[phase.event()].max(0.02);
        // A random moment, which no event announces.
        std::thread::sleep(Duration::from_secs_f64(usual * (from + (to - from) * self.random.part())));
        let below = descendants(&child);
        // All are stopped first, so that none notices the end of another.
        for signal in [Signal::STOP, Signal::KILL] {
            // A process that has ended cannot be killed.
            let _ = kill_process(Pid::from_child(&child), signal);
            if matches!(victims, Victims::All) {
                below.iter().for_each(|process| process.signal(signal));
            }
        }
        for event in lines.filter_map(|line| event(&line)) {
            if event["event"] == "start" {
                event["phase"].as_str().unwrap().clone_into(&mut last);
            } else if event["event"] == "summary" {
                last = String::from("after the last phase");
            }
        }
        child.wait().unwrap();
        wait_until_gone(&below, &format!("{phase:?}, {victims:?}"));
        match (last.as_str(), phase) {
            ("source", Phase::Fetch) if !self.context.names("cache/archives").is_empty() => "unpack".into(),
            ("source", Phase::Fetch) => "fetch".into(),
            ("source", _) => "unpack".into(),
            ("pack", _) if self.is_writing_layouts() => "layout write".into(),
            ("compile", _) => "make".into(),
            ("install", _) => "modules_install".into(),
            (last, _) => last.to_owned(),
        }
    }

    /// Returns whether a layout is incomplete or not yet named.
    fn is_writing_layouts(&self) -> bool {
        let all = walkdir::WalkDir::new(self.context.path("work/out")).into_iter().flatten();
        all.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"))
    }

    /// Checks that there are no temporary files, no second tree, no PID file, nothing half-written
    /// and no process.
    fn nothing_is_left(&self, case: &str) {
        assert_eq!(self.context.names("cache/tmp"), [""; 0], "{case}");
        assert_eq!(self.context.names("cache/partial"), [""; 0], "{case}");
        assert_eq!(self.context.names("cache/trees").len(), 1, "{case}");
        assert!(!self.build_dir().join(".kcompile-make.pid").exists(), "{case}");
        assert!(!self.is_writing_layouts(), "{case}");
        let names = self.context.names("work/out");
        let known = [
            "firecracker-6.1.7-amd64.json",
            "firecracker-kernel-bin-amd64",
            "firecracker-kernel-modules-amd64",
        ];
        let left: BTreeSet<&str> =
            names.iter().map(String::as_str).filter(|name| !name.starts_with('.')).collect();
        assert!(known.iter().all(|name| left.contains(name)), "{case}: {names:?}");
        let works_here = |entry: &fs::DirEntry| {
            let works_in = fs::read_link(entry.path().join("cwd"));
            works_in.is_ok_and(|dir| dir.starts_with(self.context.path("cache")))
        };
        let here: Vec<_> = fs::read_dir("/proc").unwrap().flatten().filter(works_here).collect();
        assert!(here.is_empty(), "{case}: {here:?}");
    }
}

/// Sends an archive, or the rest of it, in small pieces.
fn drip(request: &Request, stream: &mut TcpStream, bytes: &[u8]) {
    let start = request.range_start().unwrap_or(0).min(bytes.len());
    let status = match start {
        0 => "200 OK".to_owned(),
        _ => {
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len())
        }
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len() - start);
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    for piece in bytes[start..].chunks(bytes.len() / 24) {
        if stream.write_all(piece).is_err() {
            return;
        }
        // A slow connection, so that a kill can happen between two pieces.
        std::thread::sleep(Duration::from_millis(4));
    }
}

#[test]
fn after_a_kill_at_any_moment_the_next_run_succeeds() {
    let kills = number_from_env("KCOMPILE_KILLS").unwrap_or(PHASES.len() as u64);
    let (seed, _) = seeded();
    println!("seed: {seed} (KCOMPILE_SEED)");
    let places = std::thread::available_parallelism().unwrap().get().min(4) as u64;
    let worker = |place: u64| {
        move || {
            let mut here = Place::new(seed.wrapping_add(place));
            for kill in (place..kills).step_by(places as usize) {
                here.kill_in(PHASES[(kill % PHASES.len() as u64) as usize]);
            }
            here.fell
        }
    };
    let workers: Vec<_> = (0..places).map(|place| std::thread::spawn(worker(place))).collect();
    let mut fell: BTreeMap<String, usize> = BTreeMap::new();
    for worker in workers {
        for (phase, count) in worker.join().unwrap() {
            *fell.entry(phase).or_default() += count;
        }
    }
    let survived: usize = fell.values().sum();
    assert_eq!(survived as u64, kills);
    println!("kills survived: {survived}");
    for (phase, count) in &fell {
        println!("  {count:6}  {phase}");
    }
}
