//! `doctor --cache`: what was found in the cache, and what was done about it.

use super::args::DoctorArgs;
use super::commands::{print, printed_json};
use super::typed::cache_dir;
use crate::cache::Cache;
use crate::host::Host;
use crate::ops::check_cache;
use crate::report::Report;
use crate::util::error::Result;
use crate::util::text::{counted, size};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Exit code 1: something is left for the user to look at.
pub(super) fn checkup(args: &DoctorArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    // To look through a cache that is not there is no reason to make one.
    let checkup = match dir.is_dir() {
        true => check_cache::examine(&Cache::open(&dir, host.uid)?)?,
        false => check_cache::Checkup::default(),
    };
    for path in &checkup.in_use {
        report.note(&format!("{path} is in use and was not looked at"));
    }
    let code = ExitCode::from(u8::from(checkup.found.iter().any(|found| !found.repaired)));
    if args.json {
        print(&printed_json(&checkup))?;
        return Ok(code);
    }
    let mut text = String::new();
    for found in &checkup.found {
        let verb = if found.repaired { "removed" } else { "LOOK AT" };
        let path = found.path.strip_prefix(&dir).unwrap_or(&found.path);
        writeln!(text, "{verb}  {:>9}  {}: {path}", size(found.bytes), found.what)
            .expect("writing to a string");
    }
    let examined = counted(checkup.examined, "entry", "entries");
    match checkup.found.len() {
        0 => writeln!(text, "{examined} in {dir}: all as they should be"),
        wrong => writeln!(text, "{examined} in {dir}: {wrong} not as they should be"),
    }
    .expect("writing to a string");
    print(&text)?;
    Ok(code)
}
