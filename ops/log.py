"""One line per event: `event key=value ...`, to standard error.

Leaf module: standard library only. Every line carries the process role; lines
about a session carry `sid=` and, once it is known, `user=`. Secrets are never
passed here. Values that strangers chose are escaped, so that a line stays one
line and a terminal stays sane. What they do, they can do ten thousand times a second:
lines of one event are rationed, so that the log stays one, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

DEBUG: Final = 7
INFO: Final = 6
NOTICE: Final = 5
WARNING: Final = 4
ERROR: Final = 3

LEVELS: Final[dict[str, int]] = {
    "debug": DEBUG,
    "info": INFO,
    "notice": NOTICE,
    "warning": WARNING,
    "error": ERROR,
}
NAMES: Final[dict[int, str]] = {number: name for name, number in LEVELS.items()}

# Of one event (its name) a process writes BURST lines at once, then RATE a second. The next
# line tells how many were left out. Counters go on counting.
BURST: Final = 1000
RATE: Final = 10.0
# Who had which address, and when: kept whole. Only who has an account can cause these.
WHOLE: Final = frozenset({"session up", "session down"})

Value = str | int | float | bool | bytes | None


def text(value: Value) -> str:
    """Render one value: printable, quoted when it holds spaces or is empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    string = str(value)
    if string and string.isprintable() and not set(string) & set(' "=\\'):
        return string
    return json.dumps(string, ensure_ascii=not string.isprintable())


class Ration:
    """How many lines of one event may still be written."""

    __slots__ = ("_at", "_left", "omitted")

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now
        self.omitted = 0

    def take(self, now: float) -> bool:
        """One more line: whether it may be written."""
        self._left = min(float(BURST), self._left + (now - self._at) * RATE)
        self._at = now
        if self._left < 1.0:
            self.omitted += 1
            return False
        self._left -= 1.0
        return True


class Log:
    """The log of one process; `fields` given here stand on every line."""

    def __init__(self, role: str, *, level: int = INFO, style: str = "text") -> None:
        self.role = role
        self.level = level
        self.style = style
        self._journal = "JOURNAL_STREAM" in os.environ
        self._rations: dict[str, Ration] = {}
        self.debugged: frozenset[str] = frozenset()  # sids and users: all their lines

    def write(self, level: int, event: str, fields: dict[str, Value]) -> None:
        """Write one line if `level` is wanted; losing it is better than failing a call."""
        if level > self.level and not (
            self.debugged and not self.debugged.isdisjoint((fields.get("sid"), fields.get("user")))
        ):
            return
        if level != DEBUG and event not in WHOLE:
            now = time.monotonic()
            ration = self._rations.setdefault(event, Ration(now))
            if not ration.take(now):
                return
            if ration.omitted:
                fields = {**fields, "omitted_before": ration.omitted}
                ration.omitted = 0
        if self.style == "json":
            record = {
                "time": round(time.time(), 6),
                "level": NAMES[level],
                "role": self.role,
                "event": event,
            }
            record.update({k: text(v) if isinstance(v, bytes) else v for k, v in fields.items()})
            line = json.dumps(record)
        else:
            tail = "".join(f" {key}={text(value)}" for key, value in fields.items())
            line = f"{self.role}: {event}{tail}"
            if self._journal:
                line = f"<{level}>{line}"
            else:
                now = time.time()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
                line = f"{stamp}.{int(now % 1 * 1000):03d} {NAMES[level]} {line}"
        try:
            os.write(2, (line + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass

    def order(self, message: Mapping[str, Any]) -> None:
        """The keeper's order of type "log": level, and whose lines are wanted beside it."""
        self.level = LEVELS[message["level"]]
        self.debugged = frozenset(message["debugged"])

    def debug(self, event: str, **fields: Value) -> None:
        """For the developer."""
        self.write(DEBUG, event, fields)

    def info(self, event: str, **fields: Value) -> None:
        """Normal life: calls and sessions."""
        self.write(INFO, event, fields)

    def notice(self, event: str, **fields: Value) -> None:
        """Normal, but rare: start, stop, reload."""
        self.write(NOTICE, event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        """Something was refused or fell short."""
        self.write(WARNING, event, fields)

    def error(self, event: str, **fields: Value) -> None:
        """A part of the service does not work."""
        self.write(ERROR, event, fields)


def fatal(message: str, code: int) -> int:
    """Say why the program ends; returns `code` for sys.exit."""
    print(f"pptpcon: {message}", file=sys.stderr)
    return code
