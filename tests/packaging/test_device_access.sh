#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves who may open /dev/ferry: everyone as the module makes it; with udev's rule root and the group's members and
# nobody else, and root alone if there was no such group when udev read the rule. A real systemd-udevd works on the
# module's own events.
# Usage: test_device_access.sh BUILD_DIR    (as root in the guest: it adds users, and loads the module again)
set -uo pipefail
build=$1
source_dir=$(cd -- "$(dirname -- "$0")/../.." && pwd)
module=${FERRY_KO:-$build/kmod/$(uname -r)/ferry.ko}
PATH=$PATH:/usr/sbin:/sbin
rule=/etc/udev/rules.d/60-ferry.rules
failures=0 udevd=''

skip() { echo "skipped: $*"; exit 77; }
fail() { echo "FAIL line ${BASH_LINENO[0]}: $*"; failures=$((failures + 1)); }

cleanup() {
	[ -z "$udevd" ] || { kill "$udevd"; wait "$udevd"; udevd=''; }
	rm -f "$rule"
	reload # the other tests get the device as the module makes it
	userdel ferry-member; userdel ferry-stranger; groupdel ferry
} 2>/dev/null

reload() {
	{ rmmod ferry && insmod "$module"; } || fail "ferry.ko could not be loaded again"
	for _ in {1..100}; do [ -e /dev/ferry ] && break; sleep 0.05; done
	[ -z "$udevd" ] || udevadm settle --timeout 20 || fail "udev does not settle"
}

# state USER: how `ferry info` finds the module as that user
state() {
	setpriv --reuid "$1" --regid "$(id -g "$1")" --init-groups "$tool" info --json |
		sed -n 's/.*"state": *"\([a-z-]*\)".*/\1/p'
}

# expect MODE:OWNER:GROUP WHO...: the device's mode, and that of the users these, and root, can use it
expect() {
	local want=$1 user found before=$failures
	shift
	found=$(stat -c %a:%U:%G /dev/ferry)
	[ "$found" = "$want" ] || fail "/dev/ferry is $found instead of $want"
	for user in root ferry-member ferry-stranger; do
		found=$(state "$user")
		case " root $* " in
		*" $user "*) [ "$found" = ready ] || fail "$want: for $user it is '$found' instead of ready" ;;
		*) [ "$found" = forbidden ] || fail "$want: for $user it is '$found' instead of forbidden" ;;
		esac
	done
	[ $failures != "$before" ] || echo "ok: $want: root $*"
}

[ -d /sys/module/ferry ] || skip "ferry.ko is not loaded"
[ -r "$module" ] || skip "no $module"
for program in udevadm useradd setpriv; do
	command -v $program >/dev/null || skip "$program is not installed"
done
getent group ferry >/dev/null && groupdel ferry
tmp=$(mktemp -d)
trap 'cleanup; rm -rf "$tmp"' EXIT
# Users need not be able to reach the build.
chmod 755 "$tmp"
tool=$tmp/ferry
install -m 755 "$build/bin/ferry" "$tool"
useradd --no-create-home ferry-member || fail "no user ferry-member"
useradd --no-create-home ferry-stranger || fail "no user ferry-stranger"

reload
expect 666:root:root ferry-member ferry-stranger

install -D -m 644 "$source_dir/packaging/udev/60-ferry.rules" "$rule"
/lib/systemd/systemd-udevd >"$tmp/udevd" 2>&1 &
udevd=$!
for _ in {1..100}; do udevadm control --ping --timeout 5 2>/dev/null && break; sleep 0.1; done
reload
expect 660:root:root

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers "$source_dir/packaging/sysusers/ferry.conf" || fail "systemd-sysusers failed"
else
	groupadd --system ferry
fi
usermod -aG ferry ferry-member
# The group is looked up when the rule is read, and only a rule that has changed is read again.
touch "$rule"
udevadm control --reload
# The device that is there already, then a new one
udevadm trigger --action=add --settle /sys/class/misc/ferry
expect 660:root:ferry ferry-member
reload
expect 660:root:ferry ferry-member

# udev skips lines that it cannot read, and says so.
grep -i 'ferry.rules' "$tmp/udevd" | grep -vi "unknown group 'ferry'" && fail "udev complains of the rule"
[ $failures = 0 ]
