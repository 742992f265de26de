"""The ROUTER of the bus (ops.messages), for an epoll loop.

A queue of our own stands before each peer's, so that nothing is dropped when ZeroMQ's
is full, and so that its length can be seen. ZeroMQ's descriptor is edge-triggered and
may fall silent after any send or receive: call `receive` until it gives nothing, after
every round of the loop.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Final

import zmq

from ops.messages import Message, MessageError, decode, encode

HIGH_WATER: Final = 1000  # messages in ZeroMQ's own queue of a peer
MAX_MESSAGE: Final = 16 << 20  # a Hello with 100,000 sessions is 1.3 MB


class Bus:
    """Bound to `address`, for peers of the same user as ours will be."""

    def __init__(self, address: str) -> None:
        self._queues: dict[bytes, deque[bytes]] = {}
        self._gone: list[bytes] = []
        self._context = zmq.Context(1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        # An error instead of silence for a peer that is gone or slow ...
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # ... and the identity goes to the successor of a worker that died.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as e:
            self.close()
            raise OSError(e.errno, str(e)) from None

    def fileno(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    def send(self, peer: bytes, message: Message) -> None:
        """Queue a message; `gone` tells later if there is no such peer."""
        queue = self._queues.setdefault(peer, deque())
        queue.append(encode(message))
        if len(queue) == 1:
            self._flush(peer, queue)

    def flush(self) -> None:
        """Send what was queued, as far as it goes."""
        for peer, queue in list(self._queues.items()):
            if queue:
                self._flush(peer, queue)
            if not queue:
                del self._queues[peer]

    def _flush(self, peer: bytes, queue: deque[bytes]) -> None:
        while queue:
            try:
                self._socket.send_multipart((peer, queue[0]), zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as e:
                if e.errno != zmq.EHOSTUNREACH:
                    raise
                # Reconciliation after the next Hello repairs what is lost here.
                queue.clear()
                self._gone.append(peer)
                return
            queue.popleft()

    def backlog(self, peer: bytes) -> int:
        """Messages that ZeroMQ has not taken yet."""
        queue = self._queues.get(peer)
        return len(queue) if queue else 0

    def forget(self, peer: bytes) -> None:
        """Drop what waits for a peer: it has begun anew."""
        self._queues.pop(peer, None)

    def gone(self) -> list[bytes]:
        """Peers that were not there when something was sent, since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def receive(self) -> Iterator[tuple[bytes, Message | MessageError]]:
        """All that has arrived; errors as values, with the peer that made them."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) != 2:
                yield frames[0], MessageError(f"{len(frames)} frames, not 2")
                continue
            try:
                yield frames[0], decode(frames[1])
            except MessageError as e:
                yield frames[0], e

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def give_to(address: str, uid: int, gid: int) -> None:
    """Let the unprivileged user connect to the socket that root has bound."""
    path = address.removeprefix("ipc://")
    os.chmod(path, 0o600)
    if os.geteuid() == 0:
        os.chown(path, uid, gid)
