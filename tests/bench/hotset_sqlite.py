# SPDX-License-Identifier: MIT
"""SQLite with a table in memory, of which a tenth of the rows, in scattered runs of
some 2 MiB, takes nine tenths of the queries; in the middle of the run other rows.

usage: hotset_sqlite.py --bytes N --seconds S

Prints a line for each half second, as bench_hotset does: SECONDS PHASE QUERIES RATE.
Ends with 1 if a row is not what was put there. Flushes the TLB as bench_hotset does."""
import ctypes
import mmap
import random
import sqlite3
import sys
import time

ROW, RUN = 3500, 512  # bytes: a page of the database, with its header; rows of a run
INTERVAL, FLUSH = 0.5, 0.01


def data(key):
    return key.to_bytes(8, "little") * (ROW // 8)


def table(rows):
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, d BLOB)")
    database.executemany("INSERT INTO t VALUES (?, ?)", ((key, data(key)) for key in range(rows)))
    return database


class Flusher:
    """Changing the protection of many touched pages flushes all of the process."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 256 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.write(b"\1" * len(self.memory))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.mprotect = ctypes.CDLL(None).mprotect
        self.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.last = 0.0

    def flush(self, now):
        if now - self.last >= FLUSH:
            self.mprotect(self.address, len(self.memory), 0)
            self.mprotect(self.address, len(self.memory), mmap.PROT_READ | mmap.PROT_WRITE)
            self.last = now


def main():
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    rows = int(arguments["--bytes"]) // 4096 // RUN * RUN
    seconds = float(arguments["--seconds"])
    database, flusher, pick = table(rows), Flusher(), random.Random(1)
    order = list(range(rows // RUN))
    pick.shuffle(order)
    start = time.monotonic()
    for phase in range(2):
        hot = order[phase * len(order) // 10:(phase + 1) * len(order) // 10]
        begun = time.monotonic()
        end = begun + seconds
        while begun < end:
            queries, now = 0, begun
            while now < begun + INTERVAL:
                run = pick.choice(hot if pick.random() < 0.9 else order)
                key = run * RUN + pick.randrange(RUN)
                if database.execute("SELECT d FROM t WHERE k = ?", (key,)).fetchone()[0] != data(key):
                    sys.exit(f"hotset_sqlite: row {key} is not what was put there")
                queries += 1
                now = time.monotonic()
                flusher.flush(now)
            print(f"{now - start:.2f} {phase} {queries} {queries / (now - begun):.0f}", flush=True)
            begun = time.monotonic()


main()
