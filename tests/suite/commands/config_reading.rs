//! How configs that the user gives are read: comments, bad lines, repeated symbols, gzip.

use crate::support::context::TestContext;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;

const HEADER: &str = "# Linux/x86 6.1.7 Kernel Configuration\n";
const COMMENTED: &str = "CONFIG_PSI=y # pressure\nCONFIG_KSM=y\n# CONFIG_KSM is not set # saves time\n\
                         CONFIG_CMDLINE=\"quiet\"  # a string\n";

fn context(text: &str) -> TestContext {
    let context = TestContext::new();
    fs::write(context.path("work/x.config"), text).unwrap();
    context
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn comments_and_a_byte_order_mark_are_read_alike_by_every_command() {
    let context = context(&format!("\u{feff}CONFIG_NET=y # first\n{HEADER}{COMMENTED}"));
    fs::write(
        context.path("work/same.config"),
        "CONFIG_NET=y\nCONFIG_PSI=y\n# CONFIG_KSM is not set\nCONFIG_CMDLINE=\"quiet\"\n",
    )
    .unwrap();
    let diff = context.run("config diff x.config same.config --fc").ok().stdout;
    assert!(diff.ends_with("\nthe settings are equal\n"), "{diff}");
    context.run("plan 6.1 --fc --config x.config").ok();
    context.run("plan 6.1 --fc --fragment x.config").ok();
    let check = context.run("check x.config --fc --arch amd64 --all --json");
    assert!(check.stdout.contains("\"kernel\": \"6.1.7\""), "{}", check.stdout);
}

#[test]
fn a_line_that_is_no_setting_is_an_error_in_a_given_config() {
    let context =
        context(&format!("{HEADER}CONFIG_NET=y\nCONFIG_PSI=y\nCONFIG_KSM=y\nCONFIG_NR_CPUS=64 # eight\n"));
    for command in [
        "plan 6.1 --fc --config x.config",
        "plan 6.1 --fc --fragment x.config",
        "check x.config --fc --arch amd64",
        "config diff x.config x.config",
    ] {
        let says = ["x.config:5: not a setting: `CONFIG_NR_CPUS=64 # eight`", "not after a number"];
        context.run(command).failed(2, &says);
    }
}

#[test]
fn a_number_without_a_value_is_skipped_in_a_config_and_refused_in_a_fragment() {
    let context = context("CONFIG_NET=y\nCONFIG_PANIC_TIMEOUT=\n");
    context.run("plan 6.1 --fc --config x.config").ok();
    context.run("plan 6.1 --fc --fragment x.config").failed(2, &["CONFIG_PANIC_TIMEOUT= has no value"]);
}

#[test]
fn a_symbol_that_is_set_twice_is_reported() {
    let context = context(&format!("{HEADER}{COMMENTED}"));
    let says = "x.config: CONFIG_KSM is set at lines 3 and 4; the last line counts";
    assert!(context.run("plan 6.1 --fc --config x.config").ok().stdout.contains(says));
    assert!(context.run("plan 6.1 --fc --fragment x.config").ok().stdout.contains(says));
    context.run("check x.config --fc --arch amd64").says(says);
    context.run("config diff x.config x.config").ok().says(says);
}

#[test]
fn a_compressed_config_is_read_like_a_plain_one() {
    let context = context(&format!("{HEADER}{COMMENTED}"));
    fs::write(context.path("work/config.gz"), gzip(format!("{HEADER}{COMMENTED}").as_bytes())).unwrap();
    let plan = |config: &str| {
        let json = context.run(&format!("plan 6.1 --fc {config} --json")).ok().stdout;
        json.replace("x.config", "config.gz")
    };
    assert_eq!(plan("--config config.gz"), plan("--config x.config"));
    assert_eq!(plan("--fragment config.gz"), plan("--fragment x.config"));
    assert!(context.run("config diff x.config config.gz").ok().stdout.ends_with("the settings are equal\n"));
    assert!(context.run("check config.gz --fc --arch amd64").stdout.contains("Linux 6.1.7 on amd64"));
    context
        .run("config save x.config 6.1.7 --fc --arch amd64 --config config.gz")
        .failed(2, &["compressed", "gzip -d"]);
    fs::write(context.path("work/bomb.gz"), gzip(&vec![b'\n'; 8 << 20])).unwrap();
    context
        .run("plan 6.1 --fc --config bomb.gz")
        .failed(2, &["--config", "bomb.gz", "larger than 2097152 bytes when decompressed"]);
    fs::write(context.path("work/cut.gz"), &gzip(COMMENTED.as_bytes())[..20]).unwrap();
    context.run("plan 6.1 --fc --config cut.gz").failed(2, &["cut.gz"]);
}

#[test]
fn a_local_version_that_no_release_can_have_is_refused_before_the_build() {
    let context = context("CONFIG_NET=y\nCONFIG_LOCALVERSION=\"-my kernel\"\n");
    let says = ["CONFIG_LOCALVERSION=\"-my kernel\": ` ` cannot be in a kernel release"];
    context.run("plan 6.1 --fc --config x.config").failed(2, &says);
    context.run("plan 6.1 --fc --fragment x.config").failed(2, &says);
}
