"""The way out by packet socket: what the resolver calls a plain next hop, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.netns import spaces
from workers.hops import Hop, Resolver
from workers.way_out import WayOut

pytestmark = pytest.mark.netns


def number(address: str) -> int:
    return int.from_bytes(bytes(map(int, address.split("."))), "big")


NEAR, FAR, HERE = number("198.18.5.2"), number("203.0.113.9"), number("198.18.5.1")


@pytest.fixture
def net() -> Iterator[SimpleNamespace]:
    """A server with a neighbour on a veth, whose hardware address is known."""
    spaces.need_root()
    server, client = spaces.Space(), spaces.Space()
    try:
        server.sh(f"ip link add wan type veth peer name up netns {client.name}")
        server.sh("ip addr add 198.18.5.1/24 dev wan && ip link set wan up")
        client.sh("ip addr add 198.18.5.2/24 dev up && ip addr add 198.18.5.3/24 dev up")
        client.sh("ip link set dev up address 02:00:00:00:00:02 && ip link set dev up up")
        server.sh("ip neigh replace 198.18.5.2 lladdr 02:00:00:00:00:02 dev wan nud reachable")
        with server.inside():
            resolver = Resolver()
            yield SimpleNamespace(server=server, client=client, resolver=resolver)
    finally:
        for space in (server, client):
            space.remove()


def test_neighbour_gateway_and_what_is_neither(net: SimpleNamespace) -> None:
    resolver, server = net.resolver, net.server
    ifindex = int(server.sh("cat /sys/class/net/wan/ifindex"))
    plain = Hop(ifindex, bytes.fromhex("020000000002"), 1500)
    assert resolver.resolve(NEAR, HERE) == plain
    assert resolver.resolve(FAR, HERE) is None  # no route
    server.sh("ip route add 203.0.113.0/24 via 198.18.5.2 mtu 1300")
    assert resolver.changed()
    resolver.forget()
    assert resolver.resolve(FAR, HERE) == Hop(ifindex, plain.mac, 1300)
    assert resolver.resolve(number("198.18.5.77"), HERE) is None  # neighbour not known
    assert resolver.resolve(HERE, HERE) is None  # ourselves
    server.sh("ip link add spare type veth peer name other && ip link set spare up")
    server.sh("ip addr add 198.18.6.1/24 dev spare && ip link set other up")
    server.sh(
        "ip route replace 203.0.113.0/24 nexthop via 198.18.5.2 nexthop via 198.18.6.2 dev spare"
    )
    resolver.forget()
    assert resolver.resolve(FAR, HERE) is None  # two ways: the kernel chooses
    server.sh("ip rule add from 192.0.2.0/24 table 77")
    resolver.forget()
    assert resolver.resolve(NEAR, HERE) is None  # policy routing: the kernel chooses
    server.sh("ip rule del from 192.0.2.0/24 table 77")
    resolver.forget()
    assert resolver.resolve(NEAR, HERE) == plain


def test_changes_are_noticed_and_our_own_routes_are_none(net: SimpleNamespace) -> None:
    resolver, server = net.resolver, net.server
    before = resolver.resolve(NEAR, HERE)
    resolver.changed()
    server.sh("ip route add 10.99.1.7/32 dev wan proto 201")
    assert not resolver.changed()
    server.sh("ip neigh replace 198.18.5.2 lladdr 02:00:00:00:00:03 dev wan nud reachable")
    assert resolver.changed()
    resolver.forget()
    after = resolver.resolve(NEAR, HERE)
    assert before is not None
    assert after == Hop(before.ifindex, bytes.fromhex("020000000003"), 1500)
    server.sh("ip link set wan down")
    assert resolver.changed()
    resolver.forget()
    assert resolver.resolve(NEAR, HERE) is None


def test_the_data_thread_is_told(net: SimpleNamespace) -> None:
    told: list[tuple[int, ...]] = []

    def set_hop(index: int, generation: int, ifindex: int, mac: bytes, mtu: int) -> bool:
        told.append((index, generation, ifindex, mtu))
        return True

    engine = SimpleNamespace(set_hop=set_hop)

    async def story() -> None:
        way_out = WayOut(engine, asyncio.get_running_loop())
        way_out.add((1, 1), NEAR, HERE)
        way_out.add((2, 1), number("198.18.5.3"), HERE)  # not known yet
        assert [each[2] > 0 for each in told] == [True, False]
        net.server.sh("ping -c 1 -W 2 198.18.5.3")
        for _ in range(300):
            if told[-1][0] == 2 and told[-1][2]:
                break
            await asyncio.sleep(0.02)
        assert told[-1][0] == 2
        assert told[-1][2] > 0
        net.server.sh("ip link set wan down")
        for _ in range(300):
            if sum(each[2] == 0 for each in told) >= 3:
                break
            await asyncio.sleep(0.02)
        assert {each[0] for each in told if each[2] == 0} == {1, 2}
        way_out.remove((1, 1), NEAR, HERE)
        way_out.remove((2, 1), number("198.18.5.3"), HERE)

    asyncio.run(story())
