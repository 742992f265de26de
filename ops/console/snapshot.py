"""One look at the session table: what `show sessions` lists and the gauges count.

Both come from `take`, so that a page's pptp_slots_used and the rows made from the same
snapshot agree whatever the other processes do meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from fastpath import layout
from fastpath.layout import Session, Table
from ops.networks import Network

STATES: Final = ("starting", "active", "finishing")


def state(session: Session) -> str:
    """Of STATES. A record counts from allotment until it is free again."""
    if session.allot == layout.ENDING or session.state == layout.STATE_FINISHING:
        return "finishing"
    return "active" if session.state == layout.STATE_ACTIVE else "starting"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The records in use at about `now_ns` (CLOCK_MONOTONIC)."""

    now_ns: int
    workers: int
    sessions: tuple[Session, ...]
    prefixes6: tuple[Network, ...] = ()  # given to sessions

    def used(self) -> list[int]:
        """Slots in use, by worker; the sum is the number of sessions."""
        counts = Counter(s.worker for s in self.sessions)
        return [counts[w] for w in range(max(self.workers, *(w + 1 for w in counts), 0))]

    def states(self) -> dict[str, int]:
        """Sessions by state."""
        counts = Counter(map(state, self.sessions))
        return {name: counts[name] for name in STATES}

    def addresses(self) -> list[int]:
        """Inner addresses given to sessions."""
        return [s.granted_address for s in self.sessions if s.granted_address]


def take(table: Table) -> Snapshot:
    """Read the table now."""
    # A record may be freed between the look at its state and the copy of its fields.
    sessions = tuple(s for s in table.sessions() if s.allot != layout.FREE)
    prefixes6 = tuple(Network(*net) for s in sessions for net in table.granted6(s.index) if net[1])
    return Snapshot(time.monotonic_ns(), table.workers, sessions, prefixes6)
