#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves what ferry(1) says of the command: `ferry run` becomes the program with the right environment and refuses
# what is wrong before it runs; `ferry info` tells what sysfs tells.
# Usage: test_cli.sh FERRY STUB STATIC    (the command, a library to preload, a static program that exits with 3)
set -uo pipefail
ferry=$1 stub=$2 static=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unset LD_PRELOAD "${!FERRY_@}"
export FERRY_PRELOAD_LIB=$stub
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

has_hbm() { "$ferry" info --json | grep -q '"hbm_source": "\(hmat\|assumed\)"'; }

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
! grep -qE '^FERRY_(MIN_SIZE|HBM_LIMIT|STATS|HBM_NODES)=' "$tmp/out" || fail "sets what nobody asked for"
check 0 "$ferry" run cat /proc/self/maps
out "$(basename "$stub")"
check 0 env FERRY_POLICY=interleave FERRY_MIN_SIZE=2M "$ferry" run --min-size 64K env
out '^FERRY_POLICY=interleave$'
out '^FERRY_MIN_SIZE=64K$'
check 0 "$ferry" run --policy threshold --hbm-limit=1G --hbm-nodes '' --stats env
out '^FERRY_POLICY=threshold$'
out '^FERRY_HBM_LIMIT=1G$'
out '^FERRY_HBM_NODES=$'
out '^FERRY_STATS=1$'
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
refused '--policy: FERRY_POLICY="fast".*ddr, hbm, interleave or threshold' "$ferry" run --policy fast
refused '--min-size: FERRY_MIN_SIZE="1Q".*K, M, G or T' "$ferry" run --min-size 1Q
refused '--hbm-limit: FERRY_HBM_LIMIT="".*K, M, G or T' "$ferry" run --hbm-limit ''
refused 'FERRY_HBM_NODES="77" names a node' "$ferry" run --hbm-nodes 77
refused 'FERRY_HBM_NODES="\+0" is not a list' "$ferry" run --hbm-nodes +0
refused 'FERRY_HBM_NODES="all" leaves no node for DDR' "$ferry" run --hbm-nodes all
refused 'FERRY_ENGINE="dma".*auto, kmod or syscall' env FERRY_ENGINE=dma "$ferry" run
refused 'FERRY_STATS="yes".*0 or 1' env FERRY_STATS=yes "$ferry" run
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
if has_hbm; then
	check 0 "$ferry" run true
	no_err HBM
fi

# ---- info

check 0 "$ferry" info
out '^tier +nodes'
out "on Linux $(uname -r)\$"
out '^engine +(kmod|syscall): .'
check 0 "$ferry" info --json
cp "$tmp/out" "$tmp/info.json"
python3 - "$tmp/info.json" >"$tmp/out" 2>"$tmp/err" <<'PYTHON' || fail "info --json and sysfs differ"
import glob, json, os, re, sys
info = json.load(open(sys.argv[1]))
assert list(info) == ["version", "kernel", "hbm_source", "tiers", "nodes", "module", "engine", "userfaultfd",
                      "io_uring", "numa_balancing", "preferred_many", "advice"], list(info)
assert [tier["name"] for tier in info["tiers"]] == ["ddr", "hbm"]
seen = {}
for path in glob.glob("/sys/devices/system/node/node[0-9]*"):
    total = int(re.search(r"MemTotal: *(\d+)", open(path + "/meminfo").read())[1]) * 1024
    if total:
        seen[int(path.rsplit("node", 1)[1])] = (path, total)
nodes = {node["id"]: node for node in info["nodes"]}
assert set(nodes) == set(seen or {0}), (nodes, seen)
for number, (path, total) in seen.items():
    node = nodes[number]
    assert node["has_cpu"] == bool(open(path + "/cpulist").read().strip()), node
    # a virtual machine's memory may grow meanwhile
    assert abs(node["total_bytes"] - total) < total / 2, (node, total)
    bandwidth = f"{path}/access1/initiators/read_bandwidth"
    told = int(open(bandwidth).read()) if os.path.exists(bandwidth) else None
    assert node["read_bandwidth_mbps"] == told, (node, told)
for tier in info["tiers"]:
    members = [node for node in info["nodes"] if node["tier"] == tier["name"]]
    assert tier["nodes"] == [node["id"] for node in members]
    assert tier["total_bytes"] == sum(node["total_bytes"] for node in members)
missing = {advice["about"] for advice in info["advice"]}
assert ("module" in missing) == (info["module"]["state"] != "ready")
assert ("module" in missing) == (not os.access("/dev/ferry", os.R_OK))
assert (info["hbm_source"] == "none") == (not info["tiers"][1]["nodes"])
PYTHON
if has_hbm; then
	check 0 env FERRY_HBM_NODES= "$ferry" info --json
	out '"hbm_source": "none"'
fi

echo "$failures failures"
[ "$failures" = 0 ]
