"""What comes out of the TUN, and what goes in: segmentation, coalescing, MSS.

Compiled code: the sanitizers watch for octets beside the packet; the checks here are of
lengths and of checksums.
"""

from __future__ import annotations

import contextlib
import socket

from fastpath import tun
from tests.fuzz.targets import Reader

_ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
_ours.setblocking(False)
_theirs.setblocking(False)


def drain() -> int:
    """Octets of packets that were written."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += len(_theirs.recv(70000)) - 10
    return total


def one(data: bytes) -> None:
    reader = Reader(data)
    mtu = 68 + reader.number(2) % 1533
    flags, gso_type, gso_size = reader.number(), reader.number(), reader.number(2)
    start, offset = reader.number(2), reader.number(2)
    packet = reader.block()
    times = reader.number()
    if packet and times & 0x80:  # a big one, as TCP segmentation offload gives them
        packet += packet[-1:] * min((times & 0x7F) * 256, 65535 - len(packet))
    with contextlib.suppress(ValueError):
        pieces = tun.segment(
            packet,
            mtu,
            flags=flags,
            gso_type=gso_type,
            gso_size=gso_size,
            csum_start=start,
            csum_offset=offset,
        )
        assert all(len(piece) <= mtu for piece in pieces)
        for piece in pieces:
            one_way_in([piece, piece])
    packets: list[bytes] = []
    while reader and len(packets) < 40:
        packets.append(reader.block())
    one_way_in([p for p in packets if len(p) >= 20])


def one_way_in(packets: list[bytes]) -> None:
    for packet in packets:
        if len(packet) >= 40:
            for mtu in (0, 576, 1400):
                assert len(tun.clamp(packet, mtu)) == len(packet)
    for way in ("plain", "io_uring"):
        tun.coalesce(packets, _ours.fileno(), writes=way)
        drain()
