# SPDX-License-Identifier: Apache-2.0
#
# From `nm -A` of all module objects: a *.mod.c for each of them, with the
# modules whose symbols it needs, and Module.symvers (-v symvers=FILE).
#
# A file that would not change is not written, so that make sees nothing new.

{
	colon = index($0, ":")
	module = substr($0, 1, colon - 1)
	sub(/\.o$/, "", module)
	if (!(module in known)) {
		known[module] = 1
		modules[++count] = module
	}
	kind = $(NF - 1)
	if ($NF ~ /^__ksymtab_/) {
		symbol = substr($NF, 11)
		exporter[symbol] = module
		exports[++exported] = symbol
	} else if (kind == "U" || $2 == "U") {
		needs[module, ++needed[module]] = $NF
	}
}

END {
	for (i = 1; i <= count; i++)
		write_if_new(modules[i] ".mod.c", mod_c(modules[i]))
	for (i = 1; i <= exported; i++)
		printf "0x00000000\t%s\t%s\tEXPORT_SYMBOL\t\n", exports[i], exporter[exports[i]] > symvers
	if (!exported)
		printf "" > symvers
}

# The names of those that MODULE needs, each once, with commas between.
function depends_of(module,   i, owner, seen, list) {
	split("", seen)
	for (i = 1; i <= needed[module]; i++) {
		owner = exporter[needs[module, i]]
		if (owner != "" && owner != module && !(owner in seen)) {
			seen[owner] = 1
			list = list (list == "" ? "" : ",") name_of(owner)
		}
	}
	return list
}

function name_of(path) {
	sub(/.*\//, "", path)
	return path
}

function mod_c(module) {
	return "#include <linux/module.h>\n" \
		"#include <linux/vermagic.h>\n" \
		"\n" \
		"MODULE_INFO(depends, \"" depends_of(module) "\");\n" \
		"MODULE_INFO(intree, \"Y\");\n" \
		"MODULE_INFO(name, KBUILD_MODNAME);\n" \
		"MODULE_INFO(vermagic, VERMAGIC_STRING);\n" \
		"\n" \
		"struct module __this_module __section(\".gnu.linkonce.this_module\") = { .name = KBUILD_MODNAME };\n"
}

function write_if_new(path, text,   line, old) {
	while ((getline line < path) > 0)
		old = old line "\n"
	close(path)
	if (old != text) {
		printf "%s", text > path
		close(path)
	}
}
