# SPDX-License-Identifier: MIT
"""Moving pages between two nodes of the guest, both ways, data verified.

Cases are PAGE-SIZE-CALL-BESIDE: the page size (4k, thp), the memory moved, the
4 KiB pages that one call moves, and what else the process does (alone, busy: a
second thread of it runs on the other CPU). Values are per 4 KiB page, so that
page sizes can be compared. The module leaves huge pages to move_pages(2), so
the subjects for thp are the library and the system calls. The peer copy is the
physical limit: a plain copy of the same bytes to the other node, in the same run.

populate: 16 MiB of holes filled by the module, against touching them. submit:
what 1,000 ranges of 64 KiB cost the thread that submits them, by one io_uring
command and by ferry_submit(), against moving them by move_pages(2).
"""
import collections
import statistics

import harness

MODULE = ("ioctl", "io_uring")
PEERS = ("move_pages", "mbind")
LIMIT = "copy"


def measure(options):
    mib = 16 if options.quick else 64
    rounds = 2 if options.quick else 5
    if options.clock != "icount":
        for beside in ("alone", "busy"):
            yield from case(options, "4k", mib, 512, beside, rounds, icount=False)
            yield from case(options, "thp", mib, 512, beside, rounds, icount=False)
        if not options.quick:
            yield from case(options, "4k", 512, 512, "alone", 3, icount=False)
            yield from case(options, "4k", 512, 512, "busy", 3, icount=False)
    if options.clock != "wall":
        # Several rounds even there: at times the guest has work of its own.
        yield from case(options, "4k", mib, 512, "alone", 3, icount=True)
        yield from case(options, "4k", mib, 16, "alone", 3, icount=True)
        yield from case(options, "thp", mib, 512, "alone", 3, icount=True)
        yield from calls(options, "fill", "populate-16M", ("kmod",), "touch", "insn/page", 4096)
        yield from calls(options, "submit", "submit-1000", ("kmod", "libferry"), "move_pages",
                         "insn", 1)


def case(options, page, mib, call, beside, rounds, icount):
    subjects = ("libferry",) + PEERS if page == "thp" else MODULE + ("libferry",) + PEERS
    command = [harness.BUILD + "/bench/bench_migrate", "--bytes", str(mib << 20),
               "--call-pages", str(call), "--rounds", str(rounds),
               "--subjects", ",".join(subjects + (LIMIT,))]
    command += ["--huge"] if page == "thp" else []
    command += ["--busy"] if beside == "busy" else []
    output = harness.guest(command, options, icount=icount, cpus=1 if icount else 2)
    per_page = read(output, mib << 8)
    name = f"{page}-{mib}M-{call}-{beside}"
    unit = "insn/page" if icount else "us/page"
    scale = 1 if icount else 1000
    for subject in subjects:
        for peer in PEERS + (LIMIT,):
            if subject == peer or (subject == "mbind" and peer == "move_pages"):
                continue
            yield harness.Figure(
                bench="migrate", case=name + ("-" + subject if subject in MODULE else ""),
                subject="kmod" if subject in MODULE else subject, peer=peer, unit=unit,
                value=statistics.median(per_page[subject]) / scale,
                peer_value=statistics.median(per_page[peer]) / scale,
                where="guest", clock="icount" if icount else "wall",
                runs=len(per_page[subject]), spread=harness.spread(per_page[subject]))


def calls(options, mode, name, subjects, peer, unit, per):
    """Instructions of calls of another kind, divided by @per."""
    command = [harness.BUILD + "/bench/bench_calls", mode, "5"]
    values = collections.defaultdict(list)
    for line in harness.guest(command, options, icount=True, cpus=1).splitlines():
        subject, nanoseconds, on_target = line.split()
        if int(on_target) < 0.99 * (4096 if mode == "fill" else 16000):
            raise harness.Failure(f"{mode}: {subject} left pages behind")
        values[subject].append(int(nanoseconds) / per)
    for subject in subjects:
        yield harness.Figure(
            bench="migrate", case=name, subject=subject, peer=peer, unit=unit,
            value=statistics.median(values[subject]),
            peer_value=statistics.median(values[peer]), where="guest", clock="icount",
            runs=len(values[subject]), spread=harness.spread(values[subject]))


def read(output, pages):
    """Nanoseconds a page for each subject, a value for each move."""
    per_page = collections.defaultdict(list)
    for line in output.splitlines():
        subject, _, nanoseconds, on_target = line.split()
        if int(on_target) < 0.99 * pages:
            raise harness.Failure(f"{subject} left {pages - int(on_target)} of {pages} pages")
        per_page[subject].append(int(nanoseconds) / pages)
    return per_page
