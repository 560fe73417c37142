//! `kcompile update`: updates the kernels of the user's catalog to the newest releases.

use crate::catalog::kernels::{Entry, end_of_life_warning};
use crate::catalog::project::FILE;
use crate::cli::args::{CompileArgs, FlavorArgs, ImageArgs, MakeArgs, Options, RequireArgs, TargetArgs};
use crate::cli::output::print;
use crate::cli::output_update::{self, Row};
use crate::cli::output_update_report::report;
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, import_bundle, one_request};
use crate::host::{Host, process};
use crate::kernel::{Variant, VariantChoice, VersionRequest};
use crate::ops::catalog_files::{CATALOG, user_catalog};
use crate::ops::context::Context;
use crate::ops::cve_records::DataSource;
use crate::ops::update::{self, CatalogKernel, Proof, RecordsChoice, ReportChoice};
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result};
use crate::util::fs::{check_writable, write_atomically};
use crate::util::text::parse_age;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code if there are newer releases.
const UPDATES_EXIST: u8 = 10;

const EXAMPLES: &str = "\
Examples:
  kcompile update                         ask for newer releases
  kcompile update 6.1.190 --write         pin the newest 6.1
  kcompile update --write --build --boot --report update.md

The kernels are the entries of configs/kernels.toml in your project (a directory with kcompile.toml) or in \
--configs DIR. An entry of one release moves to the newest release of its series, and its config moves with \
it. For a series, a branch or a package, kcompile.lock says which release you have.

Without --write, only lists of releases are fetched. With it, each kernel is fetched, verified, migrated and, \
on request, built and booted, and then its files are written. If a step fails, the kernel stays as it is.

Exit codes: 0 nothing to do or all written, 10 newer releases exist, 1 build or boot failed, 2 usage error, \
3 releases or sources cannot be fetched or verified, 4 host lacks something.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, mut_arg("flavor", |flavor| {
    flavor.help("Only kernels of this hypervisor")
}))]
pub struct UpdateArgs {
    /// Entries of the catalog [default: all]
    ///
    /// They are named by the version in the catalog.
    #[arg(value_name = "VERSION")]
    versions: Vec<VersionRequest>,
    #[command(flatten)]
    hypervisor: FlavorArgs,
    /// Fetch newer releases, and write them to the catalog
    #[arg(long, help_heading = "Update")]
    write: bool,
    /// Build the new kernels first
    ///
    /// The kernel before is built, too, for a comparison. If the new kernel cannot be built, its entry stays as it is.
    #[arg(long, requires = "write", help_heading = "Update")]
    build: bool,
    /// Boot the new kernels in QEMU first
    ///
    /// The kernel before is booted, too. If a check of `kcompile boot` fails, the entry stays as it is.
    #[arg(long, requires = "build", help_heading = "Update")]
    boot: bool,
    /// Write a report to FILE, as Markdown
    ///
    /// The report has versions, settings, CVEs, sizes and boot times, for a pull request.
    #[arg(long, value_name = "FILE", requires = "write", help_heading = "Output")]
    report: Option<Utf8PathBuf>,
    /// Output directory of --build [default: out]
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    output: Option<Utf8PathBuf>,
    /// Print JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Directory or repository of CVE records
    ///
    /// For the report: a directory, a git repository in one, or git+URL[#BRANCH]. The default is vulns.git of
    /// git.kernel.org.
    #[arg(long, value_name = "DIR|git+URL", help_heading = "Network and cache")]
    data: Option<DataSource>,
    /// Fetch older records again
    ///
    /// AGE is such as 12h or 7d. The default is 1d.
    #[arg(long, value_name = "AGE", value_parser = parse_age, default_value = "1d", help_heading = "Network and cache")]
    max_age: Duration,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    pub make: MakeArgs,
}

impl UpdateArgs {
    fn options(&self) -> Options {
        Options {
            require: self.require.clone(),
            compile: self.compile.clone(),
            images: ImageArgs { output: self.output.clone(), ..ImageArgs::default() },
            ..self.make.options()
        }
    }

    fn proof(&self) -> Proof {
        if self.boot {
            Proof::Boot
        } else if self.build {
            Proof::Build
        } else {
            Proof::Config
        }
    }

    fn report_choice(&self, host: &Host) -> ReportChoice {
        let source = match self.data.clone().unwrap_or_default() {
            DataSource::Directory(dir) => DataSource::Directory(host.absolute(&dir)),
            git @ DataSource::Git { .. } => git,
        };
        let records = RecordsChoice { source, max_age: self.max_age };
        ReportChoice { commits: self.report.is_some(), records: self.report.is_some().then_some(records) }
    }
}

pub fn update(args: &UpdateArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = args.options();
    let configs = options.make.catalog.configs.as_deref();
    let files = CatalogFiles::read(configs, host)?;
    files.library.project.user_dirs()?;
    let report_path = args.report.as_ref().map(|path| host.absolute(path));
    if let Some(path) = &report_path {
        check_writable("the directory of --report", path.parent().unwrap_or(Utf8Path::new("/")))?;
    }
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = context(&options, &files, host, reporter)?;
    let ctx = import_bundle(&options, ctx)?;
    let mut rows = Vec::new();
    for kernel in kernels(args, &options, &ctx)? {
        process::check()?;
        let found = update::find(&kernel, &ctx);
        rows.push(row(kernel, found, reporter)?);
    }
    if args.write {
        for row in &mut rows {
            // An earlier update has changed the files.
            let files = CatalogFiles::read(configs, host)?;
            let ctx = Context { library: &files.library, catalog: &files.catalog, ..ctx.clone() };
            write(row, args, &ctx)?;
        }
    }
    if let Some(path) = &report_path {
        write_atomically(path, report(&rows).as_bytes())?;
    }
    let text = if args.json { output_update::json(&rows) } else { output_update::text(&rows, &ctx) };
    print(&text)?;
    Ok(exit_code(&rows))
}

/// Returns the entries of the user's catalog that are asked for.
///
/// # Errors
///
/// Exit code 2: there are none.
fn kernels(args: &UpdateArgs, options: &Options, ctx: &Context<'_>) -> Result<Vec<CatalogKernel>> {
    let path = ctx.library.project.user_dirs()?.path_of(CATALOG);
    let entries = user_catalog(&path)?.1.kernels;
    let flavor = args.hypervisor.flavor();
    let is_wanted = |entry: &&Entry| {
        let is_named =
            |version: &VersionRequest| entry.version == version.in_catalog() || entry.request() == *version;
        flavor.is_none_or(|flavor| entry.flavor == flavor)
            && (args.versions.is_empty() || args.versions.iter().any(is_named))
    };
    let unknown = args.versions.iter().find(|version| {
        !entries.iter().any(|entry| entry.version == version.in_catalog() || entry.request() == **version)
    });
    let wanted: Vec<&Entry> = entries.iter().filter(is_wanted).collect();
    if wanted.is_empty() || unknown.is_some() {
        let name = unknown
            .map_or_else(|| "kernel".to_owned(), |version| format!("entry for {}", version.in_catalog()));
        return Err(Error::usage(format!("{path} has no {name}"))
            .hint("`kcompile add` adds a kernel to your catalog"));
    }
    let with_requests = |entry: &Entry| {
        let request = |arch| {
            let target = TargetArgs {
                hypervisor: Some(entry.flavor).into(),
                arch: vec![arch],
                variant: Some(VariantChoice::One(Variant::Node)),
                source: None,
            };
            one_request(&entry.request().in_catalog(), &Options { target, ..options.clone() }, ctx)
        };
        let requests = entry.arch.iter().copied().map(request).collect::<Result<Vec<_>>>()?;
        Ok(CatalogKernel { entry: entry.clone(), requests })
    };
    wanted.into_iter().map(with_requests).collect()
}

/// Returns the row of a kernel. One that cannot be asked for does not stop the others.
fn row(kernel: CatalogKernel, found: Result<update::Available>, reporter: &Reporter) -> Result<Row> {
    let (available, error) = match found {
        Ok(available) => (Some(available), None),
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
        Err(error) => {
            reporter.error(&error);
            (None, Some(error))
        }
    };
    let end = available.as_ref().and_then(|available| available.end_of_life.as_ref());
    if let Some(end) = end {
        let series = kernel.entry.request().floor().series();
        reporter.warning(end_of_life_warning(series, end.date.as_deref()));
    }
    Ok(Row { kernel, available, written: None, error })
}

/// Updates the kernel of a row, if there is a newer release.
fn write(row: &mut Row, args: &UpdateArgs, ctx: &Context<'_>) -> Result<()> {
    let Some(available) = row.available.as_ref().filter(|available| available.update) else { return Ok(()) };
    match update::update(&row.kernel, available, args.proof(), &args.report_choice(ctx.host), ctx) {
        Ok(written) => {
            warn_of_default(&row.kernel.entry, ctx);
            row.written = Some(written);
        }
        Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
        Err(error) => {
            ctx.reporter.error(&error);
            row.error = Some(error);
        }
    }
    Ok(())
}

/// Warns if `kcompile build` alone still builds the version before.
fn warn_of_default(entry: &Entry, ctx: &Context<'_>) {
    let is_exact = matches!(entry.request(), VersionRequest::Exact(_));
    if is_exact && ctx.library.project.defaults.version.contains(&entry.version) {
        ctx.reporter.warning(format!("`version` in {FILE} still names {}", entry.version));
    }
}

fn exit_code(rows: &[Row]) -> ExitCode {
    if let Some(error) = rows.iter().find_map(|row| row.error.as_ref()) {
        return ExitCode::from(error.exit_code());
    }
    let is_open =
        |row: &Row| row.written.is_none() && row.available.as_ref().is_some_and(|available| available.update);
    if rows.iter().any(is_open) { ExitCode::from(UPDATES_EXIST) } else { ExitCode::SUCCESS }
}
