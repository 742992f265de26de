"""Bit/s of each session: its octets between the last two samples of the table.

One table a process, so one set of meters, which the console fills every few seconds.
"""

from __future__ import annotations

import time

from fastpath.layout import Session, Table

_Sample = tuple[float, memoryview]  # when, and Table.meters()


class Meters:
    """The last two samples."""

    def __init__(self) -> None:
        self._before: _Sample | None = None
        self._last: _Sample | None = None

    def sample(self, table: Table, now: float | None = None) -> None:
        """`now` in seconds, of any clock."""
        at = time.monotonic() if now is None else now
        self._before = self._last
        self._last = at, memoryview(table.meters()).cast("Q")

    def bps(self, session: Session) -> tuple[int, int] | None:
        """Bit/s from and to the subscriber; None: it is too young."""
        if self._before is None or self._last is None:
            return None
        (then, old), (now, new) = self._before, self._last
        at = 3 * session.index
        if at + 2 >= len(old) or at + 2 >= len(new) or now <= then:
            return None
        if not old[at] == new[at] == session.generation:
            return None
        scale = 8 / (now - then)
        return (
            round(max(0, new[at + 1] - old[at + 1]) * scale),
            round(max(0, new[at + 2] - old[at + 2]) * scale),
        )


METERS = Meters()
