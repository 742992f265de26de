"""The process: privileges, the keeper's messages, the metrics port."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops.settings import Limits, Metrics
from tests.ops.console.rig import Console, Shared, console, free_port, settings


def wait(what: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: rest.split() for key, _, rest in (line.partition(":") for line in lines)}


def test_unprivileged_nice_and_read_only(running: Console) -> None:
    pid = running.process.pid
    found = status(pid)
    assert found["NoNewPrivs"] == ["1"]
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        assert found["Uid"] == [str(nobody.pw_uid)] * 4
        assert found["Gid"] == [str(nobody.pw_gid)] * 4
        assert found["Groups"] == []
        assert found["CapEff"] == ["0000000000000000"]
        table = [line for line in maps(pid) if "/memfd:table" in line]
        assert table
        assert all(line.split()[1] == "r--s" for line in table)
    assert os.getpriority(os.PRIO_PROCESS, pid) == 10


def maps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text().splitlines()


def test_sigint_is_the_keepers_affair(running: Console) -> None:
    running.process.send_signal(2)
    assert running.request("/healthz")[0] == 200


def test_ends_when_the_keeper_is_gone(tmp_path: Path) -> None:
    rig = Console(Shared(), tmp_path, settings(free_port()))
    rig.wait_ready()
    rig.keeper.close()
    assert rig.process.wait(10) == 0
    assert "Traceback" not in rig.log()


def test_ends_on_sigterm_with_a_connection_open(tmp_path: Path) -> None:
    rig = Console(Shared(), tmp_path, settings(free_port()))
    rig.wait_ready()
    with socket.create_connection(("127.0.0.1", rig.port)):
        rig.process.terminate()
        assert rig.process.wait(10) == 0
    rig.keeper.close()
    assert "Traceback" not in rig.log()


def test_port_taken_is_said_and_tried_again(tmp_path: Path) -> None:
    port = free_port()
    other = socket.create_server(("127.0.0.1", port))
    chosen = settings(port)
    with console(Shared(), tmp_path, chosen) as rig:
        assert rig.request("/healthz")[0] == 200
        line = next(line for line in rig.log().splitlines() if "metrics not served" in line)
        assert f"listen=127.0.0.1:{port}" in line
        assert 'reason="address in use"' in line
        assert "metrics.listen" in line
        other.close()
        # The next try comes by itself after 10 s, or with a reload.
        rig.reload(chosen)
        wait(lambda: "metrics served" in rig.log())
        assert rig.request("/healthz", tcp=True)[0] == 200


def test_reload_moves_the_listener_and_changes_figures(tmp_path: Path) -> None:
    with console(Shared(), tmp_path) as rig:
        old = rig.port
        assert "pptp_slots_capacity 64.0" in rig.metrics(tcp=True)
        new = free_port()
        limits = Limits(max_sessions=10)
        rig.reload(replace(settings(new), limits=limits))
        wait(lambda: f":{new}/metrics" in rig.log())
        rig.port = new
        assert "pptp_slots_capacity 10.0" in rig.metrics(tcp=True)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old))
        rig.reload(replace(settings(new), metrics=Metrics(listen="nonsense")))
        wait(lambda: "metrics not served" in rig.log())
        assert "'nonsense' is not address:port" in rig.log()
        assert rig.request("/healthz")[0] == 200


def test_ipv6_listener(tmp_path: Path) -> None:
    port = free_port()
    chosen = replace(settings(0), metrics=Metrics(listen=f"[::1]:{port}"))
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with console(Shared(), tmp_path, chosen) as rig:
        assert f"url=http://[::1]:{port}/metrics" in rig.log()


def test_wrong_table_is_refused_by_name(tmp_path: Path) -> None:
    shared = Shared()
    shared.map[0:4] = b"nope"
    rig = Console(shared, tmp_path, settings(0))
    assert rig.process.wait(10) == 69
    assert "console: not a session table" in rig.log()
    rig.keeper.close()
