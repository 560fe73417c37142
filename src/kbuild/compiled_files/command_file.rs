//! Parses the `.cmd` files of Kbuild. There is one beside each file that Kbuild makes. It has the command,
//! and for compiled files their source and the headers that the compiler read.

/// The content of a `.cmd` file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandFile<'a> {
    /// The command that made the file.
    pub command: &'a str,
    /// The source and the headers, as the compiler named them. Empty if no compiler ran.
    pub inputs: Vec<&'a str>,
}

/// Parses the text of a `.cmd` file. Unknown lines are ignored.
pub(super) fn parse(text: &str) -> CommandFile<'_> {
    let mut file = CommandFile::default();
    let mut in_list = false;
    for line in text.lines() {
        let rest = if let Some((name, value)) = line.split_once(" := ") {
            in_list = value.trim_end() == "\\";
            match name.split_once('_') {
                // Linux 6.2 renamed `cmd_` to `savedcmd_`.
                Some(("cmd" | "savedcmd" | "saved", _)) if file.command.is_empty() => file.command = value,
                Some(("source", _)) => file.inputs.push(value.trim()),
                _ => {}
            }
            continue;
        } else if in_list {
            line
        } else {
            in_list = line.ends_with(": \\");
            continue;
        };
        in_list = rest.trim_end().ends_with('\\');
        // `$(wildcard include/config/…)` names an option, and no file that the compiler read.
        let words = rest.trim_end_matches('\\').trim();
        if !words.starts_with('$') {
            file.inputs.extend(words.split_whitespace());
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiled_file_has_its_source_and_headers() {
        let text = "savedcmd_fs/ext4/acl.o := gcc -c -o fs/ext4/acl.o ../fs/ext4/acl.c\n\n\
            source_fs/ext4/acl.o := ../fs/ext4/acl.c\n\n\
            deps_fs/ext4/acl.o := \\\n    $(wildcard include/config/FOO) \\\n  ../include/linux/quotaops.h \\\n  \
            include/generated/autoconf.h \\\n\n\
            fs/ext4/acl.o: $(deps_fs/ext4/acl.o)\n\n$(deps_fs/ext4/acl.o):\n";
        let file = parse(text);
        assert_eq!(file.command, "gcc -c -o fs/ext4/acl.o ../fs/ext4/acl.c");
        let expected = ["../fs/ext4/acl.c", "../include/linux/quotaops.h", "include/generated/autoconf.h"];
        assert_eq!(file.inputs, expected);
    }

    #[test]
    fn a_linked_file_has_only_its_command() {
        let file = parse("cmd_net/a.ko := ld -r -o net/a.ko net/a.o net/a.mod.o\n");
        assert_eq!((file.command, &file.inputs[..]), ("ld -r -o net/a.ko net/a.o net/a.mod.o", &[][..]));
        assert_eq!(parse("\u{0} := \\\n \\\n:= \\").command, "");
    }
}
