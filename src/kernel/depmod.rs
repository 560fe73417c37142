//! What depmod, of kmod, leaves in the directory of a kernel's modules: measured with kmod 26, 27, 30 and 34.

use camino::Utf8Path;

/// Its files, from kmod 10 on; and whether they hold something where there are no modules.
const FILES: [(&str, bool); 9] = [
    ("modules.dep", false),
    ("modules.alias", true),
    ("modules.alias.bin", true),
    ("modules.builtin.bin", true),
    ("modules.dep.bin", true),
    ("modules.devname", false),
    ("modules.softdep", true),
    ("modules.symbols", true),
    ("modules.symbols.bin", true),
];
/// The same since a version of kmod. An old kernel has nothing for the first one.
const FILES_SINCE: [(&str, bool, u32); 2] =
    [("modules.builtin.alias.bin", false, 27), ("modules.weakdep", true, 33)];

/// The files that depmod leaves, and whether they hold something where there are no modules; `version` is its own,
/// `kmod version 30`.
fn expected(version: Option<&str>) -> impl Iterator<Item = (&'static str, bool)> {
    let kmod: Option<u32> = version
        .and_then(|version| version.strip_prefix("kmod version "))
        .and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let later = FILES_SINCE.iter().filter(move |(.., since)| kmod.is_some_and(|kmod| kmod >= *since));
    FILES.iter().copied().chain(later.map(|(name, filled, _)| (*name, *filled)))
}

/// The names of the files that depmod leaves; `version` is its own, `kmod version 30`.
pub fn files(version: Option<&str>) -> impl Iterator<Item = &'static str> {
    expected(version).map(|(name, _)| name)
}

/// What is wrong with depmod's files in `dir`, where `has_modules` tells whether it holds modules; `version` is depmod's
/// own, `kmod version 30`.
pub fn find_missing(dir: &Utf8Path, has_modules: bool, version: Option<&str>) -> Option<String> {
    expected(version).find_map(|(name, filled)| {
        let filled = filled || has_modules && name == "modules.dep";
        match dir.join(name).metadata() {
            Err(_) => Some(format!("depmod wrote no {name}")),
            Ok(file) if filled && file.len() == 0 => Some(format!("depmod wrote nothing: {name} is empty")),
            Ok(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let fill = || FILES.iter().for_each(|(name, _)| fs::write(dir.join(name), "x").unwrap());
        for (name, filled) in FILES {
            fill();
            assert_eq!(find_missing(dir, true, Some("kmod version 26")), None);
            fs::write(dir.join(name), "").unwrap();
            let is_fault = filled || name == "modules.dep";
            assert_eq!(find_missing(dir, true, None).is_some(), is_fault, "{name}");
            assert_eq!(find_missing(dir, false, None).is_some(), filled, "{name}");
            fs::remove_file(dir.join(name)).unwrap();
            assert_eq!(find_missing(dir, false, None).unwrap(), format!("depmod wrote no {name}"));
        }
        assert_eq!(files(Some("kmod version 30")).count(), FILES.len() + 1);
        fill();
        fs::write(dir.join("modules.builtin.alias.bin"), "").unwrap();
        assert_eq!(find_missing(dir, true, Some("kmod version 30")), None);
        assert_eq!(
            find_missing(dir, true, Some("kmod version 34.2")).unwrap(),
            "depmod wrote no modules.weakdep"
        );
    }
}
