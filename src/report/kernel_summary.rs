//! The end of a run: what was built, what to look at, where the time went, what to run next.

use super::{CompilerCacheStats, Phase};
use crate::util::text::{format_duration, format_size, pluralize};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What a build has to say at its end.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSummary {
    /// `uname -r` of the new kernel.
    pub release: String,
    /// What was written.
    pub images: Vec<Image>,
    /// What the compiler cache has done, where there is one.
    #[serde(rename = "cached")]
    pub cache_stats: Option<CompilerCacheStats>,
    /// How many modules.
    pub modules: usize,
    /// What to look at.
    #[serde(rename = "findings")]
    pub warnings: Vec<String>,
    /// Where the time went.
    pub times: Vec<(Phase, Duration)>,
    /// The plan's digest.
    pub plan: String,
    /// The receipt's path.
    pub receipt: String,
    /// What `--timings` wrote.
    pub timings: Vec<String>,
}

/// An image of the summary.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// The layout's directory.
    pub layout: String,
    /// Its tag.
    pub tag: String,
    /// Bytes of the layer as stored.
    pub bytes: u64,
}

impl fmt::Display for KernelSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(f, "  kernel release  {}, {}", self.release, pluralize(self.modules, "module", "modules"))?;
        for Image { layout, tag, bytes } in &self.images {
            writeln!(f, "  image           {layout}:{tag}  {}", format_size(*bytes))?;
        }
        writeln!(f, "  receipt         {}", self.receipt)?;
        self.timings.iter().try_for_each(|path| writeln!(f, "  timings         {path}"))?;
        writeln!(f, "  plan            sha256:{}", self.plan)?;
        self.cache_stats.iter().try_for_each(|cache_stats| writeln!(f, "  cache           {cache_stats}"))?;
        let whole: Duration = self.times.iter().map(|(_, took)| *took).sum();
        let parts: Vec<String> = self
            .times
            .iter()
            .map(|(phase, took)| format!("{} {}", phase.title().to_lowercase(), format_duration(*took)))
            .collect();
        writeln!(f, "  time            {}: {}", format_duration(whole), parts.join(", "))?;
        match self.warnings.len() {
            0 => writeln!(f, "  findings        none")?,
            count => {
                writeln!(f, "  findings        {count}")?;
                self.warnings.iter().try_for_each(|finding| writeln!(f, "    - {finding}"))?;
            }
        }
        write!(f, "\n  next:")?;
        for Image { layout, tag, .. } in &self.images {
            let name = layout.rsplit('/').next().unwrap_or(layout);
            write!(f, "\n    skopeo copy oci:{layout}:{tag} docker://REGISTRY/{name}:{tag}")?;
        }
        Ok(())
    }
}
