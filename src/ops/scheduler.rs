//! Decides which kernels of a run may fetch, compile and pack at a time.

use crate::host::process::{self, JobServer};
use crate::kbuild::launcher::Farm;
use crate::util::error::Result;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The least number of kernels that compile at a time. The second one uses the CPUs when the first one waits.
const MIN_BUILDS: usize = 2;
/// The number of jobs for each kernel that compiles. Linking uses one core and takes a third of the time on
/// machines with many, so that more kernels are needed to use all of them.
const JOBS_PER_BUILD: usize = 8;
/// How often a waiting kernel checks for signals.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The resources that the kernels of one run share.
pub struct Scheduler {
    jobs: JobServer,
    farm: Option<Farm>,
    /// One kernel fetches at a time, since the network and the disk are the limits.
    fetching: PrioritySemaphore,
    building: PrioritySemaphore,
    /// One kernel packs at a time, since the output directory has one lock.
    packing: PrioritySemaphore,
}

/// The stages of a build that limit the number of kernels.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// Fetching and unpacking the source.
    Fetch,
    Build,
    Pack,
}

/// The place of one kernel in the run.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    scheduler: &'a Scheduler,
    index: usize,
}

impl Scheduler {
    /// Creates a scheduler for kernels that share `jobs` jobs and a compiler farm.
    pub fn new(jobs: usize, farm: Option<Farm>) -> Result<Scheduler> {
        Ok(Scheduler {
            farm,
            jobs: JobServer::new(jobs)?,
            fetching: PrioritySemaphore::new(1),
            building: PrioritySemaphore::new(MIN_BUILDS.max(jobs / JOBS_PER_BUILD)),
            packing: PrioritySemaphore::new(1),
        })
    }

    /// Returns the slot of the kernel at `index` in the run.
    pub fn slot(&self, index: usize) -> Slot<'_> {
        Slot { scheduler: self, index }
    }
}

impl<'a> Slot<'a> {
    pub fn jobs(&self) -> &'a JobServer {
        &self.scheduler.jobs
    }

    pub fn farm(&self) -> Option<Farm> {
        self.scheduler.farm.clone()
    }

    /// Waits until the stage has room. Kernels go in the order of the run.
    pub fn acquire(&self, stage: Stage) -> Result<StagePermit<'a>> {
        let semaphore = match stage {
            Stage::Fetch => &self.scheduler.fetching,
            Stage::Build => &self.scheduler.building,
            Stage::Pack => &self.scheduler.packing,
        };
        semaphore.acquire(self.index)
    }
}

/// A semaphore that admits the lowest index first.
struct PrioritySemaphore {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    waiting: BTreeSet<usize>,
}

/// Admission to a stage, which ends on drop.
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
    fn a_semaphore_admits_all_but_not_at_once() {
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
    fn a_semaphore_admits_the_lowest_index_first() {
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
