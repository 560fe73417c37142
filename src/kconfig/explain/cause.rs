//! Reasons as data, for JSON.

use crate::kconfig::Setting;
use serde::Serialize;

/// The reason why a setting did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub kind: CauseKind,
    /// The whole condition that is not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
    /// All symbols that the reason is about, with their values. The text may name fewer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<Setting>,
    /// Other settings that the wanted value needs.
    pub set: Vec<Setting>,
    /// Whether any settings give the value. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub possible: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CauseKind {
    /// A dependency is not met.
    DependsOn,
    /// A dependency is a module, so it can only be a module.
    LimitedToModule,
    /// It depends on the constant `m`.
    OnlyModule,
    /// It has no prompt, and its defaults give another value.
    NoPrompt,
    /// It has no prompt, and no enabled symbol selects it.
    NotSelected,
    /// Another symbol selects it.
    Selected,
    /// Another symbol implies it, and its prompt is hidden.
    Implied,
    /// Another member of its choice is on.
    Choice,
    /// It has its default, and its prompt is hidden.
    Fixed,
    /// The number is outside its range.
    Range,
    /// Its type has no such value.
    Type,
    /// It has another name in this kernel.
    Renamed,
    /// The kernel no longer has it.
    Removed,
    /// Only other architectures have it.
    OtherArchitecture,
    /// The kernel does not have it.
    Unknown,
}
