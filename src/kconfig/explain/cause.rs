//! Reasons as data.

use crate::kconfig::Setting;
use serde::Serialize;

/// Why a setting did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What kind of reason it is.
    pub kind: CauseKind,
    /// The whole condition that is not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
    /// All symbols that the reason is about, with their values, also where its text names only the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<Setting>,
    /// Settings that, with the wanted one, give the wanted value.
    pub set: Vec<Setting>,
    /// Whether settings can give the value, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub possible: Option<bool>,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// A dependency is not met.
    DependsOn,
    /// A dependency that is a module allows a module only.
    LimitedToModule,
    /// It can be nothing but a module.
    OnlyModule,
    /// It has no prompt, and its defaults do not give the value.
    NoPrompt,
    /// It has no prompt, and nothing that is on selects it.
    NotSelected,
    /// Another symbol selects it.
    Selected,
    /// Another symbol implies it, and it has no prompt here.
    Implied,
    /// Its choice has another member.
    Choice,
    /// Its default holds, and the prompt that changes it is hidden.
    Fixed,
    /// The number is outside the range.
    Range,
    /// Its type has no such value.
    Type,
    /// It has another name in this kernel.
    Renamed,
    /// The kernel does not have it any more.
    Removed,
    /// Only other architectures have it.
    OtherArchitecture,
    /// The kernel does not have it.
    Unknown,
}
