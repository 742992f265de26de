"""UDP sockets of an exchange: one for each (line, channel), connected to its server.

Connected, so that the kernel drops what others send, and tells when nobody listens.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from workers.radius.lines import Line

DATAGRAM: Final = 8192
BATCH: Final = 64
BUFFER: Final = 1 << 20


class Sockets:
    """Opened when first needed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: str,
        received: Callable[[int, int, bytes], None],
        refused: Callable[[int, str], None],
    ) -> None:
        self._loop = loop
        self._source = source
        self._received = received
        self._refused = refused
        self._open: dict[tuple[int, int], socket.socket] = {}

    def send(self, at: int, line: Line, channel: int, data: bytes) -> None:
        """A lost datagram is no error here: it is sent again."""
        try:
            sock = self._open.get((at, channel)) or self._make(at, line, channel)
            try:
                sock.send(data)
            except ConnectionRefusedError:
                # That was the answer to an earlier datagram; this one was not sent.
                sock.send(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as e:
            reason = e.strerror or str(e)
            self._loop.call_soon(self._refused, at, reason)

    def close(self) -> None:
        """All of them."""
        for sock in self._open.values():
            self._loop.remove_reader(sock)
            sock.close()
        self._open.clear()

    def _make(self, at: int, line: Line, channel: int) -> socket.socket:
        six = ":" in line.address.host
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            if self._source and (":" in self._source) == six:
                sock.bind((self._source, 0))
            sock.connect((line.address.host, line.address.port))
        except OSError:
            sock.close()
            raise
        self._open[at, channel] = sock
        self._loop.add_reader(sock, self._readable, sock, at, channel)
        return sock

    def _readable(self, sock: socket.socket, at: int, channel: int) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                self._refused(at, e.strerror or str(e))
                return
            self._received(at, channel, data)
