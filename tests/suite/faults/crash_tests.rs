//! The kill campaign: kcompile is killed at random moments of every phase, by itself or together with all
//! that it runs; what it leaves is looked at; and the next run must end with the right images.
//!
//! One kill for each phase here; `scripts/campaign KILLS` runs thousands.

use crate::faults::network::server;
use crate::support::context::{TestContext, compress, run_result};
use crate::support::processes::{descendants, wait_until_gone};
use crate::support::servers::{Request, Server};
use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::remove_tree;
use kcompile::internals::tags;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a kill is aimed at.
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
    /// The event of `--progress json` that begins it.
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

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victims {
    /// kcompile alone.
    Alone,
    /// Everything at once, as when a container or a machine is switched off.
    All,
}

/// Numbers that look random and come again with the same seed: SplitMix64, by Steele, Lea and Flood.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One place of the campaign: its kills come one after the other.
struct Place {
    context: TestContext,
    server: Server,
    random: Random,
    /// What a run that nobody disturbed made.
    digests: Vec<String>,
    /// What its phases took.
    seconds: BTreeMap<String, f64>,
    /// Where the kills fell.
    fell: BTreeMap<String, usize>,
}

impl Place {
    fn new(seed: u64) -> Place {
        let context = TestContext::new();
        let archive = noisy_archive(&context, seed);
        let server = server(&archive, |_, request, stream, bytes| drip(request, stream, bytes));
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

    /// Kills a run in `phase`, and proves that nothing is lost by it.
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

    /// Takes away what would keep a run from doing anything in `phase`.
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
        // What these plans made is not to be put back.
        remove("cache/images");
        // Into new layouts, and into old ones.
        if self.random.next().is_multiple_of(2) {
            remove("work/out");
        }
    }

    /// The one build directory.
    fn build_dir(&self) -> Utf8PathBuf {
        let trees = walkdir::WalkDir::new(self.context.path("cache/trees")).min_depth(3).max_depth(3);
        let found = trees.into_iter().flatten().find(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.file_type().is_dir() && name.starts_with("kcompile-")
        });
        Utf8PathBuf::from_path_buf(found.expect("every run ends with a build").into_path()).unwrap()
    }

    /// Starts a run and kills it at a random moment after `phase` has begun. Returns where it fell.
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
        // The moment itself, and nothing that is waited for.
        std::thread::sleep(Duration::from_secs_f64(usual * (from + (to - from) * self.random.part())));
        let below = descendants(&child);
        // Stopped first: none must see the other go.
        for signal in [Signal::STOP, Signal::KILL] {
            // What has ended meanwhile cannot be killed any more.
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

    /// Has a layout been begun that is not whole, or that nothing names yet?
    fn is_writing_layouts(&self) -> bool {
        let all = walkdir::WalkDir::new(self.context.path("work/out")).into_iter().flatten();
        all.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"))
    }

    /// No scratch, no second tree, no note, nothing half-written and no process.
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

/// Every layout of this output directory that has its name is whole: what its tags stand for is there and has
/// its digest.
pub(crate) fn layouts_are_whole(output: &Utf8Path, case: &str) {
    for entry in output.read_dir_utf8().into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().starts_with('.') {
            continue;
        }
        if !path.is_dir() {
            // A receipt.
            let receipt = serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap());
            receipt.unwrap_or_else(|error| panic!("{case}: {path}: {error}"));
            continue;
        }
        let tags = tags::tags(path).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(!tags.is_empty(), "{case}: {path} has no tag");
        for tagged in tags {
            tags::check(path, &tagged).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }
}

/// A release with random bytes in it, so that it is large enough to be cut off in its middle.
pub(crate) fn noisy_archive(context: &TestContext, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let tree = context.tree("6.1.7", "trees/linux");
    let noise: Vec<u8> = (0..32_000).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(tree.join("noise.bin"), noise).unwrap();
    compress(&crate::support::context::tar_of(&tree, "linux-6.1.7"), "xz")
}

/// An event of `--progress json`.
pub(crate) fn event(line: impl AsRef<str>) -> Option<serde_json::Value> {
    serde_json::from_str(line.as_ref()).ok()
}

/// Sends an archive, or what is missing of it, in small pieces.
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
        // A slow line, so that a kill can fall between two pieces.
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Numbers that come again with `KCOMPILE_SEED`, and their seed.
pub(crate) fn seeded() -> (u64, Random) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("KCOMPILE_SEED").unwrap_or(clock);
    (seed, Random(seed))
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whenever_it_is_killed_the_next_run_ends_with_the_right_images() {
    let kills = number("KCOMPILE_KILLS").unwrap_or(PHASES.len() as u64);
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
