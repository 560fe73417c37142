//! Arranges the help of all commands. `-h` has one line for each option, and `--help` the rest.

use clap::builder::PossibleValue;
use clap::{Arg, Command};
use std::fmt::Write as _;

/// Options of a build that `plan` accepts, so that a command line of a build needs no change, but does not use.
const UNUSED_BY_PLAN: [&str; 12] = [
    "jobs",
    "rebuild",
    "timings",
    "boot",
    "output",
    "from_bundle",
    "update_lock",
    "ccache_from",
    "ccache_to",
    "image_cache",
    "image_cache_key",
    "image_cache_unsigned",
];

/// The end of the help of commands below another one, by their name.
const EXAMPLES: [(&str, &str); 16] = [
    (
        "config show",
        "  kcompile config show 6.1 --fc                  the .config of a build
  kcompile config show 6.1 --fc --minimal        only what differs from defaults
  kcompile config show 6.1 --fc --set KSM=n > new.config",
    ),
    (
        "config diff",
        "  kcompile config diff 6.1 6.12 --fc
  kcompile config diff my.config out/firecracker-kernel-modules-amd64:6.1.7
  kcompile config diff 6.1 6.12 --fc --only new --all",
    ),
    (
        "config edit",
        "  kcompile config edit 6.1 --fc                  the config of the catalog
  kcompile config edit 6.1.7 --fc --config my.config",
    ),
    (
        "config save",
        "  kcompile config save new.config 6.1 --fc
  kcompile config save part.config 6.1 --fc --merge",
    ),
    (
        "config set",
        "  kcompile config set 6.1 --fc XFS_FS=m
  kcompile config set 6.1 --fc XFS_RT=y --with-dependencies
  kcompile config set 6.1 --fc KSM=n --dry-run   print the config",
    ),
    (
        "config why",
        "  kcompile config why 6.1 --fc XFS_FS
  kcompile config why 6.1 --fc KSM SWAP --json   for a script",
    ),
    ("cache dir", "  cd \"$(kcompile cache dir)\""),
    (
        "cache size",
        "  kcompile cache size
  kcompile cache size --json                     for a script",
    ),
    (
        "cache ls",
        "  kcompile cache ls
  kcompile cache ls --json                       for a script",
    ),
    ("cache check", "  kcompile cache check                           after a power failure"),
    (
        "cache prune",
        "  kcompile cache prune                           unused for 30 days
  kcompile cache prune --older-than 2w --dry-run",
    ),
    (
        "ccache export",
        "  kcompile ccache export oci:warm/ccache:6.1 --max-size 500MB
  kcompile ccache export oci:warm/ccache:6.1 --used-within 7d",
    ),
    ("ccache import", "  kcompile ccache import oci:warm/ccache:6.1"),
    (
        "toolchain make",
        "  kcompile toolchain make debian:bookworm -o oci:toolchains/debian:bookworm
  kcompile toolchain make debian:sid --arch arm64 -o oci:tools/debian:sid",
    ),
    (
        "toolchain list",
        "  kcompile toolchain list
  kcompile toolchain list --json",
    ),
    (
        "toolchain check",
        "  kcompile toolchain check oci:toolchains/debian:bookworm
  kcompile toolchain check kernel.org:gcc-14.2.0 --arch arm64",
    ),
];

/// Arranges the help of `command`, which is the whole command line.
pub fn arrange(command: Command) -> Command {
    command
        .mut_subcommand("plan", |plan| {
            UNUSED_BY_PLAN.iter().fold(plan, |plan, unused| plan.mut_arg(*unused, |arg| arg.hide(true)))
        })
        .mut_subcommands(|command| add_examples("", command))
}

fn add_examples(parent: &str, command: Command) -> Command {
    let name = format!("{parent}{}", command.get_name());
    let below = format!("{name} ");
    let command = command.mut_subcommands(|inner| add_examples(&below, inner));
    match EXAMPLES.iter().find(|(of, _)| *of == name) {
        Some((_, examples)) => command.after_long_help(format!("Examples:\n{examples}")),
        None => command,
    }
}

/// Moves the values of options to the long help. The first line of an option names them.
pub fn list_values(command: Command) -> Command {
    command.mut_args(list_values_of).mut_subcommands(list_values)
}

fn list_values_of(arg: Arg) -> Arg {
    let values: Vec<PossibleValue> = arg.get_possible_values();
    if values.is_empty() || !arg.get_action().takes_values() {
        return arg;
    }
    let described: Vec<&PossibleValue> = values.iter().filter(|value| value.get_help().is_some()).collect();
    let arg = arg.hide_possible_values(true);
    if described.is_empty() {
        return arg;
    }
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = format!("{help}\n\nPossible values:");
    for value in described {
        let what = value.get_help().map(ToString::to_string).unwrap_or_default();
        write!(text, "\n- {}: {what}", value.get_name()).expect("writing to a string");
    }
    arg.long_help(text)
}
