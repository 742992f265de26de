#!/usr/bin/env python3
"""More workers: two on two CPUs against one, 8 and 32 on the same two, and the spread.

Two against one: a long burst waits in the sockets of every worker, all begin at once, and
the data threads' CPU time a packet tells what they cost each other. The yardstick is two
plain RC4 loops on the same CPUs in the same run: what the processor itself gives for a
second thread. 2, 8 and 32 workers carry the same packets of the same 64 sessions. `spread` is
the real concentrator with real logins. MPPE-128 throughout; ns of CPU a packet.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.client.child import PYTHON, ChildError
from ops.client.concentrator import Concentrator
from ops.client.netns import NetnsError
from ops.client.playground import WAN_SERVER, Playground, why_not
from tests.bench import rig
from tests.bench.plain import STRIDE, SUPER, Burst, Counts, Plain, sessions
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.rig import OurServer, Wire

CPUS: Final = (1, 0)  # of the first and the second worker, and so on by turns
PACKETS: Final = 2048  # for each worker
SEGMENTS: Final = 32
SESSIONS: Final = 16
MANY_SESSIONS: Final = 64
MANY_PACKETS: Final = 8192
WORKERS: Final = (2, 8, 32)
RUN: Final = 16  # packets of a session in a row, as TCP sends them
RC4_ROUNDS: Final = 6000
RC4_REFERENCE: Final = 1537.0
SPREAD_SESSIONS: Final = 320
SPREAD_WORKERS: Final = (8, 32)
PASSWORD_FILE: Final = "bench-password"
PATIENCE: Final = 60.0


def rc4(plain: Plain, cpus: tuple[int, ...]) -> list[float]:
    """ns of 1400 octets in one loop on each of these CPUs, all at the same time."""
    found: list[float] = [0.0] * len(cpus)
    gate = threading.Barrier(len(cpus))

    def work(place: int, cpu: int) -> None:
        rig.pin(cpu)
        gate.wait()
        found[place] = plain.rc4(RC4_ROUNDS).cpu_ns / RC4_ROUNDS

    threads = [threading.Thread(target=work, args=item) for item in enumerate(cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Load:
    """One of our servers with the bursts that it is fed."""

    def __init__(
        self, plain: Plain, wire: Wire, workers: int, active: int, packets: int, base: Wire
    ) -> None:
        self.plain = plain
        self.base = base
        self.wire = wire
        self.calls = rig.calls(active)
        self.server = OurServer(wire, self.calls, True, workers, CPUS)
        self.packets = packets
        self.clients: Any = sessions(self.calls)

    def burst(self, way: str) -> tuple[float, list[int]]:
        """(ns of the sender's call beyond the sending, ns of each thread)."""
        up = way == "up"
        count = self.packets if up else self.packets // SEGMENTS
        burst = Burst.empty(count, STRIDE if up else SUPER, self.packets)
        if up:
            self.plain.make_up(
                *(self.clients, len(self.calls), burst),
                run=RUN,
                encrypted=True,
                ethernet=self.wire.up_ethernet,
            )
        else:
            self.plain.make_down(
                *(self.clients, len(self.calls), burst),
                segments=SEGMENTS,
                ethernet=self.wire.down_ethernet,
            )
        sent, threads = self.server.held_burst(self.plain, burst, up=up)
        nothing = Counts()
        with rig.ahead():
            sock = self.base.from_clients if up else self.base.from_lan
            self.plain.inject(sock.fileno(), burst, nothing)
        return max(0.0, sent - nothing.cpu_ns), threads


def two_against_one(result: Result, plain: Plain, rounds: int) -> None:
    """The gain of a second worker, against that of a second RC4 loop."""
    with (
        Wire(server_drops=True) as base,
        Wire() as wire1,
        Wire() as wire2,
        (one := Load(plain, wire1, 1, SESSIONS, PACKETS, base)).server,
        (two := Load(plain, wire2, 2, SESSIONS, 2 * PACKETS, base)).server,
    ):
        alone: list[float] = []
        gains: list[float] = []
        taken: dict[str, list[tuple[float, float]]] = {"up": [], "down": []}
        for way in taken:
            one.burst(way)
            two.burst(way)
        for _ in range(rounds):
            single = statistics.mean(rc4(plain, (cpu,))[0] for cpu in CPUS)
            both = statistics.mean(rc4(plain, CPUS))
            alone.append(single)
            gains.append(2 * single / both)
            for way, rows in taken.items():
                _, first = one.burst(way)
                _, second = two.burst(way)
                rows.append((sum(first) / PACKETS, sum(second) / (2 * PACKETS)))
        gain = statistics.median(gains)
        result.figure("two RC4 loops", alone_ns=statistics.median(alone), gain=gain)
        result.yardstick("RC4 loop of 1400 octets", min(alone), RC4_REFERENCE)
        for way, rows in taken.items():
            found = [2 * a / b for a, b in rows]
            row = f"two workers {way}"
            result.figure(
                row,
                one_ns=statistics.median(a for a, _ in rows),
                two_ns=statistics.median(b for _, b in rows),
                gain=statistics.median(found),
            )
            result.ratio(row, statistics.median(found) / gain, at_least=0.95)


def many(result: Result, plain: Plain, rounds: int) -> None:
    """2, 8 and 32 workers with the same load."""
    taken: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for workers in WORKERS:
        with (
            Wire(server_drops=True) as base,
            Wire() as wire,
            (load := Load(plain, wire, workers, MANY_SESSIONS, MANY_PACKETS, base)).server,
        ):
            for way in ("up", "down"):
                load.burst(way)
            for _ in range(rounds):
                for way in ("up", "down"):
                    kernel, threads = load.burst(way)
                    row = (kernel / MANY_PACKETS, sum(threads) / MANY_PACKETS)
                    taken.setdefault((workers, way), []).append(row)
    totals: dict[tuple[int, str], float] = {}
    for (workers, way), rows in taken.items():
        kernel = statistics.median(k for k, _ in rows)
        own = statistics.median(t for _, t in rows)
        totals[workers, way] = statistics.median(k + t for k, t in rows)
        result.figure(
            f"{workers} workers {way}",
            kernel_ns=kernel,
            threads_ns=own,
            total_ns=totals[workers, way],
        )
    for workers in WORKERS[1:]:
        for way in ("up", "down"):
            ratio = totals[workers, way] / totals[2, way]
            result.ratio(f"{workers} workers {way} against 2", ratio, at_most=1.3)


def spread(result: Result) -> None:
    """How evenly real logins fall on the workers."""
    for workers in SPREAD_WORKERS:
        with Playground() as ground:
            password = secrets.token_urlsafe(12)
            concentrator = Concentrator(
                ground,
                {f"user{i}": password for i in range(1, SPREAD_SESSIONS + 1)},
                extra={"workers": {"count": workers}},
            )
            concentrator.start()
            path = ground.folder / PASSWORD_FILE
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, password.encode() + b"\n")
            os.close(fd)
            argv = [*PYTHON, "ops.client", "--server", WAN_SERVER, "--user", "user{i}", "--json"]
            argv += ["--password-file", str(path), "--count", str(SPREAD_SESSIONS)]
            client = ground.start("clients", "client", argv)
            until = time.monotonic() + PATIENCE
            counts: dict[str, float] = {}
            while sum(counts.values()) < SPREAD_SESSIONS:
                if time.monotonic() > until or not client.alive():
                    raise client.failure(f"{sum(counts.values()):.0f} sessions came up")
                time.sleep(0.3)
                counts = concentrator.metrics().by("pptp_slots_used", "worker")
            most, least = max(counts.values()), min(counts.values())
            mean = SPREAD_SESSIONS / workers
            row = f"spread over {workers} workers"
            result.figure(row, sessions=SPREAD_SESSIONS, most=most, least=least)
            result.ratio(row, max(most / mean, 2 - least / mean), at_most=1.1)
            client.stop()
            concentrator.stop()


def bench(rounds: int) -> Result:
    """All rows."""
    result = Result("scaling")
    plain = Plain()
    available = os.sched_getaffinity(0)
    rig.pin(rig.CPU)
    two_against_one(result, plain, rounds)
    many(result, plain, rounds)
    os.sched_setaffinity(0, available)
    spread(result)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="of each kind")
    words = arguments("scaling", parser)
    lacking = why_not() or rig.why_not()
    if lacking:
        return cannot("scaling", lacking)
    try:
        result = bench(words.rounds)
    except (BenchError, ChildError, NetnsError, OSError, subprocess.SubprocessError) as e:
        print(f"scaling: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
