"""A worker process among its real neighbours: start order, privileges, death, reload, stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ops.settings import Accounts, Ip, Limits, Listen, Metrics, Pool, Settings, Workers
from tests.netns.spaces import ROOT, Keeper, Space, kill, wait_for

pytestmark = pytest.mark.netns

Start = Callable[..., Keeper]
Pair = tuple[Space, Space]
CLIENTS = 4
CONF = Settings(
    listen=Listen(address="192.0.2.2"),
    workers=Workers(count=2),
    ip=Ip(local="10.99.0.1"),
    pools=(Pool("default", ("10.99.1.1-20",)),),
    accounts=Accounts(users=(("anna", "anna's secret"),)),
    limits=Limits(max_sessions=64),
    metrics=Metrics(listen=""),
)


@contextlib.contextmanager
def fleet(
    space: Space, user: str, password: str, count: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Our client, logged in or trying."""
    reader, writer = os.pipe()
    os.write(writer, password.encode() + b"\n")
    os.close(writer)
    words = ["-m", "ops.client", "--server", "192.0.2.2", "--user", user, "--count", str(count)]
    words += ["--password-fd", str(reader), "--route", "10.99.0.0/24", "--json"]
    process = subprocess.Popen(
        space.argv(sys.executable, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[reader],
        cwd=ROOT,
        text=True,
    )
    os.close(reader)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def worker_pids(keeper: Keeper) -> list[int]:
    """Process numbers of the workers; none while one is being replaced."""
    try:
        children = keeper.children()
    except OSError:
        return []
    return [pid for name, pid in children.items() if name.startswith("workers.process")]


def routes(space: Space) -> set[str]:
    """Subscribers' routes."""
    return {
        str(r["dst"])
        for r in space.routes()
        if r.get("protocol") == "201" and r.get("type") != "blackhole"
    }


def status(path: Path) -> dict[str, str]:
    """A thread's /proc status."""
    pairs = (line.split(":", 1) for line in (path / "status").read_text().splitlines())
    return {name: value.strip() for name, value in pairs}


def hellos(keeper: Keeper, count: int) -> None:
    """Wait until workers have said Hello so many times."""
    wait_for(lambda: keeper.text.count("worker said Hello") >= count)


def up(keeper: Keeper, times: int) -> Keeper:
    """Wait for so many sessions to have come up since the start."""
    wait_for(lambda: keeper.text.count("session up") >= times or keeper.process.poll())
    assert keeper.text.count("session up") >= times, keeper.text
    return keeper


def test_threads_and_privileges(pair: Pair, start_keeper: Start) -> None:
    keeper = start_keeper(pair[1], CONF, module="dispatcher.keeper").ready()
    pids = worker_pids(keeper)
    assert len(pids) == 2
    cpus = set()
    for pid in pids:
        threads = {
            status(task)["Name"]: task for task in sorted(Path(f"/proc/{pid}/task").iterdir())
        }
        data = next(task for name, task in threads.items() if name.startswith("data-"))
        cpus.add(status(data)["Cpus_allowed_list"])
        control = Path(f"/proc/{pid}/task/{pid}")
        nice = {
            t: int((t / "stat").read_text().rpartition(")")[2].split()[16]) for t in (data, control)
        }
        assert nice == {data: 0, control: 10}
        # Ahead of others while it is not busy: fastpath/priority.pxd.
        policies = [os.sched_getscheduler(int(task.name)) for task in (data, control)]
        assert policies == [os.SCHED_FIFO, os.SCHED_OTHER]
        for task in threads.values():
            assert status(task)["Uid"].split() == ["65534"] * 4
            assert status(task)["CapEff"] == "0000000000000000"
        assert status(control)["NoNewPrivs"] == "1"
        if len(os.sched_getaffinity(0)) > 1:
            assert status(control)["Cpus_allowed_list"] != status(data)["Cpus_allowed_list"]
    if len(os.sched_getaffinity(0)) > 1:
        assert len(cpus) == 2
    assert keeper.stop() == 0


def test_sessions_outlive_their_worker(pair: Pair, start_keeper: Start) -> None:
    keeper = start_keeper(pair[1], CONF, module="dispatcher.keeper").ready()
    with fleet(pair[0], "anna", "anna's secret", CLIENTS) as clients:
        up(keeper, CLIENTS)
        before = routes(pair[1])
        assert len(before) == CLIENTS
        for turn in (2, 3):
            for pid in worker_pids(keeper):
                kill(pid)
            hellos(keeper, 2 * turn)
            assert len(worker_pids(keeper)) == 2
        assert clients.poll() is None
        assert "worker_lost" not in keeper.text
        assert routes(pair[1]) == before
        for address in before:
            pair[0].sh(f"ping -c 1 -W 2 -I {address} 10.99.0.1")
    # The clients hang up: successors end what their predecessors brought up.
    wait_for(lambda: keeper.text.count("session down") == CLIENTS)
    wait_for(lambda: routes(pair[1]) == set())
    assert keeper.text.count("cause=user_request") == CLIENTS, keeper.text
    assert "internal error" not in keeper.text
    assert keeper.stop() == 0


def test_refused_logins_are_logged_with_their_cause(pair: Pair, start_keeper: Start) -> None:
    keeper = start_keeper(pair[1], CONF, module="dispatcher.keeper").ready()
    for user, password, reason in (
        ("anna", "Anna's secret", "wrong password (accounts.users)"),
        ("DOM\\bert", "x", "no such user"),
    ):
        with fleet(pair[0], user, password) as client:
            assert client.wait(20) != 0
        assert reason in keeper.text
    line = next(line for line in keeper.text.splitlines() if "login refused" in line)
    assert re.search(r"sid=[0-9a-f]{16} user=anna peer=192\.0\.2\.1 auth=mschapv2", line)
    assert "Anna's secret" not in keeper.text
    assert keeper.stop() == 0


def test_chap_secrets_are_read_again(pair: Pair, start_keeper: Start, tmp_path: Path) -> None:
    secrets = tmp_path / "chap-secrets"
    secrets.write_text("bert pptpcon bert1 *\nbroken line\n")
    secrets.chmod(0o600)
    conf = replace(CONF, accounts=Accounts(chap_secrets=str(secrets)))
    keeper = start_keeper(pair[1], conf, module="dispatcher.keeper").ready()
    keeper.heard("line=2").heard("accounts=1")
    with fleet(pair[0], "bert", "bert1"):
        up(keeper, 1)
    secrets.write_text("bert pptpcon bert2 10.99.1.9\ncara pptpcon cara *\n")
    keeper.heard("accounts=2")
    with fleet(pair[0], "bert", "bert1") as client:
        assert client.wait(20) != 0
    with fleet(pair[0], "bert", "bert2"):
        up(keeper, 2)
        assert routes(pair[1]) == {"10.99.1.9"}
    assert "bert2" not in keeper.text
    assert keeper.stop() == 0


def test_stop_ends_sessions_in_order(pair: Pair, start_keeper: Start) -> None:
    keeper = start_keeper(pair[1], CONF, module="dispatcher.keeper").ready()
    with fleet(pair[0], "anna", "anna's secret", CLIENTS) as clients:
        up(keeper, CLIENTS)
        began = time.monotonic()
        assert keeper.stop() == 0
        assert time.monotonic() - began < 6.0
        clients.wait(15)
        assert clients.stdout is not None
        events = [json.loads(x) for x in clients.stdout.read().splitlines() if x.startswith("{")]
    assert events
    assert keeper.text.count("cause=admin_reboot") >= CLIENTS
    assert routes(pair[1]) == set()
    assert "internal error" not in keeper.text
    assert pair[1].ours() == []
