//! The end of a run of several kernels: what became of each.

use crate::util::text::format_duration;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What became of each kernel of a run, in the order in which they were asked for.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// One for each.
    #[serde(rename = "kernels")]
    pub kernels: Vec<KernelResult>,
    /// Wall time of all together, in seconds.
    pub seconds: f64,
}

/// What became of one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// As it is called in the lines before.
    #[serde(rename = "kernel")]
    pub kernel: String,
    /// Its exact version, or why there is none.
    #[serde(rename = "outcome")]
    pub outcome: Result<String, String>,
    /// From the beginning of the run to its end.
    pub seconds: f64,
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = |seconds: f64| format_duration(Duration::from_secs_f64(seconds));
        let failed = self.kernels.iter().filter(|result| result.outcome.is_err()).count();
        let all = self.kernels.len();
        writeln!(f)?;
        writeln!(f, "  {} of {all} kernels built in {}", all - failed, took(self.seconds))?;
        let width = self.kernels.iter().map(|result| result.kernel.len()).max().unwrap_or_default();
        for KernelResult { kernel, outcome, seconds } in &self.kernels {
            match outcome {
                Ok(version) => {
                    write!(f, "\n    built   {kernel:width$}  Linux {version}, after {}", took(*seconds))?;
                }
                Err(why) => write!(f, "\n    FAILED  {kernel:width$}  {why}")?,
            }
        }
        Ok(())
    }
}
