#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Looks around where a build has no business, and writes into pry.txt what it
# found: can CONFIG_MINI_PRY_PORT on this machine be connected to, is there a
# SECRET in the environment or a file of that name in HOME, can the source be
# written. Whatever comes of it, the build goes on.

port=$(sed -n 's/^CONFIG_MINI_PRY_PORT=//p' include/config/auto.conf)
{
	if perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift)' "$port"; then
		echo network: reached
	else
		echo network: none
	fi
	echo "environment: ${SECRET:-nothing}"
	echo "home: $(cat "$HOME/SECRET" || echo nothing)"
	mount -n -o remount,bind,rw "$abs_srctree"
	umount "$abs_srctree"
	if echo pried > "$srctree/pried" || echo pried > "$abs_srctree/pried"; then
		echo source: written
		rm -f "$abs_srctree/pried"
	else
		echo source: refused
	fi
	echo "temporary: ${TMPDIR:-none}"
} > pry.txt 2> /dev/null
