"""SIGKILL of the dispatcher, of the vault, of all that serves a call: who is up stays up.

Real processes, our client as a program; with Debian's client: `interop/test_worker_death.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from ops.client import netns
from ops.client.concentrator import Concentrator
from ops.client.playground import LAN_HOST, Playground, why_not
from tests.netns.spaces import wait_for
from tests.netns.test_client import PASSWORD, Client, ping

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

USERS = 40


@pytest.fixture
def concentrator() -> Iterator[Concentrator]:
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Playground() as ground:
        made = Concentrator(
            ground,
            {f"user{i}": PASSWORD for i in range(1, USERS + 1)},
            extra={"workers": {"count": 2}, "mppe": {"policy": "require"}},
        )
        made.start()
        yield made
        assert made.stop() == 0
        text = made.child.log.read_text()
        assert "Traceback" not in text
        assert "internal error" not in text, text[-4000:]


def log(concentrator: Concentrator) -> str:
    return concentrator.child.log.read_text()


def kill(concentrator: Concentrator, *roles: str) -> None:
    """SIGKILL at once to the processes of these roles, and wait for their successors."""
    module = {"dispatcher": "dispatcher.process", "vault": "dispatcher.vault"}
    before = {role: log(concentrator).count(f"process replaced name={role}") for role in roles}
    for pid in netns.processes(concentrator.playground.name("server")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode().split("\0")
            index = re.search(r"worker-(\d)", " ".join(roles))
            if any(module.get(role, "-") in words for role in roles) or (
                index and "workers.process" in words
            ):
                os.kill(pid, signal.SIGKILL)
    for role, times in before.items():
        wait_for(
            lambda role=role, times=times: (
                log(concentrator).count(  # type: ignore[misc]
                    f"process replaced name={role}"
                )
                > times
            ),
            30,
        )


def up(concentrator: Concentrator) -> int:
    return int(concentrator.metrics().total("pptp_sessions", state="active"))


@contextlib.contextmanager
def flood(concentrator: Concentrator, address: str) -> Iterator[list[str]]:
    """A ping every 10 ms from an inner address meanwhile; its summary."""
    name = concentrator.playground.name("clients")
    argv = ["ip", "netns", "exec", name, "ping", "-q", "-i", "0.01", "-I", address, LAN_HOST]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        yield said
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said.append(process.stdout.read())


@pytest.mark.parametrize(
    "roles",
    [("dispatcher",), ("vault",), ("dispatcher", "worker-0", "worker-1")],
    ids="-".join,
)
def test_sessions_stay(concentrator: Concentrator, roles: tuple[str, ...]) -> None:
    client = Client(concentrator, "--user", "user{i}", "--count", "6")
    ups = client.wait_for("up", 6)
    with flood(concentrator, ups[0]["address"]) as said:
        for _ in range(2):
            kill(concentrator, *roles)
    (sent, received) = map(int, re.findall(r"(\d+) packets transmitted, (\d+) rec", said[0])[0])
    if "worker-0" not in roles:
        assert sent == received, said  # the data path has nothing to do with it
    assert received > sent / 2, said
    for event in ups:
        assert " 0% packet loss" in ping(concentrator, event["address"])
    assert [e for e in client.events if e["event"] in ("down", "failed")] == []
    wait_for(lambda: up(concentrator) == 6, 20)
    late = Client(concentrator, "--user", "user7", route="198.19.0.99/32")
    late.wait_for("up")
    assert late.end() == 0
    assert client.end() == 0
    assert [e["cause"] for e in client.events if e["event"] == "down"] == ["closed"] * 6
    wait_for(lambda: up(concentrator) == 0, 20)
    wait_for(lambda: log(concentrator).count("session down") == 7)
    text = log(concentrator)
    assert text.count("session up") == 7
    assert len(re.findall(r"session down .*cause=user_request", text)) == 7, text[-4000:]


def test_a_storm_of_logins_meanwhile(concentrator: Concentrator) -> None:
    """Calls at any point of their set-up; what was answered comes up."""
    client = Client(concentrator, "--user", "user{i}", "--count", str(USERS), "--rate", "20")
    client.wait_for("up", 5)
    for _ in range(3):
        kill(concentrator, "dispatcher")
        time.sleep(0.3)
    until = time.monotonic() + 60
    while len([e for e in client.events if e["event"] in ("up", "failed")]) < USERS:
        assert time.monotonic() < until, client.events
        client.events += [line for _, line in client._lines.read(0.2)]
    failed = [e for e in client.events if e["event"] == "failed"]
    print(f"{len(failed)} of {USERS} logins failed: {failed}")
    # Between TCP's accept and Start-Control-Connection-Reply there is nothing to take over.
    assert len(failed) <= 3
    assert [e for e in client.events if e["event"] == "down"] == []
    wait_for(lambda: up(concentrator) == USERS - len(failed), 20)
    assert client.end() == (1 if failed else 0)
    wait_for(lambda: up(concentrator) == 0, 20)
