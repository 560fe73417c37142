//! Final configs without a kernel: a version's, as its own `olddefconfig` makes it; and the configs that people
//! keep, edited by the kernel's menus or taken from a whole `.config`, written back in their minimal form.

use crate::cache::Cache;
use crate::catalog::text::{read_text, read_text_if_there};
use crate::host::packages;
use crate::kbuild::{self, BuildDir, Configured};
use crate::kconfig::explain::Renames;
use crate::kconfig::{self, Comparison, Config, Edited, requirements, rewrite};
use crate::ops::context::Run;
use crate::ops::{check_config, doctor, fetch};
use crate::plan::request::Request;
use crate::plan::{Base, Inputs, Plan, config_name};
use crate::source::Tree;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::read::{Links, MAX_CONFIG};
use camino::Utf8PathBuf;
use std::collections::BTreeSet;

/// How often settings are added that a minimal form turned out to need. Each round costs an `olddefconfig`.
const ROUNDS: usize = 4;

/// Which settings of a final config are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of them.
    Whole,
    /// Those that are no defaults.
    Minimal,
}

/// A config that people keep, as it is to be.
#[derive(Debug)]
pub struct Rewritten {
    /// Where it lies or will lie.
    pub path: Utf8PathBuf,
    /// Its text.
    pub text: String,
    /// What the final `.config` has otherwise than before.
    pub comparison: Comparison,
    /// What lay at `path`.
    on_disk: Option<String>,
}

/// The text that is edited.
struct Kept {
    path: Utf8PathBuf,
    before: String,
    on_disk: Option<String>,
}

/// The final `.config` of `request`, its text in the `form` that is wanted, and its plan: the source is fetched,
/// and its own `olddefconfig` completes the settings.
///
/// Errors: as for a build that comes so far; a setting of `--set` or `--fragment` that does not take.
pub fn final_config(request: &Request, form: Form, run: &Run<'_>) -> Result<(Plan, String)> {
    configured(request, run, |dir, plan, configured| {
        check_config::judge(&configured, plan, run.report)?;
        let text = match form {
            Form::Whole => dir.config_text(),
            Form::Minimal => dir.minimal(),
        };
        Ok((plan.clone(), text?))
    })
}

/// Shows the kernel's menus for the config of `request`, and returns it as the user left it; `None`: as it was.
///
/// Errors (exit code 2): there is nowhere to write it to.
pub fn edit(request: &Request, run: &Run<'_>) -> Result<Option<Rewritten>> {
    check_target(request, run)?;
    packages::examine_menus(run.host).require()?;
    configured(request, run, |dir, plan, configured| {
        check_config::judge(&configured, plan, run.report)?;
        let kept = kept(request, plan, run)?;
        run.report.clear();
        dir.menuconfig()?;
        written_back(dir, plan, kept, &configured.config, request, run)
    })
}

/// The config of `request` with the settings of `file`, a whole `.config` or any part of one; `None`: it has them.
///
/// Errors: as for [`edit`]; `file` is no config (exit code 2).
pub fn save(file: Utf8PathBuf, request: &Request, run: &Run<'_>) -> Result<Option<Rewritten>> {
    check_target(request, run)?;
    let with_file = Request { config: Some(file), ..request.clone() };
    // What is wrong with the file is found out before anything is fetched.
    Plan::new(&with_file, &run.inputs(&with_file)?, None)?;
    // A version that the catalog has no config for begins with an empty one.
    let old = match Plan::new(request, &run.inputs(request)?, None) {
        Err(_) if request.config.is_none() => Config::default(),
        _ => configured(request, run, |_, _, configured| Ok(configured.config))?,
    };
    configured(&with_file, run, |dir, plan, configured| {
        plan.notices.iter().for_each(|notice| run.report.note(notice));
        check_config::judge(&configured, plan, run.report)?;
        written_back(dir, plan, kept(request, plan, run)?, &old, request, run)
    })
}

/// Writes it, whole or not at all.
///
/// Errors: the file was changed since it was read (exit code 2): the new text is then beside it.
pub fn write(rewritten: &Rewritten) -> Result<()> {
    let Rewritten { path, text, on_disk, .. } = rewritten;
    create_dir(path.parent().expect("a file is in a directory"))?;
    if read_text_if_there(path, Links::Follow, MAX_CONFIG)? != *on_disk {
        let beside = Utf8PathBuf::from(format!("{path}.edited"));
        write_atomically(&beside, text.as_bytes())?;
        return Err(Error::usage(format!("{path} was changed by somebody else in the meantime"))
            .hint(format!("what you made of it is in {beside}")));
    }
    write_atomically(path, text.as_bytes())
}

/// Opens a directory for configuring, with the source of `request` fetched and its settings completed.
fn configured<T>(
    request: &Request,
    run: &Run<'_>,
    job: impl FnOnce(&BuildDir<'_>, &Plan, Configured) -> Result<T>,
) -> Result<T> {
    configured_by(request, &run.inputs(request)?, run, |dir, plan, _, configured| job(dir, plan, configured))
}

/// The same, by other inputs than the request's own.
pub(crate) fn configured_by<T>(
    request: &Request,
    inputs: &Inputs,
    run: &Run<'_>,
    job: impl FnOnce(&BuildDir<'_>, &Plan, &Tree, Configured) -> Result<T>,
) -> Result<T> {
    let first = Plan::new(request, inputs, None)?;
    doctor::examine(&first, run.host).require()?;
    let cache = Cache::open(&run.cache_dir, run.host.uid)?;
    let (plan, tree) = fetch::fetch_planned(request, inputs, &first, &cache, run)?;
    let _configuring = cache.lock(&kbuild::config_lock_name(&plan, &tree), run.report)?;
    let private = cache.scratch()?;
    let dir = BuildDir::open_for_config(&plan, &tree, run.host, run.jobs, run.report)?;
    let dir = dir.confined(run.sandbox, &private.path, run.report)?;
    let configured = check_config::explained(dir.configure(run.report)?, &plan, &tree, run)?;
    job(&dir, &plan, &tree, configured)
}

/// Finds out before anything is fetched that the result could not be written.
fn check_target(request: &Request, run: &Run<'_>) -> Result<()> {
    match request.config {
        Some(_) => Ok(()),
        None => run.library.project.own_place().map(|_| ()),
    }
}

/// The user's own file that `plan` takes its settings from, or will: one of the catalog becomes the user's by
/// being changed, and one for a lower version becomes one for this.
fn kept(request: &Request, plan: &Plan, run: &Run<'_>) -> Result<Kept> {
    if let Some(path) = &request.config {
        // A link stays, and what it leads to is replaced.
        let path = path.canonicalize_utf8().context(Kind::Usage, || format!("cannot read {path}"))?;
        let before = read_text(&path, MAX_CONFIG)?;
        return Ok(Kept { path, on_disk: Some(before.clone()), before });
    }
    let Request { flavor, arch, .. } = *request;
    let version = plan.version.unwrap_or(request.version.floor());
    let base = Base::of(run.library, flavor, arch, version);
    let name = match base {
        Some(base) if base.is_for(version) => base.name(),
        _ => config_name(flavor, arch, request.version),
    };
    let path = run.library.project.own_place()?.path_of(&name);
    let before = base.map_or_else(String::new, |base| base.text.to_owned());
    Ok(Kept { on_disk: read_text_if_there(&path, Links::Follow, MAX_CONFIG)?, path, before })
}

/// Brings the `.config` in `dir` to the minimal form that goes over `kept`, and proves that the kernel makes the
/// same of it.
fn written_back(
    dir: &BuildDir<'_>,
    plan: &Plan,
    kept: Kept,
    old: &Config,
    request: &Request,
    run: &Run<'_>,
) -> Result<Option<Rewritten>> {
    let new_text = dir.config_text()?;
    let new = Config::parse(&new_text);
    let Kept { path, before, on_disk } = kept;
    if new.symbols == old.symbols {
        return Ok(None);
    }
    let minimal = dir.minimal()?;
    let mut also = BTreeSet::new();
    for _ in 0..ROUNDS {
        let edited = Edited { old, new: &new_text, minimal: &minimal, also: &also };
        let text = rewrite(&before, &edited);
        let result = Config::parse(&dir.complete(&text)?);
        let missed: Vec<&String> = differing(&new, &result).collect();
        if missed.is_empty() {
            warn_of_requirements(dir, plan, &new, request, run)?;
            let comparison = kconfig::compare(old, &new, &Renames::read(run.library)?);
            return Ok(Some(Rewritten { path, text, comparison, on_disk }));
        }
        also.extend(missed.into_iter().cloned());
    }
    let whole = dir.path.join("kcompile-edited.config");
    write_atomically(&whole, new_text.as_bytes())?;
    Err(Error::build(format!("{path}: no minimal form of the new settings gives the same .config again"))
        .hint(format!("the whole of it is in {whole}")))
}

/// The symbols that two final configs do not have alike.
fn differing<'a>(one: &'a Config, other: &'a Config) -> impl Iterator<Item = &'a String> {
    let symbols: BTreeSet<&String> = one.symbols.keys().chain(other.symbols.keys()).collect();
    symbols.into_iter().filter(|symbol| one.symbols.get(*symbol) != other.symbols.get(*symbol))
}

/// What a build would refuse is said at once. It is the user's config: no reason not to write it.
fn warn_of_requirements(
    dir: &BuildDir<'_>,
    plan: &Plan,
    config: &Config,
    request: &Request,
    run: &Run<'_>,
) -> Result<()> {
    let profiles = requirements::read_all(run.library, &request.profiles)?;
    let configured = Configured {
        config: config.clone(),
        sha256: Sha256::of(dir.config_text()?),
        path: dir.path.join(".config"),
        differences: Vec::new(),
    };
    match check_config::require(&configured, plan, &profiles, run.report) {
        Err(error) if error.kind == Kind::Build => run.report.finding(error.to_string()),
        outcomes => drop(outcomes?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("new/x.config")).unwrap();
        let rewritten = |on_disk: Option<&str>| Rewritten {
            path: path.clone(),
            text: "ours".into(),
            comparison: Comparison::default(),
            on_disk: on_disk.map(str::to_owned),
        };
        write(&rewritten(None)).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let error = write(&rewritten(Some("ours"))).unwrap_err();
        assert!(error.to_string().contains("was changed by somebody else"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(std::fs::read_to_string(format!("{path}.edited")).unwrap(), "ours");
    }
}
