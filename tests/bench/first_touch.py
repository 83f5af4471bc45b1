# SPDX-License-Identifier: MIT
"""The first touch of memory in order, by userfaultfd against the kernel's own.

A write to each 4 KiB page of fresh memory; userfaultfd fills 2 MiB a fault, after a few
smaller ones. Native: ns a page, with the waking of two threads at each fault. Guest:
instructions a page, one processor.
"""
import collections
import statistics

import harness


def measure(options):
    if options.clock != "icount":
        mib, rounds = (64, 3) if options.quick else (512, 11)
        yield figure(harness.native(command(mib, rounds)), mib, "native", "wall", "ns/page")
    if options.clock != "wall":
        mib, rounds = (16, 1) if options.quick else (64, 3)
        yield figure(harness.guest(command(mib, rounds), options, icount=True, cpus=1), mib,
                     "guest", "icount", "insn/page")


def command(mib, rounds):
    return [harness.BUILD + "/bench/bench_first_touch", str(mib), str(rounds)]


def figure(output, mib, where, clock, unit):
    values = collections.defaultdict(list)
    for line in output.splitlines():
        subject, nanoseconds = line.split()
        values[subject].append(int(nanoseconds) / (mib << 8))
    mine, peer = values["userfaultfd"], values["kernel"]
    return harness.Figure(
        bench="first-touch", case=f"in-order-{mib}M", subject="userfaultfd", peer="kernel",
        unit=unit, value=statistics.median(mine), peer_value=statistics.median(peer),
        median_ratio=statistics.median(a / b for a, b in zip(mine, peer)),
        where=where, clock=clock, runs=len(mine), spread=harness.spread(mine))
