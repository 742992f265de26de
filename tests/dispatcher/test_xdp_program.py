"""The XDP program against a description of it in Python, on an interpreter of its steps."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import bpf, xdp_program
from dispatcher.bpf import Instruction

MAC = bytes.fromhex("02a1b2c3d4e5")
PEER, HERE = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
CALL, WORKER, WORKERS = 0x8123, 1, 3
CALLS_FD, SOCKETS_FD = 5, 6
PASS = 2
MASK = (1 << 64) - 1
ENTRY = 1 << 20  # where the interpreter keeps the map's entry
STACK = 1 << 30


def execute(program: Sequence[Instruction], frame: bytes, queue: int) -> tuple[str, int]:
    """("pass", 0), or ("socket", its key). A load outside of the frame is an error."""
    memory = {"entry": bytes(16)}
    stack: dict[int, int] = {}
    register = [0] * 11
    register[10] = STACK
    at = 0

    def load(address: int, size: int) -> int:
        if address >= ENTRY:
            data, offset = memory["entry"], address - ENTRY
        else:
            data, offset = frame, address - 4096
        assert offset >= 0 and offset + size <= len(data), "outside of what was checked"
        return int.from_bytes(data[offset : offset + size], "little")

    context = {0: 4096, 4: 4096 + len(frame), 16: queue}
    register[1] = -1
    while True:
        code, to, source, offset, value = program[at]
        at += 1
        if code in (0x61, 0x69, 0x71):
            if register[source] == -1:
                register[to] = context[offset]
            else:
                register[to] = load(register[source] + offset, {0x61: 4, 0x69: 2, 0x71: 1}[code])
        elif code == 0x63:
            stack[register[to] + offset] = register[source]
        elif code == 0xBF:
            register[to] = register[source]
        elif code == 0xB7:
            register[to] = value & MASK
        elif code == 0x0F:
            register[to] += register[source]
        elif code == 0x07:
            register[to] = register[to] + value
        elif code == 0x27:
            register[to] *= value
        elif code == 0x57:
            register[to] &= value & MASK
        elif code == 0xDC:
            register[to] = int.from_bytes((register[to] & 0xFFFF).to_bytes(2, "little"), "big")
        elif code == 0x18:
            register[to] = value
            at += 1
        elif code in (0x2D, 0xBD, 0x15, 0x5D, 0x56):
            a, b = register[to], value if code in (0x15, 0x56) else register[source]
            holds = {
                0x2D: a > b,
                0xBD: a <= b,
                0x15: a == b,
                0x5D: a != b,
                0x56: a & 0xFFFFFFFF != b & 0xFFFFFFFF,
            }[code]
            at += offset if holds else 0
        elif code == 0x85 and value == xdp_program.LOOKUP:
            key = stack[register[2]]
            assert register[1] == CALLS_FD
            known = struct.pack("=4s4sII", PEER, HERE, WORKER, 0)
            memory["entry"] = known if key == CALL else bytes(16)
            register[0] = ENTRY
            register[1:6] = [-7] * 5  # a helper leaves nothing in them
        elif code == 0x85:
            assert register[1] == SOCKETS_FD and register[3] == PASS
            return "socket", register[2]
        else:
            assert code == 0x95 and register[0] == PASS
            return "pass", 0


def wanted(frame: bytes) -> bool:
    """What the program is to take, in the words of its description."""
    if not 42 <= len(frame) <= xdp_program.FRAME_ROOM:
        return False
    ip, gre = frame[14:34], frame[34:]
    return (
        frame[:6] == MAC
        and frame[12:14] == b"\x08\x00"
        and ip[0] == 0x45
        and int.from_bytes(ip[6:8], "big") & 0x3FFF == 0
        and ip[9] == 47
        and (ip[12:16], ip[16:20]) == (PEER, HERE)
        and gre[1] & 7 == 1
        and gre[2:4] == b"\x88\x0b"
        and int.from_bytes(gre[6:8], "big") == CALL
    )


def frame(size: int = 100) -> bytearray:
    """One that is taken."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 1, 0x4000, 64, 47, 0, PEER, HERE)
    gre = struct.pack(">BBHHHI", 0x30, 0x81, 0x880B, 4, CALL, 1)
    return bytearray((MAC + bytes(6) + b"\x08\x00" + ip + gre + bytes(size))[:size])


@pytest.fixture(scope="module")
def program() -> tuple[Instruction, ...]:
    return xdp_program.take(MAC, CALLS_FD, SOCKETS_FD, WORKERS)


def test_a_packet_of_a_session_goes_to_its_worker(program: tuple[Instruction, ...]) -> None:
    assert execute(program, bytes(frame()), 4) == ("socket", 4 * WORKERS + WORKER)


@pytest.mark.parametrize("size", [41, 42, 1792, 1793])
def test_sizes(program: tuple[Instruction, ...], size: int) -> None:
    taken = execute(program, bytes(frame(size)), 0)[0] == "socket"
    assert taken == wanted(bytes(frame(size))) == (42 <= size <= 1792)


@given(
    changes=st.lists(st.tuples(st.integers(0, 45), st.integers(0, 255)), max_size=3),
    size=st.integers(0, 60),
)
def test_as_described(changes: list[tuple[int, int]], size: int) -> None:
    data = frame(60)
    for at, octet in changes:
        data[at] = octet
    code = xdp_program.take(MAC, CALLS_FD, SOCKETS_FD, WORKERS)
    for octets in (bytes(data), bytes(data[:size])):
        assert (execute(code, octets, 0)[0] == "socket") == wanted(octets)


def test_a_source_of_zeros_is_nobodys(program: tuple[Instruction, ...]) -> None:
    data = frame()
    data[26:34] = bytes(8)
    data[40:42] = b"\x00\x07"  # a call that is not there: its entry is all zeros
    assert execute(program, bytes(data), 0) == ("pass", 0)


def test_an_instruction_in_octets() -> None:
    assert bpf.pack([Instruction(0x61, 7, 6, 4, 0)]).hex() == "6167040000000000"
    assert bpf.pack([Instruction(0xB7, 0, 0, 0, 2)]).hex() == "b700000002000000"
