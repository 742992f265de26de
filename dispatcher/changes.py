"""Changes of live sessions that are on their way to workers: who asked, who has answered.

A console's Change becomes an Apply for each session that it matches; the answer, Changed,
leaves when the last of them has said Applied, or after CHANGE_TIMEOUT_S. No socket, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ops.messages import Changed

CHANGE_TIMEOUT_S: Final = 3.0
ERRORS_MAX: Final = 20  # of one answer

Handle = tuple[int, int]


@dataclass(slots=True)
class _Pending:
    peer: bytes
    request: int  # the asker's number
    due: float
    waiting: dict[Handle, str]  # session and its name for messages
    count: int = 0
    errors: list[str] = field(default_factory=list)

    def answer(self) -> tuple[bytes, Changed]:
        return self.peer, Changed(self.request, self.count, tuple(self.errors[:ERRORS_MAX]))


class Changes:
    """All changes without their answer, by our own number."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._next = 1

    def begin(self, peer: bytes, request: int, sessions: dict[Handle, str], now: float) -> int:
        """Note a change of `sessions`, at least one; the number is for their Apply."""
        number = self._next
        self._next += 1
        due = now + CHANGE_TIMEOUT_S
        self._pending[number] = _Pending(peer, request, due, dict(sessions))
        return number

    def applied(self, number: int, handle: Handle, error: str) -> tuple[bytes, Changed] | None:
        """A worker's answer; what the asker is told if it was the last one."""
        pending = self._pending.get(number)
        name = pending.waiting.pop(handle, None) if pending is not None else None
        if pending is None or name is None:
            return None  # too late, or said twice
        if error:
            pending.errors.append(f"{name}: {error}")
        else:
            pending.count += 1
        if pending.waiting:
            return None
        del self._pending[number]
        return pending.answer()

    @property
    def timer_at(self) -> float | None:
        """When `overdue` has something to tell."""
        return min((pending.due for pending in self._pending.values()), default=None)

    def overdue(self, now: float) -> list[tuple[bytes, Changed]]:
        """What askers are told whose sessions' workers do not answer."""
        found = []
        for number, pending in list(self._pending.items()):
            if now >= pending.due:
                names = pending.waiting.values()
                pending.errors += [f"{name}: its worker does not answer" for name in names]
                found.append(pending.answer())
                del self._pending[number]
        return found
