"""Sessions of this worker that somebody traces: which, how much of them, and telling it.

A trace by user or inner address may be older than what it names: frames of sessions that are
not known well enough yet are kept, PENDING_FRAMES of each, until they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from fastpath.layout import STATE_ACTIVE, Session, Table
from ops.messages import Traced
from ops.trace import FROM_CLIENT, NOTE, PPTP, TO_CLIENT, Subject, Teller, fits
from workers.live import Handle
from workers.ppp.words import blotted

NOTHING: Final = 0  # as fastpath.engine.Engine.trace has it
CONTROL: Final = 1
PACKETS: Final = 2
HEAD: Final = 8  # fastpath/trace.pyx
PENDING_SESSIONS: Final = 256
PENDING_FRAMES: Final = 64

Frame = tuple[float, int, int, bytes, int]


class Tracing:
    """`push` has the data thread tell of a session."""

    def __init__(
        self, table: Table, worker: int, teller: Teller, push: Callable[[Handle, int], None]
    ) -> None:
        self._table = table
        self._worker = worker
        self._teller = teller
        self._push = push
        self._levels: dict[Handle, int] = {}
        self._pending: dict[Handle, list[tuple[Frame, frozenset[int]]]] = {}

    @property
    def on(self) -> bool:
        """Is there any trace?"""
        return bool(self._teller.traces)

    def set(self, traces: tuple[Traced, ...]) -> None:
        """All there are: a look at every session."""
        self._teller.set(traces)
        if not traces:
            for handle in list(self._levels):
                self._level(handle, NOTHING)
            self._pending.clear()
            return
        for session in self._table.sessions():
            if session.worker == self._worker:
                self._judge((session.index, session.generation), _subject(session))

    def begin(self, handle: Handle) -> None:
        """A session was installed."""
        if self._teller.traces:
            self._judge(handle, _subject(self._table.session(handle[0])))

    def end(self, handle: Handle) -> None:
        """Nothing of it is left."""
        self._levels.pop(handle, None)
        self._pending.pop(handle, None)

    def frame(self, handle: Handle, data: bytes) -> None:
        """EVENT_TRACED of the data thread."""
        session = self._table.session(handle[0])
        if session.generation != handle[1] or len(data) < HEAD:
            return
        protocol = int.from_bytes(data[2:4], "big")
        lost = int.from_bytes(data[4:8], "little")
        direction = TO_CLIENT if data[0] else FROM_CLIENT
        self._happened(
            handle,
            session,
            (time.time(), direction, protocol, blotted(protocol, data[HEAD:]), lost),
        )

    def note(self, handle: Handle, text: str) -> None:
        """A sentence about a session."""
        if self._teller.traces:
            octets = text.encode("utf-8", "surrogateescape")
            session = self._table.session(handle[0])
            self._happened(handle, session, (time.time(), NOTE, PPTP, octets, 0))

    def _happened(self, handle: Handle, session: Session, frame: Frame) -> None:
        """To those who trace it; kept for those who may."""
        subject = _subject(session)
        sure, unsure = self._judge(handle, subject)
        kept = self._pending.pop(handle, [])
        for trace in sure:
            for old, waited in kept:
                if trace[0] in waited:
                    self._tell(trace, subject, old)
            self._tell(trace, subject, frame)
        if unsure and len(self._pending) < PENDING_SESSIONS:
            kept = [(old, waited) for old, waited in kept if waited & unsure]
            self._pending[handle] = [*kept[1 - PENDING_FRAMES :], (frame, unsure)]

    def _tell(self, trace: Traced, subject: Subject, frame: Frame) -> None:
        at, direction, protocol, octets, lost = frame
        if trace[3] or direction == NOTE or protocol >= 0x4000:
            self._teller.tell(trace, subject, direction, protocol, octets, lost, at)

    def _judge(self, handle: Handle, subject: Subject) -> tuple[list[Traced], frozenset[int]]:
        """Tell the data thread how much of a session is wanted; the traces that it is in, and
        the numbers of those of which that is not known yet."""
        judged = [(trace, fits(trace, subject)) for trace in self._teller.traces]
        sure = [trace for trace, fit in judged if fit]
        unsure = frozenset(trace[0] for trace, fit in judged if fit is None)
        level = CONTROL if sure or unsure else NOTHING
        self._level(handle, PACKETS if any(trace[3] for trace in sure) else level)
        return sure, unsure

    def _level(self, handle: Handle, level: int) -> None:
        if self._levels.get(handle, NOTHING) == level:
            return
        if level:
            self._levels[handle] = level
        else:
            self._levels.pop(handle, None)
            self._pending.pop(handle, None)
        self._push(handle, level)


def _subject(s: Session) -> Subject:
    up = s.state == STATE_ACTIVE
    return Subject(f"{s.sid:016x}", s.name, s.address or s.granted_address, s.peer_address, up)
