//! The cache of ccache as an image, for machines that keep no state between runs. Any registry can store it.
//!
//! An entry of ccache is a file whose name is a hash of the inputs of a compilation. It ends with a checksum
//! of its bytes. Nothing else is exported or imported. The checksum detects damage but does not authenticate
//! an entry. Whoever writes the image decides what the compiler returns.

mod entry;
mod export;
mod import;
mod remote;

pub use entry::{check, is_entry};
pub use export::{Limit, export};
pub use import::{ImportSummary, import};
pub use remote::{CcacheImage, MAX_SIZE, save, warm_up, write_layout};

use crate::host::Host;
use crate::host::process::{self, CommandLine};
use crate::util::error::{Error, Kind, Result};
use crate::util::text::sanitize_line;
use camino::Utf8PathBuf;

/// Asks ccache for its cache directory, which depends on `CCACHE_DIR` and its configuration.
///
/// # Errors
///
/// ccache is not installed (exit code 4).
pub fn directory(host: &Host) -> Result<Utf8PathBuf> {
    let stdout = run_ccache(host, &["-k", "cache_dir"])?;
    let dir = Utf8PathBuf::from(stdout.trim());
    if dir.is_absolute() {
        return Ok(dir);
    }
    let dir = dir.as_str().escape_debug();
    Err(Error::host(format!("the cache directory of ccache is not an absolute path: `{dir}`")))
}

fn run_ccache(host: &Host, args: &[&str]) -> Result<String> {
    let env = host.child_env.iter().chain(&host.launcher_env);
    let env = env.map(|(key, value)| (key.clone(), value.clone())).collect();
    let command = CommandLine {
        program: "ccache".into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env,
        cwd: host.cwd.clone(),
    };
    let install = "install ccache 4.7 or later, from the package `ccache`";
    let output = process::output(&command)
        .map_err(|error| if error.kind == Kind::Host { error.hint(install) } else { error })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::host(format!("{command} failed: {}", sanitize_line(stderr.trim()))).hint(install))
}
