"""`pptpcon terminate ...`: ends sessions."""

from __future__ import annotations

import json
import re
from typing import Final

import click

from ops.cli.control import (
    EXIT_NOTHING,
    EXIT_VALUE,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)

BY: Final = ("sid", "username", "ip", "csid", "if", "match", "all")
HARDNESS: Final = ("soft", "hard")
BATCH: Final = 200  # sids of one request


@click.command(cls=ClientCommand, short_help="End sessions by sid, name or address.")
@click.argument("by", metavar="sid|username|ip|csid|if|match|all")
@click.argument("words", nargs=-1, metavar="[VALUE] [soft|hard]")
@click.option(
    "--soft/--hard",
    default=None,
    help="Soft (default): LCP Terminate-Request first. Hard: drop the call at once.",
)
@click.option("--yes", is_flag=True, help="Needed for all and match.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@run_dir_option
def terminate(
    by: str,
    words: tuple[str, ...],
    soft: bool | None,
    yes: bool,
    as_json: bool,
    run_dir: str | None,
) -> None:
    """End the sessions with this sid, username, inner address (ip), peer address (csid), or
    interface (if: ifname of `show sessions`).

    \b
      pptpcon terminate username alice
      pptpcon terminate ip 10.99.1.7 hard
      pptpcon terminate match username '^shop-' --yes    a regular expression
      pptpcon terminate all --yes
    """
    value, pattern, soft = _read(by, list(words), soft)
    control = Control(run_dir)
    if pattern is not None:
        sids = _matching(control, pattern)
        if not sids:
            raise ClientError(f"no session whose username matches {value!r}", EXIT_NOTHING)
        if not yes:
            what = f"{len(sids)} session{'s' if len(sids) != 1 else ''}"
            raise click.UsageError(f"this ends {what}; add --yes if you mean it")
        count = 0
        for at in range(0, len(sids), BATCH):
            chosen = ",".join(sids[at : at + BATCH])
            body = {"by": "sids", "value": chosen, "soft": soft}
            count += control.post("/api/terminate", body)["count"]
    else:
        if by == "all" and not yes:
            raise click.UsageError("`terminate all` ends every session; add --yes if you mean it")
        body = {"by": by, "value": value, "soft": soft}
        count = control.post("/api/terminate", body)["count"]
    if as_json:
        click.echo(json.dumps({"count": count}))
    elif count:
        click.echo(f"ending {count} session{'s' if count != 1 else ''}")
    if not count:
        what = "session" if by == "all" else f"session with {by} {value!r}"
        raise ClientError(f"no {what}", EXIT_NOTHING)


def _read(by: str, words: list[str], soft: bool | None) -> tuple[str, re.Pattern[str] | None, bool]:
    """(value, what names must match, softly), in any of the ways to write it."""
    if by not in BY:
        raise click.BadParameter(f"{by!r} is not one of {', '.join(BY)}")
    if by == "match" and (not words or words.pop(0) != "username" or not words):
        raise click.UsageError("write `terminate match username RE`")
    value = words.pop(0) if words and by != "all" else ""
    if words and words[0] in HARDNESS:
        word = words.pop(0) == "soft"
        if soft is not None and soft is not word:
            raise click.UsageError("soft and hard exclude each other")
        soft = word
    if by == "all" and words:
        raise click.UsageError("`terminate all` takes no value")
    if words:
        raise click.UsageError(f"{words[0]!r} is neither soft nor hard")
    if by not in ("all", "match") and not value:
        raise click.UsageError(f"name the {by} whose sessions to end")
    pattern = None
    if by == "match":
        try:
            pattern = re.compile(value)
        except re.error as e:
            raise ClientError(f"{value!r} is no regular expression: {e}", EXIT_VALUE) from None
    return value, pattern, soft is not False


def _matching(control: Control, pattern: re.Pattern[str]) -> list[str]:
    rows = control.get("/api/sessions?columns=sid,username")["rows"]
    return [sid for sid, user in rows if user and pattern.search(user)]


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(terminate)
