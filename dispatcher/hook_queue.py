"""Which hook runs next: in a session's order, so many at once, so many waiting. No process.

An event of a session waits for the one before it. Sessions take turns, so that one with a
slow script holds up nobody but itself and its place among those that run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ops.hook_event import Event

BEGIN = {"ip_up": "ip_down", "auth_up": "auth_down"}
END = {end: begin for begin, end in BEGIN.items()}


@dataclass(frozen=True, slots=True)
class Job:
    """An event, and whose question it answers."""

    worker: int
    seq: int
    event: Event


@dataclass(slots=True)
class Queue:
    """All events that were taken and are not done."""

    at_once: int
    limit: int
    _waiting: dict[int, deque[Job]] = field(default_factory=dict)  # by sid; running: its first
    _turns: deque[int] = field(default_factory=deque)  # sids that wait and have none running
    _running: set[int] = field(default_factory=set)
    _known: set[tuple[int, int]] = field(default_factory=set)
    _begun: set[tuple[int, str]] = field(default_factory=set)

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many do not yet."""
        return len(self._known) - len(self._running)

    def add(self, job: Job) -> str:
        """ "": it waits. "again": it does already. "repeated": this session has had this event,
        which a successor of its worker cannot know. "full": there is no room."""
        if (job.worker, job.seq) in self._known:
            return "again"
        event = job.event
        if event.hook in BEGIN and (event.sid, event.hook) in self._begun:
            return "repeated"
        if event.hook not in BEGIN:  # also if it is dropped: nothing else would ever end it
            self._begun.discard((event.sid, END.get(event.hook, "")))
        if self.waiting >= self.limit:
            return "full"
        if event.hook in BEGIN:
            self._begun.add((event.sid, event.hook))
        self._known.add((job.worker, job.seq))
        jobs = self._waiting.setdefault(event.sid, deque())
        jobs.append(job)
        if len(jobs) == 1:
            self._turns.append(event.sid)
        return ""

    def ready(self) -> Job | None:
        """The next to run, which counts as running until `done`; None: none now."""
        if len(self._running) >= self.at_once or not self._turns:
            return None
        sid = self._turns.popleft()
        self._running.add(sid)
        return self._waiting[sid][0]

    def done(self, job: Job) -> None:
        """It has ended; the session's next one waits for its turn."""
        sid = job.event.sid
        jobs = self._waiting[sid]
        jobs.popleft()
        self._running.discard(sid)
        self._known.discard((job.worker, job.seq))
        if jobs:
            self._turns.append(sid)
        else:
            del self._waiting[sid]
