"""Drops of the kernel, as a worker counts them."""

from __future__ import annotations

import os
import socket

from fastpath.layout import Table
from workers.kernel_drops import RECEIVE, TRANSMIT, KernelDrops, device_drops, socket_drops

DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:  100       1    0    0    0     0          0         0      100       1    0    3    0
 pptp0:12345      67    0    1    0     0          0         0     8910      11    0   42    0
"""


def test_the_devices_column() -> None:
    assert device_drops(DEVICES, "pptp0") == 42
    assert device_drops(DEVICES, "pptp1") == 0
    assert device_drops("pptp0: 1 2", "pptp0") == 0


def test_an_overflowing_socket_is_counted_once() -> None:
    fd = os.memfd_create("table")
    table = Table.create(fd, 4, 1, 7)
    os.close(fd)
    receive = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receive.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receive.bind(("127.0.0.1", 0))
    with receive, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as send:
        for _ in range(100):
            send.sendto(bytes(1000), receive.getsockname())
        lost = socket_drops(receive)
        assert 50 < lost < 100
        devices = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
        drops = KernelDrops(table, 0, receive.fileno(), "none0", devices)
        assert drops.look() == lost
        assert drops.look() == 0
        # A successor goes on with the same sums.
        assert KernelDrops(table, 0, receive.fileno(), "none0", devices).look() == 0
        counters = table.control_counters(0)
        assert (counters[RECEIVE], counters[TRANSMIT]) == (lost, 0)
