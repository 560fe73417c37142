//! Files of this machine that a config names and that become part of the kernel. Their digests are in the
//! plan, and they are checked before make reads them.

use super::initramfs_source;
use super::named_files::{FileDigests, digest, metadata_of, open, relative_path_error};
use crate::kbuild::BuildDir;
use crate::kconfig::Config;
use crate::kconfig::file_settings::{self, FileKind, NamedPaths};
use crate::plan::{self, Plan};
use crate::source::Tree;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::find_unsafe_char;
use camino::{Utf8Component, Utf8Path};
use std::io::Read;

/// Returns the plan with the digests of the files that its config names. A file that cannot be read is only a
/// warning, since its setting may not take effect.
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

/// The files that a final config names.
#[derive(Debug, Default)]
pub struct FileInputs {
    /// Settings that name files outside of the source, with their values.
    pub included: Vec<String>,
    pub warnings: Vec<String>,
    /// Inputs that are not in the plan, and may differ the next time.
    pub unknown: Vec<String>,
}

/// Checks that all files that the final config names exist, and are those of the plan.
///
/// # Errors
///
/// A file is missing or not in the plan, or make would look for it elsewhere (exit code 2).
pub fn check(config: &Config, plan: &Plan, tree: &Tree, build_dir: &BuildDir<'_>) -> Result<FileInputs> {
    let mut checked = FileInputs::default();
    for named in file_settings::named_paths(config) {
        let files = match read(&named, Some(&tree.path)) {
            Err(_) if named.kind == FileKind::Unknown => continue,
            files => files?,
        };
        let (symbol, value) = (named.symbol, config.value(named.symbol));
        if let Some(path) = files.foreign.as_ref().filter(|_| !build_dir.keeps_owners()) {
            return Err(Error::usage(format!(
                "CONFIG_{symbol}: {path} belongs to another user, and the sandbox hides owners from make"
            ))
            .hint("use a file list or a .cpio archive, or --sandbox off"));
        }
        let Some(now) = files.digest() else { continue };
        let by_default =
            format!("CONFIG_{symbol}={value} is the kernel's default, and that file is not in the plan");
        let hint = format!("add it to the plan with --set '{symbol}={value}'");
        match plan.config_files.get(symbol) {
            Some(planned) if now != *planned => return Err(modified_error(symbol, "after the build began")),
            None if named.kind == FileKind::Unknown => checked.unknown.push(format!("{by_default} ({hint})")),
            None => return Err(Error::usage(by_default).hint(hint)),
            Some(_) => {}
        }
        checked.included.push(format!("CONFIG_{symbol}={value}"));
        checked.warnings.extend(signature_warning(&named, config));
    }
    Ok(checked)
}

/// Checks that the files are still those of the plan after make has read them.
///
/// # Errors
///
/// A file was changed in the meantime (exit code 1).
pub fn check_unmodified(config: &Config, plan: &Plan) -> Result<()> {
    let now = with_config_files(Plan { config_files: Default::default(), ..plan.clone() }).config_files;
    let named = file_settings::named_paths(config);
    let differs = |named: &&NamedPaths<'_>| now.get(named.symbol) != plan.config_files.get(named.symbol);
    named.iter().find(differs).map_or(Ok(()), |named| Err(modified_error(named.symbol, "during the build")))
}

fn modified_error(symbol: &str, when: &str) -> Error {
    Error::build(format!("a file that CONFIG_{symbol} names was changed {when}"))
        .hint("run the same command again to build with the new file")
}

/// Reads the files that `named` names. Files in the source are not read, since its digest covers them.
/// Without `source` they are assumed to exist.
fn read(named: &NamedPaths<'_>, source: Option<&Utf8Path>) -> Result<FileDigests> {
    let mut files = FileDigests::default();
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
            FileKind::Initramfs => initramfs_source::add(path, named, &mut files),
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
    let hint =
        error.hint_text().unwrap_or("give the absolute path of an existing file, or remove the setting");
    Error::usage(format!("CONFIG_{symbol}: {error}")).hint(hint)
}

/// Checks that a relative path names a file in the source.
fn require_in_source(path: &Utf8Path, source: Option<&Utf8Path>) -> Result<()> {
    let stays =
        path.components().all(|part| matches!(part, Utf8Component::Normal(_) | Utf8Component::CurDir));
    if stays && source.is_none_or(|source| source.join(path).is_file()) {
        return Ok(());
    }
    Err(Error::usage(format!("{path}: not in the source"))
        .hint("give the absolute path of a file on this machine, or remove the setting"))
}

/// Adds the certificates in a directory, by name.
fn add_certificates(dir: &Utf8Path, files: &mut FileDigests) -> Result<()> {
    metadata_of(dir)?;
    let mut found = Vec::new();
    for entry in dir.read_dir_utf8().context(Kind::Usage, cannot("read", dir))? {
        let entry = entry.context(Kind::Usage, cannot("read", dir))?;
        if entry.file_name().ends_with(".x509") {
            found.push(format!("{}  {}", digest(entry.path())?, entry.file_name()));
        }
    }
    found.sort();
    files.add(format!("{} certificates", found.len()));
    found.into_iter().for_each(|line| files.add(line));
    Ok(())
}

/// Reads a signing key, which must not need a password.
fn signing_key(path: &Utf8Path) -> Result<String> {
    let mut key = Vec::new();
    open(path)?.take(1 << 20).read_to_end(&mut key).context(Kind::Usage, || format!("cannot read {path}"))?;
    let key = String::from_utf8_lossy(&key).into_owned();
    if key.contains("ENCRYPTED") {
        return Err(Error::usage(format!("{path} is encrypted"))
            .hint("make cannot ask for a password; `openssl pkey -in KEY` decrypts the key"));
    }
    Ok(key)
}

/// Warns of a key whose signatures differ each time. Only RSA signatures are deterministic.
fn signature_warning(named: &NamedPaths<'_>, config: &Config) -> Option<String> {
    let path = named.paths.first().filter(|_| named.kind == FileKind::SigningKey)?;
    let key = signing_key(Utf8Path::new(path)).ok()?;
    let signs = config.value("MODULE_SIG_ALL") == "y";
    (signs && !is_rsa(&key)).then(|| {
        "CONFIG_MODULE_SIG_KEY: not an RSA key; other signatures differ each time, so no two builds are equal"
            .to_owned()
    })
}

/// Returns whether PEM text has a private RSA key.
fn is_rsa(key: &str) -> bool {
    // The start of PKCS#8 with the algorithm rsaEncryption, in base64. PKCS#1 has only RSA keys.
    key.contains("IBADANBgkqhkiG9w0BAQEF") || key.contains("BEGIN RSA PRIVATE KEY")
}
