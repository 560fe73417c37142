//! Full disks, which are small tmpfs file systems. Checks the message, what is kept, and that the
//! same command continues after space is freed.

use crate::support::context::{RunResult, TestContext};
use crate::support::downloads::{answer_range, archive_server, noisy_archive};
use crate::support::layouts::layouts_are_whole;
use crate::support::mounts::mount_namespace_command;
use crate::support::progress::event;
use crate::support::random::{number_from_env, seeded};
use std::collections::BTreeSet;

/// Runs kcompile with a file system of `bounds` (`size=12k`, `nr_inodes=100`) at `full`, and again
/// after it has grown. `<full>.left` has what the first run left.
fn run_twice(
    context: &TestContext,
    way: &[&str],
    full: &str,
    bounds: &str,
    args: &str,
) -> (RunResult, RunResult) {
    let place = context.path(full);
    std::fs::create_dir_all(&place).unwrap();
    let script = format!(
        "mount -t tmpfs -o {bounds},mode=755 tmpfs {place} || exit 99
         \"$0\" \"$@\"; echo \"$?\" > {place}.code
         cp -a {place} {place}.left
         mount -o remount,size=64m,nr_inodes=100k {place} || exit 99
         echo the second run >&2
         exec \"$0\" \"$@\""
    );
    let mut words = way.to_vec();
    words.extend(["sh", "-c", &script]);
    let both = context.run_by(&words, args);
    let (first, second) = both.stderr.split_once("the second run\n").unwrap();
    let code = std::fs::read_to_string(format!("{place}.code")).unwrap().trim().parse().unwrap();
    let first = RunResult { code, stdout: String::new(), stderr: first.to_owned() };
    (first, RunResult { stderr: second.to_owned(), ..both })
}

/// Returns the phase that started last.
fn last_phase(ran: &RunResult) -> String {
    let mut starts = ran.stderr.lines().filter_map(event).filter(|event| event["event"] == "start");
    starts.next_back().map_or_else(String::new, |event| event["phase"].as_str().unwrap().to_owned())
}

/// The cache grows while downloading, unpacking and compiling.
#[test]
fn a_full_cache_is_reported_and_the_next_run_resumes() {
    let Some(way) = mount_namespace_command() else { return };
    let archive = noisy_archive(&TestContext::new(), 1);
    let server = archive_server(&archive, |_, request, stream, bytes| answer_range(request, stream, bytes));
    let mut phases = BTreeSet::new();
    let mut digests = BTreeSet::new();
    for size in ["128k", "420k", "1050k", "1200k"] {
        let context = TestContext::new();
        let args = format!("6.1.7 --fc --config mini.config --progress json -j 2 --mirror {}", server.url);
        let (first, second) = run_twice(&context, &way, "cache", &format!("size={size}"), &args);
        phases.insert(last_phase(&first));
        first.failed(1, &["No space left on device", "free some space"]);
        digests.insert(second.ok().digests());
        // Half a tree has no final name.
        let trees = context.names("cache.left/trees");
        let whole = |tree: &String| context.path("cache.left/trees").join(tree).join("source.json").exists();
        assert!(trees.iter().all(whole), "{trees:?}");
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    assert_eq!(phases.into_iter().collect::<Vec<_>>(), ["compile", "source"]);
}

#[test]
fn a_full_output_directory_never_holds_partial_images() {
    let Some(way) = mount_namespace_command() else { return };
    let context = TestContext::new();
    let digests = context.build("-o elsewhere").ok().digests();
    for size in ["12k", "20k", "24k", "28k", "32k"] {
        let args = "6.1.7 --fc --source linux --config mini.config --progress json";
        let (first, second) = run_twice(&context, &way, "work/out", &format!("size={size}"), args);
        assert_eq!(last_phase(&first), "pack");
        let stderr = first.stderr.clone();
        first.failed(1, &["No space left on device", "free some space"]);
        layouts_are_whole(&context.path("work/out.left"), size);
        let layouts = context.names("work/out.left").iter().filter(|name| name.contains("-kernel-")).count();
        assert!([0, 2].contains(&layouts), "{size}: {layouts} of 2 images: {stderr}");
        assert_eq!(second.ok().digests(), digests);
        kcompile::internals::remove_tree(&context.path("work/out.left")).unwrap();
    }
}

/// The number of sizes of small file systems in the campaign, from almost nothing to more than
/// enough.
const SIZES: u64 = 34;
const INODE_COUNTS: u64 = 63;

/// Returns the KiB and inodes that the cache of one build needs.
fn need(context: &TestContext, way: &[&str], args: &str) -> (u64, u64) {
    let place = context.path("small");
    let script = format!(
        "mkdir -p {place} && mount -t tmpfs -o size=64m,nr_inodes=100k,mode=755 tmpfs {place} && \"$0\" \"$@\" || exit
         df --output=used,iused {place} | tail -1 > {place}.need"
    );
    let mut words = way.to_vec();
    words.extend(["sh", "-c", &script]);
    context.run_by(&words, args).ok();
    let need = std::fs::read_to_string(format!("{place}.need")).unwrap();
    let need: Vec<u64> = need.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (need[0], need[1])
}

/// A run reports a full disk or makes the right images, although some programs ignore write errors.
/// Tries a few file systems here, and all in `scripts/campaign`.
#[test]
fn on_a_small_file_system_a_build_fails_or_is_correct() {
    let Some(way) = mount_namespace_command() else { return };
    let context = TestContext::new();
    let good = context.build("-o good").ok().digests();
    let args = "6.1.7 --fc --source linux --config mini.config --cache-dir ../small/cache --progress json";
    let (kibibytes, inodes) = need(&context, &way, args);
    let part = |whole: u64, number: u64, of: u64| whole * (number + 1) * 11 / (of * 10);
    let sizes = (0..SIZES).map(|number| format!("size={}k", part(kibibytes, number, SIZES).max(4)));
    let counts =
        (0..INODE_COUNTS).map(|number| format!("nr_inodes={}", part(inodes, number, INODE_COUNTS).max(2)));
    let all: Vec<String> = sizes.chain(counts).collect();
    let (seed, mut random) = seeded();
    let wanted = number_from_env("KCOMPILE_SMALL").unwrap_or(5).min(all.len() as u64);
    let first = random.next() % all.len() as u64;
    println!("seed: {seed} (KCOMPILE_SEED)");
    let (mut refused, mut right) = (0, 0);
    for step in 0..wanted {
        // Evenly distributed.
        let bounds = &all[((first + step * all.len() as u64 / wanted) % all.len() as u64) as usize];
        let (run, again) = run_twice(&context, &way, "small", bounds, args);
        layouts_are_whole(&context.path("work/out"), bounds);
        if run.code == 0 {
            right += 1;
        } else {
            refused += 1;
            assert!([1, 2].contains(&run.code), "{bounds}: {}: {}", run.code, run.stderr);
            assert!(run.stderr.contains("No space left on device"), "{bounds}: {}", run.stderr);
        }
        // Of both runs if both made images.
        let expected = if run.code == 0 { [good.clone(), good.clone()].concat() } else { good.clone() };
        assert_eq!(again.ok().digests(), expected, "{bounds}");
        for left in ["small.left", "work/out"] {
            kcompile::internals::remove_tree(&context.path(left)).unwrap();
        }
    }
    println!("small file systems: {wanted}, too small {refused}, right {right}");
}
