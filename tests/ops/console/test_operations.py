"""Orders to the keeper and meters, without a keeper."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastpath.layout import Table
from ops.console.meters import Meters
from tests.ops.console.rig import Console, Shared, console
from tests.ops.console.test_show import open_dir, pptpcon

__all__ = ["open_dir"]


@contextmanager
def keeper(rig: Console, **answer: Any) -> Iterator[list[dict[str, Any]]]:
    """Answers one order."""
    heard: list[dict[str, Any]] = []

    def serve() -> None:
        heard.append(json.loads(rig.keeper.recv(65536)))
        reply = {"type": "answer", "request": heard[0]["request"], **answer}
        rig.keeper.send(json.dumps(reply).encode())

    thread = threading.Thread(target=serve)
    thread.start()
    yield heard
    thread.join()


def test_orders(open_dir: Any) -> None:
    with console(Shared(), open_dir) as rig:
        said = {"file": "/etc/x.toml", "applied": [], "kept": [], "said": ["/etc/x.toml:3: no"]}
        with keeper(rig, ok=False, **said) as heard:
            result = pptpcon("reload", run_dir=open_dir)
        assert (result.returncode, result.stdout) == (78, "")
        assert "/etc/x.toml:3: no\n" in result.stderr
        assert heard[0]["order"] == "reload"
        with keeper(rig, ok=True, sessions=7) as heard:
            result = pptpcon("shutdown", "soft", run_dir=open_dir)
        assert "ends after the last of 7 sessions" in result.stdout
        assert (heard[0]["order"], heard[0]["how"]) == ("shutdown", "soft")
        with keeper(rig, ok=False, reason="too late"):
            assert pptpcon("shutdown", "cancel", run_dir=open_dir).returncode == 2
        with keeper(rig, ok=True, level="info", debugged=["alice"]) as heard:
            result = pptpcon("log-level", "debug", "--user", "alice", run_dir=open_dir)
        assert result.stdout == "log level info; all lines about alice\n"
        assert (heard[0]["level"], heard[0]["name"]) == ("debug", "alice")
        for path, body, status in (
            ("/api/shutdown", {"how": "never"}, 400),
            ("/api/log-level", {"level": "loud"}, 400),
            ("/api/drain", {"workers": [9]}, 400),
            ("/api/drain", {"workers": "1"}, 400),
            ("/api/trace", {"by": "all", "value": "x"}, 400),
            ("/api/trace", {"by": "ip", "value": "x"}, 400),
            ("/api/trace", {"by": "username", "value": ""}, 400),
            ("/api/reload", {"x": 1}, 400),
        ):
            answer = rig.request(path, method="POST", body=json.dumps(body).encode())
            assert answer[0] == status, path
            assert rig.request(path, tcp=True, method="POST", body=b"{}")[0] == 403
        # Nobody answers for the dispatcher.
        alice = json.dumps({"by": "username", "value": "alice"}).encode()
        assert rig.request("/api/trace", method="POST", body=alice)[0] == 409


def test_meters() -> None:
    shared = Shared(4)
    shared.up(1, "alice", "10.99.1.5")
    meters = Meters()
    session = shared.table.session(1)
    meters.sample(shared.table, 10.0)
    assert meters.bps(session) is None
    shared.set_traffic(1, (1, 1000), (1, 500), 0)
    meters.sample(shared.table, 12.0)
    assert meters.bps(shared.table.session(1)) is None  # it had sent nothing at the first look
    shared.set_traffic(1, (2, 2000), (2, 4500), 0)
    meters.sample(shared.table, 14.0)
    assert meters.bps(shared.table.session(1)) == (4000, 16000)


def test_draining_is_in_the_table() -> None:
    fd = os.memfd_create("table")
    table = Table.create(fd, 4, 3, 7)
    table.set_draining([0, 2])
    assert Table.attach(fd).draining == [0, 2]
    table.set_draining([])
    assert table.draining == []
    with pytest.raises(IndexError):
        table.set_draining([3])
