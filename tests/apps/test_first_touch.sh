#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves that `ferry run --first-touch` has what a program touches filled in few faults, in small pages and where the
# policy says, that programs it starts have that too, and that it is said once where it cannot be.
# Usage: test_first_touch.sh FERRY
. "$(dirname "$0")/cli_checks.sh"
ferry=$1

# "first touch: N faults filled X MiB" of a process that touches 64 MiB, and a child of its that does.
touch64='
import os, sys
x = bytearray(64 << 20)
for at in range(0, len(x), 4096):
    x[at] = 1
assert sum(x) == len(x) // 4096
if len(sys.argv) > 1:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])'
python=/usr/bin/python3 # which others may execute too

filled() { sed -nE 's/^ferry\[[0-9]+\]: first touch: ([0-9]+) faults filled ([0-9]+)\.[0-9] MiB$/\1 \2/p' "$tmp/err"; }

check 0 env FERRY_FIRST_TOUCH=always FERRY_HUGE=never "$ferry" info --json
if ! grep -q '"name": "userfaultfd"' "$tmp/out"; then
	echo "skipped: no userfaultfd"
	exit 77
fi
check 0 "$ferry" info
out '^first touch +kernel: FERRY_FIRST_TOUCH=1 is not set$'

export FERRY_FIRST_TOUCH=always
check 0 "$ferry" run --huge never --stats -- "$python" -c "$touch64" "$touch64"
read -r faults mib < <(filled)
[ "${mib:-0}" -ge 64 ] && [ "$faults" -lt 400 ] || fail "${faults:-no} faults filled ${mib:-0} MiB"
if [ -d /sys/devices/system/node/node1 ] && ! [ -s /sys/devices/system/node/node1/cpulist ]; then
	check 0 "$ferry" run --policy hbm --huge never --stats -- "$python" -c "$touch64; import os; os.kill(os.getpid(), 0)
print(open('/proc/self/numa_maps').read())"
	awk '{for (i = 3; i <= NF; i++) if ($i ~ /^N1=/) n += substr($i, 4)} END {exit n < 16384}' "$tmp/out" ||
		fail "not in HBM"
fi

# What huge pages back is the kernel's.
check 0 "$ferry" run --huge always -- "$python" -c "$touch64"
if grep -qE '\[(always|madvise)\]' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null; then
	err '^ferry run: first touch: huge pages: .*; the kernel fills memory$'
fi

# Said once, for all programs that are started.
if [ "$(id -u)" = 0 ] && [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ]; then
	check 0 setpriv --reuid 65534 --regid 65534 --clear-groups \
		"$ferry" run --huge never --stats -- "$python" -c "$touch64" "$touch64"
	[ "$(grep -c 'first touch: userfaultfd: permission denied.*; the kernel fills memory' "$tmp/err")" = 1 ] ||
		fail "not said once"
	! grep -q 'faults filled' "$tmp/err" || fail "it was filled all the same"
fi

finish
