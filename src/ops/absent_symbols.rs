//! The symbols that the kernels of a run lack.

use crate::kconfig::explain::Absent;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The symbols of `--set` that kernels of a run lack. A symbol may be that of one kernel of several.
#[derive(Clone, Debug)]
pub struct AbsentSymbols {
    /// The number of kernels of the run.
    pub kernels: usize,
    /// Each with the number of kernels without it.
    found: Arc<Mutex<BTreeMap<String, (usize, Absent)>>>,
}

impl AbsentSymbols {
    pub fn of_run(kernels: usize) -> AbsentSymbols {
        AbsentSymbols { kernels, found: Arc::default() }
    }

    /// Adds what one kernel lacks. Returns what no kernel of the run has.
    pub fn add(&self, absent: Vec<Absent>) -> Vec<Absent> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for absent in absent {
            let (count, known) = found.entry(absent.symbol.clone()).or_insert((0, absent.clone()));
            *count += 1;
            if known.nearest.is_empty() {
                *known = absent;
            }
        }
        let nowhere = found.values().filter(|(count, _)| *count >= self.kernels);
        nowhere.map(|(_, absent)| absent.clone()).collect()
    }
}
