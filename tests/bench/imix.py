#!/usr/bin/env python3
"""CPU of 2,000 active sessions with an Internet mix, MPPE-128, ours against the plain loop.

Bursts of 256 inner packets of 64, 576 and 1400 octets (7 : 4 : 1), half of the small ones TCP
and all others UDP, each of another session, so that nothing can be joined on either side:
the worst there is for super-packets. `whole` says how a figure is come by. The goal is for
both ways together, as subscribers send and receive.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.client.netns import NetnsError
from ops.client.playground import why_not
from ops.settings import TunWrites
from tests.bench import rig
from tests.bench.plain import STRIDE, Burst, Plain
from tests.bench.results import BenchError, Result, arguments, cannot
from tests.bench.whole import BURSTS, PACKETS, Bench, Samples

SESSIONS: Final = 2000
GOAL: Final = 1.5
# ns a packet of the plain loop on the reference machine, the slower end of what was seen.
REFERENCE: Final = {"up": 6400.0, "down": 6900.0}


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one round, ns a packet."""

    base: float
    plain_kernel: float
    plain_loop: float
    ours_kernel: float
    ours_threads: float

    @classmethod
    def of(cls, samples: Samples) -> Costs:
        """Medians of the round's bursts, less what putting in costs."""

        def each(values: list[float]) -> float:
            return statistics.median(values) / PACKETS

        base = each(samples.base)
        return cls(
            base,
            max(0.0, each(samples.plain_sent) - base),
            each(samples.plain_loop),
            max(0.0, each(samples.ours_sent) - base),
            each(samples.ours_threads),
        )

    @property
    def plain(self) -> float:
        """All that the plain loop's server spends."""
        return self.plain_kernel + self.plain_loop

    @property
    def ours(self) -> float:
        """All that ours spends."""
        return self.ours_kernel + self.ours_threads


class Mixed(Bench):
    """The three servers under the mix."""

    def __init__(self, plain: Plain, count: int, writes: TunWrites) -> None:
        super().__init__(plain, encrypted=True, count=count, writes=writes)
        self.first = 0
        self.octets = 0

    def mixed(self, way: str, bursts: int) -> Samples:
        """Some bursts in one direction; each goes on with the sessions where the last ended."""
        up = way == "up"
        burst = Burst.empty(PACKETS, STRIDE, PACKETS)

        def make() -> None:
            ethernet = self.base.up_ethernet if up else self.base.down_ethernet
            self.octets = self.plain.make_mix(
                self.clients, len(self.calls), self.first, burst, up=up, ethernet=ethernet
            )
            self.first = (self.first + PACKETS) % len(self.calls)

        return self.by_turns(burst, up, bursts, make)


def judge(result: Result, rounds: dict[str, list[Costs]], sessions: int) -> None:
    """The rows of both ways, and of both together."""
    for way, costs in rounds.items():
        row = f"imix {way}, MPPE, {sessions} sessions"
        names = ("ours_kernel", "ours_threads", "plain_kernel", "plain_loop")
        result.figure(
            row,
            ours_ns=statistics.median(c.ours for c in costs),
            plain_ns=statistics.median(c.plain for c in costs),
            **{f"{n}_ns": statistics.median(getattr(c, n) for c in costs) for n in names},
            put_in_ns=statistics.median(c.base for c in costs),
            packets=PACKETS * BURSTS * len(costs),
        )
        result.ratio(row, statistics.median(c.plain / c.ours for c in costs))
        result.yardstick(f"plain loop, {row}", min(c.plain for c in costs), REFERENCE[way])
    both = [
        (up.plain + down.plain) / (up.ours + down.ours)
        for up, down in zip(rounds["up"], rounds["down"], strict=True)
    ]
    result.ratio(
        f"imix both ways, MPPE, {sessions} sessions", statistics.median(both), at_least=GOAL
    )


def bench(rounds: int, sessions: int, writes: TunWrites) -> Result:
    """All rows."""
    result = Result("imix")
    plain = Plain()
    rig.pin(rig.CPU)
    with Mixed(plain, sessions, writes) as servers:
        taken: dict[str, list[Costs]] = {"up": [], "down": []}
        for way in taken:
            servers.mixed(way, 8)  # warm: every session has sent
        for _ in range(rounds):
            for way, costs in taken.items():
                costs.append(Costs.of(servers.mixed(way, BURSTS)))
        judge(result, taken, sessions)
        result.figure("octets of an inner packet", mean=servers.octets / PACKETS)
    result.figure("clock", ghz=plain.clock_ghz())
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help=f"of {BURSTS} bursts each")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--writes", choices=get_args(TunWrites), default="auto", help="to the TUN")
    words = arguments("imix", parser)
    lacking = why_not() or rig.why_not()
    if lacking:
        return cannot("imix", lacking)
    try:
        result = bench(words.rounds, words.sessions, words.writes)
    except (BenchError, NetnsError, OSError, ValueError, subprocess.SubprocessError) as e:
        print(f"imix: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
