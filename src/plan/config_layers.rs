//! The config layers of a plan: the catalog's config or the user's, and the settings over it.

use super::base_config::{BaseConfig, ConfigSet};
use super::{ConfigLayer, Inputs, Text};
use crate::catalog::ConfigLibrary;
use crate::kconfig::{Config, NO_MODULES, SETTING_HINT};
use crate::kernel::{Arch, KernelVersion};
use crate::plan::request::{ModuleMode, Override, Request};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};

/// Returns the layers, lowest first. Adds what the user should know about the choice to `notices`.
pub(super) fn layers(
    request: &Request,
    inputs: &Inputs,
    version: KernelVersion,
    notices: &mut Vec<String>,
) -> Result<Vec<ConfigLayer>> {
    let base = match &inputs.config {
        Some(text) => {
            let config =
                user_config(text, request.arch, notices).map_err(|error| error.with_option("--config"))?;
            let (name, sha256) = (text.name.clone(), Sha256::of(&text.text));
            ConfigLayer { name, sha256, is_required: false, config }
        }
        None => match catalog_config(request, &inputs.library, version, notices) {
            Err(_) if !request.configures => return Ok(Vec::new()),
            layer => layer?,
        },
    };
    let mut layers = vec![base];
    for (over, text) in request.overrides.iter().zip(&inputs.overrides) {
        let is_file = matches!(over, Override::Fragment(_)) && text.name.starts_with('/');
        let config = user_config(text, request.arch, notices)
            .map_err(|error| if is_file { error.with_option("--fragment") } else { error })?;
        if let Some((symbol, _)) = config.symbols.iter().find(|(_, value)| value.is_empty()) {
            return Err(
                Error::usage(format!("{}: CONFIG_{symbol}= has no value", text.name)).hint(SETTING_HINT)
            );
        }
        let name = match over {
            Override::Fragment(_) => text.name.clone(),
            Override::Set(line) => line.trim_end().to_owned(),
        };
        layers.push(ConfigLayer { name, sha256: Sha256::of(&text.text), is_required: true, config });
    }
    if request.images.module_mode == ModuleMode::Builtin {
        layers.push(builtin_layer(request.tag_suffix().option(), &layers)?);
    }
    Ok(layers)
}

/// Returns the layer of `option`, which turns modules off.
fn builtin_layer(option: &str, below: &[ConfigLayer]) -> Result<ConfigLayer> {
    let asks_for_modules = |layer: &&ConfigLayer| layer.is_required && layer.config.value("MODULES") == "y";
    if let Some(layer) = below.iter().find(asks_for_modules) {
        return Err(Error::usage(format!(
            "{option} turns CONFIG_MODULES off, but {} turns it on",
            layer.name
        ))
        .hint("remove one of the two"));
    }
    let config = Config::parse(NO_MODULES);
    Ok(ConfigLayer { name: option.into(), sha256: Sha256::of(NO_MODULES), is_required: true, config })
}

/// Parses a user's file, which must be a config for this architecture.
fn user_config(text: &Text, arch: Arch, notices: &mut Vec<String>) -> Result<Config> {
    let config = Config::parse_given(&text.name, &text.text)?;
    notices.extend(config.repeated_symbols(&text.name));
    let foreign_header = config.header_arch.as_deref().filter(|name| !arch.is_in_config_header(name));
    let mut others = Arch::ALL.iter().filter(|other| **other != arch).map(|other| other.spec().symbol);
    if let Some(theirs) = foreign_header.or_else(|| others.find(|symbol| config.enabled(symbol))) {
        let theirs = theirs.to_lowercase();
        return Err(Error::usage(format!("{}: the config is for {theirs}, not for {arch}", text.name))
            .hint("choose the architecture with --arch"));
    }
    Ok(config)
}

/// Returns the catalog's config of exactly this version, else of its series, else the nearest lower one.
fn catalog_config(
    request: &Request,
    library: &ConfigLibrary,
    version: KernelVersion,
    notices: &mut Vec<String>,
) -> Result<ConfigLayer> {
    let (set, arch) = (ConfigSet::of(request), request.arch);
    let Some(base) = BaseConfig::of(library, set, version) else {
        let have: Vec<String> =
            BaseConfig::all(library, set).iter().map(|base| base.version.in_catalog()).collect();
        let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
        return Err(Error::usage(format!(
            "no {set} for Linux {version} on {arch} or for a lower version (available: {have})"
        ))
        .hint("give one with --config FILE, or your own catalog with --configs DIR"));
    };
    if !base.is_for(version) {
        notices.push(format!(
            "no {set} for Linux {version}: using the nearest lower one, for {}",
            base.version.in_catalog()
        ));
    }
    let name = base.name();
    let config = Config::parse(base.text);
    config.check_lines(base.origin)?;
    notices.extend(config.repeated_symbols(base.origin));
    Ok(ConfigLayer { name, sha256: Sha256::of(base.text), is_required: false, config })
}
