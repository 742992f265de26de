"""After the end, however it came, the host is as it was and another server may take over."""

from __future__ import annotations

import difflib
import subprocess
import time
from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]


def pptpd_serves(topology: Topology, folder: Path) -> None:
    """Debian's pptpd listens in the same namespace."""
    options = folder / "options.pptpd"
    options.write_text("name pptpd\n")
    config = folder / "pptpd.conf"
    config.write_text(
        f"option {options}\nlocalip 198.19.128.1\nremoteip 198.19.129.1-9\nnoipparam\n"
    )
    command = ["pptpd", "--fg", "--conf", str(config), "--pidfile", str(folder / "pptpd.pid")]
    process = subprocess.Popen(topology.inside("s", *command), stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 5
        while ":1723 " not in topology.run("s", "ss", "-Hltn"):
            assert process.poll() is None, f"pptpd ended with {process.returncode}"
            assert time.monotonic() < until, "pptpd does not listen"
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(10)


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Lines of the network's state that are new or gone."""
    return [
        f"{what}: {line}"
        for what in before
        for line in difflib.ndiff(before[what].splitlines(), after[what].splitlines())
        if line[0] in "+-"
    ]


def test_nothing_is_left_after_a_stop(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    before = topology.state()
    concentrator.start()
    during = topology.state()
    assert during["links"] != before["links"]
    # Raw sockets take packets from the kernel's own protocols: nothing to keep from these.
    assert (during["nft"] != before["nft"]) == ("mode=raw" not in concentrator.text())
    assert during["forward"] == before["forward"]
    client = Client(topology, "--checks", "ping", "--hold", "120", log=tmp_path / "client.log")
    try:
        concentrator.wait_traffic(15)
        # a session that is up is ended properly: the client is told by LCP or by PPTP
        start = time.monotonic()
        concentrator.stop()
        print(f"stop with one session took {time.monotonic() - start:.2f} s")
        result = client.result()
    finally:
        client.stop()
    assert result["connected"]
    assert result["dropped_by_peer"], result["pppd_log"][-1500:]
    assert "LCP TermReq" in result["pppd_log"], result["pppd_log"][-1500:]
    assert changes(before, topology.state()) == []
    pptpd_serves(topology, tmp_path)


def test_after_kill_9_of_all_pptpd_serves_and_so_does_the_next_run(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    before = topology.state()
    concentrator.start()
    client = Client(topology, "--checks", "none", "--hold", "8", log=tmp_path / "client.log")
    try:
        concentrator.wait_sessions(1)
        concentrator.kill()
    finally:
        client.stop()
    after = topology.state()
    assert after["processes"] == ""
    # What refuses packets (nft table) or holds the port is gone. A blackhole route for the
    # pool may stay: it is no worse than no route, and the next run takes it away.
    found = changes(before, after)
    assert [line for line in found if "blackhole" not in line and "run folder" not in line] == []
    pptpd_serves(topology, tmp_path)
    concentrator.start()
    client = Client(topology, "--checks", "ping", log=tmp_path / "client2.log")
    assert lab.failures(client.result()) == [], concentrator.tail()
    concentrator.stop()
    assert changes(before, topology.state()) == []


def test_a_second_instance_is_told_who_has_the_address(
    topology: Topology, concentrator: Concentrator
) -> None:
    concentrator.start()
    second = subprocess.run(
        topology.inside("s", str(lab.SERVER)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 69, second.stderr
    assert "Traceback" not in second.stderr
    assert any(str(pid) in second.stderr for pid in topology.processes()), second.stderr
    # and the first one is none the worse
    assert concentrator.sessions() == []
    concentrator.stop()
