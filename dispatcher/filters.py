"""Classic BPF programs that choose which GRE packets a worker gets. Values only, no socket.

Enhanced GRE, RFC 2637 section 4.1: version 1 in the low three bits of the second octet,
protocol type 0x880b, the call ID in octets 6 and 7. All programs see the packet from its
IP header on, as AF_PACKET SOCK_DGRAM and raw sockets both give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

# linux/bpf_common.h and linux/filter.h
LD_W_ABS: Final = 0x20
LD_H_ABS: Final = 0x28
LD_B_ABS: Final = 0x30
LD_H_IND: Final = 0x48
LD_B_IND: Final = 0x50
LDX_B_MSH: Final = 0xB1  # x = 4 * (octet & 15): the length of the IP header
ALU_AND_K: Final = 0x54
ALU_MOD_K: Final = 0x94
JEQ_K: Final = 0x15
JSET_K: Final = 0x45
RET_K: Final = 0x06
RET_A: Final = 0x16
AD_OFF: Final = 0xFFFFF000
AD_PKTTYPE: Final = AD_OFF + 4
AD_IFINDEX: Final = AD_OFF + 8

PACKET_HOST: Final = 0
PROTOCOL_GRE: Final = 47
GRE_PPP: Final = 0x880B
BUCKET_MASK: Final = 63  # ARCHITECTURE.md, "Call IDs and buckets"
WHOLE: Final = 0xFFFFFFFF
MAX_TUNS: Final = 64

INSTRUCTION: Final = Struct("=HBBI")


class Instruction(NamedTuple):
    """One step; jt and jf count the steps to skip."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]

NOTHING: Final[Program] = (Instruction(RET_K, 0, 0, 0),)


def _load(code: int, k: int) -> tuple[int, bool | None, int]:
    return code, None, k


def accept(
    own_tuns: Sequence[int],
    *,
    address: int = 0,
    bucket: tuple[int, int] | None = None,
) -> Program:
    """Take whole enhanced GRE packets addressed to this host; nothing else.

    What came out of our own TUNs (`own_tuns`: their interface indexes) is a subscriber's
    tunnel inside a tunnel and is left to the kernel. `address`: only packets to this
    host-order address, 0 for any. `bucket` (worker, workers): only that worker's calls.
    """
    if len(own_tuns) > MAX_TUNS:
        raise ValueError(f"{len(own_tuns)} TUNs, at most {MAX_TUNS}")
    # (code, what a comparison must say for the packet to go on, operand)
    steps = [_load(LD_W_ABS, AD_PKTTYPE), (JEQ_K, True, PACKET_HOST)]
    if own_tuns:
        steps.append(_load(LD_W_ABS, AD_IFINDEX))
        steps += [(JEQ_K, False, index) for index in own_tuns]
    steps += [_load(LD_B_ABS, 9), (JEQ_K, True, PROTOCOL_GRE)]
    if address:
        steps += [_load(LD_W_ABS, 16), (JEQ_K, True, address)]
    # A later fragment has no GRE header; reassembled packets come as whole ones.
    steps += [_load(LD_H_ABS, 6), (JSET_K, False, 0x1FFF), _load(LDX_B_MSH, 0)]
    steps += [_load(LD_B_IND, 1), _load(ALU_AND_K, 7), (JEQ_K, True, 1)]
    steps += [_load(LD_H_IND, 2), (JEQ_K, True, GRE_PPP)]
    if bucket is not None:
        worker, workers = bucket
        steps += [_load(LD_H_IND, 6), _load(ALU_AND_K, BUCKET_MASK)]
        steps += [_load(ALU_MOD_K, workers), (JEQ_K, True, worker)]
    program = []
    for at, (code, wanted, k) in enumerate(steps):
        drop = len(steps) - at  # distance to the last instruction, "ret 0"
        jt, jf = (0, 0) if wanted is None else (0, drop) if wanted else (drop, 0)
        program.append(Instruction(code, jt, jf, k))
    program.append(Instruction(RET_K, 0, 0, WHOLE))
    program.append(Instruction(RET_K, 0, 0, 0))
    return tuple(program)


def spread(workers: int) -> Program:
    """Fanout program: the number of the worker whose bucket the call ID falls into."""
    return (
        Instruction(LDX_B_MSH, 0, 0, 0),
        Instruction(LD_H_IND, 0, 0, 6),
        Instruction(ALU_AND_K, 0, 0, BUCKET_MASK),
        Instruction(ALU_MOD_K, 0, 0, workers),
        Instruction(RET_A, 0, 0, 0),
    )


def pack(program: Program) -> bytes:
    """The program as an array of struct sock_filter."""
    return b"".join(INSTRUCTION.pack(*step) for step in program)
