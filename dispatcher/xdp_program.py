"""The XDP program that hands GRE of our sessions to their worker. Values only, no kernel.

It takes what a data thread has entered into the map of calls: enhanced GRE (RFC 2637
section 4.1) of a known call ID from that call's peer to our address, in a plain IPv4 frame
to this device, whole and without IP options, small enough for a frame of the ring. All
else passes on to the kernel, and so to the packet sockets. Nothing is ever dropped here.
"""

from __future__ import annotations

from struct import unpack
from typing import Final

from dispatcher.bpf import Instruction

# linux/bpf_common.h, linux/bpf.h
LDX_W, LDX_H, LDX_B = 0x61, 0x69, 0x71
LD_IMM64: Final = 0x18
STX_W: Final = 0x63
MOV_X, MOV_K, ADD_X, ADD_K, MUL_K, AND_K = 0xBF, 0xB7, 0x0F, 0x07, 0x27, 0x57
TO_BE: Final = 0xDC
JGT_X, JLE_X, JEQ_K, JNE_X = 0x2D, 0xBD, 0x15, 0x5D
JNE32_K: Final = 0x56
CALL, EXIT = 0x85, 0x95
MAP_FD: Final = 1  # source of LD_IMM64
LOOKUP, REDIRECT_MAP = 1, 51  # helpers
XDP_PASS: Final = 2
R0, R1, R2, R3, R4, R6, R7, R10 = 0, 1, 2, 3, 4, 6, 7, 10
DATA, DATA_END, RX_QUEUE = 0, 4, 16  # struct xdp_md

# An entry of the map of calls (fastpath/xdp.pxd), at the call ID
ENTRY_SIZE: Final = 16
ENTRY_PEER, ENTRY_HERE, ENTRY_WORKER = 0, 4, 8
CALLS: Final = 65536

HEADERS: Final = 42  # Ethernet, IPv4 and GRE up to the call ID
FRAME_ROOM: Final = 2048 - 256  # of a ring's frame; the kernel keeps the rest free before it


def _little(octets: bytes) -> int:
    """The octets as a 32 bit load sees them, as a signed operand."""
    return int(unpack("=i", octets)[0])


def take(mac: bytes, calls_fd: int, sockets_fd: int, workers: int) -> tuple[Instruction, ...]:
    """The program of one device with this hardware address.

    `sockets_fd`: a map with the socket of queue * workers + worker.
    """
    steps: list[Instruction] = []
    passes: list[int] = []  # jumps to the end

    def add(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> None:
        steps.append(Instruction(code, to, source, offset, value))

    def leave_unless(code: int, to: int = 0, source: int = 0, value: int = 0) -> None:
        passes.append(len(steps))
        add(code, to, source, 0, value)

    def differs(size: int, at: int, value: int) -> None:
        """Pass on unless the frame has this there."""
        add(size, R0, R7, at)
        leave_unless(JNE32_K, R0, value=value)

    add(MOV_X, R6, R1)
    add(LDX_W, R7, R6, DATA)
    add(LDX_W, R3, R6, DATA_END)
    add(MOV_X, R4, R7)
    add(ADD_K, R4, value=HEADERS)
    leave_unless(JGT_X, R4, R3)
    add(MOV_X, R4, R7)
    add(ADD_K, R4, value=FRAME_ROOM + 1)
    leave_unless(JLE_X, R4, R3)
    differs(LDX_W, 0, _little(mac[:4]))
    differs(LDX_H, 4, int(unpack("=H", mac[4:])[0]))
    differs(LDX_H, 12, 0x0008)  # IPv4
    differs(LDX_B, 14, 0x45)  # no options
    add(LDX_H, R0, R7, 20)
    add(AND_K, R0, value=0xFF3F)
    leave_unless(JNE32_K, R0, value=0)  # whole: neither more fragments nor an offset
    differs(LDX_B, 23, 47)
    add(LDX_W, R0, R7, 34)
    add(AND_K, R0, value=_little(b"\0\x07\xff\xff"))
    leave_unless(JNE32_K, R0, value=_little(b"\0\x01\x88\x0b"))
    add(LDX_H, R0, R7, 40)
    add(TO_BE, R0, value=16)
    add(STX_W, R10, R0, -4)
    add(MOV_X, R2, R10)
    add(ADD_K, R2, value=-4)
    add(LD_IMM64, R1, MAP_FD, value=calls_fd)
    add(0)
    add(CALL, value=LOOKUP)
    leave_unless(JEQ_K, R0, value=0)
    for entry, at in ((ENTRY_PEER, 26), (ENTRY_HERE, 30)):
        add(LDX_W, R1, R0, entry)
        leave_unless(JEQ_K, R1, value=0)  # no such call
        add(LDX_W, R2, R7, at)
        leave_unless(JNE_X, R1, R2)
    add(LDX_W, R2, R6, RX_QUEUE)
    add(MUL_K, R2, value=workers)
    add(LDX_W, R1, R0, ENTRY_WORKER)
    add(ADD_X, R2, R1)
    add(MOV_K, R3, value=XDP_PASS)  # where there is no such socket
    add(LD_IMM64, R1, MAP_FD, value=sockets_fd)
    add(0)
    add(CALL, value=REDIRECT_MAP)
    add(EXIT)
    end = len(steps)
    add(MOV_K, R0, value=XDP_PASS)
    add(EXIT)
    for at in passes:
        steps[at] = steps[at]._replace(offset=end - at - 1)
    return tuple(steps)
