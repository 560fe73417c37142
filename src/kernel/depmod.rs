//! The files that depmod (of kmod) writes in the directory of a kernel's modules. Measured with
//! kmod 26, 27, 30 and 34.

use camino::Utf8Path;

/// The files of kmod 10 and later, and whether each has content if there are no modules.
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
/// The same, with the first version of kmod that writes the file. For an old kernel the first file is empty.
const FILES_SINCE: [(&str, bool, u32); 2] =
    [("modules.builtin.alias.bin", false, 27), ("modules.weakdep", true, 33)];

/// Whether a kernel has modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modules {
    Installed,
    None,
}

/// Returns the files, and whether each has content if there are no modules.
fn expected(version: Option<&str>) -> impl Iterator<Item = (&'static str, bool)> {
    let kmod: Option<u32> = version
        .and_then(|version| version.strip_prefix("kmod version "))
        .and_then(|version| version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let later = FILES_SINCE.iter().filter(move |(.., since)| kmod.is_some_and(|kmod| kmod >= *since));
    FILES.iter().copied().chain(later.map(|(name, filled, _)| (*name, *filled)))
}

/// Returns the names of the files that depmod writes. `version` is depmod's own, such as `kmod version 30`.
pub fn files(version: Option<&str>) -> impl Iterator<Item = &'static str> {
    expected(version).map(|(name, _)| name)
}

/// Returns a message about the first of depmod's files in `dir` that is missing or empty. `version` is
/// depmod's own, such as `kmod version 30`.
pub fn find_missing(dir: &Utf8Path, modules: Modules, version: Option<&str>) -> Option<String> {
    expected(version).find_map(|(name, filled)| {
        let filled = filled || modules == Modules::Installed && name == "modules.dep";
        match dir.join(name).metadata() {
            Err(_) => Some(format!("depmod wrote no {name}")),
            Ok(file) if filled && file.len() == 0 => Some(format!("depmod wrote an empty {name}")),
            Ok(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_file_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let fill = || FILES.iter().for_each(|(name, _)| fs::write(dir.join(name), "x").unwrap());
        for (name, filled) in FILES {
            fill();
            assert_eq!(find_missing(dir, Modules::Installed, Some("kmod version 26")), None);
            fs::write(dir.join(name), "").unwrap();
            let is_fault = filled || name == "modules.dep";
            assert_eq!(find_missing(dir, Modules::Installed, None).is_some(), is_fault, "{name}");
            assert_eq!(find_missing(dir, Modules::None, None).is_some(), filled, "{name}");
            fs::remove_file(dir.join(name)).unwrap();
            assert_eq!(find_missing(dir, Modules::None, None).unwrap(), format!("depmod wrote no {name}"));
        }
        assert_eq!(files(Some("kmod version 30")).count(), FILES.len() + 1);
        fill();
        fs::write(dir.join("modules.builtin.alias.bin"), "").unwrap();
        assert_eq!(find_missing(dir, Modules::Installed, Some("kmod version 30")), None);
        assert_eq!(
            find_missing(dir, Modules::Installed, Some("kmod version 34.2")).unwrap(),
            "depmod wrote no modules.weakdep"
        );
    }
}
