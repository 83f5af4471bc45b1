# SPDX-License-Identifier: MIT
"""What policy auto costs where it has nothing to gain.

Working set: 448 MiB, all of it accessed alike (bench_hotset --pattern uniform), under policy auto and under
policy ddr; units `work`, accesses a second in the run's last half, and in the guest `peak-memory`. Programs, under
policy auto and with jemalloc preloaded: units `time`, in the guest `cpu-time`, and `peak-memory`. hpcc has to find
its own results right.

In the guest, where there is HBM and the module, in instructions of its one processor: what the program, Ferry's threads
and the kernel do for it add up. On this machine in wall time: both subjects at the same time, each on a CPU of its own,
and once more with the CPUs exchanged; what a round says of a subject is the mean. Five rounds; figures are the
medians of their ratios.

On a machine without HBM policy auto has nothing to do but to say so, and the native figures show just that.
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
IN_GUEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "overhead_programs.py")
HPCC_EXAMPLE = "/usr/share/doc/hpcc/examples/_hpccinf.txt"


def measure(options):
    if options.clock != "wall":
        yield uniform_in_guest(options)
        yield from programs_in_guest(options)
    if options.clock != "icount":
        yield uniform_here(harness.rounds(options, 5), 3 if options.quick else 10)
        yield from programs_here(harness.rounds(options, 5), options.quick)


def both_ways(first, second):
    """Means of what two functions say, each given its place: at the same time, then with their CPUs exchanged."""
    one = harness.at_once(lambda: first(0), lambda: second(1))
    other = harness.at_once(lambda: second(0), lambda: first(1))
    return (one[0] + other[1]) / 2, (one[1] + other[0]) / 2


# ---- memory that is all accessed alike ----


def uniform(seconds):
    """The command, with phases of @seconds."""
    return UNIFORM + ["--bytes", str(hotset.MIB << 20), "--seconds", str(seconds)]


def uniform_in_guest(options):
    seconds = 6 if options.quick else 15
    work = {subject: hotset.summary(hotset.run(options, subject, UNIFORM, seconds, "icount"))["work"]
            for subject in ("auto", "ddr")}
    return figure("uniform", "ddr", "work", value=work["auto"], peer_value=work["ddr"], runs=1,
                  where="guest", clock="icount")


def uniform_here(rounds, seconds):
    def work(subject):
        output = harness.native(FRONTS[subject] + uniform(seconds))
        return hotset.summary([tuple(float(word) for word in line.split()) for line in output.splitlines()])["work"]

    values = [both_ways(lambda place: work("auto"), lambda place: work("ddr")) for _ in range(rounds)]
    return figure("uniform", "ddr", "work", **harness.paired(*zip(*values)))


# ---- programs ----


def cases(work, quick, place=0):
    """For each program a function that carries it out after a front; two places do not get in each other's way."""
    folder = os.path.join(work, str(place))
    os.mkdir(folder)
    found = {name: command for name, command in malloc.prepare(folder, quick, malloc.REDIS_PORT + place).items()
             if name in PROGRAMS}
    found["hpcc"] = lambda front: run_hpcc(front, folder, 600 if quick else 1500)
    return found


def programs_here(rounds, quick):
    times, peaks = collections.defaultdict(list), collections.defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ferry-bench.") as work:
        places = [cases(work, quick, place) for place in (0, 1)]
        for _ in range(rounds):
            for case in places[0]:
                runs = collections.defaultdict(list)

                def seconds(subject, place, case=case, runs=runs):
                    runs[subject].append(places[place][case](FRONTS[subject]))
                    return runs[subject][-1].seconds

                times[case].append(both_ways(lambda place: seconds("auto", place),
                                             lambda place: seconds("jemalloc", place)))
                peaks[case].append([max(run.peak_kib for run in runs[subject]) for subject in ("auto", "jemalloc")])
    for unit, values in (("time", times), ("peak-memory", peaks)):
        for case, pairs in values.items():
            yield figure(case, "jemalloc", unit, **harness.paired(*zip(*pairs)))


def programs_in_guest(options):
    output = harness.guest(["python3", IN_GUEST], options, icount=True, cpus=1, timeout=3000)
    values = collections.defaultdict(dict)
    for case, subject, unit, value in map(str.split, output.splitlines()):
        values[unit, case][subject] = float(value)
    for (unit, case), said in sorted(values.items()):
        mine = said.pop("auto")
        for peer, value in said.items():
            yield figure(case, peer, unit, value=mine, peer_value=value, runs=1, where="guest", clock="icount")


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
