"""`pptpcon doctor`: what on this host keeps subscribers out, and what mends it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ops.cli import configuration
from ops.cli.configuration import config_option, set_option

EXIT_WARNINGS = 1
EXIT_ERRORS = 2


@click.command("doctor")
@config_option
@set_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--nft", "as_rules", is_flag=True, help="Print the firewall rules that are needed.")
def doctor(path: str | None, overrides: tuple[str, ...], as_json: bool, as_rules: bool) -> None:
    """Say what on this host keeps subscribers out.

    Firewall, routes, port 1723, limits, devices, clock: of each thing found, where it is
    and what mends it. Changes nothing. For a host that is to serve as well as for one that
    does; root sees most.

    Exit status: 0 nothing to mend, 1 warnings, 2 something keeps subscribers out,
    78 the configuration is faulty.
    """
    found = configuration.load(path, overrides)
    from ops.doctor import rules  # noqa: PLC0415 - pyroute2 takes 0.2 s to import
    from ops.doctor.examine import CHECKS, examine  # noqa: PLC0415
    from ops.doctor.finding import LEVELS  # noqa: PLC0415
    from ops.doctor.host import Host  # noqa: PLC0415

    if as_rules:
        for line in rules.commands(found.settings):
            click.echo(line)
        return
    findings = examine(Host(found.settings))
    levels = {finding.level for _, finding in findings}
    if as_json:
        rows = [{"check": check, **asdict(finding)} for check, finding in findings]
        click.echo(json.dumps({"findings": rows, "checks": list(CHECKS)}, indent=2))
    else:
        for check, finding in findings:
            click.echo(f"{finding.level:8}{check:11} {finding.where}: {finding.what}")
            if finding.mend:
                click.echo(f"{'':20}-> {finding.mend}")
        counts = [(level, sum(f.level == level for _, f in findings)) for level in LEVELS]
        told = ", ".join(f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts if n)
        click.echo(f"{len(CHECKS)} checks: {told or 'nothing found'}")
    if "error" in levels:
        raise SystemExit(EXIT_ERRORS)
    if "warning" in levels:
        raise SystemExit(EXIT_WARNINGS)


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(doctor)
