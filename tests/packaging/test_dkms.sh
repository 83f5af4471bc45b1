#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves that what `cmake --install` brings is enough for DKMS to build, install and remove ferry.ko for every kernel
# whose headers are installed; that kernels the module is not for are passed over; and that the group, the module's
# parameters and its loading at boot are declared in files that the system's own programs read.
# Usage: test_dkms.sh BUILD_DIR VERSION    (as root)
# All of it happens in a copy of the root file system (an overlay on memory) that nobody else sees.
set -uo pipefail
build=$1 version=$2
source_dir=$(cd -- "$(dirname -- "$0")/../.." && pwd)
PATH=$PATH:/usr/sbin:/sbin
failures=0

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAIL line ${BASH_LINENO[0]}: $*"; failures=$((failures + 1)); }
# A step without which there is no next one
need() {
	local log=$scratch/log
	"$@" >"$log" 2>&1 && return
	echo "FAIL: $*"
	tail -n 40 "$log"
	tail -n 40 "$root"/var/lib/dkms/ferry/*/build/make.log 2>/dev/null
	exit 1
}
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C "$@"; }
# Every file and directory that the root file system does not have by itself
added() {
	local path
	(cd "$scratch/upper" && find . ! -type c) | LC_ALL=C sort | while read -r path; do
		[ -e "/$path" ] || echo "$path"
	done
}

make_root() {
	mkdir "$scratch"/{upper,work,root}
	mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$root" ||
		skip "an overlay cannot be mounted here"
	[ -x "$root/usr/sbin/dkms" ] || skip "the root file system is not of one piece"
	need mount -t proc proc "$root/proc"
	need mount --rbind /dev "$root/dev"
	need mount -t tmpfs tmpfs "$root/tmp"
	# A machine that uses Ferry already must not count here.
	inside dkms remove "ferry/$version" --all >/dev/null 2>&1
	rm -rf "$root/usr/src/ferry-$version" "$root"/{etc,usr/lib,usr/local/lib}/modprobe.d/ferry.conf
	inside groupdel ferry 2>/dev/null
}

# The module as DKMS installed it for the kernel $1: found by modinfo, for this kernel, of this version.
check_module() {
	local kernel=$1 file vermagic before=$failures
	file=$(inside modinfo -k "$kernel" -F filename ferry) || { fail "$kernel: modinfo finds no ferry"; return; }
	[[ $file = */updates/dkms/ferry.ko* ]] || fail "$kernel: the module is $file"
	[ "$(inside modinfo -k "$kernel" -F version ferry)" = "$version" ] || fail "$kernel: not version $version"
	vermagic=$(inside modinfo -k "$kernel" -F vermagic ferry)
	[[ $vermagic = "$kernel "* ]] || fail "$kernel: built for '$vermagic'"
	# The same as CMake's build found by its probes: a probe that DKMS's tree lacks would leave something out.
	if [ -e "$build/kmod/$kernel/ferry.ko" ]; then
		diff <(nm -u "$build/kmod/$kernel/ferry.ko" | awk '{print $2}') \
			<(inside cat "$file" | { xz -dcf 2>/dev/null || cat; } >"$scratch/ko"; nm -u "$scratch/ko" | awk '{print $2}') ||
			fail "$kernel: DKMS's module uses other symbols than CMake's"
	fi
	[ $failures != "$before" ] || echo "ok: $kernel: $file, version $version, vermagic $vermagic"
}

# Every parameter is in ferry(4), the kernel interface's description and modprobe.d, and nothing else is.
check_parameters() {
	local kernel=$1 conf=$root/usr/local/lib/modprobe.d/ferry.conf name names documented line before=$failures
	names=$(inside modinfo -k "$kernel" -F parm ferry | cut -d : -f 1 | sort)
	documented=$(sed -n 's/^#options ferry \([a-z_]*\)=.*/\1/p' "$conf" | sort)
	[ "$names" = "$documented" ] || fail "ferry.ko has the parameters '$names', modprobe.d names '$documented'"
	for name in $names; do
		grep -q "^\.BR $name " "$source_dir/docs/man/ferry.4" || fail "ferry(4) lacks the parameter $name"
		grep -q "^| \`$name\`" "$source_dir/docs/kernel-interface.md" || fail "kernel-interface.md lacks $name"
	done
	# An administrator's copy, with everything switched on, is what modprobe would pass on.
	sed 's/^#options/options/' "$conf" >"$root/etc/modprobe.d/ferry.conf"
	line=$(inside modprobe -S "$kernel" --dry-run --verbose ferry 2>/dev/null | tail -n 1)
	for name in $names; do
		[[ $line = *"/ferry.ko"*" $name="* ]] || fail "modprobe does not pass on $name: '$line'"
	done
	rm "$root/etc/modprobe.d/ferry.conf"
	[ $failures != "$before" ] || echo "ok: parameters: ${names//$'\n'/ }"
}

check_group() {
	local before=$failures
	grep -q '^ferry:' "$root/etc/group" && fail "there is a group ferry already"
	if command -v systemd-sysusers >/dev/null; then
		inside systemd-sysusers ferry.conf || fail "systemd-sysusers failed"
	else
		echo "no systemd-sysusers here: the other documented way"
		inside groupadd --system ferry || fail "groupadd failed"
	fi
	grep -q '^ferry:' "$root/etc/group" || fail "no group ferry"
	grep -q '^ferry:' "$root/etc/passwd" && fail "a user ferry, too"
	[ $failures != "$before" ] || echo "ok: group $(grep '^ferry:' "$root/etc/group")"
}

# systemd-modules-load cannot run without loading; so its file is held against the rules for such files.
check_loading() {
	local names
	names=$(sed '/^[#;]/d; /^$/d' "$root/usr/local/lib/modules-load.d/ferry.conf")
	[ "$names" = ferry ] || fail "modules-load.d names '$names'"
}

# $1: a kernel's name; $2: its headers' directory. DKMS ends with 77 when the module is not for it.
check_passed_over() {
	inside dkms build "ferry/$version" -k "$1" --kernelsourcedir "$2" >"$scratch/log" 2>&1
	local status=$?
	[ $status = 77 ] || { fail "dkms build for $1 ended with $status instead of 77"; tail -n 5 "$scratch/log"; }
}

check_exclusions() {
	local headers=$1 without=/tmp/without-numa
	mkdir "$root$without"
	sed '/^CONFIG_NUMA=/d' "$headers/.config" >"$root$without/.config"
	check_passed_over 6.12.0-without-numa "$without"
	check_passed_over 5.10.0-too-old "$headers"
	check_passed_over 6.0.0-too-old "$headers"
}

run_inside() {
	local kernels=() dir kernel before after
	root=$scratch/root
	mount -t tmpfs -o mode=755 tmpfs "$scratch" || skip "nothing can be mounted here"
	make_root
	need env DESTDIR="$root" cmake --install "$build" --prefix /usr/local
	for dir in "$root"/lib/modules/*/build/.config; do
		[ ! -e "${dir%/.config}/Makefile" ] || kernels+=("$(basename "$(dirname "${dir%/.config}")")")
	done
	[ ${#kernels[@]} -gt 0 ] || skip "no kernel's headers are installed"
	inside dkms status >/dev/null # makes its database
	before=$(added)

	for kernel in "${kernels[@]}"; do
		# As an administrator does it (this adds and builds, too), then as the package of a new kernel does
		if [ "$kernel" = "${kernels[0]}" ]; then
			need inside dkms install "ferry/$version" -k "$kernel"
		else
			need inside dkms autoinstall -k "$kernel"
		fi
		check_module "$kernel"
	done
	check_parameters "${kernels[0]}"
	check_exclusions "/lib/modules/${kernels[0]}/build"

	need inside dkms remove "ferry/$version" --all
	[ -z "$(inside dkms status ferry)" ] || fail "dkms still knows ferry"
	for kernel in "${kernels[@]}"; do
		inside modinfo -k "$kernel" ferry >/dev/null 2>&1 && fail "$kernel: modinfo still finds ferry"
		grep -s ferry "$root/lib/modules/$kernel/modules.dep" && fail "$kernel: depmod was not run"
	done
	# DKMS's own key, and what depmod writes, are no part of the module.
	after=$(added | grep -vE '^\./(var/lib/dkms/mok\.(key|pub)|usr/lib/modules/[^/]*/modules\..*)$')
	after=$(LC_ALL=C comm -13 <(echo "$before") <(echo "$after"))
	[ -z "$after" ] || fail "dkms remove left: $after"

	check_group
	check_loading
	[ $failures = 0 ]
}

if [ "${3:-}" = --inside ]; then
	scratch=$4
	run_inside
	exit
fi
[ "$(id -u)" = 0 ] || skip "needs root"
command -v dkms >/dev/null || skip "dkms is not installed"
scratch=$(mktemp -d)
# The mounts end with the name space.
trap 'rmdir "$scratch"' EXIT
unshare --mount true || skip "no mount name space can be made"
unshare --mount "$0" "$build" "$version" --inside "$scratch"
