#!/usr/bin/env python3
"""Numbered UDP at 60 % of what this machine carries without loss: every datagram accounted for.

50 sessions of our client (`pptpcon bench`), each datagram sent back under a number of the way
down. First the limit is found: short steps of a growing rate until something is lost or the
rate is not reached. Then the long run: nothing may be lost, doubled or misrouted, no drop
counter may move, and the concentrator must count what both ends count.

The data thread has a CPU alone; clients and traffic share the other one, so the limit is
theirs, mostly: what is proven is the account, not the concentrator's speed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.client.bench import Bench, BenchError, Plan, State, Target, cpu, trails
from ops.client.child import PYTHON, ChildError
from ops.client.concentrator import Concentrator
from ops.client.netns import NetnsError
from ops.client.playground import LAN_HOST, WAN_SERVER, Playground, sources, why_not
from ops.client.trail import Trail, named
from tests.bench.results import Result, arguments, cannot

SESSIONS: Final = 50
SHARE: Final = 0.6
FIRST: Final = 4000.0  # datagrams a second
GROWTH: Final = 1.5
FINER: Final = 1.12
STEP_S: Final = 3.0
REST_S: Final = 1.0
REACHED: Final = 0.97  # of a step's rate: less, and the sender could not keep up
MOST: Final = 1_000_000.0
USER: Final = "bench"
PORT: Final = 7008
DATA_CPU: Final = 1
OTHER_CPU: Final = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one rate."""

    rate: float  # asked for
    sent_each_second: float
    up: Trail
    down: Trail
    lost: int
    doubled: int
    misrouted: int
    data_us: float  # CPU of the data thread for a packet
    load: float  # of the data thread's CPU

    @property
    def losses(self) -> dict[str, int]:
        """By name, those that are not 0."""
        ways = (self.up.before, self.up.after, self.down.before, self.down.after)
        return {name: n for way in ways for name, n in named(way).items()}

    @property
    def clean(self) -> bool:
        """Was nothing lost, and the rate kept?"""
        return not self.lost and self.sent_each_second >= REACHED * self.rate


def step(bench: Bench, seconds: float, rate: float) -> Step:
    """Run one."""
    first, done, last = bench.step("numbered", seconds, rate=rate)
    return measured(rate, first, done, last)


def measured(rate: float, first: State, done: list[Mapping[str, Any]], last: State) -> Step:
    """The arithmetic of a step."""
    up, down = last.up.since(first.up), last.down.since(first.down)
    spent = max(float(d["seconds"]) for d in done)
    ways = trails(first, last)
    data = cpu(first.server, last.server).get("worker data", 0.0)
    packets = ways[0].concentrator + ways[1].concentrator
    return Step(
        rate,
        up.sent / spent,
        *ways,
        up.lost + down.lost,
        up.duplicated + down.duplicated,
        last.near["misrouted"] - first.near["misrouted"],
        1e6 * data / packets if packets else 0.0,
        data / spent,
    )


def find_limit(bench: Bench, say: Any) -> Step:
    """The highest rate that was clean, to 12 %."""
    best: Step | None = None
    for growth in (GROWTH, FINER):
        rate = best.rate * growth if best is not None else FIRST
        while rate < MOST:
            found = step(bench, STEP_S, rate)
            where = ", ".join(f"{n} {name}" for name, n in found.losses.items())
            say(f"{rate:8.0f}/s: sent {found.sent_each_second:.0f}/s, lost {found.lost} {where}")
            if not found.clean:
                # What was lost last is noticed only by what comes after it: not in a later step.
                step(bench, REST_S, FIRST)
                break
            best, rate = found, rate * growth
    if best is None:
        raise BenchError(f"not even {FIRST:g} datagrams a second pass without loss")
    return best


@contextmanager
def sessions_up(count: int) -> Iterator[Bench]:
    """Concentrator, far end and clients, with all sessions up and traffic ends open."""
    password = secrets.token_urlsafe(12)
    # One CPU alone has to do for everything where there is no second one.
    several = (os.cpu_count() or 1) > DATA_CPU
    cpus = (OTHER_CPU,) if several else ()
    with Playground(source_count=count) as ground:
        concentrator = Concentrator(
            ground,
            {USER: password},
            extra={"workers": {"count": 1, "cpus": [DATA_CPU]} if several else {}},
        )
        concentrator.start()
        words = ["--address", LAN_HOST, "--port", str(PORT)]
        ground.start("lan", "far", [*PYTHON, "ops.client.far_end", *words], cpus=cpus)
        target = Target(
            *(WAN_SERVER, USER, password),
            far_end=(LAN_HOST, PORT),
            sources=(sources(count),),
            far_port_each=True,
        )
        bench = Bench(ground, target, Plan(count, cpus=cpus, mtu=1400), concentrator)
        bench.start()
        bench.log_in()
        if bench.up < count:
            raise BenchError(f"{bench.up} of {count} sessions came up: {bench.why_failed()}")
        bench.open()
        yield bench
        bench.close()


def judge(result: Result, limit: Step, long: Step, lost_sessions: int, seconds: float) -> None:
    """The row of the table."""
    result.figure("limit", each_second=limit.rate, data_us=limit.data_us, data_load=limit.load)
    for way, trail in (("up", long.up), ("down", long.down)):
        result.figure(
            f"numbered {way}",
            sent=trail.sent,
            concentrator=trail.concentrator,
            received=trail.received,
            lost=trail.sent - trail.received,
            unexplained_before=trail.unexplained[0],
            unexplained_behind=trail.unexplained[1],
        )
        for name, n in {**trail.before, **trail.after}.items():
            if n:
                result.note(f"{way}: {n} {name}")
    result.figure(
        "long run",
        seconds=seconds,
        each_second=long.sent_each_second,
        data_us=long.data_us,
        data_load=long.load,
        doubled=long.doubled,
        misrouted=long.misrouted,
        sessions_lost=lost_sessions,
    )
    sent = long.up.sent + long.down.sent
    got = long.up.received + long.down.received
    result.note(f"{sent} sent, {got} received, {sent - got} lost; {long.doubled} doubled")
    drops = sum(sum(t.before.values()) + sum(t.after.values()) for t in (long.up, long.down))
    wrong = long.lost + long.doubled + long.misrouted + lost_sessions
    result.ratio("numbered UDP at 60 %: drops", float(drops), at_most=0.0)
    result.ratio(
        "numbered UDP at 60 %: datagrams not accounted for",
        float(wrong + sum(abs(n) for t in (long.up, long.down) for n in t.unexplained)),
        at_most=0.0,
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long run")
    parser.add_argument("--seconds", type=float, help="of the long run, instead of --minutes")
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--rate", type=float, help="of the long run; else 60 %% of the limit")
    words = arguments("numbered", parser)
    lacking = why_not()
    if lacking:
        return cannot("numbered", lacking)

    seconds = 60 * words.minutes if words.seconds is None else words.seconds

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = Result("numbered")
    try:
        with sessions_up(words.sessions) as bench:
            limit = find_limit(bench, say) if words.rate is None else step(bench, 1.0, words.rate)
            rate = words.rate or SHARE * limit.sent_each_second
            say(f"{rate:8.0f}/s for {seconds:g} s")
            long = step(bench, seconds, rate)
            judge(result, limit, long, bench.lost, seconds)
    except (BenchError, ChildError, NetnsError, OSError) as e:
        print(f"numbered: {e}", file=sys.stderr)
        return 1
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
