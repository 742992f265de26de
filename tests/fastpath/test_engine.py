"""The data thread against a peer of plain Python: GRE, PPP, MPPE, TUN."""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
import time

import pytest

from fastpath import engine, gre, mppe
from ops.peers import Peers
from tests.fastpath import peer as lab
from tests.fastpath.peer import INNER, ip_sum, running, tcp, udp
from workers.ppp.mppe_twin import Decryptor, Encryptor

pytestmark = [
    pytest.mark.netns,
    pytest.mark.usefixtures("each_way"),
    pytest.mark.skipif(
        os.geteuid() != 0 and not os.environ.get("CI"), reason="raw sockets need root"
    ),
]
HOST = 0xC6130005
RX, TX = bytes(range(16)), bytes(range(16, 32))


class Cipher:
    """The subscriber's MPPE, by the obvious functions: stateless, one key a packet."""

    def __init__(self, start: bytes, bits: int = 128) -> None:
        self.start, self.bits = start, bits
        self.key = mppe.initial_key(start, bits)
        self.count = 0

    def step(self) -> None:
        self.key = mppe.changed_key(self.start, self.key, self.bits)
        self.count = (self.count + 1) & 0xFFF

    def seal(self, packet: bytes, protocol: bytes = b"\x00\x21") -> bytes:
        head = struct.pack(">H", 0x9000 | self.count)
        self.step()
        return b"\xff\x03\x00\xfd" + head + mppe.crypt_batch([protocol + packet], [self.key])[0]

    def open(self, frame: bytes) -> bytes:
        assert frame[:4] == b"\xff\x03\x00\xfd"
        assert struct.unpack(">H", frame[4:6])[0] == 0x9000 | self.count
        self.step()
        plain = mppe.crypt_batch([frame[6:]], [self.key])[0]
        assert plain[:2] == b"\x00\x21"
        return plain[2:]


def test_control_frames_both_ways() -> None:
    with running() as p:
        p.install()
        p.send(b"\xff\x03\xc0\x21\x01\x00\x00\x04")
        assert p.event(engine.EVENT_FRAME) == b"\xc0\x21\x01\x00\x00\x04"
        p.send(b"\xc0\x21\x01\x01\x00\x04")  # without ff03
        assert p.event(engine.EVENT_FRAME) == b"\xc0\x21\x01\x01\x00\x04"
        assert p.engine.send(p.index, p.generation, b"\xc0\x21\x02\x00\x00\x04")
        seq, ack, payload = p.receive()
        assert (seq, ack, payload) == (0, 1, b"\xff\x03\xc0\x21\x02\x00\x00\x04")


def test_first_sequence_may_be_one() -> None:
    with running() as p:
        p.install()
        p.seq = 1
        p.send(b"\xc0\x21\x01\x01\x00\x04")
        assert p.event(engine.EVENT_FRAME, wait=0.04)[2] == 1


def test_pure_acknowledgement_is_delayed() -> None:
    with running(ack_delay_ms=30) as p:
        p.install()
        p.send(b"\xc0\x21\x0c\x01\x00\x04")
        assert p.receive() == (None, 0, b"")
        assert p.count("tx_ack_only") == 1


def test_no_session_and_wrong_peer() -> None:
    with running() as p:
        p.raw(gre.build(1, b"\xc0\x21", 0))
        p.wait_count("drop_rx_no_session", 1)
        p.install()
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, lab.GRE) as other:
            other.bind((lab.STRANGER, 0))
            other.sendto(gre.build(p.call_id, b"\xc0\x21\x01", 0), (lab.SERVER, 0))
        p.wait_count("drop_rx_wrong_peer", 1)
        p.raw(b"\x30\x01\x88\x0b\xff\xff")
        p.raw(b"\x00" * 20)
        p.wait_count("drop_rx_malformed", 2)


def test_a_denied_address_is_not_looked_up() -> None:
    """Not even for a call of its own; said anew, it is heard again."""
    with running() as p:
        p.install()
        p.send(b"\xc0\x21\x01\x01\x00\x04")
        p.event(engine.EVENT_FRAME)
        for deny in ((lab.PEER,), ("0.0.0.0/0",), (f"{lab.PEER}/32", lab.STRANGER)):
            before = p.count("drop_rx_denied")
            assert p.engine.set_peers(Peers(deny=deny).block)
            assert p.engine.send(p.index, p.generation, b"\xc0\x21\x09\x00\x00\x04")
            p.receive()  # what was asked before it is in force
            p.send(b"\xc0\x21\x01\x02\x00\x04")
            p.raw(b"\x00" * 8)
            p.wait_count("drop_rx_denied", before + 2)
        assert p.count("drop_rx_malformed") == p.count("drop_rx_no_session") == 0
        for block in (Peers((lab.PEER,), ("0.0.0.0/0",)).block, b""):
            assert p.engine.set_peers(block)
            p.send(b"\xc0\x21\x01\x03\x00\x04")
            p.event(engine.EVENT_FRAME)
        assert p.count("drop_rx_denied") == before + 2
        with pytest.raises(ValueError, match="ranges"):
            p.engine.set_peers(b"\0" * 5)


def test_clear_data_both_ways() -> None:
    with running() as p:
        p.install()
        p.send(b"\x00\x21" + udp(INNER, HOST, b"early"))
        p.wait_count("drop_rx_not_up", 1)
        p.up()
        out = udp(INNER, HOST, b"hello")
        p.send(b"\x21" + out)
        assert p.from_tun() == ((0,) * 6, out)
        p.send(b"\xff\x03\x00\x21" + out + b"padding")
        assert p.from_tun()[1] == out
        p.send(b"\x21" + udp(INNER + 1, HOST, b"spoofed"))
        p.wait_count("drop_rx_spoofed", 1)
        back = udp(HOST, INNER, b"answer")
        p.to_tun(back)
        assert p.data() == b"\xff\x03\x00\x21" + back
        p.to_tun(udp(HOST, INNER + 7, b"nobody"))
        p.wait_count("drop_tx_no_session", 1)
        s = p.table.session(p.index)
        assert (s.rx_packets, s.rx_bytes) == (2, 2 * len(out))
        assert (s.tx_packets, s.tx_bytes) == (1, len(back))


@pytest.mark.usefixtures("each_kernel")
@pytest.mark.parametrize("bits", [40, 56, 128])
def test_encrypted_both_ways(bits: int) -> None:
    rx, tx = (RX, TX) if bits == 128 else (RX[:8], TX[:8])
    with running() as p:
        p.install()
        p.up(bits=bits, rx=rx, tx=tx)
        ours, theirs = Cipher(rx, bits), Cipher(tx, bits)
        for n in (0, 1, 7, 8, 9, 500, 1300):
            packet = udp(INNER, HOST, os.urandom(n))
            p.send(ours.seal(packet))
            assert p.from_tun()[1] == packet
            packet = udp(HOST, INNER, os.urandom(n))
            p.to_tun(packet)
            assert theirs.open(p.data()) == packet


@pytest.mark.usefixtures("each_kernel")
def test_gap_late_clear_and_wrap_of_the_coherency_count() -> None:
    with running(reorder_depth=0) as p:
        p.install()
        p.up(bits=128, rx=RX, tx=TX)
        ours = Cipher(RX)
        packet = udp(INNER, HOST, b"x")
        while ours.count != 0xFFE:
            if ours.count % 1500 == 0:  # within 2047 of what the engine has seen
                p.send(ours.seal(packet))
                assert p.from_tun()[1] == packet
            ours.step()
        for expected in (0xFFE, 0xFFF, 0, 1):
            while ours.count != expected:
                ours.step()
            p.send(ours.seal(packet))
            assert p.from_tun()[1] == packet
        assert p.count("mppe_rekeys") >= 4000
        late = struct.pack(">H", 0x9000 | (ours.count - 2) & 0xFFF)
        p.send(b"\x00\xfd" + late + b"abcdefgh")
        p.wait_count("drop_rx_mppe_coherency", 1)
        p.send(b"\x00\x21" + packet)
        p.wait_count("drop_rx_mppe_clear", 1)
        p.send(ours.seal(packet))
        assert p.from_tun()[1] == packet


def test_wrong_key_is_noticed() -> None:
    with running() as p:
        p.install()
        p.up(bits=128, rx=RX, tx=TX)
        wrong = Cipher(TX)
        for _ in range(20):
            p.send(wrong.seal(udp(INNER, HOST, b"x" * 40)))
        p.event(engine.EVENT_DESYNC)


def test_reordering_duplicates_and_a_given_up_gap() -> None:
    with running(reorder_depth=16, reorder_timeout_ms=40) as p:
        p.install()
        p.up()
        packets = [udp(INNER, HOST, bytes([i])) for i in range(12)]
        for seq in (0, 2, 1, 5, 4, 3, 3, 0):
            p.send(b"\x21" + packets[seq], seq=seq)
        assert [p.from_tun()[1] for _ in range(6)] == packets[:6]
        p.wait_count("drop_rx_duplicate", 2)
        start = time.monotonic()
        p.send(b"\x21" + packets[8], seq=8)
        p.send(b"\x21" + packets[7], seq=7)
        assert [p.from_tun()[1] for _ in range(2)] == packets[7:9]
        assert time.monotonic() - start >= 0.03
        p.wait_count("gre_lost", 1)
        p.send(b"\x21" + packets[6], seq=6)
        p.wait_count("drop_rx_late", 1)
        assert p.count("queued") == 0


def test_sequence_wraps_at_32_bits() -> None:
    with running() as p:
        p.install()
        p.up()
        packet = udp(INNER, HOST, b"w")
        for first in (0x70000000, 0xE0000000, 2**32 - 5):  # four strays: a new sequence
            for seq in range(first, first + 4):
                p.send(b"\x21" + packet, seq=seq)
            assert p.from_tun()[1] == packet
        for seq in (2**32 - 1, 0, 2, 1):
            p.send(b"\x21" + packet, seq=seq)
        for _ in range(4):
            assert p.from_tun()[1] == packet
        assert p.count("drop_rx_out_of_window") == 9


def test_the_second_gap_waits_no_longer_wherever_its_packets_are_kept() -> None:
    """Places in the queue go by the sequence number, not by the depth."""
    with running(reorder_timeout_ms=400) as p:
        p.install()
        p.up()
        for seq in (*range(35), 40, 44):
            p.send(b"\x21" + udp(INNER, HOST, b"%d" % seq), seq=seq)
        for _ in range(35):
            p.from_tun()
        assert p.from_tun()[1] == udp(INNER, HOST, b"40")
        began = time.monotonic()
        assert p.from_tun()[1] == udp(INNER, HOST, b"44")
        assert time.monotonic() - began < 0.2


def test_a_sequence_half_the_numbers_away_is_a_stray() -> None:
    """Its distance has no positive counterpart in 32 bits."""
    with running() as p:
        p.install()
        p.up()
        p.send(b"\x21" + udp(INNER, HOST, b"a"), seq=0)
        p.from_tun()
        p.send(b"\x21" + udp(INNER, HOST, b"b"), seq=2**31 + 1)
        p.wait_count("drop_rx_out_of_window", 1)
        p.send(b"\x21" + udp(INNER, HOST, b"c"), seq=1)
        assert p.from_tun()[1] == udp(INNER, HOST, b"c")


def test_reordering_across_the_wrap_at_a_depth_that_is_no_power_of_two() -> None:
    """2 ** 32 - 4 and 12 leave the same rest by 30; both must be held."""
    with running(reorder_depth=30, reorder_timeout_ms=5000) as p:
        p.install()
        p.up()
        packets = {seq % 2**32: udp(INNER, HOST, b"%d" % seq) for seq in range(-9, 13)}
        for first in (0x70000000, 2**32 - 9):  # four strays: a new sequence
            for seq in range(first, first + 4):
                p.send(b"\x21" + packets[2**32 - 6], seq=seq)
            assert p.from_tun()[1] == packets[2**32 - 6]
        for seq in (2**32 - 4, 12):
            p.send(b"\x21" + packets[seq], seq=seq)
        p.wait_count("queued", 2)
        for seq in (2**32 - 5, *range(2**32 - 3, 2**32), *range(12)):
            p.send(b"\x21" + packets[seq], seq=seq)
        order = [n % 2**32 for n in range(-5, 13)]
        assert [p.from_tun()[1] for _ in order] == [packets[seq] for seq in order]


def test_a_small_window_of_ours_is_never_used_up() -> None:
    with running(window=4, ack_delay_ms=1000) as p:
        p.install()
        p.up()
        for _ in range(2):
            p.send(b"\x21" + udp(INNER, HOST, b"x"))
        assert p.receive(wait=0.5) == (None, 1, b"")


def test_what_a_dead_worker_had_in_hand_is_accounted_for() -> None:
    with running(reorder_timeout_ms=5000) as p:
        p.install()
        p.up()
        p.send(b"\x21" + udp(INNER, HOST, b"1"))
        p.send(b"\x21" + udp(INNER, HOST, b"held"), seq=5)
        p.wait_count("queued", 1)
        table = p.table
    with running(table) as q:
        q.event(engine.EVENT_RESUMED)
        c = table.data_counters(0)
        assert (c["gre_rx_packets"], c["rx_data"], c["queued"]) == (2, 1, 0)
        assert c["drop_rx_session_ended"] == 1


def test_every_packet_is_accounted_for() -> None:
    with running(reorder_depth=8, reorder_timeout_ms=10) as p:
        p.install()
        p.up()
        for seq in (0, 1, 1, 5, 9000, 3, 2, 40, 41, 44):
            p.send(b"\x21" + udp(INNER, HOST, b"x"), seq=seq)
            p.raw(os.urandom(12))
        time.sleep(0.1)
        c = p.table.data_counters(0)
        ends = c["rx_ack_only"] + c["rx_control"] + c["rx_data"] + c["queued"]
        ends += sum(v for k, v in c.items() if k.startswith("drop_rx_"))
        assert c["gre_rx_packets"] == ends == 20


def test_super_packet_becomes_segments() -> None:
    with running() as p:
        p.install()
        p.up(mtu=1400)
        data = os.urandom(5000)
        packet = bytearray(tcp(HOST, INNER, data, seq=77, flags=0x18))
        p.to_tun(bytes(packet), (1, 1, 40, 1360, 20, 16))
        got = b""
        for i in range(4):
            frame = p.data()[4:]
            head = struct.unpack(">HHIIBBHHH", frame[20:40])
            assert head[2] == 77 + len(got)
            assert ip_sum(frame[:20]) == 0
            pseudo = struct.pack(">IIBBH", HOST, INNER, 0, 6, len(frame) - 20)
            assert ip_sum(pseudo + frame[20:]) == 0
            assert head[5] == (0x18 if i == 3 else 0x10)
            got += frame[40:]
        assert got == data


def test_a_super_packet_over_the_sessions_mtu_becomes_smaller_segments() -> None:
    """What both ends agreed on is not always what the session carries: no ICMP, no loss."""
    with running() as p:
        p.install()
        p.up(mtu=600)
        data = os.urandom(4000)
        p.to_tun(tcp(HOST, INNER, data, seq=77, flags=0x18), (1, 1, 40, 1360, 20, 16))
        got = b""
        while len(got) < len(data):
            packet = p.data()[4:]
            assert len(packet) <= 600
            assert struct.unpack(">I", packet[24:28])[0] == 77 + len(got)
            pseudo = struct.pack(">IIBBH", HOST, INNER, 0, 6, len(packet) - 20)
            assert ip_sum(packet[:20]) == 0 == ip_sum(pseudo + packet[20:])
            got += packet[40:]
        assert got == data
        assert p.count("drop_tx_too_big") == 0


def uso(size: int, df: bool) -> bytes:
    """Three datagrams in one read."""
    head = struct.pack(">HHHH", 1000, 2000, 8 + 3 * size, 0)
    return lab.ipv4(HOST, INNER, head + bytes(range(250)) * (3 * size // 250), df=df)


@pytest.mark.parametrize("df", [False, True])
def test_datagrams_in_one_read_are_sent_one_by_one(df: bool) -> None:
    with running() as p:
        p.install()
        p.up(mtu=1400)
        p.to_tun(uso(1000, df), (1, 5, 28, 1000, 20, 6))
        for _ in range(3):
            packet = p.data()[4:]
            assert len(packet) == 1028
            pseudo = struct.pack(">IIBBH", HOST, INNER, 0, 17, 1008)
            assert ip_sum(packet[:20]) == 0 == ip_sum(pseudo + packet[20:])
            assert packet[28:] == bytes(range(250)) * 4
        assert p.count("tun_rx_packets") == 3


def test_datagrams_in_one_read_over_the_mtu() -> None:
    """With DF one ICMP for all of them, with the session's MTU; without it, fragments."""
    with running() as p:
        p.install()
        p.up(mtu=600)
        p.to_tun(uso(1000, True), (1, 5, 28, 1000, 20, 6))
        icmp = p.from_tun()[1]
        assert icmp[20:22] == b"\x03\x04"
        assert struct.unpack(">H", icmp[26:28])[0] == 600
        assert p.wait_count("drop_tx_too_big", 3) == 3
        p.to_tun(uso(1000, False), (1, 5, 28, 1000, 20, 6))
        sizes = [len(p.data()[4:]) for _ in range(6)]
        assert sizes == [596, 452] * 3


def test_segments_become_a_super_packet() -> None:
    with running(reorder_timeout_ms=1000) as p:
        p.install()
        p.up()
        data = os.urandom(1300 * 5 + 100)
        # Held back by a missing first one, they come in one batch.
        parts = [data[i : i + 1300] for i in range(0, len(data), 1300)]
        p.send(b"\xc0\x21\x0b\x00\x00\x08\x00\x00\x00\x00", seq=0)
        for i, part in enumerate(parts[1:], 2):
            p.send(b"\x21" + tcp(INNER, HOST, part, seq=1300 * (i - 1)), seq=i)
        p.wait_count("reordered", len(parts) - 1)
        p.send(b"\x21" + tcp(INNER, HOST, parts[0], seq=0), seq=1)
        got, writes = b"", 0
        while len(got) < len(data):
            vnet, packet = p.from_tun()
            writes += 1
            if vnet[1]:
                assert vnet[:4] == (1, 1, 40, 1300)
                assert (vnet[4], vnet[5]) == (20, 16)
                assert struct.unpack(">H", packet[2:4])[0] == len(packet)
                assert ip_sum(packet[:20]) == 0
            got += packet[40:]
        assert got == data
        assert writes <= 2
        p.wait_count("rx_data", len(parts))  # counted after the write
        assert p.table.session(p.index).rx_packets == len(parts)


def test_a_bad_checksum_is_not_hidden_by_coalescing() -> None:
    with running() as p:
        p.install()
        p.up()
        good = [tcp(INNER, HOST, b"a" * 100, seq=100 * i) for i in range(3)]
        bad = good[1][:-1] + b"b"
        p.send(b"\xc0\x21\x0b\x00\x00\x08\x00\x00\x00\x00", seq=0)
        for seq, packet in ((2, bad), (3, good[2]), (1, good[0])):
            p.send(b"\x21" + packet, seq=seq)
        got = [p.from_tun() for _ in range(3)]
        assert [packet for _, packet in got] == [good[0], bad, good[2]]
        assert all(vnet == (0,) * 6 for vnet, _ in got)


def test_mss_is_clamped_both_ways() -> None:
    with running() as p:
        p.install()
        p.up(mtu=1396)
        syn = tcp(INNER, HOST, b"", flags=0x02, options=b"\x02\x04\x05\xb4")
        p.send(b"\x21" + syn)
        packet = p.from_tun()[1]
        assert packet[40:44] == b"\x02\x04" + struct.pack(">H", 1356)
        pseudo = struct.pack(">IIBBH", INNER, HOST, 0, 6, len(packet) - 20)
        assert ip_sum(pseudo + packet[20:]) == 0
        syn = tcp(HOST, INNER, b"", flags=0x12, options=b"\x01\x02\x04\x05\xb4\x00\x00\x00")
        p.to_tun(syn)
        packet = p.data()[4:]
        assert packet[41:45] == b"\x02\x04" + struct.pack(">H", 1356)
        pseudo = struct.pack(">IIBBH", HOST, INNER, 0, 6, len(packet) - 20)
        assert ip_sum(pseudo + packet[20:]) == 0


def test_too_big_is_answered_or_fragmented() -> None:
    with running() as p:
        p.install()
        p.up(mtu=600)
        p.to_tun(lab.ipv4(HOST, INNER, b"d" * 900, df=True))
        icmp = p.from_tun()[1]
        assert icmp[20:22] == b"\x03\x04"
        assert struct.unpack(">H", icmp[26:28])[0] == 600
        assert ip_sum(icmp[20:]) == 0 == ip_sum(icmp[:20])
        p.wait_count("drop_tx_too_big", 1)
        body = os.urandom(1300)
        p.to_tun(lab.ipv4(HOST, INNER, body))
        whole = bytearray(1300)
        more = True
        while more:
            part = p.data()[4:]
            word = struct.unpack(">H", part[6:8])[0]
            more = bool(word & 0x2000)
            at = (word & 0x1FFF) * 8
            whole[at : at + len(part) - 20] = part[20:]
            assert len(part) <= 600
        assert bytes(whole) == body


def test_lcp_echo_is_answered_and_sent() -> None:
    with running() as p:
        p.install()
        p.up(echo_s=1)
        p.send(b"\xc0\x21\x09\x07\x00\x0c\x00\x00\x00\x05abcd")
        assert p.data() == b"\xff\x03\xc0\x21\x0a\x07\x00\x0c\x11\x22\x33\x44abcd"
        echo = p.data(wait=4)
        assert echo[4] == 9
        p.event(engine.EVENT_ECHO_LOST, wait=8)
        assert p.count("lcp_echo_timeouts") == 1


@pytest.mark.usefixtures("each_kernel")
def test_a_successor_goes_on_where_the_record_says() -> None:
    with running() as p:
        p.install()
        p.up(bits=128, rx=RX, tx=TX)
        ours, theirs = Cipher(RX), Cipher(TX)
        for _ in range(5):
            p.send(ours.seal(udp(INNER, HOST, b"1")))
            p.from_tun()
            p.to_tun(udp(HOST, INNER, b"2"))
            theirs.open(p.data())
        table, seq = p.table, p.seq
    with running(table) as q:
        q.event(engine.EVENT_RESUMED)
        q.generation, q.seq = p.generation, seq
        q.send(ours.seal(udp(INNER, HOST, b"3")))
        assert q.from_tun()[1] == udp(INNER, HOST, b"3")
        q.to_tun(udp(HOST, INNER, b"4"))
        sequence, _, payload = q.receive()
        assert sequence == 5
        assert theirs.open(payload) == udp(HOST, INNER, b"4")


def test_a_flood_of_frames_keeps_no_login_waiting() -> None:
    """Who floods is held back, the more while the control thread is behind; others are not."""
    small, large = b"\xc0\x21\x01\x00\x00\x04", b"\xc0\x21\x01\x00\x05\x78" + bytes(1396)

    def sent(peer: lab.Peer, octets: bytes, count: int) -> int:
        """How many of so many frames got through."""
        before = peer.count("rx_control"), peer.count("gre_rx_packets")
        for _ in range(count):
            peer.send(octets)
        peer.wait_count("gre_rx_packets", before[1] + count)
        time.sleep(0.02)
        return peer.count("rx_control") - before[0]

    with running() as p:
        p.install()
        other = dataclasses.replace(p, index=5, call_id=p.call_id + 64, inbox=[], seen=[])
        other.install()
        assert 64 <= sent(p, small, 200) <= 80
        while p.engine.events():
            pass
        time.sleep(1.2)
        assert 16 <= sent(p, small, 100) <= 32
        while p.engine.events():
            pass
        assert sent(other, large, 55) == 55  # 47 of them are more than may wait
        time.sleep(2.2)
        assert 4 <= sent(p, small, 100) <= 6
        third = dataclasses.replace(p, index=6, call_id=p.call_id + 128, inbox=[], seen=[])
        third.install()
        assert sent(third, small, 60) == 60


def test_remove_ends_everything() -> None:
    with running(reorder_timeout_ms=1000) as p:
        p.install()
        p.up()
        p.send(b"\x21" + udp(INNER, HOST, b"held"), seq=5)
        p.wait_count("reordered", 1)
        assert p.engine.remove(p.index, p.generation)
        p.event(engine.EVENT_REMOVED)
        assert p.count("queued") == 0
        assert p.count("drop_rx_session_ended") == 1
        p.send(b"\x21" + udp(INNER, HOST, b"gone"), seq=6)
        p.wait_count("drop_rx_no_session", 1)
        assert p.engine.remove(p.index, 99)  # unknown handles are answered too
        p.event(engine.EVENT_REMOVED)


def test_client_role_selects_by_source() -> None:
    with running(role=engine.CLIENT) as p:
        p.install()
        p.up()
        out = udp(INNER, HOST, b"up")
        p.to_tun(out)
        assert p.data() == b"\xff\x03\x00\x21" + out
        back = udp(HOST, INNER, b"down")
        p.send(b"\x21" + back)
        assert p.from_tun()[1] == back


def stateful_up(p: lab.Peer, bits: int) -> tuple[Encryptor, Decryptor]:
    """Both directions stateful; the subscriber is the slow twin."""
    rx, tx = (RX, TX) if bits == 128 else (RX[:8], TX[:8])
    p.install()
    p.engine.set_mppe(p.index, p.generation, bits, rx, True, bits, tx, True)
    p.up(stateful=3, mppe_bits=bits)
    return Encryptor(rx, bits, True), Decryptor(tx, bits, True)


@pytest.mark.usefixtures("each_kernel")
@pytest.mark.parametrize("bits", [40, 128])
def test_stateful_over_several_key_changes(bits: int) -> None:
    with running() as p:
        ours, theirs = stateful_up(p, bits)
        for n in range(600):
            packet = udp(INNER, HOST, bytes(n % 50))
            p.send(b"\x00\xfd" + ours.encrypt(b"\x00\x21" + packet))
            assert p.from_tun()[1] == packet
            packet = udp(HOST, INNER, bytes(n % 40))
            p.to_tun(packet)
            assert theirs.decrypt(p.data()[4:]).plain == b"\x00\x21" + packet
        assert p.count("mppe_resets_sent") == 0


@pytest.mark.usefixtures("each_kernel")
def test_stateful_loss_is_mended_by_one_reset() -> None:
    with running(reorder_depth=0) as p:
        ours, theirs = stateful_up(p, 128)
        packet = udp(INNER, HOST, b"x")

        def send() -> None:
            p.send(b"\x00\xfd" + ours.encrypt(b"\x00\x21" + packet))

        send()
        assert p.from_tun()[1] == packet
        for _ in range(600):  # lost, with two packets that change the key
            ours.encrypt(b"\x00\x21" + packet)
        for _ in range(5):
            send()
        assert p.data()[:5] == b"\xff\x03\x80\xfd\x0e"
        ours.reset_request()
        send()
        assert p.from_tun()[1] == packet
        assert p.count("mppe_resets_sent") == 1
        assert p.count("drop_rx_mppe_coherency") == 5
        # And the other way: asked twice, we change the key once and set A. Each request is
        # acknowledged, before that packet: Linux decrypts nothing until then.
        answer = udp(HOST, INNER, b"y")
        p.to_tun(answer)
        assert theirs.decrypt(p.data()[4:]).plain[2:] == answer
        p.to_tun(answer)
        p.data()  # lost on the way
        for number in (1, 2):
            p.send(b"\x80\xfd\x0e" + bytes([number]) + b"\x00\x04")
            assert p.data() == b"\xff\x03\x80\xfd\x0f" + bytes([number]) + b"\x00\x04"
        p.wait_count("mppe_resets_received", 2)
        for _ in range(2):
            p.to_tun(answer)
        first, second = p.data()[4:], p.data()[4:]
        assert (first[0] & 0x80, second[0] & 0x80) == (0x80, 0)
        for sealed in (first, second):
            assert theirs.decrypt(sealed).plain[2:] == answer


@pytest.mark.usefixtures("each_kernel")
def test_stateful_successor_begins_anew() -> None:
    with running() as p:
        ours, theirs = stateful_up(p, 128)
        packet, answer = udp(INNER, HOST, b"1"), udp(HOST, INNER, b"2")
        p.send(b"\x00\xfd" + ours.encrypt(b"\x00\x21" + packet))
        p.from_tun()
        p.to_tun(answer)
        theirs.decrypt(p.data()[4:])
        table, seq = p.table, p.seq
    with running(table) as q:
        q.generation, q.seq = p.generation, seq
        q.to_tun(answer)
        sealed = q.data()[4:]
        assert sealed[0] & 0x80
        assert theirs.decrypt(sealed).plain[2:] == answer
        q.send(b"\x00\xfd" + ours.encrypt(b"\x00\x21" + packet))
        assert q.data()[4] == 0x0E
        ours.reset_request()
        q.send(b"\x00\xfd" + ours.encrypt(b"\x00\x21" + packet))
        assert q.from_tun()[1] == packet


def ipv6(source: bytes, target: bytes, payload: bytes, protocol: int = 17) -> bytes:
    return struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64) + source + target + payload


def test_ipv6_link_local_both_ways() -> None:
    own = b"\xfe\x80" + bytes(6) + bytes(range(8))
    host = b"\xfe\x80" + bytes(13) + b"\x01"
    with running() as p:
        p.install()
        p.up(bits=128, rx=RX, tx=TX)
        ours, theirs = Cipher(RX), Cipher(TX)
        out = ipv6(own, host, b"12345678")
        p.send(ours.seal(out, b"\x00\x57"))
        p.wait_count("drop_rx_protocol", 1)
        p.to_tun(ipv6(host, own, b"x" * 8))
        p.wait_count("drop_tx_no_session", 1)
        p.table.set_six(p.index, own[8:], host[8:])
        assert p.engine.up6(p.index, p.generation)
        time.sleep(0.05)
        p.send(ours.seal(out, b"\x57"))
        assert p.from_tun() == ((0,) * 6, out)
        p.send(ours.seal(ipv6(host, own, b"spoofed!"), b"\x57"))
        p.wait_count("drop_rx_spoofed", 1)
        back = ipv6(host, own, b"x" * 8)
        p.to_tun(back)
        frame = p.data()
        theirs.step()
        plain = mppe.crypt_batch([frame[6:]], [theirs.key])[0]
        assert plain == b"\x00\x57" + back
        # A large segment from the LAN is cut to the session's MTU.
        data = os.urandom(3000)
        head = struct.pack(">HHIIBBHHH", 1, 2, 9, 1, 0x50, 0x10, 500, 0, 0)
        p.to_tun(ipv6(host, own, head + data, 6), (1, 4, 60, 1340, 40, 16))
        got = b""
        while len(got) < len(data):
            frame = p.data()
            theirs.step()
            packet = mppe.crypt_batch([frame[6:]], [theirs.key])[0][2:]
            assert len(packet) <= 1400
            pseudo = packet[8:40] + struct.pack(">IHBB", len(packet) - 40, 0, 0, 6)
            assert ip_sum(pseudo + packet[40:]) == 0
            got += packet[60:]
        assert got == data
        assert p.engine.down6(p.index, p.generation)
        time.sleep(0.05)
        p.send(ours.seal(out, b"\x57"))
        p.wait_count("drop_rx_protocol", 2)


def test_ipv6_too_big_is_answered() -> None:
    own = b"\xfe\x80" + bytes(6) + bytes(range(8))
    host = b"\xfe\x80" + bytes(13) + b"\x01"
    with running() as p:
        p.install()
        p.up(mtu=1300)
        p.table.set_six(p.index, own[8:], host[8:])
        assert p.engine.up6(p.index, p.generation)
        time.sleep(0.05)
        big = ipv6(host, own, bytes(1310))
        p.to_tun(big)
        icmp = p.from_tun()[1]
        assert icmp[8:24] == host
        assert icmp[24:40] == host
        assert icmp[40:42] == b"\x02\x00"
        assert struct.unpack(">I", icmp[44:48])[0] == 1300
        assert icmp[48:] == big[:1232]
        pseudo = icmp[8:40] + struct.pack(">IHBB", len(icmp) - 40, 0, 0, 58)
        assert ip_sum(pseudo + icmp[40:]) == 0
        p.wait_count("drop_tx_too_big", 1)
