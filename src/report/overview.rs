//! The end of a run of several kernels: what became of each.

use crate::util::text::duration;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What became of each kernel of a run, in the order in which they were asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// One for each.
    #[serde(rename = "kernels")]
    pub kernels: Vec<Ending>,
    /// Wall time of all together, in seconds.
    pub seconds: f64,
}

/// What became of one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Ending {
    /// As it is called in the lines before.
    #[serde(rename = "kernel")]
    pub kernel: String,
    /// Its exact version, or why there is none.
    #[serde(rename = "outcome")]
    pub outcome: Result<String, String>,
    /// From the beginning of the run to its end.
    pub seconds: f64,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        let failed = self.kernels.iter().filter(|ending| ending.outcome.is_err()).count();
        let all = self.kernels.len();
        writeln!(f)?;
        writeln!(f, "  {} of {all} kernels built in {}", all - failed, took(self.seconds))?;
        let width = self.kernels.iter().map(|ending| ending.kernel.len()).max().unwrap_or_default();
        for Ending { kernel, outcome, seconds } in &self.kernels {
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
