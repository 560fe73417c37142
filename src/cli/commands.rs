//! What each subcommand does, and what it prints on standard output.

use super::args::{BuildArgs, CleanArgs, DoctorArgs, FetchArgs};
use super::typed::{build_args, cache_dir, library, requests, run};
use crate::boot;
use crate::cache::Cache;
use crate::catalog::kernels::Status;
use crate::host::Host;
use crate::image::pack::{self, PackedImage};
use crate::kernel::Flavor;
use crate::oci::Written;
use crate::ops::clean::{self, Choice};
use crate::ops::context::Run;
use crate::ops::{build_many, doctor};
use crate::plan as planning;
use crate::plan::request::Request;
use crate::plan::{Contents, Locator, Plan};
use crate::report::Report;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::text::{counted, is_plain, size};
use camino::Utf8Path;
use clap::ArgMatches;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

pub(super) fn build(
    args: &BuildArgs,
    matches: &ArgMatches,
    host: &Host,
    report: &Report,
) -> Result<ExitCode> {
    let (library, catalog) = library(args.configs.as_deref(), host)?;
    let run = run(args, host, &library, &catalog, report)?;
    say_what_was_ignored(host, report);
    take_bundle(args, &run)?;
    let requests = requests(args, matches, &run)?;
    pack::check_joined(&requests, &run.output)?;
    let print_all = |built: &[PackedImage]| {
        let mut lines = built
            .iter()
            .map(|image| line(&image.written.layout, &image.written.tag, image.written.digest, host));
        report.aside(|| lines.try_for_each(|line| print(&line)))
    };
    if args.boot {
        let options = boot::Options::default();
        requests.iter().try_for_each(|request| boot::require_host(request.arch, &options, host))?;
    }
    let (built, code) = match &requests[..] {
        [one] => {
            let built = crate::ops::build::build(one, &run)?;
            print_all(&built)?;
            (vec![built], ExitCode::SUCCESS)
        }
        several => {
            let results = build_many::build_all(several, &run, print_all)?;
            let code = build_many::first_error(&results).map(Error::exit_code);
            let built = results.into_iter().flatten().collect();
            (built, code.map_or(ExitCode::SUCCESS, ExitCode::from))
        }
    };
    let images: Vec<Written> = built.iter().flatten().map(|image| image.written.clone()).collect();
    for joined in pack::join(&images, &run.output, report)? {
        print(&line(&joined.layout, &joined.tag, joined.digest, host))?;
    }
    match args.boot {
        true => boot_all(&built, code, &run),
        false => Ok(code),
    }
}

/// Boots the kernels of some builds, one after the other. One that does not pass does not keep the others
/// from being booted; `code` is what the builds have ended with.
fn boot_all(builds: &[Vec<PackedImage>], code: ExitCode, run: &Run<'_>) -> Result<ExitCode> {
    let mut first_error = None;
    for built in builds {
        let outcome = crate::ops::build::boot_built(built, &boot::Options::default(), run)?;
        let Err(error) = outcome.require() else { continue };
        if builds.len() == 1 {
            return Err(error);
        }
        run.report.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(code, ExitCode::from))
}

/// What a script takes from standard output: `PATH:TAG DIGEST`.
pub(super) fn line(layout: &Utf8Path, tag: &str, digest: Sha256, host: &Host) -> String {
    format!("{}:{tag} {}\n", crate::ops::context::shown(layout, host), digest.oci())
}

pub(super) fn fetch(
    args: &FetchArgs,
    matches: &ArgMatches,
    host: &Host,
    report: &Report,
) -> Result<ExitCode> {
    let FetchArgs { build: args, bundle } = args;
    let (library, catalog) = library(args.configs.as_deref(), host)?;
    let run = Run { archive_wanted: bundle.is_some(), ..run(args, host, &library, &catalog, report)? };
    take_bundle(args, &run)?;
    let mut sources = Vec::new();
    let code = for_each_kernel(&requests(args, matches, &run)?, report, |request| {
        let request = Request { configures: false, ..request.clone() };
        let (plan, tree) = crate::ops::fetch::fetch(&request, &run)?;
        print(&format!("{} {} {}\n", tree.path, plan.version_text(), tree.identity.digest))?;
        sources.push((plan.source.locator.clone(), tree.identity));
        Ok(())
    })?;
    if let Some(path) = bundle.as_deref().filter(|_| code == ExitCode::SUCCESS) {
        crate::ops::fetch::write_bundle(&host.absolute(path), &sources, &run)?;
    }
    Ok(code)
}

/// Brings what `--from-bundle` names into the cache.
pub(super) fn take_bundle(args: &BuildArgs, run: &Run<'_>) -> Result<()> {
    match &args.from_bundle {
        Some(path) => crate::ops::fetch::take_bundle(&run.host.absolute(path), run),
        None => Ok(()),
    }
}

/// Where nothing `configures`, a version without a config has a plan, too.
pub(super) fn plan(
    args: &BuildArgs,
    configures: bool,
    matches: &ArgMatches,
    host: &Host,
    report: &Report,
) -> Result<ExitCode> {
    let (library, catalog) = library(args.configs.as_deref(), host)?;
    let run = run(args, host, &library, &catalog, report)?;
    let requests = requests(args, matches, &run)?;
    let plan_one = |request| crate::ops::fetch::plan(&Request { configures, ..request }, &run);
    let plans = requests.into_iter().map(plan_one).collect::<Result<Vec<_>>>()?;
    if args.json {
        let json: Vec<serde_json::Value> = plans.iter().map(plan_json).collect();
        let json = if let [one] = &json[..] { one.clone() } else { json.into() };
        print(&printed_json(&json))?;
    } else {
        let texts: Vec<String> = plans.iter().map(plan_text).collect();
        print(&texts.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn doctor(
    args: &DoctorArgs,
    matches: &ArgMatches,
    host: &Host,
    report: &Report,
) -> Result<ExitCode> {
    let (library, catalog) = library(None, host)?;
    // Any kernel of the catalog needs what the first one needs; options come from a build's defaults.
    let versions = match &args.versions[..] {
        [] => vec![
            catalog
                .kernels
                .iter()
                .find(|entry| entry.status == Status::Supported)
                .expect("the catalog is not empty")
                .version
                .clone(),
        ],
        versions => versions.to_vec(),
    };
    let mut words = versions;
    words.extend(args.arch.iter().map(|arch| format!("--arch={arch}")));
    words.extend(args.llvm.then(|| "--llvm".to_owned()));
    let mut build = build_args(words)?;
    // What a host needs does not depend on the flavor: take one where the version leaves it open.
    let flavor = |version: &String| {
        let known = version.parse().ok().and_then(|version| planning::flavor_of(version, &catalog).ok());
        known.unwrap_or(Flavor::Firecracker)
    };
    build.hypervisor = build.versions.first().map(flavor).into();
    let run = run(&build, host, &library, &catalog, report)?;
    let mut code = ExitCode::SUCCESS;
    for request in requests(&build, matches, &run)? {
        let plan = crate::ops::fetch::plan(&Request { configures: false, ..request }, &run)?;
        let diagnosis = doctor::examine(&plan, host);
        let text = match args.json {
            true => printed_json(&diagnosis),
            false => diagnosis.to_string(),
        };
        print(&text)?;
        if !diagnosis.missing().is_empty() {
            match args.install {
                true => {
                    diagnosis.install(host, report)?;
                    doctor::examine(&plan, host).require()?;
                }
                false => code = ExitCode::from(4),
            }
        }
    }
    Ok(code)
}

pub(super) fn clean(args: &CleanArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    let everything = !args.cache && !args.builds;
    let choice = Choice {
        sources: args.cache || everything,
        builds: args.builds || everything,
        older_than: args.older_than,
    };
    // To free space in a cache that is not there is no reason to make one.
    let found = match dir.is_dir() {
        true => Some(Cache::open(&dir, host.uid)?),
        false => None,
    };
    let mut removed = Vec::new();
    if let Some(cache) = &found {
        for item in clean::find(cache, choice)? {
            crate::host::process::check()?;
            if args.dry_run || clean::remove(cache, &item)? {
                removed.push(item);
            } else {
                report.note(&format!("{} is in use and stays", item.path));
            }
        }
    }
    let bytes: u64 = removed.iter().map(|item| item.bytes).sum();
    if args.json {
        print(&printed_json(&serde_json::json!({ "bytes": bytes, "removed": removed })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for item in &removed {
        let path = item.path.strip_prefix(&dir).unwrap_or(&item.path);
        writeln!(text, "{:>9}  {:16} {path}", size(item.bytes), item.what).expect("writing to a string");
    }
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    writeln!(text, "{:>9}  {verb} in {dir}", size(bytes)).expect("writing to a string");
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "kcompile", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(command: Option<&str>) -> Result<ExitCode> {
    let mut whole = super::command();
    // Building gives the subcommands their full names: `kcompile plan`.
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| Error::usage(format!("there is no command `{name}`")))?;
            let name = format!("kcompile-{}", found.get_name());
            found.name(name)
        }
    };
    let mut text = Vec::new();
    let written = clap_mangen::Man::new(page).render(&mut text);
    written.context(Kind::Build, || "cannot write the man page".into())?;
    print(&String::from_utf8_lossy(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints results. A reader that has seen enough is no fault.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context(Kind::Build, || "cannot write to standard output".into())
        }
        _ => Ok(()),
    }
}

/// A value as lines of JSON that may go to a terminal. Of the characters that one obeys, serde_json escapes
/// only those of ASCII; such characters stand in strings alone, where an escape means the same.
pub(super) fn printed_json(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("only string keys");
    let mut shown = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c == '\n' || is_plain(c) {
            true => shown.push(c),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(shown, "\\u{unit:04x}").expect("writing to a string");
                }
            }
        }
    }
    shown.push('\n');
    shown
}

/// An array of JSON, printed a value at a time. It is whole when it is closed: also after a failure.
#[derive(Default)]
pub(super) struct PrintedArray {
    count: usize,
}

impl PrintedArray {
    /// Prints the next value.
    pub(super) fn add(&mut self, value: &impl serde::Serialize) -> Result<()> {
        self.count += 1;
        let before = if self.count == 1 { "[" } else { "," };
        print(&format!("{before}\n{}", printed_json(value)))
    }

    /// Prints its end, if it has begun.
    pub(super) fn close(self) -> Result<()> {
        print(if self.count == 0 { "" } else { "]\n" })
    }
}

/// One failure does not keep the other kernels from being built; the first one decides the code.
fn for_each_kernel(
    requests: &[Request],
    report: &Report,
    mut job: impl FnMut(&Request) -> Result<()>,
) -> Result<ExitCode> {
    let mut first_error = None;
    for request in requests {
        report.next_kernel();
        let Err(error) = job(request) else { continue };
        if requests.len() == 1 || matches!(error.kind, Kind::Interrupted(_)) {
            return Err(error);
        }
        report.error(&error);
        first_error.get_or_insert(error.exit_code());
    }
    Ok(first_error.map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn say_what_was_ignored(host: &Host, report: &Report) {
    if !host.ignored.is_empty() {
        report.note(&format!(
            "ignored from the environment, since it would change the build unseen: {}",
            host.ignored.join(", ")
        ));
    }
}

/// The plan as it is digested, with the digest and the notices beside it.
fn plan_json(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "digest": plan.digest().oci(),
        "final": plan.source.digest.is_some()
            && plan.source_date_epoch.is_some()
            && plan.version.is_some()
            && plan.open_rules.is_empty(),
        "plan": plan,
        "source": plan.source.name,
        "config": plan.config.iter().map(|layer| &layer.name).collect::<Vec<_>>(),
        "notices": plan.notices,
    })
}

fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line =
        |name: &str, value: &str| writeln!(text, "{name:12} {value}").expect("writing to a string");
    let version =
        plan.version.map_or_else(|| format!("the newest {}", plan.requested), |version| version.to_string());
    line("kernel", &format!("Linux {version} for {} on {}", plan.flavor.title(), plan.arch));
    line("source", &plan.source.name);
    if let Locator::KernelOrg { mirrors, .. } = &plan.source.locator {
        line("", &format!("from {}", mirrors.join(", ")));
    }
    line("", plan.source.digest.as_deref().unwrap_or("digest not known before it is fetched"));
    for (index, layer) in plan.config.iter().enumerate() {
        let settings = counted(layer.config.symbols.len(), "setting", "settings");
        line(
            if index == 0 { "config" } else { "" },
            &format!("{} ({settings}, sha256:{})", layer.name, layer.sha256.short()),
        );
    }
    for (index, patch) in plan.patches.iter().enumerate() {
        line(
            if index == 0 { "patches" } else { "" },
            &format!("{} (sha256:{})", patch.name, patch.sha256.short()),
        );
    }
    if plan.patches.is_empty() {
        line("patches", "none");
    }
    for (index, (tool, identity)) in plan.toolchain.identity.iter().enumerate() {
        line(if index == 0 { "toolchain" } else { "" }, &format!("{tool}: {identity}"));
    }
    for (index, rule) in plan.open_rules.iter().enumerate() {
        line(if index == 0 { "rules" } else { "" }, &format!("if the source needs it: {rule}"));
    }
    line("make", &plan.make.targets.join(" "));
    for (key, value) in &plan.make.variables {
        line("", &format!("{key}={value}"));
    }
    line(
        "date",
        &plan.source_date_epoch.map_or_else(
            || "the source's own".into(),
            |epoch| format!("{epoch} ({})", crate::util::time::rfc3339(epoch)),
        ),
    );
    for (index, image) in plan.images.iter().enumerate() {
        let what = match &image.contents {
            Contents::Kernel { path, also_at: None } => path.clone(),
            Contents::Kernel { path, also_at: Some(second) } => format!("{path}, {second}"),
            Contents::Modules { layout: crate::plan::request::ModulesLayout::Tree } => {
                "lib/modules/<release>".into()
            }
            Contents::Modules { layout: crate::plan::request::ModulesLayout::Flat } => {
                "modules at its root".into()
            }
            Contents::Combined { file_name } => format!("bin/{file_name}, boot/{file_name}, lib/modules"),
        };
        let tag = image.tag.as_deref().unwrap_or("<version>");
        line(if index == 0 { "images" } else { "" }, &format!("{}:{tag}  {what}", image.layout));
    }
    for notice in &plan.notices {
        line("note", notice);
    }
    line("digest", &plan.digest().oci());
    text
}
