//! Help, errors, completions and doctor.

use crate::support::context::TestContext;
use std::os::unix::fs::symlink;

#[test]
fn help_is_grouped_and_has_examples() {
    let help = TestContext::new().run("--help").ok().stdout;
    for text in ["Examples:", "Kernel:", "Config and patches:", "Images:", "Exit codes:", "doctor"] {
        assert!(help.contains(text), "{text}:\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

const TARGET: &str = "fc ch flavor arch variant source";
const CONFIG: &str = "config fragment set builtin";
const CATALOG: &str = "patches configs";
const IMAGES: &str = "output combined-image no-modules kernel-link modules-layout compression boot";
const KBUILD: &str = "toolchain cc llvm cross-compile sandbox";
const COMPILE: &str =
    "rebuild launcher ccache-from ccache-to image-cache image-cache-key image-cache-unsigned timings";
const SOURCE: &str =
    "mirror stall-timeout from-bundle offline cache-dir require-signature keyring update-lock";

/// The commands with their options.
fn options() -> Vec<(&'static str, Vec<&'static str>)> {
    let build = [
        TARGET,
        CONFIG,
        CATALOG,
        IMAGES,
        KBUILD,
        COMPILE,
        SOURCE,
        "require jobs progress quiet verbose dry-run json",
    ];
    let final_config = [TARGET, CONFIG, CATALOG, KBUILD, SOURCE, "jobs progress quiet verbose json"];
    let written_config =
        [TARGET, CATALOG, KBUILD, SOURCE, "config require jobs progress quiet verbose dry-run"];
    // The others have no effect on a plan, and are accepted.
    let plan = [
        TARGET,
        CONFIG,
        CATALOG,
        "combined-image no-modules kernel-link modules-layout compression",
        KBUILD,
        "launcher mirror stall-timeout offline cache-dir require-signature keyring",
        "require progress quiet verbose dry-run json",
    ];
    vec![
        ("build", build.to_vec()),
        ("plan", plan.to_vec()),
        ("fetch", vec![TARGET, CATALOG, SOURCE, "bundle jobs progress quiet verbose dry-run json"]),
        (
            "add",
            vec![TARGET, CATALOG, KBUILD, SOURCE, "from require jobs progress quiet verbose dry-run json"],
        ),
        (
            "update",
            vec![
                "fc ch flavor write build boot report output data max-age require",
                CATALOG,
                KBUILD,
                COMPILE,
                SOURCE,
                "jobs progress quiet verbose json",
            ],
        ),
        ("config", vec![]),
        ("config show", [&final_config[..], &["minimal"]].concat()),
        ("config diff", [&final_config[..], &["all only settable"]].concat()),
        ("config edit", written_config.to_vec()),
        ("config save", [&written_config[..], &["merge whole"]].concat()),
        ("config set", [&written_config[..], &["with-dependencies"]].concat()),
        ("config why", final_config.to_vec()),
        ("list", vec!["fc ch flavor variant fragments configs json"]),
        ("doctor", vec!["arch llvm patches toolchain offline install json"]),
        ("check", vec!["for fc ch flavor arch variant kernel configure source builtin all json configs"]),
        ("inspect", vec!["arch json as registry"]),
        (
            "make",
            vec![
                "fc ch flavor arch variant source config fragment set patches configs jobs toolchain cc llvm cross-compile sandbox",
                "launcher builtin mirror stall-timeout from-bundle offline cache-dir require-signature keyring update-lock progress quiet verbose",
            ],
        ),
        ("extract", vec!["fc ch flavor arch variant output modules config debug images cache-dir"]),
        (
            "boot",
            vec![
                "modules fc ch flavor arch variant vmm accel root require time-limit append shell",
                "output cache-dir progress quiet verbose json",
            ],
        ),
        ("verify", vec!["max-bin-size max-modules-size rebuild progress quiet verbose json"]),
        (
            "cve",
            vec![
                "compiled fc ch flavor arch variant output fail-on unscored undetermined show json markdown vex attach",
                "data max-age offline cache-dir progress quiet verbose",
            ],
        ),
        ("diff", vec!["arch html max-bin-size max-modules-size json"]),
        (
            "push",
            vec![
                "output tls-verify authfile retry-times progress quiet verbose dry-run json no-attest no-overwrite tag-series tag-build sign sign-passphrase",
            ],
        ),
        ("cache dir", vec!["cache-dir"]),
        ("cache size", vec!["json cache-dir"]),
        ("cache ls", vec!["json cache-dir"]),
        ("cache check", vec!["json cache-dir"]),
        ("cache prune", vec!["older-than dry-run json cache-dir"]),
        ("ccache export", vec!["max-size used-within progress"]),
        ("ccache import", vec!["progress"]),
        ("toolchain make", vec!["output arch mirror cache-dir progress quiet verbose"]),
        ("toolchain list", vec!["json cache-dir"]),
        ("toolchain check", vec!["arch llvm json"]),
        ("clean", vec!["sources builds older-than dry-run json cache-dir"]),
        ("completions", vec![]),
        ("man", vec!["output"]),
    ]
}

#[test]
fn help_lists_the_options_of_each_command() {
    let context = TestContext::new();
    for (command, options) in options() {
        let help = context.run(&format!("{command} --help")).ok().stdout;
        let listed = help.lines().filter_map(|line| {
            let option = line
                .strip_prefix("      --")
                .or_else(|| line.strip_prefix("  -")?.get(3..)?.strip_prefix("--"));
            option?.split([' ', '[']).next()
        });
        let mut listed: Vec<&str> = listed.filter(|option| !["help", "color"].contains(option)).collect();
        assert!(help.contains("--color <WHEN>"), "kcompile {command} --help");
        let mut expected: Vec<&str> = options.iter().flat_map(|group| group.split(' ')).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "kcompile {command} --help");
    }
}

#[test]
fn options_of_other_commands_are_refused() {
    let context = TestContext::new();
    for (command, option) in [
        ("fetch 6.1.7 --fc", "--compression zstd"),
        ("fetch 6.1.7 --fc", "--config mini.config"),
        ("fetch 6.1.7 --fc", "--set KSM=n"),
        ("fetch 6.1.7 --fc", "--output x"),
        ("fetch 6.1.7 --fc", "--boot"),
        ("fetch 6.1.7 --fc", "--llvm"),
        ("fetch 6.1.7 --fc", "--timings"),
        ("add 6.6.60 --fc", "--config mini.config"),
        ("add 6.6.60 --fc", "--combined-image"),
        ("config show 6.1.7 --fc", "--launcher ccache"),
        ("config show 6.1.7 --fc", "--dry-run"),
        ("config diff 6.1.7 6.12.1 --fc", "--require none"),
        ("config edit 6.1.7 --fc", "--json"),
        ("config save mini.config 6.1.7 --fc", "--set PSI=y"),
    ] {
        let name = option.split(' ').next().unwrap();
        let says = format!("unexpected argument '{name}' found");
        let usage = if option == "--json" { "\"kind\":\"usage\"" } else { "Usage: kcompile " };
        context.run(&format!("{command} {option}")).failed(2, &[&says, usage]);
    }
}

#[test]
fn the_version_names_the_catalog() {
    let version = TestContext::new().run("--version").ok().stdout;
    assert!(version.starts_with("kcompile 0.") && version.contains("(catalog "), "{version}");
}

#[test]
fn completions_and_man_pages_are_generated() {
    let context = TestContext::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = context.run(&format!("completions {shell}")).ok().stdout;
        assert!(script.contains("KCOMPILE_COMPLETE"), "{shell}:\n{script}");
    }
    assert!(context.run("man plan").ok().stdout.contains("changes nothing"));
    context.run("man nothing").failed(2, &["unknown command `nothing`"]);
    let man = context.run("man").ok().stdout;
    assert!(man.starts_with(".ie") && man.contains("KCOMPILE_MIRROR"), "{man}");
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let context = TestContext::new();
    context.run("sixpointone --fc").failed(2, &["error: `sixpointone` is not a kernel version", "hint:"]);
    context.run("6.1 --fc --ch").failed(2, &["cannot be used with"]);
    context.run("6.1 --fc -j 0").failed(2, &["-j"]);
    context.run("6.1 --fc --kernel-link ../x").failed(2, &["path of a file inside the image"]);
    context.run("6.1 --fc --source apt:-o=evil").failed(2, &["not the name of a package"]);
    context.run("6.1 --fc --source nowhere.tar.xz").failed(2, &["no such file or directory"]);
    context.run("6.1 --fc --mirror ftp://x").failed(2, &["not an http or https URL"]);
    context.run("all").failed(2, &["--fc or --ch"]);
}

/// Returns a directory with links to the host's programs, except for some.
fn path_without(context: &TestContext, missing: &[&str]) -> String {
    let bin = context.path("bin");
    std::fs::create_dir(&bin).unwrap();
    for dir in std::env::var("PATH").unwrap().split(':').chain(["/usr/sbin", "/sbin"]) {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !missing.iter().any(|missing| name == *missing) {
                // If two directories have the same program, the first one wins.
                let _ = symlink(entry.path(), bin.join(name.to_str().unwrap()));
            }
        }
    }
    bin.into_string()
}

#[test]
fn a_missing_tool_is_named_before_anything_is_fetched() {
    let mut context = TestContext::new();
    let server = crate::support::servers::files([]);
    let path = path_without(&context, &["flex", "bc", "gcc"]);
    context.env.insert("PATH".into(), path);
    // The administrators' directories are searched too, so none of the three tools may be there.
    context.env.insert("KCOMPILE_MIRROR".into(), server.url.clone());
    let ran = context.run("6.1.7 --fc").failed(4, &["this host lacks", "gcc", "flex", "bc"]);
    assert!(!ran.stderr.contains("bison"), "{}", ran.stderr);
    assert!(server.log.lock().unwrap().is_empty() && !context.path("cache").exists());
    let told = context.run("doctor --offline");
    assert_eq!(told.code, 4);
    assert!(
        told.stdout.contains("MISSING   flex") && told.stdout.contains("to install what is missing"),
        "{}",
        told.stdout
    );
    let json = context.run("doctor 6.1 --json").item();
    assert!(
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "flex" && one["found"].is_null())
    );
}

#[test]
fn doctor_passes_on_this_host() {
    let context = TestContext::new();
    for version in ["4.19.215", "5.15.12", "6.1", "all"] {
        context.run(&format!("doctor {version}")).ok();
    }
    let told = context.run("doctor 6.1").ok().stdout;
    assert!(told.contains("nothing is missing") && told.contains("libelf.h"), "{told}");
}

#[test]
fn doctor_without_a_version_is_an_overview_of_the_host() {
    let mut context = TestContext::new();
    let server = crate::support::servers::files([]);
    context.env.insert("KCOMPILE_MIRROR".into(), server.url.clone());
    let lacks_skopeo = path_without(&context, &["skopeo"]);
    context.env.insert("PATH".into(), lacks_skopeo);
    let told = context.run("doctor").ok().stdout;
    for name in [
        "make",
        "gcc",
        "qemu-system-",
        "skopeo",
        "pahole",
        "ccache",
        "aarch64-linux-gnu-gcc",
        "busybox",
        "KVM",
        "cache",
        "disk",
        "sandbox",
    ] {
        let has_row = told
            .lines()
            .any(|line| line.split_whitespace().nth(1).is_some_and(|word| word.starts_with(name)));
        assert!(has_row, "{name} is not in:\n{told}");
    }
    let row = |name: &str| {
        let rows = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.into_iter().find(|row| row.get(1) == Some(&name)).unwrap_or_else(|| panic!("{name}:\n{told}"))
    };
    assert!(row("make")[2].starts_with(|c: char| c.is_ascii_digit()), "{told}");
    assert_eq!(row("skopeo")[0], "optional");
    assert_eq!((row("mirror")[0], row("mirror")[3]), ("ok", "answers"), "{told}");
    assert!(told.ends_with("nothing is missing\n"), "{told}");
    assert_eq!(server.log.lock().unwrap().len(), 1);
    assert!(context.run("doctor --offline").ok().stdout.contains("not asked"));
    assert_eq!(server.log.lock().unwrap().len(), 1, "--offline asks nobody");
    let json = context.run("doctor --offline --json").ok().json();
    let host = json["host"].as_array().unwrap();
    assert!(host.iter().any(|fact| fact["name"] == "mirror" && fact["status"] == "skipped"), "{json:#}");
    // A mirror that does not answer is no failure.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    context.env.insert("KCOMPILE_MIRROR".into(), format!("http://127.0.0.1:{port}"));
    let told = context.run("doctor").ok().stdout;
    assert!(told.contains("Connection refused"), "{told}");
}

#[test]
fn without_home_only_the_cache_directory_is_missing() {
    let context = TestContext::new();
    let run = |args: &str| {
        let output = context.command(args).env_remove("HOME").env_remove("KCOMPILE_CACHE_DIR").output();
        crate::support::context::run_result(output.unwrap())
    };
    run("list").ok();
    run("plan 6.1 --fc").failed(2, &["HOME is not set", "--cache-dir"]);
    run("plan 6.1 --fc --cache-dir here").ok();
}

#[test]
fn a_closed_standard_error_does_not_stop_a_build() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let mut command = context.command("6.1.7 --fc --source linux --config mini.config");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(command.stderr(writer).output().unwrap().status.success());
}

#[test]
fn old_spellings_still_work_and_are_hidden() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let plan = "plan 6.1.7 --fc --config mini.config --source linux --json";
    let combined = context.run(&format!("{plan} --combined-image")).ok().stdout;
    assert!(combined.contains("\"combined\""), "{combined}");
    for (old, new) in [
        (format!("{plan} --legacy"), format!("{plan} --combined-image")),
        (format!("{plan} --also-at k/linux"), format!("{plan} --kernel-link k/linux")),
        ("clean --cache --json".into(), "clean --sources --json".into()),
        ("doctor --cache --json".into(), "cache check --json".into()),
        ("cache export oci:warm/ccache".into(), "ccache export oci:warm/ccache".into()),
        ("cache import oci:nowhere:x --progress plain".into(), "ccache import oci:nowhere:x".into()),
    ] {
        let (by_old, by_new) = (context.run(&old), context.run(&new));
        assert_eq!((&by_old.stdout, &by_old.stderr), (&by_new.stdout, &by_new.stderr), "{old}");
        assert!(!by_new.stderr.contains("unexpected argument"), "{}", by_new.stderr);
    }
    for (command, old) in [
        ("build", "--legacy"),
        ("build", "--also-at"),
        ("clean", "--cache "),
        ("doctor", "--cache"),
        ("cache", "export"),
        ("cache", "import"),
    ] {
        let help = context.run(&format!("{command} --help")).ok().stdout;
        assert!(!help.contains(&format!("  {old}")), "{old} in {help}");
    }
}

#[test]
fn the_cache_is_shown_and_pruned() {
    let context = TestContext::new();
    let json =
        |args: &str| -> serde_json::Value { serde_json::from_str(&context.run(args).ok().stdout).unwrap() };
    assert!(context.run("cache size --cache-dir nowhere").ok().stdout.contains("0 B  in "));
    assert!(!context.path("work/nowhere").exists());
    context.build("").ok();
    assert_eq!(context.run("cache dir").ok().stdout.trim(), context.path("cache").as_str());
    let listed = json("cache ls --json");
    let items = listed["items"].as_array().unwrap();
    let bytes: u64 = items.iter().map(|item| item["bytes"].as_u64().unwrap()).sum();
    assert!(bytes > 0 && items.iter().any(|item| item["what"] == "build directory"), "{listed}");
    assert_eq!(
        (json("cache size --json")["bytes"].as_u64(), listed["schema"].as_u64()),
        (Some(bytes), Some(1))
    );
    assert_eq!(context.run("cache ls").ok().stdout.lines().count(), items.len());
    assert!(context.run("cache size").ok().stdout.contains("packed images (1)"));
    assert_eq!(json("cache prune --json")["items"], serde_json::json!([]), "everything was just used");
    assert!(!json("cache prune --older-than 0m --dry-run --json")["items"].as_array().unwrap().is_empty());
    assert_eq!(
        json("cache ls --json")["items"].as_array().unwrap().len(),
        items.len(),
        "a dry run leaves all"
    );
    context.run("cache prune --older-than 0m").ok();
    assert!(context.names("cache/images").is_empty());
}

/// Programs that end at the same time may print, too.
#[test]
fn every_line_of_a_message_is_written_at_once() {
    let context = TestContext::new();
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let theirs = std::os::fd::OwnedFd::from(theirs);
    let mut command = context.command("sixpointone --fc");
    assert_eq!(command.stderr(theirs).status().unwrap().code(), Some(2));
    drop(command);
    let mut buffer = [0; 4096];
    let mut text = String::new();
    while !text.contains("hint: ") || !text.ends_with('\n') {
        let size = ours.recv(&mut buffer).unwrap();
        let written = std::str::from_utf8(&buffer[..size]).unwrap();
        assert!(written.ends_with('\n'), "`{written}` is a part of a line");
        text.push_str(written);
    }
}
