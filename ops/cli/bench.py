"""`pptpcon bench`: many sessions and their traffic, against a concentrator of its own or yours.

Without a server everything is in network namespaces, as in the demo. A server elsewhere is
called only if the caller says that the network is theirs: this is a load generator.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import click

from ops.cli.bench_view import summary_text
from ops.cli.demo_view import Frame, View, WorkerRow, worker_rows
from ops.cli.stopped import Stopped, signals
from ops.client import far_end
from ops.client.bench import NOTHING, Bench, BenchError, Plan, State, Target, cpu, trails
from ops.client.child import PYTHON, ChildError
from ops.client.concentrator import Concentrator, Samples, Toml
from ops.client.host import Host
from ops.client.netns import NetnsError
from ops.client.playground import (
    LAN_HOST,
    WAN_SERVER,
    Playground,
    sources,
    why_not,
)
from ops.client.trail import named

USER: Final = "bench"
FAR_PORT: Final = 7008
MAX_OWN: Final = 4000  # sessions: the pool of a playground
MAX_SOURCES: Final = 256  # outer addresses, of each process
RATES: Final = {"imix": 10_000.0, "numbered": 2_000.0}
STREAMS: Final = 8
CONSENT: Final = "--yes-i-own-this-network"
NO_PERMISSION: Final = 77
UNAVAILABLE: Final = 69


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for."""

    profile: str
    seconds: float
    rate: float
    streams: int


def resolve(server: str) -> str:
    """The IPv4 address of a server; a usage error if it has none."""
    try:
        return str(socket.getaddrinfo(server, None, socket.AF_INET)[0][4][0])
    except OSError as e:
        raise click.UsageError(f"--server {server}: {e.strerror or e}") from None


def check_target(address: str, *, consent: bool) -> None:
    """A load generator is pointed at what is one's own: loopback, or one says so."""
    if not consent and not ipaddress.IPv4Address(address).is_loopback:
        raise click.UsageError(
            f"--server {address} is neither on loopback nor in a namespace of this command: "
            f"load hurts what is not made for it. If server and network are yours, add {CONSENT}"
        )


def endpoint(text: str, option: str) -> tuple[str, int]:
    """ADDRESS:PORT."""
    address, _, port = text.rpartition(":")
    try:
        number = int(port)
        if not 0 < number < 65536:
            raise ValueError
        return str(ipaddress.IPv4Address(address)), number
    except ValueError:
        hint = f"{option} {text}: not ADDRESS:PORT with an IPv4 address"
        raise click.UsageError(hint) from None


@dataclass(slots=True)
class Show:
    """Brings the view up to date once a second."""

    bench: Bench
    view: View
    began: float = field(default_factory=time.monotonic)
    _at: float = 0.0
    _last: tuple[float, Samples] | None = None

    def __call__(self, stage: str) -> None:
        now = time.monotonic()
        if self.view.quiet or now < self._at:
            return
        self._at = now + 1.0
        rows: tuple[WorkerRow, ...] = ()
        concentrator = self.bench.concentrator
        if concentrator is not None:
            try:
                samples = concentrator.metrics()
            except OSError:
                samples = None  # busy; the next second will do
            if samples is not None:
                if self._last is not None:
                    rows = worker_rows(self._last[1], samples, now - self._last[0])
                self._last = (now, samples)
        ticks = [s.tick for s in self.bench.shards if s.tick]
        sent, received = (sum(t[name] for t in ticks) for name in ("sent", "received"))
        self.view.show(
            Frame(
                stage,
                now - self.began,
                self.bench.up,
                self.bench.plan.sessions,
                rows,
                100 * max(0, sent - received) / sent if sent else 0.0,
                max((t["round_trip_ms"] for t in ticks), default=0.0),
            )
        )


# -- the run


def run(bench: Bench, load: Load, before: Samples) -> dict[str, Any]:
    """Log in, load, close; the summary. `before`: the concentrator's figures at the start."""
    bench.start()
    bench.log_in()
    setup = bench.setup()
    up = bench.up
    if not up:
        raise BenchError(f"no session came up: {bench.why_failed()}")
    if load.profile == "storm":
        after = bench.concentrator.metrics() if bench.concentrator is not None else NOTHING
        summary: dict[str, Any] = {}
        spent = setup["seconds"]
    else:
        bench.open()
        first, done, last = bench.step(
            load.profile, load.seconds, rate=load.rate, streams=load.streams
        )
        before, after = first.server, last.server
        spent = max(d["seconds"] for d in done)
        summary = traffic(load.profile, first, done, last, spent)
    lost = bench.lost
    bench.close()
    summary = {
        "profile": load.profile,
        "sessions": bench.plan.sessions,
        "up": up,
        "lost": lost,
        "processes": bench.plan.processes,
        "mppe": bench.plan.mppe,
        "seconds": round(spent, 3),
        "setup": setup,
        **summary,
    }
    if bench.concentrator is not None:
        summary["server"] = server(before, after, setup["up"] if load.profile == "storm" else 0)
    why = because(summary)
    return {"passed": not why, "because": why, **summary}


def traffic(
    profile: str, first: State, done: list[Mapping[str, Any]], last: State, spent: float
) -> dict[str, Any]:
    """What both ends saw during a step."""
    parts: dict[str, Any] = {}
    if profile != "bulk":
        trips = [d["trips_ms"] for d in done]
        parts["udp"] = {
            "up": asdict(last.up.since(first.up)),
            "down": asdict(last.down.since(first.down)),
            "round_trip_ms": {
                name: round(max(t[i] for t in trips), 3)
                for i, name in enumerate(("p50", "p95", "p99"))
            },
            "refused": last.near["refused"] - first.near["refused"],
            "strange": sum(
                end["strange"] - start["strange"]
                for start, end in ((first.near, last.near), (first.far, last.far))
            ),
            "misrouted": last.near["misrouted"] - first.near["misrouted"],
        }
    if profile != "numbered":
        up, down = (
            end["tcp_octets"] - start["tcp_octets"]
            for start, end in ((first.far, last.far), (first.near, last.near))
        )
        parts["tcp"] = {
            "octets_up": up,
            "octets_down": down,
            "mbit_up": round(up * 8e-6 / spent, 3),
            "mbit_down": round(down * 8e-6 / spent, 3),
            **{n: sum(d[n] for d in done) for n in ("requests", "answers")},
            "failed": sum(d["tcp_failed"] for d in done),
        }
    if profile == "numbered" and last.server.rows:
        ways = trails(first, last)
        parts["account"] = {
            "up": ways[0].figures(),
            "down": ways[1].figures(),
            "whole": all(way.whole for way in ways),
        }
    return parts


def server(before: Samples, after: Samples, logins: int) -> dict[str, Any]:
    """The concentrator's own figures between two moments."""
    name = "pptp_traffic_packets_total"
    packets = {
        way: int(after.total(name, direction=way) - before.total(name, direction=way))
        for way in ("receive", "transmit")
    }
    drops, old = (s.by("pptp_drops_total", "reason") for s in (after, before))
    spent = cpu(before, after)
    carried = sum(packets.values())
    part: dict[str, Any] = {
        "packets": packets,
        "drops": named({k: int(v - old.get(k, 0)) for k, v in drops.items()}),
        "cpu_seconds": spent,
        "cpu_text": "",
    }
    if logins:
        each = {who: round(1e6 * s / logins, 1) for who, s in spent.items()}
        part["us_per_login"] = each
        part["cpu_text"] = "CPU us per login: " + ", ".join(f"{w} {n:.0f}" for w, n in each.items())
    elif carried:
        part["data_us_per_packet"] = round(1e6 * spent.get("worker data", 0.0) / carried, 3)
        part["cpu_text"] = f"data threads: {part['data_us_per_packet']:.2f} us per packet"
    return part


def because(s: Mapping[str, Any]) -> str:
    """Why the run was not what it should be; "" if it was."""
    if s["up"] < s["sessions"]:
        return f"{s['sessions'] - s['up']} sessions did not come up"
    if s["lost"]:
        return f"{s['lost']} sessions were lost"
    for way in ("up", "down"):
        counts = s["udp"][way] if "udp" in s else {}
        if counts and not counts["received"]:
            return f"no datagram arrived on the way {way}"
        if s["profile"] == "numbered" and (counts["lost"] or counts["duplicated"]):
            return f"{counts['lost']} datagrams lost, {counts['duplicated']} doubled, way {way}"
        if s["profile"] == "bulk" and not s["tcp"][f"octets_{way}"]:
            return f"no TCP data arrived on the way {way}"
    if s.get("udp", {}).get("misrouted"):
        return f"{s['udp']['misrouted']} datagrams came to another session"
    if s["profile"] == "imix" and not s["tcp"]["answers"]:
        return "no TCP request was answered"
    if not s.get("account", {}).get("whole", True):
        return "the ends and the concentrator count differently"
    return ""


def own(plan: Plan, load: Load, view: View) -> dict[str, Any]:
    """In namespaces, with a concentrator of our own."""
    password = secrets.token_urlsafe(12)
    each = min(MAX_SOURCES, -(-plan.sessions // plan.processes))
    with Playground(source_count=each, client_places=plan.processes) as ground:
        extra: dict[str, dict[str, Toml]] = {
            "ppp": {"mru": plan.mtu, "mtu": plan.mtu - 4},
            "mppe": {"policy": plan.mppe},
        }
        concentrator = Concentrator(ground, {USER: password}, extra=extra)
        target = Target(
            *(WAN_SERVER, USER, password),
            far_end=(LAN_HOST, FAR_PORT) if load.profile != "storm" else ("", 0),
            sources=tuple(sources(each, n) for n in range(plan.processes)),
            far_port_each=True,
        )
        bench = Bench(ground, target, plan, concentrator)
        bench.watch = Show(bench, view)
        try:
            view.show(Frame("starting the concentrator", 0.0, 0, plan.sessions))
            concentrator.start()
            if load.profile != "storm":
                for n in range(plan.processes):
                    argv = [*PYTHON, "ops.client.far_end", "--address", LAN_HOST]
                    ground.start("lan", f"far-{n}", [*argv, "--port", str(FAR_PORT + n)])
            summary = run(bench, load, concentrator.metrics())
            if concentrator.stop() != 0:
                raise concentrator.child.failure("it did not end properly")
            return summary
        except (BenchError, OSError) as e:
            raise BenchError(_with_tail(e, concentrator)) from None


def _with_tail(error: Exception, concentrator: Concentrator) -> str:
    try:
        tail = concentrator.child.tail(15)
    except RuntimeError:
        return str(error)
    known = not tail or tail in str(error)
    return str(error) if known else f"{error}\nThe concentrator's last lines:\n{tail}"


def theirs(target: Target, plan: Plan, load: Load, view: View) -> dict[str, Any]:
    """From this host, against a server that is there."""
    with Host() as ground:
        bench = Bench(ground, target, plan)
        bench.watch = Show(bench, view)
        return run(bench, load, NOTHING)


# -- the command


def _password(path: str | None) -> str:
    if path is None:
        return str(click.prompt("password", hide_input=True, err=True))
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as e:
        raise click.UsageError(f"--password-file {path}: {e}") from None


def _serve(text: str) -> None:
    address, port = endpoint(text, "--serve")
    loop = far_end.Silent()
    try:
        far_end.FarEnd(loop, address, port)
    except OSError as e:
        click.echo(f"pptpcon: bench: --serve {text}: {e.strerror}", err=True)
        sys.exit(UNAVAILABLE)
    click.echo(f"far end of `pptpcon bench --peer {text}`; Ctrl-C ends it", err=True)
    while not loop.stopping:
        loop.turn(0.5)


@click.command(short_help="Load a concentrator, and account for every packet.")
@click.option(
    "--profile",
    type=click.Choice(["bulk", "imix", "numbered", "storm"]),
    default="imix",
    show_default=True,
    help="bulk: TCP both ways. imix: UDP of 64, 576 and 1400 bytes (7:4:1) and small TCP. "
    "numbered: UDP, every datagram accounted for. storm: logins only.",
)
@click.option("--sessions", type=click.IntRange(1, 60000), default=50, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.5, 86400), default=10.0, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    help="imix, numbered: packets a second, all together; storm: logins. "
    "[default: 10000, 2000, as fast as it goes]",
)
@click.option(
    "--streams",
    type=click.IntRange(2, 1000),
    default=STREAMS,
    show_default=True,
    help="TCP streams of bulk, half of them each way",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 15),
    default=1,
    show_default=True,
    help="client processes, each in a namespace of its own",
)
@click.option(
    "--starting",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="logins on their way at once",
)
@click.option(
    "--mppe", type=click.Choice(["require", "deny"]), default="require", show_default=True
)
@click.option("--server", help="an existing server instead of one in a namespace")
@click.option("--port", type=click.IntRange(1, 65535), default=1723, show_default=True)
@click.option("--user", help="account at that server; {i} is the session's number")
@click.option("--password-file", type=click.Path(dir_okay=False), help="else it is asked for")
@click.option("--source", default="", help="own outer addresses, with commas; used by turns")
@click.option("--peer", help="ADDRESS:PORT of `bench --serve` behind that server")
@click.option(CONSENT, "consent", is_flag=True, help="call a server that is not on loopback")
@click.option("--serve", help="be the far end of --peer: answer on ADDRESS:PORT")
@click.option("--json", "as_json", is_flag=True, help="only the summary, as one JSON object")
def bench(
    profile: str,
    sessions: int,
    seconds: float,
    rate: float | None,
    streams: int,
    processes: int,
    starting: int,
    mppe: str,
    server: str | None,
    port: int,
    user: str | None,
    password_file: str | None,
    source: str,
    peer: str | None,
    consent: bool,
    serve: str | None,
    as_json: bool,
) -> None:
    """Put load on a concentrator and account for what became of it.

    Without --server it makes network namespaces with a concentrator, clients and a host
    behind it, and removes them again. With --server it calls that one; traffic then needs
    `pptpcon bench --serve` on a host behind it.

    Exit status: 0 all sessions came up and stayed, and traffic passed (numbered: none was
    lost); 1 not so; 2 usage; 69 something needed is missing; 77 not root.
    """
    if serve is not None:
        _serve(serve)
        return
    processes = min(processes, sessions)
    load = Load(profile, seconds, RATES.get(profile, 0.0) if rate is None else rate, streams)
    plan = Plan(
        *(sessions, processes, mppe),
        login_rate=load.rate if profile == "storm" else 0.0,
        starting=starting,
    )
    target = None
    if server is not None:
        target = _target(server, port, user, password_file, source, peer, consent, plan, load)
    elif sessions > MAX_OWN:
        raise click.UsageError(f"--sessions {sessions}: at most {MAX_OWN} without --server")
    lacking = why_not()
    if lacking:
        click.echo(f"pptpcon: bench: {lacking}", err=True)
        sys.exit(NO_PERMISSION if os.geteuid() != 0 else UNAVAILABLE)
    view = View(quiet=as_json)
    with signals():
        try:
            summary = own(plan, load, view) if target is None else theirs(target, plan, load, view)
        except (BenchError, ChildError, NetnsError, OSError) as e:
            view.close()
            click.echo(f"pptpcon: bench: {e}", err=True)
            sys.exit(1)
        except Stopped as e:
            sys.exit(128 + e.number)
        finally:
            view.close()
    click.echo(json.dumps(summary) if as_json else summary_text(summary))
    sys.exit(0 if summary["passed"] else 1)


def _target(
    server: str,
    port: int,
    user: str | None,
    password_file: str | None,
    source: str,
    peer: str | None,
    consent: bool,
    plan: Plan,
    load: Load,
) -> Target:
    address = resolve(server)
    check_target(address, consent=consent)
    if user is None:
        raise click.UsageError("--server needs --user")
    if load.profile != "storm" and peer is None:
        raise click.UsageError(
            f"--profile {load.profile} needs --peer: run `pptpcon bench --serve ADDRESS:PORT` "
            "on a host behind the server"
        )
    if load.profile != "storm" and plan.processes > 1:
        raise click.UsageError(
            "--processes: with --server, only a storm can have several: one route leads to the peer"
        )
    return Target(
        *(address, user, _password(password_file), port),
        far_end=endpoint(peer, "--peer") if peer and load.profile != "storm" else ("", 0),
        sources=(tuple(word for word in source.split(",") if word),),
    )


def register(group: click.Group) -> None:
    """Add `bench`."""
    group.add_command(bench)
