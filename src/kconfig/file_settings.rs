//! Settings that name files of the host, whose content the kernel's build takes in: which they are, and what of their
//! text is a path. Pure: nothing is read here.

use super::Config;

/// A setting that names files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSetting {
    /// What its text means.
    pub kind: FileKind,
    /// Directories of a build tree that hold all that is made from the files; `None`: anything may.
    pub objects: Option<&'static [&'static str]>,
}

/// What the text of a setting means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file. A relative path is one in the source.
    File,
    /// The same, or the URI of a key in a token (`pkcs11:…`), or a key that the build makes.
    SigningKey,
    /// Files in `EXTRA_FIRMWARE_DIR`, which may be in the source.
    Firmware,
    /// A directory with certificates, `*.x509`.
    Certificates,
    /// A cpio archive, or any number of directories and of lists for `gen_init_cpio`.
    Initramfs,
    /// A file, if there is one of that name: nothing is known of the setting.
    Unknown,
}

/// One setting of a config that names files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPaths<'a> {
    /// Without `CONFIG_`.
    pub symbol: &'a str,
    /// What its text means.
    pub kind: FileKind,
    /// The paths in it.
    pub paths: Vec<String>,
}

/// The path that Kbuild gives to a signing key of its own making.
pub const GENERATED_KEY: &str = "certs/signing_key.pem";
/// The Kconfig default since Linux 4.16.
const FIRMWARE_DIR: &str = "/lib/firmware";
/// The directory of `EXTRA_FIRMWARE`, which counts with it.
const FIRMWARE_DIR_SYMBOL: &str = "EXTRA_FIRMWARE_DIR";

/// What of `symbol` is known; each as in the Makefiles and scripts of Linux 4.19 to 7.0.
pub fn setting(symbol: &str) -> FileSetting {
    const CERTS: Option<&[&str]> = Some(&["certs"]);
    let (kind, objects): (FileKind, Option<&'static [&'static str]>) = match symbol {
        "INITRAMFS_SOURCE" => (FileKind::Initramfs, Some(&["usr"])),
        "EXTRA_FIRMWARE" => (FileKind::Firmware, Some(&["firmware", "drivers/base/firmware_loader"])),
        "MODULE_SIG_KEY" => (FileKind::SigningKey, CERTS),
        "SYSTEM_TRUSTED_KEYS" | "SYSTEM_REVOCATION_KEYS" | "SYSTEM_BLACKLIST_HASH_LIST" => {
            (FileKind::File, CERTS)
        }
        "CFG80211_EXTRA_REGDB_KEYDIR" => (FileKind::Certificates, Some(&["net/wireless"])),
        "ACPI_CUSTOM_DSDT_FILE" => (FileKind::File, Some(&["drivers/acpi"])),
        "BOOT_CONFIG_EMBED_FILE" => (FileKind::File, Some(&["lib"])),
        "IPE_BOOT_POLICY" => (FileKind::File, Some(&["security/ipe"])),
        "LOGO_LINUX_MONO_FILE" | "LOGO_LINUX_VGA16_FILE" | "LOGO_LINUX_CLUT224_FILE" => {
            (FileKind::File, Some(&["drivers/video/logo"]))
        }
        "UNUSED_KSYMS_WHITELIST" => (FileKind::File, None),
        _ => (FileKind::Unknown, None),
    };
    FileSetting { kind, objects }
}

/// Paths of these are looked for when the kernel runs, not when it is built.
const RUNTIME_PATHS: [&str; 11] = [
    "BOOT_IMAGE",
    "CMDLINE",
    "DEFAULT_INIT",
    "DEFCONFIG_LIST",
    "EVM_X509_PATH",
    "IMA_X509_PATH",
    "MODPROBE_PATH",
    "SECURITY_TOMOYO_ACTIVATION_TRIGGER",
    "SECURITY_TOMOYO_POLICY_LOADER",
    "STATIC_USERMODEHELPER_PATH",
    "UEVENT_HELPER_PATH",
];

/// The settings of `config` that name files.
pub fn named_paths(config: &Config) -> Vec<NamedPaths<'_>> {
    let all = config.symbols.keys().filter_map(|symbol| {
        let text = config.text(symbol)?;
        let kind = setting(symbol).kind;
        let paths: Vec<String> = match kind {
            FileKind::Firmware => {
                let dir = config.text(FIRMWARE_DIR_SYMBOL).unwrap_or_else(|| FIRMWARE_DIR.to_owned());
                text.split_whitespace().map(|name| format!("{dir}/{name}")).collect()
            }
            FileKind::Initramfs => text.split_whitespace().map(str::to_owned).collect(),
            FileKind::SigningKey if text == GENERATED_KEY || is_in_token(&text) => return None,
            FileKind::Unknown if symbol == FIRMWARE_DIR_SYMBOL || RUNTIME_PATHS.contains(&&**symbol) => {
                return None;
            }
            FileKind::Unknown if !text.starts_with('/') => return None,
            _ => Some(text).filter(|text| !text.is_empty()).into_iter().collect(),
        };
        (!paths.is_empty()).then_some(NamedPaths { symbol, kind, paths })
    });
    all.collect()
}

/// Does it name a key by a PKCS#11 URI?
pub fn is_in_token(text: &str) -> bool {
    text.starts_with("pkcs11:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_settings() {
        let config = Config::parse(
            "CONFIG_INITRAMFS_SOURCE=\"/a/list /b\"\nCONFIG_EXTRA_FIRMWARE=\"x.bin y/z.bin\"\n\
             CONFIG_SYSTEM_TRUSTED_KEYS=\"\"\nCONFIG_MODULE_SIG_KEY=\"certs/signing_key.pem\"\n\
             CONFIG_MODPROBE_PATH=\"/sbin/modprobe\"\nCONFIG_VENDOR=\"/v \\\"x\\\"\"\nCONFIG_LSM=\"yama,bpf\"\n\
             CONFIG_CC_VERSION_TEXT=\"gcc 12\"\nCONFIG_NR_CPUS=64\nCONFIG_PSI=y\n",
        );
        let found = |symbol: &str| {
            let named = named_paths(&config);
            named.into_iter().find(|named| named.symbol == symbol).map(|named| named.paths)
        };
        assert_eq!(named_paths(&config).len(), 3);
        assert_eq!(found("INITRAMFS_SOURCE").unwrap(), ["/a/list", "/b"]);
        assert_eq!(found("EXTRA_FIRMWARE").unwrap(), ["/lib/firmware/x.bin", "/lib/firmware/y/z.bin"]);
        assert_eq!(found("VENDOR").unwrap(), ["/v \"x\""]);
    }
}
