//! Starts a real registry and other daemons on loopback.

use camino::Utf8Path;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The time limit until a daemon is ready, for hanging daemons on slow machines.
const READY: Duration = Duration::from_secs(60);

/// A daemon that ends when this value is dropped, and with the thread that started it.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts the daemon, and waits for the line on standard error that `ready` accepts.
    #[track_caller]
    pub(crate) fn start<T: Send + 'static>(
        program: &str,
        args: &[&str],
        mut ready: impl FnMut(&str) -> Option<T> + Send + 'static,
    ) -> (Daemon, T) {
        // Nothing is dropped if the whole test process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]).args(args);
        let (none, pipe) = (Stdio::null(), Stdio::piped());
        let mut child = command.stdin(none).stdout(Stdio::null()).stderr(pipe).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let daemon = Daemon(child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut said = String::new();
            // Standard error is read to its end, since a daemon stops if the pipe is full.
            for line in lines.map_while(Result::ok) {
                said += &format!("{line}\n");
                if let Some(found) = ready(&line) {
                    let _ = sender.send(Ok(found));
                }
            }
            let _ = sender.send(Err(said));
        });
        match receiver.recv_timeout(READY) {
            Ok(Ok(found)) => (daemon, found),
            Ok(Err(said)) => panic!("{program} ended before it was ready:\n{said}"),
            Err(_) => panic!("{program} is not ready after {READY:?}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does the same with more configuration lines, below `storage` and at the end.
pub(crate) fn configured_registry(dir: &Utf8Path, storage: &str, more: &str) -> (Daemon, String) {
    fs::create_dir(dir).unwrap();
    let config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {dir}/store\n{storage}http:\n  addr: 127.0.0.1:0\n{more}"
    );
    fs::write(dir.join("config.yml"), config).unwrap();
    Daemon::start("docker-registry", &["serve", dir.join("config.yml").as_str()], |line| {
        let (_, rest) = line.split_once("listening on ")?;
        Some(rest.split(['"', ' ']).next().unwrap().to_owned())
    })
}
