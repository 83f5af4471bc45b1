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


def relocate_ns(figures):
    """The same by the part of a plain copy's bandwidth that the relocate engine reaches; or None."""
    copy = ASSUMED["core copy"]
    for figure in figures:
        if (figure.bench, figure.unit, figure.case) == ("relocate", "of-copy-bandwidth", "thp"):
            return tuple(PAGE / (figure.value * rate) for rate in (copy.high, copy.low))
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


def text(pair):
    return " to ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in pair)


def section(figures):
    """Lines of Markdown."""
    yield from (
        "A model, not a measurement: the guest's instructions a page, scaled to one of the four",
        f"clusters of a Xeon Max 9480 in SNC4 mode ({CORES} cores, its own DDR and HBM nodes), pages",
        "going from the cluster's DDR to its HBM. It assumes:", "")
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
    rows = []
    for name, who, fits in SUBJECTS:
        count = instructions(figures, who, fits)
        if count is None:
            yield f"{name}: not among the figures of this run (`migrate`, icount).\n"
            continue
        rows.append(row(name, f"{count:.0f}", page_ns(count, "huge" in name)))
    if relocate_ns(figures):
        rows.append(row("relocate, huge pages", "-", relocate_ns(figures)))
    else:
        yield "relocate, huge pages: not among the figures of this run (`relocate`).\n"
    if rows:
        head = ["subject", "instructions a page", "ns a page, one core"]
        head += [f"GB/s, {n} core{'s' if n > 1 else ''}" for n in WORKERS]
        head.append(f"passes to pay, {WORKERS[-2]} cores")
        yield from table(head, rows)


def row(name, count, ns):
    rates = [rate(ns, workers) for workers in WORKERS]
    return [name, count, text(ns)] + [text(r) for r in rates] + [text(passes(rates[-2]))]


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"
