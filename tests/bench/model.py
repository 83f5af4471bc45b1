# SPDX-License-Identifier: MIT
"""What the measured figures would come to on a Xeon Max 9480: a model, not a measurement.

Each quantity is a range (low, high), and ranges go through the arithmetic, so
that the result says how little is known. Inputs are the guest's instruction
counts, which do not depend on the machine, and public figures of the CPU;
nothing here was measured on HBM.
"""
import collections

PAGE = 4096
CLUSTERS = 4  # SNC4
CORES = 56 // CLUSTERS

DDR = (0.75 * 307 / CLUSTERS, 0.9 * 307 / CLUSTERS)  # GB/s

Assumption = collections.namedtuple("Assumption", "low high unit why")

ASSUMED = {
    "clock": Assumption(1.9, 3.5, "GHz", "base and highest frequency of the 9480"),
    "ipc": Assumption(0.7, 1.5, "instructions a cycle",
                      "kernel code that walks page tables and lists; misses are in it"),
    "core copy": Assumption(8, 14, "GB/s",
                            "one core's copy from DDR to HBM, by streaming stores or `rep movsb`"),
    "ddr": Assumption(*DDR, "GB/s a cluster",
                      "75 to 90 % of the peak, 307 GB/s a socket, in four clusters"),
    "hbm": Assumption(2.3 * DDR[0], 3.5 * DDR[1], "GB/s a cluster",
                      "published: 2.3 times DDR for reads to 3.5 times for STREAM; the peak is "
                      "1,638 GB/s a socket"),
    "shootdown": Assumption(5, 30, "us",
                            "one TLB shootdown to the process's other cores on the socket"),
}
COPY_INSTRUCTIONS = 580  # of a 4 KiB page in the guest; the core's copy bandwidth replaces them
CHUNK_PAGES = 512        # moved under two shootdowns
WORKERS = (1, 2, 4, CORES)

# What is modelled by instructions: name, subject, which figures.
SUBJECTS = (
    ("module, 4 KiB pages", "kmod", lambda f: f.case.startswith("4k-64M-512-alone")),
    ("move_pages(2), 4 KiB pages", "move_pages", lambda f: f.case.startswith("4k-64M-512-alone")),
    ("move_pages(2), huge pages", "move_pages", lambda f: f.case.startswith("thp-64M-512-alone")),
)


def instructions(figures, who, fits):
    """Guest instructions a 4 KiB page; None: not among the figures."""
    for figure in figures:
        if figure.bench != "migrate" or figure.unit != "insn/page" or not fits(figure):
            continue
        if figure.subject == who:
            return figure.value
        if figure.peer == who:
            return figure.peer_value
    return None


def page_ns(count, huge):
    """One core's time for a page: (low, high) in nanoseconds."""
    work = max(count - COPY_INSTRUCTIONS, 0)
    clock, ipc, copy, flush = (ASSUMED[key] for key in ("clock", "ipc", "core copy", "shootdown"))
    flushes = 1 if huge else 2  # a huge page needs one; it is a chunk
    return tuple(work / (a * b) + PAGE / c + flushes * d * 1000 / CHUNK_PAGES
                 for a, b, c, d in ((clock.high, ipc.high, copy.high, flush.low),
                                    (clock.low, ipc.low, copy.low, flush.high)))


def relocate_ns(figures, case):
    """The same by the part of a plain copy's bandwidth that the relocate engine reaches; or None."""
    copy = ASSUMED["core copy"]
    for figure in figures:
        if (figure.bench, figure.unit, figure.case) == ("relocate", "of-copy-bandwidth", case):
            return tuple(PAGE / (figure.ratio * rate) for rate in (copy.high, copy.low))
    return None


def rate(ns, workers):
    """GB/s of a cluster with so many cores at it, no more than its DDR gives or takes."""
    ddr = ASSUMED["ddr"]
    return min(workers * PAGE / ns[1], ddr.low), min(workers * PAGE / ns[0], ddr.high)


def passes(gbps):
    """Passes over the data until it has paid to move it first: (low, high)."""
    ddr, hbm = ASSUMED["ddr"], ASSUMED["hbm"]
    gain = (1 / ddr.high - 1 / hbm.low, 1 / ddr.low - 1 / hbm.high)  # s/GB saved by a pass
    return 1 / gbps[1] / gain[1], 1 / gbps[0] / gain[0]


def speedup(share):
    """Of a program that bandwidth bounds, over DDR alone, with a share of its accesses served by
    HBM: (low, high). At worst the two tiers are read in turns, at best at the same time."""
    ddr, hbm = ASSUMED["ddr"], ASSUMED["hbm"]
    low = 1 / (1 - share + share * ddr.high / hbm.low)
    high = 1 / max(1 - share, share * ddr.low / hbm.high)
    return low, high


def precise(pair):
    return " to ".join(f"{value:.2f}" for value in pair)


def text(pair):
    return " to ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in pair)


def section(figures):
    """Lines of Markdown."""
    yield from (
        "A model, not a measurement, of one of the four clusters of a Xeon Max 9480 in SNC4 mode",
        f"({CORES} of its {CLUSTERS * CORES} cores, with a DDR and an HBM node of its own; a socket is four "
        "of them).", "",
        "Measured, here or in the guest, and taken for independent of the machine: instructions a page; the",
        "part of a plain copy's bandwidth that relocation reaches in the same run; the share of accesses that",
        "HBM serves. Assumed:", "")
    for name, a in ASSUMED.items():
        yield f"- {name}: {a.low:.3g} to {a.high:.3g} {a.unit}: {a.why}"
    yield from (
        f"- a page of 4 KiB is copied at that rate in place of the guest's {COPY_INSTRUCTIONS} "
        "instructions;",
        f"- {CHUNK_PAGES} pages share two TLB shootdowns in the module, the same in move_pages(2), one",
        "  for a huge page;",
        "- cores add up until the cluster's DDR is busy; locks of the memory map, the zone and the LRU",
        "  lists are left out, so figures for many cores are upper bounds;",
        "- the program does nothing else meanwhile, and reads its data evenly in each pass.", "")
    yield from ("What follows for moving from the cluster's DDR to its HBM:", "")
    yield from moving(figures)
    yield from ("", "And for a program that bandwidth bounds, by the share of its accesses that HBM served in",
                "`hotset`, over the same program in DDR alone (between reading the tiers in turns and at the",
                "same time):", "")
    yield from placing(figures)
    copy, ddr, hbm = ASSUMED["core copy"], ASSUMED["ddr"], ASSUMED["hbm"]
    yield from (
        "", "On the machine, any of these would show the model to be wrong:", "",
        f"- one core copies from DDR to HBM at less than {copy.low:.3g} or more than {copy.high:.3g} GB/s;",
        f"- a cluster's STREAM is outside {ddr.low:.0f} to {ddr.high:.0f} GB/s in DDR, or {hbm.low:.0f} to "
        f"{hbm.high:.0f} in HBM;",
        "- `tests/bench/run relocate --clock wall` gives another ratio to the plain copy between two nodes than",
        "  within one, by more than a tenth;",
        "- moving by two threads is not between one and two times as fast as by one, or by four slower than by",
        "  two: then locks matter that are left out;",
        "- a page takes longer by more than a shootdown's upper bound, divided by the pages that share it,",
        "  when the process runs on all cores of the socket.")


def moving(figures):
    rows = []
    for name, who, fits in SUBJECTS:
        count = instructions(figures, who, fits)
        if count is None:
            yield f"{name}: not among the figures of this run (`migrate`, icount).\n"
            continue
        rows.append(row(name, f"{count:.0f}", page_ns(count, "huge" in name)))
    for case, name in (("thp", "relocate, huge pages"), ("4k", "relocate, 4 KiB pages made huge")):
        if relocate_ns(figures, case):
            rows.append(row(name, "-", relocate_ns(figures, case)))
        else:
            yield f"{name}: not among the figures of this run (`relocate`, wall).\n"
    if rows:
        head = ["subject", "instructions a page", "ns a page, one core"]
        head += [f"GB/s, {n} core{'s' if n > 1 else ''}" for n in WORKERS]
        head.append(f"passes to pay, {WORKERS[-2]} cores")
        yield from table(head, rows)


def placing(figures):
    shares = {}  # by (case, subject)
    for figure in figures:
        if figure.bench == "hotset" and figure.unit == "hbm-access-share":
            shares[figure.case, figure.subject] = figure.value
            shares[figure.case, figure.peer] = figure.peer_value
    if not shares:
        yield "Not among the figures of this run (`hotset`)."
        return
    yield from table(["case", "subject", "served by HBM", "times as fast as DDR alone"],
                     [[*key, f"{share:.2f}", precise(speedup(share))] for key, share in shares.items()])


def row(name, count, ns):
    rates = [rate(ns, workers) for workers in WORKERS]
    return [name, count, text(ns)] + [text(r) for r in rates] + [text(passes(rates[-2]))]


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"
