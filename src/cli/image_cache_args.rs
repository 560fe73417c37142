//! `--image-cache` and the options beside it.

use camino::Utf8PathBuf;
use clap::Args;

/// Where images of others are looked for, and who must have signed them.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageCacheArgs {
    /// Take images that others built; repeatable
    ///
    /// REGISTRY is docker://REGISTRY/PREFIX, to which `kcompile push` has pushed images. Images of the same inputs are
    /// taken from there, and nothing is compiled. Needs an image as the toolchain.
    #[arg(long, value_name = "REGISTRY")]
    pub image_cache: Vec<String>,
    /// Public key that must have signed them
    ///
    /// The key is a sigstore key in PEM. `kcompile push --sign` signs images.
    #[arg(long, value_name = "FILE", conflicts_with = "image_cache_unsigned")]
    pub image_cache_key: Option<Utf8PathBuf>,
    /// Take images without a signature
    ///
    /// Everybody who can write to the registry, or change its answers, chooses the kernel then.
    #[arg(long)]
    pub image_cache_unsigned: bool,
}
