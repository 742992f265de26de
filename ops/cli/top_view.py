"""What `pptpcon top` shows: two samples of the console become rows, rows become lines.

No terminal and no clock here. Rates are differences between two samples, so that they are
those of the interval that the reader chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ops.cli.tables import clean

COLUMNS: Final = (
    "sid",
    "username",
    "ip",
    "csid",
    "worker",
    "state",
    "uptime",
    "uptime-raw",
    "rx-bytes-raw",
    "tx-bytes-raw",
    "drops",
    "loss",
    "loss-raw",
)
# Key -> what to sort by, and whether the largest come first.
SORTS: Final[Mapping[str, tuple[str, bool]]] = {
    "b": ("rx+tx", True),
    "r": ("rx", True),
    "t": ("tx", True),
    "d": ("drops/s", True),
    "l": ("lost/s", True),
    "u": ("uptime", True),
    "n": ("username", False),
    "w": ("worker", False),
}
HELP: Final = (
    "b r t: by bit/s both ways, from (rx), to (tx) subscribers   d: drops   l: loss   u: uptime",
    "n: name   w: worker   R: other way round   /: search   Esc: all again   s: interval",
    "up, down, page up, page down: scroll   space: now   h: this   q: end",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the console, at `at` seconds."""

    at: float
    status: Mapping[str, Any]
    sessions: Mapping[str, Mapping[str, Any]]  # by sid


def sample_of(at: float, status: Mapping[str, Any], listing: Mapping[str, Any]) -> Sample:
    """From /api/status and /api/sessions?columns=..."""
    names = listing["columns"]
    rows = (dict(zip(names, row, strict=True)) for row in listing["rows"])
    return Sample(at, status, {row["sid"]: row for row in rows})


@dataclass(slots=True)
class Row:
    """A session in the interval."""

    said: Mapping[str, Any]
    rx: float  # bit/s
    tx: float
    drops: float  # a second
    lost: float

    def key(self, column: str) -> Any:
        """What to sort by."""
        match column:
            case "rx+tx":
                return self.rx + self.tx
            case "rx":
                return self.rx
            case "tx":
                return self.tx
            case "drops/s":
                return self.drops
            case "lost/s":
                return self.lost
            case "uptime":
                return self.said["uptime-raw"] or 0
            case _:
                return self.said[column] if self.said[column] is not None else ""


@dataclass(slots=True)
class State:
    """What the reader has chosen."""

    sort: str = "b"
    turned: bool = False
    search: str = ""
    offset: int = 0
    help: bool = False
    typing: bool = False  # the search is being typed
    interval: float = 2.0
    note: str = ""  # instead of the last line: something is wrong
    rows: list[Row] = field(default_factory=list)


def rate(bps: float) -> str:
    """bit/s in a width of 7."""
    if bps < 1000:
        return f"{bps:.0f}"
    for unit in "kMGT":
        bps /= 1000
        if bps < 999.95:
            return f"{bps:.1f}{unit}"
    return f"{bps:.0f}P"


def rows_of(before: Sample, now: Sample, state: State) -> list[Row]:
    """All that match the search, sorted."""
    seconds = max(now.at - before.at, 0.001)
    found = []
    sought = state.search.lower()
    for sid, said in now.sessions.items():
        if sought and not any(
            sought in str(said[name] or "").lower() for name in ("sid", "username", "ip", "csid")
        ):
            continue
        old = before.sessions.get(sid)

        def per_s(name: str, said: Mapping[str, Any] = said, old: Any = old) -> float:
            # One that was not there before has all of it in this interval.
            return max(0.0, float(said[name] - (old[name] if old else 0)) / seconds)

        found.append(
            Row(
                said,
                8 * per_s("rx-bytes-raw"),
                8 * per_s("tx-bytes-raw"),
                per_s("drops"),
                per_s("loss-raw"),
            )
        )
    column, down = SORTS[state.sort]
    found.sort(key=lambda row: row.said["sid"])
    found.sort(key=lambda row: row.key(column), reverse=down is not state.turned)
    return found


def _worker_lines(before: Sample, now: Sample) -> list[str]:
    seconds = max(now.at - before.at, 0.001)
    old = {w["worker"]: w for w in before.status["workers"]}
    lines = [
        f"{'worker':>6} {'state':<8} {'sessions':>8} {'rx bit/s':>9} {'tx bit/s':>9} "
        f"{'packets/s':>9} {'drops/s':>8} {'data cpu':>8} {'control':>8}"
    ]
    for w in now.status["workers"]:
        was = old.get(w["worker"], w)

        def per_s(name: str, w: Any = w, was: Any = was) -> float:
            return max(0.0, float(w[name] - was[name]) / seconds)

        packets = per_s("rx-pkts") + per_s("tx-pkts")
        lines.append(
            f"{w['worker']:>6} {w['state']:<8} {w['sessions']:>8} "
            f"{rate(8 * per_s('rx-bytes-raw')):>9} {rate(8 * per_s('tx-bytes-raw')):>9} "
            f"{packets:>9.0f} {per_s('drops'):>8.0f} "
            f"{100 * per_s('data-cpu-s'):>7.0f}% {100 * per_s('control-cpu-s'):>7.0f}%"
        )
    return lines


def _head_lines(before: Sample, now: Sample) -> list[str]:
    s = now.status
    sessions, slots = s["sessions"], s["slots"]
    days, rest = divmod(s["uptime_s"], 86400)
    up = f"{days}.{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    calls = "calls served" if s["ready"] else f"NOT SERVED: {', '.join(s['not_ready'])}"
    seconds = max(now.at - before.at, 0.001)
    moved = {
        way: 8 * max(0, s["traffic"][f"{way}_bytes"] - before.status["traffic"][f"{way}_bytes"])
        for way in ("rx", "tx")
    }
    started = max(0, s["pptp"]["sessions_started"] - before.status["pptp"]["sessions_started"])
    ended = max(0, sum(s["ended"].values()) - sum(before.status["ended"].values()))
    return [
        f"pptpcon {s['version']}  up {up}  {calls}  cpu {s['cpu_percent']:g}%",
        f"slots {slots['used']}/{slots['capacity']}: {sessions['active']} active, "
        f"{sessions['starting']} starting, {sessions['finishing']} finishing; "
        f"{started / seconds:.1f} up/s, {ended / seconds:.1f} down/s",
        f"rx {rate(moved['rx'] / seconds)}bit/s from subscribers, "
        f"tx {rate(moved['tx'] / seconds)}bit/s to them",
    ]


def _session_line(row: Row) -> str:
    s = row.said
    return (
        f"{s['sid']:<16} {clean(s['username'])[:20]:<20} {s['ip'] or '':<15} "
        f"{s['worker']:>2} {s['state'][:6]:<6} {s['uptime'] or '':>11} "
        f"{rate(row.rx):>8} {rate(row.tx):>8} {row.drops:>7.0f} {s['loss'] or '':>7}"
    )


SESSION_HEAD: Final = (
    f"{'sid':<16} {'username':<20} {'ip':<15} {'w':>2} {'state':<6} {'uptime':>11} "
    f"{'rx bit/s':>8} {'tx bit/s':>8} {'drops/s':>7} {'loss':>7}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """Text, and whether it is a heading."""

    text: str
    heading: bool = False


def screen(before: Sample, now: Sample, state: State, width: int, height: int) -> list[Line]:
    """Exactly `height` lines of at most `width` columns."""
    lines = [Line(text) for text in _head_lines(before, now)]
    workers = _worker_lines(before, now)
    lines.append(Line(""))
    lines.append(Line(workers[0], heading=True))
    # A box of 64 workers leaves room for sessions, too.
    lines += [Line(text) for text in workers[1 : 1 + max(2, (height - 8) // 2)]]
    if state.help:
        lines += [Line(text) for text in HELP]
    lines.append(Line(""))
    lines.append(Line(SESSION_HEAD, heading=True))
    room = max(0, height - len(lines) - 1)
    state.offset = max(0, min(state.offset, len(state.rows) - room))
    lines += [Line(_session_line(row)) for row in state.rows[state.offset :][:room]]
    lines += [Line("")] * max(0, height - 1 - len(lines))
    lines = [*lines[: height - 1], Line(_status(state))]
    return [Line(line.text[:width], line.heading) for line in lines]


def _status(state: State) -> str:
    if state.typing:
        return f"search: {state.search}_"
    if state.note:
        return state.note
    column, down = SORTS[state.sort]
    order = "largest" if down is not state.turned else "smallest"
    parts = [f"by {column}, {order} first", f"every {state.interval:g} s"]
    if state.search:
        parts.insert(0, f"search {state.search!r}: {len(state.rows)} sessions (Esc: all)")
    return "; ".join([*parts, "h: help, q: end"])


def plain(before: Sample, now: Sample, state: State, limit: int) -> list[str]:
    """For --once and scripts: no cut, no colour."""
    lines = [*_head_lines(before, now), "", *_worker_lines(before, now), "", SESSION_HEAD]
    return [line.rstrip() for line in [*lines, *map(_session_line, state.rows[:limit])]]


def press(state: State, key: str, page: int) -> bool:
    """A key of the reader; False: end. `page` is how many sessions there is room for."""
    if state.typing:
        if key in ("\r", "\n"):
            state.typing = False
        elif key == "\x1b":
            state.typing, state.search = False, ""
        elif key in ("\x7f", "\b"):
            state.search = state.search[:-1]
        elif len(key) == 1 and key.isprintable():
            state.search += key
        state.offset = 0
        return True
    if key in ("q", "Q", "\x03"):
        return False
    if key in SORTS:
        state.turned = False
        state.sort, state.offset = key, 0
    elif key == "R":
        state.turned = not state.turned
    elif key == "h" or key == "?":
        state.help = not state.help
    elif key == "/":
        state.typing, state.search = True, ""
    elif key == "\x1b":
        state.search = ""
    elif key == "s":
        steps = (1.0, 2.0, 5.0, 10.0, 30.0)
        state.interval = next((step for step in steps if step > state.interval), steps[0])
    else:
        moves = {"up": -1, "down": 1, "page up": -page, "page down": page}
        state.offset = max(0, state.offset + moves.get(key, 0))
    return True
