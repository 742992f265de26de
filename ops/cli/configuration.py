"""Which configuration a command means, shared by run, check-config and config show."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from ops.settings import Settings

SYSTEM_FILE: Final = "/etc/pptpcon/pptpcon.toml"
EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True)
class Configuration:
    """Valid settings and where they come from."""

    settings: Settings
    path: str  # "" when no file was read
    password: str  # of the generated account, "" with a file
    warnings: tuple[str, ...]

    @property
    def source(self) -> str:
        """For people."""
        return self.path or f"built-in defaults (there is no {SYSTEM_FILE})"


def load(path: str | None, overrides: tuple[str, ...]) -> Configuration:
    """The file named, else the system's, else the defaults; exits 78 with all problems.

    A pptpcon.toml that happens to lie in the working folder is not taken: who starts a
    root process in a foreign folder would serve that folder's configuration.
    """
    from ops.config.defaults import embedded  # noqa: PLC0415 - pydantic takes 0.1 s to import
    from ops.config.load import load_file, load_overrides  # noqa: PLC0415
    from ops.config.problems import ConfigError  # noqa: PLC0415

    if path is None and os.path.exists(SYSTEM_FILE):
        path = SYSTEM_FILE
    try:
        if path is not None:
            loaded = load_file(path, overrides)
            return Configuration(loaded.settings, path, "", loaded.warnings)
        base, password = embedded()
        loaded = load_overrides(overrides, base)
        return Configuration(loaded.settings, "", password, loaded.warnings)
    except ConfigError as e:
        for problem in e.problems:
            click.echo(problem, err=True)
        count = len(e.problems)
        click.echo(f"pptpcon: {count} problem{'s' if count != 1 else ''}, nothing done", err=True)
        raise SystemExit(EX_CONFIG) from None


config_option = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    help=f"Configuration file (TOML). Without it {SYSTEM_FILE}, if there is one, else built-in"
    " defaults.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override one value, as in --set ppp.mtu=1300 or --set ip.dns=10.0.0.1,10.0.0.2."
    " Repeatable; also applied when the file is reloaded. Not for passwords.",
)


def summary(settings: Settings) -> str:
    """One line on what a configuration serves."""
    from ops.ranges import count, parse_ranges  # noqa: PLC0415

    pools = [
        (pool.name, sum(count(parse_ranges(text)) for text in pool.ranges))
        for pool in settings.pools
    ]
    shown = ", ".join(f"{name} {size}" for name, size in pools[:4])
    more = f" and {len(pools) - 4} more pools" if len(pools) > 4 else ""
    accounts = settings.accounts
    servers = len(settings.radius.servers)
    sources = (
        f"{len(accounts.users)} in accounts.users" if accounts.users else "",
        accounts.chap_secrets,
        f"{servers} RADIUS server{'s' if servers > 1 else ''}" if servers else "",
    )
    return (
        f"{settings.listen.address}:{settings.listen.port}, auth"
        f" {'+'.join(settings.ppp.auth)}, MPPE {settings.mppe.policy}"
        f" {'/'.join(str(bits) for bits in settings.mppe.strengths)},"
        f" addresses: {shown}{more}, slots {settings.limits.max_sessions},"
        f" accounts: {' and '.join(filter(None, sources)) or 'none'}"
    )
