//! Runs the kernel's make with the user's own targets, in the build directory of a kernel.

use crate::cache::Cache;
use crate::kbuild::{self, BuildDir, BuildMode, MakeOptions};
use crate::ops::build::make_options;
use crate::ops::context::Context;
use crate::ops::{check_config, doctor, fetch};
use crate::plan::Plan;
use crate::plan::request::Request;
use crate::source;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::{Utf8Path, Utf8PathBuf};

/// The variable with the directory of a module outside the tree.
const MODULE_DIR: &str = "M=";

/// Fetches and configures the kernel of `request`, and runs `make WORDS` in its build directory. Words are
/// targets and variables. With `M=DIR`, make may write to DIR too. Returns the build directory.
///
/// # Errors
///
/// As for the same steps of a build. Exit code 2 if a word is an option of make, or sets a variable that the
/// plan sets. Exit code 1 if make fails.
pub fn make(request: &Request, words: &[String], ctx: &Context<'_>) -> Result<Utf8PathBuf> {
    let Context { host, reporter, .. } = ctx;
    let inputs = ctx.inputs(request)?;
    let first = fetch::first_plan(request, &inputs)?;
    let (words, module_dir) = check_words(words, &first, &host.cwd)?;
    doctor::examine(&first, host)?.require()?;
    let cache = Cache::open(&ctx.cache_dir, host.uid)?;
    let (plan, tree) = fetch::fetch_planned(request, &inputs, &first, &cache, ctx)?;
    let _locked = cache.lock(&kbuild::lock_name(&plan, &tree, BuildMode::Incremental), reporter)?;
    tree.require()?;
    let private_dir = cache.scratch()?;
    let options = MakeOptions { module_dir, ..make_options(request, ctx) };
    let build_dir = BuildDir::open(&plan, &tree, BuildMode::Incremental, host, options, reporter)?
        .sandboxed(ctx.sandbox, &private_dir.path, reporter)?;
    let configured = check_config::explain_differences(build_dir.configure(reporter)?, &plan, &tree, ctx)?;
    check_config::check_overrides(&configured, &plan, reporter)?;
    build_dir.run_targets(&words)?;
    source::check_unmodified(&tree)?;
    Ok(build_dir.path)
}

/// Checks the words, and returns them with an absolute path in `M=`, and that path.
fn check_words(words: &[String], plan: &Plan, cwd: &Utf8Path) -> Result<(Vec<String>, Option<Utf8PathBuf>)> {
    let mut module_dir = None;
    let mut checked = Vec::new();
    for word in words {
        if word.starts_with('-') {
            return Err(Error::usage(format!("{word}: options of make are not passed on"))
                .hint("give targets and variables, such as V=1; -j is an option of kcompile"));
        }
        if let Some(dir) = word.strip_prefix(MODULE_DIR) {
            let dir = cwd.join(dir);
            let dir = dir.canonicalize_utf8().context(Kind::Usage, || format!("{word}: cannot use {dir}"))?;
            checked.push(format!("{MODULE_DIR}{dir}"));
            module_dir = Some(dir);
            continue;
        }
        let name = word.split_once('=').map(|(name, _)| name.trim_end_matches([':', '+', '?', '!']));
        if let Some(name) = name.filter(|name| *name == "O" || plan.make.variables.contains_key(*name)) {
            return Err(Error::usage(format!("{word}: the plan sets {name}"))
                .hint("`kcompile plan` shows the variables; options such as --cc and --arch change them"));
        }
        checked.push(word.clone());
    }
    Ok((checked, module_dir))
}
