#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# mkimage.sh IMAGE [SWITCH...]: the header of an arm64 Image, then vmlinux as
# plain bytes. In: $OBJCOPY, and vmlinux in the current directory.
#
# The header has 64 bytes: "MZ" (which is also an instruction, so that the file
# can pass for a PE), a branch over the header, then in little-endian the offset
# from a 2 MiB boundary, the size in memory, flags (4 KiB pages, anywhere), 24
# reserved bytes, "ARM\x64", and no PE header.

set -e
image=$1
shift

# The switches are those of vmlinux (scripts/link-vmlinux.sh).
for switch; do
	case $switch in
	NO_VMLINUX)
		rm -f "$image"
		exit 0
		;;
	BAD_VMLINUX)
		echo 'This is not an Image.' > "$image"
		exit 0
		;;
	STALE_VMLINUX)
		exit 0
		;;
	esac
done

# NUMBER as eight little-endian bytes, in the octal that printf understands.
le64() {
	rest=$1
	for _ in 1 2 3 4 5 6 7 8; do
		printf '\\%03o' $((rest % 256))
		rest=$((rest / 256))
	done
}

payload=$image.payload
trap 'rm -f "$payload"' EXIT
$OBJCOPY -O binary -R .notes -R .comment -S vmlinux "$payload"
size=$(($(wc -c < "$payload") + 64))

{
	printf 'MZ\100\372\017\000\000\024'
	printf "$(le64 0)$(le64 $size)$(le64 10)"
	printf "$(le64 0)$(le64 0)$(le64 0)"
	printf 'ARM\144\000\000\000\000'
	cat "$payload"
} > "$image"
