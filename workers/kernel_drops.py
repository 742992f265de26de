"""Packets the kernel dropped before we saw them: at the GRE socket, the AF_XDP rings and in the
TUN's queue.

Both figures are the kernel's own sums since the descriptors were opened, which is when the
shared table was made; so what a dead predecessor did not see is made up for.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from fastpath.layout import Table
from ops.metrics import CONTROL_COUNTERS

AF_XDP: Final = 44  # linux/if_xdp.h, linux/socket.h
SOL_XDP: Final = 283
XDP_STATISTICS: Final = 7
XDP_STATISTICS_SIZE: Final = 48
SO_MEMINFO: Final = 55  # asm-generic/socket.h
MEMINFO_DROPS: Final = 8  # linux/sock_diag.h, SK_MEMINFO_DROPS: the ninth word
MEMINFO_SIZE: Final = 36
WORD: Final = 1 << 32
RECEIVE: Final = CONTROL_COUNTERS.index("kernel_drops_receive")
TRANSMIT: Final = CONTROL_COUNTERS.index("kernel_drops_transmit")
READ: Final = 65536
TX_DROPPED: Final = 11  # word of a device's line in /proc/net/dev, after its name


def socket_drops(sock: socket.socket) -> int:
    """Packets that found no room in the receive buffer (32 bit, wraps)."""
    info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_SIZE)
    return int.from_bytes(info[4 * MEMINFO_DROPS : 4 * MEMINFO_DROPS + 4], "little")


def ring_drops(sock: socket.socket) -> int:
    """Packets that found no room in an AF_XDP socket's rings (linux/if_xdp.h)."""
    try:
        found = sock.getsockopt(SOL_XDP, XDP_STATISTICS, XDP_STATISTICS_SIZE)
    except OSError:
        return 0
    dropped, _, _, full = struct.unpack_from("=4Q", found.ljust(32, b"\0"))
    return int(dropped + full)


def device_drops(text: str, name: str) -> int:
    """Packets that found no room in a TUN's queue, from the text of /proc/net/dev."""
    for line in text.splitlines():
        device, _, words = line.partition(":")
        if device.strip() == name:
            figures = words.split()
            return int(figures[TX_DROPPED]) if len(figures) > TX_DROPPED else 0
    return 0


def _whole(fd: int) -> bytes:
    """A file of /proc from its beginning."""
    found = b""
    while piece := os.pread(fd, READ, len(found)):
        found += piece
    return found


class KernelDrops:
    """Both sums of one worker, kept in its counters."""

    def __init__(
        self,
        table: Table,
        worker: int,
        gre_fd: int,
        tun: str,
        devices: int,
        rings: Sequence[int] = (),
    ) -> None:
        """`devices`: /proc/net/dev of the TUN's namespace."""
        self._table = table
        self._worker = worker
        self._gre = socket.socket(fileno=os.dup(gre_fd))
        self._rings = [socket.socket(AF_XDP, socket.SOCK_RAW, 0, os.dup(fd)) for fd in rings]
        self._tun = tun
        self._devices = devices

    def look(self) -> int:
        """Count what was added; returns how many GRE sockets and rings lost since the last look."""
        counters = self._table.control_counters(self._worker)
        drops = socket_drops(self._gre) + sum(map(ring_drops, self._rings))
        lost = (drops - counters[RECEIVE]) % WORD
        if lost:
            self._table.control_count(self._worker, RECEIVE, lost)
        try:
            text = _whole(self._devices).decode("ascii", "replace")
        except OSError:
            return lost
        more = device_drops(text, self._tun) - counters[TRANSMIT]
        if more > 0:
            self._table.control_count(self._worker, TRANSMIT, more)
        return lost
