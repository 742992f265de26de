"""Many UDP datagrams in one system call: sendmmsg(2) and recvmmsg(2).

Python has neither, and a call for each datagram would make the generator dearer than what
it measures. The kernel's structures lie in one bytearray that is written with
`struct.pack_into`; ctypes only makes the call. Little-endian 64-bit hosts, as fastpath.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

MTU: Final = 2048  # room for a datagram
BATCH: Final = 256

# bits/types/struct_msghdr.h: name, its length, parts, their number, control, its length,
# flags; then struct mmsghdr's length of what was sent or received.
MMSGHDR: Final = struct.Struct("<QI4xQQQQi4xI4x")
CONTROL_LENGTH_AT: Final = 40
LENGTH_AT: Final = 56
IOVEC: Final = struct.Struct("<QQ")
IP_PKTINFO: Final = 8  # linux/in.h
# Interface, our address (of the route), address in the header.
PKTINFO: Final = struct.Struct("<QiiiII4x")
PKTINFO_LENGTH: Final = 28  # without the padding
SOURCE_AT: Final = 20
DESTINATION_AT: Final = 24
SOCKADDR: Final = struct.Struct("<HHI8x")
NUMBER: Final = struct.Struct("<I")
LONG: Final = struct.Struct("<Q")

# asm-generic/socket.h
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
MEMINFO_DROPS: Final = 8
_GONE: Final = (errno.EAGAIN, errno.EINTR)

_libc = ctypes.CDLL(None, use_errno=True)
for _call in (_libc.sendmmsg, _libc.recvmmsg):
    _call.restype = ctypes.c_int
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_libc.recvmmsg.argtypes = (*_libc.sendmmsg.argtypes, ctypes.c_void_p)


def network_order(address: str) -> int:
    """An IPv4 address as the number that the kernel's structures hold on this host."""
    return int.from_bytes(socket.inet_aton(address), "little")


def widen(sock: socket.socket, octets: int) -> None:
    """Larger buffers than net.core.[rw]mem_max lets everybody have; root may."""
    for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, octets)
        except PermissionError:
            plain = socket.SO_RCVBUF if option == SO_RCVBUFFORCE else socket.SO_SNDBUF
            sock.setsockopt(socket.SOL_SOCKET, plain, octets)


def overflows(sock: socket.socket) -> int:
    """Datagrams the kernel dropped because this socket's buffer was full."""
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    return int(NUMBER.unpack_from(info, 4 * MEMINFO_DROPS)[0])


class Batch:
    """Room for BATCH datagrams with an address and one control message each.

    `data` holds the payloads, datagram i from `i * MTU` on; `parts` their lengths (`length`),
    `control` the packet information. One that has received sends answers only (`keep`).
    """

    def __init__(self, *, packet_info: bool) -> None:
        """`packet_info`: which of our addresses a datagram has; else that is not asked."""
        self.data = bytearray(BATCH * MTU)
        self._names = bytearray(BATCH * SOCKADDR.size)
        self._parts = bytearray(BATCH * IOVEC.size)
        self.control = bytearray(BATCH * PKTINFO.size)
        self.headers = bytearray(BATCH * MMSGHDR.size)
        base = [self._address(b) for b in (self.data, self._names, self._parts, self.control)]
        for i in range(BATCH):
            IOVEC.pack_into(self._parts, i * IOVEC.size, base[0] + i * MTU, MTU)
            MMSGHDR.pack_into(
                *(self.headers, i * MMSGHDR.size, base[1] + i * SOCKADDR.size, SOCKADDR.size),
                *(base[2] + i * IOVEC.size, 1),
                base[3] + i * PKTINFO.size if packet_info else 0,
                *(PKTINFO.size if packet_info else 0, 0, 0),
            )
            PKTINFO.pack_into(
                *(self.control, i * PKTINFO.size, PKTINFO_LENGTH),
                *(socket.IPPROTO_IP, IP_PKTINFO, 0, 0, 0),
            )
        self._at = self._address(self.headers)
        self._fresh = bytes(self.headers), bytes(self._parts)  # the kernel writes into them
        self._packet_info = packet_info

    @staticmethod
    def _address(memory: bytearray) -> int:
        return ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))

    def address(self, target: tuple[str, int]) -> None:
        """All datagrams go there."""
        name = SOCKADDR.pack(socket.AF_INET, socket.htons(target[1]), network_order(target[0]))
        self._names[:] = name * BATCH

    def put(self, i: int, length: int, source: int) -> None:
        """Datagram i has this length and comes from this address of ours."""
        LONG.pack_into(self._parts, i * IOVEC.size + 8, length)
        NUMBER.pack_into(self.control, i * PKTINFO.size + SOURCE_AT, source)

    def keep(self, i: int) -> int:
        """Datagram i, as received, is to be sent back: its length."""
        length = self.length(i)
        LONG.pack_into(self._parts, i * IOVEC.size + 8, length)
        return length

    def length(self, i: int) -> int:
        """How long the received datagram i is."""
        return int(NUMBER.unpack_from(self.headers, i * MMSGHDR.size + LENGTH_AT)[0])

    def destination(self, i: int) -> int:
        """Which of our addresses the received datagram i was sent to."""
        return int(NUMBER.unpack_from(self.control, i * PKTINFO.size + DESTINATION_AT)[0])

    def send(self, sock: socket.socket, first: int, end: int) -> int:
        """Send datagrams `first` to `end`, this one left out: the first that was not sent."""
        while first < end:
            at = self._at + first * MMSGHDR.size
            sent = int(_libc.sendmmsg(sock.fileno(), at, end - first, socket.MSG_DONTWAIT))
            if sent <= 0:
                return first
            first += sent
        return end

    def receive(self, sock: socket.socket) -> int:
        """Take what is there, at most BATCH; 0 if nothing is."""
        self.headers[:], self._parts[:] = self._fresh
        taken = int(_libc.recvmmsg(sock.fileno(), self._at, BATCH, socket.MSG_DONTWAIT, None))
        if taken < 0:
            code = ctypes.get_errno()
            # An ICMP error about an earlier datagram: it is that one's, and it is gone now.
            if code in _GONE or code in (errno.ECONNREFUSED, errno.EHOSTUNREACH):
                return 0
            raise OSError(code, os.strerror(code))
        return taken
