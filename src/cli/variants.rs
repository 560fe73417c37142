//! The variants of the kernels of a run.

use crate::catalog::project::Defaults;
use crate::cli::args::Options;
use crate::kernel::{Variant, VariantChoice};
use crate::plan::request::ModulesLayout;
use crate::util::error::{Error, Result};

/// Returns the variants of `--variant`, or else the project's.
///
/// # Errors
///
/// Exit code 2: another option is only for kernels with modules.
pub fn variants(options: &Options, defaults: &Defaults) -> Result<Vec<Variant>> {
    let given = options.target.variant.or(defaults.variant);
    let variants = given.unwrap_or(VariantChoice::One(Variant::default())).variants();
    if variants.contains(&Variant::Minimal) && options.config.builtin {
        return Err(Error::usage("--builtin cannot be used with a minimal kernel, which has no modules")
            .hint("remove --builtin, or build the other kernel with --variant node"));
    }
    if variants == [Variant::Minimal] && options.images.modules_layout != ModulesLayout::default() {
        return Err(Error::usage(
            "--modules-layout cannot be used with a minimal kernel, which has no modules",
        )
        .hint("remove --modules-layout"));
    }
    Ok(variants)
}
