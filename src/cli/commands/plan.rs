//! `kcompile plan`.

use crate::cli::args::BuildArgs;
use crate::cli::output::{print, printed_json};
use crate::cli::resolve::{library, requests, run};
use crate::host::Host;
use crate::plan::request::Request;
use crate::plan::{Contents, Locator, Plan};
use crate::report::Report;
use crate::util::error::Result;
use crate::util::text::counted;
use clap::ArgMatches;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Where nothing `configures`, a version without a config has a plan, too.
pub fn plan(
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
