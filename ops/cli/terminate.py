"""`pptpcon terminate ...`: ends sessions."""

from __future__ import annotations

import json

import click

from ops.cli.control import (
    EXIT_NOTHING,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)


@click.command(cls=ClientCommand, short_help="End sessions by sid, name or address.")
@click.argument("by", metavar="sid|username|ip|csid|all")
@click.argument("value", required=False, default="")
@click.option(
    "--soft/--hard",
    default=True,
    help="Soft (default): LCP Terminate-Request first. Hard: drop the call at once.",
)
@click.option("--yes", is_flag=True, help="Needed for all.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@run_dir_option
def terminate(
    by: str, value: str, soft: bool, yes: bool, as_json: bool, run_dir: str | None
) -> None:
    """End the sessions with this sid, username, inner address (ip) or peer address (csid)."""
    if by == "all":
        if value:
            raise click.UsageError("`terminate all` takes no value")
        if not yes:
            raise click.UsageError("`terminate all` ends every session; add --yes if you mean it")
    elif not value and by in ("sid", "username", "ip", "csid"):
        raise click.UsageError(f"name the {by} whose sessions to end")
    answer = Control(run_dir).post("/api/terminate", {"by": by, "value": value, "soft": soft})
    count = answer["count"]
    if as_json:
        click.echo(json.dumps(answer))
    elif count:
        click.echo(f"ending {count} session{'s' if count != 1 else ''}")
    if not count:
        what = "session" if by == "all" else f"session with {by} {value!r}"
        raise ClientError(f"no {what}", EXIT_NOTHING)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(terminate)
