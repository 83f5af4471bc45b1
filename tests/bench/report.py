# SPDX-License-Identifier: MIT
"""Writes docs/performance.md from figures: what was measured on what, tables and
charts for each benchmark, the model, and what has not been measured."""
import collections
import glob
import os

import chart
import harness
import model

TITLES = {
    "fairness": "Small requests beside a process with endless large ones",
    "first-touch": "First touch by user faults",
    "hotset": "A hot set that shifts",
    "malloc": "Allocator: programs under `ferry run`",
    "migrate": "Moving pages",
    "overhead": "What policy auto costs",
    "relocate": "Moving huge pages in user space",
    "stall": "How long a reader waits while its memory moves",
}
# The peer that nothing can beat, and what the table says of it.
LIMIT = "copy"
LIMIT_TEXT = ("where the peer is `copy`, the ratio is to the physical limit: a plain copy of the same bytes in "
              "the same run")

UNMEASURED = """Nothing here was measured on HBM, or on a machine with two NUMA nodes. Guest figures come from
QEMU's software emulation of a machine with a DDR and an HBM node, which are the same memory of the host: they
tell how much work is done for a page, not how fast HBM is. Not measured at all:

- bandwidth and latency of HBM, alone and beside DDR; what a placement gains on it;
- TLB shootdowns over many cores, and contention of many cores in the kernel's memory management;
- memory policies of SNC4 on hardware, and MPI ranks that share one HBM;
- DMA engines; sampling by the PMU (PEBS).

Of the benchmarks that `tests/bench/run --help` lists, those without a section here were not run for this page."""


def write(path, figures):
    folder = os.path.dirname(os.path.abspath(path))
    charts = chart.draw(figures, os.path.join(folder, "performance"))
    # Those over time are drawn as it is measured: by --charts, in the same folder.
    charts += glob.glob(os.path.join(folder, "performance", "*-over-time-*.svg"))
    lines = list(document(figures, [os.path.relpath(name, folder) for name in sorted(charts)]))
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


def document(figures, charts):
    yield from ("<!-- SPDX-License-Identifier: MIT -->",
                "<!-- Made by tests/bench/run --report; do not edit. -->",
                "# Performance", "")
    yield from (
        "A ratio is Ferry's value to the peer's of the same run. Times, instructions and memory are the",
        "better the less they are, bandwidths the more. Figures by `wall` are of the machine named, those",
        "by `icount` are guest instructions and hardly depend on it. Spread is (largest - smallest) /",
        "median of the runs, or of their ratios where both ran in each; 95 %: where the median of such",
        "ratios is with that likelihood, where there are enough of them to say.")
    for bench, members in grouped(figures, lambda figure: figure.bench).items():
        yield from ("", f"## {TITLES.get(bench, bench)}", "")
        for machine in dict.fromkeys(figure.machine for figure in members):
            yield f"Machine: {machine}."
        yield from headline(members)
        for unit, same in grouped(members, lambda figure: (figure.unit, figure.where)).items():
            yield from unit_table(unit, same)
        for name in charts:
            if os.path.basename(name).startswith(bench + "-"):
                yield from ("", f"![{os.path.basename(name)}]({name})")
    yield from ("", "## Model: Xeon Max", "")
    yield from model.section(figures)
    yield from ("", "## Not measured", "", UNMEASURED)


def headline(figures):
    """The geometric means, where a benchmark has some."""
    means = [figure for figure in figures if figure.case == "geomean"]
    if means:
        yield ""
    for figure in means:
        yield (f"- {figure.unit}, geometric mean of the cases: {figure.ratio:.3f} of "
               f"{figure.peer}'s")


def unit_table(unit, figures):
    name, where = unit
    yield ""
    limited = any(figure.peer == LIMIT for figure in figures)
    yield f"`{name}`, {where}:" + (f" {LIMIT_TEXT}." if limited else "")
    yield ""
    timed = any(figure.interval for figure in figures)
    head = ["case", "subject", "median", "peer", "peer's median", "ratio", *["95 %"] * timed, "spread", "clock", "runs"]
    rows = [[figure.case, figure.subject, f"{figure.value:.4g}", figure.peer,
             f"{figure.peer_value:.4g}", f"{figure.ratio:.3f}", *[harness.likely(figure)] * timed,
             f"{figure.spread:.0%}", figure.clock, str(figure.runs)]
            for figure in figures if figure.case != "geomean"]
    yield from model.table(head, rows)


def grouped(items, key):
    groups = collections.defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
