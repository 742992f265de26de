"""Which worker gets a call: what the dispatcher knows of each, and the choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

SILENT_S: Final = 3.0  # without a message: gets no new calls
LOST_S: Final = 6.0  # without a message: calls that wait for it are refused
MAX_BACKLOG: Final = 256  # messages that its queue does not take: it gets no new calls


@dataclass(slots=True)
class Worker:
    """A worker process as seen from the bus."""

    index: int
    present: bool = False  # it said Hello on the connection there is
    silent: bool = False  # and has been for LOST_S
    pid: int = 0
    page_pid: int = 0  # in the keeper's page when it said Hello
    credit: int = 0
    heard: float = 0.0
    used: int = 0  # records that are its own, ending ones too
    waiting: set[tuple[int, int]] = field(default_factory=set)  # Installs unanswered

    @property
    def identity(self) -> bytes:
        return b"worker-%d" % self.index

    def usable(self, now: float) -> bool:
        """Up, and speaking."""
        return self.present and now - self.heard <= SILENT_S


class Placement:
    """All workers; the one with the fewest sessions gets the next call, ties take turns."""

    def __init__(self, workers: int, backlog: Callable[[bytes], int]) -> None:
        self.workers = [Worker(index) for index in range(workers)]
        self._backlog = backlog
        self._turn = 0
        self.draining: frozenset[int] = frozenset()  # they get no new calls

    def pick(self, now: float, has_id: Callable[[int], bool]) -> Worker | None:
        """None: no worker is up, has credit, a call ID, and a queue that drains."""
        best: Worker | None = None
        count = len(self.workers)
        for step in range(count):
            worker = self.workers[(self._turn + step) % count]
            if best is not None and worker.used >= best.used:
                continue
            if (
                worker.index not in self.draining
                and worker.usable(now)
                and worker.credit > len(worker.waiting)
                and has_id(worker.index)
                and self._backlog(worker.identity) < MAX_BACKLOG
            ):
                best = worker
        if best is not None:
            self._turn = best.index + 1
        return best

    def why_none(self, now: float) -> str:
        """For the log, when `pick` found none."""
        up = [worker for worker in self.workers if worker.usable(now)]
        if up and all(worker.index in self.draining for worker in up):
            return "all workers that are up are drained (pptpcon undrain)"
        up = [worker for worker in up if worker.index not in self.draining]
        if not up:
            return f"none of the {len(self.workers)} workers is up"
        if all(worker.credit <= len(worker.waiting) for worker in up):
            return f"the {len(up)} workers that are up take no more new calls at the moment"
        if all(self._backlog(worker.identity) >= MAX_BACKLOG for worker in up):
            return f"the queues of the {len(up)} workers that are up do not drain"
        return "all call IDs of the workers that are up are in use or in quarantine"
