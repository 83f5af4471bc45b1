# SPDX-License-Identifier: MIT
"""Relocating huge pages: the engine `relocate`.

Native, where one node is enough: of-copy-bandwidth is GB/s of relocating against GB/s
of a plain streaming copy of the same bytes in turns, by one copier and one thread
(thp), by two and two (thp-2-copiers); figures are the medians of the rounds' ratios. What two threads can copy is the machine's
limit to what two copiers can: so thp-2-copiers says how near they come to it, 2-copiers
what two are of one, and 2-threads what that can be at most here. As much moves to a node as away from it, so
that pages that were vacated are used for what moves next; where all moves one way the
kernel clears each page first, and bandwidth is about half of that.

4k is one copier with granules of small pages, which become huge pages as they move, or first where the kernel does
not let them; the huge pages are there before, as those are that a plain copy is made to. 4k-cleared is the same
with huge pages that the kernel has to clear meanwhile: on a virtual machine whose host takes free memory away, as
here, it also has to wait for each.

Guest: instructions for a 4 KiB page of a huge page, there and back, against the system
calls (thp). Memory moves one way for 64 MiB before it moves back. The same for granules
of small pages that may become huge (4k), one way: they arrive as huge pages, while the
system calls leave them small; also the time.
"""
import collections
import statistics

import harness
import migrate


def measure(options):
    if options.clock != "icount":
        yield from native(64 if options.quick else 1024, harness.rounds(options, 9))
        yield from guest(options, "4k", 32 if options.quick else 64, icount=False)
    if options.clock != "wall":
        yield from guest(options, "thp", 16 if options.quick else 64, icount=True)
        yield from guest(options, "4k", 32 if options.quick else 64, icount=True)


def native(mib, rounds):
    gbps = collections.defaultdict(list)
    output = harness.native([harness.BUILD + "/bench/bench_relocate", str(mib), str(rounds)])
    for line in output.splitlines():
        subject, copiers, nanoseconds = line.split()
        gbps[subject, int(copiers)].append((mib << 20) / int(nanoseconds))
    for copiers, case in ((1, "thp"), (2, "thp-2-copiers")):
        yield figure(case, "copy", "of-copy-bandwidth", gbps["relocate", copiers],
                     gbps["copy", copiers])
    for case in ("4k", "4k-cleared"):
        yield figure(case, "copy", "of-copy-bandwidth", gbps["relocate-" + case, 1], gbps["copy", 1])
    yield figure("2-copiers", "1-copier", "GB/s", gbps["relocate", 2], gbps["relocate", 1])
    yield figure("2-threads", "1-thread", "GB/s", gbps["copy", 2], gbps["copy", 1], "copy")


def figure(case, peer, unit, values, peer_values, subject="relocate"):
    return harness.Figure(
        bench="relocate", case=case, subject=subject, peer=peer, unit=unit,
        where="native", clock="wall", **harness.paired(values, peer_values))


def guest(options, case, mib, icount):
    command = ["env", "FERRY_ENGINE=relocate", harness.BUILD + "/bench/bench_migrate",
               "--bytes", str(mib << 20), "--rounds", "2" if icount else "5",
               "--huge" if case == "thp" else "--advised",
               "--subjects", ",".join(("libferry",) + migrate.PEERS)]
    output = harness.guest(command, options, icount=icount, cpus=1 if icount else 2)
    per_page = migrate.read(output, mib << 8)
    scale = 1 if icount else 1000
    for peer in migrate.PEERS:
        yield harness.Figure(
            bench="relocate", case=case, subject="relocate", peer=peer,
            unit="insn/page" if icount else "us/page",
            value=statistics.median(per_page["libferry"]) / scale,
            peer_value=statistics.median(per_page[peer]) / scale, where="guest",
            clock="icount" if icount else "wall", runs=len(per_page["libferry"]),
            spread=harness.spread(per_page["libferry"]))
