//! Files of this machine that a config names and that get into the kernel: their digests for the plan, and whether
//! they are there before make looks for them.

use super::initramfs_source;
use super::named_files::{FileDigests, digest, metadata_of, open, relative_path_error};
use crate::kconfig::Config;
use crate::kconfig::file_settings::{self, FileKind, NamedPaths};
use crate::plan::{self, Plan};
use crate::source::Tree;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::find_unsafe_char;
use camino::{Utf8Component, Utf8Path};
use std::io::Read;

/// The plan with the digests of the files that its config names. What cannot be read is a warning: the setting may
/// not take.
pub fn with_config_files(mut plan: Plan) -> Plan {
    let requested = plan::requested_config(&plan);
    for named in file_settings::named_paths(&requested) {
        match read(&named, None) {
            Ok(files) => {
                plan.config_files.extend(files.digest().map(|digest| (named.symbol.to_owned(), digest)));
                plan.config_paths.extend(files.paths);
                plan.warnings.extend(signature_warning(&named, &requested));
            }
            Err(_) if named.kind == FileKind::Unknown => {}
            Err(error) => plan.warnings.push(error.to_string()),
        }
    }
    plan
}

/// What the files of a final config come to.
#[derive(Debug, Default)]
pub struct FileInputs {
    /// The settings that take in files from outside of the source, with what they say.
    pub included: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What is in no plan, and may be another one the next time.
    pub unknown: Vec<String>,
}

/// Checks that all files that the final config names are there, and are those of the plan. `tree` is the source;
/// `keeps_owners`: does make see to whom files belong?
///
/// Errors (exit code 2): a file is not there, or make would look for it elsewhere; the plan does not have it.
pub fn check(config: &Config, plan: &Plan, tree: &Tree, keeps_owners: bool) -> Result<FileInputs> {
    let mut checked = FileInputs::default();
    for named in file_settings::named_paths(config) {
        let files = match read(&named, Some(&tree.path)) {
            Err(_) if named.kind == FileKind::Unknown => continue,
            files => files?,
        };
        let (symbol, value) = (named.symbol, config.value(named.symbol));
        if let Some(path) = files.foreign.as_ref().filter(|_| !keeps_owners) {
            return Err(Error::usage(format!(
                "CONFIG_{symbol}: {path} belongs to another user, whom the sandbox does not show to make"
            ))
            .hint("the image would have it as nobody's: use a list or a .cpio archive, or --sandbox off"));
        }
        let Some(now) = files.digest() else { continue };
        let by_default = format!(
            "CONFIG_{symbol}={value} is this kernel's own default, and the plan does not have that file"
        );
        let hint = format!("name it in the config: --set '{symbol}={value}'");
        match plan.config_files.get(symbol) {
            Some(planned) if now != *planned => return Err(modified_error(symbol, "since the build began")),
            None if named.kind == FileKind::Unknown => checked.unknown.push(format!("{by_default} ({hint})")),
            None => return Err(Error::usage(by_default).hint(hint)),
            Some(_) => {}
        }
        checked.included.push(format!("CONFIG_{symbol}={value}"));
        checked.warnings.extend(signature_warning(&named, config));
    }
    Ok(checked)
}

/// Are the files still those of the plan, when make has read them?
///
/// Errors (exit code 1): one was changed meanwhile.
pub fn check_unmodified(config: &Config, plan: &Plan) -> Result<()> {
    let now = with_config_files(Plan { config_files: Default::default(), ..plan.clone() }).config_files;
    let named = file_settings::named_paths(config);
    let differs = |named: &&NamedPaths<'_>| now.get(named.symbol) != plan.config_files.get(named.symbol);
    match named.iter().find(differs) {
        None => Ok(()),
        Some(named) => Err(modified_error(named.symbol, "while it was compiled in")),
    }
}

fn modified_error(symbol: &str, when: &str) -> Error {
    Error::build(format!("a file that CONFIG_{symbol} names was changed {when}"))
        .hint("the same command again builds what is there now")
}

/// Reads the files that `named` names. Of files in the source, whose digest counts them, nothing is read; without
/// `source` they are taken to be there.
fn read(named: &NamedPaths<'_>, source: Option<&Utf8Path>) -> Result<FileDigests> {
    let mut files = FileDigests::default();
    let single = named.paths.len() == 1;
    for path in &named.paths {
        let path = Utf8Path::new(path);
        let message = |error: Error| setting_error(named.symbol, &error);
        if let Some(bad) = find_unsafe_char(path) {
            return Err(message(Error::usage(format!(
                "{path}: the kernel's make cannot work in a path with `{bad}` in it"
            ))));
        }
        if path.is_relative() {
            if matches!(named.kind, FileKind::Initramfs | FileKind::Certificates) {
                return Err(message(relative_path_error(path)));
            }
            require_in_source(path, source).map_err(message)?;
            continue;
        }
        files.paths.push(path.to_owned());
        match named.kind {
            FileKind::Initramfs => initramfs_source::add(path, single, &mut files),
            FileKind::Certificates => add_certificates(path, &mut files),
            FileKind::Firmware => digest(path).map(|sha256| files.add(format!("{sha256}  {path}"))),
            FileKind::File | FileKind::Unknown => digest(path).map(|sha256| files.add(sha256.to_string())),
            FileKind::SigningKey => {
                signing_key(path).and_then(|_| digest(path)).map(|sha256| files.add(sha256.to_string()))
            }
        }
        .map_err(message)?;
    }
    Ok(files)
}

fn setting_error(symbol: &str, error: &Error) -> Error {
    let hint = error.hint_text().unwrap_or("give the whole path of what is there, or leave the setting out");
    Error::usage(format!("CONFIG_{symbol}: {error}")).hint(hint)
}

/// A relative path is one in the source, for all settings that allow one.
fn require_in_source(path: &Utf8Path, source: Option<&Utf8Path>) -> Result<()> {
    let stays =
        path.components().all(|part| matches!(part, Utf8Component::Normal(_) | Utf8Component::CurDir));
    if stays && source.is_none_or(|source| source.join(path).is_file()) {
        return Ok(());
    }
    Err(Error::usage(format!("{path}: not in the source"))
        .hint("give the whole path of a file on this machine, or leave the setting out"))
}

/// The certificates in a directory, by their names.
fn add_certificates(dir: &Utf8Path, files: &mut FileDigests) -> Result<()> {
    let message = || format!("cannot read {dir}");
    metadata_of(dir)?;
    let mut found = Vec::new();
    for entry in dir.read_dir_utf8().context(Kind::Usage, message)? {
        let entry = entry.context(Kind::Usage, message)?;
        if entry.file_name().ends_with(".x509") {
            found.push(format!("{}  {}", digest(entry.path())?, entry.file_name()));
        }
    }
    found.sort();
    files.add(format!("{} certificates", found.len()));
    found.into_iter().for_each(|line| files.add(line));
    Ok(())
}

/// The text of a key, which make must be able to use without a password.
fn signing_key(path: &Utf8Path) -> Result<String> {
    let mut key = Vec::new();
    open(path)?.take(1 << 20).read_to_end(&mut key).context(Kind::Usage, || format!("cannot read {path}"))?;
    let key = String::from_utf8_lossy(&key).into_owned();
    if key.contains("ENCRYPTED") {
        return Err(Error::usage(format!("{path} is encrypted"))
            .hint("kcompile has no password for make: `openssl pkey -in KEY` writes the key in the clear"));
    }
    Ok(key)
}

/// Only RSA signs the same bytes in the same way each time.
fn signature_warning(named: &NamedPaths<'_>, config: &Config) -> Option<String> {
    let path = named.paths.first().filter(|_| named.kind == FileKind::SigningKey)?;
    let key = signing_key(Utf8Path::new(path)).ok()?;
    let signs = config.value("MODULE_SIG_ALL") == "y";
    (signs && !is_rsa(&key)).then(|| {
        "CONFIG_MODULE_SIG_KEY: it is no RSA key, and signatures by such a key are other ones each time: no two builds are equal"
            .to_owned()
    })
}

/// Does the text, in PEM, have a private RSA key?
fn is_rsa(key: &str) -> bool {
    // How PKCS#8 begins with the algorithm rsaEncryption, in base64; PKCS#1 has RSA keys only.
    key.contains("IBADANBgkqhkiG9w0BAQEF") || key.contains("BEGIN RSA PRIVATE KEY")
}
