"""Ring, GRE header, segmentation and coalescing: golden octets, then any octets."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath import gre, tun
from fastpath.ring import Ring
from tests.fastpath.peer import VNET, ip_sum, ipv4, tcp

A, B = 0x0A000001, 0x0A000002


@given(st.lists(st.one_of(st.none(), st.binary(max_size=90)), max_size=300))
def test_ring_is_a_queue(steps: list[bytes | None]) -> None:
    ring, twin = Ring(512), deque[tuple[int, int, int, bytes]]()
    for n, step in enumerate(steps):
        if step is None:
            assert ring.take() == (twin.popleft() if twin else None)
        elif ring.push(n, n + 1, n + 2, step):
            twin.append((n, n + 1, n + 2, step))
        else:
            assert twin, "an empty ring must take a record"
    while twin:
        assert ring.take() == twin.popleft()
    assert ring.take() is None


def test_ring_wraps_with_any_rest_at_its_end() -> None:
    """With 8 octets left before the end the skipping record once had a negative size."""
    ring = Ring(512)
    for n in range(5000):
        data = bytes([n & 255]) * (n * 7 % 61)
        assert ring.push(n, n, n, data), "an empty ring must take a record"
        assert ring.take() == (n, n, n, data)
        assert ring.take() is None, "nothing may be taken twice"


def test_one_wake_up_a_sleep() -> None:
    ring = Ring(128)
    assert not ring.wake_owed()
    assert ring.sleep()
    ring.push(1, 0, 0, b"")
    assert ring.wake_owed()
    assert not ring.wake_owed()
    assert not ring.sleep()  # something has come
    ring.take()
    assert ring.sleep()


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        ("3001880b 0003 0007 00000005 aabbcc", (7, 5, None, 12, 3)),
        ("3081880b 0001 0000 00000005 00000009 aa", (0, 5, 9, 16, 1)),
        ("2081880b 0000 ffff 00000009", (65535, None, 9, 12, 0)),
        ("3001880b 0001 0007 00000005 aa 0000000000", (7, 5, None, 12, 1)),  # padding behind
    ],
)
def test_gre_headers(octets: str, found: tuple[object, ...]) -> None:
    assert gre.parse(bytes.fromhex(octets)) == found


@pytest.mark.parametrize(
    "octets",
    [
        "",
        "3001880b",
        "b001880b 0001 0007 00000005 aa",  # C
        "7001880b 0001 0007 00000005 aa",  # R
        "1001880b 0001 0007 00000005 aa",  # no K
        "3801880b 0001 0007 00000005 aa",  # s
        "3101880b 0001 0007 00000005 aa",  # recursion
        "3009880b 0001 0007 00000005 aa",  # flags
        "3000880b 0001 0007 00000005 aa",  # version 0
        "30010800 0001 0007 00000005 aa",  # another protocol
        "3001880b 0002 0007 00000005 aa",  # longer than there is
        "3081880b 0000 0007 00000005 0000",
    ],
)
def test_gre_refuses(octets: str) -> None:
    with pytest.raises(ValueError, match=r"short|PPTP|length"):
        gre.parse(bytes.fromhex(octets))


@given(st.binary(max_size=64))
def test_gre_any_octets(octets: bytes) -> None:
    try:
        _, seq, _, at, size = gre.parse(octets)
    except ValueError:
        return
    assert at + size <= len(octets)
    assert seq is not None or size == 0


@given(
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.binary(min_size=1, max_size=40),
)
def test_gre_round_trip(call_id: int, seq: int, ack: int | None, payload: bytes) -> None:
    packet = gre.build(call_id, payload, seq, ack)
    assert gre.parse(packet) == (call_id, seq, ack, len(packet) - len(payload), len(payload))


def datagram(
    data: bytes,
    *,
    flow: int = 0,
    may_not: bool = True,
    number: int = 7,
    bare: bool = False,
    ttl: int = 64,
    flip: int = 0,
) -> bytes:
    """UDP in IPv4. `may_not` be fragmented; `bare`: no checksum; `flip`: this bit of it is."""
    head = struct.pack(">HHHH", 1000 + flow, 2000, 8 + len(data), 0)
    pseudo = struct.pack(">IIBBH", A, B, 0, 17, 8 + len(data))
    total = 0 if bare else ip_sum(pseudo + head + data) or 0xFFFF
    segment = head[:6] + struct.pack(">H", total ^ flip) + data
    packet = ipv4(A, B, segment, 17, may_not)
    packet = packet[:4] + struct.pack(">H", number & 0xFFFF) + packet[6:8] + bytes([ttl, 17, 0, 0])
    packet += struct.pack(">II", A, B)
    return packet[:10] + struct.pack(">H", ip_sum(packet)) + packet[12:] + segment


def reassembled(parts: list[bytes]) -> list[bytes]:
    """IPv4 packets made whole again; all fragments are there, in any order."""
    found: dict[bytes, dict[int, bytes]] = {}
    for p in parts:
        found.setdefault(p[4:6], {})[struct.unpack(">H", p[6:8])[0] & 0x1FFF] = p
    packets = []
    for pieces in found.values():
        body = b""
        for at in sorted(pieces):
            assert at * 8 == len(body)
            body += pieces[at][20:]
        last = pieces[max(pieces)]
        assert not last[6] & 0x20 and all(p[6] & 0x20 for p in pieces.values() if p is not last)
        head = pieces[0][:2] + struct.pack(">H", 20 + len(body)) + pieces[0][4:6] + b"\0\0"
        head += pieces[0][8:10] + b"\0\0" + pieces[0][12:20]
        packets.append(head[:10] + struct.pack(">H", ip_sum(head)) + head[12:] + body)
    return packets


def whole(packet: bytes) -> bool:
    """IP and TCP checksums are right."""
    source, target = struct.unpack(">II", packet[12:20])
    pseudo = struct.pack(">IIBBH", source, target, 0, packet[9], len(packet) - 20)
    return ip_sum(packet[:20]) == 0 and ip_sum(pseudo + packet[20:]) == 0


@given(st.binary(max_size=6000), st.integers(200, 1500), st.integers(1, 1460))
def test_tcp_segments(data: bytes, mtu: int, gso: int) -> None:
    super_packet = tcp(A, B, data, seq=2**32 - 100, flags=0x99)
    parts = tun.segment(super_packet, mtu, flags=1, gso_type=1, gso_size=gso)
    assert b"".join(p[40:] for p in parts) == data
    assert all(whole(p) and len(p) <= mtu for p in parts)
    assert [p[33] & 0x89 for p in parts[:-1]] == [0x80, *([0] * len(parts))][: len(parts) - 1]
    assert parts[-1][33] & 0x09 == 0x09
    at = 0
    for p in parts:
        assert struct.unpack(">I", p[24:28])[0] == (2**32 - 100 + at) & 0xFFFFFFFF
        at += len(p) - 40


def test_udp_segments() -> None:
    data = os.urandom(2500)
    packet = ipv4(A, B, struct.pack(">HHHH", 1, 2, 8 + len(data), 0) + data)
    parts = tun.segment(packet, 1400, flags=1, gso_type=5, gso_size=1000)
    assert [len(p) for p in parts] == [1028, 1028, 528]
    assert b"".join(p[28:] for p in parts) == data
    assert all(whole(p) for p in parts)


@given(st.binary(max_size=9000), st.integers(68, 1500), st.integers(1, 1500), st.booleans())
def test_datagrams_over_the_mtu_go_in_fragments(
    data: bytes, mtu: int, gso: int, may_not: bool
) -> None:
    """A super-packet's datagrams are as large as they were sent: none becomes two."""
    packet = datagram(data, may_not=may_not, number=65530)
    if min(gso, len(data)) + 28 > mtu and may_not:
        with pytest.raises(ValueError, match="too big"):
            tun.segment(packet, mtu, flags=1, gso_type=5, gso_size=gso)
        return
    parts = tun.segment(packet, mtu, flags=1, gso_type=5, gso_size=gso)
    assert all(len(p) <= mtu and ip_sum(p[:20]) == 0 for p in parts)
    got = reassembled(parts)
    assert all(whole(p) for p in got)
    assert [p[28:] for p in got] == [data[at : at + gso] for at in range(0, len(data) or 1, gso)]
    numbers = [struct.unpack(">H", p[4:6])[0] for p in got]
    assert numbers == [(65530 + i) & 0xFFFF for i in range(len(got))]


def test_partial_checksum_is_finished() -> None:
    good = tcp(A, B, b"data")
    pseudo = struct.pack(">IIBBH", A, B, 0, 6, len(good) - 20)
    partial = good[:36] + struct.pack(">H", ~ip_sum(pseudo) & 0xFFFF) + good[38:]
    assert tun.segment(partial, 1400, flags=1, csum_start=20, csum_offset=16) == [good]


@given(
    st.binary(max_size=300),
    st.integers(68, 1500),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 65535),
)
def test_any_packet_from_the_tun(
    octets: bytes, mtu: int, flags: int, kind: int, size: int, start: int, offset: int
) -> None:
    for packet in (octets, b"\x45\x00\x01\x00" + octets, tcp(A, B, octets)[:-1]):
        try:
            parts = tun.segment(
                packet,
                mtu,
                flags=flags,
                gso_type=kind,
                gso_size=size,
                csum_start=start,
                csum_offset=offset,
            )
        except ValueError:
            continue
        assert all(len(p) <= mtu for p in parts)


WRITES = ("plain", "io_uring")  # gre.tun_writes


def write(packets: list[bytes], writes: int = 0, refused: bool = False) -> list[bytes]:
    """What the device gets, by every way to write to it: the same by each."""
    found = [written(packets, way, refused) for way in WRITES]
    assert found[0] == found[1]
    assert writes in (0, len(found[0]))
    return [packet for part in found[0] for packet in part]


def written(packets: list[bytes], way: str, refused: bool = False) -> list[list[bytes]]:
    """What the device gets, write by write; super-packets cut again by the segmenter under
    test above."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.setblocking(False)
        ours.setblocking(False)
        done = tun.coalesce(packets, ours.fileno(), refused=refused, writes=way)
        assert done[1:] == (len(packets), sum(map(len, packets)), 0)
        found: list[list[bytes]] = []
        while True:
            try:
                octets = theirs.recv(70000)
            except BlockingIOError:
                assert done[0] == len(found)
                return found
            v = VNET.unpack_from(octets)
            packet = octets[VNET.size :]
            if v == (0,) * 6:  # as it came, whatever it is
                found.append([packet])
                continue
            words = {"flags": v[0], "gso_type": v[1], "gso_size": v[3]}
            words |= {"csum_start": v[4], "csum_offset": v[5]}
            found.append(tun.segment(packet, 1500, **words))


segments = st.builds(
    lambda flow, size, flags, jump: (flow, size, flags, jump),
    st.integers(0, 2),
    st.sampled_from([0, 1, 100, 100, 100, 100, 37]),
    st.sampled_from([0x10, 0x10, 0x10, 0x10, 0x18, 0x11, 0x12]),
    st.sampled_from([0, 0, 0, 0, 5]),
)


@given(st.lists(segments, max_size=30))
def test_coalescing_changes_nothing(steps: list[tuple[int, int, int, int]]) -> None:
    """Each flow's packets arrive as they were, and in order (but for IP's identification)."""
    at = [0, 0, 0]
    sent: list[list[bytes]] = [[], [], []]
    packets = []
    for flow, size, flags, jump in steps:
        at[flow] += jump
        packet = tcp(A + flow, B, bytes([size]) * size, seq=at[flow], flags=flags)
        at[flow] += size
        packets.append(packet)
        sent[flow].append(packet)

    def plain(p: bytes) -> bytes:
        return p[:4] + p[6:10] + p[12:]

    for flow in range(3):
        got = [p for p in write(packets) if struct.unpack(">I", p[12:16])[0] == A + flow]
        assert [plain(p) for p in got] == [plain(p) for p in sent[flow]]
        assert all(whole(p) for p in got)


@given(st.binary(max_size=40), st.integers(0, 1500))
def test_mss_any_options(options: bytes, mtu: int) -> None:
    options += bytes(-len(options) % 4)
    packet = tcp(A, B, b"", flags=2, options=options)
    clamped = tun.clamp(packet, mtu)
    assert len(clamped) == len(packet)
    assert whole(clamped)


# -- coalescing of UDP: the rules of net/ipv4/udp_offload.c and af_inet.c


def run_of(count: int, size: int = 200, **options: int | bool) -> list[bytes]:
    return [
        datagram(bytes([i]) * size, number=7 + i, **options)  # type: ignore[arg-type]
        for i in range(count)
    ]


@pytest.mark.parametrize("may_not", [True, False])
def test_datagrams_of_one_size_become_one_write(may_not: bool) -> None:
    packets = run_of(20, may_not=may_not)
    assert write(packets, writes=1) == packets


def test_a_shorter_datagram_ends_a_run_and_a_longer_one_begins_another() -> None:
    short = [*run_of(5), datagram(b"short", number=12), *run_of(3)]
    assert write(short, writes=2) == [*short[:6], *short[6:]]
    longer = [*run_of(5), *run_of(3, 300)]
    assert write(longer, writes=2) == longer


def test_runs_are_bounded() -> None:
    packets = run_of(100)
    assert write(packets, writes=3) == packets  # 46, 46, 8
    packets = run_of(60, 1400)
    assert write(packets, writes=2) == packets


@pytest.mark.parametrize(
    "odd",
    [
        {"bare": True},  # nothing to verify, nothing to be made again
        {"ttl": 63},
        {"flip": 1},  # what is broken stays broken
        {"may_not": False},
    ],
)
def test_what_is_not_put_together(odd: dict[str, int | bool]) -> None:
    middle = datagram(b"\x03" * 200, number=10, **odd)  # type: ignore[arg-type]
    packets = [*run_of(3), middle, *run_of(3)]
    assert write(packets, writes=3) == packets
    assert write([middle, *run_of(3)], writes=2) == [middle, *run_of(3)]


def test_identifications_that_jump_are_kept_where_fragments_may_come() -> None:
    packets = [datagram(b"x" * 50, may_not=False, number=n) for n in (1, 2, 2, 9, 10)]
    assert write(packets, writes=3) == packets


def test_a_fragment_does_not_overtake() -> None:
    large = datagram(b"y" * 400, may_not=False, number=99)
    pieces = tun.segment(large, 300)
    packets = [*run_of(3), *pieces, *run_of(2)]
    assert write(packets, writes=4) == packets


def test_a_kernel_without_udp_segmentation_gets_them_apart() -> None:
    packets = [*run_of(9), datagram(b"last", number=16)]
    assert write(packets, writes=10, refused=True) == packets
    odd = [datagram(b"z" * 33, number=n) for n in range(3)]  # an odd length
    assert write(odd, writes=3, refused=True) == odd


datagrams = st.builds(
    lambda flow, size, odd: (flow, size, odd),
    st.integers(0, 11),
    st.sampled_from([0, 1, 100, 100, 100, 100, 37, 1400]),
    st.sampled_from([{}, {}, {}, {}, {"bare": True}, {"flip": 4}, {"may_not": False}, {"ttl": 9}]),
)


@given(st.lists(datagrams, max_size=60), st.booleans())
def test_coalescing_of_udp_changes_nothing(
    steps: list[tuple[int, int, dict[str, int | bool]]], refused: bool
) -> None:
    sent: dict[int, list[bytes]] = {}
    packets = []
    for i, (flow, size, odd) in enumerate(steps):
        packet = datagram(bytes([i]) * size, flow=flow, number=i, **odd)  # type: ignore[arg-type]
        packets.append(packet)
        sent.setdefault(1000 + flow, []).append(packet)

    def plain(p: bytes) -> bytes:  # with DF an identification says nothing (RFC 6864)
        return p[:4] + p[6:10] + p[12:] if p[6] & 0x40 else p

    got = write(packets, refused=refused)
    for port, wanted in sent.items():
        of_flow = [p for p in got if struct.unpack(">H", p[20:22])[0] == port]
        assert [plain(p) for p in of_flow] == [plain(p) for p in wanted]


def test_a_device_that_refuses_loses_what_it_refused_and_no_more() -> None:
    """More writes than one call of io_uring carries, of packets and super-packets by turns."""
    packets = [p for n in range(100) for p in (tcp(A, B, b"", flags=2), *run_of(3, 100 + n))]
    closed, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.close()
    with closed:
        for way in ("plain", "io_uring"):
            done = tun.coalesce(packets, closed.fileno(), writes=way)
            assert done == (200, 0, 0, len(packets))
    assert write(packets, writes=200)


def test_io_uring_for_a_descriptor_that_is_none() -> None:
    with pytest.raises(OSError, match="io_uring"):
        tun.coalesce([tcp(A, B, b"")], 1 << 20, writes="io_uring")
