//! What ccache has compiled, as an image: so that a machine that is thrown away after its work starts warm. Any
//! registry keeps it, and any client moves it.
//!
//! An entry of ccache is a file that is named by a hash of what went into a compilation, and ends with a checksum of its
//! own bytes. Nothing else gets out of a cache, or into one. The checksum finds damage; it does not tell who made an
//! entry: whoever may write the image may choose what the compiler is said to have made.

mod entry;
mod export;
mod import;

pub use entry::{check, is_entry};
pub use export::{Limit, export};
pub use import::{Import, import};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::process;
use camino::Utf8PathBuf;

/// Where ccache keeps what it has compiled, for a build with `--launcher ccache`: by `CCACHE_DIR`, its configuration or
/// its default, as ccache itself says.
///
/// Errors (exit code 4): ccache is not installed.
pub fn directory(host: &Host) -> Result<Utf8PathBuf> {
    let said = ask(host, &["-k", "cache_dir"])?;
    let dir = Utf8PathBuf::from(said.trim());
    match dir.is_absolute() {
        true => Ok(dir),
        false => Err(Error::host(format!(
            "ccache keeps its cache in `{}`: not an absolute path",
            dir.as_str().escape_debug()
        ))),
    }
}

fn ask(host: &Host, args: &[&str]) -> Result<String> {
    let env = host.child_env.iter().chain(&host.launcher_env);
    let env = env.map(|(key, value)| (key.clone(), value.clone())).collect();
    let said = process::capture("ccache", args, &env);
    said.map_err(|error| error.hint("install ccache, 4.7 or later: the package has that name everywhere"))
}
