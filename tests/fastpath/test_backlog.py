"""Turns of sessions on the way out: nobody waits for all of somebody else's download."""

from __future__ import annotations

import dataclasses
import socket
import time

import pytest

from fastpath import engine, gre
from fastpath.layout import Table
from tests.fastpath.peer import INNER, VNET, Peer, running, tcp, udp

pytestmark = pytest.mark.usefixtures("each_way")
SEGMENTS = 40
SIZE = 1360
HOST = 0x0A000001


def two_sessions() -> tuple[Table, Peer, Peer]:
    """A table in which an engine that is gone left two sessions up."""
    with running() as first:
        first.install()
        first.up()
        second = dataclasses.replace(first, index=4, call_id=641, peer_call_id=1)
        second.install()
        first.table.set_link(
            4,
            address=INNER + 1,
            local=0x0A630001,
            mtu=1400,
            mru=1400,
            mppe_rx_bits=0,
            mppe_tx_bits=0,
            stateful=0,
            framing=0,
            magic=1,
            peer_magic=2,
            echo_interval_s=0,
            echo_failures=2,
        )
        first.table.set_state(4, 2)
        assert first.engine.up(4, second.generation)
        second.wait_count("gre_rx_packets", 0)
        while first.table.session(4).data_state != 2:
            pass
        return first.table, first, second


def super_packet(target: int, first: int) -> bytes:
    """One read of a bulk download, its segments numbered from `first` in their data."""
    data = b"".join((first + i).to_bytes(4) * (SIZE // 4) for i in range(SEGMENTS))
    packet = tcp(HOST, target, data, seq=first)
    return VNET.pack(1, 1, 40, SIZE, 20, 16) + packet


def small(target: int, number: int) -> bytes:
    return VNET.pack(0, 0, 0, 0, 0, 0) + udp(HOST, target, number.to_bytes(4) * 8)


def outputs(wire: socket.socket, count: int) -> list[tuple[int, int]]:
    """What is sent, in its order: (peer's call ID, number in the data)."""
    found: list[tuple[int, int]] = []
    wire.settimeout(5)
    while len(found) < count:
        packet = wire.recv(65535)[20:]
        call_id, _, _, at, size = gre.parse(packet)
        if size:
            found.append((call_id, int.from_bytes(packet[at + size - 4 : at + size])))
    return found


def check_sums(peer: Peer) -> None:
    # A packet is seen before it is counted.
    until = time.monotonic() + 2
    while True:
        c = peer.table.data_counters(0)
        ends = sum(value for name, value in c.items() if name.startswith("drop_tx"))
        ends += c["tx_data"] + c["tx_queued"]
        if ends == c["tun_rx_packets"]:
            return
        assert time.monotonic() < until, c
        time.sleep(0.001)


def test_a_ping_does_not_wait_for_a_download() -> None:
    table, _, _ = two_sessions()
    waiting = [super_packet(INNER, n * SEGMENTS) for n in range(6)] + [small(INNER + 1, 7)]
    with running(table, waiting=waiting) as p:
        found = outputs(p.wire, 6 * SEGMENTS + 1)
        assert found.index((1, 7)) == 0
        assert [n for call, n in found if call == 0] == list(range(6 * SEGMENTS))
        check_sums(p)
        assert p.count("tx_queued") == 0


def test_two_downloads_take_turns() -> None:
    table, _, _ = two_sessions()
    waiting = [super_packet(INNER, n * SEGMENTS) for n in range(3)]
    waiting += [super_packet(INNER + 1, n * SEGMENTS) for n in range(3)]
    with running(table, waiting=waiting) as p:
        found = outputs(p.wire, 6 * SEGMENTS)
        for call in (0, 1):
            assert [n for c, n in found if c == call] == list(range(3 * SEGMENTS))
        # At any moment neither is more than about two turns ahead of the other.
        ahead = 0
        for call, _ in found[: 4 * SEGMENTS]:
            ahead += 1 if call == 0 else -1
            assert abs(ahead) <= 40
        check_sums(p)


def test_small_packets_over_a_turn_keep_their_order() -> None:
    table, _, _ = two_sessions()
    big = b"".join((n).to_bytes(4) for n in range(1)) * 300
    waiting = [VNET.pack(0, 0, 0, 0, 0, 0) + udp(HOST, INNER, big[:1200] + n.to_bytes(4))
               for n in range(40)]  # fmt: skip
    waiting.insert(39, small(INNER + 1, 5))
    with running(table, waiting=waiting) as p:
        found = outputs(p.wire, 41)
        assert [n for call, n in found if call == 0] == list(range(40))
        assert found.index((1, 5)) < 39
        check_sums(p)


def test_a_session_that_ends_takes_what_waits_with_it() -> None:
    table, _, _ = two_sessions()
    waiting = [super_packet(INNER, n * SEGMENTS) for n in range(8)]
    with running(table, waiting=waiting) as p:
        p.index, p.generation = 3, table.session(3).generation
        assert p.engine.remove(3, p.generation)
        p.event(engine.EVENT_REMOVED)
        p.to_tun(udp(HOST, INNER + 1, (9).to_bytes(4) * 8))
        while (1, 9) not in outputs(p.wire, 1):
            pass
        check_sums(p)
        assert p.count("tx_queued") == 0


def test_a_share_of_the_places_is_all_that_one_may_hold() -> None:
    table, _, _ = two_sessions()
    with running(table) as p:
        for n in range(300):
            p.to_tun(tcp(HOST, INNER, bytes(SIZE * SEGMENTS), seq=n), (1, 1, 40, SIZE, 20, 16))
        p.to_tun(udp(HOST, INNER + 1, (9).to_bytes(4) * 8))
        p.wait_count("tun_rx_reads", 301, wait=10)
        while p.count("tx_queued"):
            pass
        check_sums(p)
