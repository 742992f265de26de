"""`pptpcon snmp`: net-snmp's pass_persist, so that snmpd tells our figures.

snmpd starts it once and asks line by line; it ends with its standard input. While the
concentrator does not run it answers NONE and goes on, so that snmpd has nothing to restart.
"""

from __future__ import annotations

import bisect
import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import click

from ops.cli import mib
from ops.cli.control import TIMEOUT_S, ClientError, Control, run_dir_option
from ops.cli.mib import BASE, Oid, Value

FRESH_S: Final = 5.0  # one look serves a whole walk
LINE_MAX: Final = 1024
PARTS_MAX: Final = 128  # numbers of an OID

Fetch = Callable[[], Any]


def oid_of(text: str) -> Oid | None:
    """`.1.3.6` as numbers; None: it is none."""
    parts = text.strip().strip(".").split(".")
    if len(parts) > PARTS_MAX or not all(
        p.isascii() and p.isdigit() and len(p) <= 10 for p in parts
    ):
        return None
    return tuple(map(int, parts))


def shown(oid: Oid) -> str:
    """As net-snmp writes it."""
    return "".join(f".{part}" for part in oid)


class Agent:
    """Lines in, lines out; no socket here."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float], base: Oid = BASE) -> None:
        """`fetch`: the status with `radius` in it, or an exception of ClientError or OSError."""
        self._fetch = fetch
        self._clock = clock
        self._base = base
        self._at = -FRESH_S
        self._values: dict[Oid, Value] = {}
        self._order: list[Oid] = []

    def answers(self, lines: Iterable[str]) -> Iterator[str]:
        """What is printed for each request; the end of `lines` ends it."""
        source = iter(lines)
        for line in source:
            command = line.strip()
            if command == "":
                return  # as snmpd's own examples have it
            if command == "PING":
                yield "PONG\n"
            elif command in ("get", "getnext"):
                yield self._one(command, next(source, ""))
            elif command == "set":
                next(source, "")
                next(source, "")
                yield "not-writable\n"
            else:
                yield "NONE\n"

    def _one(self, command: str, text: str) -> str:
        asked = oid_of(text)
        if asked is None:
            return "NONE\n"
        self._look()
        if command == "get":
            found = asked if asked in self._values else None
        else:
            at = bisect.bisect_right(self._order, asked)
            found = self._order[at] if at < len(self._order) else None
        if found is None:
            return "NONE\n"
        kind, value = self._values[found]
        return f"{shown(found)}\n{kind}\n{value}\n"

    def _look(self) -> None:
        now = self._clock()
        if now - self._at < FRESH_S:
            return
        self._at = now
        try:
            leaves = mib.leaves(self._fetch())
        except (ClientError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            leaves = {}  # it does not run, or is of another version
        self._values = {(*self._base, *oid): value for oid, value in leaves.items()}
        self._order = sorted(self._values)


def by_control(run_dir: str | None) -> Fetch:
    """From the control socket."""
    control = Control(run_dir)

    def fetch() -> Any:
        return {**control.get("/api/status"), "radius": control.get("/api/radius")}

    return fetch


def by_url(url: str) -> Fetch:
    """From metrics.listen, which tells sums to everybody."""
    parts = urlsplit(url)

    def get(connection: http.client.HTTPConnection, path: str) -> Any:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"{url}: HTTP {answer.status}")
        return json.loads(body)

    def fetch() -> Any:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=TIMEOUT_S
        )
        with contextlib.closing(connection):
            return {**get(connection, "/api/status"), "radius": get(connection, "/api/radius")}

    return fetch


@click.command(short_help="Answer snmpd (pass_persist).")
@click.option("--url", metavar="URL", help="Ask http://ADDRESS:PORT of metrics.listen instead.")
@click.option("--base", metavar="OID", default=shown(BASE), show_default=True, help="Where.")
@run_dir_option
def snmp(url: str | None, base: str, run_dir: str | None) -> None:
    """Answer snmpd's questions on standard input, for Cacti, LibreNMS and others.

    In snmpd.conf:

    \b
      pass_persist .1.3.6.1.4.1.8072.9999.9999.1723 /usr/bin/pptpcon snmp --url http://127.0.0.1:9723

    Without --url snmpd's user must be of the group pptpcon. PPTPCON-MIB.txt names the
    objects; all are sums, and read-only.
    """
    number = oid_of(base)
    if number is None:
        raise click.BadParameter("must be an OID, as in .1.3.6.1.4.1.8072.9999.9999.1723")
    if url is not None and (urlsplit(url).scheme != "http" or not urlsplit(url).hostname):
        raise click.BadParameter("--url must be http://ADDRESS:PORT")
    fetch = by_url(url) if url else by_control(run_dir)
    lines = iter(lambda: sys.stdin.readline(LINE_MAX), "")
    for answer in Agent(fetch, time.monotonic, number).answers(lines):
        sys.stdout.write(answer)
        sys.stdout.flush()


def register(group: click.Group) -> None:
    """Add the command."""
    group.add_command(snmp)
