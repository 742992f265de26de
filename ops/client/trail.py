"""Where datagrams got lost on their way: the accounts of all who touched them, in a row.

    sender -> before -> the concentrator counts it delivered -> after -> receiver

`before` and `after` are losses with a name: queues, sockets, drop reasons. What is left
over is unexplained; if nothing is, every datagram is accounted for and both ends agree with
the concentrator's own counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trail:
    """One direction."""

    sent: int
    before: Mapping[str, int]
    concentrator: int  # packets it counts as delivered
    after: Mapping[str, int]
    received: int  # copies included

    @property
    def unexplained(self) -> tuple[int, int]:
        """Missing before and after the concentrator, without a name; below 0: too many."""
        return (
            self.sent - sum(self.before.values()) - self.concentrator,
            self.concentrator - sum(self.after.values()) - self.received,
        )

    @property
    def whole(self) -> bool:
        """Is every datagram accounted for?"""
        return self.unexplained == (0, 0)

    def figures(self) -> dict[str, Any]:
        """For JSON; only what is not 0 of the losses."""
        return {
            "sent": self.sent,
            "before": named(self.before),
            "concentrator": self.concentrator,
            "after": named(self.after),
            "received": self.received,
            "unexplained": list(self.unexplained),
        }


def named(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that are not 0."""
    return {name: n for name, n in counts.items() if n}


def since(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, int]:
    """How much each counter was raised."""
    return {name: int(value - before.get(name, 0)) for name, value in after.items()}


def dropped(counters: Mapping[str, int], prefix: str, owner: str) -> dict[str, int]:
    """Drop counters of the packet path, by reason, under their owner's name."""
    return {
        f"{owner}: {name.removeprefix(prefix)}": n
        for name, n in counters.items()
        if name.startswith(prefix)
    }


def unseen(lost: int, full: int, drops: Mapping[str, int], owner: str) -> int:
    """GRE sequence numbers that never came, less those that were dropped before their number
    was looked at: by a socket that was `full`, or as too much for the thread."""
    return max(0, lost - full - drops.get(f"{owner}: overload", 0))


def device_drops(text: str, prefixes: Iterable[str], column: str) -> int:
    """Packets that devices dropped, of the text of /proc/net/dev; `column` is rx or tx."""
    at = {"rx": 3, "tx": 11}[column]
    total = 0
    for line in text.splitlines():
        name, colon, figures = line.partition(":")
        if colon and name.strip().startswith(tuple(prefixes)):
            total += int(figures.split()[at])
    return total
