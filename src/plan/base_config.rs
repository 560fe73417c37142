//! Chooses the library's config for a kernel: `configs/<flavor>/linux-<arch>-<version>.config`, and for a minimal
//! kernel `configs/<flavor>/linux-<arch>-<version>-minimal.config`.

use crate::catalog::ConfigLibrary;
use crate::kernel::{Arch, Flavor, KernelVersion, Variant, VersionRequest};
use crate::plan::request::Request;
use std::fmt;

/// The configs of one flavor, architecture and variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSet {
    pub flavor: Flavor,
    pub arch: Arch,
    pub variant: Variant,
}

impl ConfigSet {
    pub fn of(request: &Request) -> ConfigSet {
        let Request { flavor, arch, variant, .. } = *request;
        ConfigSet { flavor, arch, variant }
    }

    /// Returns the library's name for the config of `version`.
    pub fn config_name(self, version: VersionRequest) -> String {
        let ConfigSet { flavor, arch, variant } = self;
        let suffix = variant.spec().config_suffix;
        format!("configs/{flavor}/linux-{}-{}{suffix}.config", arch.spec().kbuild, version.in_catalog())
    }

    /// Returns the version in the name of one of these configs, without its directory.
    fn version_of(self, name: &str) -> Option<VersionRequest> {
        let rest = name.strip_prefix("linux-")?.strip_prefix(self.arch.spec().kbuild)?.strip_prefix('-')?;
        rest.strip_suffix(".config")?.strip_suffix(self.variant.spec().config_suffix)?.parse().ok()
    }
}

impl fmt::Display for ConfigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.variant {
            Variant::Node => {}
            Variant::Minimal => f.write_str("minimal ")?,
        }
        write!(f, "{} config", self.flavor)
    }
}

/// A config of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseConfig<'a> {
    /// The version or the series that it is for.
    pub version: VersionRequest,
    /// With headings and comments.
    pub text: &'a str,
    /// The path of the file.
    pub origin: &'a str,
    set: ConfigSet,
}

impl<'a> BaseConfig<'a> {
    /// Returns its name in the library.
    pub fn name(&self) -> String {
        self.set.config_name(self.version)
    }

    /// Returns whether it is for `version` or its series, not only the nearest config.
    pub fn is_for(&self, version: KernelVersion) -> bool {
        self.version.floor() == version || self.version.admits(version)
    }

    /// Returns all configs of a set, sorted by version.
    pub fn all(library: &'a ConfigLibrary, set: ConfigSet) -> Vec<BaseConfig<'a>> {
        let dir = format!("configs/{}", set.flavor);
        let bases = library.names_in(&dir).filter_map(|name| {
            let (origin, text) = library.layers(&format!("{dir}/{name}")).last()?;
            Some(BaseConfig { version: set.version_of(name)?, text, origin, set })
        });
        let mut bases: Vec<BaseConfig<'_>> = bases.collect();
        bases.sort_by_key(|base| base.version.floor());
        bases
    }

    /// Returns the config of exactly `version`, else of its series, else the nearest lower one.
    pub fn of(library: &'a ConfigLibrary, set: ConfigSet, version: KernelVersion) -> Option<BaseConfig<'a>> {
        let all = BaseConfig::all(library, set);
        let exact = all.iter().find(|base| base.version.floor() == version);
        let series = || all.iter().find(|base| base.is_for(version));
        let lower = || all.iter().rev().find(|base| base.version.floor() < version);
        exact.or_else(series).or_else(lower).copied()
    }

    /// Returns the config like [`of`](Self::of), or else the nearest higher one.
    pub fn find_nearest(
        library: &'a ConfigLibrary,
        set: ConfigSet,
        version: KernelVersion,
    ) -> Option<BaseConfig<'a>> {
        let lowest = || BaseConfig::all(library, set).into_iter().next();
        BaseConfig::of(library, set, version).or_else(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_config_is_taken() {
        let name = |version: &str| format!("configs/firecracker/linux-x86_64-{version}.config");
        let names = ["5.10", "5.10.77", "6.1", "6.1.7-rc1x"].map(name);
        let library = ConfigLibrary::from_texts(names.iter().map(|name| (name.as_str(), "CONFIG_A=y\n")));
        let set = |arch| ConfigSet { flavor: Flavor::Firecracker, arch, variant: Variant::Node };
        let of = |version: &str, arch| {
            let base = BaseConfig::of(&library, set(arch), version.parse().unwrap());
            base.map(|base| base.version.to_string())
        };
        for (version, expected) in [
            ("5.10.77", Some("5.10.77")),
            ("5.10.78", Some("5.10")),
            ("5.15.12", Some("5.10.77")),
            ("6.1-rc3", Some("6.1")),
            ("6.18", Some("6.1")),
            ("4.19", None),
        ] {
            assert_eq!(of(version, Arch::Amd64).as_deref(), expected, "{version}");
        }
        assert_eq!(of("6.1", Arch::Arm64), None);
        let version = "4.19".parse().unwrap();
        let nearest = BaseConfig::find_nearest(&library, set(Arch::Amd64), version);
        assert_eq!(nearest.unwrap().version.to_string(), "5.10");
        let first = BaseConfig::all(&library, set(Arch::Amd64))[0];
        assert_eq!(first.name(), name("5.10"));
    }

    /// A second line of a symbol would hide a change of the first one.
    #[test]
    fn built_in_configs_set_each_symbol_once() {
        let library = ConfigLibrary::built_in();
        let mut count = 0;
        for flavor in Flavor::ALL {
            for arch in [Arch::Amd64, Arch::Arm64] {
                for variant in Variant::ALL {
                    let set = ConfigSet { flavor: *flavor, arch, variant: *variant };
                    for base in BaseConfig::all(&library, set) {
                        let config = crate::kconfig::Config::parse_given(base.origin, base.text).unwrap();
                        assert_eq!(config.repeated_symbols(base.origin), None);
                        count += 1;
                    }
                }
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn a_variant_has_configs_of_its_own() {
        let name = |version: &str| format!("configs/firecracker/linux-x86_64-{version}.config");
        let names = ["5.10-minimal", "6.1", "6.1.7-rc1x-minimal", "6.18-minimal"].map(name);
        let library = ConfigLibrary::from_texts(names.iter().map(|name| (name.as_str(), "CONFIG_A=y\n")));
        let of = |version: &str, variant| {
            let set = ConfigSet { flavor: Flavor::Firecracker, arch: Arch::Amd64, variant };
            BaseConfig::of(&library, set, version.parse().unwrap()).map(|base| base.name())
        };
        for (version, variant, expected) in [
            ("6.18.3", Variant::Node, Some("6.1")),
            ("6.18.3", Variant::Minimal, Some("6.18-minimal")),
            ("6.12.1", Variant::Minimal, Some("5.10-minimal")),
            ("5.15", Variant::Node, None),
            ("4.19", Variant::Minimal, None),
        ] {
            assert_eq!(of(version, variant), expected.map(name), "{version}");
        }
    }
}
