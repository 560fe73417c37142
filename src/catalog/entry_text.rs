//! Changes one entry in the text of a catalog. Comments and the order of the entries stay.

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::{Catalog, Entry};
use std::ops::Range;

/// Returns the catalog `text` with `new` in place of `old`. They differ in version, digest and status only.
/// `pin_comment` follows the digest. `None` means that the text has another form than `kcompile add` writes, and
/// must be changed by hand.
pub fn replace_entry(text: &str, old: &Entry, new: &Entry, pin_comment: &str) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let blocks = blocks(&lines);
    let block = blocks.into_iter().find(|block| entries(&lines[block.clone()].concat()) == [old.clone()])?;
    let mut edited: Vec<String> = lines[..block.start].iter().map(|line| (*line).to_owned()).collect();
    edited.extend(block_with(&lines[block.clone()], old, new, pin_comment));
    edited.extend(lines[block.end..].iter().map(|line| (*line).to_owned()));
    let edited = edited.concat();
    let mut expected = entries(text);
    *expected.iter_mut().find(|entry| *entry == old)? = new.clone();
    let mut found = entries(&edited);
    let by_kernel = |entry: &Entry| (entry.flavor, entry.version.clone(), entry.arch.clone());
    expected.sort_by_key(by_kernel);
    found.sort_by_key(by_kernel);
    (found == expected).then_some(edited)
}

/// Returns the lines of each `[[kernel]]`, up to the next table.
fn blocks(lines: &[&str]) -> Vec<Range<usize>> {
    let starts = |at: &usize| lines[*at].trim_start().starts_with("[[kernel]]");
    let end = |start: usize| {
        let next = (start + 1..lines.len()).find(|at| lines[*at].trim_start().starts_with('['));
        next.unwrap_or(lines.len())
    };
    (0..lines.len()).filter(starts).map(|start| start..end(start)).collect()
}

/// Returns the entries of a catalog, or none if it is invalid.
fn entries(text: &str) -> Vec<Entry> {
    let library = ConfigLibrary::from_texts([("configs/kernels.toml", text)]);
    Catalog::read(&library).map(|catalog| catalog.kernels).unwrap_or_default()
}

/// Returns the lines of the entry `old` with the values of `new`.
fn block_with(lines: &[&str], old: &Entry, new: &Entry, pin_comment: &str) -> Vec<String> {
    let pin = new.sha256.map(|sha256| format!("sha256 = \"{sha256}\" # {pin_comment}\n"));
    let has_pin = lines.iter().any(|line| key(line) == "sha256");
    let mut edited = Vec::new();
    for line in lines {
        match key(line) {
            "sha256" => edited.extend(pin.clone()),
            "version" => edited.push(line.replacen(&old.version, &new.version, 1)),
            "status" => {
                edited.extend(pin.clone().filter(|_| !has_pin));
                edited.push(line.replacen(old.status.name(), new.status.name(), 1));
            }
            _ => edited.push((*line).to_owned()),
        }
    }
    edited
}

/// Returns the key of the line of a table.
fn key(line: &str) -> &str {
    line.split_once('=').map_or("", |(key, _)| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kernels::Status;
    use crate::util::digest::Sha256;

    const CATALOG: &str = "# ours\n\n[[kernel]]\nversion = \"6.1\" # the series\nflavor = \"firecracker\"\narch = [\"amd64\"]\n\
        status = \"supported\"\n\n# This one is pinned.\n[[kernel]]\nversion = \"6.1.7\"\nflavor = \"firecracker\"\n\
        arch = [\"amd64\"]\nsha256 = \"9e2064f9cb942999a76737d510f08a85bcd8164e9762ce0f7dbfeac58bc2f2b3\" # seen\n\
        status = \"supported\" # booted\nnote = \"ours\"\n\n[[series]]\nseries = \"6.1\"\nend_of_life = \"2027-12\"\n";

    #[test]
    fn only_the_values_of_one_entry_change() {
        let old = entries(CATALOG).into_iter().find(|entry| entry.version == "6.1.7").unwrap();
        let sha256 = Sha256::of("new");
        let new =
            Entry { version: "6.1.9".into(), sha256: Some(sha256), status: Status::Untested, ..old.clone() };
        let edited = replace_entry(CATALOG, &old, &new, "signed by X").unwrap();
        let expected = CATALOG
            .replace("\"6.1.7\"", "\"6.1.9\"")
            .replace(&format!("\"{}\" # seen", old.sha256.unwrap()), &format!("\"{sha256}\" # signed by X"))
            .replace("\"supported\" # booted", "\"untested\" # booted");
        assert_eq!(edited, expected);
        // Without a digest, and back.
        let bare = Entry { sha256: None, ..new.clone() };
        let unpinned = replace_entry(&edited, &new, &bare, "").unwrap();
        assert!(!unpinned.contains("sha256"), "{unpinned}");
        assert!(replace_entry(&unpinned, &bare, &new, "again").unwrap().contains("# again\nstatus"));
    }

    #[test]
    fn another_form_is_not_edited() {
        let inline = "kernel = [{ version = \"6.1.7\", flavor = \"firecracker\", arch = [\"amd64\"], status = \"untested\" }]\n";
        let old = entries(inline).remove(0);
        let new = Entry { version: "6.1.9".into(), ..old.clone() };
        assert_eq!(replace_entry(inline, &old, &new, ""), None);
        let quoted = "[[kernel]]\n\"version\" = \"6.1.7\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\n";
        assert_eq!(replace_entry(quoted, &old, &new, ""), None);
    }
}
