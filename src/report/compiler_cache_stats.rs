//! What a compiler cache has done: hits and misses of one run.

use serde::Serialize;
use std::fmt;

/// Of one run of make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompilerCacheStats {
    /// Compilations that were answered from the cache.
    #[serde(rename = "hits")]
    pub hits: u64,
    /// Compilations that were not.
    #[serde(rename = "misses")]
    pub misses: u64,
    /// Calls that no cache can answer: Kbuild's probes, linking, sources with `.incbin`.
    #[serde(rename = "uncacheable")]
    pub uncacheable: u64,
}

impl CompilerCacheStats {
    /// What was counted after `before`.
    pub fn since(self, before: CompilerCacheStats) -> CompilerCacheStats {
        CompilerCacheStats {
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            uncacheable: self.uncacheable.saturating_sub(before.uncacheable),
        }
    }
}

impl fmt::Display for CompilerCacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CompilerCacheStats { hits, misses, uncacheable } = self;
        let of = (hits + misses).max(1);
        write!(f, "{hits} hits, {misses} misses ({:.1} % hits)", *hits as f64 * 100.0 / of as f64)?;
        match uncacheable {
            0 => Ok(()),
            calls => write!(f, ", {calls} calls that no cache answers"),
        }
    }
}
