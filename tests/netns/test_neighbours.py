"""Proxy entries: whose they are, where they go, that they come back and leave."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from dispatcher.neighbours import Neighbours
from fastpath.layout import STATE_ACTIVE
from ops import log, settings
from ops.settings import Lan
from tests.netns.spaces import Space, join, wait_for
from tests.netns.test_netops import CONF, Bench, address, set_link

pytestmark = pytest.mark.netns

PROXY = replace(CONF, lan=Lan(proxy="on"))


def entries(space: Space) -> dict[str, str]:
    """Proxy entries: address to interface."""
    found = json.loads(space.sh("ip -j neigh show proxy; ip -j -6 neigh show proxy").split("\n")[0])
    return {entry["dst"]: entry["dev"] for entry in found}


def lan(space: Space, name: str, network: str) -> None:
    """An Ethernet interface with an address."""
    space.sh(f"ip link add {name} type bridge && ip link set {name} up")
    space.sh(f"ip addr add {network} dev {name}")


@pytest.fixture
def bench(space: Space) -> Iterator[Bench]:
    """A netops between two LANs, of which one has the default route."""
    lan(space, "lan0", "10.99.1.1/24")
    lan(space, "lan1", "192.0.2.1/24")
    space.sh("ip route add default via 192.0.2.9")
    made = Bench(space, PROXY)
    yield made
    if made.child.reap() is None:
        made.child.kill()
        wait_for(made.child.reap)
    for tun in made.tuns:
        os.close(tun.fd)


def up(bench: Bench, index: int, text: str, worker: int = 0) -> None:
    """A session that is up, in the table."""
    generation, _ = bench.table.allot(
        index, worker=worker, call_id=5 + index, peer_call_id=6, local_address=1, peer_address=2,
        peer_port=3, peer_window=4, peer_speed=5, connection=1,
    )  # fmt: skip
    bench.table.begin_link(index, generation)
    set_link(bench.table, index, address(text))
    bench.table.set_state(index, STATE_ACTIVE)


def test_entries_come_and_go_where_routes_lead(bench: Bench) -> None:
    space, one = bench.space, bench.tuns[0].ifindex
    inside, outside = address("10.99.1.77"), address("10.77.0.1")
    bench.ask(0, [1, "route_add", inside, one], [2, "route_add", outside, one])
    # of the LAN's subnet, though the pool's blackhole and our own route are longer; of none
    assert entries(space) == {"10.99.1.77": "lan0", "10.77.0.1": "lan1"}
    bench.ask(0, [3, "route_del", inside, one])
    assert entries(space) == {"10.77.0.1": "lan1"}
    # somebody's own entry is not ours to touch
    space.sh("ip neigh add proxy 10.77.0.2 dev lan1")
    bench.stop()
    assert entries(space) == {"10.77.0.2": "lan1"}


def test_a_crash_leaves_none_and_a_successor_has_those_of_the_living(bench: Bench) -> None:
    space, one = bench.space, bench.tuns[0].ifindex
    up(bench, 3, "10.99.1.77")
    bench.ask(0, [1, "route_add", address("10.99.1.5"), one])
    bench.ask(0, [2, "route_add", address("10.99.1.77"), one])
    bench.child.kill()
    wait_for(bench.child.reap)
    space.sh("ip neigh del proxy 10.99.1.77 dev lan0; ip neigh add proxy 10.9.9.9 dev lan1")
    # another instance's: its route leads to its own device
    space.sh("ip link add other type bridge && ip link set other up")
    space.sh("ip route add 10.99.1.99/32 dev other proto 201")
    space.sh("ip neigh add proxy 10.99.1.99 dev lan0 protocol 201")
    bench.child = bench.start()
    assert entries(space) == {"10.99.1.77": "lan0", "10.9.9.9": "lan1", "10.99.1.99": "lan0"}


def test_a_reload_moves_them(bench: Bench) -> None:
    space = bench.space
    up(bench, 3, "10.99.1.77")
    bench.ask(0, [1, "route_add", address("10.99.1.77"), bench.tuns[0].ifindex])

    def reload(conf: Lan) -> None:
        new = json.loads(settings.dumps(replace(CONF, lan=conf)))
        bench.child.send({"type": "settings", "settings": new}, log.Log("test"))

    reload(Lan(proxy="on", interface="lan1"))
    wait_for(lambda: entries(space) == {"10.99.1.77": "lan1"})
    reload(Lan(proxy="on", interface="nothere"))
    wait_for(lambda: entries(space) == {})
    reload(Lan(proxy="on"))
    wait_for(lambda: entries(space) == {"10.99.1.77": "lan0"})
    reload(Lan())
    wait_for(lambda: entries(space) == {})


def test_a_host_of_the_lan_gets_an_answer(make_space: object) -> None:
    assert callable(make_space)
    server, host = make_space(), make_space()
    ours, theirs = join(server, host, "192.0.2")
    server.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    server.sh(f"sysctl -qw net.ipv6.conf.{ours}.proxy_ndp=1")
    server.sh(f"sysctl -qw net.ipv4.neigh.{ours}.proxy_delay=0")
    server.sh(f"ip addr add 2001:db8::1/64 dev {ours} nodad")
    host.sh(f"ip addr add 2001:db8::2/64 dev {theirs} nodad")
    server.sh("ip link add sub type bridge && ip link set sub up")
    server.sh("ip route add 198.51.100.7/32 dev sub; ip route add 2001:db8::77 dev sub")
    host.sh(f"ip route add 198.51.100.7/32 dev {theirs}")
    conf = Lan(proxy="on", interface=ours)
    with server.inside():
        made = Neighbours(log.Log("test"), [])
        made.restore(conf, [(socket.AF_INET, int(IPv4Address("198.51.100.7")))])
        made.follow([(True, (socket.AF_INET6, int(ip_address("2001:db8::77"))))])
    mac = json.loads(server.sh(f"ip -j link show {ours}"))[0]["address"]
    for text, ping in (("198.51.100.7", "ping"), ("2001:db8::77", "ping -6")):
        host.sh(f"{ping} -c1 -W2 {text} || true")
        (found,) = json.loads(host.sh(f"ip -j neigh show {text}"))
        assert found.get("lladdr") == mac, found
    made.leave()
    assert made.count == 0 and entries(server) == {}
