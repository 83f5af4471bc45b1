# SPDX-License-Identifier: MIT
"""Runs in the guest the programs of overhead.py, small, under policy auto and with jemalloc preloaded.

Prints a line for each: CASE SUBJECT CPU-SECONDS PEAK-KIB. With --icount the guest's seconds are instructions; those in
which a program waits for the host's files are not counted."""
import sys
import tempfile

import harness
import overhead


def main():
    with tempfile.TemporaryDirectory(prefix="ferry-bench.") as work:
        for case, command in overhead.cases(work, quick=True).items():
            for subject in ("auto", "jemalloc"):
                run = command(overhead.FRONTS[subject])
                print(case, subject, run.cpu_seconds, run.peak_kib, flush=True)


if __name__ == "__main__":
    try:
        main()
    except harness.Failure as failure:
        sys.exit(f"overhead_programs: {failure}")
