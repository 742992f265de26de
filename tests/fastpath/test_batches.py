"""Batches of several sessions at once, with each kernel and each way to write to the TUN."""

from __future__ import annotations

import dataclasses
import os
import struct
import time

import pytest

from fastpath import engine, gre
from fastpath.layout import Table
from fastpath.tun_queue import WRITES
from tests.fastpath import peer as lab
from tests.fastpath.peer import INNER, VNET, Peer, running, tcp
from tests.fastpath.test_engine import RX, TX, Cipher

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]
HOST = 0xC6130005
SESSIONS = 5
SEGMENTS = 24
SIZE = 1300


def sessions_up(count: int = SESSIONS) -> tuple[Table, list[Peer]]:
    """A table in which an engine that is gone left sessions up, each with keys of its own."""
    with running() as first:
        peers = [
            dataclasses.replace(
                first,
                index=i,
                call_id=640 + i,
                peer_call_id=i,
                inner=INNER + i,
                inbox=[],
                seen=[],
            )
            for i in range(count)
        ]
        for i, p in enumerate(peers):
            p.install()
            p.up(bits=128, rx=key(RX, i), tx=key(TX, i))
        return first.table, peers


def key(start: bytes, i: int) -> bytes:
    return bytes([i]) + start[1:]


@pytest.mark.usefixtures("each_way", "each_kernel")
def test_several_sessions_in_one_batch() -> None:
    """Up and down: every octet arrives, decrypted by its own key and in the order of its flow."""
    table, peers = sessions_up()
    data = [os.urandom(SIZE * SEGMENTS) for _ in peers]
    ciphers = [Cipher(key(RX, i)) for i in range(SESSIONS)]
    arrived = [
        gre.build(p.call_id, ciphers[i].seal(segment(p.inner, data[i], n)), n, None)
        for n in range(SEGMENTS)
        for i, p in enumerate(peers)
    ]
    vnet = VNET.pack(1, 1, 40, SIZE, 20, 16)
    waiting = [vnet + tcp(HOST, p.inner, data[i]) for i, p in enumerate(peers)]
    with running(table, waiting=waiting, arrived=arrived) as engine_:
        up, down = from_tun(engine_), from_gre(engine_)
        assert WRITES[table.worker(0).writes] == lab.writes
        assert up == data
        assert down == data
        engine_.wait_count("rx_data", SESSIONS * SEGMENTS)
        assert engine_.count("tun_tx_writes") < SESSIONS * SEGMENTS  # super-packets
        assert not any(n for k, n in table.data_counters(0).items() if k.startswith("drop_"))
        for i in range(SESSIONS):  # each in the accounts of its own session
            s = table.session(i)
            assert (s.rx_packets, s.rx_bytes) == (SEGMENTS, SEGMENTS * (SIZE + 40))
            assert (s.tx_packets, s.tx_bytes) == (SEGMENTS, SEGMENTS * (SIZE + 40))
        assert not [e for e in engine_.engine.events() if e[0] == engine.EVENT_DESYNC]


def forged(p: Peer, seq: int, count: int) -> bytes:
    """A packet with this coherency count and octets that nothing decrypts to."""
    return gre.build(
        p.call_id, b"\x00\xfd" + struct.pack(">H", 0x9000 | count) + bytes(64), seq, None
    )


@pytest.mark.parametrize(("jump", "changes"), [(0, 0), (1, 1), (0x7FE, 0x7FE), (0x7FF, 0x7FF)])
def test_a_jump_of_the_coherency_count_costs_as_many_key_changes(jump: int, changes: int) -> None:
    """2047 for one packet at most."""
    table, peers = sessions_up()
    with running(table, arrived=[forged(peers[0], 0, jump)]) as p:
        p.wait_count("gre_rx_packets", 1)
        p.wait_count("rx_data", 0)
        assert p.wait_count("mppe_rekeys", changes) == changes
        assert p.count("drop_rx_mppe_coherency") == 0


@pytest.mark.parametrize("jump", [0x800, 0x801, 0xFFF])
def test_a_larger_jump_is_a_late_packet_and_costs_none(jump: int) -> None:
    table, peers = sessions_up()
    with running(table, arrived=[forged(peers[0], 0, jump)]) as p:
        p.wait_count("drop_rx_mppe_coherency", 1)
        assert p.count("mppe_rekeys") == 0


def test_key_changes_are_bounded_for_all_sessions_together() -> None:
    """Eleven forge, each as much as it may; the twelfth's packets are read all the same."""
    table, peers = sessions_up(12)
    good, cipher = peers[-1], Cipher(key(RX, 11))
    arrived = []
    for n in range(20):
        arrived += [forged(p, n, 0x7FF * (n + 1) + n & 0xFFF) for p in peers[:-1]]
        packet = tcp(good.inner, HOST, bytes(100), seq=100 * n)
        arrived.append(gre.build(good.call_id, cipher.seal(packet), n, None))
    began = time.monotonic()
    with running(table, arrived=arrived) as p:
        octets = 0
        while octets < 20 * 100:
            packet = p.from_tun()[1]
            assert packet[12:16] == good.inner.to_bytes(4, "big")
            octets += len(packet) - 40
        p.wait_count("gre_rx_packets", len(arrived))
        time.sleep(0.01)  # the last batch's own counters
        ticks = 2 + (time.monotonic() - began) // 0.1  # a burst may lie across two
        changes = p.count("mppe_rekeys")
        assert 11 * 0x7FF <= changes <= 32768 * ticks
        assert p.count("drop_rx_mppe_coherency") == 11 * 20 - changes // 0x7FF
        assert p.table.session(good.index).rx_packets == 20


def segment(source: int, data: bytes, n: int) -> bytes:
    return tcp(source, HOST, data[n * SIZE : (n + 1) * SIZE], seq=n * SIZE)


def from_tun(p: Peer) -> list[bytes]:
    """What each session sent."""
    found = [b""] * SESSIONS
    while sum(map(len, found)) < SESSIONS * SEGMENTS * SIZE:
        vnet, packet = p.from_tun()
        assert vnet[1] in (0, 1)
        found[int.from_bytes(packet[12:16], "big") - INNER] += packet[40:]
    return found


def from_gre(p: Peer) -> list[bytes]:
    """What each session is sent."""
    found = [b""] * SESSIONS
    ciphers = [Cipher(key(TX, i)) for i in range(SESSIONS)]
    p.wire.settimeout(5)
    while sum(map(len, found)) < SESSIONS * SEGMENTS * SIZE:
        packet = p.wire.recv(65535)[20:]
        call_id, _, _, at, size = gre.parse(packet)
        if size:
            opened = ciphers[call_id].open(packet[at : at + size])
            assert int.from_bytes(opened[16:20], "big") == INNER + call_id
            found[call_id] += opened[40:]
    return found
