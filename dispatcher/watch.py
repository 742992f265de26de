"""Seeing that a child is there and does nothing: beats in the table, and asking netops."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dispatcher.children import Child
from fastpath.layout import Table
from ops.log import Log

PING: Final = {"type": "ping"}
STARVED_LOG_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds."""

    grace: float = 10.0  # after a start, before beats count
    silence: float = 5.0  # without a beat
    starved: float = 30.0  # the same, for a thread that spent most of it waiting for a CPU
    answer: float = 15.0  # without a word of netops
    deaf: float = 2.0  # after the child closed its socket
    ready: float = 30.0  # from start to `ready`


def cpu_wait(pid: int, tid: int) -> float:
    """Seconds that a thread was ready to run and had no CPU; 0 if the kernel does not tell."""
    try:
        return int(Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Watch:
    """Kills what stands still; the keeper then replaces it as any other dead child."""

    def __init__(self, table: Table, log: Log, limits: Limits) -> None:
        self._table = table
        self._log = log
        self._limits = limits
        self._from = time.monotonic() + limits.grace
        # By thread: its last beat, and how long it had waited for a CPU by then.
        self._waits: dict[tuple[int, str], tuple[int, float]] = {}
        self._starved_logged = 0.0

    def pause(self, children: Collection[Child], now: float) -> None:
        """We ourselves stood still (Ctrl-Z, a paused machine), and so did everyone's beat."""
        self._from = now + self._limits.grace
        for child in children:
            child.heard_at = now

    def look(self, children: Collection[Child], now: float) -> None:
        """Once a tick while serving."""
        pids = {child.pid for child in children}
        self._waits = {key: value for key, value in self._waits.items() if key[0] in pids}
        for child in children:
            if child.eof_at and now - child.eof_at > self._limits.deaf:
                self._kill(child, "process is deaf; killed")
            elif not child.ready and child.age > self._limits.ready:
                self._kill(child, "process is not ready; killed")
            elif now >= self._from and child.age >= self._limits.grace:
                self._beats(child, now)
                if child.role.kind in ("netops", "accounts", "vault"):
                    self._ping(child, now)

    def _beats(self, child: Child, now: float) -> None:
        beats: dict[str, tuple[int, int]] = {}  # thread id, beat
        if child.role.kind == "worker":
            page = self._table.worker(child.role.index)
            beats["data"] = page.data_tid, page.data_beat_ns
            beats["control"] = page.control_tid, page.control_beat_ns
        elif child.role.kind == "dispatcher":
            beats["main"] = child.pid, self._table.dispatcher_beat_ns
        for thread, (tid, beat) in beats.items():
            # A beat of its predecessor is older than the child and counts as none.
            silent = now - max(beat / 1e9, child.started)
            if silent > self._limits.silence and not self._starved(child, thread, tid, silent):
                self._kill(child, "thread stands still; process killed", thread, silent)
                return
            key = child.pid, thread
            if key not in self._waits or self._waits[key][0] != beat:
                self._waits[key] = beat, cpu_wait(child.pid, tid)

    def _starved(self, child: Child, thread: str, tid: int, silent: float) -> bool:
        """It would run, but others have the CPU: a successor would fare no better, and the
        links that are being set up would be lost."""
        _, before = self._waits.get((child.pid, thread), (0, 0.0))
        waited = cpu_wait(child.pid, tid) - before
        if not before or silent > self._limits.starved or waited < silent / 2:
            return False
        now = time.monotonic()
        if now >= self._starved_logged + STARVED_LOG_S:
            self._starved_logged = now
            self._log.warning(
                "thread gets no CPU",
                name=child.role.name,
                pid=child.pid,
                thread=thread,
                silent_s=round(silent, 1),
                waited_s=round(waited, 1),
                hint="the machine is overloaded: give it CPUs, or the concentrator some of its own",
            )
        return True

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
