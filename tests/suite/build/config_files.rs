//! Files that a config names are part of the kernel, so they are in the plan before make runs.

use crate::support::context::{RunResult, TestContext, has_tool, sha256, skipped, write_script};
use crate::support::git::{commit, sh};
use serde_json::Value;
use std::fs;

/// The parts of a kernel that include files of the host, like Kbuild does. Make only notices newer
/// files.
const KCONFIG: &str = r#"
config INITRAMFS_SOURCE
	string "Initramfs source file(s)"
	depends on BLK_DEV_INITRD

config EXTRA_FIRMWARE
	string "Build named firmware blobs into the kernel binary"

config EXTRA_FIRMWARE_DIR
	string "Firmware blobs root directory"
	default "/lib/firmware"

config SYSTEM_TRUSTED_KEYRING
	bool "Provide system-wide ring of trusted keys"

config SYSTEM_TRUSTED_KEYS
	string "Additional X.509 keys for default system keyring"
	depends on SYSTEM_TRUSTED_KEYRING

config SYSTEM_BLACKLIST_HASH_LIST
	string "Hashes to be preloaded into the system blacklist keyring"

config MODULE_SIG
	bool "Module signature verification"

config MODULE_SIG_ALL
	bool "Automatically sign all modules"
	depends on MODULE_SIG

config MODULE_SIG_KEY
	string "File name or PKCS#11 URI of module signing key"
	default "certs/signing_key.pem"
	depends on MODULE_SIG

config VENDOR_BLOB
	string "A vendor's blob"

config VENDOR_DEFAULT
	bool "A vendor's blob that is there without asking"

config VENDOR_DEFAULT_BLOB
	string "Its file"
	default "@vendor@"
	depends on VENDOR_DEFAULT

config LOCALVERSION_AUTO
	bool "Automatically append version information to the version string"
"#;

const KBUILD: &str = r#"
text = $(subst $(quote),,$(1))
quote := "
initramfs-input := $(call text,$(CONFIG_INITRAMFS_SOURCE))
firmware-input := $(addprefix $(call text,$(CONFIG_EXTRA_FIRMWARE_DIR))/,$(call text,$(CONFIG_EXTRA_FIRMWARE)))
module-key := $(if $(CONFIG_MODULE_SIG),$(call text,$(CONFIG_MODULE_SIG_KEY)))
keys-input := $(foreach s,SYSTEM_TRUSTED_KEYS SYSTEM_BLACKLIST_HASH_LIST VENDOR_BLOB VENDOR_DEFAULT_BLOB,$(call text,$(CONFIG_$(s)))) \
	      $(filter-out pkcs11:%,$(module-key))
obj-y += usr/data.o firmware/data.o certs/data.o
usr/data.o firmware/data.o certs/data.o: %/data.o: %/data.bin
vpath %.pem $(srctree)

usr/data.bin: $(if $(initramfs-input),$(shell sh $(srctree)/usr/gen.sh -l $(initramfs-input)))
	@mkdir -p usr; sh $(srctree)/usr/gen.sh $(initramfs-input) > $@
firmware/data.bin: $(if $(CONFIG_EXTRA_FIRMWARE),$(firmware-input))
	@mkdir -p firmware; cat /dev/null $^ > $@
certs/data.bin: $(keys-input)
	@mkdir -p certs; cat /dev/null $^ > $@
certs/signing_key.pem:
	@mkdir -p certs; od -An -N8 -tx8 /dev/urandom > $@
"#;

const GEN: &str = r#"
[ "$1" != -l ] || { list=yes; shift; }
file() { if [ "$list" ]; then echo "$1"; else stat -c '%Y' "$1"; cat "$1"; fi; }
for input; do
	case $input in *.cpio) file "$input"; continue;; esac
	if [ -f "$input" ]; then
		if [ "$list" ]; then echo "$input"; else cat "$input"; fi
		while read -r type name location rest; do [ "$type" != file ] || file "$location"; done < "$input"
	elif [ -d "$input" ]; then
		[ "$list" ] || find "$input" -printf '%P %y %m %U %G %l\n' | sort
		find "$input" -type f | sort | while read -r found; do file "$found"; done
	else
		echo "cannot open $input" >&2; exit 1
	fi
done
"#;

/// Returns a context with a kernel that includes files.
fn context() -> TestContext {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    let append = |file: &str, text: &str| {
        let before = fs::read_to_string(tree.join(file)).unwrap();
        fs::write(tree.join(file), format!("{before}{text}")).unwrap();
    };
    append("drivers/mini/Kconfig", &KCONFIG.replace("@vendor@", context.path("host/vendor").as_str()));
    append("Kbuild", KBUILD);
    for dir in ["usr", "firmware", "certs"] {
        fs::create_dir(tree.join(dir)).unwrap();
        let data = format!(".section .rodata,\"a\"\n.incbin \"{dir}/data.bin\"\n");
        fs::write(tree.join(dir).join("data.S"), data).unwrap();
    }
    fs::write(tree.join("usr/gen.sh"), GEN).unwrap();
    fs::write(tree.join("certs/in-tree.pem"), "a certificate of the source").unwrap();
    fs::create_dir_all(context.path("host/root/etc")).unwrap();
    for name in ["busybox", "root/etc/motd", "blob.bin", "trusted.pem", "hashes", "whole.cpio", "vendor"] {
        fs::write(context.path("host").join(name), format!("the first {name}")).unwrap();
    }
    let list =
        format!("# a list\ndir /dev 0755 0 0\nfile /bin/sh {} 0755 0 0\n", context.path("host/busybox"));
    fs::write(context.path("host/list"), list).unwrap();
    context
}

/// Returns the fragment for `build`, with `HOST` for the directory of the files.
fn config(context: &TestContext, settings: &str) -> String {
    let settings = settings.replace("HOST", context.path("host").as_str());
    fs::write(context.path("work/files.config"), settings).unwrap();
    "--fragment files.config".to_owned()
}

fn build(context: &TestContext, settings: &str, args: &str) -> RunResult {
    let fragment = config(context, settings);
    context.build(&format!("{fragment} {args}"))
}

/// Returns the plan's `config_files`.
fn planned(context: &TestContext, settings: &str) -> (Value, Value) {
    let fragment = config(context, settings);
    let plan = context.run(&format!("plan 6.1.7 --fc --source linux --config mini.config {fragment} --json"));
    let plan = plan.ok().item();
    (plan["plan"]["config_files"].clone(), plan["notices"].clone())
}

#[test]
fn changing_a_file_named_by_the_config_changes_the_plan() {
    let context = context();
    let settings = "CONFIG_INITRAMFS_SOURCE=\"HOST/list HOST/root\"\n\
                    CONFIG_EXTRA_FIRMWARE=\"blob.bin\"\nCONFIG_EXTRA_FIRMWARE_DIR=\"HOST\"\n\
                    CONFIG_SYSTEM_TRUSTED_KEYRING=y\nCONFIG_SYSTEM_TRUSTED_KEYS=\"HOST/trusted.pem\"\n\
                    CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"HOST/hashes\"\nCONFIG_VENDOR_BLOB=\"HOST/vendor\"\n";
    let mut seen = vec![build(&context, settings, "").ok().digests()];
    for file in ["list", "busybox", "root/etc/motd", "blob.bin", "trusted.pem", "hashes", "vendor"] {
        let path = context.path("host").join(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("# changed\n{before}")).unwrap();
        // Make does not notice this change.
        sh(&context.path("host"), &format!("touch -d 2001-01-01 {file}"));
        let digests = build(&context, settings, "").ok().digests();
        assert!(!seen.contains(&digests), "{file}");
        seen.push(digests);
    }
    build(&context, settings, "").ok().says("nothing to do");
    // No object contains any of it.
    let clean = build(&context, settings, "--cache-dir clean -o clean").ok().digests();
    assert_eq!(seen.last().unwrap(), &clean);
    let archive = "CONFIG_INITRAMFS_SOURCE=\"HOST/whole.cpio\"\n";
    let first = build(&context, archive, "").ok().digests();
    fs::write(context.path("host/whole.cpio"), "another archive").unwrap();
    assert_ne!(build(&context, archive, "").ok().digests(), first);
}

#[test]
fn the_plan_records_the_digest_of_each_config_file() {
    let context = context();
    assert_eq!(planned(&context, "CONFIG_PSI=y\n").0, Value::Null);
    let (files, _) = planned(
        &context,
        "CONFIG_SYSTEM_TRUSTED_KEYS=\"HOST/trusted.pem\"\nCONFIG_MODULE_SIG_KEY=\"certs/in-tree.pem\"\nCONFIG_UEVENT_HELPER_PATH=\"/bin/sh\"\n",
    );
    let digest = sha256(&fs::read(context.path("host/trusted.pem")).unwrap());
    assert_eq!(files, serde_json::json!({ "SYSTEM_TRUSTED_KEYS": digest }));
    // The content of a directory, including modes and links.
    let settings = "CONFIG_INITRAMFS_SOURCE=\"HOST/root\"\n";
    let mut seen = vec![planned(&context, settings).0];
    for change in [
        "chmod 600 root/etc/motd",
        "ln -s motd root/etc/link",
        "ln -sf other root/etc/link",
        "mkdir root/dev",
        "touch -d 2001-01-01 root/etc/motd",
    ] {
        sh(&context.path("host"), change);
        let now = planned(&context, settings).0;
        assert!(now["INITRAMFS_SOURCE"].is_string() && !seen.contains(&now), "{change}");
        seen.push(now);
    }
    let receipt = |name: &str| -> Value {
        serde_json::from_slice(
            &fs::read(context.path(&format!("work/out/firecracker-6.1.7-amd64.{name}"))).unwrap(),
        )
        .unwrap()
    };
    build(&context, "CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"HOST/hashes\"\n", "").ok();
    let digest = sha256(&fs::read(context.path("host/hashes")).unwrap());
    assert_eq!(receipt("json")["plan"]["config_files"]["SYSTEM_BLACKLIST_HASH_LIST"], digest);
    let provenance = receipt("provenance.json").to_string();
    assert!(
        provenance.contains(&digest) && !provenance.contains(context.path("host").as_str()),
        "{provenance}"
    );
}

#[test]
fn a_missing_config_file_fails_before_compiling() {
    let context = context();
    let host = context.path("host");
    fs::create_dir(context.path("host/sp ace")).unwrap();
    fs::write(context.path("host/relative.list"), "file /x busybox 0755 0 0\n").unwrap();
    fs::write(context.path("host/variable.list"), "file /x ${HOME}/busybox 0755 0 0\n").unwrap();
    fs::write(context.path("host/gone.list"), "\n# x\nfile /x /nowhere/busybox 0755 0 0\n").unwrap();
    sh(&host, "ln -s root linked-root; ln -s /nowhere dangling; mkdir odd; echo x > 'odd/a b'; mkfifo pipe");
    for (settings, says) in [
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/nothing\"", "HOST/nothing: no such file or directory"),
        ("CONFIG_INITRAMFS_SOURCE=\"list\"", "`list` is a relative path"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/sp ace\"", "HOST/sp: no such file"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/$(id)\"", "cannot work in a path with `$`"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/linked-root\"", "is a link: the kernel's script does not follow it"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/odd\"", "the kernel's script cannot handle white space in names"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/relative.list\"", "relative.list:1: `busybox` is a relative path"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/variable.list\"", "variable.list:1: "),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/gone.list\"", "gone.list:3: /nowhere/busybox: no such file"),
        ("CONFIG_INITRAMFS_SOURCE=\"HOST/pipe\"", "HOST/pipe is neither a file nor a directory"),
        ("CONFIG_EXTRA_FIRMWARE=\"a/b.bin\"", "/lib/firmware/a/b.bin: no such file"),
        ("CONFIG_EXTRA_FIRMWARE=\"b.bin\"\nCONFIG_EXTRA_FIRMWARE_DIR=\"fw\"", "fw/b.bin: not in the source"),
        ("CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"HOST/dangling\"", "HOST/dangling: no such file"),
        ("CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"HOST/root\"", "HOST/root is not a file"),
        ("CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"debian/hashes\"", "debian/hashes: not in the source"),
        ("CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"../hashes\"", "../hashes: not in the source"),
        ("CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_KEY=\"HOST/key.pem\"", "HOST/key.pem: no such file"),
    ] {
        let symbol =
            settings.split(['=', '\n']).find(|word| *word != "y" && *word != "CONFIG_MODULE_SIG").unwrap();
        let says = says.replace("HOST", host.as_str());
        let ran = build(&context, &format!("{settings}\n"), "").failed(2, &[symbol, &says, "hint: "]);
        assert!(!ran.stderr.contains("Compile"), "{}", ran.stderr);
    }
    // The file does not matter if the config does not name it.
    let settings = "CONFIG_SYSTEM_TRUSTED_KEYS=\"debian/certs/x.pem\"\n";
    fs::write(context.path("work/mini.config"), format!("{}{settings}", crate::support::context::CONFIG))
        .unwrap();
    context.build("").ok().says("warning: CONFIG_SYSTEM_TRUSTED_KEYS=");
    build(&context, "CONFIG_SYSTEM_TRUSTED_KEYRING=y\n", "")
        .failed(2, &["debian/certs/x.pem: not in the source"]);
}

#[test]
fn config_file_paths_are_relative_to_the_source() {
    let context = context();
    let settings = "CONFIG_SYSTEM_TRUSTED_KEYRING=y\nCONFIG_SYSTEM_TRUSTED_KEYS=\"certs/in-tree.pem\"\n";
    let first = build(&context, settings, "").ok().digests();
    fs::write(context.path("work/linux/certs/in-tree.pem"), "another").unwrap();
    assert_ne!(build(&context, settings, "").ok().digests(), first);
}

/// Nobody asked for this path, and no plan has it.
#[test]
fn files_named_by_kconfig_defaults_must_be_named_in_the_config() {
    let context = context();
    let default = "CONFIG_VENDOR_DEFAULT=y\n";
    // The source must not choose which files of the host make sees.
    let ran = build(&context, default, "--sandbox on");
    if ran.code != 4 {
        ran.failed(1, &["warning: CONFIG_VENDOR_DEFAULT_BLOB=", "vendor"]);
    }
    for _ in ["once", "again"] {
        let ran = build(&context, default, "--sandbox off").ok().says("Compile: done");
        let ran = ran.says("warning: CONFIG_VENDOR_DEFAULT_BLOB=");
        ran.says("is the kernel's default").says("--set 'VENDOR_DEFAULT_BLOB=\"");
    }
    let named = format!("{default}CONFIG_VENDOR_DEFAULT_BLOB=\"HOST/vendor\"\n");
    build(&context, &named, "")
        .ok()
        .says("note: files of this machine become part of the kernel: CONFIG_VENDOR_DEFAULT_BLOB=");
    build(&context, &named, "").ok().says("nothing to do");
    // A setting that is known to name a file.
    let kconfig = context.path("work/linux/drivers/mini/Kconfig");
    let text = fs::read_to_string(&kconfig).unwrap();
    let hashes = format!("keyring\"\n\tdefault \"{}\"", context.path("host/hashes"));
    fs::write(&kconfig, text.replace("system blacklist keyring\"", &format!("system blacklist {hashes}")))
        .unwrap();
    build(&context, "CONFIG_PSI=y\n", "").failed(
        2,
        &[
            "CONFIG_SYSTEM_BLACKLIST_HASH_LIST=",
            "is the kernel's default",
            "hint: ",
            "--set 'SYSTEM_BLACKLIST_HASH_LIST=\"",
        ],
    );
}

#[test]
fn a_config_file_that_changes_during_the_build_is_an_error() {
    let context = context();
    let makefile = context.path("work/linux/Kbuild");
    let text = fs::read_to_string(&makefile).unwrap();
    let hashes = context.path("host/hashes");
    let change = format!("\nkernel/printk.o: | edited\nedited:\n\t@echo second > {hashes}\n");
    fs::write(&makefile, format!("{text}{change}")).unwrap();
    let settings = "CONFIG_SYSTEM_BLACKLIST_HASH_LIST=\"HOST/hashes\"\n";
    build(&context, settings, "--sandbox off")
        .failed(1, &["CONFIG_SYSTEM_BLACKLIST_HASH_LIST", "was changed during the build"]);
    assert!(!context.path("work/out").exists());
    // The first text again. What was compiled in between belongs to another kernel.
    fs::write(&makefile, &text).unwrap();
    fs::write(&hashes, "the first hashes").unwrap();
    sh(&context.path("host"), "touch -d 2001-01-01 hashes");
    let digests = build(&context, settings, "").ok().digests();
    assert_eq!(build(&context, settings, "--cache-dir clean -o clean").ok().digests(), digests);
}

#[test]
fn unreproducible_settings_are_warned_about() {
    let context = context();
    let settings = "CONFIG_MODULE_SIG=y\n";
    let says = "CONFIG_MODULE_SIG: a key that is made for this build signs the modules";
    let (_, notices) = planned(&context, settings);
    assert!(notices.to_string().contains(says), "{notices}");
    let first = build(&context, settings, "").ok().says(&format!("warning: {says}")).digests();
    build(&context, settings, "").ok().says("nothing to do").says(says);
    assert_ne!(build(&context, settings, "--cache-dir clean -o clean").ok().digests(), first);
    // A user's own key. RSA signatures are deterministic.
    if !has_tool("openssl") {
        return;
    }
    let key = |options: &str, name: &str| {
        let make = "openssl req -x509 -nodes -days 1 -subj /CN=x -keyout key -out cert 2> /dev/null";
        sh(&context.path("host"), &format!("{make} {options}; cat key cert > {name}"));
        format!("CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_ALL=y\nCONFIG_MODULE_SIG_KEY=\"HOST/{name}\"\n")
    };
    let rsa = key("-newkey rsa:1024", "rsa.pem");
    assert_eq!(planned(&context, &rsa).1.to_string(), "[]");
    let ran = build(&context, &rsa, "").ok();
    assert!(!ran.stderr.contains("warning:"), "{}", ran.stderr);
    let ecdsa = key("-newkey ec -pkeyopt ec_paramgen_curve:P-256", "ecdsa.pem");
    let says = "other signatures differ each time";
    assert!(planned(&context, &ecdsa).1.to_string().contains(says));
    build(&context, &ecdsa, "").ok().says(says);
    sh(&context.path("host"), "openssl rsa -in rsa.pem -aes128 -passout pass:x -out locked.pem 2> /dev/null");
    let locked = "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_KEY=\"HOST/locked.pem\"\n";
    build(&context, locked, "").failed(2, &["CONFIG_MODULE_SIG_KEY", "locked.pem is encrypted"]);
}

/// Unreadable inputs must not lead to the reuse of old images.
#[test]
fn builds_with_unknown_inputs_are_never_reused() {
    let context = context();
    let token = "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_KEY=\"pkcs11:token=x;object=y\"\n";
    let (files, notices) = planned(&context, token);
    assert!(files.is_null() && notices.to_string().contains("the key is in a hardware token"), "{notices}");
    for _ in ["once", "again"] {
        let built = build(&context, token, "").ok().says("Compile: done");
        built.says("warning: CONFIG_MODULE_SIG_KEY: the key is in a hardware token");
    }
    if has_tool("git") {
        let auto = "CONFIG_LOCALVERSION_AUTO=y\n";
        build(&context, auto, "").ok();
        build(&context, auto, "").ok().says("nothing to do");
        sh(&context.path("work/linux"), "git init -q . && git add .");
        commit(&context.path("work/linux"));
        for _ in ["once", "again"] {
            build(&context, auto, "--rebuild").ok().says("warning: CONFIG_LOCALVERSION_AUTO: ");
            build(&context, auto, "").ok().says("Compile: done");
        }
    }
}

/// The user namespace of an ordinary user has no other users, so files of others have no owner in
/// it.
#[test]
fn initramfs_files_with_owners_hidden_by_the_sandbox_are_refused() {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can give a file to somebody else");
        return;
    }
    let mut context = context();
    sh(&context.path("host"), "chown 1234:1234 root/etc/motd");
    let path = std::env::var("PATH").unwrap();
    let unshare = format!("[ \"$2\" = --map-current-user ] || exit 1\nPATH='{path}' exec unshare \"$@\"");
    write_script(&context.path("tools/unshare"), &unshare);
    let settings = "CONFIG_INITRAMFS_SOURCE=\"HOST/root\"\n";
    let open = build(&context, settings, "--sandbox off -o open").ok().digests();
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("tools")));
    let closed = build(&context, settings, "--rebuild --sandbox on");
    if closed.code == 4 {
        skipped("no user namespaces here");
        return;
    }
    closed.failed(2, &["CONFIG_INITRAMFS_SOURCE", "root/etc/motd belongs to another user", "--sandbox off"]);
    assert_eq!(build(&context, settings, "--sandbox off").ok().digests(), open);
}
