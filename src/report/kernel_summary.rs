//! The summary of a build: images, warnings, times, and the commands to run next.

use super::CompilerCacheStats;
use super::phase::Phase;
use crate::util::text::{format_duration, format_size, pluralize};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The summary of a build.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSummary {
    /// `uname -r` of the new kernel.
    pub release: String,
    pub images: Vec<Image>,
    #[serde(rename = "cached")]
    pub cache_stats: Option<CompilerCacheStats>,
    pub modules: usize,
    #[serde(rename = "findings")]
    pub warnings: Vec<String>,
    #[serde(serialize_with = "phase_seconds")]
    pub times: Vec<(Phase, Duration)>,
    /// The digest of the plan, `sha256:…`.
    pub plan: String,
    /// The path of the receipt.
    pub receipt: String,
    pub timings: Vec<String>,
    /// What Flintlock and CAPMVM need of these images, as labels and values.
    #[serde(skip)]
    pub consumer_fields: Vec<ConsumerField>,
}

/// A field of a machine specification of Flintlock or CAPMVM.
#[derive(Clone, Debug)]
pub struct ConsumerField {
    pub label: &'static str,
    pub value: String,
}

fn phase_seconds<S: Serializer>(times: &[(Phase, Duration)], serializer: S) -> Result<S::Ok, S::Error> {
    let seconds =
        |(phase, took): &(Phase, Duration)| PhaseSeconds { phase: *phase, seconds: took.as_secs_f64() };
    serializer.collect_seq(times.iter().map(seconds))
}

#[derive(Serialize)]
struct PhaseSeconds {
    phase: Phase,
    seconds: f64,
}

/// An image of the summary.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// The directory of the layout.
    pub layout: String,
    pub tag: String,
    /// The size of the compressed layer.
    pub bytes: u64,
}

impl KernelSummary {
    /// Formats the commands to run next, one per line: boot the kernel, write it to a file, publish the images.
    /// The reference of an image names its hypervisor, architecture and directory, so that no option is needed.
    fn next_commands(&self, publish: Publish) -> String {
        let mut commands = Vec::new();
        // The first image has the kernel.
        if let Some(Image { layout, tag, .. }) = self.images.first() {
            let reference = format!("{layout}:{tag}");
            let kernel = quote(&reference);
            commands.extend([format!("kcompile boot {kernel}"), format!("kcompile extract {kernel}")]);
        }
        match publish {
            Publish::EachImage => commands.extend(self.images.iter().map(Image::copy_command)),
            Publish::OutputDirectory => commands.push(self.push_command()),
        }
        commands.iter().map(|command| format!("\n    {command}")).collect()
    }

    /// Formats one command that publishes all images of the output directory, without naming them.
    fn push_command(&self) -> String {
        let dir =
            self.images.first().and_then(|image| image.layout.rsplit_once('/')).map_or(".", |(dir, _)| dir);
        let option = if dir == "out" { String::new() } else { format!(" -o {}", quote(dir)) };
        format!("kcompile push REGISTRY/PREFIX{option}")
    }
}

/// How the images are published.
#[derive(Clone, Copy)]
enum Publish {
    EachImage,
    OutputDirectory,
}

impl Image {
    fn copy_command(&self) -> String {
        let Image { layout, tag, .. } = self;
        let name = layout.rsplit('/').next().unwrap_or(layout);
        let [from, to] = [format!("oci:{layout}:{tag}"), format!("docker://REGISTRY/{name}:{tag}")];
        format!("skopeo copy {} {}", quote(&from), quote(&to))
    }
}

/// Quotes a word for a shell.
fn quote(word: &str) -> Cow<'_, str> {
    // Only a NUL cannot be quoted, and no path has one.
    shlex::try_quote(word).unwrap_or_default()
}

/// With `{:#}`, leaves out the images, which are also on standard output.
impl fmt::Display for KernelSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(f, "  kernel release  {}, {}", self.release, pluralize(self.modules, "module", "modules"))?;
        if !f.alternate() {
            for Image { layout, tag, bytes } in &self.images {
                writeln!(f, "  image           {layout}:{tag}  {}", format_size(*bytes))?;
            }
        }
        writeln!(f, "  receipt         {}", self.receipt)?;
        self.timings.iter().try_for_each(|path| writeln!(f, "  timings         {path}"))?;
        writeln!(f, "  plan            {}", self.plan)?;
        self.cache_stats.iter().try_for_each(|cache_stats| writeln!(f, "  cache           {cache_stats}"))?;
        let whole: Duration = self.times.iter().map(|(_, took)| *took).sum();
        let parts: Vec<String> = self
            .times
            .iter()
            .map(|(phase, took)| format!("{} {}", phase.title().to_lowercase(), format_duration(*took)))
            .collect();
        writeln!(f, "  time            {}: {}", format_duration(whole), parts.join(", "))?;
        match self.warnings.len() {
            0 => writeln!(f, "  warnings        none")?,
            // They were printed when they came.
            count => writeln!(f, "  warnings        {count}, above")?,
        }
        let publish = if f.alternate() { Publish::OutputDirectory } else { Publish::EachImage };
        write!(f, "\n  next:{}", self.next_commands(publish))?;
        if !self.consumer_fields.is_empty() {
            write!(f, "\n\n  for Flintlock and CAPMVM:")?;
        }
        let field = |ConsumerField { label, value }: &ConsumerField| format!("\n    {label:16} {value}");
        self.consumer_fields.iter().try_for_each(|one| f.write_str(&field(one)))?;
        if f.alternate() {
            let images = pluralize(self.images.len(), "image", "images");
            let bytes = self.images.iter().map(|image| image.bytes).sum();
            write!(f, "\n\n  {images}, {}:", format_size(bytes))?;
        }
        Ok(())
    }
}
