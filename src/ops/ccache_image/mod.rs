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
pub use import::{ImportSummary, import};

use crate::host::Host;
use crate::host::process::{self, CommandLine};
use crate::util::error::{Error, Kind, Result};
use crate::util::text::sanitize_line;
use camino::Utf8PathBuf;

/// Where ccache keeps what it has compiled, for a build with `--launcher ccache`: by `CCACHE_DIR`, its configuration or
/// its default, as ccache itself says.
///
/// Errors (exit code 4): ccache is not installed.
pub fn directory(host: &Host) -> Result<Utf8PathBuf> {
    let stdout = run_ccache(host, &["-k", "cache_dir"])?;
    let dir = Utf8PathBuf::from(stdout.trim());
    match dir.is_absolute() {
        true => Ok(dir),
        false => Err(Error::host(format!(
            "ccache keeps its cache in `{}`: not an absolute path",
            dir.as_str().escape_debug()
        ))),
    }
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
    let install = "install ccache, 4.7 or later: the package has that name everywhere";
    let output = process::output(&command)
        .map_err(|error| if error.kind == Kind::Host { error.hint(install) } else { error })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let stdout = String::from_utf8_lossy(&output.stderr);
            Err(Error::host(format!("{command} failed: {}", sanitize_line(stdout.trim()))).hint(install))
        }
    }
}
