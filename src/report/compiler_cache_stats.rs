//! Hits and misses of a compiler cache.

use serde::Serialize;
use std::fmt;

/// The counts of one run of make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompilerCacheStats {
    /// Compilations that the cache answered.
    pub hits: u64,
    /// Compilations that it did not answer.
    pub misses: u64,
    /// Calls that a cache cannot answer, such as probes, linking and sources with `.incbin`.
    pub uncacheable: u64,
    /// Failures of the remote storage, which cost hits. The receipt has a warning about them.
    #[serde(skip)]
    pub storage_errors: u64,
}

impl CompilerCacheStats {
    /// Returns the counts since `before`.
    pub fn since(self, before: CompilerCacheStats) -> CompilerCacheStats {
        CompilerCacheStats {
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            uncacheable: self.uncacheable.saturating_sub(before.uncacheable),
            storage_errors: self.storage_errors.saturating_sub(before.storage_errors),
        }
    }
}

impl fmt::Display for CompilerCacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CompilerCacheStats { hits, misses, uncacheable, .. } = self;
        let of = (hits + misses).max(1);
        write!(f, "{hits} hits, {misses} misses ({:.1} % hits)", *hits as f64 * 100.0 / of as f64)?;
        match uncacheable {
            0 => Ok(()),
            calls => write!(f, ", {calls} uncacheable calls"),
        }
    }
}
