//! What is half-made must not be taken for whole: a header of a make that was killed, a depmod that could not write.

use crate::world::World;
use std::fs;

/// A sub-make is killed alone, as by the kernel where memory runs out; the make above it fails in good order.
#[test]
fn a_header_that_a_killed_sub_make_has_half_written_is_made_again() {
    let world = World::new();
    let tree = world.tree("6.1.7", "work/linux");
    let kill = world.path("home/kill");
    // As Kbuild's plain `cmd`: no file beside the header says how it was made.
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
    world.build("").failed(1, &["make vmlinux modules failed"]);
    fs::remove_file(&kill).unwrap();
    let digests = world.build("").ok().says("made again").digests();
    assert_eq!(world.build("--cache-dir fresh -o fresh").ok().digests(), digests);
}
