//! Every test that docs/faults.md and SECURITY.md name exists.

use std::collections::BTreeSet;
use std::fs;

#[test]
fn every_documented_test_exists() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let table = fs::read_to_string(format!("{root}docs/faults.md")).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).collect();
    let numbers: BTreeSet<u32> =
        rows.iter().filter_map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect();
    assert_eq!(numbers, (1..=41).collect(), "a row is missing");
    let security = fs::read_to_string(format!("{root}SECURITY.md")).unwrap();
    let promises = security.lines().filter(|line| line.starts_with("| ") && line.contains("::"));
    assert!(promises.clone().count() > 10);
    let all = rows.into_iter().chain(promises);
    for name in all.flat_map(|row| row.split('`')).filter(|word| word.contains("::")) {
        let (file, test) = name.rsplit_once("::").unwrap();
        // The name that the test harness uses, for scripts/campaign.
        let file = file.trim_end_matches("::tests");
        let place = ["tests/suite", "src"].map(|dir| format!("{root}{dir}/{}.rs", file.replace("::", "/")));
        let code = place.iter().find_map(|path| fs::read_to_string(path).ok());
        let code = code.unwrap_or_else(|| panic!("{name}: there is no such file"));
        assert!(code.contains(&format!("fn {test}(")), "{name}: there is no such test");
    }
}
