//! Lists the entries of an image's layer from the files of a build.

use crate::kbuild::{Compiled, Configured};
use crate::oci::{Entries, Entry};
use crate::plan::Contents;
use crate::plan::request::ModulesLayout;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use camino::{Utf8Path, Utf8PathBuf};
use std::os::unix::fs::PermissionsExt;
use walkdir::WalkDir;

/// The files of one kernel.
pub struct ImageInputs<'a> {
    pub compiled: &'a Compiled,
    /// The parent of `lib/modules/<release>`, if there are modules.
    pub root: Option<Utf8PathBuf>,
    /// The final `.config`.
    pub config: &'a Configured,
    /// The version for file names.
    pub version: String,
    /// Whether the plan has all inputs. If not, another build of the same plan may differ.
    pub are_planned: bool,
}

impl ImageInputs<'_> {
    /// Returns the entries of an image with these contents.
    pub fn entries(&self, contents: &Contents) -> Result<Entries> {
        let mut entries = Entries::new();
        match contents {
            Contents::Kernel { path, kernel_link } => {
                add(&mut entries, path, self.kernel());
                if let Some(second) = kernel_link {
                    add_hard_link(&mut entries, second, path)?;
                }
            }
            Contents::Modules { layout } => self.add_modules(&mut entries, *layout)?,
            Contents::Combined { file_name } => {
                let path = format!("bin/{file_name}");
                add(&mut entries, &path, self.kernel());
                add_hard_link(&mut entries, &format!("boot/{file_name}"), &path)?;
                let config = Entry::File { from: self.config.path.clone(), executable: false };
                add(&mut entries, &format!("boot/config-{}", self.version), config);
                self.add_modules(&mut entries, ModulesLayout::Tree)?;
            }
        }
        Ok(entries)
    }

    /// Returns the number of modules.
    pub fn module_count(&self) -> Result<usize> {
        let mut entries = Entries::new();
        self.add_modules(&mut entries, ModulesLayout::Flat)?;
        let is_module = |path: &&String| path.rsplit('/').next().is_some_and(|name| name.contains(".ko"));
        Ok(entries.keys().filter(is_module).count())
    }

    fn kernel(&self) -> Entry {
        // Linkers mark vmlinux as executable, but nobody runs it from the image.
        Entry::File { from: self.compiled.kernel.clone(), executable: false }
    }

    /// Adds `lib/modules/<release>` of the staging root, and the final config as `config`, where
    /// kubeadm's validator looks for it. The links `build` and `source` lead to directories of this
    /// machine and are left out.
    fn add_modules(&self, entries: &mut Entries, layout: ModulesLayout) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let dir = root.join("lib/modules").join(&self.compiled.release);
        let prefix = match layout {
            ModulesLayout::Tree => format!("lib/modules/{}/", self.compiled.release),
            ModulesLayout::Flat => String::new(),
        };
        for found in WalkDir::new(&dir).min_depth(1) {
            let found = found.context(Kind::Build, cannot("read", &dir))?;
            let from = Utf8Path::from_path(found.path())
                .ok_or_else(|| Error::build("a module's name is not UTF-8"))?;
            let relative = from.strip_prefix(&dir).expect("walked from there").as_str();
            let entry = match found.file_type() {
                kind if kind.is_dir() => Entry::Dir,
                kind if kind.is_symlink() && matches!(relative, "build" | "source") => continue,
                kind if kind.is_symlink() => Entry::SymLink(
                    from.read_link_utf8().context(Kind::Build, cannot("read", &dir))?.into_string(),
                ),
                _ => {
                    let mode =
                        found.metadata().context(Kind::Build, cannot("read", &dir))?.permissions().mode();
                    Entry::File { from: from.to_owned(), executable: mode & 0o100 != 0 }
                }
            };
            add(entries, &format!("{prefix}{relative}"), entry);
        }
        add(
            entries,
            &format!("{prefix}config"),
            Entry::File { from: self.config.path.clone(), executable: false },
        );
        Ok(())
    }
}

/// Adds an entry and the directories above it.
fn add(entries: &mut Entries, path: &str, entry: Entry) {
    for (at, _) in path.match_indices('/') {
        entries.entry(path[..at].to_owned()).or_insert(Entry::Dir);
    }
    entries.insert(path.to_owned(), entry);
}

/// Adds `name` as a second name of `of`. The name that sorts first gets the bytes, because a hard link in a
/// tar must come after its target.
fn add_hard_link(entries: &mut Entries, name: &str, of: &str) -> Result<()> {
    if entries.contains_key(name) {
        return Err(Error::usage(format!(
            "--kernel-link {name}: the image already has a file or directory of this name"
        )));
    }
    let (first, second) = if name < of { (name, of) } else { (of, name) };
    let file = entries[of].clone();
    add(entries, first, file);
    add(entries, second, Entry::HardLink(first.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_links_to_the_first_in_order() {
        let mut entries = Entries::new();
        let file = Entry::File { from: "/k".into(), executable: false };
        add(&mut entries, "bin/vmlinux", file.clone());
        add_hard_link(&mut entries, "boot/vmlinux", "bin/vmlinux").unwrap();
        add_hard_link(&mut entries, "a/vmlinux", "bin/vmlinux").unwrap();
        let paths: Vec<&str> = entries.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a", "a/vmlinux", "bin", "bin/vmlinux", "boot", "boot/vmlinux"]);
        assert_eq!(
            (&entries["a/vmlinux"], &entries["bin/vmlinux"]),
            (&file, &Entry::HardLink("a/vmlinux".into()))
        );
        assert!(add_hard_link(&mut entries, "boot", "bin/vmlinux").is_err());
    }
}
