"""netops by itself: what it sets up, answers, restores and takes back."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import msgpack
import pytest

from dispatcher import children, descriptors
from fastpath.layout import STATE_ACTIVE, Table
from ops import log, settings
from ops.metrics import NETOPS_COUNTERS
from ops.networks import network, parse_network
from ops.settings import Ip, Ipv6, Pool, Pool6, Settings
from tests.netns.spaces import Space, wait_for

pytestmark = pytest.mark.netns

ROLE = children.Role("netops", "netops", "dispatcher.netops", dies_with_keeper=False)


class Bench:
    """What the keeper would hold: a table, two TUNs, socket pairs, and a netops process."""

    def __init__(self, space: Space, conf: Settings, sessions: int = 64) -> None:
        self.space = space
        self.conf = conf
        with space.inside():
            self.tuns = [descriptors.tun(0), descriptors.tun(0)]
        self.table_fd = descriptors.memfd("sessions")
        self.table = Table.create(self.table_fd, sessions, 2, 1)
        self.pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in "ab"]
        self.workers = [pair[0] for pair in self.pairs]
        for sock in self.workers:
            sock.settimeout(5)
        self.child = self.start()

    def start(self, packet_mode: bool = True) -> children.Child:
        """A netops that is ready."""
        with self.space.inside():
            child = children.Child(
                ROLE,
                settings=self.conf,
                run_dir="/nowhere",
                fds={"table": self.table_fd, "workers": [pair[1].fileno() for pair in self.pairs]},
                extra={
                    "tuns": [
                        {"name": tun.name, "ifindex": tun.ifindex, "worker": worker}
                        for worker, tun in enumerate(self.tuns)
                    ],
                    "packet_mode": packet_mode,
                    "keeper_pid": 4711,
                },
            )
        assert wait_for(child.receive) == [{"type": "ready"}]
        return child

    def ask(self, worker: int, *requests: list[object]) -> list[list[int]]:
        """Send one batch as a worker and wait for the answer."""
        self.workers[worker].send(msgpack.packb(list(requests)))
        answer: list[list[int]] = msgpack.unpackb(self.workers[worker].recv(65536))
        return answer

    def routes(self, kind: str = "unicast") -> dict[str, str]:
        """Our routes: destination -> device."""
        return {
            route["dst"]: route.get("dev", "")
            for route in self.space.routes()
            if route.get("protocol") == "201" and route["type"] == kind
        }

    def counted(self, name: str) -> int:
        """A counter of netops."""
        return self.table.netops_counters()[NETOPS_COUNTERS.index(name)]

    def close(self) -> None:
        """Whatever came of it."""
        if self.child.reap() is None:
            self.child.kill()
            wait_for(self.child.reap)
        for tun in self.tuns:
            os.close(tun.fd)

    def stop(self) -> None:
        """As the keeper does."""
        self.child.send({"type": "stop"}, log.Log("test"))
        assert wait_for(self.child.reap) == "exit status 0"


CONF = Settings(
    ip=Ip(local="10.99.0.1-2"),
    pools=(Pool("default", ("10.99.1.0-255", "10.99.7.4-9")), Pool("two", ("10.99.8.0/24",))),
)


@pytest.fixture
def bench(space: Space) -> Iterator[Bench]:
    """A bench that ends its netops."""
    made = Bench(space, CONF)
    yield made
    made.close()


def address(text: str) -> int:
    return int(IPv4Address(text))


def test_set_up(bench: Bench) -> None:
    link = json.loads(bench.space.sh("ip -d -j link show pptp1"))[0]
    assert link["mtu"] == 1400 and link["txqlen"] >= 1000 and "UP" in link["flags"]
    assert link["inet6_addr_gen_mode"] == "none"
    assert "inet6" not in bench.space.sh("ip addr show pptp1")
    first = bench.space.sh("ip -4 -o addr show pptp0")
    assert "10.99.0.1/32" in first and "10.99.0.2/32" in first
    assert set(bench.routes("blackhole")) == {
        "10.99.1.0/24", "10.99.7.4/30", "10.99.7.8/31",
        # a CIDR pool is less its network and broadcast address
        *(f"10.99.8.{n}" for n in (1, 254)),
        "10.99.8.2/31", "10.99.8.4/30", "10.99.8.8/29", "10.99.8.16/28", "10.99.8.32/27",
        "10.99.8.64/26", "10.99.8.128/26", "10.99.8.192/27", "10.99.8.224/28",
        "10.99.8.240/29", "10.99.8.248/30", "10.99.8.252/31",
    }  # fmt: skip
    assert "flags owner" in bench.space.sh("nft list table ip pptpcon_4711")


def test_routes_come_and_go(bench: Bench) -> None:
    one, two = (tun.ifindex for tun in bench.tuns)
    a, b = address("10.99.1.5"), address("10.99.1.6")
    assert bench.ask(0, [1, "route_add", a, one]) == [[1, 0]]
    assert bench.ask(1, [2, "route_add", b, two]) == [[2, 0]]
    # a worker's routes lead to its own TUN
    assert bench.ask(0, [5, "route_add", b, two]) == [[5, errno.EINVAL]]
    assert bench.routes() == {"10.99.1.5": "pptp0", "10.99.1.6": "pptp1"}
    assert "dev pptp0" in bench.space.sh("ip route get 10.99.1.5")
    # again, and to another worker's TUN: the last one holds
    assert bench.ask(0, [3, "route_add", a, one]) == [[3, 0]]
    assert bench.ask(1, [9, "route_add", a, two]) == [[9, 0]]
    assert bench.routes()["10.99.1.5"] == "pptp1"
    # the former owner's late deletion does not take the new one's route
    assert bench.ask(0, [4, "route_del", a, one]) == [[4, 0]]
    assert bench.routes()["10.99.1.5"] == "pptp1"
    assert bench.ask(1, [10, "route_del", a, two], [11, "route_del", a, two]) == [[10, 0], [11, 0]]
    assert bench.routes() == {"10.99.1.6": "pptp1"}
    assert bench.counted("routes_added") == 4
    assert bench.counted("failures") == 1  # the one refused


def nets(space: Space) -> dict[str, str]:
    """Our routes to networks, of both families: prefix -> device."""
    found = {}
    for family in "46":
        for route in json.loads(space.sh(f"ip -d -j -{family} route")):
            if route.get("protocol") == "201" and route["type"] == "unicast":
                found[route["dst"]] = route["dev"]
    return found


NETS = ("10.1.0.0/16", "192.168.7.0/29", "2001:db8:1::/48", "2001:db8:2:3::/64", "fd00::7")


def test_networks_come_and_go(bench: Bench) -> None:
    one, two = (tun.ifindex for tun in bench.tuns)
    adds = [[n, "net_add", *parse_network(text), one] for n, text in enumerate(NETS, 1)]
    assert bench.ask(0, *adds) == [[n, 0] for n in range(1, len(NETS) + 1)]
    assert nets(bench.space) == dict.fromkeys(NETS, "pptp0")
    assert "dev pptp0" in bench.space.sh("ip -6 route get 2001:db8:2:3::9")
    # once more, and by the other worker: the last one holds, the former one's deletion is late
    assert bench.ask(0, *adds) == [[n, 0] for n in range(1, len(NETS) + 1)]
    other = [[n, "net_add", *parse_network(text), two] for n, text in enumerate(NETS, 1)]
    assert {code for _, code in bench.ask(1, *other)} == {0}
    late = [[n, "net_del", *parse_network(text), one] for n, text in enumerate(NETS, 1)]
    assert {code for _, code in bench.ask(0, *late, *late)} == {0}
    assert nets(bench.space) == dict.fromkeys(NETS, "pptp1")
    gone = [[n, "net_del", *parse_network(text), two] for n, text in enumerate(NETS, 1)]
    assert {code for _, code in bench.ask(1, *gone)} == {0}
    assert nets(bench.space) == {}
    default = [[1, "net_add", *parse_network("::/0"), one]]
    assert bench.ask(0, *default) == [[1, errno.EINVAL]]


def test_ten_thousand_static_routes_are_back_after_a_restart(space: Space) -> None:
    """Their figures: tests/bench/routes.py."""
    made = Bench(space, CONF, sessions=400)
    try:
        wanted = routes_of_sessions(made, sessions=400, networks=25)
        made.child.kill()
        wait_for(made.child.reap)
        space.sh("ip -4 route flush proto 201; ip -6 route flush proto 201")
        made.child = made.start()
        assert len(wanted) == 10400 and set(nets(space)) == wanted
        made.stop()
    finally:
        made.close()


def routes_of_sessions(bench: Bench, sessions: int, networks: int) -> set[str]:
    """Up sessions with that many networks each, half of them of IPv6; all routes they need."""
    wanted = set()
    for index in range(sessions):
        generation, _ = bench.table.allot(
            index, worker=index % 2, call_id=5, peer_call_id=6, local_address=1, peer_address=2,
            peer_port=3, peer_window=4, peer_speed=5, connection=1,
        )  # fmt: skip
        bench.table.begin_link(index, generation)
        set_link(bench.table, index, address("10.99.1.0") + index)
        found = [
            network(4, address("20.0.0.0") + (index * networks + n << 8), 24)
            if n % 2
            else network(6, 0x20010DB8 << 96 | index * networks + n << 64, 64)
            for n in range(networks)
        ]
        bench.table.set_nets(index, found)
        bench.table.set_state(index, STATE_ACTIVE)
        wanted |= {str(net) for net in found} | {str(IPv4Address(address("10.99.1.0") + index))}
    return wanted


def test_the_administrators_routes_are_not_touched(bench: Bench) -> None:
    bench.space.sh("ip link add br9 type bridge && ip link set br9 up")
    bench.space.sh("ip route add 10.99.1.5 dev br9")
    one = bench.tuns[0].ifindex
    assert bench.ask(0, [1, "route_add", address("10.99.1.5"), one]) == [[1, 0]]
    assert bench.ask(0, [2, "route_del", address("10.99.1.5"), one]) == [[2, 0]]
    assert "10.99.1.5 dev br9" in bench.space.sh("ip route")


BAD: dict[str, list[object]] = {
    "loopback": [1, "route_add", address("127.0.0.1"), 2],
    "multicast": [1, "route_add", address("224.0.0.5"), 2],
    "nothing": [1, "route_add", 0, 2],
    "broadcast": [1, "route_add", 0xFFFFFFFF, 2],
    "too great": [1, "route_add", 1 << 40, 2],
    "negative": [1, "route_add", -1, 2],
    "not ours": [1, "route_add", address("10.99.1.5"), 1],
    "our own": [1, "route_add", address("10.99.0.1"), 2],
    "no operation": [1, "link_del", address("10.99.1.5"), 2],
    "text": [1, "route_add", "10.99.1.5", "pptp0"],
    "short": [1],
    "truth": [1, "route_add", True, 2],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused(name: str, bench: Bench) -> None:
    before = bench.space.routes()
    good = [2, "route_add", address("10.99.1.9"), bench.tuns[0].ifindex]
    assert bench.ask(0, BAD[name], good) == [[1, errno.EINVAL], [2, 0]]
    assert len(bench.space.routes()) == len(before) + 1
    assert bench.counted("failures") == 1


@pytest.mark.parametrize(
    "datagram", [b"", b"\xc1", b"\x00" * 70000, msgpack.packb({1: 2}), msgpack.packb([["x"]])]
)
def test_garbage_is_counted_and_survived(datagram: bytes, bench: Bench) -> None:
    bench.workers[1].send(datagram)
    wait_for(lambda: bench.counted("failures") == 1)
    add = [7, "route_add", address("10.99.1.9"), bench.tuns[1].ifindex]
    assert bench.ask(1, add) == [[7, 0]]


def test_a_killed_one_is_replaced_without_loss(bench: Bench) -> None:
    one, two = (tun.ifindex for tun in bench.tuns)
    add = [1, "route_add", address("10.99.1.5"), one]
    assert bench.ask(0, add) == [[1, 0]]
    generation, _ = bench.table.allot(
        3, worker=1, call_id=5, peer_call_id=6, local_address=1, peer_address=2, peer_port=3,
        peer_window=4, peer_speed=5, connection=1,
    )  # fmt: skip
    bench.table.begin_link(3, generation)
    set_link(bench.table, 3, address("10.99.1.77"))
    bench.table.set_state(3, STATE_ACTIVE)
    bench.child.kill()
    wait_for(bench.child.reap)
    # asked while nobody is there
    bench.workers[1].send(msgpack.packb([[2, "route_add", address("10.99.1.6"), two]]))
    assert bench.space.sh("nft list tables") == ""
    bench.child = bench.start()
    assert msgpack.unpackb(bench.workers[1].recv(65536)) == [[2, 0]]
    assert bench.routes() == {
        "10.99.1.5": "pptp0", "10.99.1.6": "pptp1", "10.99.1.77": "pptp1",
    }  # fmt: skip
    assert "pptpcon_4711" in bench.space.sh("nft list tables")


def set_link(table: Table, index: int, inner: int) -> None:
    """Give a session its inner address."""
    table.set_link(
        index, address=inner, local=1, mtu=1400, mru=1400, mppe_rx_bits=0, mppe_tx_bits=0,
        stateful=0, framing=0, magic=1, peer_magic=2, echo_interval_s=30, echo_failures=4,
    )  # fmt: skip


def test_stop_takes_everything_back(bench: Bench) -> None:
    bench.stop()
    assert bench.routes("blackhole") == {}
    assert "10.99.0" not in bench.space.sh("ip addr")
    assert bench.space.sh("nft list tables") == ""


def test_the_keepers_end_is_a_stop(bench: Bench) -> None:
    bench.child.sock.shutdown(socket.SHUT_RDWR)
    assert wait_for(bench.child.reap) == "exit status 0"
    assert bench.routes("blackhole") == {}


def test_reload_changes_pools_and_addresses(bench: Bench) -> None:
    new = replace(CONF, ip=Ip(local="10.99.0.7"), pools=(Pool("p", ("10.50.0.0-255",)),))
    message = {"type": "settings", "settings": json.loads(settings.dumps(new))}
    bench.child.send(message, log.Log("test"))
    wait_for(lambda: set(bench.routes("blackhole")) == {"10.50.0.0/24"})
    text = bench.space.sh("ip -4 addr show pptp0")
    assert "10.99.0.7/32" in text and "10.99.0.1/" not in text


def test_pools_of_ipv6_have_blackholes_which_a_successor_sweeps(bench: Bench) -> None:
    def reload(*pools: Pool6) -> None:
        new = replace(CONF, ipv6=Ipv6(ipv6cp="on", pools=pools))
        message = {"type": "settings", "settings": json.loads(settings.dumps(new))}
        bench.child.send(message, log.Log("test"))

    def blackholes() -> set[str]:
        found = json.loads(bench.space.sh("ip -6 -d -j route show type blackhole proto 201"))
        return {route["dst"] for route in found}

    reload(Pool6("links", ("2001:db8:100::/40", "fd00::/48")))
    wait_for(lambda: blackholes() == {"2001:db8:100::/40", "fd00::/48"})
    reload(Pool6("links", ("2001:db8:100::/40",)))
    wait_for(lambda: blackholes() == {"2001:db8:100::/40"})
    bench.child.kill()
    wait_for(bench.child.reap)
    assert blackholes() == {"2001:db8:100::/40"}
    bench.child = bench.start()  # its settings have no such pool
    assert blackholes() == set()


def test_an_address_the_host_has_is_left_alone(make_space: Callable[[], Space]) -> None:
    space = make_space()
    space.sh("ip addr add 10.99.0.1/24 dev lo")
    made = Bench(space, CONF)
    assert "10.99.0.1" not in space.sh("ip -4 addr show pptp0")
    assert "10.99.0.2" in space.sh("ip -4 addr show pptp0")
    made.stop()
    assert "10.99.0.1/24" in space.sh("ip -4 addr show lo")
    for tun in made.tuns:
        os.close(tun.fd)


def test_a_silent_worker_does_not_hold_up_the_other(bench: Bench) -> None:
    one = bench.tuns[0].ifindex
    batch = msgpack.packb([[i, "route_del", address("10.99.1.5"), one] for i in range(256)])
    bench.workers[0].settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            bench.workers[0].send(batch)
            sent += 1
    two = bench.tuns[1].ifindex
    assert bench.ask(1, [1, "route_add", address("10.99.1.9"), two]) == [[1, 0]]
    bench.workers[0].settimeout(5)
    answers = [msgpack.unpackb(bench.workers[0].recv(65536)) for _ in range(sent)]
    assert all(len(answer) == 256 for answer in answers)


def test_link_local_addresses(bench: Bench) -> None:
    """IPv6 on by a reload: ours on every TUN, at once usable; then another, then none."""

    def reload(**keys: str) -> None:
        bench.conf = replace(bench.conf, ipv6=replace(bench.conf.ipv6, **keys))  # type: ignore[arg-type]
        text = json.loads(settings.dumps(bench.conf))
        bench.child.send({"type": "settings", "settings": text}, log.Log("test"))
        bench.ask(0, [1, "route_del", address("10.99.1.5"), bench.tuns[0].ifindex])

    def six(name: str) -> list[tuple[str, int]]:
        shown = json.loads(bench.space.sh(f"ip -6 -j addr show dev {name}"))
        found = [a for link in shown for a in link.get("addr_info", ())]
        assert not any(a.get("tentative") for a in found)
        return [(a["local"], a["prefixlen"]) for a in found]

    names = [tun.name for tun in bench.tuns]
    reload(ipv6cp="on")
    assert [six(name) for name in names] == [[("fe80::1", 64)]] * 2
    assert "fe80::/64" in bench.space.sh(f"ip -6 route show dev {names[1]}")
    reload(interface_id="::a:0:0:b")
    assert [six(name) for name in names] == [[("fe80::a:0:0:b", 64)]] * 2
    reload(ipv6cp="off")
    assert [six(name) for name in names] == [[], []]


def test_link_local_address_at_start(space: Space) -> None:
    made = Bench(space, replace(CONF, ipv6=replace(CONF.ipv6, ipv6cp="on")))
    try:
        assert "fe80::1/64" in made.space.sh(f"ip -6 addr show dev {made.tuns[1].name}")
        made.stop()
        second = made.start()
        second.send({"type": "stop"}, log.Log("test"))
        assert wait_for(second.reap) == "exit status 0"
    finally:
        made.close()
