//! What the entries of an image are, taken in one by one in a single pass.

use crate::image::kernel_image::{is_kernel_config, read_config};
use crate::kernel::binary::{Kernel, Module, module};
use crate::oci::layer_entries::{Found, FoundKind};
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Context, Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// A kernel image has one kernel; whatever has so many is something else.
const MOST_KERNELS: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Kernel files by path: all files that are neither modules nor what belongs to them.
    pub kernels: BTreeMap<String, KernelFile>,
    /// The final `.config` that lies beside the modules or the kernel.
    pub config: Option<ConfigFile>,
    /// Modules by path.
    pub modules: BTreeMap<String, ModuleFile>,
    /// The directories in `lib/modules`: releases of kernels.
    pub module_dirs: BTreeSet<String>,
    /// Second names → the entries that they are names of.
    pub links: BTreeMap<String, String>,
    /// Size and digest of every file.
    pub files: BTreeMap<String, (u64, Sha256)>,
}

/// A kernel file in an image.
#[derive(Debug)]
pub struct KernelFile {
    /// Its bytes.
    pub size: u64,
    /// What it says of itself. Only the first one of an image has its config.
    pub kernel: Kernel,
}

/// A module in an image.
#[derive(Debug)]
pub struct ModuleFile {
    /// Its bytes, as stored.
    pub size: u64,
    /// What it says of itself.
    pub module: Module,
}

/// A config in an image.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it lies.
    pub path: String,
    /// What it says.
    pub text: String,
}

impl Survey {
    /// Takes in one entry. `image` is what to call the image.
    ///
    /// Errors (exit code 3): a file is damaged; there are more kernel files than any image has.
    pub fn see(&mut self, image: &str, found: &Found, reader: &mut dyn Read) -> Result<()> {
        let wrong = || format!("{image}: {}", found.path.escape_debug());
        let path = found.path.clone();
        match &found.kind {
            FoundKind::Dir => {
                if let Some(name) = path.strip_prefix("lib/modules/").filter(|name| !name.contains('/')) {
                    self.module_dirs.insert(name.to_owned());
                }
            }
            FoundKind::SymLink(_) => {}
            FoundKind::HardLink(to) => drop(self.links.insert(path, to.clone())),
            FoundKind::File => {
                let sha256 = if is_kernel_config(&path) {
                    let text = read_config(found, reader, wrong)?;
                    let sha256 = Sha256::of(&text);
                    match &self.config {
                        Some(first) if first.text != text => {
                            let other = wrong();
                            return Err(Error::fetch(format!("{other}: another config than {}", first.path)));
                        }
                        Some(_) => {}
                        None => self.config = Some(ConfigFile { path: path.clone(), text }),
                    }
                    sha256
                } else if module::compression(&path).is_some() {
                    let module = Module::read(&path, reader).context(Kind::Fetch, wrong)?;
                    let sha256 = module.sha256;
                    self.modules.insert(path.clone(), ModuleFile { size: found.size, module });
                    sha256
                } else if belongs_to_modules(&path) {
                    let mut hashed = HashingReader::new(reader);
                    io::copy(&mut hashed, &mut io::sink()).context(Kind::Fetch, wrong)?;
                    hashed.finish().0
                } else {
                    self.see_kernel(&path, found.size, reader, wrong)?
                };
                self.files.insert(path, (found.size, sha256));
            }
        }
        Ok(())
    }

    fn see_kernel(
        &mut self,
        path: &str,
        size: u64,
        reader: &mut dyn Read,
        wrong: impl Fn() -> String,
    ) -> Result<Sha256> {
        if self.kernels.len() == MOST_KERNELS {
            return Err(Error::fetch(format!(
                "{}: more than {MOST_KERNELS} files that may be kernels",
                wrong()
            ))
            .hint("is it a kernel image?"));
        }
        let mut kernel = Kernel::read(reader).context(Kind::Fetch, wrong)?;
        if !self.kernels.is_empty() {
            kernel.config = None;
        }
        let sha256 = kernel.sha256;
        self.kernels.insert(path.to_owned(), KernelFile { size, kernel });
        Ok(sha256)
    }

    /// The final `.config`, and where it was found: the file, else the one inside the kernel.
    pub fn kernel_config(&self) -> Option<(String, &str)> {
        if let Some(ConfigFile { path, text }) = &self.config {
            return Some((path.clone(), text));
        }
        self.kernels
            .iter()
            .find_map(|(path, file)| Some((format!("inside {path}"), file.kernel.config.as_deref()?)))
    }

    /// The names of a file, its own first.
    pub fn names_of(&self, path: &str) -> Vec<String> {
        let second = self.links.iter().filter(|(_, to)| *to == path).map(|(name, _)| name.clone());
        std::iter::once(path.to_owned()).chain(second).collect()
    }

    /// Bytes of all modules, as they are loaded.
    pub fn module_bytes(&self) -> u64 {
        self.modules.values().map(|file| file.module.plain_size).sum()
    }
}

/// depmod's and Kbuild's own files: `modules.dep` and its like, in the tree or at the root.
fn belongs_to_modules(path: &str) -> bool {
    path.starts_with("lib/modules/") || path.starts_with("modules.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::layer_entries::Attributes;

    fn see(survey: &mut Survey, path: &str, kind: FoundKind, bytes: &[u8]) -> Result<()> {
        let attributes = Attributes { stored_path: path.into(), ..Attributes::default() };
        let found = Found { path: path.into(), kind, size: bytes.len() as u64, attributes };
        survey.see("image", &found, &mut &bytes[..])
    }

    #[test]
    fn every_entry_is_what_its_place_and_bytes_say() {
        let mut survey = Survey::default();
        let mut add = |path: &str, kind, bytes: &[u8]| see(&mut survey, path, kind, bytes).unwrap();
        add("a/kernel", FoundKind::File, b"Linux version 6.1.7 (x)\0");
        add("bin/vmlinux", FoundKind::HardLink("a/kernel".into()), b"");
        add("lib/modules/6.1.7", FoundKind::Dir, b"");
        add("lib/modules/6.1.7/config", FoundKind::File, b"CONFIG_A=y\n");
        add("lib/modules/6.1.7/modules.dep", FoundKind::File, b"");
        add("lib/modules/6.1.7/kernel/a.ko", FoundKind::File, b"\0vermagic=6.1.7 SMP\0");
        assert_eq!(survey.kernels["a/kernel"].kernel.release(), Some("6.1.7"));
        assert_eq!(survey.names_of("a/kernel"), ["a/kernel", "bin/vmlinux"]);
        assert_eq!(survey.modules.len(), 1);
        assert_eq!(survey.module_dirs.iter().next().map(String::as_str), Some("6.1.7"));
        assert_eq!(survey.kernel_config(), Some(("lib/modules/6.1.7/config".into(), "CONFIG_A=y\n")));
        assert_eq!(survey.files.len(), 4);
    }

    #[test]
    fn two_configs_say_the_same() {
        let mut survey = Survey::default();
        let mut add = |path: &str, text: &[u8]| see(&mut survey, path, FoundKind::File, text);
        add("boot/config-6.1.7", b"CONFIG_A=y\n").unwrap();
        add("lib/modules/6.1.7/config", b"CONFIG_A=y\n").unwrap();
        let error = add("config", b"CONFIG_A=m\n").unwrap_err();
        assert_eq!(error.to_string(), "image: config: another config than boot/config-6.1.7");
    }

    #[test]
    fn a_root_file_system_is_no_kernel_image() {
        let mut survey = Survey::default();
        let mut add = |number: usize| see(&mut survey, &format!("bin/{number}"), FoundKind::File, b"x");
        (0..MOST_KERNELS).for_each(|number| add(number).unwrap());
        let error = add(MOST_KERNELS).unwrap_err();
        assert!(error.to_string().contains("more than 16 files that may be kernels"), "{error}");
    }
}
