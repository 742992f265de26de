"""The TCP side of control connections: accept without blocking, send without blocking."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections import deque
from collections.abc import Iterator
from typing import Final

from dispatcher.calls import Control

MAX_QUEUED: Final = 65536  # octets that a client does not read before it is given up
KERNEL_BUFFER: Final = 16384  # octets, each way
RECEIVE: Final = 8192  # octets read at once: 48 of the longest messages
ACCEPT_BATCH: Final = 64
RESERVED_DESCRIPTORS: Final = 1000


class ControlSocket:
    """One TCP connection. Messages are written one at a time: one message, one segment."""

    __slots__ = (
        "_queue",
        "_queued",
        "closing_at",
        "control",
        "held",
        "noted",
        "opened",
        "scheduled",
        "sock",
        "started",
        "watched",
    )

    def __init__(self, sock: socket.socket, control: Control, opened: float) -> None:
        self.sock = sock
        self.control = control
        self.opened = opened
        self.scheduled: float | None = None  # its entry in the timer heap
        self.closing_at: float | None = None  # our side is shut; until when the peer may take
        self.started = False  # Start-Control-Connection-Request was accepted
        self.held = False  # the vault has it
        self.noted = (b"", b"")  # what the vault knows of its octets
        self.watched = False  # epoll tells when it can be written
        self._queue: deque[bytes] = deque()
        self._queued = 0

    def send(self, data: bytes) -> bool:
        """Send or queue; False: the connection is broken, or its peer reads nothing."""
        self._queue.append(data)
        self._queued += len(data)
        return self.flush() and self._queued <= MAX_QUEUED

    def flush(self) -> bool:
        """Send what is queued, as far as it goes; False: the connection is broken."""
        while self._queue:
            data = self._queue[0]
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                return True
            except OSError:
                self._queue.clear()
                self._queued = 0
                return False
            self._queued -= sent
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = data[sent:]
        return True

    @property
    def pending(self) -> bool:
        return bool(self._queue)

    @property
    def queued(self) -> int:
        """How many octets are queued."""
        return self._queued

    @property
    def unsent(self) -> bytes:
        """What is queued."""
        return b"".join(self._queue)

    def receive(self) -> bytes | None:
        """What has arrived; b"" at the end of the stream, None if nothing is there."""
        try:
            return self.sock.recv(RECEIVE)
        except BlockingIOError:
            return None
        except OSError:  # reset, timed out, unreachable: all the same to us
            return b""


def connection_limit(configured: int) -> int:
    """limits.max_connections, or what the descriptors allow; raises the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    most = max(soft - RESERVED_DESCRIPTORS, soft // 2)
    return min(configured, most) if configured else most


class Listener:
    """A listening socket inherited from the keeper."""

    def __init__(self, fd: int) -> None:
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(False)
        # Connections inherit these. Control messages are small, 20,000 connections many.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        # Given up for a moment when descriptors run out: a connection that can't be
        # accepted stays readable for ever, and its client waits.
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self.sock.fileno()

    def accept(self) -> Iterator[tuple[socket.socket, str, int] | OSError]:
        """A batch of what waits; an OSError for one that was turned away for want of
        descriptors or memory, after which the batch ends."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, (peer, port) = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    yield e
                    return
                continue  # ECONNABORTED and the like: that one is gone, the next may be good
            sock.setblocking(False)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:  # reset meanwhile; found out at the first read
                pass
            yield sock, peer, port

    def _turn_away(self) -> None:
        os.close(self._spare)
        try:
            self.sock.accept()[0].close()
        except OSError:
            pass
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        self.sock.close()
        os.close(self._spare)
