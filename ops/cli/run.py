"""`pptpcon run`: validate, then become the keeper."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from ops.cli import configuration
from ops.cli.configuration import config_option, set_option

EX_UNAVAILABLE = 69
EX_NOPERM = 77
# linux/capability.h
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13


@click.command()
@config_option
@set_option
def run(path: str | None, overrides: tuple[str, ...]) -> None:
    """Serve PPTP in the foreground, until SIGTERM or Ctrl-C.

    Needs root: it opens GRE (IP protocol 47) and TUN devices and adds routes. It changes
    no sysctl, and no nftables table but its own. What reads packets and messages of
    strangers runs as the unprivileged user server.user.

    SIGHUP reads the configuration again; SIGTERM ends all calls properly and stops, a
    second SIGTERM stops at once.

    \b
    Without a file: account "demo" with a random password (printed), addresses
    10.99.1.0 to 10.99.2.255, MPPE-128 required.

    \b
    Exit status: 0 stopped as asked, 69 something needed is not there (an address
    or a port is taken, no /dev/net/tun), 77 permission, 78 configuration.
    """
    found = configuration.load(path, overrides)
    for warning in found.warnings:
        click.echo(warning, err=True)
    _require_privilege()
    click.echo(f"pptpcon: configuration: {found.source}", err=True)
    click.echo(f"pptpcon: {configuration.summary(found.settings)}", err=True)
    if found.password:
        name = found.settings.accounts.users[0][0]
        click.echo(f'pptpcon: account for this run: "{name}", password {found.password}', err=True)
    _become_keeper(found, overrides)


def _require_privilege() -> None:
    """Exit 77 unless this process may do what the keeper has to."""
    wanted = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW
    held = 0
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
    if held & wanted != wanted:
        click.echo(
            "pptpcon: needs CAP_NET_ADMIN and CAP_NET_RAW (GRE, TUN, routes): run it as root",
            err=True,
        )
        raise SystemExit(EX_NOPERM)


def _become_keeper(found: configuration.Configuration, overrides: tuple[str, ...]) -> None:
    from ops.boot import make_memfd  # noqa: PLC0415
    from ops.config.overrides import VARIABLE  # noqa: PLC0415
    from ops.settings import dumps  # noqa: PLC0415

    fd = make_memfd("pptpcon-settings", dumps(found.settings))
    os.set_inheritable(fd, True)
    argv = [sys.executable, "-m", "dispatcher.keeper", "--config-fd", str(fd)]
    if found.path:
        argv += ["--config-path", os.path.abspath(found.path)]
    environment = dict(os.environ)
    environment.pop(VARIABLE, None)
    if overrides:
        environment[VARIABLE] = json.dumps(overrides)
    # Modules come from where this one did, never from the working folder.
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONSAFEPATH"] = "1"
    if Path(root).name not in ("site-packages", "dist-packages"):
        rest = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = f"{root}:{rest}" if rest else root
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, argv, environment)  # noqa: S606 - no shell is wanted
    except OSError as e:
        click.echo(f"pptpcon: can't start {sys.executable}: {e.strerror}", err=True)
        raise SystemExit(EX_UNAVAILABLE) from None


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(run)
