"""`pptpcon demo`, the whole of it: real processes, real packets, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops.client import netns
from ops.client.playground import PREFIX, sweep, why_not

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(240)]

CLIENTS = 50
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def able() -> None:
    """Root and TUN, or a reason: in CI a failure, elsewhere a skip."""
    lacking = why_not()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)


@pytest.fixture
def host() -> Iterator[str]:
    """A namespace that stands for the host, so that other work here can't blur the view."""
    name = f"pptpcon-test-{uuid.uuid4().hex[:8]}"
    netns.ip("netns", "add", name)
    try:
        netns.ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        netns.ip("netns", "del", name)


def network(name: str) -> str:
    """All that `demo` promises not to touch."""
    words = (("-o", "link"), ("-o", "addr"), ("route", "show", "table", "all"), ("rule",))
    shown = "\n".join(netns.ip("-n", name, *w) for w in words)
    forwarding = netns.inside(name, Path("/proc/sys/net/ipv4/ip_forward").read_text)
    return shown + forwarding


@dataclass
class Running:
    """A demo in the host's stead, with what it makes as it becomes visible."""

    host: str
    words: tuple[str, ...]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    token: str = ""
    inode: int = 0

    def __post_init__(self) -> None:
        # Not `ip netns exec`: in its private mounts we could not see what the demo makes.
        argv = ["nsenter", f"--net={netns.FOLDER}/{self.host}"]
        argv += [sys.executable, "-m", "ops", "demo"]
        self.process = subprocess.Popen(
            [*argv, "--clients", str(CLIENTS), "--json", *self.words],
            cwd=ROOT,
            env={**os.environ, "PPTPCON_TEST_MARK": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> dict[int, str]:
        """Its processes, found by what they inherited."""
        found = {}
        mark = f"PPTPCON_TEST_MARK={self.mark}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if mark in Path(f"/proc/{entry}/environ").read_bytes():
                        words = Path(f"/proc/{entry}/cmdline").read_bytes()
                        found[int(entry)] = words.replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Until one of its processes has a command line like this."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            for words in self.processes().values():
                if found := re.search(pattern, words):
                    return found
            time.sleep(0.05)
        out, err = self.process.communicate(timeout=30)
        raise AssertionError(f"no process like {pattern}: {out}\n{err}")

    def note_names(self) -> None:
        """Learn its token and the inode of the server's namespace."""
        self.token = self.wait_for(rf"{PREFIX}([a-z0-9_]+)/")[1]
        self.inode = os.stat(f"{netns.FOLDER}/pptpcon-{self.token}-server").st_ino

    def check_nothing_left(self) -> None:
        assert self.token and self.inode
        left = [n for n in os.listdir(netns.FOLDER) if self.token in n]
        assert left == []
        assert self.processes() == {}
        assert list(Path("/run").glob(f"*{self.token}*")) == []
        assert not os.path.exists(f"/run/pptpcon-{self.inode}")


def test_fifty_clients(host: str) -> None:
    before = network(host)
    running = Running(host, ("--seconds", "5", "--traffic", "udp"))
    running.note_names()
    assert network(host) == before
    out, err = running.process.communicate(timeout=200)
    assert running.process.returncode == 0, err
    summary = json.loads(out)
    assert summary["passed"]
    assert summary["up"] == CLIENTS
    assert summary["lost"] == 0

    # Spread: no worker has more than twice its share.
    workers = summary["workers"]
    assert sum(workers.values()) == CLIENTS
    assert min(workers.values()) * 2 * len(workers) >= CLIENTS, workers

    # Counters against what the sending sockets gave to the kernel.
    for way, direction in (("up", "receive"), ("down", "transmit")):
        sent = summary["udp"][way]["sent_octets"]
        assert sent > 1_000_000
        assert summary["server"]["octets"][direction] == pytest.approx(sent, rel=0.01)
    assert summary["udp"]["up"]["loss_percent"] < 1

    running.check_nothing_left()
    assert network(host) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(host: str, number: signal.Signals) -> None:
    before = network(host)
    running = Running(host, ("--seconds", "60"))
    running.note_names()
    running.wait_for(r"ops\.client\.traffic clients")
    time.sleep(1.0)
    running.process.send_signal(number)
    _, err = running.process.communicate(timeout=60)
    assert running.process.returncode == 128 + number, err
    assert "Traceback" not in err
    running.check_nothing_left()
    assert network(host) == before


def test_killed_one_is_swept_by_the_next(host: str) -> None:
    running = Running(host, ("--seconds", "60"))
    running.note_names()
    running.wait_for(r"ops\.client ")
    running.process.kill()
    running.process.communicate()
    sweep()
    running.check_nothing_left()


def test_without_root() -> None:
    """In a child that gives root away after its imports: Python may be out of reach then."""
    program = (
        "import os, sys\n"
        "from ops.cli import demo\n"
        "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
        "demo.demo([])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 77
    assert "need root" in done.stderr
    assert "Traceback" not in done.stderr
