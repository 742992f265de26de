"""The concentrator as it is served, with sessions of our client, pinned for a bench.

The worker's data thread has a CPU alone (as a yardstick's server has); all else, traffic
programs included, runs on the other one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ops.client.child import PYTHON, Child
from ops.client.concentrator import Concentrator, Toml
from ops.client.lines import Lines
from ops.client.playground import LAN_NET, WAN_SERVER, Playground
from tests.bench.results import BenchError
from tests.bench.ways import Ways

DATA_CPU: Final = 1
OTHER_CPU: Final = 0
USER: Final = "bench"
PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Service:
    """What runs."""

    concentrator: Concentrator
    client: Child
    addresses: tuple[str, ...]  # inner ones, by session


@contextmanager
def serving(
    ground: Playground,
    *,
    mppe: bool,
    sessions: int = 1,
    ways: Ways | None = None,
    extra: Mapping[str, Mapping[str, Toml]] | None = None,
) -> Iterator[Service]:
    """Concentrator and client with all sessions up."""
    password = secrets.token_urlsafe(12)
    policy = "require" if mppe else "deny"
    sections: dict[str, dict[str, Toml]] = {
        "workers": {"count": 1, "cpus": [DATA_CPU]},
        "mppe": {"policy": policy},
        "gre": {**(ways or Ways()).section()},
    }
    for section, keys in (extra or {}).items():
        sections.setdefault(section, {}).update(keys)
    concentrator = Concentrator(
        ground, {f"{USER}{i}": password for i in range(1, sessions + 1)}, extra=sections
    )
    concentrator.start()
    read, write = os.pipe()
    os.write(write, password.encode() + b"\n")
    os.close(write)
    argv = [*PYTHON, "ops.client", "--server", WAN_SERVER, "--user", USER + "{i}", "--json"]
    argv += ["--password-fd", str(read), "--route", LAN_NET, "--mppe", policy]
    argv += ["--count", str(sessions)]
    client = ground.start(
        "clients", "client", argv, cpus=(OTHER_CPU,), pass_fds=(read,), stdout=subprocess.PIPE
    )
    os.close(read)
    try:
        yield Service(concentrator, client, _addresses(client, sessions))
    finally:
        client.stop()
        concentrator.stop()


def steer(ground: Playground, server: int | None, others: int | None) -> None:
    """What the kernel does with frames that come in goes to a CPU of who receives them, as it
    does by a card's interrupts (receive packet steering, rps_cpus). None: to the sender's, in
    the middle of its sending, as a veth has it by itself: each end pays for the other then."""
    for place, device, cpu in (
        ("server", "wan", server),
        ("server", "lan", server),
        ("clients", "wan", others),
        ("lan", "lan", others),
    ):
        queue = f"/sys/class/net/{device}/queues/rx-0/rps_cpus"
        mask = 0 if cpu is None else 1 << cpu
        words = ["ip", "netns", "exec", ground.name(place), "sh", "-c", f"echo {mask:x} >{queue}"]
        subprocess.run(words, check=True, capture_output=True)


def _addresses(client: Child, sessions: int) -> tuple[str, ...]:
    lines = Lines()
    lines.add("client", client.process.stdout)
    until = time.monotonic() + PATIENCE
    found: dict[int, str] = {}
    try:
        while time.monotonic() < until and client.alive() and len(found) < sessions:
            for _, line in lines.read(0.5):
                if line.get("event") == "up":
                    found[int(line["i"])] = str(line["address"])
                if line.get("event") == "failed":
                    raise BenchError(f"the client did not come up: {line['reason']}")
    finally:
        lines.close()
    if len(found) < sessions:
        raise client.failure(f"{len(found)} of {sessions} sessions came up")
    return tuple(found[number] for number in sorted(found))
