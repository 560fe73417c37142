//! What a kernel is for. Each variant has configs and tags of its own.

use serde::{Deserialize, Serialize};

/// What a kernel is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// A Kubernetes node.
    #[default]
    Node,
    /// A sandbox or a function.
    Minimal,
}

spec_table!(Variant, "variant", VariantSpec {
    Node => NODE,
    Minimal => MINIMAL,
});

/// An entry of the table of variants.
#[derive(Debug)]
pub struct VariantSpec {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// What its configs have behind the version in their names.
    pub config_suffix: &'static str,
    /// The requirement profiles of its kernels, besides that of the flavor.
    pub profiles: &'static [&'static str],
}

const NODE: VariantSpec = VariantSpec { name: "node", aliases: &[], config_suffix: "", profiles: &[] };

const MINIMAL: VariantSpec =
    VariantSpec { name: "minimal", aliases: &[], config_suffix: "-minimal", profiles: &["sandbox"] };

/// The variants of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariantChoice {
    One(Variant),
    All,
}

impl VariantChoice {
    pub fn variants(self) -> Vec<Variant> {
        match self {
            VariantChoice::One(variant) => vec![variant],
            VariantChoice::All => Variant::ALL.to_vec(),
        }
    }
}

impl std::str::FromStr for VariantChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<VariantChoice, String> {
        if text == "all" {
            return Ok(VariantChoice::All);
        }
        text.parse().map(VariantChoice::One).map_err(|why| format!("{why} or all"))
    }
}

impl Variant {
    pub fn is_default(&self) -> bool {
        *self == Variant::default()
    }
}
