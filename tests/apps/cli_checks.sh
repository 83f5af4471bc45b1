# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the tests of the ferry command share, to be sourced: a scratch directory, an environment without Ferry's
# variables, and checks of a command's status and output.
set -uo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unset LD_PRELOAD "${!FERRY_@}"
# A command built with AddressSanitizer is preloaded into here.
export ASAN_OPTIONS=verify_asan_link_order=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}
failures=0

fail() {
	echo "FAIL line ${BASH_LINENO[1]}: $*"
	sed 's/^/  stdout: /' "$tmp/out"
	sed 's/^/  stderr: /' "$tmp/err"
	failures=$((failures + 1))
}

# check STATUS COMMAND...: runs it; its output is then in $tmp/out and $tmp/err.
check() {
	local want=$1 status
	shift
	{
		"$@" >"$tmp/out" 2>"$tmp/err" </dev/null
		status=$?
	} 2>/dev/null # bash's word on a killed program
	[ "$status" = "$want" ] || fail "status $status instead of $want: $*"
}
out() { grep -qE -- "$1" "$tmp/out" || fail "stdout lacks /$1/"; }
err() { grep -qE -- "$1" "$tmp/err" || fail "stderr lacks /$1/"; }
no_err() { ! grep -qE -- "$1" "$tmp/err" || fail "stderr has /$1/"; }
is() { [ "$(cat "$tmp/out")" = "$1" ] || fail "stdout is not '$1'"; }

finish() {
	echo "$failures failures"
	[ "$failures" = 0 ]
}
