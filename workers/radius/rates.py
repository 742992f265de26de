"""Rates as vendors write them: MikroTik's Rate-Limit, Cisco's rate-limit, mpd's limit.

*Up* is from the subscriber. Rates become bit/s and bursts octets, as in workers.policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from workers.radius.packets import RemoteError

UNITS: Final = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
NUMBER: Final = re.compile(r"(\d{1,15})([kmg]?)", re.IGNORECASE)
TIME: Final = re.compile(r"(\d{1,9})s?", re.IGNORECASE)
CISCO: Final = re.compile(
    r"rate-limit\s+(input|output)(?:\s+access-group\s+\S+)?\s+(\d{1,15})(?:\s+(\d{1,15}))?",
    re.IGNORECASE,
)
MPD: Final = re.compile(r"(in|out)#\d+(?:#[^=]*)?=all\s+(?:shape|rate-limit)\s+(\d+)(?:\s+(\d+))?")
RATE_MAX: Final = 10**13


@dataclass(frozen=True, slots=True)
class Rates:
    """0: not said."""

    up: int = 0
    down: int = 0
    burst_up: int = 0
    burst_down: int = 0


def _refused(text: str, why: str) -> RemoteError:
    return RemoteError("bad_attribute", f"rate {text[:80]!r}: {why}")


def _number(word: str, text: str) -> int:
    found = NUMBER.fullmatch(word)
    if found is None:
        raise _refused(text, f"{word[:20]!r} is no number with k, M or G")
    return min(int(found[1]) * UNITS[found[2].lower()], RATE_MAX)


def _seconds(word: str, text: str) -> int:
    found = TIME.fullmatch(word)
    if found is None:
        raise _refused(text, f"{word[:20]!r} are no seconds")
    return int(found[1])


def mikrotik(text: str) -> Rates:
    """`rx[/tx] [burst rx[/tx] [threshold rx[/tx] [seconds rx[/tx] [priority [min rx[/tx]]]]]]`.

    Receive is seen from the router: what the subscriber sends. Their burst is judged by an
    average over the burst time; ours is a bucket. It gets what theirs lets through above
    the rate, from rest: threshold * time is the data of the burst, and the rate's share of
    the meanwhile is refilled.
    """
    words = text.split()
    if not 1 <= len(words) <= 6:
        raise _refused(text, f"{len(words)} words, 1 to 6 are known")
    up, down = _both(words[0], text)
    bursts = _both(words[1], text) if len(words) > 1 else (0, 0)
    thresholds = _both(words[2], text) if len(words) > 2 else (up, down)
    times = (1, 1)
    if len(words) > 3:
        rx, _, tx = words[3].partition("/")
        times = _seconds(rx, text), _seconds(tx or rx, text)
    if len(words) > 4:
        _number(words[4], text)  # priority: there are no queues it could order
    if len(words) > 5:
        _both(words[5], text)
    sizes = [
        threshold * seconds * (burst - rate) // burst // 8 if burst > rate else 0
        for rate, burst, threshold, seconds in zip(
            (up, down), bursts, thresholds, times, strict=True
        )
    ]
    return Rates(up, down, *sizes)


def _both(word: str, text: str) -> tuple[int, int]:
    rx, slash, tx = word.partition("/")
    return _number(rx, text), _number(tx if slash else rx, text)


def cisco(text: str) -> Rates | None:
    """`lcp:interface-config#1=rate-limit input|output BIT/S NORMAL-BURST ...`; None: no rate."""
    found = CISCO.search(text)
    if found is None:
        return None
    return _one_way(found[1].lower() == "input", int(found[2]), int(found[3] or 0))


def mpd(text: str) -> Rates | None:
    """`in#1=all rate-limit BIT/S BURST`; None: something else, such as a filter's rule."""
    found = MPD.match(text)
    return _one_way(found[1] == "in", int(found[2]), int(found[3] or 0)) if found else None


def _one_way(up: bool, rate: int, burst: int) -> Rates:
    rate = min(rate, RATE_MAX)
    return Rates(up=rate, burst_up=burst) if up else Rates(down=rate, burst_down=burst)
