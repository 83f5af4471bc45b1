# SPDX-License-Identifier: MIT
"""Takes memory and tells on which nodes the kernel has it; for test_placement.

Usage: placed.py [--count N] [--size MIB] [--busy SECONDS] [--stray NODE]

Fills N bytearrays of MIB each, touches them for SECONDS, and prints one JSON
object: the MiB of all this process's anonymous memory on each node, and whether
the arrays held what was written. With --stray it first prefers NODE by
set_mempolicy(2), and then drops that policy: memory that nothing keeps there.
"""
import argparse
import ctypes
import json
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
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--busy", type=float, default=0)
    parser.add_argument("--stray", type=int)
    args = parser.parse_args()

    if args.stray is not None:
        set_mempolicy(MPOL_PREFERRED, args.stray)
    arrays = [bytearray(args.size << 20) for _ in range(args.count)]
    marks = bytes(i % 251 for i in range(args.size << 8))
    for array in arrays:
        array[::4096] = marks
    if args.stray is not None:
        set_mempolicy(MPOL_DEFAULT)
    end = time.monotonic() + args.busy
    while time.monotonic() < end:
        for array in arrays:
            array[1::4096] = marks
    kept = all(array[::4096] == marks for array in arrays)
    print(json.dumps({"mib": nodes(), "kept": kept}))


main()
