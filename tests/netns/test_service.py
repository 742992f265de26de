"""All real processes together: each may be killed, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from ops.settings import Accounts, Limits, Settings, Workers
from tests.netns.spaces import Keeper, Space, wait_for

pytestmark = pytest.mark.netns

CONF = Settings(
    workers=Workers(count=2),
    limits=Limits(max_sessions=64),
    accounts=Accounts(users=(("demo", "password"),)),
)
MODULES = {
    "netops": "dispatcher.netops",
    "dispatcher": "dispatcher.process",
    "vault": "dispatcher.vault",
    "worker-0": "workers.process",
    "console": "ops.console",
}


@pytest.fixture
def service(space: Space, start_keeper: Callable[..., Keeper]) -> Keeper:
    """A concentrator that serves."""
    keeper = start_keeper(space, CONF, module="dispatcher.keeper")
    return keeper.heard("keeper: ready", 30)


def serves(space: Space) -> bool:
    """Is the metrics page there, and does the control port take connections?"""
    try:
        with space.inside():
            with socket.create_connection(("127.0.0.1", 1723), 5):
                pass
            with socket.create_connection(("127.0.0.1", 9723), 5) as sock:
                sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                return b"pptp_slots_capacity" in sock.makefile("rb").read()
    except OSError:
        return False


def test_each_process_may_be_killed(space: Space, service: Keeper) -> None:
    wait_for(lambda: serves(space))
    for role, module in MODULES.items():
        pid = next(p for name, p in service.children().items() if name.startswith(module + ":"))
        os.kill(pid, signal.SIGKILL)
        service.heard(f"process replaced name={role}", 30)
    wait_for(lambda: serves(space))
    assert service.stop() == 0
    assert "Traceback" not in service.text
    assert space.ours() == []


def test_sigkill_of_all_then_a_new_start(
    space: Space, service: Keeper, start_keeper: Callable[..., Keeper]
) -> None:
    service.kill_all()
    again = start_keeper(space, replace(CONF, workers=Workers(count=1)), module="dispatcher.keeper")
    again.heard("keeper: ready", 30)
    wait_for(lambda: serves(space))
    assert "link pptp1" not in space.ours()
    assert again.stop(signal.SIGINT) == 0
    assert space.ours() == []
