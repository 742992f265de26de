"""Seeing that a child is there and does nothing: beats in the table, and asking netops."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dispatcher.children import Child
from fastpath.layout import Table
from ops.log import Log

PING: Final = {"type": "ping"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds."""

    grace: float = 10.0  # after a start, before beats count
    silence: float = 5.0  # without a beat
    answer: float = 15.0  # without a word of netops
    deaf: float = 2.0  # after the child closed its socket
    ready: float = 30.0  # from start to `ready`


class Watch:
    """Kills what stands still; the keeper then replaces it as any other dead child."""

    def __init__(self, table: Table, log: Log, limits: Limits) -> None:
        self._table = table
        self._log = log
        self._limits = limits
        self._from = time.monotonic() + limits.grace

    def pause(self, children: Collection[Child], now: float) -> None:
        """We ourselves stood still (Ctrl-Z, a paused machine), and so did everyone's beat."""
        self._from = now + self._limits.grace
        for child in children:
            child.heard_at = now

    def look(self, children: Collection[Child], now: float) -> None:
        """Once a tick while serving."""
        for child in children:
            if child.eof_at and now - child.eof_at > self._limits.deaf:
                self._kill(child, "process is deaf; killed")
            elif not child.ready and child.age > self._limits.ready:
                self._kill(child, "process is not ready; killed")
            elif now >= self._from and child.age >= self._limits.grace:
                self._beats(child, now)
                if child.role.kind == "netops":
                    self._ping(child, now)

    def _beats(self, child: Child, now: float) -> None:
        beats: dict[str, int] = {}
        if child.role.kind == "worker":
            page = self._table.worker(child.role.index)
            beats = {"data": page.data_beat_ns, "control": page.control_beat_ns}
        elif child.role.kind == "dispatcher":
            beats = {"main": self._table.dispatcher_beat_ns}
        for thread, beat in beats.items():
            # A beat of its predecessor is older than the child and counts as none.
            silent = now - max(beat / 1e9, child.started)
            if silent > self._limits.silence:
                self._kill(child, "thread stands still; process killed", thread, silent)
                return

    def _ping(self, child: Child, now: float) -> None:
        silent = now - child.heard_at
        if silent > self._limits.answer and child.asked:
            self._kill(child, "process does not answer; killed")
        elif silent > self._limits.answer / 3 and not child.asked:
            child.asked = True
            child.send(PING, self._log)

    def _kill(self, child: Child, event: str, thread: str = "", silent: float = 0.0) -> None:
        words: dict[str, str | float] = {"name": child.role.name, "pid": child.pid}
        if thread:
            words |= {"thread": thread, "silent_s": round(silent, 1)}
        self._log.error(event, **words)
        child.kill()
