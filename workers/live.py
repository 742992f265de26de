"""A session that is doing something: where it is, and what is not in its record yet.

Private to the control thread. An up session at rest has none of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from fastpath.layout import Session
from ops.messages import Admit
from ops.networks import Network
from workers.ipv6.link import Link6
from workers.policy import NOTHING_SAID, Policy
from workers.ppp.actions import Agreed
from workers.ppp.link import Link
from workers.secrets_file import ANY_ADDRESS, Addresses

Handle = tuple[int, int]  # index and generation of a record


class Phase(Enum):
    """Where a session with a Python object is."""

    INSTALLING = auto()  # asked of the data thread
    SILENT = auto()  # GRE is demultiplexed, no frame yet
    NEGOTIATING = auto()
    ROUTING = auto()  # IPCP is open, the route is asked of netops
    UP = auto()  # the record is ACTIVE; the object is here for an event only
    UNROUTING = auto()  # the link is over, the route is being taken back
    REMOVING = auto()  # the data thread is to forget it


_P = Phase
MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    _P.INSTALLING: frozenset({_P.SILENT, _P.REMOVING}),
    _P.SILENT: frozenset({_P.NEGOTIATING, _P.REMOVING}),
    _P.NEGOTIATING: frozenset({_P.ROUTING, _P.UNROUTING, _P.REMOVING}),
    _P.ROUTING: frozenset({_P.UP, _P.NEGOTIATING, _P.UNROUTING}),
    _P.UP: frozenset({_P.NEGOTIATING, _P.ROUTING, _P.UNROUTING, _P.REMOVING}),
    _P.UNROUTING: frozenset({_P.REMOVING}),
    _P.REMOVING: frozenset(),
}
OVER: Final = frozenset({_P.UNROUTING, _P.REMOVING})


class LocalError(Exception):
    """A step our own code must never ask for."""


@dataclass(slots=True)
class Live:
    """A session that is doing something."""

    handle: Handle
    sid: str
    called: int  # our outer address
    calling: int
    started: float
    allotted_ns: int
    phase: Phase = Phase.INSTALLING
    link: Link | None = None
    user: str = ""
    peer_name: str = ""
    method: str = ""
    addresses: Addresses = ANY_ADDRESS
    policy: Policy = NOTHING_SAID
    agreed: Agreed | None = None
    routed: int = 0  # address whose route is ours to take back
    networks: list[Network] = field(default_factory=list)  # and those behind it
    six: Link6 | None = None  # while IPv6CP is up
    dns: tuple[int, ...] = ()
    up: float = 0.0
    times: dict[str, float] = field(default_factory=dict)  # when each set-up phase was over
    admission: Admit | None = None  # asked of the dispatcher, which has not answered
    asked_to_end: str = ""  # the dispatcher's cause: it needs no Down
    closing: bool = False
    cause: str = ""
    reason: str = ""
    held: list[bytes] = field(default_factory=list)
    deadline: float | None = None  # the entry of the timer heap that counts

    def move(self, phase: Phase) -> None:
        """Enter a phase; LocalError if MOVES does not have the step."""
        if phase is self.phase:
            return
        if phase not in MOVES[self.phase]:
            raise LocalError(f"session {self.sid}: {self.phase.name} to {phase.name}")
        self.phase = phase

    def over(self, phase: str, now: float) -> None:
        """A phase of fastpath.layout.SETUP_PHASE_NAMES is over; the last time said counts."""
        if self.up == 0.0:
            self.times[phase] = now

    def set_up_times(self, now: float) -> dict[str, float]:
        """Seconds of each phase the session went through, and in total, when it is up at `now`."""
        begin = before = self.allotted_ns / 1e9
        took: dict[str, float] = {}
        for phase in ("call", "lcp", "auth"):
            if phase in self.times:
                took[phase] = max(0.0, self.times[phase] - before)
                before = self.times[phase]
        return {**took, "network": max(0.0, now - before), "total": max(0.0, now - begin)}

    @classmethod
    def of(cls, session: Session, phase: Phase, now: float) -> Live:
        """With what the dispatcher wrote into the record."""
        return cls(
            handle=(session.index, session.generation),
            sid=f"{session.sid:016x}",
            called=session.local_address,
            calling=session.peer_address,
            started=now,
            allotted_ns=session.allotted_ns,
            phase=phase,
        )
