"""Accounting: which sessions are open, which records wait, which may be sent now.

No socket and no clock; the journal is the only thing it writes to. A record goes out only
when the one before it of the same session has been taken: a Stop never overtakes its Start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from workers.radius.accounting import (
    CAUSES,
    NAS_REBOOT,
    NAS_REQUEST,
    Counters,
    Facts,
    Status,
    instance_record,
    pack,
    session_record,
)
from workers.radius.journal import Journal, Record
from workers.radius.requests import Nas

IN_FLIGHT: Final = 256  # records sent and not answered; others of the same server wait
AGAIN_S: Final = 5.0  # after nobody answered
JITTER: Final = 0.1  # of an interim interval: ten thousand sessions of one minute spread
LOOK_S: Final = 60.0  # within which each session's counters are written down once
FIRST_ON_S: Final = 3.0  # how long Starts wait for the Accounting-On before them


@dataclass(slots=True)
class Open:
    """A session that is up, as far as accounting knows."""

    facts: Facts
    interim_at: float = 0.0  # 0: none
    counters: Counters = field(default_factory=Counters)


@dataclass(slots=True)
class Book:
    """`now` is monotonic, `unix` the time of day; both in seconds."""

    journal: Journal
    nas: Nas
    epoch: int
    interim_s: int
    chance: Callable[[], float]
    sessions: dict[str, Open] = field(default_factory=dict)
    _waiting: deque[Record] = field(default_factory=deque)
    _flying: dict[int, Record] = field(default_factory=dict)  # by the record's number
    _busy: dict[str, int] = field(default_factory=dict)  # sid -> record that is out
    _unsaid: set[str] = field(default_factory=set)  # sessions whose Start nobody has taken
    _again_at: float = 0.0
    _free_at: float = 0.0  # until when Accounting-On goes alone
    _spot: int = 0  # how far `look` has come
    _round: list[str] = field(default_factory=list)

    # -- from birth to death of an instance

    def begin(self, now: float, unix: float) -> tuple[int, int]:
        """Close what a dead instance left open, say On; how many sessions, and how many
        records wait from before.

        Sessions of this very instance are open still: only our own process died.
        """
        ours = self.journal.epoch == self.epoch
        if not ours:
            self.journal.forget((Status.ON, Status.OFF))
        closed = 0
        for left in list(self.journal.left()):
            try:
                facts = Facts.unpack(left.facts)
            except ValueError:
                self.journal.closed(left.sid)
                continue
            if left.epoch == self.epoch:
                self._enter(facts, now)
                self.sessions[left.sid].counters = left.counters
                continue
            closed += 1
            self.journal.closed(left.sid)
            attributes = session_record(
                Status.STOP, self.nas, facts, left.counters, cause=NAS_REBOOT
            )
            self.journal.add(left.sid, Status.STOP, left.seen, pack(attributes))
        self._waiting = deque(self.journal.records())
        kept = len(self._waiting)
        self._unsaid = {r.sid for r in self._waiting if r.status == Status.START}
        if not ours:
            self.journal.enter(self.epoch)
            record = self.journal.add(
                "", Status.ON, unix, pack(instance_record(Status.ON, self.nas, self.epoch))
            )
            self._waiting.append(record)
            self._free_at = now + FIRST_ON_S
        return closed, kept

    def off(self, unix: float) -> None:
        """The last record of an instance."""
        attributes = pack(instance_record(Status.OFF, self.nas, self.epoch))
        self._waiting.append(self.journal.add("", Status.OFF, unix, attributes))

    # -- sessions

    def start(self, facts: Facts, now: float, unix: float, *, recording: bool = True) -> None:
        """A session is up; said again it changes nothing."""
        if facts.sid in self.sessions:
            return
        self._enter(facts, now)
        if not recording:
            return
        self.journal.opened(facts.sid, self.epoch, facts.pack(), unix)
        attributes = pack(session_record(Status.START, self.nas, facts))
        self._unsaid.add(facts.sid)
        event = facts.up_unix or unix
        self._waiting.append(self.journal.add(facts.sid, Status.START, event, attributes))

    def stop(
        self, sid: str, counters: Counters, cause: str, unix: float, *, recording: bool = True
    ) -> bool:
        """A session is over; said again it changes nothing, and gives False."""
        session = self.sessions.pop(sid, None)
        if session is None:
            return False
        self.journal.closed(sid)
        if not recording:
            return False
        facts = session.facts
        number = CAUSES.get(cause, NAS_REQUEST)
        attributes = session_record(Status.STOP, self.nas, facts, counters, number)
        self._waiting.append(self.journal.add(sid, Status.STOP, unix, pack(attributes)))
        return True

    def change(self, sid: str, changes: dict[str, Any], now: float) -> None:
        """A CoA-Request was carried out."""
        session = self.sessions.get(sid)
        if session is None:
            return
        facts = session.facts.changed(changes)
        if facts is not session.facts:
            session.facts = facts
            session.interim_at = self._next_interim(facts, now)
            self.journal.refreshed(sid, facts.pack())

    def _enter(self, facts: Facts, now: float) -> None:
        self.sessions[facts.sid] = Open(facts, self._next_interim(facts, now))

    def _next_interim(self, facts: Facts, now: float) -> float:
        interval = facts.interim_s if facts.interim_s >= 0 else self.interim_s
        if not interval:
            return 0.0
        return now + interval * (1.0 + JITTER * (2.0 * self.chance() - 1.0))

    # -- counters and interims

    def look(self, share: float) -> Iterator[Open]:
        """The next part of all sessions, `share` of them: for each the owner notes counters."""
        if self._spot >= len(self._round):
            self._round, self._spot = list(self.sessions), 0
        count = max(1, int(len(self._round) * share + 1))
        part = self._round[self._spot : self._spot + count]
        self._spot += count
        for sid in part:
            session = self.sessions.get(sid)
            if session is not None:
                yield session

    def interims(self, now: float) -> list[Open]:
        """Sessions whose Interim-Update is due, each of them once an interval."""
        due = [s for s in self.sessions.values() if s.interim_at and s.interim_at <= now]
        for session in due:
            session.interim_at = self._next_interim(session.facts, now)
        return due

    def interim(self, session: Open) -> Record | None:
        """Its Interim-Update; None while its Start waits. It is never sent later: the next
        one, or the Stop, says all it says."""
        sid = session.facts.sid
        if sid in self._unsaid:
            return None
        attributes = pack(session_record(Status.INTERIM, self.nas, session.facts, session.counters))
        return Record(0, sid, Status.INTERIM, 0.0, attributes)

    # -- delivery

    @property
    def backlog(self) -> int:
        """Records that no server has taken yet."""
        return len(self._waiting) + len(self._flying)

    def ready(self, now: float) -> list[Record]:
        """Records to be sent now; each comes back by `taken` or `missed`."""
        if now < self._again_at:
            return []
        found: list[Record] = []
        kept: list[Record] = []
        held: set[str] = set()  # a later one of the same session must not go either
        alone = now < self._free_at
        while self._waiting and len(self._flying) < IN_FLIGHT:
            record = self._waiting.popleft()
            early = alone and record.status == Status.START
            if early or (record.sid and (record.sid in self._busy or record.sid in held)):
                kept.append(record)
                held.add(record.sid)
                continue
            self._flying[record.number] = record
            if record.sid:
                self._busy[record.sid] = record.number
            found.append(record)
        # Not a copy of what waits: after a day without a server that is a million.
        self._waiting.extendleft(reversed(kept))
        return found

    def taken(self, record: Record) -> None:
        """A server has it; also one that was missed, and answered late."""
        if record.number in self._flying:
            self._land(record)
        elif record in self._waiting:
            self._waiting.remove(record)
        else:
            return
        self.journal.delivered(record.number)
        if record.status == Status.ON:
            self._free_at = 0.0
        elif record.status == Status.START:
            self._unsaid.discard(record.sid)

    def missed(self, record: Record, now: float) -> None:
        """Nobody answered: it goes first when somebody does."""
        if record.number not in self._flying:
            return
        self._land(record)
        self._waiting.appendleft(record)
        self._again_at = max(self._again_at, now + AGAIN_S)

    def hurry(self) -> None:
        """A server answers again: no need to wait."""
        self._again_at = 0.0

    def _land(self, record: Record) -> None:
        del self._flying[record.number]
        if record.sid and self._busy.get(record.sid) == record.number:
            del self._busy[record.sid]

    def wake_at(self, now: float) -> float | None:
        """When `ready` may give something that it does not give now."""
        if not self._waiting:
            return None
        times = [at for at in (self._again_at, self._free_at) if at > now]
        return min(times, default=None)
