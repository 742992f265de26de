"""`pptpcon import-config`: another server's files as our configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ops.config.draft import Imported

EX_CONFIG = 78


@click.group("import-config")
def import_config() -> None:
    """Turn another server's configuration into ours."""


@import_config.command(short_help="Print the TOML for a pptpd.conf.")
@click.argument("path", metavar="PATH")
@click.option(
    "--secrets",
    "--chap-secrets",
    "secrets",
    metavar="FILE",
    help="chap-secrets file. Otherwise the one beside PATH, or /etc/ppp/chap-secrets.",
)
@click.option(
    "--options",
    metavar="FILE",
    help="pppd's options file, read alone. Otherwise ppp/options beside PATH and the file that"
    " PATH names with its key option.",
)
def pptpd(path: str, secrets: str | None, options: str | None) -> None:
    """Print the TOML for PATH, a pptpd.conf, with the options and chap-secrets it uses.

    Files beside PATH (or in ppp/ beside it) are taken before those in /etc, so a copy of
    another host's /etc can be imported. chap-secrets itself is not changed: pptpcon reads it.

    Every value has its origin as a comment. What is lost, and what to do about it, is
    told on standard error as FILE:LINE: OPTION: ..., and again at the end of the TOML.

    \b
    pptpcon import-config pptpd /etc/pptpd.conf > pptpcon.toml
    pptpcon check-config pptpcon.toml

    Exit status: 0 usable, 78 PATH is no pptpd.conf or can't be read.
    """
    from ops.config.pptpd.importer import import_pptpd  # noqa: PLC0415

    _print(lambda: import_pptpd(path, secrets=secrets, options=options))


@import_config.command("accel-ppp", short_help="Print the TOML for an accel-ppp.conf.")
@click.argument("path", metavar="PATH")
@click.option(
    "--secrets",
    "--chap-secrets",
    "secrets",
    metavar="FILE",
    help="chap-secrets file. Otherwise the one that PATH names, or /etc/ppp/chap-secrets.",
)
def accel_ppp(path: str, secrets: str | None) -> None:
    """Print the TOML for PATH, an accel-ppp.conf.

    Its PPTP, PPP, RADIUS, pool, shaper and limit settings are taken over; what is about other
    services, or has no counterpart, is told on standard error as FILE:LINE: [SECTION] KEY: ...,
    with what to do, and again at the end of the TOML. The output holds the RADIUS secrets:
    write it to a file that only root can read.

    \b
    (umask 077; pptpcon import-config accel-ppp /etc/accel-ppp.conf > pptpcon.toml)
    pptpcon check-config pptpcon.toml

    Exit status: 0 usable, 78 PATH is no accel-ppp.conf or can't be read.
    """
    from ops.config.accel.importer import import_accel  # noqa: PLC0415

    _print(lambda: import_accel(path, secrets=secrets))


def _print(make: Callable[[], Imported]) -> None:
    from ops.config.problems import ConfigError  # noqa: PLC0415

    try:
        result = make()
    except ConfigError as e:
        for problem in e.problems:
            click.echo(problem, err=True)
        raise SystemExit(EX_CONFIG) from None
    click.echo(result.toml, nl=False)
    for note in result.notes:
        click.echo(note, err=True)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(import_config)
