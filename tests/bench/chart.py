# SPDX-License-Identifier: MIT
"""Draws a benchmark's figures: for each case a bar a peer, its length the ratio
of the subject's value to the peer's."""
import collections
import os

import harness


def draw(figures, directory):
    """One SVG for each benchmark and unit, in @directory. Returns their paths."""
    try:
        import matplotlib
    except ImportError as error:
        raise harness.Failure("charts need the package python3-matplotlib") from error
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ferry"  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, which is less
    from matplotlib import pyplot

    os.makedirs(directory, exist_ok=True)
    groups = collections.defaultdict(list)
    for figure in figures:
        groups[figure.bench, figure.unit].append(figure)
    paths = []
    for (bench, unit), members in groups.items():
        path = os.path.join(directory, f"{bench}-{unit.replace('/', '-')}.svg")
        plot(pyplot, bench, unit, members, path)
        paths.append(path)
    return paths


def plot(pyplot, bench, unit, figures, path):
    labels = [f"{figure.case}  {figure.subject} / {figure.peer}" for figure in figures]
    ratios = [figure.ratio for figure in figures]
    peers = sorted({figure.peer for figure in figures})
    colours = [f"C{peers.index(figure.peer)}" for figure in figures]

    chart, axes = pyplot.subplots(figsize=(9, 1.2 + 0.24 * len(figures)))
    axes.barh(range(len(figures)), ratios, color=colours, height=0.7)
    axes.set_yticks(range(len(figures)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=0.8)
    for row, ratio in enumerate(ratios):
        axes.text(ratio, row, f" {ratio:.2f}", va="center", fontsize=7)
    axes.set_xlabel(f"{unit}: ratio to the peer (1: the same)")
    axes.set_title(bench)
    axes.margins(x=0.12)
    chart.tight_layout()
    chart.savefig(path, metadata={"Date": None, "Rights": "SPDX-License-Identifier: MIT"})
    pyplot.close(chart)
