//! Tests without a supervisor. The suite tests the supervisor, since it is the program kcompile itself.

use super::*;
use camino::Utf8Path;
use std::io::BufRead;

fn command(program: &str, path: &str, cwd: &Utf8Path) -> CommandLine {
    let env = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
    CommandLine { program: program.to_owned(), args: Vec::new(), env, cwd: cwd.to_owned() }
}

#[test]
fn a_command_line_is_quoted_for_a_shell() {
    let mut line = command("make", "", Utf8Path::new("/"));
    line.args = ["CC=gcc -m64", "it's", "", "vmlinux"].map(str::to_owned).to_vec();
    let words = shlex::split(&line.to_string()).unwrap();
    assert_eq!(words, ["make", "CC=gcc -m64", "it's", "", "vmlinux"]);
    line.args.push("a\0b".to_owned());
    assert_eq!(line.to_string(), "make", "no shell takes a NUL");
}

#[test]
fn a_program_is_searched_in_the_path_of_its_own_environment() {
    let dir = tempfile::tempdir().unwrap();
    let cwd = Utf8Path::from_path(dir.path()).unwrap();
    std::fs::create_dir_all(cwd.join("bin/folder")).unwrap();
    std::fs::write(cwd.join("bin/tool"), "").unwrap();
    assert!(program_exists(&command("tool", &format!("/nowhere:{cwd}/bin"), cwd)));
    assert!(
        program_exists(&command("tool", "bin", cwd)),
        "a relative directory is one of the working directory"
    );
    assert!(program_exists(&command("bin/tool", "", cwd)), "with a slash no PATH is searched");
    assert!(!program_exists(&command("tool", "/nowhere", cwd)));
    assert!(!program_exists(&command("folder", "bin", cwd)), "a directory is no program");
    let error = spawn_error(&command("tool", "", cwd), std::io::ErrorKind::NotFound.into());
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().starts_with("cannot run tool: "), "{error}");
}

#[test]
fn output_that_is_too_long_for_memory_is_an_error() {
    let endless = std::io::repeat(b'x');
    assert!(read_all(Some(endless)).unwrap_err().to_string().contains("more than 32 MiB"));
    let longest = std::io::repeat(b'x').take(MAX_OUTPUT);
    assert_eq!(read_all(Some(longest)).unwrap().len() as u64, MAX_OUTPUT);
}

/// The lines that are handed on of this output, and what the log has then.
fn forwarded(output: &[u8]) -> (Vec<String>, Vec<u8>) {
    let path = tempfile::NamedTempFile::new().unwrap();
    let (sender, lines) = mpsc::sync_channel(64);
    let output = std::io::Cursor::new(output.to_vec());
    forward_lines(Stream::Err, Some(Box::new(output)), path.as_file(), &sender);
    drop(sender);
    let lines = lines.into_iter().map(|said| match said {
        ChildEvent::Line(Stream::Err, line) => line,
        _ => panic!("not a line of standard error"),
    });
    (lines.collect(), std::fs::read(path.path()).unwrap())
}

#[test]
fn output_comes_as_lines_and_the_log_keeps_every_byte() {
    let output = b"one\r\n\ntwo \xff\nthe last";
    let (lines, log) = forwarded(output);
    assert_eq!(lines, ["one", "", "two \u{fffd}", "the last"]);
    assert_eq!(log, output);
}

#[test]
fn a_line_without_an_end_is_cut_in_pieces() {
    let output = vec![b'x'; MAX_LINE * 2 + 1];
    let (lines, log) = forwarded(&output);
    assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE, 1]);
    assert_eq!(log, output);
}

#[test]
fn a_listener_hears_lines_and_never_ends_the_program() {
    let mut heard = Vec::new();
    let mut watch = line_watcher(|stream, line: &str| heard.push((stream, line.to_owned())));
    assert!(watch(WatchEvent::Silence).is_continue());
    assert!(watch(WatchEvent::Line(Stream::Out, "a line")).is_continue());
    drop(watch);
    assert_eq!(heard, [(Stream::Out, "a line".to_owned())]);
}

#[test]
fn each_signal_has_its_message_and_exit_code() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for (signal, message, code) in
        [(SIGINT, "interrupted", 130), (SIGTERM, "terminated", 143), (SIGHUP, "the terminal was closed", 129)]
    {
        let error = signals::interrupted(signal);
        assert_eq!((error.to_string().as_str(), error.exit_code()), (message, code));
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn an_interruptible_reader_reads_as_long_as_no_signal_came() {
    let mut text = String::new();
    Interruptible(&b"all of it"[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "all of it");
}

#[test]
fn a_process_is_described_by_proc() {
    // A session of its own: in a container, ours may have begun outside its PID namespace, and have no ID here.
    let mut child = std::process::Command::new("setsid")
        .args(["sh", "-c", "echo started; read -r line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let process = descendants::all().find(|process| process.pid == pid).expect("it is running");
    assert_eq!(process.parent, rustix::process::getpid().as_raw_nonzero().get());
    assert_eq!(process.session, pid.as_raw_nonzero().get());
    assert!(process.open().is_some());
    let stranger = descendants::Process { parent: process.parent + 1, ..process };
    assert!(stranger.open().is_none(), "another process that has got this number");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_note_is_there_even_as_a_link_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(dir.path()).unwrap().join("note");
    let pid_file = PidFile(&path);
    assert!(!pid_file.exists());
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(pid_file.exists());
    // Nobody is ended by what is no number, or by the number of a session that works elsewhere.
    pid_file.kill_orphans(&[&path]);
    std::fs::remove_file(&path).unwrap();
    for text in ["", "x", "1"] {
        std::fs::write(&path, text).unwrap();
        pid_file.kill_orphans(&[&path]);
    }
}

#[test]
fn only_make_learns_of_the_shared_jobs() {
    let mut process = std::process::Command::new("make");
    JobServer::new(3).unwrap().configure(&mut process);
    let value = |name: &str| process.get_envs().find(|(key, _)| *key == name).and_then(|(_, value)| value);
    let flags = value("MAKEFLAGS").unwrap().to_str().unwrap();
    assert!(flags.contains("--jobserver-auth="), "{flags}");
    assert_eq!((value("CARGO_MAKEFLAGS"), value("MFLAGS")), (None, None));
}
