"""What went wrong of late, by its cause in words; names nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ops.console import causes
from ops.console.history import RECENT_S, History
from ops.messages import PastCall

ASKED: Final = 200  # ends looked through for failures
SHOWN: Final = 20

KINDS: Final = {
    "ended": {n: c for n, c in causes.ENDED.items() if n not in causes.WANTED},
    "refused": causes.REFUSED,
    "connection": causes.CONNECTIONS,
}


def by_cause(history: History, totals: dict[tuple[str, str], int]) -> dict[str, Any]:
    """A row for each cause that ever occurred; the most frequent of late first."""
    window, recent = history.increase(RECENT_S)
    rows: list[dict[str, Any]] = []
    for kind, known in KINDS.items():
        for name, cause in known.items():
            if total := totals[kind, name]:
                rows.append(
                    {
                        "kind": kind,
                        "cause": name,
                        "recent": recent.get((kind, name), 0),
                        "total": total,
                        "words": cause.words,
                        "advice": cause.advice,
                    }
                )
    rows.sort(key=lambda row: (-row["recent"], -row["total"]))
    return {"window_s": round(window, 1), "causes": rows}


def newest(calls: Iterable[PastCall]) -> list[dict[str, Any]]:
    """The newest failures of calls that ended, newest first."""
    rows: list[dict[str, Any]] = []
    for call in calls:
        unix_ms, _, _, _, _, cause, _, was_up, seconds, _, _ = call
        if cause in KINDS["ended"] and len(rows) < SHOWN:
            rows.append(
                {
                    "time": round(unix_ms / 1000, 3),
                    "cause": cause,
                    "words": causes.ENDED[cause].words,
                    "was-up": was_up,
                    "seconds": seconds,
                }
            )
    return rows
