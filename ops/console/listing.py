"""Which sessions, in which order, and how many of them: the query of /api/sessions.

Text is compared, no regular expressions: one that backtracks would stop every scrape. The
command line has them, where they cost only who typed them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastpath.layout import Session
from ops.console.columns import COLUMNS, Cell
from ops.console.snapshot import Snapshot
from ops.ranges import parse_address

PARAMETERS: Final = ("columns", "match", "search", "order", "limit", "offset")
SEARCHED: Final = ("sid", "username", "ip", "csid")
# What to order by when the column itself is text for people.
ORDER_BY: Final[Mapping[str, str]] = {
    "uptime": "uptime-raw",
    "rx-bytes": "rx-bytes-raw",
    "tx-bytes": "tx-bytes-raw",
    "loss": "loss-raw",
}
ADDRESSES: Final = frozenset({"ip", "csid", "calling-sid", "called-sid"})
TEXT_MAX: Final = 512
NUMBER_DIGITS: Final = 6


class ListingError(ValueError):
    """What is wrong with the query, for who asked."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A query; `limit` None: all."""

    columns: tuple[str, ...] = tuple(COLUMNS)
    match: tuple[str, str] | None = None
    search: str = ""
    order: str = ""
    down: bool = False
    limit: int | None = None
    offset: int = 0

    def answer(self, snapshot: Snapshot) -> dict[str, Any]:
        """Rows, how many there are without `limit` and `offset`, and slots in use."""
        now = snapshot.now_ns
        found: Sequence[Session] = snapshot.sessions
        if self.match is not None:
            column, text = COLUMNS[self.match[0]], self.match[1]
            found = [s for s in found if text in _text(column(s, now))]
        if self.search:
            columns, sought = [COLUMNS[name] for name in SEARCHED], self.search.lower()
            found = [s for s in found if any(sought in _text(c(s, now)).lower() for c in columns)]
        if self.order:
            found = self._ordered(found, now)
        total = len(found)
        end = None if self.limit is None else self.offset + self.limit
        shown = [COLUMNS[name] for name in self.columns]
        return {
            "columns": list(self.columns),
            "rows": [[column(s, now) for column in shown] for s in found[self.offset : end]],
            "total": total,
            "slots_used": snapshot.used(),
        }

    def _ordered(self, found: Sequence[Session], now: int) -> list[Session]:
        column = COLUMNS[ORDER_BY.get(self.order, self.order)]
        keys = [(column(s, now), s) for s in found]
        # What has no value comes last in both directions.
        known = [pair for pair in keys if pair[0] is not None]
        known.sort(key=lambda pair: _key(self.order, pair[0]), reverse=self.down)
        return [s for _, s in known] + [s for value, s in keys if value is None]


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)


def _key(column: str, value: Any) -> Any:
    return parse_address(value) if column in ADDRESSES else value


def parse(query: Mapping[str, str]) -> Listing:
    """A query's parameters, which are of PARAMETERS; ListingError."""
    match, order = None, query.get("order", "")
    if "match" in query:
        column, colon, text = query["match"].partition(":")
        if not colon:
            raise ListingError("match: write COLUMN:TEXT")
        match = (_known(column), _short("match", text))
    by = order.removeprefix("-")
    return Listing(
        columns=columns_of(query.get("columns")),
        match=match,
        search=_short("search", query.get("search", "")),
        order=_known(by) if "order" in query else "",
        down=order.startswith("-"),
        limit=number("limit", query["limit"]) if "limit" in query else None,
        offset=number("offset", query.get("offset", "0")),
    )


def columns_of(text: str | None) -> tuple[str, ...]:
    """Names with commas between; None: all."""
    names = list(COLUMNS) if text is None else [word.strip() for word in text.split(",")]
    if len(names) > 2 * len(COLUMNS):
        raise ListingError(f"columns: {len(names)} are too many")
    return tuple(_known(name) for name in names)


def number(name: str, text: str) -> int:
    """A count; ListingError."""
    if not text.isascii() or not text.isdigit() or len(text) > NUMBER_DIGITS:
        raise ListingError(f"{name}: {text[:40]!r} is no number")
    return int(text)


def _known(name: str) -> str:
    if name not in COLUMNS:
        raise ListingError(f"unknown column {name[:40]!r}; known: {', '.join(COLUMNS)}")
    return name


def _short(name: str, text: str) -> str:
    if len(text) > TEXT_MAX:
        raise ListingError(f"{name}: too long")
    return text
