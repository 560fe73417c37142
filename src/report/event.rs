//! The events of a run, which all renderers get.

use super::phase::Phase;
use super::{KernelSummary, RunSummary};
use serde::Serialize;
use std::time::Duration;

/// The unit of a [`Count`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Bytes,
    /// Steps of make, entries of an archive, images.
    Steps,
}

/// How much work is done and left, in any unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub done: f64,
    /// `None` if more was done than was expected.
    pub left: Option<f64>,
}

/// The progress of a phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Count<'a> {
    pub done: u64,
    /// The total, if it is known or can be estimated.
    pub total: Option<u64>,
    /// Whether the total is an estimate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// The work of the steps, since some take much longer than others.
    #[serde(skip)]
    pub work: Option<Work>,
    pub unit: Unit,
    /// The current file.
    pub item: &'a str,
}

/// A phase that ended without a result.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnfinishedPhase {
    pub phase: Phase,
    pub took: Duration,
}

/// An event, as renderers get it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event<'a> {
    Start {
        phase: Phase,
        what: &'a str,
    },
    Progress {
        phase: Phase,
        #[serde(flatten)]
        count: Count<'a>,
        /// How long the rest of the phase takes, if it is as fast as before.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds_left: Option<f64>,
    },
    /// A line that make printed.
    Output {
        line: &'a str,
    },
    Finish {
        phase: Phase,
        seconds: f64,
        what: &'a str,
        /// The result for people.
        #[serde(skip)]
        brief: &'a str,
        /// The peak of kcompile itself.
        peak_memory_bytes: Option<u64>,
    },
    Note {
        text: &'a str,
    },
    #[serde(rename = "finding")]
    Warning {
        text: &'a str,
    },
    Error {
        text: &'a str,
        hint: Option<&'a str>,
        kind: &'static str,
        code: u8,
        /// Lines that show the place of the error.
        #[serde(skip)]
        excerpt: Option<&'a str>,
        /// The phase that the error ended.
        #[serde(skip)]
        phase: Option<UnfinishedPhase>,
    },
    #[serde(rename = "summary")]
    KernelSummary {
        #[serde(flatten)]
        summary: &'a KernelSummary,
        /// The summary for people.
        #[serde(skip)]
        text: &'a str,
    },
    #[serde(rename = "overview")]
    RunSummary(&'a RunSummary),
}

/// An event, and its kernel in a run of several.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ScopedEvent<'a> {
    #[serde(rename = "kernel", skip_serializing_if = "Option::is_none")]
    pub kernel: Option<&'a str>,
    #[serde(flatten)]
    pub event: &'a Event<'a>,
}

/// Returns how an error of this kind ends a phase.
pub(super) fn how_it_ended(kind: &str) -> &'static str {
    if kind == "interrupted" { "stopped" } else { "failed" }
}
