//! The report of `kcompile update`, which is the text of a pull request.

use crate::support::context::{
    CONFIG, TestContext, compress, has_tool, run_result, sha256, tar_of, write_script,
};
use crate::support::golden::compare;
use crate::support::normalize::{masked, plain};
use crate::support::servers::{self, DIR};
use crate::support::{fixed_tools, qemu};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

/// A record that affects 6.1 up to 6.1.8, or up to the mainline release 6.8.
fn record(context: &TestContext, id: &str, file: &str, score: f64, fixed: &str) {
    let versions = json!([
        { "version": "0", "lessThan": "5.15", "status": "unaffected" },
        { "version": fixed, "lessThanOrEqual": "6.1.*", "status": "unaffected" },
        { "version": "6.8", "lessThanOrEqual": "*", "status": "unaffected" }
    ]);
    let record = json!({
        "dataType": "CVE_RECORD",
        "cveMetadata": { "cveId": id, "state": "PUBLISHED" },
        "containers": { "cna": {
            "title": format!("fault in {file} | <b>"),
            "metrics": [{ "cvssV3_1": { "baseScore": score } }],
            "affected": [{ "vendor": "Linux", "product": "Linux", "defaultStatus": "affected",
                "programFiles": [file], "versions": versions }]
        } }
    });
    fs::create_dir_all(context.path("work/own/vulns")).unwrap();
    fs::write(context.path(&format!("work/own/vulns/{id}.json")), record.to_string()).unwrap();
}

/// Serves 6.1.7, and 6.1.9 with another Kconfig, as kernel.org does.
fn mirror(context: &mut TestContext) {
    let mut files = BTreeMap::new();
    let mut sums = String::new();
    for version in ["6.1.7", "6.1.9"] {
        let tree = context.tree(version, &format!("trees/{version}"));
        if version == "6.1.9" {
            let path = tree.join("init/Kconfig");
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replacen("tracking\"\n", "tracking\"\n\tdepends on EXPERT\n", 1).replacen(
                "config EXPERT",
                "config FRESH\n\tbool \"Fresh\"\n\tdefault y\n\nconfig EXPERT",
                1,
            );
            fs::write(path, text).unwrap();
        }
        let xz = compress(&tar_of(&tree, &format!("linux-{version}")), "xz");
        sums.push_str(&format!("{}  linux-{version}.tar.xz\n", sha256(&xz)));
        files.insert(format!("{DIR}/linux-{version}.tar.xz"), xz);
    }
    for (version, commits) in [("6.1.8", 3), ("6.1.9", 4)] {
        let commit =
            format!("commit {}\nAuthor: A <a@example.org>\n\n    commit x upstream.\n\n", "0a".repeat(20));
        files.insert(format!("{DIR}/ChangeLog-{version}"), commit.repeat(commits).into_bytes());
    }
    files.insert(format!("{DIR}/sha256sums.asc"), sums.into_bytes());
    let list = json!({ "latest_stable": { "version": "6.18.2" }, "releases": [
        { "version": "6.1.9", "moniker": "longterm", "iseol": true },
        { "version": "6.12.3", "moniker": "longterm", "iseol": false },
    ] });
    files.insert("/releases.json".into(), list.to_string().into_bytes());
    context.env.insert("KCOMPILE_MIRROR".into(), servers::files(files).url);
}

/// Makes the machine print the version of the kernel that it got.
fn fake_machine(context: &mut TestContext) {
    qemu::install(context);
    write_script(
        &context.path("fake/qemu-system-x86_64"),
        "for word; do [ \"$last\" != -kernel ] || kernel=$word; last=$word; done\n\
         version=$(grep -ao 'Linux version [0-9.]*' \"$kernel\" | cut -d ' ' -f 3)\n\
         sed \"s/6[.]1[.]7/$version/; s/ 1[.]25\\]/ 1.${version##*.}]/\" \"$HOME/console\"",
    );
}

#[test]
fn a_report_is_the_text_of_a_pull_request() {
    if std::env::consts::ARCH != "x86_64" || !has_tool("gcc") || !has_tool("mke2fs") {
        return;
    }
    let mut context = fixed_tools::context(&["6.1.7", "6.1.9"]);
    mirror(&mut context);
    fake_machine(&mut context);
    fs::create_dir_all(context.path("work/own/configs/firecracker")).unwrap();
    fs::write(context.path("work/own/kcompile.toml"), "arch = [\"amd64\"]\nversion = \"6.1.7\"\n").unwrap();
    let config = format!("{CONFIG}CONFIG_PSI=y\n");
    fs::write(context.path("work/own/configs/firecracker/linux-x86_64-6.1.7.config"), config).unwrap();
    let entry = "[[kernel]]\nversion = \"6.1.7\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"supported\"\n";
    fs::write(context.path("work/own/configs/kernels.toml"), entry).unwrap();
    record(&context, "CVE-2024-1001", "init/main.c", 9.8, "6.1.9");
    record(&context, "CVE-2024-1002", "drivers/net/dummy.c", 5.5, "6.1.8");
    record(&context, "CVE-2024-1003", "drivers/net/wireguard/wireguard.c", 7.8, "6.1.9");
    record(&context, "CVE-2024-1004", "init/main.c", 4.0, "6.1.10");
    let run = |args: &str| {
        run_result(context.command(args).current_dir(context.path("work/own")).output().unwrap())
    };
    // A kernel that does not boot is not written.
    let before = context.snapshot("work/own/configs");
    fs::rename(context.path("home/console"), context.path("home/good")).unwrap();
    fs::write(context.path("home/console"), "[ 1.0] Kernel panic - not syncing: no root\n").unwrap();
    let args =
        "update --write --build --boot --report report.md --data vulns --sandbox off --progress plain -j1";
    run(args).failed(1, &["the kernel panicked: no root"]);
    assert_eq!(context.snapshot("work/own/configs"), before);
    assert!(
        !fs::read_to_string(context.path("work/own/kcompile.lock")).unwrap_or_default().contains("6.1.9")
    );
    fs::rename(context.path("home/good"), context.path("home/console")).unwrap();
    let updated = run(args).ok().says("`version` in kcompile.toml still names 6.1.7");
    let report = fs::read_to_string(context.path("work/own/report.md")).unwrap();
    let catalog = fs::read_to_string(context.path("work/own/configs/kernels.toml")).unwrap();
    assert!(catalog.contains("\"6.1.9\"") && catalog.contains("supported"), "{catalog}");
    // The records have the date of their files.
    let records = report.split("with 4 records of ").nth(1).unwrap()[..10].to_owned();
    let text = format!("== report.md\n{report}\n== standard output\n{}", updated.stdout)
        .replace(&records, "2024-01-01");
    let text = masked(&plain(&context, &text), "sha256:", |c| c.is_ascii_hexdigit());
    compare("text/update.txt", &masked(&text, "not signed, ", |c| c.is_ascii_digit() || c == '.'));
}
