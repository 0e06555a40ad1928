# Turns a mount and pid namespace of its own into a throw-away copy of this host, and starts it:
# machine.sh DIRECTORY NAME HOST SOURCE PROGRAMS CGROUP... -- ARGUMENTS OF systemd-nspawn
#
# Every change goes to memory and is gone with the last process.
set -eu
directory=$1 name=$2 host=$3 source=$4 programs=$5
shift 5

# Each machine needs a control group of its own, or two would meet in one.
while [ "$1" != -- ]; do
	mkdir "$1"
	echo 0 >"$1/cgroup.procs"
	shift
done
shift

mount -t tmpfs -o mode=755 tmpfs "$directory"
machine=$directory/machine
mkdir "$directory/changes" "$directory/work" "$machine"
mount -t overlay overlay \
	-o "lowerdir=/,upperdir=$directory/changes,workdir=$directory/work" "$machine"
# systemd-nspawn leaves notes in /run: not in the host's.
mount -t tmpfs -o mode=755 tmpfs /run

# A host without this one's daemons, jobs and mail, and with nothing of ours.
cd "$machine"
rm -rf run/* tmp/* var/mail/* var/spool/hikyaku usr/local/etc/hikyaku
rm -rf etc/systemd/system/*.wants etc/rc?.d etc/cron.* etc/crontab
mkdir -p etc/cron.d mnt/source mnt/programs
: >etc/fstab
: >etc/machine-id
echo "$host" >etc/hostname
printf '127.0.0.1 localhost %s\n::1 localhost\n' "$host" >etc/hosts

systemd-nspawn --quiet --directory="$machine" --machine="$name" --hostname="$host" \
	--register=no --keep-unit --private-network --resolv-conf=off --timezone=off \
	--console=pipe --link-journal=no \
	--bind-ro="$source:/mnt/source" --bind-ro="$programs:/mnt/programs" "$@" </dev/null
# Not as the last command: the shell must stay, as the first process of its namespace.
exit $?
