//! Which kernels of a run may fetch, compile and pack now.

use crate::host::process::{self, JobServer};
use crate::kbuild::launcher::Farm;
use crate::util::error::Result;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many kernels compile at once on a small machine: one more than fills it, for where one waits.
const BUILDS: usize = 2;
/// The linking at the end of a kernel, which only one core can do, is a third of its time where there are many:
/// each so many jobs want another kernel.
const JOBS_FOR_A_BUILD: usize = 8;
/// How often it is looked whether a signal has come while another kernel is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What the kernels of one run share.
pub struct Scheduler {
    /// The jobs of all makes.
    jobs: JobServer,
    /// The machines that compile, too.
    farm: Option<Farm>,
    /// One downloads and unpacks at a time: what it needs more than cores is the network and the disk.
    fetching: PrioritySemaphore,
    building: PrioritySemaphore,
    /// The output directory has one lock.
    packing: PrioritySemaphore,
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
pub struct Slot<'a> {
    scheduler: &'a Scheduler,
    index: usize,
}

impl Scheduler {
    /// For kernels whose makes share `jobs` jobs, and those machines.
    pub fn new(jobs: usize, farm: Option<Farm>) -> Result<Scheduler> {
        Ok(Scheduler {
            farm,
            jobs: JobServer::new(jobs)?,
            fetching: PrioritySemaphore::new(1),
            building: PrioritySemaphore::new(BUILDS.max(jobs / JOBS_FOR_A_BUILD)),
            packing: PrioritySemaphore::new(1),
        })
    }

    /// The place of the kernel that stands at `index` in the run.
    pub fn slot(&self, index: usize) -> Slot<'_> {
        Slot { scheduler: self, index }
    }
}

impl<'a> Slot<'a> {
    /// The pool of jobs.
    pub fn jobs(&self) -> &'a JobServer {
        &self.scheduler.jobs
    }

    /// The machines behind the launcher, which all kernels use.
    pub fn farm(&self) -> Option<Farm> {
        self.scheduler.farm.clone()
    }

    /// Waits until the stage has room; kernels that stand first in the run go first.
    pub fn acquire(&self, stage: Stage) -> Result<StagePermit<'a>> {
        let semaphore = match stage {
            Stage::Fetch => &self.scheduler.fetching,
            Stage::Build => &self.scheduler.building,
            Stage::Pack => &self.scheduler.packing,
        };
        semaphore.acquire(self.index)
    }
}

/// Lets so many in at once.
struct PrioritySemaphore {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    waiting: BTreeSet<usize>,
}

/// Has been let in; on drop the next one is.
pub struct StagePermit<'a>(&'a PrioritySemaphore);

impl PrioritySemaphore {
    fn new(free: usize) -> PrioritySemaphore {
        PrioritySemaphore {
            state: Mutex::new(State { free, waiting: BTreeSet::new() }),
            changed: Condvar::new(),
        }
    }

    fn acquire(&self, index: usize) -> Result<StagePermit<'_>> {
        let mut state = self.state();
        state.waiting.insert(index);
        while state.free == 0 || state.waiting.first() != Some(&index) {
            if let Err(error) = process::check() {
                state.waiting.remove(&index);
                return Err(error);
            }
            let waited = self.changed.wait_timeout(state, POLL_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.free -= 1;
        state.waiting.remove(&index);
        self.changed.notify_all();
        Ok(StagePermit(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StagePermit<'_> {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_than_so_many_are_let_in_and_all_get_their_turn() {
        let semaphore = PrioritySemaphore::new(2);
        let (inside, most, passed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for index in 0..8 {
                let (semaphore, inside, most, passed) = (&semaphore, &inside, &most, &passed);
                scope.spawn(move || {
                    let permit = semaphore.acquire(index).unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    passed.fetch_add(1, Ordering::SeqCst);
                    drop(permit);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(passed.load(Ordering::SeqCst), 8);
    }

    #[test]
    fn who_stands_first_is_let_in_first() {
        let semaphore = PrioritySemaphore::new(1);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let held = semaphore.acquire(0).unwrap();
            for index in [3, 1, 2] {
                let (semaphore, order) = (&semaphore, &order);
                scope.spawn(move || {
                    let _pass = semaphore.acquire(index).unwrap();
                    order.lock().unwrap().push(index);
                });
            }
            while semaphore.state().waiting.len() < 3 {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [1, 2, 3]);
    }
}
