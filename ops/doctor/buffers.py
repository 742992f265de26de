"""Socket buffers and queues that a burst of packets or of clients needs."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from dispatcher.descriptors import SO_RCVBUFFORCE
from ops.doctor.finding import Finding
from ops.doctor.host import Host

RMEM = "net.core.rmem_max"


def look(host: Host) -> Iterator[Finding]:
    """Receive buffers, the queue of TCP connections."""
    wanted = host.settings.gre.receive_buffer_bytes
    limit = host.number("net/core/rmem_max")
    if limit is not None and limit < wanted and not _forced(wanted):
        text = f"is {limit}, less than gre.receive_buffer_bytes {wanted}: bursts of GRE are lost"
        yield Finding("warning", RMEM, text, f"sysctl -w {RMEM}={wanted}")
    queue = host.number("net/core/somaxconn")
    backlog = host.settings.listen.backlog
    if queue is not None and queue < backlog:
        text = f"is {queue}, less than listen.backlog {backlog}: a storm of logins is cut"
        key = "net.core.somaxconn"
        yield Finding("warning", key, text, f"sysctl -w {key}={backlog}")


def _forced(octets: int) -> bool:
    """Whether we may have larger buffers than everybody (CAP_NET_ADMIN of the first namespace)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, octets)
        except OSError:
            return False
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= octets
