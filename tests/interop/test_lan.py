"""docs/install.md, "Reaching a LAN": each of its three ways lets a client reach a LAN's host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import lab
from tests.interop.lab import Client, Concentrator, Topology

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

POOL = "198.19.129.1-198.19.131.254"
OF_THE_LAN = "198.19.0.201-198.19.0.220"


def routes(topology: Topology) -> str:
    """The LAN knows where the pool is."""
    topology.run("l", "ip", "route", "add", "198.19.128.0/17", "via", "198.19.0.1")
    return POOL


def masquerade(topology: Topology) -> str:
    """The LAN knows nothing of subscribers."""
    for words in (
        "add table ip subscribers",
        "add chain ip subscribers out { type nat hook postrouting priority srcnat; }",
        'add rule ip subscribers out ip saddr 198.19.128.0/17 oifname "lan" masquerade',
    ):
        topology.run("s", "nft", words)
    return POOL


def proxy_arp(topology: Topology) -> str:
    """Subscribers have addresses of the LAN."""
    topology.run("s", "sysctl", "-qw", "net.ipv4.conf.lan.proxy_arp=1")
    return OF_THE_LAN


@pytest.mark.parametrize("way", [routes, masquerade, proxy_arp], ids=lambda way: way.__name__)
def test_a_host_of_the_lan_answers(
    way: object, topology: Topology, concentrator: Concentrator, tmp_path: Path
) -> None:
    topology.run("l", "ip", "route", "del", "default")
    assert callable(way)
    concentrator.start(LAB_POOL=way(topology))
    client = Client(topology, "--checks", "ping,tcp", "--mb", "2", log=tmp_path / "c.log")
    assert lab.failures(client.result()) == [], concentrator.tail()
    concentrator.stop()
