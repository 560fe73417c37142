# SPDX-License-Identifier: Apache-2.0
#
# A toy of the kernel's `conf`: reads Kconfig and .config, works out the value of
# every symbol and writes what -v mode=MODE asks for.
#
#   olddefconfig   .config, complete; new symbols take their defaults
#   syncconfig     include/config/auto.conf, include/generated/autoconf.h, and
#                  include/config/<SYMBOL> for each symbol whose value changed
#   savedefconfig  defconfig: only what differs from the defaults
#
# As in the kernel, olddefconfig says nothing of a symbol that is unknown, whose
# dependencies are not met, or that a select forces to something else: it just
# writes another .config than it was given. Telling the user is a driver's work.
#
# The subset of the language: mainmenu, source, menu, if, config, menuconfig,
# bool, tristate, string, int, def_bool, default, depends on, select, help.
# Anything else is an error, so that the Kconfig files stay within it.
#
# In the environment: srctree, KCONFIG_CONFIG, and whatever $(NAME) in a Kconfig
# file refers to. Tristate values are 0 (n), 1 (m) and 2 (y) throughout.

BEGIN {
	srctree = ENVIRON["srctree"]
	config_path = ENVIRON["KCONFIG_CONFIG"]
	read_kconfig("Kconfig")
	read_config(config_path)

	if (mode == "olddefconfig")
		write_config()
	else if (mode == "syncconfig")
		sync()
	else if (mode == "savedefconfig")
		save_minimal()
	else
		die("unknown mode '" mode "'")
}

function die(message) {
	print "conf: " message > "/dev/stderr"
	exit 1
}

# ---------------------------------------------------------------------------
# Kconfig
# ---------------------------------------------------------------------------

# Fills entry[1..entries], the order of .config: "config NAME", "menu TITLE", "end TITLE".
# Of each symbol: type, prompt, prompt_if, depends, and the lists of default and select.
function read_kconfig(name,   path, line, number, status, in_help, help_indent, indent) {
	path = srctree "/" name
	kconfig_files = kconfig_files " " path
	while ((status = (getline line < path)) > 0) {
		number++
		sub(/\r$/, "", line)
		indent = match(line, /[^ \t]/) - 1
		if (indent < 0 || substr(line, indent + 1, 1) == "#")
			continue
		# A help text goes on for as long as it is indented at least as deep as its first line.
		if (in_help) {
			if (help_indent < 0)
				help_indent = indent
			if (indent >= help_indent)
				continue
			in_help = 0
		}
		line = substr(line, indent + 1)
		sub(/[ \t]+$/, "", line)
		if (line == "help") {
			in_help = 1
			help_indent = -1
		} else
			statement(line, name ":" number)
	}
	if (status < 0)
		die("cannot read " path)
	close(path)
}

function statement(line, where,   word, rest) {
	word = line
	sub(/[ \t].*/, "", word)
	rest = expand(substr(line, length(word) + 1))
	sub(/^[ \t]+/, "", rest)

	if (word == "mainmenu")
		title = unquote(rest)
	else if (word == "source")
		read_kconfig(unquote(rest))
	else if (word == "menu") {
		entry[++entries] = "menu " unquote(rest)
		open_block(unquote(rest), "")
		symbol = ""
	} else if (word == "endmenu") {
		entry[++entries] = "end " block_title[blocks]
		blocks--
		symbol = ""
	} else if (word == "if") {
		open_block("", rest)
		symbol = ""
	} else if (word == "endif") {
		blocks--
		symbol = ""
	} else if (word == "config" || word == "menuconfig") {
		symbol = rest
		if (symbol in type)
			die(where ": " symbol " is defined twice")
		entry[++entries] = "config " symbol
		type[symbol] = "unknown"
		depends[symbol] = enclosing()
	} else if (word == "depends" && sub(/^on[ \t]+/, "", rest)) {
		if (symbol != "")
			depends[symbol] = both(depends[symbol], rest)
		else
			block_if[blocks] = both(block_if[blocks], rest)
	} else if (symbol == "")
		die(where ": '" word "' outside of a config")
	else if (word ~ /^(bool|tristate|string|int)$/) {
		type[symbol] = word
		if (rest != "") {
			prompt_if[symbol] = condition(rest)
			prompt[symbol] = unquote(without_condition(rest))
		}
	} else if (word == "def_bool") {
		type[symbol] = "bool"
		add_default(rest)
	} else if (word == "default")
		add_default(rest)
	else if (word == "select") {
		word = without_condition(rest)
		selector[word, ++selectors[word]] = symbol
		select_if[word, selectors[word]] = condition(rest)
	} else
		die(where ": unknown statement '" word "'")
}

function add_default(rest) {
	default_value[symbol, ++defaults[symbol]] = without_condition(rest)
	default_if[symbol, defaults[symbol]] = condition(rest)
}

function open_block(heading, expression) {
	block_title[++blocks] = heading
	block_if[blocks] = expression
}

function enclosing(   i, all) {
	for (i = 1; i <= blocks; i++)
		all = both(all, block_if[i])
	return all
}

function both(left, right) {
	if (left == "" || right == "")
		return left right
	return "(" left ") && (" right ")"
}

# TEXT [if CONDITION], taken apart at the last " if ".
function condition(text) {
	return match(text, / if [^"]*$/) ? substr(text, RSTART + 4) : ""
}

function without_condition(text) {
	return match(text, / if [^"]*$/) ? substr(text, 1, RSTART - 1) : text
}

# $(NAME) out of the environment.
function expand(text,   name) {
	while (match(text, /\$\([A-Za-z_]+\)/)) {
		name = substr(text, RSTART + 2, RLENGTH - 3)
		text = substr(text, 1, RSTART - 1) ENVIRON[name] substr(text, RSTART + RLENGTH)
	}
	return text
}

function unquote(text) {
	return text ~ /^".*"$/ ? substr(text, 2, length(text) - 2) : text
}

# ---------------------------------------------------------------------------
# .config as it was given
# ---------------------------------------------------------------------------

# Fills given[NAME] (strings without quotes and backslashes), and old_config with the text of the file.
function read_config(path,   line, number, name, value) {
	while ((getline line < path) > 0) {
		number++
		old_config = old_config line "\n"
		sub(/\r$/, "", line)
		if (line ~ /^# CONFIG_[A-Za-z0-9_]+ is not set$/) {
			split(line, word_of, " ")
			take(substr(word_of[2], 8), "n", path ":" number)
		} else if (line ~ /^CONFIG_[A-Za-z0-9_]+=/) {
			name = substr(line, 8, index(line, "=") - 8)
			value = substr(line, index(line, "=") + 1)
			take(name, value, path ":" number)
		} else if (line != "" && line !~ /^#/)
			complain(path ":" number, "unexpected data: " line)
	}
	close(path)
}

function take(name, value, where) {
	if (!(name in type))
		return
	if (name in given)
		complain(where, "override: reassigning to symbol " name)
	if (type[name] == "string") {
		if (value !~ /^".*"$/) {
			complain(where, "invalid string found")
			return
		}
		value = unquote(value)
		gsub(/\\"/, "\"", value)
		gsub(/\\\\/, "\\", value)
	} else if (!(type[name] == "int" ? value ~ /^-?[0-9]+$/ : value ~ /^[yn]$/ || value == "m" && type[name] == "tristate")) {
		complain(where, "symbol value '" value "' invalid for " name)
		return
	}
	given[name] = value
}

function complain(where, message) {
	print where ":warning: " message > "/dev/stderr"
}

# ---------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------

# The value of NAME as .config has it: y, m, n, or the text of a string or int.
function value_of(name) {
	if (name in value)
		return value[name]
	if (name in busy)
		die("recursive dependency detected at " name)
	busy[name] = 1
	value[name] = work_out(name, name in given)
	delete busy[name]
	return value[name]
}

# By the user's word where it counts (with_given), else by the defaults. Also sets written[NAME]: whether .config
# has a line for it.
function work_out(name, with_given,   is_tristate, seen, chosen, allowed, forced, i) {
	is_tristate = type[name] == "tristate" && value_of("MODULES") == "y"
	allowed = holds(depends[name])
	seen = visible(name)

	if (type[name] == "string" || type[name] == "int") {
		written[name] = seen > 0
		if (with_given && seen)
			return given[name]
		for (i = 1; i <= defaults[name]; i++)
			if (allowed && holds(default_if[name, i])) {
				written[name] = 1
				return unquote(default_value[name, i])
			}
		return ""
	}

	if (with_given && seen)
		chosen = least(tristate(given[name]), seen)
	else
		for (i = 1; i <= defaults[name]; i++)
			if (holds(default_if[name, i])) {
				chosen = least(holds(default_value[name, i]), least(holds(default_if[name, i]), allowed))
				break
			}
	for (i = 1; i <= selectors[name]; i++) {
		forced = least(tristate(value_of(selector[name, i])), holds(select_if[name, i]))
		if (forced > chosen)
			chosen = forced
	}
	# Where there are no modules, m means y.
	if (chosen == 1 && !is_tristate)
		chosen = 2
	written[name] = seen > 0 || chosen > 0
	return letter(chosen)
}

# How far the user may go: what the prompt and the dependencies let through.
function visible(name,   seen) {
	if (!(name in prompt))
		return 0
	seen = least(holds(depends[name]), holds(prompt_if[name]))
	if (seen == 1 && (type[name] != "tristate" || value_of("MODULES") != "y"))
		seen = 2
	return seen
}

function least(a, b) { return a < b ? a : b }
function tristate(text) { return text == "y" ? 2 : text == "m" ? 1 : 0 }
function letter(number) { return number == 2 ? "y" : number == 1 ? "m" : "n" }

# What EXPRESSION comes to, 0 to 2; nothing at all is y. By descent: || binds least, then &&, !, and ( ) or a name.
function holds(expression,   token) {
	if (expression == "")
		return 2
	split("", token)
	tokens(expression, token)
	token["at"] = 1
	return any_of(token)
}

function any_of(token,   result, next_one) {
	result = all_of(token)
	while (token[token["at"]] == "||") {
		token["at"]++
		next_one = all_of(token)
		if (next_one > result)
			result = next_one
	}
	return result
}

function all_of(token,   result) {
	result = one_of(token)
	while (token[token["at"]] == "&&") {
		token["at"]++
		result = least(result, one_of(token))
	}
	return result
}

function one_of(token,   word, operator, result) {
	word = token[token["at"]++]
	if (word == "!")
		return 2 - one_of(token)
	if (word == "(") {
		result = any_of(token)
		token["at"]++
		return result
	}
	operator = token[token["at"]]
	if (operator == "=" || operator == "!=") {
		result = text_of(word) == text_of(token[token["at"] + 1])
		token["at"] += 2
		return (operator == "=" ? result : !result) ? 2 : 0
	}
	return tristate(text_of(word))
}

function text_of(word) {
	if (word ~ /^"/)
		return unquote(word)
	return word in type ? value_of(word) : word
}

function tokens(text, token,   count, size) {
	while (text != "") {
		if (match(text, /^[ \t]+/)) {
			text = substr(text, RLENGTH + 1)
			continue
		}
		if (match(text, /^"[^"]*"/) || match(text, /^[A-Za-z0-9_]+/))
			size = RLENGTH
		else
			size = text ~ /^(&&|[|][|]|!=)/ ? 2 : 1
		token[++count] = substr(text, 1, size)
		text = substr(text, size + 1)
	}
	token[count + 1] = ""
}

# ---------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------

function write_config(   text, quoted) {
	text = config_text()
	if (text == old_config) {
		print "#\n# No change to " config_path "\n#"
		return
	}
	quoted = "'" config_path "'"
	if (old_config != "")
		system("cp -f " quoted " '" config_path ".old'")
	put(config_path, text)
	print "#\n# configuration written to " config_path "\n#"
}

function config_text(   text, i, kind, rest, line, gap) {
	text = "#\n# Automatically generated file; DO NOT EDIT.\n# " title "\n#\n"
	for (i = 1; i <= entries; i++) {
		kind = entry[i]
		sub(/ .*/, "", kind)
		rest = substr(entry[i], length(kind) + 2)
		line = kind == "menu" ? "\n#\n# " rest "\n#\n" : kind == "end" ? "# end of " rest "\n" : config_line(rest)
		if (gap && kind == "config" && line != "") {
			text = text "\n"
			gap = 0
		}
		text = text line
		if (kind != "config")
			gap = kind == "end"
	}
	return text
}

function config_line(name,   now) {
	now = value_of(name)
	if (!written[name])
		return ""
	if (type[name] == "string")
		return "CONFIG_" name "=" quote(now) "\n"
	if (now == "n")
		return "# CONFIG_" name " is not set\n"
	return now == "" ? "" : "CONFIG_" name "=" now "\n"
}

# No gsub: awks do not agree on backslashes in a replacement.
function quote(text,   i, letter_now, quoted) {
	for (i = 1; i <= length(text); i++) {
		letter_now = substr(text, i, 1)
		quoted = quoted (letter_now == "\"" || letter_now == "\\" ? "\\" : "") letter_now
	}
	return "\"" quoted "\""
}

# .config may have to change once more (a newer Kconfig, another compiler), but nobody is there to be asked about a
# symbol that it does not mention. The kernel's conf gives up then, and so does this one.
function sync(   i, name, line, old, now, header, auto) {
	for (i = 1; i <= entries; i++) {
		name = substr(entry[i], 8)
		if (entry[i] ~ /^config / && !(name in given) && visible(name)) {
			print "*\n* Restart config...\n*\n" prompt[name] " (" name ") (NEW)"
			print "\nError in reading or end of file.\n" > "/dev/stderr"
			print "Console input/output is redirected. Run 'make oldconfig' to update configuration.\n" > "/dev/stderr"
			exit 1
		}
	}
	put(config_path, config_text(), "unless the same")

	split("", old)
	while ((getline line < "include/config/auto.conf") > 0)
		if (line ~ /^CONFIG_/)
			old[substr(line, 8, index(line, "=") - 8)] = line
	close("include/config/auto.conf")

	for (i = 1; i <= entries; i++) {
		if (entry[i] !~ /^config /)
			continue
		name = substr(entry[i], 8)
		now = config_line(name)
		now = now ~ /^CONFIG_/ ? substr(now, 1, length(now) - 1) : ""
		if (now != old[name])
			put("include/config/" name, now "\n")
		delete old[name]
		if (now == "")
			continue
		auto = auto now "\n"
		header = header "#define CONFIG_" name define(name, substr(now, length(name) + 9)) "\n"
	}
	for (name in old)
		put("include/config/" name, "\n")

	put("include/generated/autoconf.h", "/* Automatically generated file; DO NOT EDIT. */\n" header)
	put("include/config/auto.conf.cmd", "kconfig-files :=" kconfig_files "\nsynced-for := " ENVIRON["sync-key"] "\n")
	put("include/config/auto.conf", "# Automatically generated file; DO NOT EDIT.\n" auto)
}

# CONFIG_X=m is CONFIG_X_MODULE to C.
function define(name, now) {
	if (type[name] == "string" || type[name] == "int")
		return " " now
	return now == "m" ? "_MODULE 1" : " 1"
}

function save_minimal(   i, name, text) {
	for (i = 1; i <= entries; i++) {
		name = substr(entry[i], 8)
		if (entry[i] ~ /^config / && visible(name) && value_of(name) != work_out(name, 0))
			text = text config_line(name)
	}
	put("defconfig", text)
}

# Beside its place and then renamed: a make that is killed leaves no half a file.
function put(path, text, unless_same,   line, old) {
	if (unless_same) {
		while ((getline line < path) > 0)
			old = old line "\n"
		close(path)
		if (old == text)
			return
	}
	if (path ~ /^include\/config\/[A-Z0-9_]+$/) {
		# Only the time of these counts, and there are a hundred of them.
		printf "%s", text > path
		close(path)
		return
	}
	printf "%s", text > (path ".tmp")
	if (close(path ".tmp") != 0 || system("mv -f '" path ".tmp' '" path "'") != 0)
		die("cannot write " path)
}
