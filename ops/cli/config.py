"""`pptpcon config show`: the values in effect."""

from __future__ import annotations

import click

from ops.cli import configuration
from ops.cli.configuration import config_option, set_option


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command(short_help="Print every value in effect as TOML.")
@config_option
@set_option
@click.option("--defaults", is_flag=True, help="Print the commented example with all defaults.")
def show(path: str | None, overrides: tuple[str, ...], defaults: bool) -> None:
    """Print every value in effect as TOML, defaults included, passwords masked.

    Addresses of ip.local are already cut out of the pools.

    \b
    pptpcon config show --defaults > pptpcon.toml     a file to start from
    """
    if defaults:
        from ops.config.example import example  # noqa: PLC0415

        click.echo(example(), nl=False)
        return
    from ops.config.show import to_toml  # noqa: PLC0415

    found = configuration.load(path, overrides)
    for warning in found.warnings:
        click.echo(warning, err=True)
    click.echo(f"# {found.source}")
    click.echo(to_toml(found.settings), nl=False)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(config)
