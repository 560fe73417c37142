//! Finds the files that vmlinux and the modules are linked from. Build directories serve several configs, so
//! they may have archives and modules that are no longer used.

use crate::kbuild::archives::members;
use crate::kconfig::Config;
use crate::util::read::{Links, MAX_JSON, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::HashSet;

/// Returns the files that vmlinux is linked from, as paths in the build directory.
pub(super) fn vmlinux(build: &Utf8Path, tree: &Utf8Path, srcarch: &str, config: &Config) -> Vec<String> {
    let is_made = |path: &&str| build.join(command_file(path)).is_file();
    // The linker script, and an object that is compiled last, so that it has the time of the build.
    let script = format!("arch/{srcarch}/kernel/vmlinux.lds");
    let mut roots: Vec<String> = [script.as_str(), "init/version-timestamp.o"]
        .into_iter()
        .filter(is_made)
        .map(str::to_owned)
        .collect();
    // Since Linux 5.18, make itself links `vmlinux.o`, and its command names all archives.
    if is_made(&"vmlinux.o") {
        roots.push("vmlinux.o".to_owned());
        return roots;
    }
    let makefiles = ["Makefile", &format!("arch/{srcarch}/Makefile")]
        .map(|name| read_text(tree.join(name), Links::RefuseAnywhere, MAX_JSON).unwrap_or_default());
    let makefiles = makefiles.concat().replace("$(SRCARCH)", srcarch).replace("$(BITS)", "64");
    let archives = archives(build);
    let inner: HashSet<Utf8PathBuf> = archives.iter().flat_map(|archive| nested(archive)).collect();
    let outer = archives.iter().filter(|archive| !inner.contains(*archive));
    let names = outer.filter_map(|archive| Some(archive.strip_prefix(build).ok()?.to_string()));
    roots.extend(names.filter(|archive| is_linked(archive, &makefiles, config)));
    roots.extend(head_objects(&makefiles).filter(|object| is_made(&object.as_str())));
    roots
}

/// Returns the modules of `modules.order`, as paths in the build directory.
pub(super) fn modules(build: &Utf8Path) -> Vec<String> {
    let text = read_text(build.join("modules.order"), Links::RefuseAnywhere, MAX_JSON).unwrap_or_default();
    let module = |line: &str| {
        // Before Linux 5.3 the paths are those of the installed modules. Since 6.3 they name objects.
        let line = line.strip_prefix("kernel/").filter(|_| !build.join(line).exists()).unwrap_or(line);
        line.strip_suffix(".o").map_or_else(|| line.to_owned(), |stem| format!("{stem}.ko"))
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(module).collect()
}

/// Returns the path of the `.cmd` file of a file.
pub(super) fn command_file(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, name)) => format!("{dir}/.{name}.cmd"),
        None => format!(".{path}.cmd"),
    }
}

/// Returns all archives of the build directory.
fn archives(build: &Utf8Path) -> Vec<Utf8PathBuf> {
    let files = walkdir::WalkDir::new(build).into_iter().filter_map(Result::ok);
    let archives =
        files.filter(|file| ["built-in.a", "lib.a"].map(Some).contains(&file.file_name().to_str()));
    let mut archives: Vec<Utf8PathBuf> =
        archives.filter_map(|file| Utf8PathBuf::from_path_buf(file.into_path()).ok()).collect();
    archives.sort();
    archives
}

/// Returns the archives that an archive includes, by the command that made it. The names in an archive are
/// those of objects, also if they come from another archive.
fn nested(archive: &Utf8Path) -> Vec<Utf8PathBuf> {
    let dirs = members(archive).into_iter().filter_map(|object| Some(object.parent()?.to_owned()));
    let dirs: HashSet<Utf8PathBuf> = dirs.collect();
    let own = archive.parent().unwrap_or(archive);
    dirs.iter()
        .flat_map(|dir| dir.ancestors().take_while(|dir| *dir != own && dir.starts_with(own)))
        .map(|dir| dir.join("built-in.a"))
        .collect()
}

/// Returns whether the Makefiles link the archive into vmlinux: they name its directory, and not only under
/// options that are off.
fn is_linked(archive: &str, makefiles: &str, config: &Config) -> bool {
    let dir = archive.trim_end_matches("built-in.a").trim_end_matches("lib.a");
    let names = |word: &str| {
        let word = word.strip_prefix("$(objtree)/").unwrap_or(word);
        word == dir || word == archive
    };
    let lines = makefiles.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut all = lines.filter(|line| line.split_whitespace().skip(1).any(names));
    all.any(|line| {
        let variable = line.split_whitespace().next().unwrap_or_default();
        let option = variable.split_once("-$(CONFIG_").and_then(|(_, rest)| rest.split(')').next());
        option.is_none_or(|option| config.value(option) != "n")
    })
}

/// Returns the objects of `head-y`, which are in no archive.
fn head_objects(makefiles: &str) -> impl Iterator<Item = String> {
    let lines = makefiles.lines().filter(|line| line.starts_with("head-"));
    let words = lines.flat_map(|line| line.split_whitespace().skip(2));
    words.filter(|word| word.ends_with(".o")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_count_if_the_makefiles_name_their_directory() {
        let makefiles = "core-y\t\t:= init/ usr/ # net/\n\
            core-$(CONFIG_BLOCK)\t+= block/\ndrivers-$(CONFIG_PCI) += arch/x86/pci/\n\
            libs-y += lib/ arch/x86/lib/\n\
            core-$(CONFIG_EFI_STUB) += $(objtree)/drivers/firmware/efi/libstub/lib.a\n\
            head-y := arch/x86/kernel/head_64.o\nhead-y += arch/x86/kernel/ebda.o\n";
        let config = Config::parse("CONFIG_BLOCK=y\n# CONFIG_PCI is not set\n");
        for (archive, expected) in [
            ("init/built-in.a", true),
            ("block/built-in.a", true),
            ("arch/x86/pci/built-in.a", false),
            ("net/built-in.a", false),
            ("arch/x86/lib/lib.a", true),
            ("lib/built-in.a", true),
            ("drivers/firmware/efi/libstub/lib.a", false),
            ("drivers/old/built-in.a", false),
        ] {
            assert_eq!(is_linked(archive, makefiles, &config), expected, "{archive}");
        }
        let heads: Vec<String> = head_objects(makefiles).collect();
        assert_eq!(heads, ["arch/x86/kernel/head_64.o", "arch/x86/kernel/ebda.o"]);
    }

    #[test]
    fn command_files_lie_beside_their_files() {
        assert_eq!(command_file("fs/ext4/acl.o"), "fs/ext4/.acl.o.cmd");
        assert_eq!(command_file("vmlinux.o"), ".vmlinux.o.cmd");
    }
}
