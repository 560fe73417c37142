//! `kcompile check`: holds a `.config`, a built image or a kernel of the catalog against requirement
//! profiles, and prints what came out.

use crate::catalog::Library;
use crate::cli::args::{CatalogArgs, FlavorArgs, Options, TargetArgs};
use crate::cli::output::{print, printed_json, row};
use crate::cli::resolve::{CatalogFiles, plan_of};
use crate::cli::target::{Given, config_of};
use crate::host::Host;
use crate::image::inspect::{self, counterpart_layout};
use crate::image::kernel_image;
use crate::kconfig::Config;
use crate::kconfig::requirements::{self, Level, Outcome, Stage, Subject, Tally, Verdict};
use crate::kernel::{Arch, Flavor, KernelVersion};
use crate::oci::layout_reader::LayoutReader;
use crate::plan::wanted;
use crate::report::Report;
use crate::util::error::{Error, Result};
use crate::util::text::{printable, tame, wrapped};
use camino::Utf8Path;
use camino::Utf8PathBuf;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

const CHECK_EXAMPLES: &str = "\
Examples:
  kcompile check my.config --for kubernetes-1.35 cilium
  kcompile check out/firecracker-kernel-modules-amd64:6.1.7 --for flintlock
  kcompile check 6.1 --fc

Exit codes: 0 all that is required is met, 1 something is not, 2 usage, 3 the layout is damaged.";

/// The options of `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// A .config file, an OCI layout as LAYOUT[:TAG], or a kernel version of the catalog
    #[arg(value_name = "CONFIG|LAYOUT|VERSION")]
    pub subject: String,
    /// The profiles, after what is checked; repeatable [default: the flavor's own]
    #[arg(long = "for", value_name = "PROFILE", num_args = 1.., value_delimiter = ',')]
    pub profiles: Vec<String>,
    /// The hypervisor.
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    #[arg(long, value_name = "ARCH", help = format!(
        "{} [default: what the config or image says; the host's for a version]", Arch::choices()
    ))]
    pub arch: Option<Arch>,
    /// The kernel's version [default: what the config's header says]
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<KernelVersion>,
    /// Also show what is met, left open, or for other kernels
    #[arg(long)]
    pub all: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Your own catalog, configs and profiles over the built-in ones
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

/// Widths of the table's columns; with the spaces around them they fit 80.
const WIDTHS: [usize; 5] = [0, 11, 34, 11, 17];

/// What is checked, whatever it was given as.
struct Checked {
    name: String,
    config: Config,
    version: KernelVersion,
    arch: Arch,
    stage: Stage,
    flavor: Option<Flavor>,
    notes: Vec<String>,
}

pub fn check(args: &CheckArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    let CatalogFiles { library, .. } = CatalogFiles::read(args.configs.as_deref(), host)?;
    // A name that nobody knows is found out before anything is read.
    let mut profiles = requirements::read_all(&library, &args.profiles)?;
    let checked = resolve(args, host, report)?;
    if profiles.is_empty() {
        profiles = vec![requirements::read(&library, &own_profile(&checked, &library)?)?];
    }
    checked.notes.iter().for_each(|note| report.note(note));
    let Checked { config, version, arch, stage, .. } = &checked;
    let subject = Subject { config, version: *version, arch: *arch, stage: *stage };
    let outcomes = requirements::check(&profiles, &subject);
    let text = if args.json {
        printed_json(&json(&checked, &outcomes))
    } else {
        text(&checked, &outcomes, args.all)
    };
    print(&text)?;
    Ok(ExitCode::from(u8::from(outcomes.iter().any(Outcome::is_fatal))))
}

/// The profile of the hypervisor that the kernel is for, where that can be told.
fn own_profile(checked: &Checked, library: &Library) -> Result<String> {
    checked.flavor.map(|flavor| flavor.to_string()).ok_or_else(|| {
        Error::usage(format!("{}: nothing in it tells what it is for", checked.name))
            .hint(format!("say it with --for PROFILE: {}", requirements::names(library).join(", ")))
    })
}

fn resolve(args: &CheckArgs, host: &Host, report: &Report) -> Result<Checked> {
    match Given::of(&args.subject, host)? {
        Given::File(path) => from_file(args, &path),
        Given::Layout(path, tag) => from_layout(args, &path, tag.as_deref(), host),
        Given::Version => from_catalog(args, host, report),
    }
}

fn from_file(args: &CheckArgs, path: &Utf8Path) -> Result<Checked> {
    let config = config_of(path)?;
    let mut notes = Vec::new();
    let header = config.header_version.as_deref().and_then(KernelVersion::from_release);
    let named = path.file_stem().and_then(|stem| stem.rsplit('-').next()?.parse::<KernelVersion>().ok());
    if let (Some(header), Some(named), None) = (header, named, args.kernel)
        && header != named
    {
        notes.push(format!("the file's name says Linux {named}, its header {header}: going by the header"));
    }
    let version = args.kernel.or(header).ok_or_else(|| {
        Error::usage(format!("{path}: no header that tells the kernel's version"))
            .hint("say it with --kernel VERSION")
    })?;
    let by_header = |name: &str| Arch::ALL.iter().copied().find(|arch| arch.is_in_config_header(name));
    let told = config.header_arch.as_deref().and_then(by_header);
    let told = told.or_else(|| Arch::find(|spec| config.enabled(spec.symbol)));
    let arch = args.arch.or(told).ok_or_else(|| {
        Error::usage(format!("{path}: nothing in it tells the architecture"))
            .hint(format!("say it with --arch {}", Arch::choices()))
    })?;
    let (name, flavor) = (args.subject.clone(), args.hypervisor.chosen());
    Ok(Checked { name, config, version, arch, stage: Stage::Final, flavor, notes })
}

fn from_layout(args: &CheckArgs, layout: &Utf8Path, tag: Option<&str>, host: &Host) -> Result<Checked> {
    let image = LayoutReader::open(layout)?.open_image(tag, args.arch.or(host.arch).map(Arch::name))?;
    let name = args.subject.clone();
    let Some(text) = inspect::kernel_config(&image)? else {
        let error = Error::usage(format!("{name}: the image holds no kernel config"));
        return Err(match counterpart_layout(layout).filter(|layout| layout.as_str().contains("-kernel-modules")) {
            Some(beside) => error.hint(format!(
                "the modules image beside it does: {}",
                beside.file_name().unwrap_or_default()
            )),
            None => error.hint("the config lies in the modules image, as lib/modules/<release>/config, or in a kernel with CONFIG_IKCONFIG"),
        });
    };
    let config = Config::parse(&text);
    let told = config.header_version.as_deref().or(image.annotation("version"));
    let version = args.kernel.or(told.and_then(KernelVersion::from_release)).ok_or_else(|| {
        Error::usage(format!("{name}: nothing tells the kernel's version"))
            .hint("say it with --kernel VERSION")
    })?;
    let architecture = image.config.architecture().to_string();
    let arch = match args.arch {
        Some(arch) => arch,
        None => architecture.parse().map_err(|why: String| Error::usage(format!("{name}: {why}")))?,
    };
    let flavor = args.hypervisor.chosen().or_else(|| kernel_image::flavor(&image));
    Ok(Checked { name, config, version, arch, stage: Stage::Final, flavor, notes: Vec::new() })
}

fn from_catalog(args: &CheckArgs, host: &Host, report: &Report) -> Result<Checked> {
    if args.kernel.is_some() {
        return Err(Error::usage("--kernel is for a .config or a layout: the version is given already"));
    }
    let options = Options {
        target: TargetArgs {
            hypervisor: args.hypervisor,
            arch: args.arch.into_iter().collect(),
            ..TargetArgs::default()
        },
        catalog: CatalogArgs { configs: args.configs.clone(), ..CatalogArgs::default() },
        ..Options::default()
    };
    let plan = plan_of(&args.subject, &options, host, report)?;
    let wanted = wanted(&plan);
    let mut notes = plan.notices.clone();
    let layers: Vec<&str> = plan.config.iter().map(|layer| layer.name.as_str()).collect();
    notes.push(format!(
        "this is {} as it is asked for; what it leaves open, the kernel's own defaults decide: \
         build it, then check the modules image",
        layers.join(" and ")
    ));
    Ok(Checked {
        name: format!("Linux {} for {}", plan.version_text(), plan.flavor.spec().title),
        config: wanted,
        version: plan.version.unwrap_or(plan.requested.floor()),
        arch: plan.arch,
        stage: Stage::AsAskedFor,
        flavor: Some(plan.flavor),
        notes,
    })
}

fn json(checked: &Checked, outcomes: &[Outcome]) -> serde_json::Value {
    serde_json::json!({
        "subject": checked.name,
        "kernel": checked.version,
        "arch": checked.arch,
        "stage": checked.stage,
        "ok": !outcomes.iter().any(Outcome::is_fatal),
        "notes": checked.notes,
        "profiles": requirements::tallies(outcomes),
        "outcomes": outcomes,
    })
}

fn text(checked: &Checked, outcomes: &[Outcome], all: bool) -> String {
    let mut text = format!("{}: Linux {} on {}\n", printable(&checked.name), checked.version, checked.arch);
    for tally in requirements::tallies(outcomes) {
        let of_profile = outcomes.iter().filter(|outcome| outcome.profile == tally.profile);
        let of_profile: Vec<&Outcome> = of_profile.collect();
        let heading = wrapped(&format!("{}: {}", tally.profile, counts(&tally)), 78).join("\n  ");
        writeln!(text, "\n{heading}").expect("writing to a string");
        text.push_str(&table(&of_profile, all));
    }
    text
}

fn counts(tally: &Tally) -> String {
    let mut parts = vec![
        format!("{} required and {} recommended not met", tally.failed, tally.advised),
        format!("{} met", tally.passed),
    ];
    parts.extend((tally.open > 0).then(|| format!("{} left open", tally.open)));
    parts.extend((tally.not_applicable > 0).then(|| format!("{} for other kernels", tally.not_applicable)));
    parts.join(", ")
}

/// What is not met, the worst first; with `all` the rest after it. The lines of one reason follow each
/// other, and the reason stands once below them.
fn table(outcomes: &[&Outcome], all: bool) -> String {
    let rank = |outcome: &Outcome| match (outcome.verdict, outcome.level) {
        (Verdict::Failed, Level::Required | Level::Forbidden) => 0,
        (Verdict::Failed, Level::Recommended) => 1,
        (Verdict::Open, _) => 2,
        (Verdict::Passed, _) => 3,
        (Verdict::NotApplicable, _) => 4,
    };
    let mut shown: Vec<&Outcome> = outcomes.iter().filter(|one| all || rank(one) < 2).copied().collect();
    shown.sort_by_key(|outcome| rank(outcome));
    let mut text = String::new();
    let mut source = "";
    for (index, outcome) in shown.iter().enumerate() {
        let cells = ["", label(outcome), &outcome.symbols_text(), &tame(&outcome.found), &outcome.wanted];
        text.push_str(&row(cells, WIDTHS));
        let same = |next: &&Outcome| {
            (rank(next), &next.reason, &next.source) == (rank(outcome), &outcome.reason, &outcome.source)
        };
        if !shown.get(index + 1).is_some_and(same) {
            let indent = " ".repeat(WIDTHS[1] + 5);
            // Many lines come from one place: said once, until another one comes.
            let from =
                if source == outcome.source { String::new() } else { format!(" ({})", outcome.source) };
            source = &outcome.source;
            for line in wrapped(&format!("{}{from}", outcome.reason), 80 - indent.len()) {
                writeln!(text, "{indent}{line}").expect("writing to a string");
            }
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("{}{text}", row(["", "", "OPTION", "FOUND", "WANTED"], WIDTHS)),
    }
}

fn label(outcome: &Outcome) -> &'static str {
    match (outcome.verdict, outcome.level) {
        (Verdict::Failed, Level::Required) => "REQUIRED",
        (Verdict::Failed, Level::Forbidden) => "FORBIDDEN",
        (Verdict::Failed, Level::Recommended) => "recommended",
        (Verdict::Open, _) => "open",
        (Verdict::Passed, _) => "met",
        (Verdict::NotApplicable, _) => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(symbols: &[&str], level: Level, verdict: Verdict, reason: &str) -> Outcome {
        Outcome {
            profile: "p".into(),
            symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
            wanted: "y or m".into(),
            found: "none is on".into(),
            level,
            reason: reason.into(),
            source: "somebody".into(),
            verdict,
        }
    }

    #[test]
    fn a_table_fits_a_terminal_and_has_the_worst_first() {
        let wide =
            ["IP_NF_TARGET_REJECT", "MITIGATION_PAGE_TABLE_ISOLATION", "NETFILTER_XT_TARGET_REJECT", "X"];
        let all = [
            outcome(&["A"], Level::Recommended, Verdict::Failed, "one reason"),
            outcome(&["B"], Level::Recommended, Verdict::Failed, "one reason"),
            outcome(&wide, Level::Required, Verdict::Failed, &"words ".repeat(40)),
            outcome(&["MET"], Level::Required, Verdict::Passed, "r"),
        ];
        let outcomes: Vec<&Outcome> = all.iter().collect();
        let shown = table(&outcomes, false);
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert_eq!(shown.matches("one reason").count(), 1, "{shown}");
        assert!(shown.find("REQUIRED") < shown.find("recommended") && !shown.contains("MET"), "{shown}");
        assert!(table(&outcomes, true).contains("met          MET"));
        let hostile = Outcome { found: "\"\u{1b}[2J\u{202e}\"".into(), ..all[3].clone() };
        assert!(table(&[&hostile], true).contains("\"?[2J?\""));
        assert_eq!(table(&outcomes[3..], false), "");
    }
}
