//! Several kernels at once: the source of the next one comes while others compile, and all makes take their jobs
//! from one pool, so that the serial ends of one kernel are filled with another's work. One failure does not
//! stop the others.

use crate::host::process::{self, JobServer};
use crate::image::pack::PackedImage;
use crate::kbuild::launcher::Farm;
use crate::plan::request::Request;
use crate::report::{Ending, Overview};
use crate::run::Run;
use crate::util::error::{Error, Kind, Result};
use crate::util::text::printable;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// So many kernels compile at once on a small machine: one more than fills it, for where one waits.
const BUILDS: usize = 2;
/// The linking at the end of a kernel, which only one core can do, is a third of its time where there are many:
/// each so many jobs want another kernel.
const JOBS_FOR_A_BUILD: usize = 8;
/// How often it is looked whether a signal has come while another kernel is waited for.
const EVERY: Duration = Duration::from_millis(100);

/// What the kernels of one run share.
pub struct Crew {
    /// The jobs of all makes.
    jobs: JobServer,
    /// The machines that compile, too.
    farm: Option<Farm>,
    /// One downloads and unpacks at a time: what it needs more than cores is the network and the disk.
    fetching: Gate,
    building: Gate,
    /// The output directory has one lock.
    packing: Gate,
}

/// The parts of a build that wait for other kernels'.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// The source is fetched and unpacked.
    Fetch,
    /// make runs.
    Build,
    /// Images are written.
    Pack,
}

/// The place of one kernel in a crew.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    crew: &'a Crew,
    index: usize,
}

impl<'a> Place<'a> {
    /// The pool of jobs.
    pub fn jobs(&self) -> &'a JobServer {
        &self.crew.jobs
    }

    /// The machines behind the launcher, which all kernels use.
    pub fn farm(&self) -> Option<Farm> {
        self.crew.farm.clone()
    }

    /// Waits until the stage has room; kernels that stand first in the run go first.
    pub fn enter(&self, stage: Stage) -> Result<Pass<'a>> {
        let gate = match stage {
            Stage::Fetch => &self.crew.fetching,
            Stage::Build => &self.crew.building,
            Stage::Pack => &self.crew.packing,
        };
        gate.enter(self.index)
    }
}

/// Builds all `requests`, several at once. `built` is told of the images of each, on the calling thread, in the
/// order of the requests; what became of all is said at the end.
///
/// Returns a result for each, in their order. Errors: the run was interrupted.
pub fn build_all(
    requests: &[Request],
    run: &Run<'_>,
    mut built: impl FnMut(&[PackedImage]) -> Result<()>,
) -> Result<Vec<Result<Vec<PackedImage>>>> {
    let launcher = requests.first().and_then(|request| request.toolchain.launcher.as_deref());
    let (farm, jobs) = run.farm(launcher);
    let run = &Run { jobs, ..run.clone() };
    let crew = Crew {
        farm,
        jobs: JobServer::new(jobs)?,
        fetching: Gate::new(1),
        building: Gate::new(BUILDS.max(run.jobs / JOBS_FOR_A_BUILD)),
        packing: Gate::new(1),
    };
    let names = names(requests);
    let began = Instant::now();
    let mut endings: Vec<Option<(Ending, Result<Vec<PackedImage>>)>> =
        requests.iter().map(|_| None).collect();
    std::thread::scope(|scope| -> Result<()> {
        let (sender, ended) = mpsc::channel();
        for (index, (request, name)) in requests.iter().zip(&names).enumerate() {
            let (sender, crew) = (sender.clone(), &crew);
            scope.spawn(move || {
                let report = run.report.for_kernel(name);
                let run = run.one_of(Place { crew, index }, &report);
                let result = crate::build(request, &run);
                if let Err(error) = &result
                    && !matches!(error.kind, Kind::Interrupted(_))
                {
                    report.error(error);
                }
                let _ = sender.send((index, result));
            });
        }
        drop(sender);
        let mut told = 0;
        for (index, result) in ended {
            let outcome = match &result {
                Ok(images) => Ok(images.first().map_or_else(String::new, |image| image.written.tag.clone())),
                Err(error) => Err(printable(&error.to_string())),
            };
            let seconds = began.elapsed().as_secs_f64();
            endings[index] = Some((Ending { kernel: names[index].clone(), outcome, seconds }, result));
            while let Some(Some((_, result))) = endings.get(told) {
                result.as_deref().map_or(Ok(()), &mut built)?;
                told += 1;
            }
        }
        Ok(())
    })?;
    let (kernels, results): (Vec<Ending>, Vec<_>) =
        endings.into_iter().map(|ending| ending.expect("each thread tells of its end")).unzip();
    process::check()?;
    run.report.overview(&Overview { kernels, seconds: began.elapsed().as_secs_f64() });
    Ok(results)
}

/// What the kernels are called: by their version, and by what else tells them apart.
fn names(requests: &[Request]) -> Vec<String> {
    let flavors: BTreeSet<_> = requests.iter().map(|request| request.flavor).collect();
    let arches: BTreeSet<_> = requests.iter().map(|request| request.arch).collect();
    let mut names: Vec<String> = Vec::new();
    for request in requests {
        let mut name = request.version.to_string();
        if flavors.len() > 1 {
            name.push_str(&format!(" {}", request.flavor));
        }
        if arches.len() > 1 {
            name.push_str(&format!(" {}", request.arch));
        }
        // The same asked for twice.
        let same = names.iter().filter(|known| **known == name || known.starts_with(&format!("{name} #")));
        let count = same.count();
        names.push(if count == 0 { name } else { format!("{name} #{}", count + 1) });
    }
    names
}

/// Lets so many in at once.
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    waiting: BTreeSet<usize>,
}

/// Has been let in; on drop the next one is.
pub struct Pass<'a>(&'a Gate);

impl Gate {
    fn new(free: usize) -> Gate {
        Gate { state: Mutex::new(State { free, waiting: BTreeSet::new() }), changed: Condvar::new() }
    }

    fn enter(&self, index: usize) -> Result<Pass<'_>> {
        let mut state = self.state();
        state.waiting.insert(index);
        while state.free == 0 || state.waiting.first() != Some(&index) {
            if let Err(error) = process::check() {
                state.waiting.remove(&index);
                return Err(error);
            }
            let waited = self.changed.wait_timeout(state, EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.free -= 1;
        state.waiting.remove(&index);
        self.changed.notify_all();
        Ok(Pass(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.changed.notify_all();
    }
}

/// The error that decides the exit code: of the first kernel that failed.
pub fn first_error<T>(results: &[Result<T>]) -> Option<&Error> {
    results.iter().find_map(|result| result.as_ref().err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_so_many_are_let_in_and_all_get_their_turn() {
        let gate = Gate::new(2);
        let (inside, most, passed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for index in 0..8 {
                let (gate, inside, most, passed) = (&gate, &inside, &most, &passed);
                scope.spawn(move || {
                    let pass = gate.enter(index).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    passed.fetch_add(1, Ordering::SeqCst);
                    drop(pass);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(passed.load(Ordering::SeqCst), 8);
    }

    #[test]
    fn who_stands_first_is_let_in_first() {
        let gate = Gate::new(1);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let held = gate.enter(0).unwrap();
            for index in [3, 1, 2] {
                let (gate, order) = (&gate, &order);
                scope.spawn(move || {
                    let _pass = gate.enter(index).unwrap();
                    order.lock().unwrap().push(index);
                });
            }
            while gate.state().waiting.len() < 3 {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [1, 2, 3]);
    }
}
