//! `kcompile plan`: shows the inputs of a build.

use crate::catalog::patches::PatchFile;
use crate::cli::args::{BuildArgs, PlanArgs};
use crate::cli::output::{Fields, print, render_items};
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, requests};
use crate::host::Host;
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::check_symbols::{self, SymbolCheck};
use crate::ops::context::Context;
use crate::plan::request::{ModulesLayout, Request};
use crate::plan::{ConfigLayer, Contents, ImagePlan, Plan, SourceLocation, with_compiler_names};
use crate::report::Reporter;
use crate::util::error::Result;
use crate::util::text::{pluralize, redact_secrets};
use std::process::ExitCode;

pub const EXAMPLES: &str = "\
Examples:
  kcompile plan 6.1 --fc                     every input of a build
  kcompile plan 6.1 --fc --set KSM=n         the same with another setting
  kcompile plan 5.10 6.1 --fc --json         two plans, for a script

The digest of the plan names the build. It is final once the source is known. Other options of `kcompile \
build` are accepted and have no effect.

Exit codes: 0 ok, 2 usage or plan error, 4 host lacks a compiler.";

pub fn plan(args: &BuildArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let options = &args.options;
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(options, &files, host, reporter)?;
    let ctx = context(options, &files, host, reporter)?;
    print_plans(&requests(&args.versions.versions, options, &ctx)?, &args.plan, &ctx)
}

/// Prints the plan of each request, as text or JSON.
pub fn print_plans(requests: &[Request], args: &PlanArgs, ctx: &Context<'_>) -> Result<ExitCode> {
    let ctx = &Context { absent_symbols: AbsentSymbols::of_run(requests.len()), ..ctx.clone() };
    let plan_one = |request| crate::ops::fetch::plan(request, ctx);
    let plans = requests.iter().map(plan_one).collect::<Result<Vec<_>>>()?;
    let checked =
        plans.iter().map(|plan| check_symbols::check_plan(plan, ctx)).collect::<Result<Vec<_>>>()?;
    if args.json {
        let json: Vec<serde_json::Value> = plans.iter().map(plan_json).collect();
        print(&render_items(&json))?;
    } else {
        let texts: Vec<String> =
            plans.iter().zip(checked).map(|(plan, checked)| plan_text(plan, checked)).collect();
        print(&texts.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats a plan as JSON, with its digest and notices beside it.
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
        "notices": plan.notices.iter().chain(&plan.warnings).collect::<Vec<_>>(),
    })
}

fn plan_text(plan: &Plan, checked: SymbolCheck) -> String {
    let mut fields = Fields::unbroken(13);
    let version = plan
        .version
        .map_or_else(|| format!("{} (newest release)", plan.requested), |version| version.to_string());
    fields.add("kernel", &format!("Linux {version} for {} on {}", plan.flavor.spec().title, plan.arch));
    fields.add("source", &plan.source.name);
    if let SourceLocation::KernelOrg { mirrors, .. } = &plan.source.location {
        fields.add("", &redact_secrets(&format!("from {}", mirrors.join(", "))));
    }
    let digest = plan.source.digest.as_ref().map(ToString::to_string);
    fields.add("", digest.as_deref().unwrap_or("digest unknown until it is fetched"));
    fields.add_all("config", plan.config.iter().map(|layer| config_layer(layer, checked)));
    let files = plan.config_files.iter();
    fields.add_all(
        "",
        files.map(|(symbol, sha256)| format!("files of CONFIG_{symbol} (sha256:{})", sha256.short())),
    );
    let patch = |patch: &PatchFile| format!("{} (sha256:{})", patch.name, patch.sha256.short());
    fields.add_all("patches", plan.patches.iter().map(patch));
    if plan.patches.is_empty() {
        fields.add("patches", "none");
    }
    fields.add_all("toolchain", plan.toolchain.tools().iter().map(|tool| with_compiler_names(tool)));
    fields.add_all("rules", plan.open_rules.iter().map(|rule| format!("if the source needs it: {rule}")));
    fields.add("make", &plan.make.targets.join(" "));
    fields.add_all("", plan.make.variables.iter().map(|(key, value)| format!("{key}={value}")));
    let date = |epoch: u64| format!("{epoch} ({})", crate::util::time::rfc3339(epoch));
    fields.add("date", &plan.source_date_epoch.map_or_else(|| "that of the source".into(), date));
    fields.add_all("images", plan.images.iter().map(image));
    plan.notices.iter().chain(&plan.warnings).for_each(|notice| fields.add("note", notice));
    fields.add("digest", &plan.digest().oci());
    fields.text()
}

fn config_layer(layer: &ConfigLayer, checked: SymbolCheck) -> String {
    let settings = pluralize(layer.config.symbols.len(), "setting", "settings");
    let is_unchecked = layer.is_set_option() && checked == SymbolCheck::NotChecked;
    let checked = if is_unchecked { ", not checked" } else { "" };
    format!("{} ({settings}, sha256:{}{checked})", layer.name, layer.sha256.short())
}

fn image(image: &ImagePlan) -> String {
    let what = match &image.contents {
        Contents::Kernel { path, kernel_link: None } => path.clone(),
        Contents::Kernel { path, kernel_link: Some(second) } => format!("{path}, {second}"),
        Contents::Modules { layout: ModulesLayout::Tree } => "lib/modules/<release>".into(),
        Contents::Modules { layout: ModulesLayout::Flat } => "modules at the root".into(),
        Contents::Combined { file_name } => format!("bin/{file_name}, boot/{file_name}, lib/modules"),
    };
    format!("{}:{}  {what}", image.layout, image.tag.as_deref().unwrap_or("<version>"))
}
