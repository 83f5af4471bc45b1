# SPDX-License-Identifier: MIT
"""How long a small request takes beside a process that keeps large ones going, in the guest.

Cases are alone-FIGURE-CALL and beside-FIGURE-CALL: p50, p99 and max of the time of a request of 16
pages, by the module's ioctl or io_uring, without other requests and beside a process that keeps
eight of 16 MiB in flight through the same module. The peer is move_pages(2) of as many pages, beside
a process whose eight threads call move_pages(2) in the same way. Slower-CALL is how many times as
long the median takes beside the other process as alone. Values are medians of several series.

Two processors, for all: a part of the time beside the other process is that of its turns to run.
"""
import collections
import statistics

import harness

MODULE = ("ioctl", "io_uring")
PEER = "move_pages"
FIGURES = ("p50", "p99", "max")


def measure(options):
    if options.clock == "icount":
        return
    requests, rounds = (40, 1) if options.quick else (500, 5)
    hog = 128 if options.quick else 512
    values = read(harness.guest(
        [harness.BUILD + "/bench/bench_fairness", "--requests", str(requests), "--rounds",
         str(rounds), "--hog-bytes", str(hog << 20)], options))
    for call in MODULE:
        for how in ("alone", "beside"):
            for figure in FIGURES:
                yield compare(f"{how}-{figure}-{call}", "us", values[call, how, figure],
                              values[PEER, how, figure])
        yield compare(f"slower-{call}", "times", slower(values, call), slower(values, PEER))


def slower(values, subject):
    return [beside / alone for beside, alone in
            zip(values[subject, "beside", "p50"], values[subject, "alone", "p50"])]


def compare(case, unit, mine, peer):
    return harness.Figure(
        bench="fairness", case=case, subject="kmod", peer=PEER, unit=unit,
        value=statistics.median(mine), peer_value=statistics.median(peer),
        where="guest", clock="wall", runs=len(mine), spread=harness.spread(mine))


def read(output):
    """Values for each subject, way and figure, one for each series."""
    values = collections.defaultdict(list)
    for line in output.splitlines():
        subject, how, *numbers = line.split()
        *times, made, moved, hog = (int(number) for number in numbers)
        if moved < 0.9 * made:
            raise harness.Failure(f"{made - moved} of {made} requests of {subject} left pages")
        if how == "beside" and not hog:
            raise harness.Failure(f"nothing was moved beside the requests of {subject}")
        for figure, value in zip(FIGURES, times):
            values[subject, how, figure].append(value / 1000)
    return values
