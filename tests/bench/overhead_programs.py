# SPDX-License-Identifier: MIT
"""Runs in the guest what overhead.py compares there, small: programs under policy auto and with jemalloc
preloaded, and memory that is all accessed alike under policy auto and policy ddr.

Prints lines: CASE SUBJECT UNIT VALUE. With --icount the guest's seconds are instructions; those in which a program
waits for the host's files are not counted."""
import sys
import tempfile

import harness
import malloc
import overhead


def main():
    with tempfile.TemporaryDirectory(prefix="ferry-bench.") as work:
        for case, command in overhead.cases(work, quick=True).items():
            for subject in ("auto", "jemalloc"):
                run = command(overhead.FRONTS[subject])
                print(case, subject, "cpu-time", run.cpu_seconds)
                print(case, subject, "peak-memory", run.peak_kib, flush=True)
    for subject in ("auto", "ddr"):
        print("uniform", subject, "peak-memory", malloc.run(overhead.FRONTS[subject] + overhead.uniform(2)).peak_kib, flush=True)


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"overhead_programs: {failure}")
