"""`pptpcon check-config`: all problems of a configuration at once."""

from __future__ import annotations

import click

from ops.cli import configuration
from ops.cli.configuration import set_option


@click.command("check-config")
@click.argument("path", metavar="[FILE]", required=False)
@set_option
def check_config(path: str | None, overrides: tuple[str, ...]) -> None:
    """Check a configuration without starting anything.

    Every problem is one line, FILE:LINE: KEY: what it must be, got what. Also asks
    this host for the user, the CPUs and the chap-secrets file that it names.
    Without FILE it is /etc/pptpcon/pptpcon.toml, or the built-in defaults.

    Exit status: 0 usable (there may be warnings), 78 not.
    """
    found = configuration.load(path, overrides)
    for warning in found.warnings:
        click.echo(warning, err=True)
    click.echo(f"ok: {found.source}")
    click.echo(f"    {configuration.summary(found.settings)}")


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(check_config)
