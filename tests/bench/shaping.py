#!/usr/bin/env python3
"""Rates through a tunnel against those that were set, and a ping in a full session.

One session of our client, one TCP stream at a time. `inner` is counted where the set rate
counts: inner IP octets, by the session's own counters over the time of a clock beside;
`payload` is what the receiver of the TCP stream got. Pings are milliseconds. The fastest
rates need a machine that carries them without one: with MPPE both ends' RC4 runs here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ops.client.child import ChildError
from ops.client.concentrator import Toml
from ops.client.netns import NetnsError
from ops.client.playground import why_not
from ops.rates import UNLIMITED, format_rate, parse_rate
from tests.bench.results import Result, arguments, cannot
from tests.netns import shaped

RATES: Final = ("64k", "256k", "1M", "10M", "100M", "1G")
PINGED: Final = 10_000_000
PING_MS: Final = 30.0
CLOSE: Final = 0.05


def spans(rate: int) -> tuple[float, float]:
    """(measured, before it) seconds: some hundred packets, and the sender's start over."""
    return (12.0, 4.0) if rate < 1_000_000 else (3.0, 1.5)


def measure(site: shaped.Site, result: Result, rates: list[int], repeat: int) -> None:
    """All rates, each way by itself; a rate that is not reached without one is not judged."""
    carried = {}
    site.change(rate_down=UNLIMITED, rate_up=UNLIMITED)
    for way in ("down", "up"):
        run = site.rate(way, *spans(rates[-1]))
        carried[way] = run.inner
        result.figure(f"no_rate_{way}", inner=run.inner, payload=run.payload)
    for rate in rates:
        site.change(rate_down=rate, rate_up=rate)
        for way in ("down", "up"):
            runs = [site.rate(way, *spans(rate)) for _ in range(repeat)]
            inner = statistics.median(run.inner for run in runs)
            payload = statistics.median(run.payload for run in runs)
            row = f"rate_{way}_{format_rate(rate)}"
            result.figure(row, set=rate, inner=inner, payload=payload)
            if carried[way] < rate and inner < (1 - CLOSE) * rate:
                result.ratio(row, inner / carried[way])
                result.note(
                    f"{row}: this machine carries {carried[way] / 1e6:.0f} Mbit/s without a rate;"
                    " the ratio is to that"
                )
            else:
                result.ratio(row, inner / rate, at_least=1 - CLOSE, at_most=1 + CLOSE)


def ping(site: shaped.Site, result: Result) -> None:
    """Pings of a session whose rate one TCP stream uses up."""
    site.change(rate_down=PINGED, rate_up=PINGED)
    for way in ("down", "up"):
        idle = site.ping(20, every=0.05)
        with site.stream(way, 6.0):
            time.sleep(1.0)
            full = site.ping(60, every=0.07)
        row = f"ping_full_{way}"
        result.figure(
            row,
            idle=statistics.median(idle),
            median=statistics.median(full),
            worst=max(full),
            lost=60 - len(full),
        )
        result.ratio(row, max(full) / PING_MS, at_most=1.0)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, medians count")
    parser.add_argument("--mppe", choices=("require", "deny"), default="deny")
    parser.add_argument("rates", nargs="*", metavar="RATE", help=f"default {' '.join(RATES)}")
    words = arguments("shaping", parser)
    lacking = why_not()
    if lacking:
        return cannot("shaping", lacking)
    result = Result("shaping")
    rates = [parse_rate(text) for text in words.rates or RATES]
    extra: dict[str, dict[str, Toml]] = {
        "mppe": {"policy": words.mppe},
        "workers": {"count": 1},
    }
    try:
        with shaped.site(extra, mppe=words.mppe) as site:
            measure(site, result, rates, words.repeat)
            ping(site, result)
    except (ChildError, NetnsError) as e:
        return cannot("shaping", str(e))
    return result.finish(as_json=words.json)


if __name__ == "__main__":
    sys.exit(main())
