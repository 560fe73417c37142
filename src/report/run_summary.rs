//! The summary of a run of several kernels.

use crate::util::text::format_duration;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// The results of all kernels of a run, in the order of the command line.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    pub kernels: Vec<KernelResult>,
    /// The wall time of the run, in seconds.
    pub seconds: f64,
}

/// The result of one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// The name of the kernel in progress lines.
    pub kernel: String,
    /// The exact version, or the error. In JSON it is the field `version` or `error`.
    #[serde(flatten, serialize_with = "version_or_error")]
    pub outcome: Result<String, String>,
    /// The time from the start of the run to the end of this kernel, in seconds.
    pub seconds: f64,
}

fn version_or_error<S: Serializer>(
    outcome: &Result<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map([match outcome {
        Ok(version) => ("version", version),
        Err(error) => ("error", error),
    }])
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
