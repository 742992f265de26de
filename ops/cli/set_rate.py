"""`pptpcon set-rate ...`: another rate or filter for sessions that are up."""

from __future__ import annotations

import json
from typing import Any

import click

from ops.cli.control import (
    EXIT_NOTHING,
    EXIT_VALUE,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)
from ops.rates import parse_pair


class Pair(click.ParamType[tuple[int, int]]):
    """DOWN/UP, or one for both."""

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Bits a second; -1: none."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_pair(str(value))
        except ValueError as e:
            self.fail(str(e), param, ctx)


@click.command(
    "set-rate", cls=ClientCommand, short_help="Change the rate or the filter of live sessions."
)
@click.argument("by", metavar="sid|username|ip|csid|all")
@click.argument("value")
@click.argument("rate", type=Pair(), required=False, metavar="[DOWN/UP]")
@click.option("--filter", "name", metavar="NAME", help='Of [filters.NAME]; "" takes it away.')
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@run_dir_option
def set_rate(
    by: str,
    value: str,
    rate: tuple[int, int] | None,
    name: str | None,
    as_json: bool,
    run_dir: str | None,
) -> None:
    """Change the rates of the sessions with this sid, username, inner address (ip) or peer
    address (csid), until they end; for all write `all ""`.

    \b
    Down is to the subscriber. A rate is 512k, 10M or 1G; one alone is for both ways.
    0 is the general rate of [shaping], none is no rate at all.
      pptpcon set-rate username alice 10M/2M
      pptpcon set-rate ip 10.99.1.7 none --filter guest
    """
    changes: dict[str, Any] = {}
    if rate is not None:
        changes |= {"rate_down": rate[0], "rate_up": rate[1], "burst_down": 0, "burst_up": 0}
    if name is not None:
        changes["filter"] = name
    if not changes:
        raise click.UsageError("say a rate, as in 10M/2M, or --filter NAME")
    answer = Control(run_dir).post("/api/change", {"by": by, "value": value, "changes": changes})
    count, errors = answer["count"], answer["errors"]
    if as_json:
        click.echo(json.dumps(answer))
    elif count:
        click.echo(f"{count} session{'s' if count != 1 else ''} changed")
    if errors:
        raise ClientError("; ".join(errors), EXIT_VALUE)
    if not count:
        what = "session" if by == "all" else f"session with {by} {value!r}"
        raise ClientError(f"no {what}", EXIT_NOTHING)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(set_rate)
