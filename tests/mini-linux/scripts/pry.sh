#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Tries what a build has no business with, and writes what came of it into
# pry.txt, a line each. $srctree/pry.sh says where: HOME_DIR with a file SECRET
# in it, CACHE_DIR and OTHER_DIR to write into, AGENT, a socket in the file
# system, ABSTRACT, one without a file, PORT of a server on this machine, and
# MAGIC, a word on the command line of the process that started all this.
# Whatever comes of it, the build goes on.

. "$srctree/pry.sh"

tell() {
	if "$2" > /dev/null 2>&1; then
		echo "$1: yes"
	else
		echo "$1: no"
	fi
}

network() {
	perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift)' "$PORT"
}
agent() {
	perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Peer => shift)' "$AGENT"
}
abstract() {
	perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Peer => "\0" . shift)' "$ABSTRACT"
}
environment() {
	[ -n "$SECRET" ]
}
home() {
	cat "$HOME_DIR/SECRET"
}
private() {
	case $HOME in "$CACHE_DIR"/*) : ;; *) false ;; esac
}
temporary() {
	case $TMPDIR in "$CACHE_DIR"/*) : ;; *) false ;; esac
}
source() {
	mount -n -o remount,bind,rw "$abs_srctree"
	umount "$abs_srctree"
	chmod u+w "$abs_srctree"
	echo pried > "$abs_srctree/pried" || return
	rm -f "$abs_srctree/pried"
}
cache() {
	echo pried > "$CACHE_DIR/pried"
}
other() {
	echo pried > "$OTHER_DIR/pried"
}
host() {
	echo pried > /var/tmp/"$MAGIC" || return
	rm -f /var/tmp/"$MAGIC"
}
processes() {
	grep -lsa "$MAGIC" /proc/[0-9]*/cmdline | grep -v /proc/$$/
}
environs() {
	grep -lsa "SECRET=in the environment" /proc/[0-9]*/environ | grep .
}
signals() {
	for process in $(grep -lsa "$MAGIC" /proc/[0-9]*/cmdline); do
		process=${process%/cmdline}
		! kill -0 "${process#/proc/}" || return 0
	done
	false
}
capabilities() {
	! grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status
}
terminal() {
	(: < /dev/tty)
}
typing() {
	# TIOCSTI: as if the user had typed it.
	perl -e 'open(my $tty, "+<", "/dev/tty") or exit 1; exit !ioctl($tty, 0x5412, "#")'
}
daemon() {
	setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
}

for what in network agent abstract environment home private temporary source cache other host processes environs \
	signals capabilities terminal typing daemon; do
	tell $what $what
done > pry.txt
