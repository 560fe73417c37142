//! Chooses the library's config for a kernel: `configs/<flavor>/linux-<arch>-<version>.config`.

use crate::catalog::ConfigLibrary;
use crate::kernel::{Arch, Flavor, KernelVersion, VersionRequest};

/// A config of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseConfig<'a> {
    /// The version or the series that it is for.
    pub version: VersionRequest,
    /// With headings and comments.
    pub text: &'a str,
    /// The path of the file.
    pub origin: &'a str,
    flavor: Flavor,
    arch: Arch,
}

impl<'a> BaseConfig<'a> {
    /// Returns its name in the library.
    pub fn name(&self) -> String {
        config_name(self.flavor, self.arch, self.version)
    }

    /// Returns whether it is for `version` or its series, not only the nearest config.
    pub fn is_for(&self, version: KernelVersion) -> bool {
        self.version.floor() == version || self.version.admits(version)
    }

    /// Returns all configs of a flavor and architecture, sorted by version.
    pub fn all(library: &'a ConfigLibrary, flavor: Flavor, arch: Arch) -> Vec<BaseConfig<'a>> {
        let prefix = format!("linux-{}-", arch.spec().kbuild);
        let version =
            |name: &str| name.strip_prefix(&prefix)?.strip_suffix(".config")?.parse::<VersionRequest>().ok();
        let dir = format!("configs/{flavor}");
        let bases = library.names_in(&dir).filter_map(|name| {
            let (origin, text) = library.layers(&format!("{dir}/{name}")).last()?;
            Some(BaseConfig { version: version(name)?, text, origin, flavor, arch })
        });
        let mut bases: Vec<BaseConfig<'_>> = bases.collect();
        bases.sort_by_key(|base| base.version.floor());
        bases
    }

    /// Returns the config of exactly `version`, else of its series, else the nearest lower one.
    pub fn of(
        library: &'a ConfigLibrary,
        flavor: Flavor,
        arch: Arch,
        version: KernelVersion,
    ) -> Option<BaseConfig<'a>> {
        let all = BaseConfig::all(library, flavor, arch);
        let exact = all.iter().find(|base| base.version.floor() == version);
        let series = || all.iter().find(|base| base.is_for(version));
        let lower = || all.iter().rev().find(|base| base.version.floor() < version);
        exact.or_else(series).or_else(lower).copied()
    }

    /// Returns the config like [`of`](Self::of), or else the nearest higher one.
    pub fn find_nearest(
        library: &'a ConfigLibrary,
        flavor: Flavor,
        arch: Arch,
        version: KernelVersion,
    ) -> Option<BaseConfig<'a>> {
        let lowest = || BaseConfig::all(library, flavor, arch).into_iter().next();
        BaseConfig::of(library, flavor, arch, version).or_else(lowest)
    }
}

/// Returns the library's name for the config of `version`.
pub fn config_name(flavor: Flavor, arch: Arch, version: VersionRequest) -> String {
    format!("configs/{}/linux-{}-{}.config", flavor, arch.spec().kbuild, version.in_catalog())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_config_is_taken() {
        let name = |version: &str| format!("configs/firecracker/linux-x86_64-{version}.config");
        let names = ["5.10", "5.10.77", "6.1", "6.1.7-rc1x"].map(name);
        let library = ConfigLibrary::from_texts(names.iter().map(|name| (name.as_str(), "CONFIG_A=y\n")));
        let of = |version: &str, arch| {
            let base = BaseConfig::of(&library, Flavor::Firecracker, arch, version.parse().unwrap());
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
        let nearest = BaseConfig::find_nearest(&library, Flavor::Firecracker, Arch::Amd64, version);
        assert_eq!(nearest.unwrap().version.to_string(), "5.10");
        let first = BaseConfig::all(&library, Flavor::Firecracker, Arch::Amd64)[0];
        assert_eq!(first.name(), name("5.10"));
    }

    /// A second line of a symbol would hide the first one when somebody edits it.
    #[test]
    fn built_in_configs_set_each_symbol_once() {
        let library = ConfigLibrary::built_in();
        let mut count = 0;
        for flavor in Flavor::ALL {
            for arch in [Arch::Amd64, Arch::Arm64] {
                for base in BaseConfig::all(&library, *flavor, arch) {
                    let config = crate::kconfig::Config::parse_given(base.origin, base.text).unwrap();
                    assert_eq!(config.repeated_symbols(base.origin), None);
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{count}");
    }
}
