//! Versions, architectures, flavors and kinds of source of a kernel, and what the bytes
//! of kernels and modules say.

/// Gives each variant of an enum its entry of a table. A variant without an entry does not compile. `ALL` has
/// all variants. The `name` and the `aliases` of an entry are how its variant is printed and parsed.
macro_rules! spec_table {
    ($name:ident, $what:literal, $spec:ident { $($variant:ident => $entry:ident),+ $(,)? }) => {
        impl $name {
            /// All variants, in the order in which they are listed.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Returns the entry of the table.
            pub fn spec(self) -> &'static $spec {
                match self {
                    $($name::$variant => &$entry,)+
                }
            }

            pub fn name(self) -> &'static str {
                self.spec().name
            }

            /// Returns all names, for a message: `amd64 or arm64`.
            pub fn choices() -> String {
                crate::util::text::join_list($name::ALL.iter().map(|one| one.name()), "or")
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                let is_it = |one: &&$name| one.name() == name || one.spec().aliases.contains(&name);
                let known = $name::ALL.iter().find(is_it).copied();
                known.ok_or_else(|| format!("unknown {} `{name}`: expected {}", $what, $name::choices()))
            }
        }
    };
}

mod arch;
pub mod binary;
pub mod depmod;
mod flavor;
mod range;
mod source_digest;
mod source_spec;
mod toolchain_spec;
mod variant;
mod version;

pub use arch::{Arch, ArchSpec, KernelFormat, Platform};
pub use flavor::{Bus, ElfForm, Flavor, FlavorSpec};
pub use range::VersionRange;
pub use source_digest::{CommitId, SourceDigest};
pub use source_spec::{SOURCE_FORMS, SourceSpec, source_package};
pub use toolchain_spec::{CompilerFamily, KernelOrgCompiler, ToolchainSpec};
pub use variant::{Variant, VariantChoice};
pub use version::{Channel, KernelVersion, VersionRequest};
