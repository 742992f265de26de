"""Networks behind sessions, router advertisements and DHCPv6 in a whole worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fastpath import layout
from ops.messages import Admit, End
from ops.networks import Network, parse_network
from ops.settings import AccountRule
from tests.workers.ipv6.test_server import CLIENT, IAID
from tests.workers.slow_engine import KINDS
from tests.workers.test_control_six import OURS, TERMINATE_SIX, conf, up
from tests.workers.world import World
from workers.ipv6 import packets
from workers.ipv6.dhcpv6 import Association, Code, Kind, Lease, Message
from workers.ipv6.ndp import Advertisement
from workers.live import Handle
from workers.radius.accounting import Facts, Status, session_record
from workers.radius.attributes import A
from workers.radius.requests import Nas
from workers.session import Saved

LINK = parse_network("2001:db8:1:2::/64")
DELEGATED = parse_network("2001:db8:ff00::/56")
ADDRESS = parse_network("2001:db8::9")
FOUR, SIX = parse_network("192.168.7.0/24"), parse_network("2001:db8:7::/48")
DNS = "2001:db8::53"
ROUTER = packets.link_local(OURS)


@pytest.fixture
def world() -> Iterator[World]:
    base = conf()
    rule = AccountRule("billy", routes=(str(FOUR), str(SIX)), pool6="links", delegated6="x")
    six = replace(base.ipv6, dns=(DNS,), search=("example.net",), delegated_pool="pd")
    accounts = replace(base.accounts, rules=(rule,))
    made = World(replace(base, ipv6=six, accounts=accounts))
    made.granted6 = (LINK, DELEGATED, ADDRESS)
    yield made
    made.close()


def host(world: World, handle: Handle) -> bytes:
    return packets.link_local(world.table.session(handle[0]).iid)


def told(world: World) -> list[packets.Packet]:
    """What the subscriber got since the last look."""
    found = [packets.parse(packet) for _, packet in world.engine.packets]
    world.engine.packets.clear()
    assert all(packet.source == ROUTER for packet in found)
    return found


def send(world: World, handle: Handle, packet: bytes) -> list[packets.Packet]:
    world.engine.emit(KINDS.packet, handle, packet)
    world.run()
    return told(world)


def dhcp(world: World, handle: Handle, kind: Kind, *options: tuple[int, bytes]) -> Message:
    message = Message(kind, b"abc", ((int(Code.CLIENT_ID), CLIENT), *options)).encode()
    packet = packets.udp(host(world, handle), packets.ALL_DHCP_AGENTS, 546, 547, message)
    (answer,) = send(world, handle, packet)
    assert (answer.source_port, answer.port) == (547, 546)
    assert answer.target == host(world, handle)
    return Message.decode(answer.payload)


def held(world: World, handle: Handle) -> list[Network]:
    return [Network(*net) for net in world.table.nets(handle[0])]


def test_all_of_it(world: World) -> None:
    handle = up(world)
    (admit,) = [m for m in world.messages if isinstance(m, Admit)]
    assert admit.six == ("", "links", "x", "pd", "", "")
    assert held(world, handle) == [LINK, DELEGATED, ADDRESS, FOUR, SIX]
    assert world.nets == {LINK, DELEGATED, ADDRESS, FOUR, SIX}
    (first,) = told(world)
    assert first.target == packets.ALL_NODES and first.hops == 255
    found = Advertisement.decode(first.payload)
    assert [(p.prefix, p.length) for p in found.prefixes] == [LINK]
    assert found.dns == (socket.inet_pton(socket.AF_INET6, DNS),)
    assert found.search == ("example.net",) and found.managed and found.other
    assert found.mtu == world.table.session(0).mtu and found.lifetime == 1800
    # asked, it answers; asked at once again, not before three seconds
    ask = packets.icmpv6(host(world, handle), packets.ALL_ROUTERS, b"\x85" + bytes(7))
    assert send(world, handle, ask) == []
    world.wait(3.1)
    assert len(told(world)) == 1
    world.wait(40)
    told(world)
    assert len(send(world, handle, ask)) == 1
    world.wait(1200)
    assert 2 <= len(told(world)) <= 4  # each 450 to 600 s
    assert world.control.busy == 0
    # DHCPv6, and the lease outlives the worker
    want = (int(Code.IA_PD), Association(IAID).encode())
    offer = dhcp(world, handle, Kind.SOLICIT, want)
    server = (int(Code.SERVER_ID), offer.server or b"")
    reply = dhcp(world, handle, Kind.REQUEST, server, want)
    got = Association.decode(reply.first(Code.IA_PD) or b"")
    lease = Lease.decode(*got.options[0])
    assert (lease.prefix, lease.length) == DELEGATED
    before = Saved.unpack(world.table.blob(0)).six["leases"]
    world.restart()
    world.run()
    assert held(world, handle) == [LINK, DELEGATED, ADDRESS, FOUR, SIX]
    dhcp(world, handle, Kind.RENEW, server, want)
    after = Saved.unpack(world.table.blob(0)).six["leases"]
    assert before[25][:2] == after[25][:2] and after[25][2] > before[25][2] - 1
    world.wait(700)
    assert told(world)  # the successor goes on advertising
    world.control.message(End(*handle, "admin_reset", False), world.now)
    world.run()
    assert world.nets == set() and held(world, handle) == []


def test_ipv6cp_down_takes_ipv6_back(world: World) -> None:
    handle = up(world)
    world.clients[handle].mute = (b"\x80\x57",)
    world.engine.deliver(handle, TERMINATE_SIX)
    world.run()
    assert world.nets == {FOUR} and held(world, handle) == [FOUR]
    told(world)
    world.wait(2000)
    assert told(world) == []


def test_a_network_belongs_to_one_session(world: World) -> None:
    first = up(world)
    world.granted6 = ()
    second = up(world, 1, seed=bytes(range(16)))
    assert held(world, second) == []
    assert world.counter("networks_refused") == 2
    sid = f"{world.table.session(0).sid:016x}"
    reasons = [str(line["reason"]) for line in world.log.named("no route")]
    assert len(reasons) == 2 and all(f"behind session {sid}" in text for text in reasons)
    world.control.message(End(*first, "admin_reset", False), world.now)
    world.run()
    assert world.control.apply(second, {"routes": (f"{FOUR} 0.0.0.0 1",)}, world.now) == ""
    assert FOUR in held(world, second) and FOUR in world.nets
    assert world.control.apply(second, {"routes": ()}, world.now) == ""
    assert FOUR not in world.nets


def test_changes_while_it_is_up(world: World) -> None:
    handle = up(world)
    told(world)
    bad = ("10.1.0.0/16", "10.2.0.0/15 10.9.9.9 7", "0.0.0.0/0", "fish", "10.3.0.0/8", "")
    assert world.control.apply(handle, {"routes": bad}, world.now) == ""
    four = {net for net in world.nets if net.version == 4}
    assert four == {parse_network("10.1.0.0/16"), parse_network("10.2.0.0/15")}
    assert world.counter("networks_refused") == 4
    assert world.control.apply(handle, {"dns6": ("2001:db8::54",)}, world.now) == ""
    (packet,) = told(world)
    assert Advertisement.decode(packet.payload).dns[0][-1] == 0x54


def test_a_route_that_cannot_be_made_is_named(world: World) -> None:
    world.net_errno = 13
    handle = up(world)
    assert world.table.session(handle[0]).state == layout.STATE_ACTIVE
    assert world.counter("netops_failures") == 5
    assert str(FOUR) in [line["network"] for line in world.log.named("route not added")]


def test_packets_that_are_no_good(world: World) -> None:
    handle = up(world)
    told(world)
    own = host(world, handle)
    for packet in (
        b"",
        bytes(60),
        packets.icmpv6(own, packets.ALL_ROUTERS, b"\x85\x01" + bytes(6)),
        packets.udp(own, packets.ALL_DHCP_AGENTS, 546, 547, b"\x01abc"),
        packets.udp(b"\x20" + own[1:], packets.ALL_DHCP_AGENTS, 546, 547, b"\x01abc"),
        packets.udp(own, packets.ALL_DHCP_AGENTS, 546, 548, b"\x01abc"),
    ):
        assert send(world, handle, packet) == []
    assert world.counter("ipv6_malformed") == 6
    assert world.table.session(handle[0]).state == layout.STATE_ACTIVE


def test_accounting_names_what_was_given(world: World) -> None:
    up(world)
    session = world.table.session(0)
    saved = Saved.unpack(world.table.blob(0))
    facts = Facts.of(session, saved, 1.0, world.table.granted6(0))
    assert Facts.unpack(facts.pack()) == facts
    record = dict(session_record(Status.START, Nas("nas"), facts))
    assert record[A.FRAMED_IPV6_PREFIX] == b"\x00\x40" + LINK.octets[:8]
    assert record[A.DELEGATED_IPV6_PREFIX] == b"\x00\x38" + DELEGATED.octets[:7]
    assert record[A.FRAMED_IPV6_ADDRESS] == ADDRESS.octets


def test_without_pools_nothing_is_advertised() -> None:
    made = World(conf())
    try:
        handle = up(made)
        assert not made.engine.packets and held(made, handle) == []
        assert made.control.deadline() is None
    finally:
        made.close()
