"""`python -m ops.client` as a program, against the real concentrator in a playground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.client.child import PYTHON, Child, ChildError
from ops.client.concentrator import Concentrator
from ops.client.lines import Lines
from ops.client.playground import (
    LAN_HOST,
    LAN_NET,
    LAN_SERVER,
    WAN_SERVER,
    Playground,
    sources,
    why_not,
)

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

PASSWORD = "correct horse"
SOURCES = 4


@pytest.fixture(scope="module")
def concentrator() -> Iterator[Concentrator]:
    """One for all tests here."""
    lacking = why_not()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with Playground(source_count=SOURCES) as ground:
        made = Concentrator(
            ground,
            {f"user{i}": PASSWORD for i in range(1, 9)},
            extra={"mppe": {"policy": "prefer"}, "workers": {"count": 2}},
        )
        made.start()
        yield made
        assert made.stop() == 0


class Client:
    """The program, its events as they come."""

    def __init__(
        self,
        concentrator: Concentrator,
        *words: str,
        password: str = PASSWORD,
        route: str = LAN_NET,
    ) -> None:
        ground = concentrator.playground
        read, write = os.pipe()
        os.write(write, password.encode() + b"\n")
        os.close(write)
        argv = [*PYTHON, "ops.client", "--server", WAN_SERVER, "--password-fd", str(read)]
        argv += ["--route", route, "--json", *words]
        self.child: Child = ground.start(
            "clients", "client", argv, pass_fds=(read,), stdout=subprocess.PIPE
        )
        os.close(read)
        self._lines = Lines()
        self._lines.add("client", self.child.process.stdout)
        self.events: list[dict[str, Any]] = []

    def wait_for(self, event: str, count: int = 1, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Until there are so many events of a kind."""
        until = time.monotonic() + seconds
        while len(found := [e for e in self.events if e["event"] == event]) < count:
            assert time.monotonic() < until, (self.events, self.child.tail())
            if not self._lines.open("client"):
                raise AssertionError((self.events, self.child.tail()))
            self.events += [line for _, line in self._lines.read(0.2)]
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """A signal, if any, and the exit status."""
        if number:
            self.child.signal(number)
        self.wait_for("summary")
        return self.child.process.wait(30)


def ping(concentrator: Concentrator, address: str, *words: str, host: str = LAN_HOST) -> str:
    """Ping a host of the LAN from an inner address."""
    name = concentrator.playground.name("clients")
    argv = ["ip", "netns", "exec", name, "ping", "-I", address, "-c", "5", "-i", "0.05", "-W", "2"]
    done = subprocess.run([*argv, *words, host], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_up_ping_down(concentrator: Concentrator) -> None:
    client = Client(concentrator, "--user", "user{i}", "--count", "3")
    ups = client.wait_for("up", 3)
    assert {e["user"] for e in ups} == {"user1", "user2", "user3"}
    assert all(e["mppe"] == 128 for e in ups)
    for event in ups:
        assert " 0% packet loss" in ping(concentrator, event["address"])
    full = ping(concentrator, ups[0]["address"], "-M", "do", "-s", str(ups[0]["mtu"] - 28))
    assert " 0% packet loss" in full
    assert client.end() == 0
    assert [e["cause"] for e in client.events if e["event"] == "down"] == ["closed"] * 3


def test_wrong_password(concentrator: Concentrator) -> None:
    client = Client(concentrator, "--user", "user1", password="wrong")
    (failed,) = client.wait_for("failed")
    assert failed["cause"] == "auth_failed"
    assert "691" in failed["reason"]
    assert client.end(0) == 1


def test_two_clients_share_a_namespace_and_an_address(concentrator: Concentrator) -> None:
    words = ("--count", "2", "--source", sources(1)[0])
    one = Client(concentrator, "--user", "user1", *words)
    # A route leads to one device; so each client has a host of its own to talk to.
    two = Client(concentrator, "--user", "user2", *words, route=f"{LAN_SERVER}/32")
    ours, theirs = ([e["address"] for e in c.wait_for("up", 2)] for c in (one, two))
    assert len({*ours, *theirs}) == 4
    for address in ours:
        assert " 0% packet loss" in ping(concentrator, address)
    for address in theirs:
        assert " 0% packet loss" in ping(concentrator, address, host=LAN_SERVER)
    assert one.end() == 0
    for address in theirs:
        assert " 0% packet loss" in ping(concentrator, address, host=LAN_SERVER)
    assert two.end() == 0


def test_several_sources_and_no_mppe(concentrator: Concentrator) -> None:
    outer = sources(SOURCES)
    client = Client(
        *(concentrator, "--user", "user{i}", "--count", "4", "--source", ",".join(outer)),
        *("--mppe", "deny"),
    )
    ups = client.wait_for("up", 4)
    assert all(e["mppe"] == 0 for e in ups)
    for event in ups:
        assert " 0% packet loss" in ping(concentrator, event["address"])
    assert client.end(signal.SIGINT) == 0


def test_hold_ends_by_itself(concentrator: Concentrator) -> None:
    client = Client(concentrator, "--user", "user1", "--hold", "0.3")
    client.wait_for("up")
    assert client.end(0) == 0


def test_worker_killed_under_traffic(concentrator: Concentrator) -> None:
    """No session is lost; the successor takes over the numbers and the keys."""
    client = Client(concentrator, "--user", "user{i}", "--count", "4")
    ups = client.wait_for("up", 4)
    workers = [
        pid
        for pid in concentrator.processes()
        if b"workers.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    time.sleep(3.0)
    for event in ups:
        assert " 0% packet loss" in ping(concentrator, event["address"])
    assert not [e for e in client.events if e["event"] == "down"]
    restarts = concentrator.metrics().total("pptp_worker_restarts_total")
    assert restarts == 1
    assert client.end() == 0


def test_server_that_is_not_there(concentrator: Concentrator) -> None:
    client = Client(concentrator, "--user", "user1", "--port", "1724")
    (failed,) = client.wait_for("failed")
    assert failed["cause"] == "connect_failed"
    assert client.end(0) == 1


def test_wrong_configuration_is_told_by_the_concentrator() -> None:
    if why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why_not())
    with Playground() as ground:
        broken = Concentrator(ground, {"u": "p"}, extra={"listen": {"port": 99999}})
        with pytest.raises(ChildError, match=r"pptpcon\.toml:\d+: listen\.port"):
            broken.start()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--password-file", "/nonexistent"], "/nonexistent"),
        ([], "--password-fd"),
        (["--password-fd", "0", "--route", "10.0.0.1/8"], "host bits"),
        (["--password-fd", "0", "--auth", "rot13"], "rot13"),
        (["--password-fd", "0", "--source", "me"], "me: not an IPv4 address"),
        (["--password-fd", "0", "--strengths", "56"], "56"),
    ],
)
def test_usage(words: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.client", "--server", "192.0.2.1", "--user", "u", *words],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_line_form() -> None:
    """Without --json, and without anybody listening: one line an event, nothing raised."""
    if why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why_not())
    with Playground() as ground:
        argv = ["ip", "netns", "exec", ground.name("clients"), sys.executable, "-m", "ops.client"]
        argv += ["--server", "127.0.0.1", "--user", "u", "--password-fd", "0"]
        done = subprocess.run(
            argv,
            cwd=Path(__file__).resolve().parents[2],
            input="secret\n",
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "failed i=1 user=u cause=connect_failed" in done.stdout
    assert "secret" not in done.stdout + done.stderr
