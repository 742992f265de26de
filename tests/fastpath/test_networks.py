"""Longest prefix match against a twin that looks at everything; networks in the data path."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath import engine
from fastpath.networks import Networks
from ops.networks import Network, network, parse_network
from tests.fastpath.peer import running, udp
from tests.fastpath.test_engine import ipv6
from workers.ipv6 import packets

Held = list[tuple[Network, int]]

# Few bits, so that prefixes meet; in both families the places where 32 and 64 bits end.
values4 = st.integers(0, 15).map(lambda n: (n & 3) << 30 | (n >> 2) << 7)
values6 = st.integers(0, 63).map(lambda n: (n & 3) << 126 | (n >> 2 & 3) << 63 | n >> 4)
found4 = st.tuples(values4, st.integers(0, 32)).map(lambda p: network(4, *p))
found6 = st.tuples(values6, st.integers(0, 128)).map(lambda p: network(6, *p))
steps = st.lists(st.tuples(st.booleans(), found4 | found6, st.integers(0, 3)), max_size=60)
addresses = values4.map(lambda n: n.to_bytes(4, "big")) | values6.map(
    lambda n: n.to_bytes(16, "big")
)


def slow_find(held: Held, octets: bytes) -> int:
    """The newest of the longest that the address lies in."""
    whole = Network(octets, 8 * len(octets))
    found = [(net.length, at, owner) for at, (net, owner) in enumerate(held) if net.holds(whole)]
    return max(found)[2] if found else -1


@settings(max_examples=300, deadline=None)
@given(steps, st.lists(addresses, max_size=8))
def test_as_the_slow_twin(steps: list[tuple[bool, Network, int]], asked: list[bytes]) -> None:
    table, held = Networks(), Held()
    for add, net, owner in steps:
        if add:
            assert table.add(net.octets, net.length, owner)
            held.append((net, owner))
        else:
            table.remove(net.octets, net.length, owner)
            at = [i for i, entry in enumerate(held) if entry == (net, owner)]
            if at:
                del held[at[-1]]
    assert table.sizes[0] == len(held)
    for octets in asked:
        assert table.find(octets) == slow_find(held, octets)
    for net, _ in held:
        assert table.find(net.octets) == slow_find(held, net.octets)


def test_hostile_sizes() -> None:
    """Half a million networks, and all lengths of both families at once."""
    table = Networks()
    for n in range(500_000):
        assert table.add(network(6, 0x20010DB8 << 96 | n << 64, 64).octets, 64, n % 16384)
    for length in range(33):
        table.add(network(4, 0x0A000000, length).octets, length, length)
    for length in range(129):
        table.add(network(6, 0x3FFF << 112, length).octets, length, length)
    assert table.sizes == (500_162, 524_288, 33, 129)
    for n in (0, 1, 16383, 16384, 499_999):
        address = (0x20010DB8 << 96 | n << 64 | 0xABCDEF).to_bytes(16, "big")
        assert table.find(address) == n % 16384
    assert table.find(parse_network("3fff::").octets) == 128
    assert table.find(parse_network("10.0.0.0").octets) == 32
    assert table.find(parse_network("10.0.0.1").octets) == 31
    assert table.find(parse_network("200.0.0.1").octets) == 0
    for n in range(500_000):
        table.remove(network(6, 0x20010DB8 << 96 | n << 64, 64).octets, 64, n % 16384)
    assert table.sizes == (162, 524_288, 33, 129)  # the /64 of 3fff::


PREFIXES = (("20.1.0.0/16", 4), ("10.99.0.128/25", 4), ("2001:db8:7::/48", 6), ("fd00::9", 6))


def test_networks_behind_a_session() -> None:
    """Both ways, by prefix; others' are spoofed or nobody's; given up, they are nobody's again."""
    own = b"\xfe\x80" + bytes(6) + bytes(range(8))
    nets = [parse_network(text) for text, _ in PREFIXES]
    inside = [(net.last).to_bytes(len(net.octets), "big") for net in nets]
    far = {4: bytes((9, 9, 9, 9)), 16: parse_network("2001:db8::99").octets}

    def packet(source: bytes, target: bytes) -> bytes:
        if len(source) == 16:
            return ipv6(source, target, b"12345678")
        return udp(int.from_bytes(source, "big"), int.from_bytes(target, "big"), b"1234")

    with running() as p:
        p.install()
        p.up()
        p.table.set_six(p.index, own[8:], bytes(7) + b"\1")
        assert p.engine.up6(p.index, p.generation)
        for n, address in enumerate(inside):
            p.send(head(address) + packet(address, far[len(address)]))
            p.wait_count("drop_rx_spoofed", n + 1)
            p.to_tun(packet(far[len(address)], address))
            p.wait_count("drop_tx_no_session", n + 1)
        p.table.set_nets(p.index, nets)
        assert p.engine.set_nets(p.index, p.generation)
        time.sleep(0.05)
        for address in inside:
            out = packet(address, far[len(address)])
            p.send(head(address) + out)
            assert p.from_tun()[1] == out
            back = packet(far[len(address)], address)
            p.to_tun(back)
            assert p.data().endswith(back)
        for n, net in enumerate(nets):
            beside = (net.last + 1).to_bytes(len(net.octets), "big")
            p.send(head(beside) + packet(beside, far[len(beside)]))
            p.wait_count("drop_rx_spoofed", len(nets) + n + 1)
        p.engine.stop()
        # a successor finds them in the table
        with running(p.table) as q:
            q.event(engine.EVENT_RESUMED)
            q.generation, q.seq = p.generation, p.seq
            back = packet(far[16], inside[2])
            q.to_tun(back)
            assert q.data().endswith(back)
            q.table.set_nets(q.index, [])
            assert q.engine.set_nets(q.index, q.generation)
            time.sleep(0.05)
            q.to_tun(back)
            q.wait_count("drop_tx_no_session", len(nets) + 1)


def head(address: bytes) -> bytes:
    return b"\xff\x03\x00\x57" if len(address) == 16 else b"\xff\x03\x00\x21"


def test_control_hears_what_is_meant_for_the_router() -> None:
    own = packets.link_local(bytes(range(8)))
    ours = packets.link_local(bytes(7) + b"\1")
    heard = [
        packets.icmpv6(own, packets.ALL_ROUTERS, b"\x85" + bytes(7)),
        packets.icmpv6(packets.UNSPECIFIED, packets.ALL_ROUTERS, b"\x85" + bytes(7)),
        packets.udp(own, packets.ALL_DHCP_AGENTS, 546, 547, b"\x01abc"),
        packets.udp(own, ours, 546, 547, b"\x01abc"),
    ]
    passed = [
        packets.icmpv6(own, ours, b"\x80" + bytes(7)),
        packets.udp(own, parse_network("2001:db8::9").octets, 546, 547, b"\x01abc"),
        packets.udp(own, packets.ALL_DHCP_AGENTS, 546, 548, b"\x01abc"),
    ]
    with running() as p:
        p.install()
        p.up()
        p.table.set_six(p.index, own[8:], ours[8:])
        assert p.engine.up6(p.index, p.generation)
        time.sleep(0.05)
        for packet in heard:
            p.send(head(own) + packet)
            assert p.event(engine.EVENT_PACKET) == packet
        for packet in passed:
            p.send(head(own) + packet)
            assert p.from_tun()[1] == packet
        sent = p.count("tx_data")
        told = packets.icmpv6(ours, packets.ALL_NODES, b"\x86" + bytes(15))
        assert p.engine.packet(p.index, p.generation, told)
        assert p.data() == head(own) + told
        assert p.count("tx_data") == sent
        flood = head(own) + heard[0]
        for _ in range(400):
            p.send(flood)
        p.wait_count("drop_rx_ring_full", 100)
