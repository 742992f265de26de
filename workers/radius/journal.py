"""What accounting must not forget, in SQLite: sessions that are open, records not delivered.

A record is here before it is sent, and goes when a server has taken it. A session is here
from its Start to its Stop, with counters that are at most a minute old, so that whoever
comes after a crash can close it.

WAL with synchronous=NORMAL: what is committed survives the death of the process; the last
moment before a power cut may be lost, the file never is.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from workers.radius.accounting import Counters

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS open (
    sid TEXT PRIMARY KEY, epoch INTEGER NOT NULL, facts BLOB NOT NULL, seen REAL NOT NULL,
    input_octets INTEGER NOT NULL, input_packets INTEGER NOT NULL,
    output_octets INTEGER NOT NULL, output_packets INTEGER NOT NULL, seconds INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT NOT NULL, status INTEGER NOT NULL,
    event REAL NOT NULL, attributes BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS instance (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER);
"""
VERSION: Final = 1
BUSY_MS: Final = 2000
MEMORY: Final = ":memory:"


class JournalError(Exception):
    """The file cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One Accounting-Request to be delivered; `number` is its order."""

    number: int
    sid: str
    status: int
    event: float  # Unix time
    attributes: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """A session that was open when its concentrator died."""

    sid: str
    epoch: int
    facts: bytes
    seen: float  # Unix time of its counters
    counters: Counters


class Journal:
    """One file. Changes are held until `commit`, which the owner calls before it acts on them."""

    def __init__(self, path: str) -> None:
        """`path` may be ":memory:": then only our own death loses something."""
        self.path = path
        self.failure = ""  # why the file was given up; the owner tells, and clears it
        self._db = self._open(path)
        self._changing = False

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(path, isolation_level=None)
            db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise JournalError(f"{path}: version {version}, this program has {VERSION}")
            db.executescript(SCHEMA)
            db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as e:
            raise JournalError(f"{path}: {e}") from None
        return db

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._execute(statement, values)
        except sqlite3.Error as e:
            self._give_up(e)
            return self._execute(statement, values)

    def _execute(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        if not self._changing:
            self._db.execute("BEGIN IMMEDIATE")
            self._changing = True
        return self._db.execute(statement, values)

    def _rows(self, query: str) -> list[Any]:
        """What a query finds; none, and the file given up, where it is damaged."""
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.Error as e:
            self._give_up(e)
            return []

    def _give_up(self, error: sqlite3.Error) -> None:
        """A full or broken disk: go on in memory, where all that is not delivered is, too."""
        self.failure = f"{self.path}: {error}"
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self.path = MEMORY
        self._db = self._open(MEMORY)
        self._changing = False

    def commit(self) -> bool:
        """Make all changes last; whether there were any."""
        if not self._changing:
            return False
        self._changing = False
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            self._give_up(e)
        return True

    def close(self) -> None:
        """With what is not committed."""
        self.commit()
        self._db.close()

    @property
    def epoch(self) -> int:
        """Of the instance that wrote here last; 0: none."""
        rows = self._rows("SELECT epoch FROM instance")
        return int(rows[0][0] or 0) if rows else 0

    def enter(self, epoch: int) -> None:
        """We write from now on."""
        self._do("INSERT OR REPLACE INTO instance VALUES (1, ?)", (epoch,))

    # -- sessions

    def opened(self, sid: str, epoch: int, facts: bytes, now: float) -> None:
        """A session has begun; said twice it is the same."""
        self._do(
            "INSERT OR IGNORE INTO open VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0)",
            (sid, epoch, facts, now),
        )

    def refreshed(self, sid: str, facts: bytes) -> None:
        """Something about it has changed."""
        self._do("UPDATE open SET facts = ? WHERE sid = ?", (facts, sid))

    def seen(self, items: Iterable[tuple[str, Counters]], now: float) -> None:
        """Counters as they stand."""
        for sid, c in items:
            self._do(
                "UPDATE open SET seen = ?, input_octets = ?, input_packets = ?, output_octets = ?,"
                " output_packets = ?, seconds = ? WHERE sid = ?",
                (
                    now,
                    c.input_octets,
                    c.input_packets,
                    c.output_octets,
                    c.output_packets,
                    c.seconds,
                    sid,
                ),
            )

    def closed(self, sid: str) -> None:
        """Its Stop is written."""
        self._do("DELETE FROM open WHERE sid = ?", (sid,))

    def left(self) -> Iterator[Left]:
        """All open sessions."""
        for sid, epoch, facts, seen, *counters in self._rows(
            "SELECT sid, epoch, facts, seen, input_octets, input_packets, output_octets,"
            " output_packets, seconds FROM open"
        ):
            yield Left(sid, epoch, facts, seen, Counters(*counters))

    # -- records

    def add(self, sid: str, status: int, event: float, attributes: bytes) -> Record:
        """A record to be delivered."""
        cursor = self._do(
            "INSERT INTO record (sid, status, event, attributes) VALUES (?, ?, ?, ?)",
            (sid, status, event, attributes),
        )
        return Record(int(cursor.lastrowid or 0), sid, status, event, attributes)

    def delivered(self, number: int) -> None:
        """A server has taken it."""
        self._do("DELETE FROM record WHERE id = ?", (number,))

    def forget(self, statuses: Iterable[int]) -> None:
        """Records of these kinds are not wanted any more."""
        for status in statuses:
            self._do("DELETE FROM record WHERE status = ?", (int(status),))

    def records(self) -> list[Record]:
        """All not delivered, in order."""
        rows = self._rows("SELECT id, sid, status, event, attributes FROM record ORDER BY id")
        return [Record(*row) for row in rows]
