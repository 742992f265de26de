"""The last half hour in samples: for the graphs of a fresh page, and for what is recent.

Made of sums only. No clock here: the owner brings the time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

EVERY_S: Final = 10.0
KEPT: Final = 181  # half an hour between the first and the last
RECENT_S: Final = EVERY_S * (KEPT - 1)


@dataclass(frozen=True, slots=True)
class Line:
    """A RADIUS server's figures so far; `kind` is auth or acct."""

    server: str
    kind: str
    sent: int
    lost: int
    answered: int
    seconds: float  # that the answers took together


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums at `at` (monotonic seconds) and `unix`; workers: octets received, sent, drops."""

    at: float
    unix: float
    sessions: dict[str, int]
    cpu_percent: float
    workers: tuple[tuple[int, int, int], ...]
    counts: dict[tuple[str, str], int]  # (kind, cause) -> how often so far
    radius: tuple[Line, ...]


class History:
    """The newest samples."""

    def __init__(self, kept: int = KEPT) -> None:
        self._samples: deque[Sample] = deque(maxlen=kept)

    def add(self, sample: Sample) -> None:
        """One more."""
        self._samples.append(sample)

    def since(self, seconds: float) -> tuple[Sample, Sample] | None:
        """The oldest of the last `seconds`, and the newest; None: nothing to compare yet."""
        if len(self._samples) < 2:
            return None
        newest = self._samples[-1]
        # A little more than asked for: samples come a little late.
        oldest = next(s for s in self._samples if newest.at - s.at <= seconds + EVERY_S / 2)
        return None if oldest is newest else (oldest, newest)

    def increase(self, seconds: float) -> tuple[float, dict[tuple[str, str], int]]:
        """Seconds looked back, and what each cause counted in them."""
        found = self.since(seconds)
        if found is None:
            return 0.0, {}
        old, new = found
        return new.at - old.at, {
            key: max(0, count - old.counts.get(key, 0)) for key, count in new.counts.items()
        }

    def lines(self, seconds: float) -> dict[tuple[str, str], tuple[int, float | None]]:
        """By (server, kind): requests lost in these seconds, mean seconds of an answer."""
        found = self.since(seconds)
        if found is None:
            return {}
        before = {(line.server, line.kind): line for line in found[0].radius}
        result = {}
        for line in found[1].radius:
            old = before.get((line.server, line.kind))
            if old is None or old.sent > line.sent:  # the accounts process is a new one
                old = Line(line.server, line.kind, 0, 0, 0, 0.0)
            answered = line.answered - old.answered
            mean = (line.seconds - old.seconds) / answered if answered > 0 else None
            result[line.server, line.kind] = (max(0, line.lost - old.lost), mean)
        return result

    def series(self) -> dict[str, Any]:
        """For graphs: a value for each time but the first, which only begins the rates."""
        samples = list(self._samples)
        pairs = list(itertools.pairwise(samples))
        workers = max((len(s.workers) for s in samples), default=0)

        def rate(values: Sequence[tuple[int, int, float]], scale: int) -> list[float]:
            return [round(max(0, new - old) * scale / took, 1) for old, new, took in values]

        def worker(index: int, column: int, scale: int = 1) -> list[float]:
            return rate(
                [
                    (_at(a.workers, index)[column], _at(b.workers, index)[column], b.at - a.at)
                    for a, b in pairs
                ],
                scale,
            )

        def total(kind: str) -> list[float]:
            def count(s: Sample) -> int:
                return sum(n for (k, _), n in s.counts.items() if k == kind)

            return rate([(count(a), count(b), b.at - a.at) for a, b in pairs], 1)

        return {
            "every_s": EVERY_S,
            "times": [round(s.unix, 1) for s in samples[1:]],
            "sessions": [sum(s.sessions.values()) for s in samples[1:]],
            "cpu_percent": [round(s.cpu_percent, 1) for s in samples[1:]],
            "ended_per_s": total("ended"),
            "refused_per_s": total("refused"),
            "workers": [
                {
                    "worker": index,
                    "rx_bits_per_s": worker(index, 0, 8),
                    "tx_bits_per_s": worker(index, 1, 8),
                    "drops_per_s": worker(index, 2),
                }
                for index in range(workers)
            ],
        }


def _at(workers: tuple[tuple[int, int, int], ...], index: int) -> tuple[int, int, int]:
    return workers[index] if index < len(workers) else (0, 0, 0)
