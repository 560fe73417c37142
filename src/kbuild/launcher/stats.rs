//! Reads the statistics of compiler caches.

use crate::report::CompilerCacheStats;

/// Reads the log that ccache writes for `CCACHE_STATSLOG`. Each call has a line `# SOURCE`, and
/// then a line for each counter. Returns `None` if there was no call.
pub(super) fn read_log(log: &str) -> Option<CompilerCacheStats> {
    let mut stats = CompilerCacheStats::default();
    let mut calls = 0;
    for line in log.lines() {
        match line {
            "direct_cache_hit" | "preprocessed_cache_hit" => stats.hits += 1,
            "cache_miss" => stats.misses += 1,
            "remote_storage_error" | "remote_storage_timeout" => stats.storage_errors += 1,
            line if line.starts_with('#') => calls += 1,
            _ => {}
        }
    }
    stats.uncacheable = u64::saturating_sub(calls, stats.hits + stats.misses);
    (calls > 0).then_some(stats)
}

/// Reads the output of `sccache --show-stats --stats-format json`, which counts from the server's start.
pub(super) fn read_stats(text: &str) -> Option<CompilerCacheStats> {
    let all: serde_json::Value = serde_json::from_str(text).ok()?;
    let count = |name: &str| -> Option<u64> {
        let counts = all["stats"][name]["counts"].as_object()?;
        Some(counts.values().filter_map(serde_json::Value::as_u64).sum())
    };
    let (hits, misses) = (count("cache_hits")?, count("cache_misses")?);
    let requests = all["stats"]["compile_requests"].as_u64()?;
    let uncacheable = requests.saturating_sub(hits + misses);
    let errors = ["cache_timeouts", "cache_read_errors", "cache_write_errors"];
    let storage_errors = errors.iter().filter_map(|name| all["stats"][name].as_u64()).sum();
    Some(CompilerCacheStats { hits, misses, uncacheable, storage_errors })
}

/// Returns whether an sccache server with these statistics keeps objects on the local disk.
pub(super) fn is_local(text: &str) -> bool {
    let all: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    all["cache_location"].as_str().is_some_and(|location| location.starts_with("Local disk"))
}

/// Returns the error of sccache's server from what `sccache --start-server` printed: its message, and its cause,
/// which is on the line after `Source:`.
pub(super) fn start_error(text: &str) -> String {
    let mut lines = text.lines().map(str::trim);
    let message = lines.find_map(|line| line.strip_prefix("sccache: error: ")).unwrap_or("no reason given");
    let cause = lines.skip_while(|line| *line != "Source:").nth(1);
    [Some(message), cause].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ccache_log_is_counted() {
        let log = "# a.c\ncache_miss\ndirect_cache_miss\nlocal_storage_write\npreprocessed_cache_miss\n# a.c\n\
                   direct_cache_hit\nlocal_storage_hit\nremote_storage_error\n# a.c\ncalled_for_preprocessing\n# \nno_input_file\n\
                   # b.c\npreprocessed_cache_hit\n";
        let stats = read_log(log).unwrap();
        assert_eq!(stats, CompilerCacheStats { hits: 2, misses: 1, uncacheable: 2, storage_errors: 1 });
        assert_eq!(stats.to_string(), "2 hits, 1 misses (66.7 % hits), 2 uncacheable calls");
        assert_eq!(read_log(""), None);
    }

    #[test]
    fn an_error_of_sccache_has_its_cause() {
        let text = "sccache: Starting the server...\nsccache: error: Server startup failed: cannot read\n\n\
                    Context:\n   service: redis\n\nSource:\n   Password authentication failed\n\nBacktrace:\n";
        assert_eq!(start_error(text), "Server startup failed: cannot read: Password authentication failed");
        let in_use = "sccache: error: Server startup failed: Address in use\n";
        assert_eq!(start_error(in_use), "Server startup failed: Address in use");
    }

    #[test]
    fn sccache_statistics_are_differences() {
        let stats = |hits: u64, requests: u64| {
            let text = format!(
                "{{\"stats\":{{\"compile_requests\":{requests},\"cache_hits\":{{\"counts\":{{\"C/C++\":{hits}}}}},\
                 \"cache_read_errors\":1,\"cache_write_errors\":2,\
                 \"cache_misses\":{{\"counts\":{{\"C/C++\":1,\"Rust\":1}}}}}}}}"
            );
            read_stats(&text).unwrap()
        };
        assert_eq!(
            stats(7, 12).since(stats(2, 5)),
            CompilerCacheStats { hits: 5, misses: 0, uncacheable: 2, storage_errors: 0 }
        );
        assert_eq!(stats(2, 5).storage_errors, 3);
        assert_eq!(read_stats("sccache: error"), None);
    }
}
