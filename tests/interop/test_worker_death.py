"""A worker or the dispatcher dies under a client's traffic: the session goes on.

The client pings every 10 ms and fetches a file with a known checksum meanwhile. What the
death cost is measured by the client's own clock and printed.
"""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

MEGABYTES = 24
PINGS = 1500
# Runs in the guest, beside the ping.
DOWNLOAD = f"""
import hashlib, http.client, sys, time
conn = http.client.HTTPConnection({lab.LAN_HOST!r}, {lab.HTTP_PORT}, timeout=60)
conn.request("GET", "/bytes/{MEGABYTES * 1000000}")
answer = conn.getresponse()
digest, size = hashlib.sha256(), 0
while data := answer.read1(65536):
    digest.update(data)
    size += len(data)
good = digest.hexdigest() == answer.getheader("X-SHA256") and size == {MEGABYTES * 1000000}
print("DOWNLOAD", size, "good" if good else "BAD")
sys.exit(not good)
"""


def guest_command() -> str:
    """The shell line for the guest: both at once, then ping's lines with the client's time."""
    return (
        f"ping -n -D -i 0.01 -W 1 -c {PINGS} {lab.LAN_HOST} > /run/ping.txt & "
        f"python3 -c '{DOWNLOAD}'; code=$?; wait; cat /run/ping.txt; exit $code"
    ).replace("'" + lab.LAN_HOST + "'", '"' + lab.LAN_HOST + '"')


def gap_of(text: str) -> tuple[float, int, int]:
    """(longest time between two answers in ms, pings sent, answers) in ping -D's output."""
    times = [float(m) for m in re.findall(r"^\[([\d.]+)\] \d+ bytes from", text, re.M)]
    sent = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert sent, text[-2000:]
    gap = max((b - a for a, b in pairwise(times)), default=float("inf"))
    return gap * 1000, int(sent[1]), int(sent[2])


def worker_row(concentrator: Concentrator, number: int) -> dict[str, Any]:
    """The row of one worker."""
    return next(row for row in concentrator.workers() if row["worker"] == number)


@pytest.mark.parametrize("deaths", [1, 3])
def test_no_session_is_lost(
    deaths: int,
    topology: Topology,
    concentrator: Concentrator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    concentrator.start("--set", "workers.count=2")
    client = Client(
        topology, "--checks", "ping", "--command", guest_command(), log=tmp_path / "c.log"
    )
    try:
        first = concentrator.wait_sessions(1)[0]
        for death in range(deaths):
            row = concentrator.wait_traffic((death + 1) * 1000)
            assert row["sid"] == first["sid"]
            before = worker_row(concentrator, row["worker"])
            os.kill(before["pid"], signal.SIGKILL)
            time.sleep(1.0)
            after = worker_row(concentrator, row["worker"])
            assert after["pid"] not in (None, before["pid"])
            assert after["restarts"] == before["restarts"] + 1
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    output = result["commands"][0]["output"]
    assert f"DOWNLOAD {MEGABYTES * 1000000} good" in output
    gap, sent, received = gap_of(output)
    with capsys.disabled():
        print(
            f"\n{deaths} deaths of the worker: longest gap {gap:.0f} ms, "
            f"{sent - received} of {sent} pings lost (one each 10 ms)"
        )
    # MPPE went on with new keys, and no sequence number or count was used twice: the
    # client's pppd would have said so.
    assert "LCP terminated" not in result["pppd_log"].split("Terminating on signal")[0]
    assert gap < 2000
    assert concentrator.sessions() == []


def process(topology: Topology, module: str) -> int:
    """The number of the one that runs this module."""
    (pid,) = (p for p, words in topology.processes().items() if f"-m {module} " in words)
    return pid


def test_the_dispatcher_dies(
    topology: Topology,
    concentrator: Concentrator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three times, and the vault once: pptp-linux keeps its TCP connection, and ends in order."""
    concentrator.start("--set", "workers.count=2", "--set", "listen.echo_interval_s=2")
    client = Client(
        topology, "--checks", "ping", "--command", guest_command(), log=tmp_path / "c.log"
    )
    try:
        first = concentrator.wait_sessions(1)[0]
        for death in range(3):
            concentrator.wait_traffic((death + 1) * 1000)
            module = "dispatcher.vault" if death == 1 else "dispatcher.process"
            before = process(topology, module)
            os.kill(before, signal.SIGKILL)
            until = time.monotonic() + 10
            while before in topology.processes() or f"-m {module} " not in " ".join(
                topology.processes().values()
            ):
                assert time.monotonic() < until, concentrator.tail()
                time.sleep(0.05)
            time.sleep(1.0)
            assert concentrator.sessions()[0]["sid"] == first["sid"]
        result = client.result()
    finally:
        client.stop()
    assert lab.failures(result) == [], concentrator.tail()
    output = result["commands"][0]["output"]
    assert f"DOWNLOAD {MEGABYTES * 1000000} good" in output
    gap, sent, received = gap_of(output)
    with capsys.disabled():
        print(f"\ndispatcher, vault, dispatcher: gap {gap:.0f} ms, {sent - received} pings lost")
    # No packet has to do with either of them: what a full download costs pings is lost, no more.
    assert received > sent * 0.95
    assert gap < 1500
    assert concentrator.text().count("session up") == 1
    concentrator.wait_for("session down .*cause=user_request")
    assert concentrator.sessions() == []


def test_links_that_negotiate_end_and_the_client_comes_back(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    """A death with nothing up: calls after it are served by the successor."""
    concentrator.start("--set", "workers.count=1")
    before = worker_row(concentrator, 0)
    os.kill(before["pid"], signal.SIGKILL)
    until = time.monotonic() + 5
    while worker_row(concentrator, 0)["pid"] in (None, before["pid"]):
        assert time.monotonic() < until, concentrator.tail()
        time.sleep(0.02)
    client = Client(topology, "--checks", "ping", log=tmp_path / "c.log")
    assert lab.failures(client.result()) == [], concentrator.tail()
