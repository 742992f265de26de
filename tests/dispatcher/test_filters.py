"""BPF programs on a slow, obvious twin of the kernel's interpreter."""

from __future__ import annotations

from struct import pack, unpack_from

from hypothesis import given
from hypothesis import strategies as st

from dispatcher import filters
from dispatcher.filters import Program


def run(program: Program, packet: bytes, *, kind: int = 0, ifindex: int = 7) -> int:
    """What the kernel returns: loads beyond the packet end the program with 0."""
    a = x = at = 0

    def load(form: str, offset: int, size: int) -> int | None:
        if offset + size > len(packet):
            return None
        value: int = unpack_from(form, packet, offset)[0]
        return value

    while True:
        code, jt, jf, k = program[at]
        at += 1
        value: int | None = 0
        if code == filters.RET_K:
            return k
        if code == filters.RET_A:
            return a
        if code == filters.LD_W_ABS and k == filters.AD_PKTTYPE:
            value = a = kind
        elif code == filters.LD_W_ABS and k == filters.AD_IFINDEX:
            value = a = ifindex
        elif code in (filters.LD_W_ABS, filters.LD_H_ABS, filters.LD_B_ABS):
            form = {filters.LD_W_ABS: ">L", filters.LD_H_ABS: ">H", filters.LD_B_ABS: ">B"}[code]
            value = load(form, k, {">L": 4, ">H": 2, ">B": 1}[form])
            a = value or 0
        elif code == filters.LD_H_IND:
            value = load(">H", x + k, 2)
            a = value or 0
        elif code == filters.LD_B_IND:
            value = load(">B", x + k, 1)
            a = value or 0
        elif code == filters.LDX_B_MSH:
            value = load(">B", k, 1)
            x = 4 * ((value or 0) & 15)
        elif code == filters.ALU_AND_K:
            a &= k
        elif code == filters.ALU_MOD_K:
            a %= k
        elif code == filters.JEQ_K:
            at += jt if a == k else jf
        elif code == filters.JSET_K:
            at += jt if a & k else jf
        else:
            raise AssertionError(hex(code))
        if value is None:
            return 0


def packet(
    call_id: int,
    *,
    options: int = 0,
    protocol: int = 47,
    fragment: int = 0,
    version: int = 0x01,
    kind: int = 0x880B,
    to: int = 0xC0000202,
) -> bytes:
    header = pack(
        ">BBHHHBBHLL", 0x45 + options, 0, 40, 1, fragment, 64, protocol, 0, 0xC0000201, to
    )
    return header + bytes(4 * options) + pack(">BBHHHL", 0x30, version, kind, 0, call_id, 1)


def test_takes_enhanced_gre() -> None:
    program = filters.accept([2, 3])
    assert run(program, packet(5)) == filters.WHOLE
    assert run(program, packet(5, options=10)) == filters.WHOLE
    assert run(program, packet(5, version=0x81)) == filters.WHOLE  # A bit: with an ack
    assert run(program, packet(5, fragment=0x4000)) == filters.WHOLE  # DF


def test_leaves_all_else() -> None:
    program = filters.accept([2, 3])
    for bad in (
        packet(5, protocol=6),
        packet(5, fragment=0x0001),
        packet(5, version=0x00),
        packet(5, version=0x02),
        packet(5, kind=0x0800),
        packet(5)[:23],
        b"",
    ):
        assert run(program, bad) == 0
    assert run(program, packet(5), kind=3) == 0  # another host's
    assert run(program, packet(5), ifindex=3) == 0  # our own TUN


def test_one_address() -> None:
    program = filters.accept([], address=0xC0000202)
    assert run(program, packet(5)) == filters.WHOLE
    assert run(program, packet(5, to=0xC0000203)) == 0


@given(st.integers(0, 65535), st.integers(1, 64), st.integers(0, 10))
def test_both_modes_follow_the_bucket_rule(call_id: int, workers: int, options: int) -> None:
    worker = (call_id & 63) % workers
    data = packet(call_id, options=options)
    assert run(filters.spread(workers), data) == worker
    taken = [
        w
        for w in range(workers)
        if run(filters.accept([], bucket=(w, workers)), data) == filters.WHOLE
    ]
    assert taken == [worker]


@given(st.binary(max_size=80))
def test_any_octets_end(data: bytes) -> None:
    assert run(filters.accept([1]), data) in (0, filters.WHOLE)
    assert 0 <= run(filters.spread(5), data) < 5


def test_as_many_tuns_as_there_can_be() -> None:
    program = filters.accept(range(1, 65), address=1, bucket=(63, 64))
    assert all(step.jt < 256 and step.jf < 256 for step in program)
    assert len(filters.pack(program)) == 8 * len(program)
