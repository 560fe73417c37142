#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Blocks for ever, for tests of Ctrl-C and of what is left behind by it.
#
# Four processes: this shell, a child in the background (which the shell has
# made deaf to SIGINT, as POSIX wants it, and which holds make's output open), a
# second one that has left the session and the process group, and one in the
# foreground that waits for a FIFO nobody writes to. stall.pids has their process
# ids, one a line, and is complete as soon as it is there.

rm -f stall.fifo stall.pids
mkfifo stall.fifo

sleep 3600 &
background=$!
setsid sleep 3600 &
# The shell that writes its id becomes the reader of the FIFO.
sh -c '
	printf "%s\n" "$1" "$2" "$3" "$$" > stall.pids.tmp
	mv stall.pids.tmp stall.pids
	echo "  STALL   waiting"
	exec cat stall.fifo
' stall $$ $background $!
