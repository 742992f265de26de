"""The worker's end of the bus: one ZeroMQ DEALER on an asyncio loop.

The raw descriptor is watched, not zmq.asyncio: a message then costs no future. Each
connection begins with Hello; when it breaks, or the dispatcher falls silent, the
socket is thrown away with what it held, since reconciliation repeats what matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from ops.messages import Heartbeat, Hello, Message, MessageError, decode, encode

SILENCE_S: Final = 3.0  # without a message: the dispatcher is gone or stands still
RETRY_MS: Final = 50  # between attempts to connect
BATCH: Final = 256  # messages of one turn of the loop
WATCHED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


def _descriptor(socket: Any) -> int:
    return int(socket.getsockopt(zmq.FD))


class Bus:
    """Connects, greets, reconnects. `received` gets each message, `broken` each bad frame."""

    def __init__(
        self,
        address: str,
        identity: bytes,
        loop: asyncio.AbstractEventLoop,
        *,
        hello: Callable[[], Hello],
        received: Callable[[Message], None],
        broken: Callable[[str], None],
    ) -> None:
        self.greeted = False  # Hello is sent on this connection
        self.sent = 0
        self._address = address
        self._identity = identity
        self._loop = loop
        self._hello = hello
        self._received = received
        self._broken = broken
        self._context = zmq.Context(io_threads=1)
        self._socket: Any = None
        self._monitor: Any = None
        self._heard_at = 0.0
        self._check_soon = False
        self._connect()

    def send(self, message: Message) -> bool:
        """Queue a message; False if there is no dispatcher, which will ask by itself."""
        if not self.greeted:
            return False
        return self._send(message)

    def tick(self) -> None:
        """Call every second or so: notices a dispatcher that stands still."""
        if self.greeted and self._loop.time() > self._heard_at + SILENCE_S:
            self._broken("the dispatcher is silent; connecting anew")
            self._reconnect()

    def close(self, linger_ms: int = 500) -> None:
        """Let what is queued go out, then close."""
        self._disconnect(linger_ms)
        self._context.term()

    def _connect(self) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, self._identity)
        socket.setsockopt(zmq.LINGER, 0)
        # Bounded by the number of sessions; dropping at a mark would lose an Ended.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, RETRY_MS)
        monitor = socket.get_monitor_socket(WATCHED)
        self._socket, self._monitor = socket, monitor
        self._loop.add_reader(_descriptor(monitor), self._watch)
        self._loop.add_reader(_descriptor(socket), self._pump)
        socket.connect(self._address)
        self._soon()

    def _disconnect(self, linger_ms: int = 0) -> None:
        self.greeted = False
        self._loop.remove_reader(_descriptor(self._monitor))
        self._loop.remove_reader(_descriptor(self._socket))
        self._socket.disable_monitor()
        self._socket.close(linger=linger_ms)
        self._socket = self._monitor = None

    def _reconnect(self) -> None:
        if self._socket is not None:
            self._disconnect()
        self._connect()

    def _watch(self) -> None:
        monitor = self._monitor
        while monitor is self._monitor and monitor is not None:
            try:
                frames = monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event = parse_monitor_message(frames)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED and not self.greeted:
                self.greeted = True
                self._heard_at = self._loop.time()
                self._send(self._hello())
            elif event == zmq.EVENT_DISCONNECTED:
                self._reconnect()

    def _send(self, message: Message) -> bool:
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.sent += 1
        self._soon()
        return True

    def _soon(self) -> None:
        # ZeroMQ's descriptor is edge-triggered and shared by both directions: after each
        # use of the socket somebody has to look whether something came in meanwhile.
        if not self._check_soon:
            self._check_soon = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._check_soon = False
        if self._monitor is not None:
            self._watch()
        for _ in range(BATCH):
            if self._socket is None:
                return
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as e:
                self._broken(f"bus socket: {e}")
                self._reconnect()
                return
            self._heard_at = self._loop.time()
            try:
                message = decode(frame)
            except MessageError as e:
                self._broken(str(e))
                continue
            if not isinstance(message, Heartbeat):
                self._received(message)
        self._soon()
