"""Who was logged in, from when to when, with how much traffic: SQLite, a row a session.

A row is here from the session's start, with counters at most a minute old; whoever comes
after a crash closes it with these. `pptpcon history` reads the file beside us.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import Final

from ops.ranges import format_address
from workers.radius.accounting import Counters, Facts

FILE: Final = "history.db"
VERSION: Final = 1
BUSY_MS: Final = 2000
LOST: Final = "crash"  # the cause of those that their concentrator did not end
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS session (
    sid TEXT PRIMARY KEY, epoch INTEGER NOT NULL, user TEXT NOT NULL, address TEXT NOT NULL,
    calling TEXT NOT NULL, called TEXT NOT NULL, auth TEXT NOT NULL, source TEXT NOT NULL,
    start REAL NOT NULL, seen REAL NOT NULL, end REAL, cause TEXT NOT NULL DEFAULT '',
    input_octets INTEGER NOT NULL DEFAULT 0, input_packets INTEGER NOT NULL DEFAULT 0,
    output_octets INTEGER NOT NULL DEFAULT 0, output_packets INTEGER NOT NULL DEFAULT 0,
    seconds INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS session_start ON session (start);
CREATE INDEX IF NOT EXISTS session_user ON session (user, start);
CREATE INDEX IF NOT EXISTS session_open ON session (epoch) WHERE end IS NULL;
"""
STILL: Final = "WHERE sid = ? AND end IS NULL"
COUNTERS: Final = (
    "input_octets = ?, input_packets = ?, output_octets = ?, output_packets = ?, seconds = ?"
)


class History:
    """One file, or none after the first failure: remembering never costs a session."""

    def __init__(self, path: str, epoch: int) -> None:
        """OSError says why there is none."""
        self.path = path
        self.failure = ""  # why it was given up; the owner tells, and clears it
        self._epoch = epoch
        self._changing = False
        self.open: set[str] = set()
        self._db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(path, isolation_level=None)
            db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise OSError(f"{path}: version {version}, this program has {VERSION}")
            db.executescript(SCHEMA)
            db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as e:
            raise OSError(f"{path}: {e}") from None
        self._db = db

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> int:
        """Rows changed; 0 once it was given up."""
        if self._db is None:
            return 0
        try:
            if not self._changing:
                self._db.execute("BEGIN IMMEDIATE")
                self._changing = True
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as e:
            self._give_up(e)
            return 0

    def _give_up(self, error: Exception) -> None:
        self.failure = f"{self.path}: {error}"
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def begin(self) -> dict[str, float]:
        """Close what a dead instance left: sid to when it was seen last. Ours are open still."""
        if self._db is None:
            return {}
        left = "FROM session WHERE end IS NULL AND epoch"
        try:
            rows = self._db.execute(f"SELECT sid, seen {left} != ?", (self._epoch,)).fetchall()
            lost = {f"{int(sid, 16):016x}": float(seen) for sid, seen in rows}
            rows = self._db.execute(f"SELECT sid {left} = ?", (self._epoch,)).fetchall()
            self.open = {sid for (sid,) in rows}
        except (sqlite3.Error, TypeError, ValueError) as e:  # a file that is damaged
            self._give_up(e)
            return {}
        self._do(
            "UPDATE session SET end = seen, cause = ? WHERE end IS NULL AND epoch != ?",
            (LOST, self._epoch),
        )
        return lost

    def started(self, facts: Facts, now: float) -> bool:
        """A session is up; False if that was known."""
        if facts.sid in self.open:
            return False
        self.open.add(facts.sid)
        user = facts.user.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return bool(
            self._do(
                "INSERT OR IGNORE INTO session (sid, epoch, user, address, calling, called, auth,"
                " source, start, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    facts.sid,
                    self._epoch,
                    user,
                    format_address(facts.address) if facts.address else "",
                    facts.calling,
                    facts.called,
                    facts.method,
                    facts.source,
                    facts.up_unix or now,
                    now,
                ),
            )
        )

    def seen(self, items: Iterable[tuple[str, Counters]], now: float) -> None:
        """Counters as they stand."""
        for sid, c in items:
            self._do(
                f"UPDATE session SET seen = ?, {COUNTERS} {STILL}",  # noqa: S608
                (now, *_values(c), sid),
            )

    def ended(self, sid: str, counters: Counters | None, cause: str, now: float) -> bool:
        """It is over; False if that was known. Without counters those seen last stay."""
        if sid not in self.open:
            return False
        self.open.discard(sid)
        if counters is not None:
            self.seen([(sid, counters)], now)
        statement = f"UPDATE session SET end = ?, cause = ? {STILL}"  # noqa: S608
        return bool(self._do(statement, (now, cause, sid)))

    def forget(self, before: float) -> int:
        """Remove sessions that ended earlier; how many."""
        return self._do("DELETE FROM session WHERE end < ?", (before,))

    def commit(self) -> None:
        """Make all changes last."""
        if self._changing and self._db is not None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as e:
                self._give_up(e)
        self._changing = False

    def close(self) -> None:
        """With what is not committed."""
        self.commit()
        if self._db is not None:
            self._db.close()
            self._db = None


def _values(c: Counters) -> tuple[int, ...]:
    top = (1 << 63) - 1
    return tuple(
        min(value, top)
        for value in (
            c.input_octets,
            c.input_packets,
            c.output_octets,
            c.output_packets,
            c.seconds,
        )
    )
