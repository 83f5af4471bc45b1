# SPDX-License-Identifier: MIT
"""What all benchmarks share: running a command in the guest, a figure with its
peer, the table and the JSON lines."""
import dataclasses
import json
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

    @property
    def ratio(self):
        if self.median_ratio:
            return self.median_ratio
        return self.value / self.peer_value if self.peer_value else 0.0

    def as_json(self):
        keys = ("bench", "case", "subject", "peer", "unit", "value", "peer_value",
                "ratio", "where", "clock", "runs")
        return json.dumps({key: getattr(self, key) for key in keys})


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def machine():
    return f"{os.cpu_count()} CPUs, Linux {platform.release()}, {platform.machine()}"


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


def table(figures):
    """Prints the figures as they come; returns them as a list."""
    head = ("case", "subject", "value", "unit", "peer", "peer value", "ratio", "spread",
            "where", "clock", "runs")
    layout = "{:30} {:12} {:>10} {:11} {:11} {:>10} {:>7} {:>7} {:6} {:7} {:>4}"
    print(layout.format(*head))
    kept = []
    for figure in figures:
        kept.append(figure)
        print(layout.format(
            figure.case, figure.subject, f"{figure.value:.4g}", figure.unit, figure.peer,
            f"{figure.peer_value:.4g}", f"{figure.ratio:.3f}", f"{figure.spread:.0%}",
            figure.where, figure.clock, figure.runs), flush=True)
    return kept


def write_json(path, figures):
    with open(path, "w", encoding="utf-8") as out:
        for figure in figures:
            out.write(figure.as_json() + "\n")
