#!/bin/sh
# Installs what `make all` built, or takes it away again: install.sh [remove].
#
# The Makefile calls it with PREFIX, SYSCONFDIR, DESTDIR and BIN (where the programs were built). One
# list says what there is. Each file is made beside its place and renamed into it: what runs goes
# on, and at no moment is there half a file, or none.
set -eu
umask 022
export LC_ALL=C
cd "$(dirname "$0")/.."

: "${DESTDIR=}" "${BIN:=target/release}"
root=$DESTDIR$PREFIX
configuration=$DESTDIR$SYSCONFDIR/hikyaku
queue=$DESTDIR/var/spool/hikyaku

die() {
	echo "install: $*" >&2
	exit 1
}

for directory in "$PREFIX" "$SYSCONFDIR"; do
	case $directory in
	*[!A-Za-z0-9/._+-]*) die "$directory: use letters, digits and / . _ + - only" ;;
	/*) ;;
	*) die "$directory: an absolute path is wanted" ;;
	esac
done

# What goes below PREFIX: kind, mode, group, source, place. A text names the places of /usr/local,
# and is installed with those of PREFIX and SYSCONFDIR.
list() {
	for name in smtpd popd imapd mta-queue mailctl; do
		echo "program 755 root $name sbin/$name"
	done
	echo "program 2755 hikyaku sendmail sbin/sendmail"
	echo "link - - sendmail sbin/mailq"
	echo "link - - sendmail sbin/newaliases"
	echo "program 755 root local-deliver libexec/hikyaku/local-deliver"
	echo "program 2755 mail dotlock libexec/hikyaku/dotlock"
	echo "link - - ../libexec/hikyaku/local-deliver bin/local-deliver"
	for unit in etc/systemd/*; do
		echo "text 644 root $unit lib/systemd/system/${unit##*/}"
	done
	for page in man/*; do
		echo "text 644 root $page share/man/man${page##*.}/${page##*/}"
	done
	echo "link - - sendmail.8 share/man/man8/mailq.8"
	echo "link - - sendmail.8 share/man/man8/newaliases.8"
	for sample in hikyaku.toml users inetd.conf xinetd.conf crontab fail2ban.conf pam; do
		echo "text 644 root etc/$sample share/hikyaku/$sample"
	done
}

# Directories are made where they are missing, and never changed.
directory() {
	[ -d "$1" ] || mkdir -p "$1"
}

is_root() {
	[ "$(id -u)" -eq 0 ]
}

has_group() {
	getent group "$1" >/dev/null 2>&1 || grep -q "^$1:" /etc/group
}

has_user() {
	getent passwd "$1" >/dev/null 2>&1 || grep -q "^$1:" /etc/passwd
}

# Only root gives files away, and only to accounts that are there; without, the rest is shown.
can_give() { # group
	is_root && has_group "$1"
}

left_to_do() {
	echo "left to do: $*"
}

# A setgid bit comes only together with its group: with another one it would give away what nobody
# meant to give.
put() { # mode group source place
	mode=$1 owner=
	if can_give "$2"; then
		owner="-o 0 -g $2"
	elif [ "$mode" = 2755 ]; then
		mode=755
		left_to_do "chgrp $2 ${4#"$DESTDIR"} && chmod $1 ${4#"$DESTDIR"}"
	fi
	directory "${4%/*}"
	# shellcheck disable=SC2086 # four words, or none
	install $owner -m "$mode" "$3" "$4.new"
	mv -f "$4.new" "$4"
}

translated() { # source
	sed -e "s|/usr/local/etc|@SYSCONFDIR@|g" -e "s|/usr/local|$PREFIX|g" \
		-e "s|@SYSCONFDIR@|$SYSCONFDIR|g" "$1" >"$scratch"
}

# The programs have their places stamped in (it is what --version says), and would not find their
# configuration elsewhere. They are not run: they may be for another machine.
check_programs() {
	list | while read -r kind _ _ name _; do
		[ "$kind" = program ] || continue
		[ -f "$BIN/$name" ] || die "$BIN/$name is not there: run make all first"
		stamp=$(tr -c ' -~' '\n' <"$BIN/$name" |
			grep -o '(PREFIX=[^()]* SYSCONFDIR=[^()]*)' | head -n 1)
		[ "$stamp" = "(PREFIX=$PREFIX SYSCONFDIR=$SYSCONFDIR)" ] ||
			die "$BIN/$name was built for ${stamp:-another place}:" \
				"run make all PREFIX=$PREFIX SYSCONFDIR=$SYSCONFDIR first"
	done
}

make_group() {
	has_group "$1" && return
	if command -v groupadd >/dev/null; then groupadd -r "$1"; else addgroup -S "$1"; fi
	echo "made the group $1"
}

make_user() { # name home; its group is there
	has_user "$1" && return
	shell=/bin/false
	for file in /sbin/nologin /usr/sbin/nologin; do [ ! -x "$file" ] || shell=$file; done
	if command -v useradd >/dev/null; then
		useradd -r -M -g "$1" -d "$2" -s "$shell" -c "Hikyaku mail" "$1"
	else
		adduser -S -D -H -G "$1" -h "$2" -s "$shell" -g "Hikyaku mail" "$1"
	fi
	echo "made the account $1"
}

make_accounts() {
	make_group mail
	make_group hikyaku
	make_user hikyaku /var/spool/hikyaku
	make_group hikyaku-login
	make_user hikyaku-login /nonexistent
}

# The queue is made whole under another name, while it is still root's: root makes nothing in a
# directory that is somebody else's. One that is there is left alone.
make_queue() {
	[ ! -d "$queue" ] || return 0
	directory "${queue%/*}"
	rm -rf "$queue.new"
	mkdir -m 700 "$queue.new"
	for name in incoming drop work deferred hold corrupt; do
		mkdir -m 700 "$queue.new/$name"
	done
	mkfifo "$queue.new/wake"
	if can_give hikyaku; then
		chown hikyaku:hikyaku "$queue.new"/*
	else
		left_to_do "chown -R hikyaku:hikyaku ${queue#"$DESTDIR"}"
	fi
	chmod 1730 "$queue.new/drop"
	chmod 620 "$queue.new/wake"
	! can_give hikyaku || chown hikyaku:hikyaku "$queue.new"
	chmod 755 "$queue.new"
	mv "$queue.new" "$queue"
}

make_inboxes() {
	[ ! -d /var/mail ] || return 0
	install -d -o 0 -g mail -m 2775 /var/mail
}

configure() { # mode file
	if [ -e "$configuration/$2" ] || [ -L "$configuration/$2" ]; then
		echo "kept $configuration/$2"
		return
	fi
	translated "etc/$2"
	put "$1" root "$scratch" "$configuration/$2"
}

put_everything() {
	check_programs
	if [ -z "$DESTDIR" ] && is_root; then
		make_accounts
		make_inboxes
	fi
	scratch=$(mktemp)
	trap 'rm -f "$scratch"' EXIT
	list | while read -r kind mode group from to; do
		case $kind in
		program) put "$mode" "$group" "$BIN/$from" "$root/$to" ;;
		text)
			translated "$from"
			put "$mode" "$group" "$scratch" "$root/$to"
			;;
		link)
			directory "$root/${to%/*}"
			ln -sf "$from" "$root/$to.new"
			mv -f "$root/$to.new" "$root/$to"
			;;
		esac
	done
	configure 644 hikyaku.toml
	configure 600 users
	if [ -n "$DESTDIR" ] || is_root; then make_queue; fi
	echo "installed below $root; hikyaku(7) has the next steps"
}

remove_everything() {
	list | while read -r _ _ _ _ to; do
		rm -f "$root/$to"
	done
	for directory in libexec/hikyaku share/hikyaku; do
		rmdir "$root/$directory" 2>/dev/null || [ ! -d "$root/$directory" ] ||
			echo "kept $root/$directory, which has files of others"
	done
	echo "removed from $root"
	echo "kept $configuration, $queue and the accounts hikyaku and hikyaku-login"
}

case ${1-} in
"") put_everything ;;
remove) remove_everything ;;
*) die "install.sh [remove]" ;;
esac
