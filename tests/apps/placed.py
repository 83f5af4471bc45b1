# SPDX-License-Identifier: MIT
"""Takes memory and tells on which nodes the kernel has it; for test_placement.

Usage: placed.py [--count N] [--size MIB] [--stray NODE | --busy-until FILE]

Fills N bytearrays of MIB each and prints one JSON object: the MiB of all this
process's anonymous memory on each node, and whether the arrays held what was
written. With --stray it first prefers NODE by set_mempolicy(2), and then drops
that policy: memory that nothing keeps there; it touches the arrays until half of
it is elsewhere, a minute at most. With --busy-until it touches them for twice as
long as it takes until FILE has text.
"""
import argparse
import ctypes
import json
import os
import re
import time

MPOL_DEFAULT, MPOL_PREFERRED = 0, 1
SYS_SET_MEMPOLICY = 238  # x86-64


def set_mempolicy(mode, node=None):
    mask = ctypes.c_ulong(0 if node is None else 1 << node)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SYS_SET_MEMPOLICY, mode, ctypes.byref(mask), 64):
        raise OSError(ctypes.get_errno(), "set_mempolicy")


def nodes():
    """MiB of anonymous pages on each node."""
    found = {}
    with open("/proc/self/numa_maps") as maps:
        for line in maps:
            if "anon=" not in line:
                continue
            for node, pages in re.findall(r" N(\d+)=(\d+)", line):
                found[node] = found.get(node, 0) + int(pages) * 4096
    return {node: round(size / 2**20, 1) for node, size in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--stray", type=int)
    parser.add_argument("--busy-until")
    args = parser.parse_args()

    if args.stray is not None:
        set_mempolicy(MPOL_PREFERRED, args.stray)
    arrays = [bytearray(args.size << 20) for _ in range(args.count)]
    marks = bytes(i % 251 for i in range(args.size << 8))
    for array in arrays:
        array[::4096] = marks

    def touch_until(done, seconds):
        began = time.monotonic()
        while not done() and time.monotonic() < began + seconds:
            for array in arrays:
                array[1::4096] = marks
        return time.monotonic() - began

    if args.stray is not None:
        set_mempolicy(MPOL_DEFAULT)
        touch_until(lambda: nodes().get(str(args.stray), 0) < args.size * args.count / 2, 60)
    if args.busy_until:
        took = touch_until(lambda: os.path.getsize(args.busy_until) > 0, 100)
        touch_until(lambda: False, took)
    kept = all(array[::4096] == marks for array in arrays)
    print(json.dumps({"mib": nodes(), "kept": kept}))


main()
