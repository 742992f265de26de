"""Rules by which packets to the TUN are written together: each by name, and any packets at all
beside the slow twin. The device gets what it would have got one by one, in each flow in order."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fastpath import slow_gro
from tests.fastpath.peer import ip_sum
from tests.fastpath.slow_gro import TCP, UDP
from tests.fastpath.test_parts import WRITES, written

A, B = 0x0A000001, 0x0A000002
ACK, PSH, FIN, SYN, RST, URG, ECE, CWR = 0x10, 0x08, 0x01, 0x02, 0x04, 0x20, 0x40, 0x80
STAMP = b"\x01\x01\x08\x0a" + bytes(8)  # a timestamp's option, RFC 7323


@dataclass(frozen=True)
class Segment:
    """All that GRO looks at."""

    size: int = 100
    seq: int = 0
    ack: int = 1
    flags: int = ACK
    reserved: int = 0
    window: int = 500
    options: bytes = b""
    tos: int = 0
    ttl: int = 64
    number: int = 7
    fragment: int = 0x4000  # DF
    ip_options: bytes = b""
    broken: int = 0  # flips these bits of the checksum
    bare: bool = False  # UDP: no checksum
    source: int = A
    port: int = 1000
    protocol: int = TCP

    def packet(self) -> bytes:
        """As it comes out of the tunnel."""
        data = bytes([self.number & 255]) * self.size
        if self.protocol == UDP:
            head, at = struct.pack(">HHHH", self.port, 53, 8 + self.size, 0), 6
        else:
            offset = (20 + len(self.options)) // 4 << 4 | self.reserved
            words = (self.port, 2000, self.seq % 2**32, self.ack, offset, self.flags, self.window)
            head, at = struct.pack(">HHIIBBHHH", *words, 0, 0) + self.options, 16
        pseudo = struct.pack(">IIBBH", self.source, B, 0, self.protocol, len(head + data))
        total = (ip_sum(pseudo + head + data) or 0xFFFF) ^ self.broken
        if self.bare:
            total = 0
        payload = head[:at] + struct.pack(">H", total) + head[at + 2 :] + data
        size = 20 + len(self.ip_options)
        ip = struct.pack(
            ">BBHHHBBHII",
            *(0x40 | size // 4, self.tos, size + len(payload), self.number & 0xFFFF),
            *(self.fragment, self.ttl, self.protocol, 0, self.source, B),
        )
        ip += self.ip_options
        return ip[:10] + struct.pack(">H", ip_sum(ip)) + ip[12:] + payload


def same(packet: bytes) -> bytes:
    """What must be as it was: with DF the identification need not (RFC 6864)."""
    return packet[:4] + packet[6:10] + packet[12:] if packet[6] & 0x40 else packet


def check(packets: list[bytes]) -> list[int]:
    """Write them each way; that all came as the twin says. Packets of each write."""
    wanted = slow_gro.groups(packets)
    sizes = [len(group.packets) for group in wanted]
    for way in WRITES:
        got = written(packets, way)
        # The writer may hold one flow back while it writes another: each flow has its order.
        flows = {group.flow for group in wanted}
        assert len(got) == len(wanted)
        for flow in flows:
            ours = [[same(p) for p in w] for w in got if _flow(w[0]) == flow]
            twins = [[same(p) for p in g.packets] for g in wanted if g.flow == flow]
            assert ours == twins
        for protocol in (TCP, UDP):  # between two addresses nothing overtakes what is odd
            assert _around_odd(got, protocol) == _around_odd([g.packets for g in wanted], protocol)
    return sizes


def _flow(packet: bytes) -> bytes:
    if packet[9] not in (TCP, UDP) or slow_gro.odd(packet):
        return b""
    return packet[9:10] + packet[12:24]


def _around_odd(writes: list[list[bytes]], protocol: int) -> list[list[bytes]]:
    """Packets of one protocol from A before, between and after odd ones, sorted in each part."""
    parts: list[list[bytes]] = [[]]
    for packet in (p for w in writes for p in w if p[9] == protocol):
        if int.from_bytes(packet[12:16], "big") != A:
            continue
        if slow_gro.odd(packet):
            parts += [[same(packet)], []]
        else:
            parts[-1].append(same(packet))
    return [sorted(part) for part in parts]


def run(first: Segment, count: int) -> list[Segment]:
    """Segments one after the other."""
    step = first.size
    return [replace(first, seq=first.seq + i * step, number=first.number + i) for i in range(count)]


def around(odd: Segment, *, goes_on: int | None = None) -> list[bytes]:
    """Three segments, an odd one that comes next but for what is given, and three more."""
    before = run(Segment(), 3)
    after = run(Segment(seq=300 + (odd.size if goes_on is None else goes_on), number=11), 3)
    return [s.packet() for s in (*before, odd, *after)]


NEXT = Segment(seq=300, number=10)


@pytest.mark.parametrize(
    ("odd", "sizes"),
    [
        pytest.param(NEXT, [7], id="nothing is odd"),
        pytest.param(replace(NEXT, flags=ACK | PSH), [4, 3], id="PSH ends a group"),
        pytest.param(replace(NEXT, size=40), [4, 3], id="a shorter one ends a group"),
        pytest.param(replace(NEXT, size=101), [3, 2, 2], id="after a longer one all are short"),
        pytest.param(replace(NEXT, size=0), [3, 1, 3], id="no data"),
        pytest.param(replace(NEXT, flags=ACK | FIN), [3, 1, 3], id="FIN"),
        pytest.param(replace(NEXT, flags=ACK | SYN), [3, 1, 3], id="SYN"),
        pytest.param(replace(NEXT, flags=ACK | RST), [3, 1, 3], id="RST"),
        pytest.param(replace(NEXT, flags=ACK | URG), [3, 1, 3], id="URG"),
        pytest.param(replace(NEXT, flags=ACK | ECE), [3, 1, 3], id="ECE"),
        pytest.param(replace(NEXT, flags=ACK | CWR), [3, 1, 3], id="CWR"),
        pytest.param(replace(NEXT, flags=0), [3, 1, 3], id="no ACK"),
        pytest.param(replace(NEXT, reserved=1), [3, 1, 3], id="AE, a reserved bit"),
        pytest.param(replace(NEXT, ack=2), [3, 1, 3], id="another acknowledgement"),
        pytest.param(replace(NEXT, window=501), [3, 1, 3], id="another window"),
        pytest.param(replace(NEXT, options=STAMP), [3, 1, 3], id="an option more"),
        pytest.param(replace(NEXT, tos=0x48), [3, 1, 3], id="another DSCP"),
        pytest.param(replace(NEXT, tos=3), [3, 1, 3], id="ECN: congestion experienced"),
        pytest.param(replace(NEXT, ttl=63), [3, 1, 3], id="another TTL"),
        pytest.param(replace(NEXT, fragment=0), [3, 1, 3], id="without DF"),
        pytest.param(replace(NEXT, fragment=0x2000), [3, 1, 3], id="a first fragment"),
        pytest.param(replace(NEXT, fragment=0x0010), [3, 1, 3], id="a later fragment"),
        pytest.param(replace(NEXT, ip_options=b"\x01\x01\x01\x00"), [3, 1, 3], id="IP options"),
        pytest.param(replace(NEXT, broken=1), [3, 1, 3], id="a wrong checksum"),
        pytest.param(replace(NEXT, number=999), [7], id="with DF an identification says nothing"),
        pytest.param(replace(NEXT, port=1001), [6, 1], id="another flow is in nobody's way"),
        pytest.param(replace(NEXT, source=A + 4), [6, 1], id="another source's, too"),
    ],
)
def test_tcp(odd: Segment, sizes: list[int]) -> None:
    other_flow = odd.port != NEXT.port or odd.source != NEXT.source
    assert check(around(odd, goes_on=0 if other_flow else None)) == sizes


def test_a_sequence_gap_begins_another_group() -> None:
    assert check(around(replace(NEXT, seq=305), goes_on=105)) == [3, 4]


@pytest.mark.parametrize("seq", [200, 250, 299, 0])
def test_what_was_sent_again_stays_alone(seq: int) -> None:
    """And the order in which they came is kept."""
    assert check(around(replace(NEXT, seq=seq), goes_on=0)) == ([3, 4] if seq == 200 else [3, 1, 3])


def test_out_of_order() -> None:
    segments = run(Segment(), 6)
    swapped = [segments[i] for i in (0, 1, 3, 2, 4, 5)]
    assert check([s.packet() for s in swapped]) == [2, 1, 1, 2]


def test_a_timestamp_that_ticks_begins_another_group() -> None:
    segments = run(Segment(options=STAMP), 6)
    ticked = [replace(s, options=STAMP[:-1] + b"\x01") for s in segments[3:]]
    assert check([s.packet() for s in (*segments[:3], *ticked)]) == [3, 3]


def test_a_sequence_over_the_wrap() -> None:
    assert check([s.packet() for s in run(Segment(seq=2**32 - 250), 6)]) == [6]


def test_a_super_packet_fits_in_16_bits() -> None:
    large = [s.packet() for s in run(Segment(size=1448), 60)]
    assert check(large) == [45, 15]  # 20 + 20 + 45 * 1448
    small = [s.packet() for s in run(Segment(size=100), 60)]
    assert check(small) == [46, 14]


def test_a_header_that_is_longer_than_its_packet() -> None:
    lying = bytearray(Segment(size=0).packet())
    lying[32] = 0xF0
    packets = [s.packet() for s in run(Segment(), 3)]
    assert check([*packets, bytes(lying), *[s.packet() for s in run(Segment(seq=300), 2)]]) == [
        *(3, 1, 2)
    ]


ALIKE = Segment(protocol=UDP, number=10)


@pytest.mark.parametrize(
    ("odd", "sizes"),
    [
        pytest.param(ALIKE, [7], id="of one size"),
        pytest.param(replace(ALIKE, size=40), [4, 3], id="a shorter one ends a group"),
        pytest.param(replace(ALIKE, size=101), [3, 2, 2], id="after a longer one all are short"),
        pytest.param(replace(ALIKE, size=0), [3, 1, 3], id="no data"),
        pytest.param(replace(ALIKE, bare=True), [3, 1, 3], id="checksum 0"),
        pytest.param(replace(ALIKE, broken=1), [3, 1, 3], id="a wrong checksum"),
        pytest.param(replace(ALIKE, tos=3), [3, 1, 3], id="ECN"),
        pytest.param(replace(ALIKE, tos=0xB8), [3, 1, 3], id="DSCP"),
        pytest.param(replace(ALIKE, ttl=1), [3, 1, 3], id="TTL"),
        pytest.param(replace(ALIKE, fragment=0), [3, 1, 3], id="without DF among those with"),
        pytest.param(replace(ALIKE, fragment=0x2000), [3, 1, 3], id="a first fragment"),
        pytest.param(replace(ALIKE, fragment=0x0010), [3, 1, 3], id="a later fragment"),
        pytest.param(replace(ALIKE, ip_options=b"\x01\x01\x01\x00"), [3, 1, 3], id="IP options"),
        pytest.param(replace(ALIKE, port=1001), [6, 1], id="another flow"),
    ],
)
def test_udp(odd: Segment, sizes: list[int]) -> None:
    alike = [replace(s, protocol=UDP) for s in run(Segment(), 7)]
    assert check([s.packet() for s in (*alike[:3], odd, *alike[4:])]) == sizes


FLAGS = st.sampled_from([ACK] * 8 + [ACK | PSH, ACK | FIN, ACK | ECE, ACK | CWR, ACK | URG, SYN, 0])
KINDS: dict[str, st.SearchStrategy[object]] = {
    "flags": FLAGS,
    "reserved": st.sampled_from([1, 4]),
    "ack": st.sampled_from([2, 3]),
    "window": st.sampled_from([501, 0]),
    "options": st.sampled_from([STAMP, STAMP[:-1] + b"\1", b"\x01\x01\x01\x01"]),
    "tos": st.sampled_from([1, 2, 3, 0xB8]),
    "ttl": st.sampled_from([63, 1]),
    "fragment": st.sampled_from([0, 0x2000, 0x0010, 0x6000]),
    "ip_options": st.just(b"\x01\x01\x01\x00"),
    "broken": st.sampled_from([1, 0x8000]),
    "bare": st.just(True),
    "number": st.sampled_from([0, 65535, 9]),
}
STEP = st.tuples(
    st.sampled_from([(TCP, 1000, A), (TCP, 1001, A), (TCP, 1000, A + 4)] + [(UDP, 1000, A)] * 2),
    st.sampled_from([100] * 6 + [0, 1, 40, 101, 1400]),
    st.sampled_from([0] * 6 + [5, -100, -40, 100]),  # a jump of the sequence
    st.one_of(st.just({}), st.just({}), st.dictionaries(st.sampled_from(sorted(KINDS)), st.none())),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Segment]:
    """Flows by turns, most of it in order."""
    made: list[Segment] = []
    at: dict[tuple[int, int, int], int] = {}
    for number, (flow, size, jump, kinds) in enumerate(draw(st.lists(STEP, max_size=40))):
        protocol, port, source = flow
        seq = at.get(flow, 0) + jump
        at[flow] = seq + size
        plain = Segment(
            *(size, seq),
            number=number,
            fragment=0x4000 if protocol == TCP or port % 2 else 0,
            source=source,
            port=port,
            protocol=protocol,
        )
        made.append(replace(plain, **{name: draw(KINDS[name]) for name in kinds}))  # type: ignore[arg-type]
    return made


@given(histories())
@settings(max_examples=150, deadline=None)
def test_any_packets_beside_the_slow_twin(segments: list[Segment]) -> None:
    check([s.packet() for s in segments])
