"""Load for a concentrator: clients and their traffic in several processes, and the accounts.

A `Bench` logs sessions in, drives steps of load through them, and puts together what all
ends have counted. It neither prints nor judges: `ops.cli.bench` does, and tests/bench.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.client import netns
from ops.client.child import PYTHON, Child
from ops.client.concentrator import Concentrator, Samples
from ops.client.host import Ground
from ops.client.lines import Lines
from ops.client.logins import Logins
from ops.client.numbers import Way
from ops.client.playground import Playground, client_place
from ops.client.report import quantile
from ops.client.trail import Trail, device_drops, dropped, since, unseen

LOGIN_PATIENCE: Final = 60.0  # without anything said by a client
CLOSE_PATIENCE: Final = 30.0  # and a fiftieth of a second for each session
STEP_PATIENCE: Final = 30.0  # over the step's own time
FLOWS: Final = 1 << 16  # of one process
SETTLE: Final = 0.7  # for counters that are written twice a second
MTU: Final = 1404  # leaves 1400 octets for inner packets under MPPE
NOTHING: Final = Samples(())

Watch = Callable[[str], None]


class BenchError(Exception):
    """The run can't go on; says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call, as whom, from where, and who answers behind it."""

    server: str
    user: str
    password: str = field(repr=False)
    port: int = 1723
    far_end: tuple[str, int] = ("", 0)
    sources: tuple[tuple[str, ...], ...] = ((),)  # outer addresses, by process
    far_port_each: bool = False  # each process has a far end of its own, ports in a row


@dataclass(frozen=True, slots=True)
class Plan:
    """How many sessions, how they log in."""

    sessions: int
    processes: int = 1
    mppe: str = "require"
    login_rate: float = 0.0  # a second, all together; 0: as fast as it goes
    starting: int = 128  # on their way at once, all together
    cpus: tuple[int, ...] = ()  # of clients and their traffic
    mtu: int = MTU

    def share(self, number: int) -> int:
        """The sessions of process `number`."""
        each, more = divmod(self.sessions, self.processes)
        return each + (number < more)


@dataclass(slots=True)
class Shard:
    """One client process, and the traffic of its sessions."""

    number: int
    client: Child
    logins: Logins = field(default_factory=Logins)
    near: Child | None = None
    tick: Mapping[str, Any] = field(default_factory=dict)
    done: Mapping[str, Any] | None = None
    account: Mapping[str, Any] | None = None
    trouble: str = ""

    @property
    def place(self) -> str:
        """The namespace it lives in."""
        return client_place(self.number)


@dataclass(frozen=True, slots=True)
class State:
    """Every count at one moment."""

    at: float
    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    clients: Mapping[str, int] = field(default_factory=dict)  # packet path of our own
    far: Mapping[str, int] = field(default_factory=dict)
    near: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)  # drops of TUN devices
    server: Samples = NOTHING  # empty where the concentrator is not ours


@dataclass(slots=True)
class Bench:
    """The processes of one run. Use `start`, `log_in`, `open`, `step`s, `close`."""

    ground: Ground
    target: Target
    plan: Plan
    concentrator: Concentrator | None = None
    shards: list[Shard] = field(default_factory=list)
    lines: Lines = field(default_factory=Lines)
    watch: Watch = lambda _stage: None

    # -- logging in and out

    def start(self) -> None:
        """Start the clients: from now on they log in."""
        for number in range(self.plan.processes):
            self.shards.append(Shard(number, self._client(number)))

    def _client(self, number: int) -> Child:
        plan, target = self.plan, self.target
        read, write = os.pipe()
        os.write(write, target.password.encode() + b"\n")
        os.close(write)
        argv = [
            *(*PYTHON, "ops.client", "--server", target.server, "--port", str(target.port)),
            *("--user", target.user, "--password-fd", str(read)),
            *("--count", str(plan.share(number)), "--mppe", plan.mppe, "--mtu", str(plan.mtu)),
            *("--starting", str(max(1, plan.starting // plan.processes))),
            *("--rate", str(plan.login_rate / plan.processes), "--json"),
        ]
        sources = target.sources[number % len(target.sources)]
        argv += ["--source", ",".join(sources)] if sources else []
        argv += ["--route", f"{target.far_end[0]}/32"] if target.far_end[0] else []
        label = f"client-{number}"
        child = self.ground.start(
            *(client_place(number), label, argv),
            cpus=plan.cpus,
            pass_fds=(read,),
            stdout=subprocess.PIPE,
        )
        os.close(read)
        self.lines.add(label, child.process.stdout)
        return child

    def log_in(self) -> None:
        """Until no login is on its way any more."""
        until = time.monotonic() + LOGIN_PATIENCE
        seen = 0
        while any(s.logins.all_after is None for s in self.shards):
            self._pump()
            self.watch("logging in")
            ended = self.up + sum(len(s.logins.failed) for s in self.shards)
            if ended != seen:
                seen, until = ended, time.monotonic() + LOGIN_PATIENCE
            elif time.monotonic() > until:
                raise BenchError(
                    f"no login ended for {LOGIN_PATIENCE:g} s: {self.up} of "
                    f"{self.plan.sessions} came up"
                )

    @property
    def up(self) -> int:
        """Sessions that are up."""
        return sum(len(s.logins.addresses) for s in self.shards)

    @property
    def lost(self) -> int:
        """Sessions that ended by themselves."""
        return sum(s.logins.lost for s in self.shards)

    def setup(self) -> dict[str, Any]:
        """The logins: how fast, how long each took, and why some failed."""
        seconds = [s for shard in self.shards for s in shard.logins.seconds]
        causes: Counter[str] = Counter()
        for shard in self.shards:
            causes += shard.logins.causes
        began = min((s.logins.began for s in self.shards), default=0.0)
        ended = max((s.logins.ended for s in self.shards), default=0.0)
        spent = ended - began
        return {
            "up": len(seconds),
            "failed": dict(causes),
            "seconds": round(spent, 3),
            "per_second": round(len(seconds) / spent, 1) if spent > 0 else 0.0,
            "latency_ms": {
                name: round(1000 * quantile(seconds, share), 1)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
            },
        }

    def why_failed(self) -> str:
        """The first refused login in words; "" if none was."""
        return next((f for s in self.shards for f in s.logins.failed), "")

    def close(self) -> None:
        """End traffic, then sessions, properly."""
        for shard in self.shards:
            shard.logins.closing = True
            if shard.near is not None:
                shard.near.stop()
        for shard in self.shards:
            shard.client.signal(signal.SIGTERM)
        until = time.monotonic() + CLOSE_PATIENCE + self.plan.sessions / 50
        labels = [s.client.label for s in self.shards]
        while any(self.lines.open(label) for label in labels) and time.monotonic() < until:
            self._pump()
        for shard in self.shards:
            shard.client.stop()

    # -- traffic

    def open(self) -> None:
        """Start the traffic ends of all sessions that are up."""
        for shard in self.shards:
            address, port = self.target.far_end
            sessions = [
                (shard.number * FLOWS + number, inner)
                for number, inner in sorted(shard.logins.addresses.items())
            ]
            label = f"near-{shard.number}"
            shard.near = self.ground.start(
                *(shard.place, label, [*PYTHON, "ops.client.near_end"]),
                cpus=self.plan.cpus,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.lines.add(label, shard.near.process.stdout)
            port += shard.number if self.target.far_port_each else 0
            self._tell(shard, {"sessions": sessions, "target": [address, port]})

    def step(
        self, profile: str, seconds: float, *, rate: float = 0.0, streams: int = 0
    ) -> tuple[State, list[Mapping[str, Any]], State]:
        """Load for so long: the counts before, what each near end says, the counts after."""
        before = self.state(before=True)
        busy = [s for s in self.shards if s.logins.addresses]
        up = sum(len(s.logins.addresses) for s in busy)
        for shard in busy:
            shard.done = None
            part = len(shard.logins.addresses) / up
            command = {
                "do": profile,
                "seconds": seconds,
                "rate": rate * part,
                "streams": max(2, round(streams * part)) if streams else 0,
            }
            self._tell(shard, command)
        self._wait(lambda: all(s.done is not None for s in busy), seconds, profile)
        time.sleep(SETTLE)
        return before, [s.done for s in busy if s.done is not None], self.state(before=False)

    def state(self, *, before: bool) -> State:
        """Read every count there is.

        The question for the account goes through the concentrator itself: where its
        counters begin to matter (`before`) they are read after that, else before.
        """
        server = NOTHING if before else self._metrics()
        parts = self._accounts()
        if before:
            time.sleep(SETTLE)
            server = self._metrics()
        return State(time.monotonic(), *parts, self._devices(), server)

    def _metrics(self) -> Samples:
        return NOTHING if self.concentrator is None else self.concentrator.metrics()

    def _accounts(self) -> tuple[Way, Way, Counter[str], Counter[str], Counter[str]]:
        busy = [s for s in self.shards if s.near is not None and s.logins.addresses]
        for shard in busy:
            shard.logins.counters = shard.account = None
            shard.client.signal(signal.SIGUSR1)
            self._tell(shard, {"do": "account"})
        self._wait(
            lambda: all(s.account is not None and s.logins.counters is not None for s in busy),
            *(0.0, "the account"),
        )
        up, down = Way(), Way()
        clients: Counter[str] = Counter()
        far: Counter[str] = Counter()
        near: Counter[str] = Counter()
        for shard in busy:
            assert shard.account is not None
            up += Way(**shard.account["up"])
            down += Way(**shard.account["down"])
            if self.target.far_port_each or not far:
                far.update(shard.account["far"])
            near.update(shard.account["near"])
            clients.update(shard.logins.counters or {})
        return up, down, clients, far, near

    def _devices(self) -> dict[str, int]:
        """Drops of the TUN devices, where their namespaces are ours."""
        ground = self.ground
        if not isinstance(ground, Playground):
            return {}
        text = {
            place: netns.inside(ground.name(place), Path("/proc/thread-self/net/dev").read_text)
            for place in ("server", *(s.place for s in self.shards))
        }
        ours = [text[s.place] for s in self.shards]
        return {
            "clients": sum(device_drops(t, ("pptpc",), "tx") for t in ours),
            "server": device_drops(text["server"], ("pptp",), "tx"),
        }

    def _tell(self, shard: Shard, command: Mapping[str, Any]) -> None:
        assert shard.near is not None
        pipe = shard.near.process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(command).encode() + b"\n")
            pipe.flush()
        except OSError:
            raise BenchError(str(shard.near.failure("it ended while it was needed"))) from None

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        until = time.monotonic() + seconds + STEP_PATIENCE
        while not ready():
            self._pump()
            self.watch(what)
            trouble = next((s.trouble for s in self.shards if s.trouble), "")
            if trouble:
                raise BenchError(trouble)
            if time.monotonic() > until:
                raise BenchError(f"{what}: no answer within {seconds + STEP_PATIENCE:g} s")

    def _pump(self) -> None:
        for label, line in self.lines.read(0.2):
            kind, _, number = label.rpartition("-")
            shard = self.shards[int(number)]
            if kind == "client":
                shard.logins.note(line)
                continue
            match line.get("event"):
                case "tick":
                    shard.tick = line
                case "done":
                    shard.done = line
                case "account":
                    shard.account = line
                case "trouble":
                    shard.trouble = line["reason"]
        for shard in self.shards:
            for child in (shard.client, shard.near):
                if child is None or child.alive() or shard.logins.closing:
                    continue
                if child.process.returncode != 0 or not self.lines.open(child.label):
                    raise child.failure("it ended while it was needed")
        if self.concentrator is not None and not self.concentrator.child.alive():
            raise self.concentrator.child.failure("it ended while it was needed")


def trails(before: State, after: State) -> tuple[Trail, Trail]:
    """The way up and the way down of all numbered datagrams between two moments."""
    old, new = before.server, after.server

    def server(name: str, way: str) -> int:
        return int(new.total(name, direction=way) - old.total(name, direction=way))

    def drops(way: str) -> dict[str, int]:
        reasons = [s.by("pptp_drops_total", "reason", direction=way) for s in (new, old)]
        return {f"concentrator: {k}": n for k, n in since(*reasons).items()}

    traffic = "pptp_traffic_packets_total"
    clients = since(after.clients, before.clients)
    devices = since(after.devices, before.devices)
    up, down = after.up.since(before.up), after.down.since(before.down)
    gre_lost = int(new.total("pptp_gre_lost_total") - old.total("pptp_gre_lost_total"))
    full = server("pptp_kernel_drops_total", "receive")
    dropped_up, dropped_down = drops("receive"), dropped(clients, "drop_rx_", "clients")
    return (
        Trail(
            up.sent,
            {
                "clients' TUN queue full": devices.get("clients", 0),
                **dropped(clients, "drop_tx_", "clients"),
                "concentrator's GRE socket full": full,
                "GRE lost on the way": unseen(gre_lost, full, dropped_up, "concentrator"),
                **dropped_up,
            },
            server(traffic, "receive"),
            {"far end's socket full": after.far["overflows"] - before.far["overflows"]},
            up.received + up.duplicated,
        ),
        Trail(
            down.sent,
            {"concentrator's TUN queue full": devices.get("server", 0), **drops("transmit")},
            server(traffic, "transmit"),
            {
                "GRE lost on the way": unseen(
                    clients.get("gre_lost", 0), 0, dropped_down, "clients"
                ),
                **dropped_down,
                "near end's socket full": after.near["overflows"] - before.near["overflows"],
            },
            down.received + down.duplicated,
        ),
    )


def cpu(before: Samples, after: Samples) -> dict[str, float]:
    """CPU seconds of the concentrator's processes; a worker's threads apart."""
    spent = {}
    for name, label in (
        ("pptp_process_cpu_seconds_total", "process"),
        ("pptp_worker_cpu_seconds_total", "thread"),
    ):
        old = before.by(name, label)
        for who, seconds in after.by(name, label).items():
            spent[who if label == "process" else f"worker {who}"] = round(
                seconds - old.get(who, 0.0), 3
            )
    return spent
