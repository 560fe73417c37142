#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# depmod.sh DEPMOD RELEASE: the indexes of the modules below $INSTALL_MOD_PATH.
#
# As in the kernel, a depmod that is missing is only warned of: modules_install
# then ends with success and without modules.dep, which a driver has to notice.

depmod=$1
release=$2

if ! [ -r System.map ]; then
	echo "Warning: modules_install: missing 'System.map' file. Skipping depmod." >&2
	exit 0
fi

# An ordinary user's PATH often lacks the directories where depmod lies.
PATH=$PATH:/sbin:/usr/sbin
if ! command -v "$depmod" > /dev/null; then
	echo "Warning: 'make modules_install' requires $depmod. Please install it." >&2
	echo "This is probably in the kmod package." >&2
	exit 0
fi

# -e with System.map: a symbol that neither the kernel nor a module exports is complained of.
exec "$depmod" -ae -F System.map ${INSTALL_MOD_PATH:+-b "$INSTALL_MOD_PATH"} "$release"
