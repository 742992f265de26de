"""The listening socket: PROTOCOL.md 1.1, last row."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from dispatcher.descriptors import listener
from ops.settings import Listen


def test_the_queue_of_connections_is_as_long_as_asked_for() -> None:
    """pptpd's was 3. TCP_INFO of a listening socket tells the queue's length in its sixth
    number; the kernel's own limit is net.core.somaxconn."""
    assert Listen().backlog >= 4096
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with listener("127.0.0.1", 0, Listen().backlog) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert struct.unpack_from("=I", info, 28)[0] == min(limit, Listen().backlog)
