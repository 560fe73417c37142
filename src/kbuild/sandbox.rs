//! What the kernel's own build scripts may do beside building: no network, nothing written into the source, no
//! sight of the user's environment and home directory. It decides no byte of an image.
//!
//! Network and source are taken away by namespaces, which `unshare`, `mount` and `setpriv` of util-linux make
//! without root where the kernel of the host lets them; the rest needs nothing. It is a fence against scripts
//! that do what they should not, and no wall: what the user may read elsewhere on the disk, they may read.

use crate::host::Host;
use crate::host::process::{self, CommandLine};
use crate::kbuild::launcher::Tool;
use crate::util::error::{Error, Result};
use crate::util::fs::create_dir;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::collections::BTreeMap;

/// `--sandbox`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// As far as the host lets us; what it does not is said.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// All of it, or an error.
    #[serde(rename = "on")]
    On,
    /// None of it.
    #[serde(rename = "off")]
    Off,
}

/// How far it goes: for the receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// What was asked for.
    #[serde(rename = "asked")]
    pub asked: Choice,
    /// `none`, or the `host`'s.
    pub network: &'static str,
    /// `read-only`, or `writable` as far as its modes let the user.
    pub source: &'static str,
    /// `private`, or the `user`'s own.
    pub home: &'static str,
    /// Why it is not all of it.
    #[serde(rename = "why")]
    pub why: Option<String>,
}

impl Confinement {
    /// Is it what `--sandbox on` asks for?
    pub fn is_whole(&self) -> bool {
        self.network == "none" && self.source == "read-only"
    }
}

/// A sandbox that is there to be used.
#[derive(Debug)]
pub struct Sandbox {
    /// How far it goes.
    pub confinement: Confinement,
    /// What stands before the program.
    words: Vec<String>,
    /// The environment in it.
    env: BTreeMap<String, String>,
}

/// The tree becomes read-only with all that is mounted in it, but for the build directory, which may lie in it; and
/// nobody in there can undo it. `$1` the tree, `$2` the build directory; then pairs up to `--`: what to make
/// read-only, and how its file system is mounted: what the host has forbidden on it must be said again.
const SCRIPT: &str = "\
mount -n --rbind \"$1\" \"$1\" && mount -n --rbind \"$2\" \"$2\" || exit
build=$2
shift 2
while [ \"$1\" != -- ]; do
\tmount -n -o \"remount,bind,ro$2\" \"$1\" || exit
\tshift 2
done
cd \"$build\" || exit
shift
exec setpriv --bounding-set=-sys_admin --inh-caps=-all --ambient-caps=-all --no-new-privs -- \"$@\"";

impl Sandbox {
    /// None at all.
    pub fn none(host: &Host) -> Sandbox {
        let confinement =
            Confinement { asked: Choice::Off, network: "host", source: "writable", home: "user", why: None };
        Sandbox { confinement, words: Vec::new(), env: host.child_env.clone() }
    }

    /// Finds out how far `choice` can be had here for a build of `tree` in `build`. `private` is an empty
    /// directory, for HOME and TMPDIR.
    ///
    /// Errors: `--sandbox on` cannot be had, since the host does not let us (exit code 4) or the launcher
    /// works through the network (2).
    pub fn find(
        choice: Choice,
        (tree, build): (&Utf8Path, &Utf8Path),
        launcher: Option<&str>,
        private: &Utf8Path,
        host: &Host,
    ) -> Result<Sandbox> {
        let Sandbox { mut confinement, mut words, mut env } = Sandbox::none(host);
        if choice == Choice::Off {
            return Ok(Sandbox { confinement, words, env });
        }
        confinement.asked = choice;
        let tmp = private.join("tmp");
        create_dir(&tmp)?;
        env.insert("TMPDIR".into(), tmp.into_string());
        // A launcher keeps what it has compiled, and its settings, in the user's home directory.
        if launcher.is_none() {
            let home: Utf8PathBuf = private.join("home");
            create_dir(&home)?;
            env.insert("HOME".into(), home.into_string());
            confinement.home = "private";
        }
        // ccache may be told to ask a server, too.
        let asks_others = host.launcher_env.contains_key("CCACHE_REMOTE_STORAGE");
        let found = match launcher.filter(|launcher| asks_others || !works_alone(launcher)) {
            Some(launcher) if choice == Choice::On => {
                return Err(Error::usage(format!("--sandbox on: {launcher} works through the network"))
                    .hint("with it, --sandbox auto keeps the rest of the sandbox"));
            }
            Some(launcher) => Err(format!("{launcher} works through the network")),
            None => namespaces(tree, build, &env, host),
        };
        match found {
            Ok(found) => {
                (confinement.network, confinement.source) = ("none", "read-only");
                words = found;
            }
            Err(why) if choice == Choice::On => {
                return Err(Error::host(format!("--sandbox on: this host does not let us: {why}"))
                    .hint("--sandbox auto goes as far as it can"));
            }
            Err(why) => confinement.why = Some(why),
        }
        Ok(Sandbox { confinement, words, env })
    }

    /// Are there other users in it? In a user namespace there is only its own.
    pub fn owners_show(&self) -> bool {
        !self.words.iter().any(|word| word == "--user")
    }

    /// The environment in it: what make may see of ours.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The command line that runs `command` in it.
    pub fn wrap(&self, command: &CommandLine) -> CommandLine {
        let mut words = self.words.iter().chain([&command.program]).chain(&command.args).cloned();
        let program = words.next().expect("at least the program itself");
        CommandLine { program, args: words.collect(), env: command.env.clone(), cwd: command.cwd.clone() }
    }
}

/// Does the launcher do without a network? ccache looks into its own directory; all others ask other machines, or a
/// server on this one.
fn works_alone(launcher: &str) -> bool {
    Tool::of(launcher) == Some(Tool::Ccache)
}

/// The words that make the namespaces, tried out; or why not.
fn namespaces(
    tree: &Utf8Path,
    build: &Utf8Path,
    env: &BTreeMap<String, String>,
    host: &Host,
) -> Result<Vec<String>, String> {
    const AS_ROOT: &[&str] = &["unshare", "--net", "--mount"];
    const AS_USER: &[&str] = &["unshare", "--user", "--map-current-user", "--keep-caps", "--net", "--mount"];
    // In a user's namespace root could not read what is another user's.
    let ways: &[&[&str]] = if host.root { &[AS_ROOT, AS_USER] } else { &[AS_USER] };
    let mut why = String::new();
    for way in ways {
        let mut words: Vec<String> = way.iter().map(|word| (*word).to_owned()).collect();
        let script = ["--", "sh", "-c", SCRIPT, "sandbox", tree.as_str(), build.as_str()];
        words.extend(script.map(str::to_owned));
        for place in [tree.to_owned()].into_iter().chain(mounts_in(tree, build)) {
            let flags = mounted_with(&place);
            words.extend([place.into_string(), flags]);
        }
        words.push("--".to_owned());
        let probe = CommandLine {
            program: words[0].clone(),
            args: words[1..].iter().cloned().chain(["true".to_owned()]).collect(),
            env: env.clone(),
            cwd: build.to_owned(),
        };
        match process::output(&probe) {
            Ok(output) if output.status.success() => return Ok(words),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                why = said.lines().next().unwrap_or("unshare failed and said nothing").trim().to_owned();
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// What is mounted below `tree` and not in `build`: a source directory may hold such a place, and its digest counts
/// what is there.
fn mounts_in(tree: &Utf8Path, build: &Utf8Path) -> Vec<Utf8PathBuf> {
    let real = |path: &Utf8Path| path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned());
    let (tree, build) = (real(tree), real(build));
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let is_inside =
        |place: &Utf8PathBuf| place.starts_with(&tree) && *place != tree && !place.starts_with(&build);
    let mut places: Vec<_> = mounts.lines().filter_map(mount_point).filter(is_inside).collect();
    places.sort();
    places.dedup();
    places
}

/// The mount point in a line of mountinfo, in which proc(5) writes some characters as `\040`.
fn mount_point(line: &str) -> Option<Utf8PathBuf> {
    let mut path = line.split(' ').nth(4)?.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escaped, plain);
    }
    Some(path.into())
}

/// What the file system of `tree` must not do, as options of mount(8): in a user namespace these cannot be
/// left out when it is mounted anew.
fn mounted_with(tree: &Utf8Path) -> String {
    use rustix::fs::StatVfsMountFlags as Flags;
    let flags = rustix::fs::statvfs(tree.as_std_path()).map_or(Flags::empty(), |told| told.f_flag);
    let all = [
        (Flags::NOSUID, ",nosuid"),
        (Flags::NODEV, ",nodev"),
        (Flags::NOEXEC, ",noexec"),
        (Flags::NOATIME, ",noatime"),
        (Flags::NODIRATIME, ",nodiratime"),
        (Flags::RELATIME, ",relatime"),
    ];
    all.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, option)| *option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ccache_does_without_a_network() {
        assert!(works_alone("ccache") && works_alone("/usr/bin/ccache -x"));
        assert!(!works_alone("distcc") && !works_alone("icecc") && !works_alone("sccache"));
        assert!(!works_alone("env CCACHE_PREFIX=distcc ccache"));
    }

    #[test]
    fn a_mount_point_may_have_a_space_in_it() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_point(line).unwrap(), "/mnt 2");
    }

    #[test]
    fn the_program_stands_after_the_words() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let confinement = Confinement {
            asked: Choice::On,
            network: "none",
            source: "read-only",
            home: "private",
            why: None,
        };
        let sandbox = Sandbox { confinement, words: words(&["unshare", "--"]), env: BTreeMap::new() };
        let make = CommandLine {
            program: "make".into(),
            args: words(&["-j2"]),
            env: BTreeMap::new(),
            cwd: "/o".into(),
        };
        assert_eq!(sandbox.wrap(&make).to_string(), "unshare -- make -j2");
        let none = Sandbox { words: Vec::new(), ..sandbox };
        assert_eq!(none.wrap(&make).to_string(), "make -j2");
    }
}
