#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# link-vmlinux.sh LDS [SWITCH...]: vmlinux and System.map from vmlinux.o.
#
# The switches (drivers/mini/Kconfig) make the link go wrong in the ways that a
# driver of this build has to survive. In: $LD, $NM, $silent.

set -e
lds=$1
shift

for switch; do
	case $switch in
	STALL)
		exec sh "$srctree/scripts/stall.sh"
		;;
	PRY)
		sh "$srctree/scripts/pry.sh"
		;;
	NO_VMLINUX)
		rm -f vmlinux
		exit 0
		;;
	BAD_VMLINUX)
		echo 'This is not an ELF file.' > vmlinux
		exit 0
		;;
	STALE_VMLINUX)
		exit 0
		;;
	esac
done

# Neither $LD nor $NM is quoted: they may be a command with options.
$LD -nostdlib -static -z noexecstack -z max-page-size=0x1000 --build-id=sha1 -T "$lds" -o vmlinux vmlinux.o

[ "$silent" ] || echo '  NM      System.map'
$NM -n vmlinux | grep -v ' [aNUw] ' > System.map
