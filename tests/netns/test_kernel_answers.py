"""What the kernel itself does with GRE beside us: no ICMP, and nothing of others' is lost."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from ops.settings import Gre, Settings, Workers
from tests.netns import spaces
from tests.netns.spaces import Keeper, Space, enhanced, received

pytestmark = pytest.mark.netns

VERSION_0 = b"\x00\x00\x08\x00" + b"v0" * 20


def conf(mode: str = "packet") -> Settings:
    return Settings(workers=Workers(count=2), gre=Gre(mode=mode))  # type: ignore[arg-type]


def raw(space: Space, protocol: int) -> socket.socket:
    """A raw socket of somebody else in the namespace."""
    with space.inside():
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)


def unreachable(packets: list[bytes]) -> int:
    """ICMP protocol unreachable among IPv4 packets."""
    return sum(packet[20:22] == b"\x03\x02" for packet in packets)


@pytest.mark.parametrize("mode", ["packet", "raw"])
def test_no_icmp(mode: str, pair: tuple[Space, Space], start_keeper: Callable[..., Keeper]) -> None:
    client, server = pair
    out, icmp = raw(client, 47), raw(client, socket.IPPROTO_ICMP)
    out.sendto(enhanced(1), ("192.0.2.2", 0))
    icmp.settimeout(5)
    assert unreachable([icmp.recv(2048)]) == 1, "without us the kernel does answer"
    keeper = start_keeper(server, conf(mode)).ready()
    for call_id in range(10):
        out.sendto(enhanced(call_id), ("192.0.2.2", 0))
    out.sendto(enhanced(1, b"x" * 4000), ("192.0.2.2", 0))
    assert unreachable(received(icmp)) == 0
    # the nft table gone (`nft delete table` by its owner's end): the raw socket is still there
    netops = next(pid for name, pid in keeper.children().items() if "netops" in name)
    with spaces.stopped(keeper.process.pid):
        spaces.kill(netops)
        assert server.sh("nft list tables") == ""
        out.sendto(enhanced(1), ("192.0.2.2", 0))
        assert unreachable(received(icmp)) == 0
    assert keeper.stop() == 0


@pytest.mark.parametrize("mode", ["packet", "raw"])
def test_version_0_tunnels_of_the_host_pass(
    mode: str, pair: tuple[Space, Space], start_keeper: Callable[..., Keeper]
) -> None:
    client, server = pair
    keeper = start_keeper(server, conf(mode)).ready()
    out, theirs = raw(client, 47), raw(server, 47)
    out.sendto(VERSION_0, ("192.0.2.2", 0))
    out.sendto(enhanced(1), ("192.0.2.2", 0))
    expected = [VERSION_0] if mode == "packet" else [VERSION_0, enhanced(1)]
    assert [packet[20:] for packet in received(theirs)] == expected
    assert keeper.stop() == 0


def test_transit_passes(
    make_space: Callable[[], Space], start_keeper: Callable[..., Keeper]
) -> None:
    """PPTP of others that this host forwards is not ours to take."""
    client, server, behind = make_space(), make_space(), make_space()
    spaces.join(client, server, "192.0.2")
    spaces.join(behind, server, "198.51.100")
    server.sh("sysctl -qw net.ipv4.ip_forward=1")
    client.sh("ip route add default via 192.0.2.2")
    behind.sh("ip route add default via 198.51.100.2")
    keeper = start_keeper(server, conf()).ready()
    out, arrived = raw(client, 47), raw(behind, 47)
    large = enhanced(9, b"x" * 4000)
    for packet in (enhanced(1), VERSION_0, large):
        out.sendto(packet, ("198.51.100.1", 0))
    assert [packet[20:] for packet in received(arrived)] == [enhanced(1), VERSION_0, large]
    assert keeper.stop() == 0
