//! A toolchain as an image: the tools of this machine that compile the miniature kernel.

use crate::support::context::TestContext;
use crate::support::fixtures::{named, put_image_for, put_index};
use camino::Utf8PathBuf;
use std::process::Command;

/// Prints a tar of programs, their libraries, and the files of the compiler.
const TAR: &str = r#"
programs="make gcc as ld ar nm objcopy objdump strip readelf flex bison m4 bc perl depmod sh bash cat cmp cp cut
date dirname basename echo env expr false find grep gzip head install ln ls mkdir mktemp mv printf pwd rm rmdir sed
seq sort tail test touch tr true uname uniq wc xargs awk diff od"
gcc=$(dirname "$(gcc -print-libgcc-file-name)")
cc1=$(gcc -print-prog-name=cc1)
collect2=$(gcc -print-prog-name=collect2)
libraries=$(realpath "$(dirname "$(gcc -print-file-name=crt1.o)")")
{
    for program in $programs; do ls "/usr/bin/$program" "/usr/sbin/$program" "/bin/$program"; done
    echo "$cc1 $collect2" | tr ' ' '\n'
    ls -d "$gcc"/include "$gcc"/*.o "$gcc"/libgcc* "$gcc"/liblto_plugin.so /usr/share/bison
    ls -d "$libraries"/*crt*.o "$libraries"/libc.so* "$libraries"/libc_nonshared.a "$libraries"/libm.so* "$libraries"/libgcc_s.so*
    ls -d /usr/include/*.h /usr/include/linux /usr/include/asm* /usr/include/bits /usr/include/sys /usr/include/gnu
    ls -d /usr/include/*-linux-gnu/asm /usr/include/*-linux-gnu/bits /usr/include/*-linux-gnu/gnu /usr/include/*-linux-gnu/sys
    ls -d /usr/include/*-linux-gnu/*.h /usr/lib/*/perl-base
} 2>/dev/null | grep '^/' | sort -u >list
xargs ldd <list 2>/dev/null | grep -o '/[^ ]*' | grep -v ':$' | sort -u >libraries
sort -u list libraries | tar --create --dereference --files-from=- 2>/dev/null
"#;

/// Writes the layout `work/tools` with the tag `1`, and returns its path.
pub(crate) fn write_toolchain(context: &TestContext) -> Utf8PathBuf {
    let layout = context.path("work/tools");
    let image = put_image_for(&layout, &[tools_layer(context)], host_arch());
    put_index(&layout, &[named(image, "1")]);
    layout
}

/// Returns a layer with the tools.
pub(crate) fn tools_layer(context: &TestContext) -> Vec<u8> {
    let output = Command::new("sh").args(["-c", TAR]).current_dir(context.path("work")).output().unwrap();
    assert!(output.stdout.len() > 10 << 20, "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns the name of this machine's architecture in images.
pub(crate) fn host_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
