//! Half-written files must not be used, such as a header of a killed make or files that depmod
//! could not write.

use crate::support::context::{TestContext, has_tool, skipped, write_script};
use std::fs;

/// A sub-make is killed alone, like by the kernel's OOM killer. The make above it fails in an
/// orderly way.
#[test]
fn a_partial_file_of_a_killed_sub_make_is_built_again() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    // Not reachable from a sandbox.
    let kill = context.path("home/kill");
    // Kbuild's plain `cmd`, without a file beside the header that records the command.
    let rule = format!(
        "include/generated/half.h:\n\t@echo '#define HALF \"half\"' > $@; if [ -e {kill} ]; then kill -9 $$PPID; exit; fi; \
         echo '#define WHOLE \"whole\"' >> $@\n"
    );
    fs::write(tree.join("half.mk"), rule).unwrap();
    let append = |file: &str, text: &str| {
        let before = fs::read_to_string(tree.join(file)).unwrap();
        fs::write(tree.join(file), format!("{before}{text}")).unwrap();
    };
    append(
        "Kbuild",
        "\n.PHONY: half\nhalf: | prepare\n\t$(Q)$(MAKE) -f $(srctree)/half.mk include/generated/half.h\ninit/main.o: | half\n",
    );
    append(
        "init/main.c",
        "\n#include <generated/half.h>\nconst char half[] = HALF;\n#ifdef WHOLE\nconst char whole[] = WHOLE;\n#endif\n",
    );
    fs::write(&kill, "").unwrap();
    context.build("--sandbox off").failed(1, &["make vmlinux modules failed"]);
    fs::remove_file(&kill).unwrap();
    let digests = context.build("--sandbox off").ok().says("will be built again").digests();
    assert_eq!(context.build("--sandbox off --cache-dir fresh -o fresh").ok().digests(), digests);
}

/// depmod continues and succeeds if it cannot write one of its files.
#[test]
fn incomplete_depmod_output_is_an_error() {
    let mut context = TestContext::new();
    if !has_tool("depmod") && !fs::exists("/sbin/depmod").unwrap() {
        skipped("depmod is not installed");
        return;
    }
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let run = |context: &mut TestContext, lines: &str, more: &str| {
        let real = format!("PATH='{path}' depmod \"$@\" || exit; [ \"$1\" != --version ] || exit 0");
        let dir = "for word; do [ \"$last\" != -b ] || root=$word; last=$word; done; cd \"$root/lib/modules/$last\"";
        write_script(&context.path("tools/depmod"), &format!("{real}\n{dir}\n{lines}"));
        context.env.insert("PATH".into(), format!("{}:{path}", context.path("tools")));
        context.build(&format!("--rebuild {more}"))
    };
    let full =
        "depmod: ERROR: openat(/x/lib/modules/6.1.7, modules.alias, 301, 644): No space left on device";
    run(&mut context, &format!("rm modules.alias; echo '{full}' >&2"), "")
        .failed(1, &["depmod failed: ", full, "free some space"]);
    run(&mut context, &format!("echo '{full}' >&2"), "").failed(1, &[full]);
    let order =
        "depmod: WARNING: could not open modules.order at /x/lib/modules/6.1.7: No such file or directory";
    run(&mut context, &format!("echo '{order}' >&2"), "").failed(1, &[order]);
    run(&mut context, "echo 'depmod: FATAL: renameat: x' >&2", "").failed(1, &["depmod: FATAL: renameat"]);
    run(&mut context, "rm modules.symbols.bin", "")
        .failed(4, &["depmod wrote no modules.symbols.bin", "kmod"]);
    run(&mut context, ": > modules.dep", "").failed(4, &["depmod wrote an empty modules.dep"]);
    assert!(!context.path("work/out").exists());
    let harmless = "depmod: WARNING: /x/y.ko needs unknown symbol z";
    run(&mut context, &format!("echo '{harmless}' >&2"), "").ok();
    // Without modules, depmod wrote an empty modules.dep.
    run(&mut context, ":", "--set DUMMY=n --set BRIDGE=n").ok();
}
