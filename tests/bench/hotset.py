# SPDX-License-Identifier: MIT
"""A tenth of the memory takes nine tenths of the accesses, and HBM holds a
quarter; in the middle of the run something else becomes hot. Who finds it?

Cases: 4k (hot blocks of 2 MiB in 4 KiB pages), thp (the same in huge pages),
64k-blocks (hot blocks of 64 KiB, in 4 KiB pages), 64k-thp (the same in huge pages); chase (as 4k, each address
read from the line before), stencil (sweeps over a tenth in one run), stream (sweeps over
everything, so that all is equally hot, which takes some time to know: its phases are twice as long); sqlite (a table in memory, queried as in 4k; work only).
Each subject runs in a guest of its own, one after the other. NUMA balancing is on for the policy auto and the peers
named after it; auto-fault is the policy with the sampler fault, at its default overhead. Units:

hot-share         of the hot blocks' pages, those on HBM at the end of both phases
hbm-access-share  the same for the accesses of the whole working set
t90-s             seconds until 90 % of the first phase's final hot-share
shift-t90-s       the same from the shift on
moved-per-hot     pages that changed their tier, for each hot page that ended on HBM
steady-moved      of HBM, the share that changes a minute in the last halves of the phases
work              accesses a second in the last halves of the phases
"""
import os
import statistics

import harness

LINUX = ("first-touch", "preferred", "interleave", "balancing-1", "balancing-2", "damon")
PEERS = LINUX[:1] + ("auto-fault",) + LINUX[1:]
FEW_PEERS = ("first-touch", "preferred", "balancing-2", "damon")
BENCH = os.path.join(harness.BUILD, "bench", "bench_hotset")
SQLITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hotset_sqlite.py")
CASES = {  # by name: command, peers
    "4k": ([BENCH], PEERS),
    "thp": ([BENCH, "--huge"], PEERS),
    "64k-blocks": ([BENCH, "--block", "65536"], PEERS),
    "64k-thp": ([BENCH, "--block", "65536", "--huge"], LINUX),
    "chase": ([BENCH, "--pattern", "chase"], FEW_PEERS),
    "stencil": ([BENCH, "--pattern", "stencil"], FEW_PEERS),
    "stream": ([BENCH, "--pattern", "stream"], FEW_PEERS),
    "sqlite": (["python3", SQLITE], FEW_PEERS),
}
MIB, PAGES_MIB = 448, 256
LONGER = {"stream": 2}
ALL_HOT = {"stream": 1}
HBM_MIB = 128  # of which the kernel and the headroom leave a quarter of MIB


def measure(options):
    seconds = 6 if options.quick else 15
    for clock in ("icount", "wall"):
        # What the emulated CPUs do in a second of wall time changes with the host's load.
        if clock != (options.clock or "icount"):
            continue
        for case, (command, peers) in CASES.items():
            runs = {subject: run(options, subject, command, seconds * LONGER.get(case, 1), clock)
                    for subject in ("auto",) + (peers[:1] if options.quick else peers)}
            if options.charts and "sqlite" not in case:
                plot(case, runs, options.charts)
            yield from figures(case, runs, clock)


def run(options, subject, command, seconds, clock):
    """The lines of bench_hotset, as tuples of numbers."""
    line = [os.path.join(harness.ROOT, "tests", "bench", "hotset_peer"), harness.BUILD, subject, *command,
            "--bytes", str(MIB << 20), "--seconds", str(seconds)]
    output = harness.guest(line, options, icount=clock == "icount", cpus=1 if clock == "icount" else 2,
                           ddr="1G", hbm=f"{HBM_MIB}M", timeout=3000)
    return [tuple(float(word) for word in line.split()) for line in output.splitlines()]


def summary(lines, hot_part=0.1):
    """The values of a run by unit; HOT_PART: of the memory."""
    phases = [[line for line in lines if line[1] == phase] for phase in (0, 1)]
    halves = [phase[len(phase) // 2:] for phase in phases]
    work = statistics.mean(line[3] for half in halves for line in half)
    if len(lines[0]) == 4:
        return {"work": work}
    ends = [statistics.mean(line[4] for line in phase[-2:]) for phase in phases]
    times = []
    for phase, end in zip(phases, ends):
        start = lines[0][0] - 0.5 if phase is phases[0] else phases[0][-1][0]
        late = [line for line in phase if line[4] < 0.9 * end]
        # The end of the first interval after which it stays above.
        times.append(phase[min(len(phase) - 1, phase.index(late[-1]) + 1 if late else 0)][0] - start)
    hot_pages = MIB * PAGES_MIB * hot_part * sum(ends)
    steady_seconds = sum(half[-1][0] - half[0][0] for half in halves)
    return {
        "hot-share": statistics.mean(ends),
        "hbm-access-share": statistics.mean(line[5] for phase in phases for line in phase[-2:]),
        "t90-s": times[0],
        "shift-t90-s": times[1],
        "moved-per-hot": sum(line[6] for line in lines) / hot_pages if hot_pages else 0.0,
        "steady-moved": sum(line[6] for half in halves for line in half[1:]) / (HBM_MIB * PAGES_MIB) *
        60 / steady_seconds,
        "work": work,
    }


def figures(case, runs, clock):
    values = {subject: summary(lines, ALL_HOT.get(case, 0.1)) for subject, lines in runs.items()}
    for peer in runs:
        for unit, value in values["auto"].items():
            if peer != "auto":
                yield harness.Figure(bench="hotset", case=case, subject="auto", peer=peer, unit=unit, value=value,
                                     peer_value=values[peer][unit], where="guest", clock=clock, runs=1)


def plot(case, runs, directory):
    """The share of accesses that HBM serves, over time, as DIRECTORY/hotset-over-time-CASE.svg."""
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ferry"
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    os.makedirs(directory, exist_ok=True)
    chart, axes = pyplot.subplots(figsize=(9, 4))
    for subject, lines in runs.items():
        axes.plot([line[0] for line in lines], [line[5] for line in lines], label=subject,
                  linewidth=2.5 if subject == "auto" else 1.2)
    shift = next(line[0] for line in runs["auto"] if line[1] == 1) - 0.5
    axes.axvline(shift, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("seconds; the hot set shifts at the dotted line")
    axes.set_ylabel("accesses served by HBM")
    axes.set_ylim(0, 1)
    axes.set_title(f"hotset, {case}")
    axes.legend(fontsize=8)
    chart.tight_layout()
    chart.savefig(os.path.join(directory, f"hotset-over-time-{case}.svg"), metadata={"Date": None, "Rights": "SPDX-License-Identifier: MIT"})
    pyplot.close(chart)
