//! A kernel tree in a directory in which its user works.

use crate::support::context::{TestContext, copy, run_result, write_script};
use crate::support::progress::start_stalled_build;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn sources_edited_during_a_build_fail_it() {
    let mut context = TestContext::new();
    let file = context.tree("6.1.7", "work/linux").join("init/main.c");
    let whole = context.build("--cache-dir whole -o whole").ok().digests();
    copy(&file, &context.path("home/main.c"));
    // An editor that saves when compilation starts.
    let (edit, path) = (context.path("home/edit"), std::env::var("PATH").unwrap());
    fs::write(&edit, "const char edited[] = \"edited\";\n").unwrap();
    let editing = format!("[ ! -e '{edit}' ] || {{ cat '{edit}' >>'{file}'; rm '{edit}'; }}");
    let lines = format!("case $* in *vmlinux*) {editing};; esac\nPATH='{path}' exec make \"$@\"");
    write_script(&context.path("bin/make"), &lines);
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("bin")));
    let says = ["work/linux was changed while it was compiled", "hint: run the same command again to build"];
    context.build("--sandbox off").failed(1, &says);
    assert!(!edit.exists() && context.names("work/out").is_empty());
    // The old content with the old time, so make cannot notice the change.
    copy(&context.path("home/main.c"), &file);
    assert_eq!(context.build("").ok().digests(), whole);
}

#[test]
fn output_and_cache_inside_the_source_are_refused() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    std::os::unix::fs::symlink("linux", context.path("work/link")).unwrap();
    let before = context.snapshot("work/linux");
    for args in ["-o linux/out", "-o link/out", "-o linux"] {
        let says = ["the output directory ", " is inside the source directory ", "with -o DIR"];
        context.build(args).failed(2, &says);
    }
    for command in ["6.1.7 --config mini.config", "fetch 6.1.7", "config show 6.1.7 --config mini.config"] {
        let args = format!("{command} --fc --source linux --cache-dir link/cache");
        context.run(&args).failed(2, &["the cache directory ", "work/linux", "with --cache-dir DIR"]);
    }
    let mut inside = context.command("6.1.7 --fc --source . --config ../mini.config");
    run_result(inside.current_dir(&tree).output().unwrap())
        .failed(2, &["linux/out is inside the source directory "]);
    assert_eq!(context.snapshot("work/linux"), before);
    // A directory whose name only starts with the same text.
    context.build("-o linux-out --cache-dir linux-cache").ok();
}

#[test]
fn a_build_directory_in_use_is_not_reset() {
    let context = TestContext::new();
    let (mut holder, _) = start_stalled_build(&context, "");
    let builds = context.path("cache/builds").join(&context.names("cache/builds")[0]);
    let is_there = || fs::read_dir(&builds).unwrap().any(|entry| entry.unwrap().path().is_dir());
    // A change that make cannot notice, because the time is the same.
    let file = context.path("work/linux/init/main.c");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "\n").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    let args = "fetch 6.1.7 --fc --source linux --progress plain";
    let mut waiting = context.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains("waiting for the lock"));
    let was_there = is_there();
    kill_process(Pid::from_child(&holder), Signal::KILL).unwrap();
    holder.wait().unwrap();
    lines.for_each(drop);
    let told = told.expect("it did not wait");
    assert!(told.ends_with(&format!("held by pid {}", holder.id())), "{told}");
    assert!(was_there && waiting.wait().unwrap().success() && !is_there());
}
