"""`pptpcon demo`: a concentrator, its clients and a host behind it, in three namespaces.

Everything that is seen is real: the concentrator is started as an operator starts it,
the clients log in over TCP and GRE, the traffic goes through sockets of the kernel. On
the way out nothing is left: no namespace, process, route or file.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import click

from ops.cli.demo_view import Frame, View, WorkerRow, summary_text, worker_rows
from ops.cli.stopped import Stopped, signals
from ops.client.child import PYTHON, Child, ChildError
from ops.client.concentrator import Concentrator, Samples
from ops.client.lines import Lines
from ops.client.logins import Logins
from ops.client.netns import NetnsError
from ops.client.playground import LAN_HOST, LAN_NET, WAN_SERVER, Playground, sources, why_not
from ops.client.report import quantile

USER: Final = "demo"
TRAFFIC_PORT: Final = 7007
MAX_SOURCES: Final = 32  # outer addresses of the clients
UDP_EACH: Final = 20.0  # datagrams a second and session ...
UDP_MOST: Final = 4000.0  # ... and of all together
TCP_STREAMS: Final = 8
LOGIN_PATIENCE: Final = 30.0  # and a tenth of a second for each client
CLOSE_PATIENCE: Final = 20.0  # and a twentieth of a second for each client
SETTLE: Final = 0.7  # for counters that are read a moment after the last packet
NO_PERMISSION: Final = 77
UNAVAILABLE: Final = 69


class DemoError(Exception):
    """The demo can't go on; says why."""


@dataclass(slots=True)
class Demo:
    """One run."""

    ground: Playground
    clients: int
    seconds: float
    traffic: str
    view: View
    concentrator: Concentrator = field(init=False)
    lines: Lines = field(default_factory=Lines)
    logins: Logins = field(default_factory=Logins)
    totals: dict[str, dict[str, Any]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    _last: tuple[float, Samples] | None = None
    _frame_at: float = 0.0

    def __post_init__(self) -> None:
        self.concentrator = Concentrator(self.ground, {USER: self._password})

    def run(self) -> dict[str, Any]:
        """Log in, push traffic, close; the summary."""
        self.view.show(Frame("starting the concentrator", 0.0, 0, self.clients))
        self.concentrator.start()
        lan = self._traffic("lan", "lan", "lan", "--address", LAN_HOST)
        client = self._client()
        self._log_in(client)
        workers = {
            worker: int(used)
            for worker, used in self.concentrator.metrics().by("pptp_slots_used", "worker").items()
        }
        before = self.concentrator.metrics()
        senders, streams = self._senders()
        while self.lines.open("senders"):
            self._pump(client, senders, lan)
            self._show("traffic")
        time.sleep(SETTLE)
        after = self.concentrator.metrics()
        senders.stop()
        self._pump(client, lan)
        up = len(self.logins.addresses)
        self.logins.closing = True
        self._finish(client, "client")
        self._finish(lan, "lan")
        self._show("closing", force=True)
        if self.concentrator.stop() != 0:
            raise self.concentrator.child.failure("it did not end properly")
        return self._summary(up, workers, streams, before, after)

    # -- processes

    def _client(self) -> Child:
        read, write = os.pipe()
        os.write(write, self._password.encode() + b"\n")
        os.close(write)
        outer = sources(self.ground.source_count)
        argv = [
            *PYTHON,
            "ops.client",
            *("--server", WAN_SERVER, "--user", USER, "--password-fd", str(read)),
            *("--count", str(self.clients), "--source", ",".join(outer)),
            *("--route", LAN_NET, "--json"),
        ]
        child = self.ground.start(
            "clients", "client", argv, pass_fds=(read,), stdout=subprocess.PIPE
        )
        os.close(read)
        self.lines.add("client", child.process.stdout)
        return child

    def _traffic(self, place: str, label: str, command: str, *words: str) -> Child:
        argv = [*PYTHON, "ops.client.traffic", command, "--port", str(TRAFFIC_PORT), *words]
        child = self.ground.start(place, label, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines.add(label, child.process.stdout)
        return child

    def _senders(self) -> tuple[Child, int]:
        addresses = list(self.logins.addresses.values())
        rate = min(UDP_EACH * len(addresses), UDP_MOST) if self.traffic != "tcp" else 0.0
        streams = min(TCP_STREAMS, max(2, len(addresses))) if self.traffic != "udp" else 0
        child = self._traffic(
            *("clients", "senders", "clients", "--target", LAN_HOST),
            *("--seconds", str(self.seconds), "--rate", str(rate), "--streams", str(streams)),
        )
        assert child.process.stdin is not None
        child.process.stdin.write(json.dumps(addresses).encode())
        child.process.stdin.close()
        return child, streams

    # -- what they say

    def _pump(self, *needed: Child) -> None:
        for label, line in self.lines.read(0.2):
            if label == "client":
                self.logins.note(line)
            else:
                self.totals[label] = line
        if not self.concentrator.child.alive():
            raise self.concentrator.child.failure("it ended while it was needed")
        for child in needed:
            if not child.alive() and child.process.returncode != 0:
                raise child.failure("it ended while it was needed")

    def _finish(self, child: Child, label: str) -> None:
        """End a child, reading its last lines: it must not wait for a full pipe."""
        child.signal(signal.SIGTERM)
        until = time.monotonic() + CLOSE_PATIENCE + self.clients / 20
        while self.lines.open(label) and time.monotonic() < until:
            self._pump()
        child.stop()

    def _log_in(self, client: Child) -> None:
        until = time.monotonic() + LOGIN_PATIENCE + self.clients / 10
        while self.logins.all_after is None:
            self._pump(client)
            self._show("logging in")
            if time.monotonic() > until:
                raise DemoError(f"only {len(self.logins.addresses)} of {self.clients} came up")
        if self.logins.failed:
            first = self.logins.failed[0]
            raise DemoError(f"{len(self.logins.failed)} of {self.clients} logins failed: {first}")

    def _show(self, stage: str, *, force: bool = False) -> None:
        now = time.monotonic()
        if now < self._frame_at and not force:
            return
        self._frame_at = now + 1.0
        rows: tuple[WorkerRow, ...] = ()
        try:
            samples = self.concentrator.metrics()
        except OSError:
            samples = None  # busy; the next second will do
        if samples is not None:
            if self._last is not None:
                rows = worker_rows(self._last[1], samples, now - self._last[0])
            self._last = (now, samples)
        ours = self.totals.get("senders", {})
        sent = ours.get("udp_sent", 0)
        self.view.show(
            Frame(
                stage,
                now - self.began,
                len(self.logins.addresses),
                self.clients,
                rows,
                100 * max(0, sent - ours.get("udp_received", 0)) / sent if sent else 0.0,
                ours.get("round_trip_ms", 0.0),
            )
        )

    def _udp(self) -> dict[str, Any]:
        """What each end of UDP saw, when both have said their last."""
        ours, theirs = self.totals.get("senders", {}), self.totals.get("lan", {})
        result: dict[str, Any] = {"round_trip_ms": ours.get("round_trip_ms", 0.0)}
        for way, sender, receiver in (("up", ours, theirs), ("down", theirs, ours)):
            sent, received = sender.get("udp_sent", 0), receiver.get("udp_received", 0)
            lost = max(0, sent - received)
            result[way] = {
                "sent": sent,
                "sent_octets": sender.get("udp_sent_octets", 0),
                "received": received,
                "received_octets": receiver.get("udp_received_octets", 0),
                "loss_percent": round(100 * lost / sent, 3) if sent else 0.0,
            }
        return result

    def _summary(
        self, up: int, workers: dict[str, int], streams: int, before: Samples, after: Samples
    ) -> dict[str, Any]:
        ours, theirs = self.totals.get("senders", {}), self.totals.get("lan", {})
        seconds = ours.get("seconds", 0.0)
        octets = {
            way: int(
                after.total("pptp_traffic_bytes_total", direction=way)
                - before.total("pptp_traffic_bytes_total", direction=way)
            )
            for way in ("receive", "transmit")
        }
        packets = {
            way: int(
                after.total("pptp_traffic_packets_total", direction=way)
                - before.total("pptp_traffic_packets_total", direction=way)
            )
            for way in ("receive", "transmit")
        }
        drops = {
            reason: int(value)
            for reason, value in after.by("pptp_drops_total", "reason").items()
            if value
        }
        setup = self.logins.seconds
        flowed = bool(ours) and all(octets.values())
        return {
            "passed": up == self.clients and flowed and not self.logins.lost,
            "clients": self.clients,
            "up": up,
            "lost": self.logins.lost,
            "workers": workers,
            "setup_ms": {
                "p50": round(1000 * quantile(setup, 0.5), 1),
                "p95": round(1000 * quantile(setup, 0.95), 1),
            },
            "login_seconds": self.logins.all_after,
            "seconds": seconds,
            "mbit_up": octets["receive"] * 8e-6 / seconds if seconds else 0.0,
            "mbit_down": octets["transmit"] * 8e-6 / seconds if seconds else 0.0,
            "udp": self._udp(),
            "tcp": {
                "streams": streams,
                "octets_up": theirs.get("tcp_received_octets", 0),
                "octets_down": ours.get("tcp_received_octets", 0),
                "failed": ours.get("tcp_failed", 0),
            },
            "server": {"octets": octets, "packets": packets, "drops": drops},
        }


@click.command(short_help="Show it all at work, in network namespaces.")
@click.option("--clients", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 3600), default=20.0, show_default=True)
@click.option(
    "--traffic", type=click.Choice(["both", "udp", "tcp"]), default="both", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="only the summary, as one JSON object")
def demo(clients: int, seconds: float, traffic: str, as_json: bool) -> None:
    """Show a whole concentrator at work, in network namespaces of its own.

    Starts the concentrator, logs clients in, pushes traffic to a host behind it, and
    removes everything again. The host's own network is not touched.
    """
    lacking = why_not()
    if lacking:
        click.echo(f"pptpcon: demo: {lacking}", err=True)
        sys.exit(NO_PERMISSION if os.geteuid() != 0 else UNAVAILABLE)
    view = View(quiet=as_json)
    ground = Playground(source_count=min(clients, MAX_SOURCES))
    with signals():
        try:
            with ground:
                run = Demo(ground, clients, seconds, traffic, view)
                try:
                    summary = run.run()
                except (DemoError, ChildError, NetnsError, OSError) as e:
                    view.close()
                    sys.exit(_failed(run, e))
                finally:
                    view.close()
        except NetnsError as e:
            click.echo(f"pptpcon: demo: {e}", err=True)
            sys.exit(1)
        except Stopped as e:
            sys.exit(128 + e.number)
    click.echo(json.dumps(summary) if as_json else summary_text(summary))
    sys.exit(0 if summary["passed"] else 1)


def _failed(run: Demo, error: Exception) -> int:
    click.echo(f"pptpcon: demo: {error}", err=True)
    try:
        tail = run.concentrator.child.tail(15)
    except RuntimeError:
        return 1
    if tail and tail not in str(error):
        click.echo(f"The concentrator's last lines:\n{tail}", err=True)
    return 1


def register(group: click.Group) -> None:
    """Add `demo`."""
    group.add_command(demo)
