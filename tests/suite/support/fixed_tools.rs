//! Tools that give the same bytes on every host. `--version` prints a fixed line, and the linker's
//! output is a fixed file. The host's tools of the same names do the rest.

use crate::support::context::{TestContext, write_script};
use crate::support::fixtures::replace;
use std::fs;

/// The compiler version that the fixed tools print.
const GCC: &str = "gcc (GCC) 12.2.0";
/// ELF machine numbers by Kbuild's name.
const MACHINES: [(&str, u8); 2] = [("x86_64", 62), ("arm64", 183)];

/// Returns a context whose tools make the same kernel and modules for these releases on every host.
pub(crate) fn context(releases: &[&str]) -> TestContext {
    let mut context = TestContext::new();
    let dir = context.path("tools");
    let path = std::env::var("PATH").unwrap();
    // Without paths of the host or the test, since plans have their digests.
    let tool = |name: &str, version: &str, lines: &str| {
        let base = name.rsplit('-').next().unwrap();
        let version = format!("case $1 in --version) echo '{version}'; exit;; esac");
        let is_ours = "[ \"$dir\" = \"${0%/*}\" ]";
        let real = format!(
            "IFS=:; for dir in $PATH; do {is_ours} || [ ! -x \"$dir/{base}\" ] || exec \"$dir/{base}\" \"$@\"; done
exit 127"
        );
        write_script(&dir.join(name), &format!("{version}\n{lines}\n{real}"));
    };
    let ld = "dir=${0%/*}
for word; do [ \"$last\" != -o ] || out=$word; last=$word; done
case $out in
vmlinux) exec cp $dir/vmlinux-$(cat include/config/kernel.release) vmlinux;;
*.ko) exec cp $dir/module-$ARCH-$(cat include/config/kernel.release) \"$out\";;
esac";
    for prefix in ["", "aarch64-linux-gnu-"] {
        tool(&format!("{prefix}gcc"), GCC, "");
        tool(&format!("{prefix}ld"), "GNU ld (GNU Binutils) 2.40", ld);
    }
    tool("make", "GNU Make 4.3", "");
    tool("clang", "clang version 16.0.6", "");
    tool("ld.lld", "LLD 16.0.6 (compatible with GNU linkers)", "");
    tool(
        "nm",
        "GNU nm (GNU Binutils) 2.40",
        "[ \"$*\" != '-n vmlinux' ] || { echo '0000000001000000 T _text'; exit; }",
    );
    tool("strip", "GNU strip (GNU Binutils) 2.40", "exit");
    let objcopy = "for word; do from=$to; to=$word; done\n[ \"$1\" = -j ] || exec cp \"$from\" \"$to\"";
    tool("objcopy", "GNU objcopy (GNU Binutils) 2.40", objcopy);
    let depmod = "for word; do [ \"$last\" != -b ] || root=$word; last=$word; done
cd \"$root/lib/modules/$last\" || exit
sed 's/$/:/' modules.order > modules.dep
for name in alias symbols softdep devname; do echo '# fixed' > modules.$name; done
for name in dep alias symbols builtin builtin.alias; do echo \"$name\" > modules.$name.bin; done
exit";
    tool("depmod", "kmod version 30", depmod);
    for release in releases {
        fs::write(dir.join(format!("vmlinux-{release}")), kernel(release)).unwrap();
        for (arch, machine) in MACHINES {
            let mut module = elf(machine);
            module.extend(format!("\0license=GPL\0vermagic={release} SMP mod_unload \0").bytes());
            fs::write(dir.join(format!("module-{arch}-{release}")), module).unwrap();
        }
    }
    context.env.insert("PATH".into(), format!("{dir}:{path}"));
    context
}

/// Changes the kernel to one of another compiler, user, day and place.
pub(crate) fn change_kernel(context: &TestContext, release: &str) {
    let path = context.path(&format!("tools/vmlinux-{release}"));
    let mut kernel = fs::read(&path).unwrap();
    for (from, to) in [("12.2.0", "13.3.0"), ("kcompile", "somebody"), ("Nov 14", "Dec 24")] {
        replace(&mut kernel, from.as_bytes(), to.as_bytes());
    }
    kernel.extend(b"\0/home/somebody/linux/init/main.c\0");
    fs::write(path, kernel).unwrap();
}

/// Returns the header of a 64-bit little-endian ELF file.
fn elf(machine: u8) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[18] = machine;
    file
}

/// Returns an ELF file for x86-64 with a PVH note and a banner.
fn kernel(release: &str) -> Vec<u8> {
    let note = |name: &[u8; 4], kind: u32, content: &[u8]| {
        [&4u32.to_le_bytes(), &(content.len() as u32).to_le_bytes(), &kind.to_le_bytes(), name, content]
            .concat()
    };
    let notes = [note(b"GNU\0", 3, &[0xab; 20]), note(b"Xen\0", 18, &[0; 8])].concat();
    let mut file = elf(62);
    file[32] = 64; // e_phoff
    file[54] = 56; // e_phentsize
    file[56] = 1; // e_phnum
    file.resize(64 + 56, 0);
    file[64] = 4; // PT_NOTE
    file[72] = 64 + 56; // p_offset
    file[96] = u8::try_from(notes.len()).unwrap(); // p_filesz
    file[112] = 4; // p_align
    file.extend(notes);
    let banner =
        format!("\0Linux version {release} (kcompile@kcompile) ({GCC}) #1 Tue Nov 14 22:13:20 UTC 2023\n\0");
    file.extend(banner.bytes());
    // Some content to compress.
    file.extend((0..4000u32).map(|n| (n * n / 7) as u8));
    file
}
