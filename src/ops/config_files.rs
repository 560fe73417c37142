//! Files of this machine that a config names and that get into the kernel: their digests for the plan, and whether
//! they are there before make looks for them.

use super::initramfs_source;
use super::named_files::{Files, digest, look, open, relative};
use crate::kconfig::Config;
use crate::kconfig::file_settings::{self, Named, Names};
use crate::plan::{self, Plan};
use crate::source::Tree;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::kbuild_path_fault;
use camino::{Utf8Component, Utf8Path};
use std::io::Read;

/// The plan with the digests of the files that its config names. What cannot be read is a warning: the setting may
/// not take.
pub fn complete(mut plan: Plan) -> Plan {
    let wanted = plan::wanted(&plan);
    for named in file_settings::named(&wanted) {
        match read(&named, None) {
            Ok(files) => {
                plan.config_files.extend(files.digest().map(|digest| (named.symbol.to_owned(), digest)));
                plan.config_paths.extend(files.paths);
                plan.warnings.extend(signature_warning(&named, &wanted));
            }
            Err(_) if named.names == Names::Perhaps => {}
            Err(error) => plan.warnings.push(error.to_string()),
        }
    }
    plan
}

/// What the files of a final config come to.
#[derive(Debug, Default)]
pub struct Checked {
    /// The settings that take in files from outside of the source, with what they say.
    pub taken_in: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What is in no plan, and may be another one the next time.
    pub unknown: Vec<String>,
}

/// Checks that all files that the final config names are there, and are those of the plan. `tree` is the source;
/// `owners_show`: does make see to whom files belong?
///
/// Errors (exit code 2): a file is not there, or make would look for it elsewhere; the plan does not have it.
pub fn check(config: &Config, plan: &Plan, tree: &Tree, owners_show: bool) -> Result<Checked> {
    let mut checked = Checked::default();
    for named in file_settings::named(config) {
        let files = match read(&named, Some(&tree.path)) {
            Err(_) if named.names == Names::Perhaps => continue,
            files => files?,
        };
        let (symbol, value) = (named.symbol, config.value(named.symbol));
        if let Some(path) = files.foreign.as_ref().filter(|_| !owners_show) {
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
            Some(planned) if now != *planned => return Err(changed(symbol, "since the build began")),
            None if named.names == Names::Perhaps => checked.unknown.push(format!("{by_default} ({hint})")),
            None => return Err(Error::usage(by_default).hint(hint)),
            Some(_) => {}
        }
        checked.taken_in.push(format!("CONFIG_{symbol}={value}"));
        checked.warnings.extend(signature_warning(&named, config));
    }
    Ok(checked)
}

/// Are the files still those of the plan, when make has read them?
///
/// Errors (exit code 1): one was changed meanwhile.
pub fn still_the_same(config: &Config, plan: &Plan) -> Result<()> {
    let now = complete(Plan { config_files: Default::default(), ..plan.clone() }).config_files;
    let named = file_settings::named(config);
    let differs = |named: &&Named<'_>| now.get(named.symbol) != plan.config_files.get(named.symbol);
    match named.iter().find(differs) {
        None => Ok(()),
        Some(named) => Err(changed(named.symbol, "while it was compiled in")),
    }
}

fn changed(symbol: &str, when: &str) -> Error {
    Error::build(format!("a file that CONFIG_{symbol} names was changed {when}"))
        .hint("the same command again builds what is there now")
}

/// Reads the files that `named` names. Of files in the source, whose digest counts them, nothing is read; without
/// `source` they are taken to be there.
fn read(named: &Named<'_>, source: Option<&Utf8Path>) -> Result<Files> {
    let mut files = Files::default();
    let single = named.paths.len() == 1;
    for path in &named.paths {
        let path = Utf8Path::new(path);
        let wrong = |error: Error| wrong_setting(named.symbol, &error);
        if let Some(bad) = kbuild_path_fault(path) {
            return Err(wrong(Error::usage(format!(
                "{path}: the kernel's make cannot work in a path with `{bad}` in it"
            ))));
        }
        if path.is_relative() {
            if matches!(named.names, Names::Initramfs | Names::Certificates) {
                return Err(wrong(relative(path)));
            }
            require_in_source(path, source).map_err(wrong)?;
            continue;
        }
        files.paths.push(path.to_owned());
        match named.names {
            Names::Initramfs => initramfs_source::add(path, single, &mut files),
            Names::Certificates => add_certificates(path, &mut files),
            Names::Firmware => digest(path).map(|sha256| files.add(format!("{sha256}  {path}"))),
            Names::File | Names::Perhaps => digest(path).map(|sha256| files.add(sha256.to_string())),
            Names::SigningKey => {
                signing_key(path).and_then(|_| digest(path)).map(|sha256| files.add(sha256.to_string()))
            }
        }
        .map_err(wrong)?;
    }
    Ok(files)
}

fn wrong_setting(symbol: &str, error: &Error) -> Error {
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
fn add_certificates(dir: &Utf8Path, files: &mut Files) -> Result<()> {
    let wrong = || format!("cannot read {dir}");
    look(dir)?;
    let mut found = Vec::new();
    for entry in dir.read_dir_utf8().context(Kind::Usage, wrong)? {
        let entry = entry.context(Kind::Usage, wrong)?;
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
fn signature_warning(named: &Named<'_>, config: &Config) -> Option<String> {
    let path = named.paths.first().filter(|_| named.names == Names::SigningKey)?;
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
