"""What the client asks of the kernel: a TUN device and call IDs; GRE is in gre.py.

Everything is in the caller's network namespace and goes with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import struct
from dataclasses import dataclass
from typing import Final

# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
OFFLOADS: Final = 0x01 | 0x02 | 0x04  # checksums, TSO for IPv4 and IPv6
OFFLOADS_UDP: Final = 0x20 | 0x40  # USO, since Linux 6.2
VNET_HEADER: Final = 10

JGT_K: Final = 0x25  # linux/bpf_common.h
JGE_K: Final = 0x35
SOCKET_BUFFER: Final = 16 << 20

CALL_BLOCK: Final = 64  # call IDs are claimed by blocks
CALL_BLOCKS: Final = 1024


class SocketError(Exception):
    """The kernel refused a device or a socket; says which, and the remedy if there is one."""


@dataclass(frozen=True, slots=True)
class Tun:
    """A TUN device with the virtio header, so that bulk TCP comes in super-packets."""

    fd: int
    name: str
    ifindex: int


def open_tun(name: str) -> Tun:
    """Make the device; `name` may hold %d for the kernel to number."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        raise SocketError(f"/dev/net/tun: {e.strerror}: root and `modprobe tun` needed") from None
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
        try:
            answer = fcntl.ioctl(fd, TUNSETIFF, request)
        except OSError as e:
            raise SocketError(f"TUN device {name}: {e.strerror}: is the name taken?") from None
        real = answer[:16].rstrip(b"\0").decode()
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS | OFFLOADS_UDP)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise SocketError(f"TUN device {real}: TUNSETOFFLOAD: {e.strerror}") from None
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
        return Tun(fd, real, socket.if_nametoindex(real))
    except BaseException:
        os.close(fd)
        raise


class CallIds:
    """A contiguous range of call IDs that no other client of this network namespace uses.

    GRE says nothing about the process it is meant for: two clients of one namespace must
    not share a call ID. An abstract Unix socket's name belongs to the network namespace
    and vanishes with its process, which makes it a claim that can't go stale.
    """

    def __init__(self, count: int, rng: random.Random, first: int | None = None) -> None:
        """`first`: these and no others, whoever else may use them."""
        self._claims: list[socket.socket] = []
        if first is not None:
            self.first, self.last = first, first + count - 1
            return
        need = max(1, -(-count // CALL_BLOCK))
        if need >= CALL_BLOCKS:
            most = (CALL_BLOCKS - 1) * CALL_BLOCK
            raise SocketError(f"{count} sessions in one client: at most {most} (call IDs)")
        starts = list(range(1, CALL_BLOCKS - need + 1))  # block 0 holds call ID 0: left out
        rng.shuffle(starts)
        for start in starts[:64]:
            claims = self._claim(start, need)
            if claims:
                self._claims = claims
                self.first = start * CALL_BLOCK
                self.last = (start + need) * CALL_BLOCK - 1
                return
        raise SocketError(f"no {need * CALL_BLOCK} call IDs in a row are free in this namespace")

    @staticmethod
    def _claim(start: int, need: int) -> list[socket.socket]:
        claims: list[socket.socket] = []
        for block in range(start, start + need):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            claims.append(claim)
            try:
                claim.bind(f"\0pptpcon-client-calls-{block}")
            except OSError:
                for one in claims:
                    one.close()
                return []
        return claims

    def close(self) -> None:
        """Give the range back."""
        for claim in self._claims:
            claim.close()
