"""The reorder queue: what it must deliver, in which order, and how long it may keep it."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.fastpath.peer import INNER, Peer, running, udp

pytestmark = [
    pytest.mark.netns,
    pytest.mark.usefixtures("each_way"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]

HOST = 0x0A010101
DEPTH = 8
TIMEOUT_MS = 50


def datagram(n: int) -> bytes:
    """A clear PPP frame with a numbered datagram."""
    return b"\x00\x21" + udp(INNER, HOST, b"%08d" % n)


def arrived(peer: Peer, wait: float = 0.3) -> list[int]:
    """Numbers of the datagrams that come out, until nothing came for `wait` seconds."""
    found: list[int] = []
    while True:
        try:
            _, packet = peer.from_tun(wait)
        except TimeoutError:
            return found
        # Datagrams of a batch may come as one super-packet.
        payload = packet[28:]
        found += [int(payload[at : at + 8]) for at in range(0, len(payload), 8)]


def offer(peer: Peer, *numbers: int) -> None:
    """Send datagrams whose GRE sequence is their number."""
    for n in numbers:
        peer.send(datagram(n), seq=n)


def test_room_is_made_by_giving_up_no_more_than_needed() -> None:
    """A lost packet and, when the window is full, two that overtook each other."""
    with running(reorder_depth=DEPTH, reorder_timeout_ms=2000) as peer:
        peer.install()
        peer.up()
        offer(peer, 0, *range(2, 9), 10, 9, 11)  # 1 is lost
        assert arrived(peer) == [0, *range(2, 12)]
        assert peer.count("gre_lost") == 1
        assert peer.count("queued") == 0


def test_no_packet_waits_longer_than_the_timeout() -> None:
    """Many gaps, each younger than the one before: none starts its time anew."""
    with running(reorder_timeout_ms=TIMEOUT_MS) as peer:
        peer.install()
        peer.up()
        offer(peer, 0)
        assert arrived(peer, 0.1) == [0]
        sent: dict[int, float] = {}
        waited: dict[int, float] = {}
        numbers = list(range(2, 26, 2))  # every other one is lost
        due = time.monotonic()
        while len(waited) < 12:
            if numbers and time.monotonic() >= due:
                n = numbers.pop(0)
                sent[n] = time.monotonic()
                offer(peer, n)
                due += 0.02
            try:
                _, packet = peer.from_tun(0.005)
            except TimeoutError:
                assert time.monotonic() < due + 2.0, waited
                continue
            for at in range(28, len(packet), 8):
                n = int(packet[at : at + 8])
                waited[n] = time.monotonic() - sent[n]
        assert sorted(waited) == list(waited) == list(range(2, 26, 2))
        assert max(waited.values()) < 2 * TIMEOUT_MS / 1000, waited


def test_every_displacement_within_the_depth_is_put_in_order() -> None:
    rng = random.Random(2637)
    with running(reorder_depth=32, reorder_timeout_ms=1000) as peer:
        peer.install()
        peer.up()
        count = 600
        # Each packet is late by less than the depth.
        order = sorted(range(1, count), key=lambda n: n + rng.uniform(0, 30))
        found = []
        offer(peer, 0)
        for at in range(0, len(order), 50):
            offer(peer, *order[at : at + 50])
            found += arrived(peer, 0.02)
        found += arrived(peer)
        assert found == list(range(count))
        assert peer.count("gre_lost") == 0


def test_duplicates_are_counted_and_never_delivered() -> None:
    with running() as peer:
        peer.install()
        peer.up()
        offer(peer, 0, 0, 1, 3, 3, 2, 3, 2, 1, 0, 4)
        assert arrived(peer) == [0, 1, 2, 3, 4]
        assert peer.count("drop_rx_duplicate") == 6


def test_acks_are_one_in_sixteen_or_in_100_ms() -> None:
    with running(ack_delay_ms=10000) as peer:
        peer.install()
        peer.up()
        found = []
        for n in range(0, 320, 4):
            offer(peer, *range(n, n + 4))
            found += arrived(peer, 0.001)
        assert found + arrived(peer) == list(range(320))
        time.sleep(0.2)
        assert 16 <= peer.count("tx_ack_only") <= 320 // 16
    with running(ack_delay_ms=100) as peer:
        peer.install()
        peer.up()
        began = time.monotonic()
        for n in range(20):
            offer(peer, n)
            time.sleep(0.02)
        assert arrived(peer) == list(range(20))
        assert 2 <= peer.count("tx_ack_only") <= (time.monotonic() - began) / 0.1 + 1
        before = peer.count("tx_ack_only")
        time.sleep(0.25)
        assert peer.count("tx_ack_only") == before  # nothing new, nothing to say


def test_a_sender_that_honours_a_window_of_four_never_stops() -> None:
    """It sends no fifth packet before an acknowledgement; nothing goes the other way."""
    with running() as peer:
        peer.install(peer_window=4)
        peer.up()
        acked, sent, count = -1, 0, 400
        began = time.monotonic()
        longest, last = 0.0, began
        found: list[int] = []
        while acked < count - 1:
            while sent < count and sent - acked <= 4:
                offer(peer, sent)
                sent += 1
            seq, ack, _ = peer.receive(1.0)
            assert seq is None
            assert ack is not None
            now = time.monotonic()
            if sent < count:
                longest = max(longest, now - last)
            last = now
            acked = max(acked, ack)
            if sent - len(found) >= 40:  # before the datagram pair in the TUN's place is full
                found += arrived(peer, 0.0001)
                last = time.monotonic()
        assert found + arrived(peer) == list(range(count))
        # Well under the delay of an acknowledgement that waits for company.
        assert longest < 0.09, longest
        assert time.monotonic() - began < 3.0
