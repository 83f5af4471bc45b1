#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves what ferry(1) says of the command and of `ferry run`: it becomes the program with the right environment, and
# refuses what is wrong before anything runs.
# Usage: test_cli.sh FERRY STUB STATIC    (the command, a library to preload, a static program that exits with 3)
. "$(dirname "$0")/cli_checks.sh"
ferry=$1 stub=$2 static=$3
export FERRY_PRELOAD_LIB=$stub

# ---- help and usage

for arguments in --help -h help 'help help' 'run --help' 'help run' 'info --help' 'help info'; do
	# shellcheck disable=SC2086
	check 0 "$ferry" $arguments
	out '^Usage: ferry'
	[ ! -s "$tmp/err" ] || fail "stderr is not empty"
done
check 0 "$ferry" --version
out '^ferry [0-9]+\.[0-9]+\.[0-9]+$'
for arguments in '' 'walk' 'help walk' 'help run info' 'run' 'run --' 'run --policy' 'run --stat=1 true' 'run -x true' \
	'run --walk true' 'run --hbm true' 'info now' 'info --xml' 'info --json=1' 'info -x'; do
	# shellcheck disable=SC2086
	check 2 "$ferry" $arguments
	err '^ferry( run| info| help)?: '
	[ ! -s "$tmp/out" ] || fail "usage errors belong to stderr"
done
check 2 "$ferry" walk
err 'unknown command "walk"'
err '^Usage: ferry'

# ---- the program's status, arguments and environment

check 42 "$ferry" run -- sh -c 'exit 42'
check 137 "$ferry" run -- sh -c 'kill -9 $$'
check 0 "$ferry" run printf '%s|' 'a  b' '' --stats -- '*'
is 'a  b||--stats|--|*|'
check 0 "$ferry" run --policy=ddr -- printf '%s' --policy
is '--policy'

check 0 "$ferry" run env
out '^FERRY_POLICY=hbm$'
out "^LD_PRELOAD=$stub\$"
! grep -qE '^FERRY_(MIN_SIZE|HBM_LIMIT|STATS|HBM_NODES|HUGE)=' "$tmp/out" || fail "sets what nobody asked for"
check 0 "$ferry" run cat /proc/self/maps
out "$(basename "$stub")"
check 0 env FERRY_POLICY=interleave FERRY_MIN_SIZE=2M "$ferry" run --min-size 64K env
out '^FERRY_POLICY=interleave$'
out '^FERRY_MIN_SIZE=64K$'
check 0 "$ferry" run --policy threshold --hbm-limit=1G --hbm-nodes '' --huge always --stats env
out '^FERRY_POLICY=threshold$'
out '^FERRY_HBM_LIMIT=1G$'
out '^FERRY_HBM_NODES=$'
out '^FERRY_HUGE=always$'
out '^FERRY_STATS=1$'
check 0 "$ferry" run --policy auto --overhead 3 --hbm-weight 7 env
out '^FERRY_HBM_WEIGHT=7$'
out '^FERRY_POLICY=auto$'
out '^FERRY_OVERHEAD=3$'
ln -s "$stub" "$tmp/other.so"
check 0 env LD_PRELOAD="$tmp/other.so" "$ferry" run env
out "^LD_PRELOAD=$stub:$tmp/other.so\$"

# ---- wrong values: one line that says what is wrong and allowed, and nothing is run

refused() {
	local says=$1
	shift
	check 2 "$@" touch "$tmp/ran"
	err "$says"
	[ "$(wc -l <"$tmp/err")" = 1 ] || fail "not one line"
	[ ! -e "$tmp/ran" ] || fail "the program was run"
}
refused '--overhead: FERRY_OVERHEAD="0".*1 to 100' "$ferry" run --overhead 0
refused '--overhead: FERRY_OVERHEAD="5%".*1 to 100' "$ferry" run --overhead 5%
refused '--move-limit: FERRY_MOVE_LIMIT="1K".*64K or more' "$ferry" run --move-limit 1K
refused '--manage: FERRY_MANAGE="heap,".*heap, mmap, static and stack' "$ferry" run --manage heap,
refused '--manage: FERRY_MANAGE="all".*heap, mmap, static and stack' "$ferry" run --manage all
refused '--policy: FERRY_POLICY="fast".*ddr, hbm, interleave, threshold or auto' "$ferry" run --policy fast
refused '--min-size: FERRY_MIN_SIZE="1Q".*K, M, G or T' "$ferry" run --min-size 1Q
refused '--hbm-limit: FERRY_HBM_LIMIT="".*K, M, G or T' "$ferry" run --hbm-limit ''
refused 'FERRY_MIN_SIZE="4K" is too small.*16K or more' "$ferry" run --policy threshold --min-size 4K
refused 'FERRY_HBM_NODES="77" names a node' "$ferry" run --hbm-nodes 77
refused 'FERRY_HBM_NODES="\+0" is not a list' "$ferry" run --hbm-nodes +0
refused 'FERRY_HBM_NODES="all" leaves no node for DDR' "$ferry" run --hbm-nodes all
refused 'FERRY_ENGINE="dma".*auto, kmod, kmod\+relocate, relocate or syscall' env FERRY_ENGINE=dma "$ferry" run
refused '--huge: FERRY_HUGE="2M".*auto, always or never' "$ferry" run --huge 2M
refused '--hbm-weight: FERRY_HBM_WEIGHT="0".*from 1 to 10000' "$ferry" run --hbm-weight 0
refused 'FERRY_STATS="yes".*0 or 1' env FERRY_STATS=yes "$ferry" run
refused '--sampler: FERRY_SAMPLER="pmu".*auto, abit, fault or pebs' "$ferry" run --sampler pmu
refused 'FERRY_FIRST_TOUCH="1" and FERRY_SAMPLER=fault exclude each other' "$ferry" run --sampler fault --first-touch
refused 'FERRY_FIRST_TOUCH="2".*0, 1 or always' env FERRY_FIRST_TOUCH=2 "$ferry" run
check 2 env FERRY_POLICY=x "$ferry" info
err 'FERRY_POLICY="x"'
check 2 env FERRY_HBM_NODES=77 "$ferry" info
err 'FERRY_HBM_NODES="77"'

# ---- programs that cannot be run

check 127 "$ferry" run no-such-program-here
err 'no-such-program-here: not found'
check 127 "$ferry" run "$tmp/none"
check 127 "$ferry" run ''
touch "$tmp/plain"
check 126 "$ferry" run "$tmp"
check 126 "$ferry" run "$tmp/plain"
check 126 env PATH="$tmp" "$ferry" run plain
check 127 env PATH="$tmp:" "$ferry" run plainer
mkdir "$tmp/first" "$tmp/second"
cp "$(type -P true)" "$tmp/second/it"
touch "$tmp/first/it"
check 0 env PATH="$tmp/first:$tmp/second" "$ferry" run it
echo 'exit 5' >"$tmp/bare" # a script without #!
chmod +x "$tmp/bare"
check 5 "$ferry" run "$tmp/bare"

# ---- programs that cannot be preloaded: a warning, and they run

check 3 "$ferry" run "$static"
err 'warning: .* is linked statically'
printf '#!%s\n' "$static" >"$tmp/script"
chmod +x "$tmp/script"
check 3 "$ferry" run "$tmp/script"
err 'warning: .* is linked statically'
printf '#!/bin/sh\nexit 6\n' >"$tmp/script"
check 6 "$ferry" run "$tmp/script"
no_err warning
if [ "$(id -u)" = 0 ]; then
	for mode in u+s g+s; do
		cp "$(type -P true)" "$tmp/privileged"
		chown 65534:65534 "$tmp/privileged"
		chmod "$mode" "$tmp/privileged"
		check 0 "$ferry" run "$tmp/privileged"
		err 'warning: .* is setuid'
	done
fi

# ---- the library

check 125 env FERRY_PRELOAD_LIB="$tmp/none.so" "$ferry" run true
err 'FERRY_PRELOAD_LIB="'
mkdir "$tmp/a b"
cp "$stub" "$tmp/a b/stub.so"
check 125 env FERRY_PRELOAD_LIB="$tmp/a b/stub.so" "$ferry" run true
err 'space or a colon'
mkdir -p "$tmp/prefix/bin" "$tmp/prefix/lib"
cp "$ferry" "$tmp/prefix/bin/ferry"
check 125 env -u FERRY_PRELOAD_LIB "$tmp/prefix/bin/ferry" run true
err "no libferry-preload.so in $tmp/prefix"
cp "$stub" "$tmp/prefix/lib/libferry-preload.so"
check 0 env -u FERRY_PRELOAD_LIB "$tmp/prefix/bin/ferry" run env
out "^LD_PRELOAD=$tmp/prefix/lib/libferry-preload.so\$"

# ---- no HBM is said once

check 0 "$ferry" run --hbm-nodes '' env
err '^ferry run: this machine has no HBM'
out '^FERRY_SAID_NO_HBM=1$'
[ "$(wc -l <"$tmp/err")" = 1 ] || fail "not one line"
check 0 "$ferry" run --hbm-nodes '' "$ferry" run true
[ "$(wc -l <"$tmp/err")" = 1 ] || fail "said twice"
check 0 "$ferry" run --hbm-nodes '' --policy ddr true
no_err HBM

finish
