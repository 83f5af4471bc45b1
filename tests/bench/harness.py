# SPDX-License-Identifier: MIT
"""What all benchmarks share: running a command in the guest, a figure with its
peer, the table and the JSON lines."""
import concurrent.futures
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUEST = os.path.join(ROOT, "tests", "guest", "run")
BUILD = os.environ.get("FERRY_BUILD_DIR", os.path.join(ROOT, "build"))


class Failure(Exception):
    """A benchmark that could not be carried out, with the reason as its text."""


@dataclasses.dataclass
class Figure:
    """Medians of one subject and its peer from the same run."""
    bench: str
    case: str
    subject: str
    peer: str
    unit: str
    value: float
    peer_value: float
    where: str
    clock: str
    runs: int
    spread: float = 0.0  # (max - min) / median of the subject, for the table
    median_ratio: float = 0.0  # of the rounds, where both ran in each; 0: ratio of the medians
    interval: tuple = ()  # where the median of such ratios is with 95 % likelihood; empty: too few rounds
    machine: str = ""  # what it was measured on

    @property
    def ratio(self):
        if self.median_ratio:
            return self.median_ratio
        return self.value / self.peer_value if self.peer_value else 0.0

    def as_json(self):
        keys = ("bench", "case", "subject", "peer", "unit", "value", "peer_value",
                "ratio", "interval", "where", "clock", "runs", "spread", "machine")
        return json.dumps({key: getattr(self, key) for key in keys})

    @staticmethod
    def from_json(text):
        values = json.loads(text)
        return Figure(median_ratio=values.pop("ratio"), **values)


def spread(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def interval(values):
    """Two of the values, between which the median of all there could be is with a likelihood of 95 %, however they are
    distributed: it is as likely above as below each of them. Empty for fewer than six."""
    outside, below = 0.0, -1
    while outside + math.comb(len(values), below + 1) * 0.5 ** len(values) <= 0.025:
        below += 1
        outside += math.comb(len(values), below) * 0.5 ** len(values)
    return (sorted(values)[below], sorted(values)[-1 - below]) if below >= 0 else ()


def paired(mine, theirs):
    """What a figure says of two subjects that ran in the same rounds."""
    ratios = [a / b for a, b in zip(mine, theirs)]
    return {"value": statistics.median(mine), "peer_value": statistics.median(theirs),
            "median_ratio": statistics.median(ratios), "runs": len(ratios), "spread": spread(ratios),
            "interval": interval(ratios)}


def at_once(*functions):
    """What functions return that run at the same time, each on a CPU of its own, in the order of their numbers: so
    that all meet what the machine does besides."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < len(functions):
        raise Failure(f"{len(functions)} CPUs are needed for what runs at the same time, there is {len(cpus)}")

    def on(cpu, function):
        os.sched_setaffinity(0, {cpu})  # of this thread and what it starts
        return function()

    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(on, cpus, functions))


def rounds(options, usual):
    """Of what is timed on this machine."""
    return options.rounds or (1 if options.quick else usual)


def machine(options, where="native"):
    """What figures are measured on, in a line."""
    text = (f"{os.cpu_count()} CPUs ({first('/proc/cpuinfo', 'model name')}), "
            f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) >> 20} GiB, "
            f"Linux {platform.release()}, huge pages {huge_pages()}")
    if where == "guest":
        return f"QEMU guest with Debian's kernel {options.kernel} on {text}"
    return text


def first(path, name):
    """The value of the first line `name : value` in @path."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return "0"


def huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="utf-8") as file:
            return file.read().split("[")[1].split("]")[0]
    except OSError:
        return "none"


def revision():
    """Of the sources, with a + where they were changed."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, check=False)
    return done.stdout.strip() or "unknown"


def versions(packages):
    """`name version` of Debian packages, those that are installed."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *packages],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False)
    return ", ".join(done.stdout.split("\n")[:-1])


def guest(command, options, *, icount=False, cpus=2, ddr="3G", hbm="2G", timeout=900):
    """Standard output of a command run in the guest."""
    line = [GUEST, "--kernel", options.kernel, "--cpus", str(cpus), "--ddr", ddr,
            "--hbm", hbm, "--timeout", str(timeout), "--append", "init_on_alloc=0"]
    if icount:
        line.append("--icount")
    done = subprocess.run(line + ["--"] + command, cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode} in the guest")
    return done.stdout


def native(command):
    """Standard output of a command run here."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def likely(figure):
    return "{:.3f}-{:.3f}".format(*figure.interval) if figure.interval else ""


def table(figures):
    """Prints the figures as they come; returns them as a list."""
    head = ("case", "subject", "value", "unit", "peer", "peer value", "ratio", "95 %", "spread",
            "where", "clock", "runs")
    layout = "{:30} {:12} {:>10} {:11} {:11} {:>10} {:>7} {:>13} {:>7} {:6} {:7} {:>4}"
    print(layout.format(*head))
    kept = []
    for figure in figures:
        kept.append(figure)
        print(layout.format(
            figure.case, figure.subject, f"{figure.value:.4g}", figure.unit, figure.peer,
            f"{figure.peer_value:.4g}", f"{figure.ratio:.3f}", likely(figure),
            f"{figure.spread:.0%}", figure.where, figure.clock, figure.runs), flush=True)
    return kept


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return [Figure.from_json(line) for line in file]


def write_json(path, figures):
    with open(path, "w", encoding="utf-8") as out:
        for figure in figures:
            out.write(figure.as_json() + "\n")
