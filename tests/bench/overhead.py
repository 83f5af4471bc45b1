# SPDX-License-Identifier: MIT
"""What policy auto costs where it has nothing to gain.

Working set: 448 MiB, all of it accessed alike (bench_hotset --pattern uniform), under policy auto and under
policy ddr; unit `work`, accesses a second in the run's last half. In the guest, where there is HBM and the module,
instructions of one processor; on this machine wall time, five runs each, in turns.

Programs, on this machine, under policy auto and with jemalloc preloaded: units `time` and `peak-memory`, the medians
of the rounds' ratios. hpcc has to find its own results right.

On a machine without HBM policy auto has nothing to do but to say so, and the figures show just that.
"""
import collections
import os
import re
import shutil
import tempfile

import harness
import hotset
import malloc

PACKAGES = ("hpcc",) + malloc.PACKAGES
FRONTS = {
    "auto": [os.path.join(harness.BUILD, "bin", "ferry"), "run", "--policy", "auto", "--"],
    "ddr": malloc.MALLOCS["ferry"],
    "jemalloc": malloc.MALLOCS["jemalloc"],
}
PROGRAMS = ("python3", "sqlite3", "gcc", "redis")
UNIFORM = [hotset.BENCH, "--pattern", "uniform"]
HPCC_EXAMPLE = "/usr/share/doc/hpcc/examples/_hpccinf.txt"


def measure(options):
    if options.clock != "wall":
        yield uniform_in_guest(options)
    if options.clock != "icount":
        yield uniform_here(harness.rounds(options, 5), 3 if options.quick else 10)
        yield from programs(harness.rounds(options, 5), options.quick)


# ---- memory that is all accessed alike ----


def uniform_in_guest(options):
    seconds = 6 if options.quick else 15
    work = {subject: hotset.summary(hotset.run(options, subject, UNIFORM, seconds, "icount"))["work"]
            for subject in ("auto", "ddr")}
    return figure("uniform", "ddr", "work", value=work["auto"], peer_value=work["ddr"], runs=1,
                  where="guest", clock="icount")


def uniform_here(rounds, seconds):
    command = UNIFORM + ["--bytes", str(hotset.MIB << 20), "--seconds", str(seconds)]
    values = collections.defaultdict(list)
    for _ in range(rounds):
        for subject in ("auto", "ddr"):
            output = harness.native(FRONTS[subject] + command)
            lines = [tuple(float(word) for word in line.split()) for line in output.splitlines()]
            values[subject].append(hotset.summary(lines)["work"])
    return figure("uniform", "ddr", "work", **harness.paired(values["auto"], values["ddr"]))


# ---- programs ----


def programs(rounds, quick):
    with tempfile.TemporaryDirectory(prefix="ferry-bench.") as work:
        cases = {name: command for name, command in malloc.prepare(work, quick).items() if name in PROGRAMS}
        cases["hpcc"] = lambda front: run_hpcc(front, work, 200 if quick else 1500)
        runs = collections.defaultdict(list)
        for turn in range(rounds):
            order = ("auto", "jemalloc") if turn % 2 else ("jemalloc", "auto")
            for case, command in cases.items():
                for subject in order:
                    runs[subject, case].append(command(FRONTS[subject]))
    for unit in ("time", "peak-memory"):
        for case in cases:
            yield figure(case, "jemalloc", unit, **harness.paired(*(
                [run.seconds if unit == "time" else run.peak_kib for run in runs[subject, case]]
                for subject in ("auto", "jemalloc"))))


def run_hpcc(front, work, size):
    """One process; @size: rows of its matrix."""
    with open(HPCC_EXAMPLE, encoding="utf-8") as file:
        text = file.read()
    for value, name in ((size, "Ns"), (1, "Ps"), (1, "Qs")):
        text = re.sub(rf"^\d+(\s+{name}\b)", rf"{value}\1", text, flags=re.MULTILINE)
    malloc.write(work, "hpccinf.txt", text)
    output = os.path.join(work, "hpccoutf.txt")
    if os.path.exists(output):
        os.unlink(output)
    run = malloc.run(front + ["env", "-C", work, "hpcc"])
    with open(output, encoding="utf-8") as file:
        results = file.read()
    if "Success=1" not in results or "Solution Validates" not in results:
        raise harness.Failure(f"hpcc under {' '.join(front)} did not find its results right")
    return run


# ---- figures ----


def figure(case, peer, unit, where="native", clock="wall", **values):
    return harness.Figure(bench="overhead", case=case, subject="auto", peer=peer, unit=unit, where=where, clock=clock,
                          **values)


def missing():
    """Programs and files that have to be installed first."""
    return malloc.missing() + [name for name in ("hpcc",) if not shutil.which(name)]
