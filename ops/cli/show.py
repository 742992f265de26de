"""`pptpcon show ...`: asks the console over the control socket.

Words and columns as accel-cmd's, so that habits work.
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import click

from ops.cli import tables
from ops.cli.control import (
    EXIT_NOTHING,
    EXIT_VALUE,
    ClientCommand,
    ClientError,
    ClientGroup,
    Control,
    run_dir_option,
)

DEFAULT_COLUMNS: Final = "sid,username,ip,csid,worker,state,uptime,mppe,rx-bytes,tx-bytes"
# What to order by when the column itself is text for people.
ORDER_BY: Final = {
    "uptime": "uptime-raw",
    "rx-bytes": "rx-bytes-raw",
    "tx-bytes": "tx-bytes-raw",
    "loss": "loss-raw",
}
ADDRESSES: Final = ("ip", "csid", "calling-sid", "called-sid")
HISTORY: Final = 20  # ends that `show session` shows

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group(cls=ClientGroup)
def show() -> None:
    """Show what the running concentrator does."""


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(show)


# -- sessions


# `order -rx-bps` is no option.
@show.command("sessions", cls=ClientCommand, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[COLUMNS] [order COLUMN] [match COLUMN RE] [limit N]")
@click.option("--match", nargs=2, metavar="COLUMN RE", help="Those whose COLUMN matches RE.")
@click.option("--order", metavar="COLUMN", help="Sorted; -COLUMN: largest first.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="The first N only.")
@click.option("--csv", "as_csv", is_flag=True, help="As comma separated values.")
@json_option
@run_dir_option
def sessions(
    words: tuple[str, ...],
    match: tuple[str, str] | None,
    order: str | None,
    limit: int | None,
    as_csv: bool,
    as_json: bool,
    run_dir: str | None,
) -> None:
    """List the sessions.

    \b
      pptpcon show sessions
      pptpcon show sessions username,ip,rx-bps,tx-bps order -tx-bps limit 10
      pptpcon show sessions sid,username match username '^shop-'

    COLUMNS is a list with commas; a table has the usual ones by default, --json and --csv
    have all: sid username ip csid worker state uptime uptime-raw age-raw auth mppe mtu
    rx-bytes tx-bytes rx-bytes-raw tx-bytes-raw rx-pkts tx-pkts rx-bps tx-bps drops loss
    loss-raw rate-limit call-id peer-call-id connection, and accel-ppp's ifname type comp
    calling-sid called-sid ip6 netns vrf ip6-dp inbound-if service-name. rx is from the
    subscriber; octets are those of inner IP packets; bps is bit/s of the last seconds; loss is
    what of the subscriber's packets never came, by their sequence numbers. order, match and
    limit may be written as options, too.
    """
    columns, match, order, limit = _words(words, match, order, limit)
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    pattern = _pattern(match[1]) if match else None
    by = (order or "").removeprefix("-")
    wanted = columns if columns or as_csv or as_json else DEFAULT_COLUMNS
    extra = [name for name in (match[0] if match else "", ORDER_BY.get(by, by)) if name]
    head, rows = _fetch(Control(run_dir), wanted, extra)
    if match and pattern:
        at = head.index(match[0])
        rows = [row for row in rows if pattern.search("" if row[at] is None else str(row[at]))]
    if by:
        _sort(rows, head.index(ORDER_BY.get(by, by)), by, (order or "").startswith("-"))
    shown = len(head) - len(extra)
    head, rows = head[:shown], [row[:shown] for row in rows[:limit]]
    if as_json:
        click.echo(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=1))
    elif as_csv:
        click.echo(_csv(head, rows), nl=False)
    else:
        tables.show(head, rows)
    if match and not rows:
        raise ClientError(f"no session whose {match[0]} matches {match[1]!r}", EXIT_NOTHING)


def _words(
    words: tuple[str, ...],
    match: tuple[str, str] | None,
    order: str | None,
    limit: int | None,
) -> tuple[str | None, tuple[str, str] | None, str | None, int | None]:
    """accel-cmd's way to write it: `show sessions COLUMNS order C match C RE`."""
    columns = None
    rest = list(words)
    if rest and rest[0].startswith("-"):
        raise click.NoSuchOption(rest[0])
    if rest and rest[0] not in ("order", "match", "limit"):
        columns = rest.pop(0)
    while rest:
        word = rest.pop(0)
        if word == "order" and rest:
            order = rest.pop(0)
        elif word == "match" and len(rest) > 1:
            match = rest.pop(0), rest.pop(0)
        elif word == "limit" and rest and rest[0].isdecimal():
            limit = int(rest.pop(0))
        elif word in ("order", "match", "limit"):
            shapes = {"order": "order COLUMN", "match": "match COLUMN RE", "limit": "limit N"}
            raise click.UsageError(f"write `{shapes[word]}`")
        else:
            raise click.UsageError(
                f"{word!r} is not order, match or limit; columns are one list with commas"
            )
    return columns, match, order, limit


def _fetch(
    control: Control, wanted: str | None, extra: list[str]
) -> tuple[list[str], list[list[Any]]]:
    if wanted is None:
        # All columns: their names come with the answer; the extra ones are among them.
        answer = control.get("/api/sessions")
        names: list[str] = answer["columns"]
        missing = [name for name in extra if name not in names]
        if missing:
            known = ", ".join(names)
            raise ClientError(f"unknown column {missing[0]!r}; known: {known}", EXIT_VALUE)
        at = [names.index(name) for name in extra]
        rows = [[*row, *(row[i] for i in at)] for row in answer["rows"]]
        return [*names, *extra], rows
    query = quote(",".join([wanted, *extra]), safe=",")
    answer = control.get(f"/api/sessions?columns={query}")
    return answer["columns"], answer["rows"]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise ClientError(f"--match: {text!r} is no regular expression: {e}", EXIT_VALUE) from None


def _sort(rows: list[list[Any]], at: int, column: str, down: bool) -> None:
    def key(row: list[Any]) -> tuple[int, ...] | tuple[str] | Any:
        value = row[at]
        return tuple(map(int, value.split("."))) if column in ADDRESSES else value

    # What has no value comes last in both directions.
    known = sorted((row for row in rows if row[at] is not None), key=key, reverse=down)
    rows[:] = [*known, *(row for row in rows if row[at] is None)]


def _csv(head: list[str], rows: list[list[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([tables.clean(c) for c in row] for row in rows)
    return out.getvalue()


# -- one session


@show.command("session", cls=ClientCommand, short_help="Show all about one session, or a user's.")
@click.argument("name", metavar="SID|USER|IP")
@json_option
@run_dir_option
def session(name: str, as_json: bool, run_dir: str | None) -> None:
    """Show all about one session (or each session of a user), and how earlier ones ended.

    --json is one object: "sessions" that are there, "ends" newest first.
    """
    if not name:
        raise ClientError("name a sid, a user or an inner address", EXIT_VALUE)
    control = Control(run_dir)
    quoted = quote(name, safe="", errors="surrogateescape")
    found = control.get(f"/api/session/{quoted}") or []
    past: list[dict[str, Any]] = []
    lacking = ""
    try:
        past = control.get(f"/api/ends?name={quoted}&limit={HISTORY}") or []
    except ClientError as e:  # the dispatcher is away: what is there can be told all the same
        lacking = f"; the calls that ended are not known: {e.message}"
    if not found and not past:
        text = f"no session {name!r}{lacking}; see `pptpcon show sessions` and `show ends`"
        raise ClientError(text, EXIT_NOTHING)
    if lacking and not as_json:
        click.echo(lacking.removeprefix("; "), err=True)
    if as_json:
        click.echo(json.dumps({"sessions": found, "ends": past}, indent=1))
        return
    for i, one in enumerate(found):
        if i:
            click.echo()
        for key, value in _flat(one):
            click.echo(f"{key}: {value}".rstrip())
    if past:
        click.echo("\nended:" if found else "ended:")
        _ends(past)


@show.command("ends", cls=ClientCommand, short_help="Show how calls ended, and why.")
@click.argument("name", required=False, metavar="[SID|USER|IP]")
@click.option(
    "--limit", type=click.IntRange(0, 999999), default=50, show_default=True, help="0: all."
)
@json_option
@run_dir_option
def ends(name: str | None, limit: int, as_json: bool, run_dir: str | None) -> None:
    """Show how calls ended, newest first: one cause each, and why in a sentence.

    The newest 1024 are remembered until the dispatcher ends; the log has all. seconds is
    the time it was up, or was trying to be.
    """
    quoted = quote(name or "", safe="", errors="surrogateescape")
    past = Control(run_dir).get(f"/api/ends?name={quoted}&limit={limit}")
    if as_json:
        click.echo(json.dumps(past, indent=1))
    elif past:
        _ends(past)
    elif not name:
        click.echo("no call has ended yet")
    if name and not past:
        raise ClientError(f"no call of {name!r} is known to have ended", EXIT_NOTHING)


def _ends(past: list[dict[str, Any]]) -> None:
    head = ["time", *(column for column in past[0] if column != "time")]
    for call in past:
        call["time"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(call["time"]))
    tables.show(head, [[call[column] for column in head] for call in past])


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = prefix + tables.clean(key)
        if isinstance(item, dict):
            yield from _flat(item, name + ".")
        elif isinstance(item, list):
            yield name, ", ".join(map(tables.clean, item))
        else:
            yield name, tables.clean(item)


# -- the rest


@show.command("stat", cls=ClientCommand)
@json_option
@run_dir_option
def stat(as_json: bool, run_dir: str | None) -> None:
    """Show sums: sessions, connections, refusals, drops."""
    found = Control(run_dir).get("/api/stat")
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(_stat(found)))


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days}.{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _section(title: str, values: dict[str, Any], *, all_of_them: bool = False) -> Iterator[str]:
    """A heading and its lines; zeros are left out of long lists."""
    kept = {k: v for k, v in values.items() if v or all_of_them}
    yield f"{title}:" if kept else f"{title}: none"
    for key, value in kept.items():
        yield f"  {key.replace('_', ' ')}: {value}"


def _stat(s: dict[str, Any]) -> Iterator[str]:
    yield f"uptime: {_duration(s['uptime_s'])}"
    yield f"cpu: {s['cpu_percent']:g}%"
    yield f"mem(rss/virt): {s['memory_resident'] // 1024}/{s['memory_virtual'] // 1024} kB"
    config = s["config"]
    loaded = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(config["loaded_unix"]))
    verdict = "good" if config["good"] else "the last reload was refused; see the log"
    yield f"config: loaded {loaded if config['loaded_unix'] else 'never'}, {verdict}"
    yield "calls: " + ("served" if s["ready"] else f"not served: {', '.join(s['not_ready'])}")
    slots = s["slots"]
    values = {**s["sessions"], "slots": f"{slots['used']}/{slots['capacity']}"}
    yield from _section("sessions", values, all_of_them=True)
    yield from _section("control connections", s["connections"], all_of_them=True)
    yield from _section("pptp", s["pptp"], all_of_them=True)
    tried = {
        method: ", ".join(f"{result} {n}" for result, n in results.items())
        for method, results in s["authentications"].items()
        if any(results.values())
    }
    yield from _section("authentication", tried)
    yield from _section("refusals", s["refusals"])
    yield from _section("ended", s["ended"])
    yield from _section("traffic", s["traffic"], all_of_them=True)
    yield from _section("drops from subscribers", s["drops"]["receive"])
    yield from _section("drops to subscribers", s["drops"]["transmit"])
    yield "workers:"
    for w in s["workers"]:
        yield f"  {w['worker']}: {w['state']}, sessions {w['sessions']}, restarts {w['restarts']}"


@show.command("workers", cls=ClientCommand)
@json_option
@run_dir_option
def workers(as_json: bool, run_dir: str | None) -> None:
    """Show the worker processes, one a line.

    cpu is the CPU of the data thread; *-cpu-s are CPU seconds used, control meaning all
    threads but the data thread; *-beat-s is the time since the thread last showed life.
    """
    _rows(Control(run_dir).get("/api/workers"), as_json)


@show.command("ippool", cls=ClientCommand, short_help="Show the address pools.")
@json_option
@run_dir_option
def ippool(as_json: bool, run_dir: str | None) -> None:
    """Show the address pools, one a line; "(static)" are addresses outside of all."""
    found = Control(run_dir).get("/api/ippool")
    if not as_json:
        for pool in found:
            total = pool["total"]
            pool["usage"] = f"{100 * pool['used'] / total:.1f}%" if total else None
    _rows(found, as_json)


@show.command("radius", cls=ClientCommand, short_help="Show the RADIUS servers.")
@json_option
@run_dir_option
def radius(as_json: bool, run_dir: str | None) -> None:
    """Show the RADIUS servers, one a line, and accounting that is not delivered.

    A server stands there once for logins and once for accounting. "again" counts requests
    that were repeated, "lost" those that went on to the next server, "bad" answers that were
    no good; --json and the log have their reasons.
    """
    found = Control(run_dir).get("/api/radius")
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if not found["servers"]:
        click.echo("no RADIUS servers: see [[radius.servers]] in the configuration")
        return
    for row in found["servers"]:
        del row["faults"]
    _rows(found["servers"], as_json)
    click.echo(f"accounting records not delivered: {found['backlog']} ({found['journal']})")


@show.command("hooks", cls=ClientCommand, short_help="Show programs of [hooks] and failures.")
@json_option
@run_dir_option
def hooks(as_json: bool, run_dir: str | None) -> None:
    """Show how the programs of [hooks] ended, and the newest failures with what they said."""
    found = Control(run_dir).get("/api/hooks")
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for key, count in sorted(found["results"].items()):
        hook, _, result = key.partition(":")
        click.echo(f"{hook.replace('_', '-'):10} {result:12} {count}")
    click.echo(f"running {found['running']}, waiting {found['waiting']}")
    for each in found["failures"]:
        said = f": {each['line']}" if each["line"] else ""
        hook = each["hook"].replace("_", "-")
        click.echo(f"{hook} {each['name']} {each['user']} {each['reason']}{said}")


@show.command("bans", cls=ClientCommand, short_help="Show who is banned.")
@json_option
@run_dir_option
def bans(as_json: bool, run_dir: str | None) -> None:
    """Show users and source addresses that are banned after too many wrong passwords.

    `pptpcon unban` lifts a ban.
    """
    found = Control(run_dir).get("/api/bans")
    if not found and not as_json:
        click.echo("nobody is banned")
        return
    _rows(found, as_json)


def _rows(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        head = list(found[0])
        tables.show(head, [[row[name] for name in head] for row in found])


@show.command("version", cls=ClientCommand, short_help="Show the version that runs.")
@json_option
@run_dir_option
def version(as_json: bool, run_dir: str | None) -> None:
    """Show the version that runs (`pptpcon version`: the one installed)."""
    found = Control(run_dir).get("/api/version")
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for key, value in _flat(found):
        click.echo(f"{key}: {value}")
