"""Traps of GRE, PPP framing and MPPE with the octets that peers send (traps 4.17 to 4.21, 4.25)."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

from fastpath import engine, gre
from tests.fastpath import peer as lab
from tests.fastpath.peer import INNER, Peer, ip_sum, running, udp
from tests.fastpath.test_engine import HOST, RX, TX, Cipher

pytestmark = [
    pytest.mark.netns,
    pytest.mark.usefixtures("each_way"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]
PACKET = udp(INNER, HOST, b"x" * 20)
IP_HEAD = b"\x00\x21"


def encrypted(p: Peer) -> Cipher:
    """A session with MPPE, and the subscriber's cipher."""
    p.install()
    p.up(bits=128, rx=RX, tx=TX)
    return Cipher(RX)


def opened(p: Peer, frame: bytes, packet: bytes = PACKET) -> None:
    """This frame is taken and decrypts to the packet."""
    p.send(frame)
    assert p.from_tun()[1] == packet


def numbered(p: Peer) -> tuple[int, int | None]:
    """(sequence, acknowledgement) of the next packet that carries something."""
    while True:
        seq, ack, payload = p.receive()
        if payload:
            assert seq is not None
            return seq, ack


def skip(cipher: Cipher, packets: int) -> None:
    for _ in range(packets):
        cipher.step()


# -- 4.17 MPPE packets


def test_the_first_count_is_zero() -> None:
    with running() as p:
        ours = encrypted(p)
        frame = ours.seal(PACKET)
        assert frame[2:6] == bytes.fromhex("00fd9000")
        opened(p, frame)
        p.to_tun(udp(HOST, INNER, b"back"))
        assert p.data()[:6] == bytes.fromhex("ff0300fd9000")


def test_a_gap_from_5_to_9_is_four_steps() -> None:
    with running(reorder_depth=0) as p:
        ours = encrypted(p)
        for _ in range(5):
            opened(p, ours.seal(PACKET))
        skip(ours, 4)
        before = p.count("mppe_rekeys")
        assert ours.count == 9
        opened(p, ours.seal(PACKET))
        assert p.count("mppe_rekeys") - before == 4


def test_late_by_one_is_dropped_and_changes_no_key() -> None:
    """Old kernels changed the key 4095 times for it and lost the session."""
    with running(reorder_depth=0) as p:
        ours = encrypted(p)
        late = b""
        for _ in range(100):
            late = ours.seal(PACKET)
            opened(p, late)
        before = p.count("mppe_rekeys")
        assert (ours.count, late[4:6]) == (100, struct.pack(">H", 0x9000 | 99))
        p.send(late)
        p.wait_count("drop_rx_mppe_coherency", 1)
        opened(p, ours.seal(PACKET))
        assert p.count("mppe_rekeys") == before


def test_a_gap_over_the_wrap_of_12_bits() -> None:
    with running(reorder_depth=0) as p:
        ours = encrypted(p)
        for _ in range(2):  # 0x7ff packets lost at most, or the next would be late
            skip(ours, 0x7F0)
            opened(p, ours.seal(PACKET))
        skip(ours, 0xFFE - ours.count)
        opened(p, ours.seal(PACKET))
        assert ours.count == 0xFFF
        skip(ours, 3)
        assert ours.count == 0x002
        opened(p, ours.seal(PACKET))


@pytest.mark.parametrize("bits", [0x8000, 0x1000, 0x0000, 0xB000, 0xA000])
def test_wrong_flags_are_counted_and_harmless(bits: int) -> None:
    """D clear, A clear, both, and C (MPPC): a few forged ones do not end a call."""
    with running(reorder_depth=0) as p:
        ours = encrypted(p)
        opened(p, ours.seal(PACKET))
        for _ in range(3):
            head = struct.pack(">H", bits | ours.count)
            p.send(b"\x00\xfd" + head + os.urandom(40))
        p.wait_count("drop_rx_mppe_coherency", 3)
        opened(p, ours.seal(PACKET))
        assert not [e for e in p.seen + p.engine.events() if e[0] == engine.EVENT_DESYNC]


def test_agreed_stateless_but_sent_stateful_is_named() -> None:
    """Some PocketPCs: nothing has A set, so nothing can ever be read."""
    with running() as p:
        ours = encrypted(p)
        opened(p, ours.seal(PACKET))
        for n in range(1, 20):
            p.send(b"\x00\xfd" + struct.pack(">H", 0x1000 | n) + os.urandom(40))
        assert p.event(engine.EVENT_DESYNC) == b"stateful"


def test_forged_counts_cost_a_bounded_number_of_key_changes() -> None:
    with running(reorder_depth=0) as p:
        encrypted(p)
        began = time.monotonic()
        for n in range(400):  # each asks for 2047 more
            head = struct.pack(">H", 0x9000 | (0x7FF * (n + 1)) & 0xFFF)
            p.send(b"\x00\xfd" + head + os.urandom(40))
            if n % 50 == 49:  # no more than the socket holds
                p.wait_count("gre_rx_packets", n + 1)
        spent = time.monotonic() - began
        assert p.count("mppe_rekeys") <= 8192 * (spent + 2)
        assert p.count("drop_rx_mppe_coherency") > 300 - 4 * spent


@pytest.mark.parametrize("inner", [b"\x00\x21", b"\x21"])
def test_the_inner_protocol_may_have_one_octet(inner: bytes) -> None:
    with running() as p:
        ours = encrypted(p)
        opened(p, ours.seal(PACKET, inner))


@pytest.mark.parametrize("head", [b"\x00\x21", b"\x21", b"\xff\x03\x00\x21", b"\xff\x03\x21"])
def test_clear_ip_on_an_encrypted_link_is_dropped(head: bytes) -> None:
    with running() as p:
        ours = encrypted(p)
        p.send(head + PACKET)
        p.wait_count("drop_rx_mppe_clear", 1)
        opened(p, ours.seal(PACKET))


@pytest.mark.parametrize("protocol", ["c021", "80fd", "8021", "c223", "8057"])
def test_control_protocols_stay_clear_on_an_encrypted_link(protocol: str) -> None:
    with running() as p:
        encrypted(p)
        frame = bytes.fromhex(protocol) + b"\x01\x05\x00\x04"
        p.send(b"\xff\x03" + frame)
        assert p.event(engine.EVENT_FRAME) == frame
        p.engine.send(p.index, p.generation, frame)
        assert p.data() == b"\xff\x03" + frame


# -- 4.18 GRE header


def test_ethernet_padding_is_no_payload() -> None:
    with running() as p:
        p.install()
        p.raw(gre.build(p.call_id, b"\xc0\x21\x0c\x01\x00\x04", 0) + bytes(22))
        assert p.event(engine.EVENT_FRAME) == b"\xc0\x21\x0c\x01\x00\x04"


def test_an_acknowledgement_of_what_was_never_sent() -> None:
    with running() as p:
        p.install()
        p.raw(gre.build(p.call_id, b"", None, 0xFFFFFF00))
        p.raw(gre.build(p.call_id, b"", None, 77))
        p.wait_count("rx_ack_only", 2)
        p.up()
        opened(p, b"\x21" + PACKET)
        p.to_tun(udp(HOST, INNER, b"still here"))
        assert numbered(p) == (0, 0)


def test_a_pure_acknowledgement_of_an_unknown_call_is_a_counter() -> None:
    with running() as p, socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as icmp:
        icmp.bind((lab.PEER, 0))
        icmp.settimeout(0.2)
        p.raw(gre.build(999, b"", None, 5))
        p.wait_count("drop_rx_no_session", 1)
        with pytest.raises(TimeoutError):
            icmp.recv(2000)


@pytest.mark.parametrize("first", ["b001", "7001", "1001", "3801", "3101", "3009", "3000", "3081"])
def test_headers_that_are_none_of_ours(first: str) -> None:
    """C, R, no K, s, recursion, flags, version 0, A without room for it."""
    with running() as p:
        p.install()
        packet = bytes.fromhex(first + "880b0001") + struct.pack(">H", p.call_id) + bytes(5)
        p.raw(packet[:12] if first == "3081" else packet)
        p.wait_count("drop_rx_malformed", 1)


# -- 4.19 sequence numbers


@pytest.mark.parametrize("first", [0, 1])
def test_nothing_is_lost_before_or_behind_the_first(first: int) -> None:
    with running() as p:
        p.install()
        p.seq = first
        for n in range(3):
            frame = b"\xc0\x21\x0c" + bytes([n]) + b"\x00\x04"
            p.send(frame)
            assert p.event(engine.EVENT_FRAME) == frame


def test_sequence_one_is_no_way_back_in() -> None:
    """pptpd takes 1 at any time; here a replay of it is a duplicate."""
    with running() as p:
        p.install()
        p.up()
        p.seq = 1
        for _ in range(5):
            opened(p, b"\x21" + PACKET)
        p.send(b"\x21" + PACKET, seq=1)
        p.wait_count("drop_rx_duplicate", 1)


def test_a_call_id_used_again_begins_with_zero() -> None:
    """What a sequence belongs to is the call, not its number and address."""
    with running() as p:
        p.install()
        p.up()
        for _ in range(200):
            p.send(b"\x21" + PACKET)
        for _ in range(200):
            p.from_tun()
        assert p.engine.remove(p.index, p.generation)
        p.event(engine.EVENT_REMOVED)
        p.table.set_ending(p.index)
        p.table.release(p.index)
        p.install()
        p.up()
        p.seq = 0
        opened(p, b"\x21" + PACKET)
        p.to_tun(udp(HOST, INNER, b"first"))
        assert numbered(p)[0] == 0


# -- 4.21 framing


@pytest.mark.parametrize("data", [b"\x00\x21", b"\x21", b"\xff\x03\x00\x21", b"\xff\x03\x21"])
def test_every_framing_is_taken_whatever_was_agreed(data: bytes) -> None:
    with running() as p:
        p.install()
        for head in (b"\xc0\x21", b"\xff\x03\xc0\x21"):
            p.send(head + b"\x0c\x01\x00\x04")
            assert p.event(engine.EVENT_FRAME) == b"\xc0\x21\x0c\x01\x00\x04"
        p.up()
        opened(p, data + PACKET)


def test_control_frames_keep_their_full_header() -> None:
    """Also where the peer agreed to fewer octets: LCP must be readable by all."""
    with running() as p:
        p.install()
        p.up()
        for protocol in ("c021", "80fd", "8021"):
            frame = bytes.fromhex(protocol) + b"\x01\x01\x00\x04"
            p.engine.send(p.index, p.generation, frame)
            assert p.data() == b"\xff\x03" + frame


# -- 4.25 life


def test_any_data_is_life() -> None:
    """A busy link whose peer answers no echo is alive, and is not even asked."""
    with running() as p:
        p.install()
        p.up(echo_s=1)
        until = time.monotonic() + 3.2
        while time.monotonic() < until:
            opened(p, b"\x21" + PACKET)
            time.sleep(0.1)
        assert p.count("lcp_echo_sent") == p.count("lcp_echo_timeouts") == 0


# -- 4.24 fragments of what is bigger than the tunnel


def test_small_packets_pass_as_they_are() -> None:
    with running() as p:
        p.install()
        p.up(mtu=1396)
        for size in (1396, 1397):
            packet = lab.ipv4(HOST, INNER, bytes(size - 20), df=size == 1396)
            p.to_tun(packet)
        assert p.data()[4:] == lab.ipv4(HOST, INNER, bytes(1376), df=True)
        parts = [p.data()[4:] for _ in range(2)]
        assert sum(len(part) - 20 for part in parts) == 1377
        assert all(ip_sum(part[:20]) == 0 and len(part) <= 1396 for part in parts)


# -- 1.2 the way out is blocked


def test_a_packet_that_cannot_be_sent_is_counted_and_its_session_lives() -> None:
    """ENOBUFS, no route, a firewall's no: pptpd ended the call. Here: a broadcast address,
    to which the kernel sends nothing without being asked to."""
    with running() as p:
        p.install(peer_address="255.255.255.255")
        p.up()
        for n in (1, 2):
            p.to_tun(udp(HOST, INNER, b"lost"))
            p.wait_count("drop_tx_send_failed", n)
        session = p.table.session(p.index)
        assert (session.data_state, session.tx_packets, session.drops) == (2, 0, 2)
