"""Call ID claims and the filter of the GRE socket, against a plain reading of the RFC."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.filters import Instruction
from ops.client.gre import gre_filter, packet_filter
from ops.client.sockets import CALL_BLOCK, CallIds, SocketError


def run(program: Sequence[Instruction], packet: bytes, kind: int = 0) -> int:
    """Classic BPF of the instructions in use, as the kernel runs it."""
    a = x = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0xB1:
            x = 4 * (packet[k] & 0xF)
        elif code == 0x48:
            if x + k + 2 > len(packet):
                return 0
            a = int.from_bytes(packet[x + k : x + k + 2])
        elif code == 0x20:
            assert k == 0xFFFFF004  # the packet's type
            a = kind
        elif code in (0x28, 0x30):
            size = 2 if code == 0x28 else 1
            if k + size > len(packet):
                return 0
            a = int.from_bytes(packet[k : k + size])
        elif code == 0x54:
            a &= k
        else:
            hit = {0x15: a == k, 0x35: a >= k, 0x25: a > k, 0x45: bool(a & k)}[code]
            at += yes if hit else no


@given(
    options=st.integers(0, 10),
    flags=st.sampled_from([0x2081, 0x3001, 0x3081, 0x2000, 0x0000, 0x3002]),
    protocol=st.sampled_from([0x880B, 0x0800, 0x880C]),
    call_id=st.sampled_from([0, 127, 128, 200, 255, 256, 65535]),
    cut=st.integers(0, 16),
)
def test_filter_takes_our_calls_only(
    options: int, flags: int, protocol: int, call_id: int, cut: int
) -> None:
    header = bytes([0x45 + options]) + bytes(19 + 4 * options)
    gre = flags.to_bytes(2) + protocol.to_bytes(2) + bytes(2) + call_id.to_bytes(2) + bytes(8)
    packet = header + gre[:cut]
    ours = cut >= 8 and flags & 7 == 1 and protocol == 0x880B and 128 <= call_id <= 255
    assert bool(run(gre_filter(128, 255), packet)) == ours


@given(
    kind=st.sampled_from([0, 1, 3, 4]),
    protocol=st.sampled_from([47, 6, 17]),
    fragment=st.sampled_from([0, 0x4000, 0x2000, 0x0001, 0x1FFF]),
    call_id=st.sampled_from([127, 128, 255, 256]),
)
def test_packet_filter_takes_whole_ones_to_us(
    kind: int, protocol: int, fragment: int, call_id: int
) -> None:
    header = bytes([0x45]) + bytes(5) + fragment.to_bytes(2) + bytes([64, protocol]) + bytes(10)
    packet = header + bytes.fromhex("3001880b0000") + call_id.to_bytes(2) + bytes(8)
    ours = kind == 0 and protocol == 47 and not fragment & 0x1FFF and 128 <= call_id <= 255
    assert bool(run(packet_filter(128, 255), packet, kind)) == ours


def test_claims_do_not_overlap_and_come_back() -> None:
    first = CallIds(100, random.Random(1))
    try:
        assert first.first >= CALL_BLOCK
        assert first.last - first.first + 1 == 2 * CALL_BLOCK
        second = CallIds(100, random.Random(1))  # wants the same place
        try:
            assert second.last < first.first or second.first > first.last
        finally:
            second.close()
    finally:
        first.close()
    again = CallIds(100, random.Random(1))
    again.close()
    assert (again.first, again.last) == (first.first, first.last)


def test_more_calls_than_there_are() -> None:
    with pytest.raises(SocketError, match="at most 65472"):
        CallIds(65473, random.Random(1))
