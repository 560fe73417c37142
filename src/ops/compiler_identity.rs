//! Identifies the programs of a toolchain. The version identifies a tool of the distribution. Wrapper scripts
//! and tools from elsewhere may change without a new version, so their digest identifies them.

use crate::host::{Host, process};
use crate::kbuild::launcher::Tool;
use crate::plan::request::ToolchainChoice;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::io::Read;

/// Tools that only some configs need.
pub const OTHER_TOOLS: [&str; 4] = ["bindgen", "depmod", "pahole", "rustc"];

/// Returns the command of each tool that compiles, assembles, links or strips, and of an unknown launcher.
pub fn compiler_commands(
    choice: &ToolchainChoice,
    cc: &str,
    host_cc: &str,
    ld: &str,
    prefix: &str,
) -> BTreeMap<String, String> {
    let prefix = if choice.llvm { "llvm-" } else { prefix };
    let mut commands: BTreeMap<_, _> = [("cc", cc), ("hostcc", host_cc), ("ld", ld)]
        .map(|(tool, command)| (tool.to_owned(), command.to_owned()))
        .into();
    for tool in ["ar", "nm", "objcopy", "strip"] {
        commands.insert(tool.to_owned(), format!("{prefix}{tool}"));
    }
    if !choice.llvm {
        commands.insert("as".to_owned(), format!("{prefix}as"));
    }
    let launcher = choice.launcher.as_ref().filter(|launcher| Tool::of(launcher).is_none());
    commands.extend(launcher.map(|launcher| ("launcher".to_owned(), launcher.clone())));
    commands
}

/// Returns the digests of the tools in `commands` that are not the distribution's, and of the `cc1` that such
/// a `cc` runs. `hash` reads a file.
///
/// The digest of a script covers only the script. Of the programs that it runs, only `cc1` is found.
pub fn digest_programs(
    commands: &BTreeMap<String, String>,
    host: &Host,
    mut hash: impl FnMut(&Utf8Path) -> Result<Sha256>,
) -> Result<BTreeMap<String, Sha256>> {
    let is_unknown = |file: &Utf8Path| !is_distribution_file(file) && !host.is_pinned(file);
    let mut programs = BTreeMap::new();
    for (tool, command) in commands {
        let argv = shlex::split(command).unwrap_or_default();
        // Any word may name the wrapper, as in `ccache gcc` and `env X=1 gcc`.
        let files = argv.iter().filter_map(|word| host.find_program(word)).filter(|file| is_unknown(file));
        let digests = files.map(|file| hash(&file)).collect::<Result<Vec<_>>>()?;
        match &digests[..] {
            [] => continue,
            [one] => programs.insert(tool.clone(), *one),
            several => programs.insert(tool.clone(), Sha256::of(format!("{several:?}"))),
        };
        if tool == "cc"
            && let Some(cc1) = find_cc1(&argv, host)?.filter(|cc1| is_unknown(cc1))
        {
            programs.insert("cc1".to_owned(), hash(&cc1)?);
        }
    }
    Ok(programs)
}

/// Returns whether a program is the distribution's and not a script.
fn is_distribution_file(program: &Utf8Path) -> bool {
    let Ok(real) = program.canonicalize_utf8() else { return false };
    let is_packaged = ["/usr", "/bin", "/sbin", "/lib", "/lib64"].iter().any(|dir| real.starts_with(dir));
    let mut start = [0; 2];
    let is_script = open_file(&real, Links::Follow).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *b"#!";
    is_packaged && !real.starts_with("/usr/local") && !is_script
}

/// Finds the program that gcc runs to compile C. clang compiles in its own process.
fn find_cc1(cc: &[String], host: &Host) -> Result<Option<Utf8PathBuf>> {
    let Some(program) = cc.first().and_then(|program| host.find_program(program)) else { return Ok(None) };
    let args: Vec<&str> = cc[1..].iter().map(String::as_str).chain(["-print-prog-name=cc1"]).collect();
    let stdout = process::capture(program.as_str(), &args, &host.child_env)?;
    Ok(stdout.and_then(|stdout| host.find_program(stdout.trim())))
}
