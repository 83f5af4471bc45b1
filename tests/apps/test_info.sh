#!/bin/bash
# SPDX-License-Identifier: MIT
# Proves that `ferry info` tells what sysfs tells, and that nothing is said of missing HBM where there is some.
# Usage: test_info.sh FERRY STUB    (the command, a library to preload)
. "$(dirname "$0")/cli_checks.sh"
ferry=$1
export FERRY_PRELOAD_LIB=$2

check 0 "$ferry" info
out '^tier +nodes'
grep -qxF "Ferry $("$ferry" --version | cut -d" " -f2) on Linux $(uname -r)" "$tmp/out" || fail "no first line"
out '^engine +(kmod|syscall): .'
out "^  huge pages +(relocate|syscall): ."
out '^huge pages +system: (none|never|madvise|always), FERRY_HUGE=auto: .'
out '^first touch +kernel: FERRY_FIRST_TOUCH=1 is not set$'
out '^sampler +(abit|pebs|none): .'
check 0 env FERRY_SAMPLER=pebs "$ferry" info
out '^sampler +(pebs: .*with addresses|none: perf_event_open: ).'
check 0 env FERRY_SAMPLER=fault "$ferry" info
out '^sampler +(fault: hint faults by userfaultfd|none: userfaultfd: .+)$'
if [ "$(id -u)" = 0 ]; then
	# A full userfaultfd, but not the events of a fork.
	check 0 setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace env FERRY_SAMPLER=fault "$ferry" info
	out '^sampler +none: userfaultfd: .+'
fi
check 0 "$ferry" info
check 0 "$ferry" info --json
cp "$tmp/out" "$tmp/info.json"
python3 - "$tmp/info.json" >"$tmp/out" 2>"$tmp/err" <<'PYTHON' || fail "info --json and sysfs differ"
import glob, json, os, re, sys
info = json.load(open(sys.argv[1]))
assert list(info) == ["version", "kernel", "hbm_source", "tiers", "nodes", "module", "engine", "huge_engine", "small_granules", "sampler",
                      "huge_split", "first_touch", "manage", "userfaultfd", "io_uring", "numa_balancing", "huge_pages", "preferred_many",
                      "interleave", "hbm_weights", "advice"], list(info)
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
# auto relocates where nothing can be lost
capabilities = next(int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith("CapEff"))
safe = "held" in info["module"]["features"] and info["userfaultfd"]["move"] and capabilities >> 19 & 1
assert info["huge_engine"]["name"] == ("relocate" if safe else "syscall"), info
assert info["small_granules"]["name"] == info["engine"]["name"], info
assert (info["sampler"]["name"] == "abit") == ("scan" in info["module"]["features"])
assert (info["huge_split"]["name"] == "yes") == (info["sampler"]["name"] == "abit")
assert (info["hbm_source"] == "none") == (not info["tiers"][1]["nodes"])
PYTHON

check 0 env FERRY_ENGINE=relocate "$ferry" info
out '^  small ones +(relocate: in Ferry.s heap|collapse: the kernel|none: )'
if grep -q '"held"' "$tmp/info.json"; then
	check 0 setpriv --bounding-set -sys_ptrace "$ferry" info
	out '^  huge pages +syscall: userfaultfd: (no events of clone.*CAP_SYS_PTRACE|this kernel)'
fi
check 0 env FERRY_MANAGE=stack,heap "$ferry" info
out '^managed +FERRY_MANAGE=heap,stack$'
check 0 env FERRY_HUGE=never "$ferry" info
out 'FERRY_HUGE=never: none$'

if grep -qE '"hbm_source": "(hmat|assumed)"' "$tmp/info.json"; then
	check 0 "$ferry" run true
	no_err HBM
	check 0 env FERRY_HBM_NODES= "$ferry" info --json
	out '"hbm_source": "none"'
fi

finish
