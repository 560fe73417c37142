//! Asks the machines of a compile farm whether they answer, and how many jobs they take.

use super::Tool;
use crate::host::{Host, process};
use crate::report::Reporter;
use crate::util::threads;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// A machine that answers later would only slow the build down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// distccd's default port.
const DISTCC_PORT: u16 = 3632;
/// distcc's default limit of jobs for a machine (distcc(1)).
const DISTCC_SLOTS: usize = 4;
/// The port on which an icecream scheduler takes text commands (icecc-scheduler(1)).
const ICECC_CONTROL_PORT: u16 = 8766;
/// The answer of a scheduler with a few hundred machines is smaller.
const MAX_ANSWER: u64 = 1 << 20;
/// This machine preprocesses all files. That takes about half as long as compiling, so a CPU here
/// keeps only a few jobs busy.
const JOBS_PER_LOCAL_CPU: usize = 4;

/// The state of a farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    tool: Tool,
    /// Machines that answer, as written in distcc's list.
    pub alive: Vec<String>,
    /// Machines that do not answer.
    pub dead: Vec<String>,
    /// The number of jobs that the machines take at once, or 0 if that is unknown.
    pub slots: usize,
}

impl Farm {
    /// Returns the number of jobs for make on a machine with this many CPUs. That is twice what the
    /// farm takes, so that the farm never waits, but no more than this machine can preprocess.
    pub fn jobs(&self, cpus: usize) -> usize {
        (2 * self.slots).min(JOBS_PER_LOCAL_CPU * cpus).max(cpus)
    }

    /// Returns a variable that keeps distcc from using machines that do not answer.
    pub fn environment(&self) -> Option<(String, String)> {
        let hosts = if self.alive.is_empty() { "localhost".to_owned() } else { self.alive.join(" ") };
        (self.tool == Tool::Distcc && !self.dead.is_empty()).then(|| ("DISTCC_HOSTS".to_owned(), hosts))
    }

    /// Reports machines that do not answer and a farm of unknown size.
    pub fn report_to(&self, reporter: &Reporter) {
        let name = self.tool.name();
        // Warnings are published in receipts, so they do not name machines.
        if self.alive.is_empty() {
            let problem = if self.dead.is_empty() { "is configured" } else { "answered" };
            reporter.warning(format!("no {name} machine {problem}, so this machine compiled everything"));
        }
        if !self.dead.is_empty() {
            reporter.note(&format!("{name}: no answer from {}", self.dead.join(", ")));
        }
        if !self.alive.is_empty() && self.slots == 0 {
            reporter.note(&format!(
                "cannot find out how many jobs the {name} farm takes; set the number with -j"
            ));
        }
    }
}

/// Asks all machines of a farm at once. Returns `None` if the launcher is not a farm.
pub fn probe(command: &str, host: &Host) -> Option<Farm> {
    match Tool::of(command)? {
        Tool::Distcc => {
            let mut env = host.child_env.clone();
            env.extend(host.launcher_env.clone());
            let listing =
                process::capture("distcc", &["--show-hosts"], &env).ok().flatten().unwrap_or_default();
            Some(probe_distcc(listing.split_whitespace().filter_map(Machine::parse).collect()))
        }
        Tool::Icecc => Some(probe_icecc(host)),
        Tool::Ccache | Tool::Sccache => None,
    }
}

fn probe_distcc(machines: Vec<Machine>) -> Farm {
    let is_reachable: Vec<bool> = std::thread::scope(|scope| {
        // Without a thread of its own, a machine is asked on this one.
        let probe = |machine| {
            let asking = threads::spawn_scoped(scope, move || Machine::is_reachable(machine));
            asking.map_err(|_| Machine::is_reachable(machine))
        };
        let probes: Vec<_> = machines.iter().map(probe).collect();
        let answer = |asked: Result<ScopedJoinHandle<'_, bool>, bool>| {
            asked.map_or_else(|answer| answer, |asking| asking.join().unwrap_or(false))
        };
        probes.into_iter().map(answer).collect()
    });
    let mut farm = Farm { tool: Tool::Distcc, alive: Vec::new(), dead: Vec::new(), slots: 0 };
    for (machine, is_reachable) in machines.into_iter().zip(is_reachable) {
        if is_reachable {
            farm.slots += machine.slots;
            farm.alive.push(machine.text);
        } else {
            farm.dead.push(machine.text);
        }
    }
    farm
}

/// icecream's clients talk to a daemon on this machine, which knows the scheduler. The scheduler
/// knows how many jobs all machines take.
fn probe_icecc(host: &Host) -> Farm {
    let env_value = |key: &str| host.launcher_env.get(key).cloned();
    let sockets = ["/run/icecc/iceccd.socket", "/var/run/icecc/iceccd.socket"].map(str::to_owned);
    let sockets = env_value("ICECC_TEST_SOCKET").map_or_else(|| sockets.to_vec(), |socket| vec![socket]);
    let alive = sockets.iter().find(|socket| UnixStream::connect(socket).is_ok()).cloned();
    let mut farm = Farm { tool: Tool::Icecc, alive: Vec::new(), dead: Vec::new(), slots: 0 };
    match alive {
        None => farm.dead.extend(sockets.into_iter().take(1)),
        Some(alive) => {
            farm.alive.push(alive);
            let scheduler = env_value("ICECC_SCHEDULER").unwrap_or_else(|| "localhost".to_owned());
            farm.slots = scheduler_slots(scheduler.split(':').next().unwrap_or_default()).unwrap_or(0);
        }
    }
    farm
}

/// Asks the scheduler for its machines with `listcs`.
fn scheduler_slots(host: &str) -> Option<usize> {
    let address = (host, ICECC_CONTROL_PORT).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    stream.write_all(b"listcs\nquit\n").ok()?;
    let mut answer = String::new();
    // If the scheduler does not close the connection, the read ends with the timeout.
    let _ = stream.take(MAX_ANSWER).read_to_string(&mut answer);
    Some(slots_of(&answer))
}

/// Adds up the limits in fields like `jobs=0/4`.
fn slots_of(answer: &str) -> usize {
    let jobs = answer.split_whitespace().filter_map(|word| word.strip_prefix("jobs=")?.split_once('/'));
    jobs.filter_map(|(_, limit)| limit.parse::<usize>().ok()).sum()
}

/// A machine of distcc's list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    /// The entry in the list.
    text: String,
    /// `None` for this machine and for those reached by ssh, which are not asked.
    address: Option<(String, u16)>,
    slots: usize,
}

impl Machine {
    /// Parses `HOST[:PORT][/LIMIT][,OPTIONS]`, `[USER]@HOST[/LIMIT]…` or `localhost[/LIMIT]`. `--…`
    /// is an option of the list.
    fn parse(text: &str) -> Option<Machine> {
        if text.starts_with('-') || text.starts_with('+') {
            return None;
        }
        let plain = text.split(',').next()?;
        let (name, limit) = plain.split_once('/').map_or((plain, None), |(name, limit)| (name, Some(limit)));
        let slots = limit.and_then(|limit| limit.parse().ok()).unwrap_or(DISTCC_SLOTS);
        let address = if name.contains('@') || name == "localhost" {
            None
        } else {
            let (host, port) = match name.rsplit_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (name, DISTCC_PORT),
            };
            Some((host.trim_matches(['[', ']']).to_owned(), port))
        };
        Some(Machine { text: text.to_owned(), address, slots })
    }

    fn is_reachable(&self) -> bool {
        let Some((host, port)) = &self.address else { return true };
        let addresses = (host.as_str(), *port).to_socket_addrs();
        addresses.is_ok_and(|mut all| {
            all.any(|address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_lists_are_parsed() {
        let machine = |text: &str| Machine::parse(text).map(|machine| (machine.address, machine.slots));
        let tcp = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(machine("red"), Some((tcp("red", 3632), 4)));
        assert_eq!(machine("10.0.0.1:3699/8,lzo,cpp"), Some((tcp("10.0.0.1", 3699), 8)));
        assert_eq!(machine("[::1]:99/2"), Some((tcp("::1", 99), 2)));
        assert_eq!(machine("me@blue/3"), Some((None, 3)));
        assert_eq!(machine("localhost/2"), Some((None, 2)));
        assert_eq!(machine("--randomize"), None);
    }

    #[test]
    fn jobs_are_limited_by_the_farm_and_by_this_machine() {
        let farm = |slots| Farm { tool: Tool::Distcc, alive: vec![], dead: vec![], slots };
        let jobs = |slots, cpus| farm(slots).jobs(cpus);
        assert_eq!((jobs(0, 2), jobs(3, 2), jobs(64, 2), jobs(64, 16)), (2, 6, 8, 64));
    }

    #[test]
    fn unreachable_machines_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap().to_string();
        let unreachable =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let machines = [format!("{alive}/3"), unreachable.clone()];
        let farm = probe_distcc(machines.iter().filter_map(|machine| Machine::parse(machine)).collect());
        assert_eq!(
            (&farm.alive, &farm.dead, farm.slots),
            (&vec![format!("{alive}/3")], &vec![unreachable], 3)
        );
        assert_eq!(farm.environment().unwrap().1, format!("{alive}/3"));
    }

    #[test]
    fn the_slots_of_a_scheduler_are_added_up() {
        let answer = "200-ICECC 1.4: 2s uptime, 2 hosts, 0 jobs in queue (0 total).\n200 Use 'help' for help.\n \
                      red (10.0.0.1:10245) [x86_64] speed=0.00 jobs=0/4 load=0\n blue (10.0.0.2:10245) [x86_64] \
                      speed=1.00 jobs=3/8 load=100\n200 done\n";
        assert_eq!((slots_of(answer), slots_of("")), (12, 0));
    }
}
