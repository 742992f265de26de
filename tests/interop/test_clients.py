"""Debian's pptp-linux and pppd against the concentrator: everything they check, at once too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


def test_all_checks_with_20_megabytes(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    concentrator.start()
    client = Client(topology, "--mb", "20", log=tmp_path / "client.log")
    result = client.result()
    for name, check in result["checks"].items():
        print(name, check)
    assert lab.failures(result) == [], concentrator.tail()
    assert result["mppe_receive"] == result["mppe_send"] == "128-bit stateless"
    assert result["dns"] == ["198.19.0.53", "198.19.0.54"]
    assert result["remote"] == "198.19.128.1"


def test_four_at_once(topology: Topology, concentrator: Concentrator, tmp_path: Path) -> None:
    concentrator.start("--set", "workers.count=2")
    client = Client(
        topology,
        *("--count", "4", "--user", "user{i}", "--mb", "5", "--hold", "3"),
        *("--checks", "ping,tcp,iperf", "--time-limit", "240"),
        log=tmp_path / "clients.log",
    )
    try:
        rows = concentrator.wait_sessions(4)
        assert len({row["ip"] for row in rows}) == 4
        assert {row["worker"] for row in rows} == {0, 1}
        result = client.result()
    finally:
        client.stop()
    for one in result["clients"]:
        print(one["user"], {k: c.get("mbit_per_s", c.get("ok")) for k, c in one["checks"].items()})
    assert lab.failures(result) == [], concentrator.tail()
    assert concentrator.sessions() == []


def test_a_wrong_password_is_named_in_the_log_only(
    topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    concentrator.start()
    client = Client(topology, "--password", "wrong", "--user", "user3", log=tmp_path / "c.log")
    result = client.result()
    assert not result["connected"]
    assert "E=691" in result["pppd_log"], result["pppd_log"][-2000:]
    line = concentrator.wait_for(r".*user=user3.*")[0]
    assert "password" in line, concentrator.tail()
    assert not re.search(r"(?<!-)\bsecret\b", concentrator.text()), "a password in the log"
    counted = {k: v for k, v in concentrator.metrics().items() if "authentications_total" in k}
    assert [v for k, v in counted.items() if '"mschapv2",result="reject"' in k] == [1.0], counted
    # and the right one still gets in
    client = Client(topology, "--user", "user3", "--checks", "ping", log=tmp_path / "d.log")
    assert lab.failures(client.result()) == [], concentrator.tail()
