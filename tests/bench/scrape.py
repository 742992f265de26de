"""What a scrape costs with 50,000 sessions: a real console on a table with that many records.

    python -m tests.bench.scrape [--sessions 50000] [--scrapes 50] [--top 100] [--json]

*http* is what Prometheus waits for, the whole page with gzip as it asks for; *cpu* what the
console's process uses for one. *pass* is the one pass over all records, in C, in this process.
The data threads are not asked for anything: the console maps the table read-only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a file, too

from fastpath.census import Census
from ops.ranges import format_address
from ops.settings import Limits, Metrics, Pool
from tests.bench.results import Result, arguments
from tests.ops.console.rig import Console, Shared, console, free_port, settings

GOAL_MS: Final = 20.0
TICK: Final = os.sysconf("SC_CLK_TCK")
FIRST: Final = 10 << 24


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICK


def scrapes(rig: Console, count: int) -> tuple[list[float], float, int]:
    """(ms of each, CPU ms of one, octets of the page)"""
    headers = {"Accept-Encoding": "gzip"}
    size = len(rig.request("/metrics", tcp=True)[2])
    before = cpu(rig.process.pid)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        status, _, _ = rig.request("/metrics", tcp=True, headers=headers)
        times.append((time.perf_counter() - begin) * 1e3)
        assert status == 200
    return times, (cpu(rig.process.pid) - before) * 1e3 / count, size


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scrape", description=__doc__)
    parser.add_argument("--sessions", type=int, default=50_000)
    parser.add_argument("--scrapes", type=int, default=50)
    parser.add_argument("--top", type=int, default=100, help="of the second run")
    words = arguments("scrape", parser)
    shared = Shared(words.sessions)
    for i in range(words.sessions):
        shared.up(i, f"user{i}", format_address(FIRST + 256 + i), worker=i % 2)
        shared.set_traffic(i, (i, 1000 * i), (i, 2000 * i), 0)
    pool = Pool("default", ("10.0.0.0/8",))
    base = replace(
        settings(free_port()),
        pools=(pool,),
        limits=Limits(max_sessions=words.sessions),
    )
    result = Result("scrape")
    counting = Census(shared.table, [[(FIRST, FIRST + (1 << 24) - 1)]])
    passes = []
    for _ in range(words.scrapes):
        begin = time.perf_counter()
        workers, used, _, _ = counting.take()
        passes.append((time.perf_counter() - begin) * 1e3)
    assert sum(map(sum, workers)) == used[0] == words.sessions
    result.figure("pass", ms=median(passes))
    with tempfile.TemporaryDirectory(prefix="pptpcon-scrape-") as name:
        os.chmod(name, 0o755)  # noqa: S103 - the console gives root away
        for row, sessions in (("http", ""), (f"http, top:{words.top}", f"top:{words.top}")):
            folder = Path(name) / row.replace(", top:", "-")
            folder.mkdir()
            chosen = replace(base, metrics=Metrics(base.metrics.listen, sessions))
            with console(shared, folder, chosen) as rig:
                rig.metrics(tcp=True)
                times, spent, size = scrapes(rig, words.scrapes)
            times.sort()
            result.figure(
                row,
                median_ms=median(times),
                p95_ms=times[len(times) * 95 // 100],
                cpu_ms=spent,
                octets=size,
            )
            result.ratio(f"{row}: median ms", median(times), at_most=GOAL_MS)
    result.note(f"{words.sessions} sessions, 2 workers, 1 RADIUS server")
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
