"""`pptpcon unban ...`: lifts bans."""

from __future__ import annotations

import click

from ops.cli.control import (
    EXIT_NOTHING,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)


@click.command(cls=ClientCommand, short_help="Lift the ban of a user or a source address.")
@click.argument("kind", type=click.Choice(["user", "source", "all"]))
@click.argument("name", required=False, default="")
@run_dir_option
def unban(kind: str, name: str, run_dir: str | None) -> None:
    """Lift the ban of a user or a source address, or all bans, and forget the failures.

    A user is banned without its realm, in small letters, as `pptpcon show bans` has it.
    """
    if kind == "all" and name:
        raise click.UsageError("`unban all` takes no name")
    if kind != "all" and not name:
        raise click.UsageError(f"name the {kind}")
    count = Control(run_dir).post("/api/unban", {"kind": kind, "name": name})["count"]
    if not count:
        none = "nobody" if kind == "all" else f"no {kind} {name!r}"
        raise ClientError(
            f"{none} has failed to log in lately; see `pptpcon show bans`", EXIT_NOTHING
        )
    click.echo(f"{count} forgotten")


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(unban)
