"""`pptpcon drain`, `undrain`, `reload`, `shutdown`, `log-level`: steer the running service."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click

from ops.cli.control import (
    EXIT_VALUE,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)

EXIT_CONFIG: Final = 78  # as `pptpcon run` and check-config
RELOAD_S: Final = 45.0
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "default")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
worker_option = click.option(
    "--worker",
    "workers",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="This worker only; may be given again. Default: all.",
)


def _drain(workers: tuple[int, ...], on: bool, as_json: bool, run_dir: str | None) -> None:
    answer = Control(run_dir).post("/api/drain", {"workers": list(workers), "on": on})
    if as_json:
        click.echo(json.dumps(answer))
        return
    draining, calls = answer["draining"], answer["calls"]
    if not draining:
        click.echo("all workers get new calls")
        return
    names = ", ".join(map(str, draining))
    left = f"{calls} call{'s are' if calls != 1 else ' is'} left there"
    click.echo(f"no new calls for worker{'s' if len(draining) > 1 else ''} {names}; {left}")


@click.command(cls=ClientCommand, short_help="Give a worker, or all, no new calls.")
@worker_option
@json_option
@run_dir_option
def drain(workers: tuple[int, ...], as_json: bool, run_dir: str | None) -> None:
    """Give workers no new calls; those that are there go on. `undrain` takes it back.

    With all workers drained new calls are refused. `show workers` tells who is draining, and
    how many sessions are left.
    """
    _drain(workers, True, as_json, run_dir)


@click.command(cls=ClientCommand, short_help="Give drained workers new calls again.")
@worker_option
@json_option
@run_dir_option
def undrain(workers: tuple[int, ...], as_json: bool, run_dir: str | None) -> None:
    """Give drained workers new calls again."""
    _drain(workers, False, as_json, run_dir)


@click.command("reload", cls=ClientCommand, short_help="Read the configuration again.")
@json_option
@run_dir_option
def reload(as_json: bool, run_dir: str | None) -> None:
    """Read the configuration and the accounts again, as SIGHUP does, and say what came of it.

    Keys that only a restart can change keep their values and are named. A faulty file changes
    nothing: each fault is told with file and line, and the exit code is 78.
    """
    answer = Control(run_dir, timeout_s=RELOAD_S).post("/api/reload", {})
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    else:
        for line in answer["said"]:
            click.echo(line, err=not answer["ok"])
        if answer["ok"]:
            click.echo("\n".join(_reloaded(answer)))
    if not answer["ok"]:
        text = f"{answer['file']}: refused; the old configuration stays in force"
        raise ClientError(text, EXIT_CONFIG)


def _reloaded(answer: dict[str, Any]) -> list[str]:
    if not answer["file"]:
        return ["built-in defaults are in force: there is no file to read; accounts are read again"]
    lines = [f"{answer['file']}: read"]
    applied, kept = answer["applied"], answer["kept"]
    lines.append(f"in force now: {', '.join(applied)}" if applied else "nothing has changed")
    if kept:
        lines.append(f"in force after a restart only: {', '.join(kept)}")
    return lines


@click.command(cls=ClientCommand, short_help="End the service: now, or after the last session.")
@click.argument("how", metavar="[soft|hard|cancel]", required=False, default="now")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@run_dir_option
def shutdown(how: str, yes: bool, as_json: bool, run_dir: str | None) -> None:
    """End the service.

    \b
    (no word)  end all sessions properly, then end: 10 s at most
    soft       take no new calls, end when the last session has ended
    hard       end at once; clients find out by themselves
    cancel     undo soft

    On a terminal, what ends sessions is asked about first unless --yes is given. A service
    manager may start it again: `systemctl stop pptpcon` is for good.
    """
    if how not in ("now", "soft", "hard", "cancel"):
        raise click.BadParameter(f"{how!r} is not one of soft, hard, cancel")
    control = Control(run_dir)
    if how in ("now", "hard") and not yes and sys.stdin.isatty():
        used = control.get("/api/status")["slots"]["used"]
        if used:
            question = f"this ends {used} session{'s' if used != 1 else ''}; go on?"
            click.confirm(question, abort=True, err=True)
    answer = control.post("/api/shutdown", {"how": how})
    if not answer["ok"]:
        raise ClientError(answer["reason"], EXIT_VALUE)
    if as_json:
        click.echo(json.dumps(answer))
        return
    left = answer["sessions"]
    sessions = f"{left} session{'s' if left != 1 else ''}"
    if how == "cancel":
        click.echo(f"new calls are served again; {sessions}")
    elif how == "soft":
        click.echo(f"no new calls; ends after the last of {sessions} (`shutdown cancel` undoes it)")
    else:
        click.echo(f"ending, with {sessions}")


@click.command("log-level", cls=ClientCommand, short_help="Change what is logged, at run time.")
@click.argument("level", metavar="LEVEL")
@click.option("--session", "sid", metavar="SID", help="Lines about this session only.")
@click.option("--user", metavar="NAME", help="Lines about this user's sessions only.")
@json_option
@run_dir_option
def log_level(
    level: str, sid: str | None, user: str | None, as_json: bool, run_dir: str | None
) -> None:
    """Change what is logged until the next reload or restart.

    LEVEL is debug, info, notice, warning or error; default is what the configuration says.
    With --session or --user it is debug, which logs all lines about that session or user
    whatever the general level is, or default, which ends that.

    \b
      pptpcon log-level debug --user alice
      pptpcon log-level default --user alice
    """
    if level not in LEVELS:
        raise click.BadParameter(f"{level!r} is not one of {', '.join(LEVELS)}")
    if sid and user:
        raise click.UsageError("--session and --user exclude each other")
    name = sid.lower().rjust(16, "0") if sid else user or ""
    if name and level not in ("debug", "default"):
        raise click.UsageError("with --session or --user the level is debug or default")
    answer = Control(run_dir).post("/api/log-level", {"level": level, "name": name})
    if not answer["ok"]:
        raise ClientError(answer["reason"], EXIT_VALUE)
    if as_json:
        click.echo(json.dumps(answer))
        return
    debugged = answer["debugged"]
    tail = f"; all lines about {', '.join(debugged)}" if debugged else ""
    click.echo(f"log level {answer['level']}{tail}")


def register(group: click.Group) -> None:
    """Add the commands."""
    for command in (drain, undrain, reload, shutdown, log_level):
        group.add_command(command)
