//! Builds several kernels in parallel. Sources are fetched while other kernels compile. All makes share one
//! job server, so that one kernel compiles while another links. A failure does not stop the others.

use crate::host::process;
use crate::image::pack::PackedImage;
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::context::Context;
use crate::ops::scheduler::Scheduler;
use crate::plan::request::Request;
use crate::report::{KernelResult, RunSummary};
use crate::util::error::{Error, Kind, Result};
use crate::util::text::escape_control;
use crate::util::threads;
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Instant;

/// Builds all `requests` in parallel and reports a summary. Calls `built` with the images of each on the
/// calling thread, in the order of the requests. Returns their results in the same order.
///
/// # Errors
///
/// The run was interrupted, or `built` failed.
pub fn build_all(
    requests: &[Request],
    ctx: &Context<'_>,
    mut built: impl FnMut(&[PackedImage]) -> Result<()>,
) -> Result<Vec<Result<Vec<PackedImage>>>> {
    let launcher = requests.first().and_then(|request| request.toolchain.launcher.as_deref());
    let (farm, jobs) = ctx.farm(launcher);
    let absent_symbols = AbsentSymbols::of_run(requests.len());
    let ctx = &Context { jobs, absent_symbols, ..ctx.clone() };
    let scheduler = Scheduler::new(ctx.jobs, farm)?;
    let names = names(requests);
    let began = Instant::now();
    let mut outcomes: Vec<Option<(KernelResult, Result<Vec<PackedImage>>)>> =
        requests.iter().map(|_| None).collect();
    std::thread::scope(|scope| -> Result<()> {
        let (sender, finished) = mpsc::channel();
        for (index, (request, name)) in requests.iter().zip(&names).enumerate() {
            let (sender, scheduler) = (sender.clone(), &scheduler);
            let unstarted = sender.clone();
            let started = threads::spawn_scoped(scope, move || {
                let reporter = ctx.reporter.for_kernel(name);
                let ctx = ctx.for_kernel(scheduler.slot(index), &reporter);
                let result = crate::ops::build::build(request, &ctx);
                if let Err(error) = &result
                    && !matches!(error.kind, Kind::Interrupted(_))
                {
                    reporter.error(error);
                }
                let _ = sender.send((index, result));
            });
            if let Err(error) = started {
                ctx.reporter.for_kernel(name).error(&error);
                let _ = unstarted.send((index, Err(error)));
            }
        }
        drop(sender);
        let mut reported = 0;
        for (index, result) in finished {
            let outcome = match &result {
                Ok(images) => Ok(images.first().map_or_else(String::new, |image| image.written.tag.clone())),
                Err(error) => Err(escape_control(&error.to_string())),
            };
            let seconds = began.elapsed().as_secs_f64();
            outcomes[index] = Some((KernelResult { kernel: names[index].clone(), outcome, seconds }, result));
            while let Some(Some((_, result))) = outcomes.get(reported) {
                result.as_deref().map_or(Ok(()), &mut built)?;
                reported += 1;
            }
        }
        Ok(())
    })?;
    let (kernels, results): (Vec<KernelResult>, Vec<_>) =
        outcomes.into_iter().map(|outcome| outcome.expect("each thread sends its result")).unzip();
    process::check()?;
    ctx.reporter.run_summary(RunSummary { kernels, seconds: began.elapsed().as_secs_f64() });
    Ok(results)
}

/// Names the kernels by version, and by flavor, architecture and variant if those differ.
fn names(requests: &[Request]) -> Vec<String> {
    let flavors: BTreeSet<_> = requests.iter().map(|request| request.flavor).collect();
    let arches: BTreeSet<_> = requests.iter().map(|request| request.arch).collect();
    let variants: BTreeSet<_> = requests.iter().map(|request| request.variant).collect();
    let mut names: Vec<String> = Vec::new();
    for request in requests {
        let mut name = request.version.to_string();
        if flavors.len() > 1 {
            name.push_str(&format!(" {}", request.flavor));
        }
        if arches.len() > 1 {
            name.push_str(&format!(" {}", request.arch));
        }
        if variants.len() > 1 {
            name.push_str(&format!(" {}", request.variant));
        }
        // The same kernel was requested before.
        let same = names.iter().filter(|known| **known == name || known.starts_with(&format!("{name} #")));
        let count = same.count();
        names.push(if count == 0 { name } else { format!("{name} #{}", count + 1) });
    }
    names
}

/// Returns the error that decides the exit code, which is that of the first kernel that failed.
pub fn first_error<T>(results: &[Result<T>]) -> Option<&Error> {
    results.iter().find_map(|result| result.as_ref().err())
}
