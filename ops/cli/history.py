"""`pptpcon history`: who was logged in, from the file that the accounts process keeps."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from ops import rundir
from ops.cli import configuration
from ops.cli.configuration import config_option, set_option
from ops.cli.tables import clean

FILE: Final = "history.db"
EXIT_NONE: Final = 1
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
COLUMNS: Final = (
    "sid, user, address, calling, called, auth, source, start, seen, end, cause,"
    " input_octets, input_packets, output_octets, output_packets, seconds"
)


def moment(text: str, now: float) -> float:
    """Unix time of "90m", "2d" (ago), "2026-11-27" or "2026-11-27T12:30"; ValueError."""
    ago = re.fullmatch(r"(\d+)([smhdw])", text)
    if ago:
        return now - int(ago[1]) * UNITS[ago[2]]
    return datetime.fromisoformat(text).timestamp()


def select(
    path: Path,
    *,
    user: str = "",
    address: str = "",
    sid: str = "",
    since: float | None = None,
    until: float | None = None,
    still: bool = False,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """Sessions, the newest first; OSError or sqlite3.Error says why there are none. `since` and
    `until`: those that were up at any time between."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    where = ["1"]
    values: list[str | float] = []
    for column, value in (("user", user), ("sid", sid)):
        if value:
            where.append(f"{column} = ?")
            # As it was written: octets that are no UTF-8 have been replaced.
            values.append(value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    if address:
        where.append("(address = ? OR calling = ?)")
        values += [address, address]
    if since is not None:
        where.append("(end IS NULL OR end >= ?)")
        values.append(since)
    if until is not None:
        where.append("start <= ?")
        values.append(until)
    if still:
        where.append("end IS NULL")
    statement = f"SELECT {COLUMNS} FROM session WHERE {' AND '.join(where)}"  # noqa: S608
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        db.row_factory = sqlite3.Row
        rows = db.execute(f"{statement} ORDER BY start DESC LIMIT ?", (*values, limit))
        return [dict(row) for row in rows.fetchall()]
    finally:
        db.close()


def _when(unix: float | None) -> str:
    return datetime.fromtimestamp(unix).strftime("%Y-%m-%d %H:%M:%S") if unix else "-"


def _size(octets: int) -> str:
    value, units = float(octets), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while value >= 1000 and unit != "PB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _lasted(row: dict[str, Any]) -> str:
    seconds = int((row["end"] or time.time()) - row["start"])
    days, rest = divmod(max(0, seconds), 86400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}+{text}" if days else text


@click.command("history")
@click.argument("user", required=False, default="")
@config_option
@set_option
@click.option("--since", default="", help="Up at or after: 2d, 90m, 2026-11-27, 2026-11-27T12:30.")
@click.option("--until", default="", help="Up at or before, in the same words.")
@click.option("--address", default="", help="Inner or outer address.")
@click.option("--sid", default="", help="One session.")
@click.option("--open", "still", is_flag=True, help="Only those that are up.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1 << 31),
    default=1000,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option("--state-dir", default="", help="Where the file is, if not as configured.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def history(
    user: str,
    path: str | None,
    overrides: tuple[str, ...],
    since: str,
    until: str,
    address: str,
    sid: str,
    still: bool,
    limit: int,
    state_dir: str,
    as_json: bool,
) -> None:
    """Show who was logged in, newest first.

    USER: only that one. Sessions are remembered for records.history_days days, those of
    local accounts and of RADIUS alike. Octets are inner ones; up is from the subscriber. A
    session that a crash ended has the counters of at most a minute before.

    Exit status: 0, 1 there is no history.
    """
    now = time.time()
    try:
        begin = moment(since, now) if since else None
        end = moment(until, now) if until else None
    except (ValueError, OverflowError):
        raise click.UsageError("a time is 90m, 12h, 2d, 2026-11-27 or 2026-11-27T12:30") from None
    days = 0
    if not state_dir:
        settings = configuration.load(path, overrides).settings
        days = settings.records.history_days
        base = os.path.basename(settings.server.run_dir or rundir.serving_run_dir())
        state_dir = settings.server.state_dir or os.path.join("/var/lib", base)
    file = Path(state_dir) / FILE
    try:
        rows = select(
            file,
            user=user,
            address=address,
            sid=sid,
            since=begin,
            until=end,
            still=still,
            limit=limit,
        )
    except (OSError, sqlite3.Error) as e:
        hint = "" if days else "; set records.history_days, and name the configuration by -c"
        click.echo(f"pptpcon: no history: {e}{hint}", err=True)
        raise SystemExit(EXIT_NONE) from None
    if as_json:
        click.echo(json.dumps({"sessions": rows}, indent=2))
        return
    line = "{:20} {:15} {:15} {:19} {:19} {:>12} {:>9} {:>9} {}"
    click.echo(
        line.format("user", "address", "from", "start", "end", "time", "up", "down", "cause")
    )
    for row in rows:
        click.echo(
            line.format(
                clean(row["user"]),
                row["address"] or "-",
                clean(row["calling"]),
                _when(row["start"]),
                _when(row["end"]) if row["end"] else "still up",
                _lasted(row),
                _size(row["input_octets"]),
                _size(row["output_octets"]),
                clean(row["cause"]) or "-",
            )
        )


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(history)
