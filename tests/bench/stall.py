# SPDX-License-Identifier: MIT
"""How long a reader's accesses wait while its memory is moved, in the guest.

Cases are MIB-CALL-FIGURE: the memory moved, the 4 KiB pages that one call
moves, and p50, p99, p99.9 and max of the time of all reads and waited, the time of
all reads above 20 us together, each in us; stalled is the part of the move's time
that the reader waited, in percent. The peer is move_pages(2) with calls of the same size.
Values are medians of several moves. Two processors: the mover and the reader each
have one.

A percentile is one of the reads made while the memory moved. The faster the move,
the fewer they are, and the same number of waits is a larger part of them: what is
the p99.95 of a subject is the p99.9 of one that is twice as fast and makes its reader
wait as often. Waited does not depend on that.

Cases thp-MIB-FIGURE: huge pages, by the engine `relocate`; its peers move as much in
the same guest: move_pages(2) the same huge pages, the module 4 KiB pages, as it leaves
huge ones to others.
"""
import collections
import statistics

import harness

MODULE = ("ioctl", "io_uring")
PEER = "move_pages"
UNITS = {"p50": "us", "p99": "us", "p99.9": "us", "max": "us", "waited": "us", "stalled": "percent"}


def measure(options):
    if options.clock == "icount":
        return
    mib, rounds = (32, 1) if options.quick else (256, 5)
    yield from case(options, mib, 512, rounds)
    if not options.quick:
        yield from case(options, mib, 4096, rounds)
        yield from case(options, 1024, 512, 3)
    yield from huge(options, 64 if options.quick else 1024, 1 if options.quick else 3)


def case(options, mib, call, rounds):
    subjects = MODULE + ("libferry", PEER)
    output = harness.guest(
        [harness.BUILD + "/bench/bench_stall", "--bytes", str(mib << 20), "--call-pages",
         str(call), "--rounds", str(rounds), "--subjects", ",".join(subjects)], options)
    values = read(output, mib << 8)
    for subject in subjects[:-1]:
        for figure, unit in UNITS.items():
            mine, peer = values[subject, figure], values[PEER, figure]
            yield harness.Figure(
                bench="stall",
                case=f"{mib}M-{call}-{figure}" + ("-" + subject if subject in MODULE else ""),
                subject="kmod" if subject in MODULE else subject, peer=PEER, unit=unit,
                value=statistics.median(mine), peer_value=statistics.median(peer),
                where="guest", clock="wall", runs=len(mine), spread=harness.spread(mine))


def huge(options, mib, rounds):
    bench = f"{harness.BUILD}/bench/bench_stall --bytes {mib << 20} --rounds {rounds} --subjects"
    output = harness.guest(
        ["sh", "-c", f"FERRY_ENGINE=relocate {bench} libferry,{PEER} --huge && {bench} ioctl"],
        options)
    values = read(output, mib << 8)
    for subject, peer in ((PEER, PEER), ("ioctl", "kmod")):
        for figure, unit in UNITS.items():
            mine, others = values["libferry", figure], values[subject, figure]
            yield harness.Figure(
                bench="stall", case=f"thp-{mib}M-{figure}", subject="relocate", peer=peer,
                unit=unit, value=statistics.median(mine),
                peer_value=statistics.median(others),
                where="guest", clock="wall", runs=len(mine), spread=harness.spread(mine))


def read(output, pages):
    """Values for each subject and figure, one for each move."""
    values = collections.defaultdict(list)
    for line in output.splitlines():
        words = line.split()
        if int(words[-1]) < 0.99 * pages:
            raise harness.Failure(f"{words[0]} left {pages - int(words[-1])} of {pages} pages")
        *times, took = (int(word) for word in words[3:9])
        for figure, value in zip(UNITS, times):
            values[words[0], figure].append(value / 1000)
        values[words[0], "stalled"].append(100 * times[-1] / took)
    return values
