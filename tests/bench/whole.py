#!/usr/bin/env python3
"""CPU of the whole path, ours against the plain loop, in bursts of packets of 1400 octets.

The plain loop takes one system call for each packet and OpenSSL's low-level RC4 and SHA-1
(plain.c). Both get the same frames by turns: 128 packets that wake the thread, and 256 more
while it is at work. A figure is ns of CPU a packet: what the server's kernel spends on it
before the thread sees it, and all the thread's own time with what it triggers, up to the drop
in the other namespace. Bursts hold data only: no TCP acknowledgements, and no wake-up for
each packet. `down` begins with super-packets, as a LAN card with GRO gives them; the kernel
takes them apart for the plain loop's TUN.

Where a goal is missed, the stages say where the time goes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastpath import mppe
from ops.client.netns import NetnsError
from ops.client.playground import why_not
from ops.settings import Gre, TunWrites
from tests.bench import rig
from tests.bench.plain import STRIDE, SUPER, Burst, Counts, Plain, sessions
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.rig import OurServer, PlainServer, Wire
from tests.bench.ways import WAYS

PACKETS: Final = 256
AHEAD: Final = 128  # packets before each burst that wake the thread
ALL: Final = AHEAD + PACKETS
SEGMENTS: Final = 32  # of a super-packet from the LAN
SESSIONS: Final = 8
BURSTS: Final = 8  # of each kind in a round
GOALS: Final = {
    ("up", True): 2.2,
    ("down", True): 2.0,
    ("up", False): 3.0,
    ("down", False): 3.0,
}
# ns a packet of the plain loop on the reference machine, the slower end of what was seen.
REFERENCE: Final = {
    ("up", True): 8200.0,
    ("down", True): 8900.0,
    ("up", False): 4700.0,
    ("down", False): 5600.0,
}


@dataclass(slots=True)
class Samples:
    """Of one round: ns of all bursts together, by part."""

    base: list[float] = field(default_factory=list)  # into a server that drops at its ingress
    plain_sent: list[float] = field(default_factory=list)
    plain_loop: list[float] = field(default_factory=list)
    ours_sent: list[float] = field(default_factory=list)
    ours_threads: list[float] = field(default_factory=list)
    # the same of other I/O ways, by name
    others: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


class Bench:
    """The three servers, for MPPE on or off."""

    def __init__(
        self,
        plain: Plain,
        *,
        encrypted: bool,
        count: int = SESSIONS,
        batch: int = 0,
        ways: Sequence[str] = ("auto",),
        writes: TunWrites = "auto",
    ) -> None:
        self.plain = plain
        self.writes = writes
        self.encrypted = encrypted
        self.batch = batch
        self.ways = ways  # of our server; those after the first are measured beside it
        self.calls = rig.calls(count)
        self.clients: Any = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        enter = self._exits.enter_context
        try:
            self.base = enter(Wire(server_drops=True))
            self.other = enter(PlainServer(enter(Wire()), self.plain, self.calls))
            servers = {
                way: enter(
                    OurServer(
                        *(enter(Wire()), self.calls, self.encrypted),
                        batch=self.batch,
                        ways=WAYS[way],
                        receive_buffer=Gre().receive_buffer_bytes,  # as in service
                        writes=self.writes,
                    )
                )
                for way in self.ways
            }
            self.ours = servers[self.ways[0]]
            self.others = {way: servers[way] for way in self.ways[1:]}
        except BaseException:
            self._exits.close()
            raise
        # Both servers see the same packets, so one end of the clients' serves both.
        self.clients = sessions(self.calls)
        self.other.begin(sessions(self.calls))
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def round(self, way: str, active: int, bursts: int) -> Samples:
        """Some bursts into each of the three by turns."""
        up = way == "up"
        each = 1 if up else SEGMENTS
        burst = Burst.empty(ALL // each, STRIDE if up else SUPER, ALL, AHEAD // each)
        return self.by_turns(burst, up, bursts, lambda: self._make(up, active, burst))

    def by_turns(self, burst: Burst, up: bool, bursts: int, make: Callable[[], None]) -> Samples:
        """Make a burst and put it into each of the three, so often."""
        samples = Samples()
        for _ in range(bursts):
            for wire, take in (
                (self.base, self._take_base),
                (self.other.wire, self._take_plain),
                (self.ours.wire, self._take_ours),
            ):
                if wire is self.base:  # made once; the servers' own addresses differ below
                    make()
                self._address(up, wire, burst)
                take(samples, burst, up)
            for way, server in self.others.items():
                self._address(up, server.wire, burst)
                sent, done = server.burst(self.plain, burst, up=up)
                calls, threads = samples.others.setdefault(way, ([], []))
                calls.append(sent)
                threads.append(done)
        return samples

    def _make(self, up: bool, active: int, burst: Burst) -> None:
        if up:
            self.plain.make_up(
                *(self.clients, active, burst),
                run=1,
                encrypted=self.encrypted,
                ethernet=self.base.up_ethernet,
            )
        else:
            self.plain.make_down(
                self.clients, active, burst, segments=SEGMENTS, ethernet=self.base.down_ethernet
            )

    @staticmethod
    def _address(up: bool, wire: Wire, burst: Burst) -> None:
        header = wire.up_ethernet if up else wire.down_ethernet
        view = memoryview(burst.data).cast("B")
        for at in burst.at:
            at += 0 if up else 10
            view[at : at + len(header)] = header

    def _take_base(self, samples: Samples, burst: Burst, up: bool) -> None:
        sent = Counts()
        sock = self.base.from_clients if up else self.base.from_lan
        with rig.ahead():
            self.plain.inject(sock.fileno(), burst, sent)
        samples.base.append(sent.cpu_ns)

    def _take_plain(self, samples: Samples, burst: Burst, up: bool) -> None:
        work = self.other.up if up else self.other.down
        sent, done = work(burst, encrypted=self.encrypted)
        samples.plain_sent.append(sent)
        samples.plain_loop.append(done)

    def _take_ours(self, samples: Samples, burst: Burst, up: bool) -> None:
        sent, done = self.ours.burst(self.plain, burst, up=up)
        samples.ours_sent.append(sent)
        samples.ours_threads.append(done)


def row_name(way: str, encrypted: bool, active: int) -> str:
    """A stable name."""
    many = f"{active} session{'s' if active > 1 else ''}"
    return f"whole {way}, {'MPPE' if encrypted else 'no MPPE'}, {many}"


def judge(result: Result, way: str, encrypted: bool, active: int, rounds: list[Samples]) -> None:
    """A row of the table from its rounds."""

    def per_packet(values: list[float], packets: int = PACKETS) -> float:
        return statistics.median(values) / packets

    ratios, plain_all, ours_all = [], [], []
    others: dict[str, tuple[list[float], list[float]]] = {}
    for r in rounds:
        base = per_packet(r.base)
        plain = max(0.0, per_packet(r.plain_sent) - base) + per_packet(r.plain_loop, ALL)
        ours = max(0.0, per_packet(r.ours_sent) - base) + per_packet(r.ours_threads, ALL)
        ratios.append(plain / ours)
        plain_all.append(plain)
        ours_all.append(ours)
        for name, (calls, threads) in r.others.items():
            other = max(0.0, per_packet(calls) - base) + per_packet(threads, ALL)
            values, of_ours = others.setdefault(name, ([], []))
            values.append(other)
            of_ours.append(plain / other)
    row = row_name(way, encrypted, active)
    base = statistics.median(per_packet(r.base) for r in rounds)
    ours = statistics.median(ours_all)
    result.figure(
        row,
        ours_ns=ours,
        plain_ns=statistics.median(plain_all),
        ours_gbit=rig.MTU * 8 / ours,
        ours_kernel_ns=statistics.median(per_packet(r.ours_sent) for r in rounds) - base,
        ours_thread_ns=statistics.median(per_packet(r.ours_threads, ALL) for r in rounds),
        plain_kernel_ns=statistics.median(per_packet(r.plain_sent) for r in rounds) - base,
        plain_loop_ns=statistics.median(per_packet(r.plain_loop, ALL) for r in rounds),
        put_in_ns=base,
        packets=ALL * sum(len(r.base) for r in rounds),
    )
    result.ratio(row, statistics.median(ratios), at_least=GOALS[way, encrypted])
    for name, (values, of_ours) in others.items():
        result.figure(f"{row}, {name}", ours_ns=statistics.median(values))
        result.ratio(f"{row}, {name}", statistics.median(of_ours))
    reference = REFERENCE[way, encrypted]
    result.yardstick(f"plain loop, {row}", min(plain_all), reference)


def bench(rounds: int, batch: int, ways: Sequence[str]) -> Result:
    """All rows."""
    result = Result("whole")
    plain = Plain()
    rig.pin(rig.CPU)
    for encrypted in (False, True):
        with Bench(plain, encrypted=encrypted, batch=batch, ways=ways) as servers:
            cases = [(way, active) for way in ("up", "down") for active in (1, SESSIONS)]
            taken: dict[tuple[str, int], list[Samples]] = {case: [] for case in cases}
            for case in cases:
                servers.round(*case, 2)  # warm
            for _ in range(rounds):
                for case in cases:
                    taken[case].append(servers.round(*case, BURSTS))
            for (way, active), samples in taken.items():
                judge(result, way, encrypted, active, samples)
    for active in (1, SESSIONS):
        found = [mppe.measure(rig.MTU + 2, active, 64, 50)[1] for _ in range(5)]
        result.figure(f"stage: MPPE, {active} in turn", ours_ns=statistics.median(found))
    result.figure("clock", ghz=plain.clock_ghz())
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help=f"of {BURSTS} bursts each")
    parser.add_argument("--batch", type=int, default=0, help="gre.batch; else its default")
    parser.add_argument(
        "--ways",
        default="auto",
        help=f"I/O of ours ({', '.join(WAYS)}); more by commas are measured beside the first",
    )
    words = arguments("whole", parser)
    lacking = why_not() or rig.why_not()
    if lacking:
        return cannot("whole", lacking)
    try:
        result = bench(words.rounds, words.batch, words.ways.split(","))
    except (BenchError, NetnsError, OSError, subprocess.SubprocessError) as e:
        print(f"whole: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
