//! `kcompile cve`: shows which CVEs affect what a build compiled.

use crate::boot::target::Overrides;
use crate::cache::Cache;
use crate::catalog::lockfile::LockFile;
use crate::cli::args::{FlavorArgs, ProgressArgs};
use crate::cli::output::{print, print_verbatim, render_json};
use crate::cli::output_cve::{self, View};
use crate::cli::resolve::{CatalogFiles, STALL_TIMEOUT, cache_dir};
use crate::cli::target::{Target, images_of_version, one_image};
use crate::cve::{Assessment, Join, Severity, VEX_MEDIA_TYPE, Verdict, vex_document};
use crate::host::Host;
use crate::image::pack::lock_output;
use crate::kernel::{Arch, Variant, VersionRequest};
use crate::oci::read::Reference;
use crate::oci::{self, Artifact};
use crate::ops::context::display_path;
use crate::ops::cve_records::{self, DataSource, Records};
use crate::ops::cve_target::CveTarget;
use crate::report::Reporter;
use crate::source::FetchContext;
use crate::util::error::{Error, Result};
use crate::util::fs::write_atomically;
use crate::util::openpgp::Keyring;
use crate::util::text::{parse_age, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kcompile cve 6.1 --fc                           the newest 6.1 in out/
  kcompile cve out/firecracker-kernel-bin-amd64:6.1.192 --fail-on high
  kcompile cve out/firecracker-6.1.192-amd64.json --vex kernel.openvex.json
  kcompile cve 6.1.193 --compiled out/firecracker-6.1.192-amd64.json
  kcompile cve 6.1 --fc --offline --data vulns

Verdicts for --show:
  affected        the version has the fault, and its code was compiled
  undetermined    the version has the fault, and its code may be compiled
  not-compiled    the version has the fault, but its code was not compiled
  fixed           the version has the fix
  not-introduced  the fault came with a later version
  all             all of these

Exit codes: 0 ok, 1 --fail-on found something, 2 no such image or version, 3 bad records or image.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, mut_arg("flavor", |flavor| {
    flavor.help("Hypervisor, if there are several")
}))]
pub struct CveArgs {
    /// An image, a receipt or a version
    ///
    /// An image is LAYOUT or LAYOUT:TAG. A version or series is looked for in the output directory. Without an
    /// image of it, the version alone decides.
    #[arg(value_name = "IMAGE|RECEIPT|VERSION")]
    pub target: String,
    /// Use the compiled files of another one
    ///
    /// For example those of the version before, to see what an update would fix.
    #[arg(long, value_name = "IMAGE|RECEIPT")]
    pub compiled: Option<String>,
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    /// Variant of a version: node or minimal
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<Variant>,
    #[arg(long, value_name = "ARCH", help = format!(
        "Architecture: {}", Arch::choices()
    ))]
    pub arch: Option<Arch>,
    /// Directory with the image of a version
    ///
    /// The default is out.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,

    /// Fail from this severity on
    ///
    /// Fail if a CVE of at least this severity affects the kernel or may affect it: none, low, medium, high or
    /// critical.
    #[arg(long, value_name = "SEVERITY", help_heading = "Checks")]
    pub fail_on: Option<Severity>,
    /// What --fail-on does without score
    #[arg(
        long,
        value_name = "ACTION",
        value_enum,
        default_value_t,
        requires = "fail_on",
        help_heading = "Checks"
    )]
    pub unscored: Action,
    /// What --fail-on does in doubt
    ///
    /// That is for CVEs that may affect the kernel.
    #[arg(
        long,
        value_name = "ACTION",
        value_enum,
        default_value_t,
        requires = "fail_on",
        help_heading = "Checks"
    )]
    pub undetermined: Action,

    /// Print the CVEs with this verdict; repeatable
    ///
    /// The verdicts are explained below. The default is affected.
    #[arg(
        long,
        value_name = "VERDICT",
        value_delimiter = ',',
        conflicts_with = "json",
        help_heading = "Output"
    )]
    pub show: Vec<Show>,
    /// Print JSON, with all records
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Print Markdown
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub markdown: bool,
    /// Write an OpenVEX document to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub vex: Option<Utf8PathBuf>,
    /// Attach an OpenVEX document to the images
    #[arg(long, help_heading = "Output")]
    pub attach: bool,

    /// Directory or repository of CVE records
    ///
    /// It is a directory, a git repository in one, or git+URL[#BRANCH]. The default is vulns.git of git.kernel.org.
    #[arg(long, value_name = "DIR|git+URL", help_heading = "Network and cache")]
    pub data: Option<DataSource>,
    /// Fetch records again that are older
    ///
    /// AGE is such as 12h or 7d. The default is 1d.
    #[arg(long, value_name = "AGE", value_parser = parse_age, default_value = "1d", help_heading = "Network and cache")]
    pub max_age: Duration,
    /// Use records of any age, without a network
    #[arg(long, help_heading = "Network and cache")]
    pub offline: bool,
    /// Cache directory
    ///
    /// The default is kcompile in $XDG_CACHE_HOME or ~/.cache. KCOMPILE_CACHE_DIR in the environment overrides it.
    #[arg(long, value_name = "DIR", help_heading = "Network and cache")]
    pub cache_dir: Option<Utf8PathBuf>,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// What to do with CVEs of which something is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Fail
    #[default]
    Fail,
    /// Ignore them
    Ignore,
}

/// The values of `--show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Show {
    Affected,
    Undetermined,
    NotCompiled,
    Fixed,
    NotIntroduced,
    All,
}

impl Show {
    fn includes(self, verdict: Verdict) -> bool {
        match self {
            Show::Affected => verdict == Verdict::Affected,
            Show::Undetermined => verdict == Verdict::Undetermined,
            Show::NotCompiled => verdict == Verdict::NotCompiled,
            Show::Fixed => verdict == Verdict::Fixed,
            Show::NotIntroduced => verdict == Verdict::NotIntroduced,
            Show::All => true,
        }
    }
}

pub fn cve(args: &CveArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let target = target(args, host)?;
    let records = records(args, host, reporter)?;
    let join = Join::new(target.subject());
    let assessment = join.assess(&records.index);
    if args.vex.is_some() || args.attach {
        write_vex(args, &target, &assessment, &records, host, reporter)?;
    }
    let view = View { name: &args.target, target: &target, records: &records, assessment: &assessment };
    if args.json {
        print(&render_json(&view.json()))?;
    } else {
        let shown = Verdict::ALL.into_iter().filter(|verdict| match &args.show[..] {
            [] => *verdict == Verdict::Affected,
            show => show.iter().any(|show| show.includes(*verdict)),
        });
        let shown: Vec<Verdict> = shown.collect();
        if args.markdown {
            print_verbatim(&output_cve::markdown(&view, &shown))?;
        } else {
            print(&output_cve::text(&view, &shown, host))?;
        }
    }
    check(args, &assessment)
}

/// Finds the kernel that the arguments name.
fn target(args: &CveArgs, host: &Host) -> Result<CveTarget> {
    let target = find(&args.target, args, host)?;
    let Some(compiled) = &args.compiled else { return Ok(target) };
    let other = find(compiled, args, host)?;
    if other.compiled.is_none() {
        return Err(Error::usage(format!("--compiled {compiled}: it has no list of compiled files"))
            .hint("images have one since kcompile attaches it; build the image again with --rebuild"));
    }
    Ok(target.with_files_of(other))
}

fn find(text: &str, args: &CveArgs, host: &Host) -> Result<CveTarget> {
    let arch = args.arch.or(host.arch);
    match Target::of(text, host)? {
        Target::File(path) => CveTarget::of_file(&path),
        Target::Layout(layout, tag) => {
            CveTarget::of_image(one_image(&Reference { layout, tag }, arch.map(Arch::name))?)
        }
        Target::Version => {
            let overrides = Overrides { flavor: args.hypervisor.flavor(), arch: args.arch };
            let version = text.parse().map_err(|why: String| Error::usage(why));
            match (images_of_version(text, args.variant, args.output.as_deref(), overrides, host), version?) {
                (Ok(found), _) => CveTarget::of_image(found.kernel),
                // Nobody has built this version here.
                (Err(_), VersionRequest::Exact(version)) if args.hypervisor.flavor().is_none() => {
                    Ok(CveTarget::of_version(version))
                }
                (Err(error), _) => Err(error),
            }
        }
    }
}

fn records(args: &CveArgs, host: &Host, reporter: &Reporter) -> Result<Records> {
    let files = CatalogFiles::read(None, host)?;
    let cache = Cache::open(&cache_dir(args.cache_dir.as_deref(), host)?, host.uid)?;
    let source = match args.data.clone().unwrap_or_default() {
        DataSource::Directory(dir) => DataSource::Directory(host.absolute(&dir)),
        source => source,
    };
    let ctx = FetchContext {
        cache: &cache,
        host,
        reporter,
        offline: args.offline,
        stall: STALL_TIMEOUT,
        jobs: host.cpus,
        catalog: &files.catalog,
        lock: &LockFile::default(),
        keyring: &Keyring::built_in(),
        require_signature: false,
        keep_archive: false,
        is_unverifiable: true,
        location: None,
    };
    cve_records::read(&source, args.max_age, &ctx)
}

/// Writes the OpenVEX document to `--vex` and attaches it to the images.
fn write_vex(
    args: &CveArgs,
    target: &CveTarget,
    assessment: &Assessment<'_>,
    records: &Records,
    host: &Host,
    reporter: &Reporter,
) -> Result<()> {
    if target.images.is_empty() {
        return Err(Error::usage(format!(
            "{}: an OpenVEX document is about images, and there is none",
            args.target
        ))
        .hint("give an image as LAYOUT[:TAG], or a receipt with its images beside it"));
    }
    let document =
        vex_document(assessment, target.version, &target.products(), &records.describe(), host.now);
    let bytes = serde_json::to_vec(&document).expect("only string keys");
    if let Some(path) = &args.vex {
        write_atomically(&host.absolute(path), &bytes)?;
        reporter.note(&format!("wrote {}", display_path(&host.absolute(path), host)));
    }
    if args.attach {
        for image in &target.images {
            if image.layout.is_file() {
                return Err(Error::usage(format!("--attach: {} is an archive", image.layout))
                    .hint("unpack it, and name the directory of the layout"));
            }
            let name = format!("{}-{}.openvex.json", layout_name(&image.layout), target.version);
            let artifact = Artifact { name, media_type: VEX_MEDIA_TYPE, bytes: bytes.clone() };
            let _locked = lock_output(image.layout.parent().unwrap_or("/".into()), reporter)?;
            let layout = oci::add_referrer(image, &artifact)?;
            reporter.note(&format!("attached the OpenVEX document in {}", display_path(&layout, host)));
        }
    }
    Ok(())
}

fn layout_name(layout: &Utf8Path) -> &str {
    layout.file_name().unwrap_or_default()
}

/// Fails if `--fail-on` finds something.
fn check(args: &CveArgs, assessment: &Assessment<'_>) -> Result<ExitCode> {
    let Some(limit) = args.fail_on else { return Ok(ExitCode::SUCCESS) };
    let is_severe = |severity: Option<Severity>| match severity {
        Some(severity) => severity >= limit,
        None => args.unscored == Action::Fail,
    };
    let count = |verdict| assessment.with(verdict).filter(|finding| is_severe(finding.severity())).count();
    let affected = count(Verdict::Affected);
    let undetermined = if args.undetermined == Action::Fail { count(Verdict::Undetermined) } else { 0 };
    if affected + undetermined == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let unscored = if args.unscored == Action::Fail { " or without a score" } else { "" };
    Err(Error::build(format!(
        "{} of severity {} or higher{unscored} {} the kernel, and {undetermined} may affect it",
        pluralize(affected, "CVE", "CVEs"),
        limit.name(),
        if affected == 1 { "affects" } else { "affect" },
    ))
    .hint("`--unscored ignore` and `--undetermined ignore` leave out what is not known"))
}
