#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A toy of the kernel's menus: asks on the terminal for one line of a .config after
# the other, until one is empty. Like them, it needs a terminal of a known kind.
#
#   menu.sh CONFIG
if ! [ -t 0 ] || ! [ -t 1 ] || [ -z "$TERM" ]; then
	echo >&2 "Error opening terminal: ${TERM:-unknown}."
	exit 1
fi
while printf 'setting: ' && read -r line && [ -n "$line" ]; do
	echo "$line" >>"$1"
done
