//! Runs make with the user's own targets.

use super::{BuildDir, COMPILED, MAKE_PID};
use crate::host::process;
use crate::util::error::{Error, Result};
use crate::util::fs::{remove_tree, write_atomically};
use std::collections::BTreeMap;
use std::io::Write;

impl BuildDir<'_> {
    /// Runs make with `words`, which are targets and variables. Its output goes to the terminal.
    ///
    /// # Errors
    ///
    /// Exit code 1 if make fails.
    pub fn run_targets(&self, words: &[String]) -> Result<()> {
        // The targets may change or remove what the last build compiled.
        remove_tree(&self.path.join(COMPILED))?;
        // If make fails or is killed, the next run looks for half-written files.
        let mark = self.path.join(MAKE_PID);
        write_atomically(&mark, b"")?;
        let targets: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.make_command(&targets, &BTreeMap::new());
        command.args.push("--no-print-directory".to_owned());
        command.env.extend(self.host.terminal_env.clone());
        let _ = writeln!(&self.log, "+ {command}");
        if !process::run_interactive(&self.sandbox.wrap(&command))?.success() {
            return Err(Error::build(format!("make {} failed", targets.join(" ")))
                .hint(format!("make's own messages are above, and its command is in {}", self.log_path)));
        }
        remove_tree(&mark)
    }
}
