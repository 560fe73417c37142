//! Shells complete commands and values. Each test runs the shell itself.

use crate::support::context::{TestContext, has_tool};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

/// Runs a script in `shell`, with `kcompile` in PATH, and returns what it prints.
fn run(context: &TestContext, shell: &[&str], script: &str) -> String {
    let kcompile = context.command("");
    let bin = context.path("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_kcompile"), bin.join("kcompile")).unwrap();
    }
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).current_dir(context.path("work")).env_clear();
    command.envs(kcompile.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap())).env("TERM", "dumb");
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is typed, and candidates that the shell must offer.
const CASES: [(&str, &[&str]); 7] = [
    ("kcompile pl", &["plan"]),
    ("kcompile plan 6.1", &["6.12"]),
    ("kcompile 6.1 --fc --fragment wire", &["wireguard"]),
    ("kcompile 6.1 --fc --require kubernetes-1.3", &["kubernetes-1.35"]),
    ("kcompile plan 6.1 --arch ", &["amd64", "arm64"]),
    ("kcompile config ", &["show", "why"]),
    ("kcompile inspect out/firecracker-kernel-bin-amd64", &["out/firecracker-kernel-bin-amd64:6.1.7"]),
];

fn built() -> TestContext {
    let context = TestContext::new();
    context.build("").ok();
    context
}

#[test]
fn bash_completes() {
    let context = built();
    for (typed, candidates) in CASES {
        let script = format!(
            "source <(kcompile completions bash); COMP_LINE='{typed}'; COMP_TYPE=9; IFS=' '; read -ra COMP_WORDS <<<\"$COMP_LINE\"; \
             [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _clap_complete_kcompile kcompile \"${{COMP_WORDS[COMP_CWORD]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let told = run(&context, &["bash", "--norc", "-c"], &script);
        for candidate in candidates {
            assert!(
                told.lines().any(|line| line.trim() == *candidate),
                "{typed}: `{candidate}` is not in:\n{told}"
            );
        }
    }
}

#[test]
fn fish_completes() {
    if !has_tool("fish") {
        return;
    }
    let context = built();
    for (typed, candidates) in CASES {
        let script = format!("kcompile completions fish | source; complete -C '{typed}'");
        let told = run(&context, &["fish", "--no-config", "-c"], &script);
        for candidate in candidates {
            let offered = |line: &str| line.split('\t').next() == Some(*candidate);
            assert!(told.lines().any(offered), "{typed}: `{candidate}` is not in:\n{told}");
        }
    }
}

/// zsh completes only at a prompt, so a second zsh on a pseudo terminal is one.
#[test]
fn zsh_completes() {
    if !has_tool("zsh") {
        return;
    }
    let context = built();
    for (typed, candidates) in CASES {
        let script = format!(
            "zmodload zsh/zpty; zpty z zsh -f -i; \
             zpty -w z \"stty cols 200; PS1='> '; autoload -U compinit; compinit -u -D; \
             source <(kcompile completions zsh); bindkey '^I' list-choices; print LOA''DED\"; \
             zpty -r -m z text '*LOADED*'; \
             zpty -w -n z $'{typed}\\t'; zpty -r -m z text '*{}*'; print -r -- $text",
            candidates.last().unwrap()
        );
        let told = run(&context, &["timeout", "60", "zsh", "-f", "-c"], &script);
        for candidate in candidates {
            let typed_again = usize::from(typed.contains(candidate));
            assert!(
                told.matches(candidate).count() > typed_again,
                "{typed}: `{candidate}` is not in:\n{told}"
            );
        }
    }
}

#[test]
fn a_misspelt_word_is_named_with_its_neighbour() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    for (args, says) in [
        ("bild", "did you mean `kcompile build`?"),
        ("lst", "did you mean `kcompile list`?"),
        ("--color never list", "put the command first: `kcompile list …`"),
        ("versoin", "see `kcompile list`"),
        ("6.1.7 --fc --source linux --fragment xsf", "did you mean --fragment xfs?"),
        ("6.1.7 --fc --source linux --require kubernets-1.35", "did you mean kubernetes-1.35?"),
        ("plan 6.1.7 --fc --nomodules", "--no-modules"),
    ] {
        context.run(args).failed(2, &[says]);
    }
}

#[test]
fn tags_and_archive_names_are_versions_too() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let plan = |version: &str| {
        context.run(&format!("plan {version} --fc --source linux --config mini.config --json")).ok().stdout
    };
    assert_eq!(plan("v6.1.7"), plan("6.1.7"));
    assert_eq!(plan("linux-6.1"), plan("6.1"));
}

#[test]
fn kcompile_alone_prints_an_overview() {
    let context = TestContext::new();
    let told = context.run("").ok();
    assert!(
        told.stdout.contains("\nExamples:\n") && told.stdout.contains("\nCommands:\n"),
        "{}",
        told.stdout
    );
    assert!(told.stdout.lines().count() <= 25 && told.stderr.is_empty(), "{}", told.stdout);
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 80), "{}", told.stdout);
    let fragments = context.run("list --fragments").ok().stdout;
    assert!(fragments.contains("  wireguard   WireGuard built in"), "{fragments}");
}
