//! Rebuilds a kernel from its receipt in an empty build directory, to compare the images.

use crate::cache::{Cache, ScratchDir};
use crate::image::pack::PackedImage;
use crate::image::receipt::{self, ReceiptFile};
use crate::kbuild::BuildMode;
use crate::kernel::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::plan::{Plan, annotations};
use crate::util::error::{Error, Result};
use serde_json::Value;
use std::fmt::Write as _;

/// Keys of a plan that determine the output and are known before the source is fetched.
const EARLY_PLAN_KEYS: [&str; 12] = [
    "kcompile",
    "layer_format",
    "requested",
    "version",
    "flavor",
    "arch",
    "config",
    "config_files",
    "patches",
    "toolchain",
    "modules",
    "variant",
];
/// The most differences of two plans that a message lists.
const MAX_DIFFERENCES: usize = 8;

/// The images of a rebuild. They are removed when this is dropped.
pub struct Rebuilt {
    /// In the order of the plan.
    pub images: Vec<PackedImage>,
    /// Differences between the plan and that in the receipt, with both values.
    pub plan_differences: Vec<String>,
    _scratch: ScratchDir,
}

/// Selects the request of the receipt, since its command may build several kernels.
///
/// # Errors
///
/// No request matches (exit code 1).
pub fn select_request<'a>(receipt: &ReceiptFile, requests: &'a [Request]) -> Result<&'a Request> {
    let text = |key: &str| receipt.plan[key].as_str().unwrap_or_default();
    let flavor: Option<Flavor> = text("flavor").parse().ok();
    let arch: Option<Arch> = text("arch").parse().ok();
    let version: Option<KernelVersion> = text("version").parse().ok();
    let variant = annotations::variant(receipt.plan["variant"].as_str());
    let admits = |request: VersionRequest| version.is_some_and(|version| request.admits(version));
    let mut fitting = requests
        .iter()
        .filter(|one| (Some(one.flavor), Some(one.arch)) == (flavor, arch) && admits(one.version))
        .filter(|one| one.variant == variant);
    fitting.next().ok_or_else(|| {
        Error::build(format!("the command of the receipt no longer builds Linux {}", text("version")))
            .hint(format!("the command is: {}", receipt.command))
    })
}

/// Builds `request` in an empty build directory. Only fetching changes the cache, and the output
/// directory of `ctx` is not used.
///
/// # Errors
///
/// The plan differs from the receipt's, for example in the compiler, or the build fails (exit code 1).
pub fn rebuild(receipt: &ReceiptFile, request: &Request, ctx: &Context<'_>) -> Result<Rebuilt> {
    // The date may come from the environment, which is not in the command line.
    let epoch = receipt.plan["source_date_epoch"].as_u64();
    let request = Request { source_date_epoch: epoch.or(request.source_date_epoch), ..request.clone() };
    let first = crate::ops::fetch::plan(&request, ctx)?;
    let current = plan_json(&first);
    let mut differences = Vec::new();
    let recorded = receipt::redaction::strip_plan_tool_paths(&receipt.plan);
    for key in EARLY_PLAN_KEYS {
        compare(key, &recorded[key], &current[key], &mut differences);
    }
    if !differences.is_empty() {
        return Err(Error::build(format!(
            "cannot rebuild the images here: {}",
            join_differences(&differences)
        ))
        .hint("use the same version of kcompile, config, patches and tools"));
    }
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let scratch = cache.scratch()?;
    let output = scratch.path.join("out");
    let fresh = Context {
        output: output.clone(),
        rebuild: true,
        build_mode: BuildMode::Clean,
        timings: Vec::new(),
        update_lock: false,
        // The run that made the images may have had other kernels.
        absent_symbols: AbsentSymbols::of_run(usize::MAX),
        ..ctx.clone()
    };
    let images = crate::ops::build::build(&request, &fresh)?;
    let mut plan_differences = Vec::new();
    let version = receipt.plan["version"].as_str().unwrap_or_default();
    let tag = request.tag_suffix().add_to(version);
    let path = output.join(receipt::file_name(request.flavor, &tag, request.arch));
    if let Some(again) = ReceiptFile::read(&path)? {
        compare("plan", &recorded, &again.plan, &mut plan_differences);
        plan_differences =
            vec![join_differences(&plan_differences)].into_iter().filter(|text| !text.is_empty()).collect();
    }
    Ok(Rebuilt { images, plan_differences, _scratch: scratch })
}

fn plan_json(plan: &Plan) -> Value {
    receipt::redaction::strip_plan_tool_paths(&serde_json::to_value(plan).expect("only string keys"))
}

fn join_differences(differences: &[String]) -> String {
    let mut text = differences.iter().take(MAX_DIFFERENCES).cloned().collect::<Vec<_>>().join("; ");
    if differences.len() > MAX_DIFFERENCES {
        write!(text, "; and {} more", differences.len() - MAX_DIFFERENCES).expect("writing to a string");
    }
    text
}

/// Lists the leaves that differ between two JSON values. Those that are null in `current` are unknown and skipped.
fn compare(path: &str, recorded: &Value, current: &Value, differences: &mut Vec<String>) {
    match (recorded, current) {
        (_, Value::Null) => {}
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in other {
                compare(&format!("{path}.{key}"), one.get(key).unwrap_or(&Value::Null), value, differences);
            }
            for key in one.keys().filter(|key| !other.contains_key(*key)) {
                differences.push(format!("{path}.{key} was removed"));
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (recorded, current)) in one.iter().zip(other).enumerate() {
                compare(&format!("{path}[{index}]"), recorded, current, differences);
            }
        }
        (recorded, current) if recorded == current => {}
        (recorded, current) => differences.push(format!("{path} was {recorded} and is now {current}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_plans_are_compared_leaf_by_leaf() {
        let recorded = json!({"a": {"cc": "gcc 11", "ld": "2.40"}, "b": [1, 2], "c": "x", "d": 1});
        let current = json!({"a": {"cc": "gcc 12", "ld": "2.40"}, "b": [1, 3], "c": null, "e": 2});
        let mut differences = Vec::new();
        compare("plan", &recorded, &current, &mut differences);
        assert_eq!(
            differences,
            [
                "plan.a.cc was \"gcc 11\" and is now \"gcc 12\"",
                "plan.b[1] was 2 and is now 3",
                "plan.e was null and is now 2",
                "plan.d was removed"
            ]
        );
        assert_eq!(join_differences(&vec!["x".to_owned(); 10]).matches('x').count(), 8);
    }
}
