"""The dispatcher's counters by name, and a log that a storm can't fill."""

from __future__ import annotations

from typing import Final

from fastpath.layout import Table
from ops.log import WARNING, Log, Value
from ops.metrics import DISPATCHER_COUNTERS

SLOTS: Final[dict[str, int]] = {name: slot for slot, name in enumerate(DISPATCHER_COUNTERS)}
BURST: Final = 10  # lines of one kind ...
PERIOD_S: Final = 10.0  # ... in this time; what is left out is told with the next


class Counters:
    """Slots of ops.metrics.DISPATCHER_COUNTERS in the shared header."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, name: str, amount: int = 1) -> None:
        self._table.dispatcher_count(SLOTS[name], amount)

    def set(self, name: str, value: int) -> None:
        self._table.dispatcher_gauge(SLOTS[name], value)


class QuietLog:
    """Warnings by kind, at most BURST in PERIOD_S each."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kinds: dict[str, tuple[float, int, int]] = {}  # begin, written, left out

    def warning(self, kind: str, event: str, now: float, **fields: Value) -> None:
        begin, written, omitted = self._kinds.get(kind, (now, 0, 0))
        if now - begin >= PERIOD_S:
            begin, written = now, 0
        if written >= BURST:
            self._kinds[kind] = begin, written, omitted + 1
            return
        if omitted:
            fields["omitted_before"] = omitted
        self._kinds[kind] = begin, written + 1, 0
        self._log.write(WARNING, event, fields)
