//! The config layers of a plan: the catalog's config or the user's, and what goes over it.

use super::base_config::BaseConfig;
use super::{ConfigLayer, Inputs, Text};
use crate::catalog::ConfigLibrary;
use crate::kconfig::Config;
use crate::kernel::{Arch, KernelVersion};
use crate::plan::request::{Override, Request};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::text::pluralize;

/// What a line of a `.config` may be, for hints.
const SETTINGS: &str = "a line is CONFIG_X=y, CONFIG_X=m, CONFIG_X=\"text\" or # CONFIG_X is not set";

/// The layers, lowest first. What the user should know of the choice goes to `notices`.
pub(super) fn layers(
    request: &Request,
    inputs: &Inputs,
    version: KernelVersion,
    notices: &mut Vec<String>,
) -> Result<Vec<ConfigLayer>> {
    let base = match &inputs.config {
        Some(text) => {
            let config = user_config(text, request.arch)?;
            if let Some(first) = config.malformed.first() {
                notices.push(format!(
                    "{}: {} left aside, the first at line {}: `{}`",
                    text.name,
                    pluralize(
                        config.malformed.len(),
                        "line that is no setting",
                        "lines that are no settings"
                    ),
                    first.line,
                    first.text
                ));
            }
            ConfigLayer {
                name: text.name.clone(),
                sha256: Sha256::of(&text.text),
                is_required: false,
                config,
            }
        }
        None => match catalog_config(request, &inputs.library, version, notices) {
            Err(_) if !request.configures => return Ok(Vec::new()),
            layer => layer?,
        },
    };
    let mut layers = vec![base];
    for (over, text) in request.overrides.iter().zip(&inputs.overrides) {
        let config = user_config(text, request.arch)?;
        if let Some(bad) = config.malformed.first() {
            return Err(Error::usage(format!("{}:{}: not a setting: `{}`", text.name, bad.line, bad.text))
                .hint(SETTINGS));
        }
        let name = match over {
            Override::Fragment(_) => text.name.clone(),
            Override::Set(line) => line.trim_end().to_owned(),
        };
        layers.push(ConfigLayer { name, sha256: Sha256::of(&text.text), is_required: true, config });
    }
    Ok(layers)
}

/// A user's file must be a config at all, and of this architecture.
fn user_config(text: &Text, arch: Arch) -> Result<Config> {
    let config = Config::parse(&text.text);
    if !config.is_plausible() {
        return Err(Error::usage(format!(
            "{}: not a kernel config: {} in it",
            text.name,
            match config.symbols.len() {
                0 => "no setting".to_owned(),
                some => format!("{some} settings and {} other lines", config.malformed.len()),
            }
        ))
        .hint(SETTINGS));
    }
    let foreign_header = config.header_arch.as_deref().filter(|name| !arch.is_in_config_header(name));
    let mut others = Arch::ALL.iter().filter(|other| **other != arch).map(|other| other.spec().symbol);
    if let Some(theirs) = foreign_header.or_else(|| others.find(|symbol| config.enabled(symbol))) {
        let theirs = theirs.to_lowercase();
        return Err(Error::usage(format!("{}: a config for {theirs}, not for {arch}", text.name))
            .hint("choose the architecture with --arch"));
    }
    Ok(config)
}

/// The catalog's config of exactly this version, else of its series, else the nearest lower one.
fn catalog_config(
    request: &Request,
    library: &ConfigLibrary,
    version: KernelVersion,
    notices: &mut Vec<String>,
) -> Result<ConfigLayer> {
    let Request { flavor, arch, .. } = *request;
    let Some(base) = BaseConfig::of(library, flavor, arch, version) else {
        let have: Vec<String> =
            BaseConfig::all(library, flavor, arch).iter().map(|base| base.version.in_catalog()).collect();
        let have = if have.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are {}", have.join(", "))
        };
        return Err(Error::usage(format!(
            "no {flavor} config for Linux {version} on {arch} or for a lower version: {have}"
        ))
        .hint("give one with --config FILE, or your own catalog with --configs DIR"));
    };
    if !base.is_for(version) {
        notices.push(format!(
            "no {flavor} config for Linux {version}: using the nearest lower one, for {}",
            base.version.in_catalog()
        ));
    }
    let name = base.name();
    let config = Config::parse(base.text);
    if let Some(bad) = config.malformed.first() {
        return Err(Error::usage(format!("{}:{}: not a setting: `{}`", base.origin, bad.line, bad.text))
            .hint(SETTINGS));
    }
    Ok(ConfigLayer { name, sha256: Sha256::of(base.text), is_required: false, config })
}
