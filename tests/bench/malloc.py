# SPDX-License-Identifier: MIT
"""Time and peak memory of programs under each malloc, on this machine.

Each round runs every case under every malloc, in an order that rotates from
round to round, so that a busy minute of the machine meets all of them alike. A
figure is the median of the rounds' ratios of Ferry to a peer. Programs get
their malloc by LD_PRELOAD, Ferry's by `ferry run --policy ddr`.
"""
import collections
import os
import shutil
import statistics
import subprocess
import tempfile
import time

import harness

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# What each malloc puts in front of the command. memkind's own preload library is memtier; Debian has no autohbw.
MALLOCS = {
    "ferry": [os.path.join(harness.BUILD, "bin", "ferry"), "run", "--policy", "ddr", "--"],
    "jemalloc": ["env", f"LD_PRELOAD={LIBRARIES}/libjemalloc.so.2"],
    "glibc": ["env"],
    "mimalloc": ["env", f"LD_PRELOAD={LIBRARIES}/libmimalloc.so.2"],
    "tcmalloc": ["env", f"LD_PRELOAD={LIBRARIES}/libtcmalloc_minimal.so.4"],
    "memkind": ["env", f"LD_PRELOAD={LIBRARIES}/libmemtier.so.0",
                "MEMKIND_MEM_TIERS=KIND:DRAM,RATIO:1;POLICY:STATIC_RATIO"],
}
PACKAGES = ("libjemalloc2", "libc6", "libmimalloc2.0", "libtcmalloc-minimal4", "libmemkind0",
            "redis-server", "sqlite3", "python3", "gcc")
WORKLOADS = ("larson", "xfree", "mix", "thrash", "large")
STARTS = 100
REDIS_PORT = 16399

Run = collections.namedtuple("Run", "seconds peak_kib cpu_seconds", defaults=(None,))

PYTHON_SCRIPT = """
import json, random, re
random.seed(7)
words = ["".join(random.choices("abcdefghij", k=random.randrange(3, 30))) for _ in range(60000)]
count = {}
for _ in range(4):
    for word in words:
        count.setdefault(word[:4], []).append(word)
text = json.dumps(count)
back = json.loads(text)
assert back == count
objects = [{"id": n, "name": word, "tail": [n] * (n % 7)} for n, word in enumerate(words)]
objects.sort(key=lambda o: o["name"])
assert sum(len(re.findall("a[bc]+d", word)) for word in words) >= 0
for _ in range(20):
    objects = [dict(o) for o in objects]
"""

SQL_SCRIPT = """
PRAGMA journal_mode=OFF;
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
INSERT INTO t SELECT i, printf('%d-%x', i * 7919 % 100003, i), i * 0.5 FROM n;
CREATE INDEX tb ON t(b);
SELECT count(*), sum(length(b)) FROM t WHERE b LIKE '9%';
SELECT count(*) FROM t x JOIN t y ON x.b = y.b WHERE x.a % 3 = 0;
UPDATE t SET b = b || 'x' WHERE a % 2;
DELETE FROM t WHERE a % 5 = 0;
SELECT b, group_concat(a) FROM t GROUP BY substr(b, 1, 3) LIMIT 3;
"""


def measure(options):
    with tempfile.TemporaryDirectory(prefix="ferry-bench.") as work:
        cases = prepare(work, options.quick)
        runs = collections.defaultdict(list)  # by (malloc, case)
        names = list(MALLOCS)
        for turn in range(harness.rounds(options, 7)):
            order = names[turn % len(names):] + names[:turn % len(names)]
            for case, command in cases.items():
                for malloc in order:
                    runs[malloc, case].append(command(MALLOCS[malloc]))
    yield from figures(runs, list(cases), "time", lambda run: run.seconds)
    yield from figures(runs, list(cases), "peak-memory", lambda run: run.peak_kib)
    yield startup(10 if options.quick else STARTS)


def figures(runs, cases, unit, value_of):
    for peer in MALLOCS:
        if peer == "ferry":
            continue
        ratios = []
        for case in cases:
            mine = [value_of(run) for run in runs["ferry", case]]
            theirs = [value_of(run) for run in runs[peer, case]]
            found = figure(case, peer, unit, **harness.paired(mine, theirs))
            ratios.append(found.ratio)
            yield found
        mean = statistics.geometric_mean(ratios)
        yield figure("geomean", peer, unit, value=mean, peer_value=1.0, median_ratio=mean,
                     runs=len(runs["ferry", cases[0]]))


def figure(case, peer, unit, **values):
    return harness.Figure(bench="malloc", case=case, subject="ferry", peer=peer, unit=unit, where="native",
                          clock="wall", **values)


def startup(starts):
    """Milliseconds of a program that does nothing, with `ferry run` and without."""
    times = {"ferry": [], "glibc": []}
    for _ in range(starts):
        for malloc, seconds in times.items():
            seconds.append(run(MALLOCS[malloc] + ["true"]).seconds * 1000)
    mine, plain = (statistics.median(times[name]) for name in ("ferry", "glibc"))
    return figure("startup", "glibc", "ms", value=mine, peer_value=plain, runs=starts,
                  spread=harness.spread(times["ferry"]))


# ---- cases ----


def prepare(work, quick, port=REDIS_PORT):
    """For each case a function that carries it out under a malloc. Two that run at the same time need directories and
    ports of their own."""
    binary = os.path.join(harness.BUILD, "bench", "bench_malloc")
    cases = {name: lambda malloc, name=name: run_workload(malloc + [binary, name])
             for name in WORKLOADS}
    script = write(work, "script.py", PYTHON_SCRIPT)
    source = write(work, "large.c", large_source(300 if quick else 3000))
    sql = write(work, "script.sql", SQL_SCRIPT)
    cases["python3"] = lambda malloc: run(malloc + ["/usr/bin/python3", script])
    cases["sqlite3"] = lambda malloc: run(malloc + ["sqlite3", ":memory:", f".read {sql}"])
    cases["gcc"] = lambda malloc: run(malloc + ["gcc", "-O1", "-c", "-o", source + ".o", source])
    cases["redis"] = lambda malloc: run_redis(malloc, work, str(port), 20000 if quick else 150000)
    return cases


def write(work, name, text):
    path = os.path.join(work, name)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)
    return path


def large_source(functions):
    text = ["struct s { int a[8]; double d; struct s *next; };"]
    for n in range(functions):
        text.append(
            f"int f{n}(struct s *p, int x) {{ int i, r = {n};"
            f" for (i = 0; i < x; i++) {{ if (p->a[i & 7] > r) r += p->a[(i + {n}) & 7] * x;"
            f" else p->d += r / (x + {n % 97 + 1}.0); p = p->next; switch (r & 3) {{"
            f" case 0: r ^= i; break; case 1: r -= x; break; default: r *= 3; }} }} return r; }}")
    return "\n".join(text) + "\n"


def run(command):
    begin = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise harness.Failure(f"{' '.join(command)} ended with {child.returncode}")
    return Run(seconds, usage.ru_maxrss, usage.ru_utime + usage.ru_stime)


def run_workload(command):
    """The program tells its own time, without its start, and its peak."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise harness.Failure(f"{' '.join(command)} ended with {done.returncode}")
    nanoseconds, kib = done.stdout.split()
    return Run(int(nanoseconds) / 1e9, int(kib))


def run_redis(malloc, work, port, requests):
    """The client's time; it has the C library's malloc, the server the one that is measured."""
    client = ["redis-cli", "-p", port]
    server = subprocess.Popen(malloc + ["redis-server", "--port", port, "--save", "",
                                        "--bind", "127.0.0.1", "--dir", work],
                              stdout=subprocess.DEVNULL)
    try:
        wait_for_server(client)
        begin = time.monotonic()
        subprocess.run(["redis-benchmark", "-p", port, "-n", str(requests), "-r", "100000",
                        "-d", "200", "-P", "16", "-q", "-t", "set,get,lpush,hset,zadd"],
                       stdout=subprocess.DEVNULL, check=True)
        seconds = time.monotonic() - begin
        subprocess.run(client + ["shutdown", "nosave"], stdout=subprocess.DEVNULL, check=True)
        _, status, usage = os.wait4(server.pid, 0)
        server.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if server.returncode is None:
            server.kill()
            server.wait()
    return Run(seconds, usage.ru_maxrss, usage.ru_utime + usage.ru_stime)


def wait_for_server(client):
    for _ in range(500):
        if subprocess.run(client + ["ping"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(0.02)
    raise harness.Failure("redis-server does not answer")


def missing():
    """Programs and libraries that have to be installed first."""
    programs = [name for name in ("redis-server", "redis-benchmark", "sqlite3", "gcc")
                if not shutil.which(name)]
    files = [word.split("=", 1)[1] for front in MALLOCS.values() for word in front
             if word.startswith("LD_PRELOAD=")]
    return programs + [path for path in files if not os.path.exists(path)]
