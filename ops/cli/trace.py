"""`pptpcon trace ...`: what one subscriber and we say to each other, as it happens."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import click

from ops.cli.control import (
    EXIT_VALUE,
    ClientCommand,
    ClientError,
    Control,
    run_dir_option,
)
from ops.cli.pcapng import Pcapng
from ops.cli.stopped import Stopped, signals
from ops.cli.tables import clean
from ops.version import VERSION

BY: Final = {
    "user": "username",
    "username": "username",
    "sid": "sid",
    "ip": "ip",
    "csid": "csid",
    "peer": "csid",
}
PPTP: Final = 0  # ops.trace


@click.command(cls=ClientCommand, short_help="Show a subscriber's control packets as they pass.")
@click.argument("by", metavar="user|sid|ip|csid")
@click.argument("value", metavar="VALUE")
@click.option(
    "--pcap",
    metavar="FILE",
    help="Write all packets, decrypted, as pcapng; - is standard output, as for wireshark -k -i -",
)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N packets.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End after S."
)
@run_dir_option
def trace(
    by: str,
    value: str,
    pcap: str | None,
    as_json: bool,
    count: int | None,
    seconds: float | None,
    run_dir: str | None,
) -> None:
    """Show what a subscriber and we say to each other, until Ctrl-C: PPTP and PPP control
    packets, logins and what the account is given, in words.

    \b
      pptpcon trace user alice
      pptpcon trace csid 203.0.113.7                before anybody has logged in
      pptpcon trace user alice --pcap alice.pcapng  with the packets of the tunnel, decrypted
      pptpcon trace ip 10.99.1.7 --pcap - | wireshark -k -i -

    The session need not be there yet. A user and an inner address (ip) are known when the
    login is: what came before is told then; of the control connection only csid, the
    subscriber's own address, sees the beginning. Passwords and responses are blotted out.
    At most 8 traces at once; what does not fit through is counted.
    """
    if by not in BY:
        raise click.BadParameter(f"{by!r} is not one of user, sid, ip, csid")
    if pcap == "-" and (as_json or sys.stdout.isatty()):
        raise click.UsageError("--pcap - is for a pipe: `... --pcap - | wireshark -k -i -`")
    body = {"by": BY[by], "value": value, "packets": pcap is not None}
    lines = Control(run_dir).lines("/api/trace", body)
    with contextlib.ExitStack() as stack:
        stack.callback(lines.close)
        # Only when there is a trace: a refusal leaves no empty file behind.
        first = next(lines, {})
        sink = stack.enter_context(_opened(pcap)) if pcap else None
        out = Pcapng(sink, f"pptpcon {VERSION}") if sink else None
        stack.enter_context(signals())
        quiet = pcap == "-"
        _announce(by, value, int(first.get("sessions", 0)))
        packets = lost = 0
        until = time.monotonic() + seconds if seconds else None
        try:
            for line in lines:
                if line:
                    lost += line.get("lost", 0)
                    packets += "from" in line
                    if out:
                        _to_file(out, line)
                    if not quiet:
                        click.echo(json.dumps(line) if as_json else _text(line))
                if (count and packets >= count) or (until and time.monotonic() >= until):
                    break
        except Stopped:
            pass
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - whoever read has gone
        tail = f", {lost} left out" if lost else ""
        click.echo(f"{packets} packets{tail}", err=True)


def _announce(by: str, value: str, sessions: int) -> None:
    what = f"{sessions} session{'s' if sessions != 1 else ''}" if sessions else "no session yet"
    click.echo(f"tracing {by} {clean(value)}: {what}; Ctrl-C ends it", err=True)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """A new file that only its owner may read: it holds what a subscriber sends."""
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise ClientError(f"{path}: {e.strerror}", EXIT_VALUE) from None
    with os.fdopen(fd, "wb") as file:
        yield file


def _to_file(out: Pcapng, line: dict[str, Any]) -> None:
    if "from" not in line:
        out.comment(line["text"])
        return
    octets = base64.b64decode(line["octets"])
    ours = line["from"] == "client"
    if line["number"] == PPTP:
        out.control(line["time"], ours, line["peer"], octets)
    else:
        out.frame(line["time"], ours, line["number"], octets)


def _text(line: dict[str, Any]) -> str:
    at = line["time"]
    clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
    who = line["sid"] or line["peer"]
    way = {"client": "<-", "us": "->"}.get(line.get("from", ""), "--")
    text = f"{line['protocol']} {line['text']}" if "protocol" in line else line["text"]
    told = f"{clock} {who} {way} {clean(text)}"
    if line.get("lost"):
        told = f"{clock} {who} -- {line['lost']} packets left out\n{told}"
    return told


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(trace)
