//! A farm: which of its machines answer, and how many jobs it is good for.

use super::Tool;
use crate::host::{Host, process};
use crate::report::Reporter;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A machine that does not answer in this time would only be waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Where distccd listens unless it is said otherwise.
const DISTCC_PORT: u16 = 3632;
/// What a machine of distcc takes at once unless it is said otherwise (distcc(1)).
const DISTCC_SLOTS: usize = 4;
/// Where a scheduler of icecream is asked by people (icecc-scheduler(1)).
const ICECC_CONTROL_PORT: u16 = 8766;
/// What a scheduler says of a few hundred machines.
const MAX_ANSWER: u64 = 1 << 20;
/// To preprocess, which is done here, takes about half as long as to compile: a core here feeds no more than
/// so many jobs.
const JOBS_PER_LOCAL_CPU: usize = 4;

/// What is known of a farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farm {
    tool: Tool,
    /// Machines that answer, as distcc's list has them.
    pub alive: Vec<String>,
    /// Machines that do not.
    pub dead: Vec<String>,
    /// Compilations that those that answer take at once; 0: that cannot be told.
    pub slots: usize,
}

impl Farm {
    /// How many jobs make should have, on so many cores here: twice what the farm takes, so that it never waits
    /// for this machine, as far as this machine can feed them.
    pub fn jobs(&self, cpus: usize) -> usize {
        (2 * self.slots).min(JOBS_PER_LOCAL_CPU * cpus).max(cpus)
    }

    /// What the launcher is told so that it does not ask machines that are dead.
    pub fn environment(&self) -> Option<(String, String)> {
        let hosts = match &self.alive[..] {
            [] => "localhost".to_owned(),
            alive => alive.join(" "),
        };
        (self.tool == Tool::Distcc && !self.dead.is_empty()).then(|| ("DISTCC_HOSTS".to_owned(), hosts))
    }

    /// Says what is wrong with it.
    pub fn report_to(&self, reporter: &Reporter) {
        let name = self.tool.name();
        match (&self.alive[..], &self.dead[..]) {
            ([], []) => {
                reporter.warning(format!("{name} knows no machine: everything was compiled on this one"));
            }
            // Findings are published, and names of machines are not.
            ([], _) => {
                reporter
                    .warning(format!("no machine of {name} answered: everything was compiled on this one"));
            }
            _ => {}
        }
        if !self.dead.is_empty() {
            reporter.note(&format!("{name}: no answer from {}", self.dead.join(", ")));
        }
        if !self.alive.is_empty() && self.slots == 0 {
            reporter
                .note(&format!("how large the farm of {name} is cannot be told: choose the jobs with -j"));
        }
    }
}

/// Asks all machines of a farm, at once. `None`: this launcher is no farm.
pub fn probe(command: &str, host: &Host) -> Option<Farm> {
    match Tool::of(command)? {
        Tool::Distcc => {
            let mut env = host.child_env.clone();
            env.extend(host.launcher_env.clone());
            let listing = process::capture("distcc", &["--show-hosts"], &env).unwrap_or_default();
            Some(probe_distcc(listing.split_whitespace().filter_map(Machine::parse).collect()))
        }
        Tool::Icecc => Some(probe_icecc(host)),
        Tool::Ccache | Tool::Sccache => None,
    }
}

fn probe_distcc(machines: Vec<Machine>) -> Farm {
    let is_reachable: Vec<bool> = std::thread::scope(|scope| {
        let probes: Vec<_> = machines.iter().map(|machine| scope.spawn(|| machine.is_reachable())).collect();
        probes.into_iter().map(|probes| probes.join().unwrap_or(false)).collect()
    });
    let mut farm = Farm { tool: Tool::Distcc, alive: Vec::new(), dead: Vec::new(), slots: 0 };
    for (machine, is_reachable) in machines.into_iter().zip(is_reachable) {
        match is_reachable {
            true => {
                farm.slots += machine.slots;
                farm.alive.push(machine.text);
            }
            false => farm.dead.push(machine.text),
        }
    }
    farm
}

/// The clients of icecream talk to a daemon on this machine, which knows the scheduler; how many jobs all machines
/// take together, the scheduler tells on a port of its own.
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

/// The sum of `jobs=0/4` in what the scheduler answers to `listcs`.
fn scheduler_slots(host: &str) -> Option<usize> {
    let address = (host, ICECC_CONTROL_PORT).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).ok()?;
    stream.write_all(b"listcs\nquit\n").ok()?;
    let mut answer = String::new();
    // A scheduler that does not hang up is heard as long as it speaks.
    let _ = stream.take(MAX_ANSWER).read_to_string(&mut answer);
    Some(slots_of(&answer))
}

fn slots_of(answer: &str) -> usize {
    let jobs = answer.split_whitespace().filter_map(|word| word.strip_prefix("jobs=")?.split_once('/'));
    jobs.filter_map(|(_, most)| most.parse::<usize>().ok()).sum()
}

/// A machine of distcc's list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    /// As it stands in the list.
    text: String,
    /// `None`: by ssh, or this machine; not asked.
    address: Option<(String, u16)>,
    slots: usize,
}

impl Machine {
    /// `HOST[:PORT][/LIMIT][,OPTIONS]`, `[USER]@HOST[/LIMIT]…`, `localhost[/LIMIT]`; `--…` is an option of the list.
    fn parse(text: &str) -> Option<Machine> {
        if text.starts_with('-') || text.starts_with('+') {
            return None;
        }
        let plain = text.split(',').next()?;
        let (name, limit) = plain.split_once('/').map_or((plain, None), |(name, limit)| (name, Some(limit)));
        let slots = limit.and_then(|limit| limit.parse().ok());
        let address = match name {
            name if name.contains('@') || name == "localhost" => None,
            name => {
                let (host, port) = match name.rsplit_once(':') {
                    Some((host, port)) => (host, port.parse().ok()?),
                    None => (name, DISTCC_PORT),
                };
                Some((host.trim_matches(['[', ']']).to_owned(), port))
            }
        };
        Some(Machine { text: text.to_owned(), address, slots: slots.unwrap_or(DISTCC_SLOTS) })
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
    fn lists_of_hosts_are_read() {
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
    fn jobs_follow_the_farm_as_far_as_it_can_be_fed() {
        let farm = |slots| Farm { tool: Tool::Distcc, alive: vec![], dead: vec![], slots };
        let jobs = |slots, cpus| farm(slots).jobs(cpus);
        assert_eq!((jobs(0, 2), jobs(3, 2), jobs(64, 2), jobs(64, 16)), (2, 6, 8, 64));
    }

    #[test]
    fn a_machine_that_does_not_answer_is_told_from_one_that_does() {
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
    fn a_scheduler_tells_how_much_its_machines_take() {
        let answer = "200-ICECC 1.4: 2s uptime, 2 hosts, 0 jobs in queue (0 total).\n200 Use 'help' for help.\n \
                      red (10.0.0.1:10245) [x86_64] speed=0.00 jobs=0/4 load=0\n blue (10.0.0.2:10245) [x86_64] \
                      speed=1.00 jobs=3/8 load=100\n200 done\n";
        assert_eq!((slots_of(answer), slots_of("")), (12, 0));
    }
}
