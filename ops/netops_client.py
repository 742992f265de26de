"""Asking netops for routes: ARCHITECTURE.md, "netops contract". Leaf module.

`Ledger` is the protocol without a socket; `NetopsClient` puts it on an asyncio loop.
The socket pair outlives netops: a request that a dying netops took with it is simply
sent again, since every operation may be repeated.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgpack

from ops.networks import Network

BATCH: Final = 256  # operations of one datagram, some 5 KB
RESEND_S: Final = 2.0  # silence after which unanswered requests are sent again

Request = tuple[int | str | bytes, ...]  # (op, args...)


class ReplyError(Exception):
    """A datagram that is no reply: our own bug, or another version."""


@dataclass(slots=True)
class Ledger:
    """Requests by sequence number: not sent, sent, answered."""

    resend_s: float = RESEND_S
    _next: int = 1
    _open: dict[int, Request] = field(default_factory=dict)  # in order of sequence
    _unsent: deque[int] = field(default_factory=deque)
    told: int | None = None  # unasked: 1, GRE must go by raw sockets; 0, it need not
    _heard_at: float = 0.0  # the last reply, or the first request after an idle time

    def add(self, request: Request, now: float) -> int:
        """Note a request; returns its sequence number."""
        seq = self._next
        self._next += 1
        if not self._open:
            self._heard_at = now
        self._open[seq] = request
        self._unsent.append(seq)
        return seq

    def batch(self) -> bytes:
        """The next datagram to send, b"" if all is sent; `sent` confirms it."""
        seqs = [seq for seq, _ in zip(self._unsent, range(BATCH), strict=False)]
        if not seqs:
            return b""
        packed: bytes = msgpack.packb([[seq, *self._open[seq]] for seq in seqs])
        return packed

    def sent(self) -> None:
        """The datagram of the last `batch` is on its way."""
        for _ in range(min(BATCH, len(self._unsent))):
            self._unsent.popleft()

    def receive(self, data: bytes, now: float) -> list[tuple[int, int]]:
        """(sequence, errno) of requests answered for the first time."""
        try:
            replies = msgpack.unpackb(data)
            pairs = [(int(seq), int(errno)) for seq, errno in replies]
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
            raise ReplyError(f"netops reply: {e}") from None
        self._heard_at = now
        for seq, value in pairs:
            if seq == 0:
                self.told = value
        return [(seq, errno) for seq, errno in pairs if self._open.pop(seq, None) is not None]

    def resend(self, now: float) -> None:
        """Send everything unanswered again, in its order (netops was restarted)."""
        self._unsent = deque(self._open)
        self._heard_at = now

    def handle_timer(self, now: float) -> bool:
        """Call now and then; True if unanswered requests are to be sent again."""
        if len(self._open) == len(self._unsent) or now < self._heard_at + self.resend_s:
            return False
        self.resend(now)
        return True

    @property
    def unanswered(self) -> int:
        """Requests without their answer."""
        return len(self._open)


class NetopsClient:
    """The ledger on one end of the SEQPACKET pair; all methods on the loop's thread."""

    def __init__(
        self,
        fd: int,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[int], None] = lambda value: None,
    ) -> None:
        """`told` hears what netops says without being asked."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = loop
        self._ledger = Ledger()
        self._told = told
        self._futures: dict[int, asyncio.Future[int]] = {}
        self._flush_soon = False
        self._writing = False
        self._closed = False
        self.bad_replies = 0
        loop.add_reader(fd, self._readable)
        self._timer = loop.call_later(RESEND_S / 2, self._tick)

    def route_add(self, address: int, ifindex: int) -> asyncio.Future[int]:
        """A /32 route to `address` by the interface; the result is 0 or an errno."""
        return self._request("route_add", address, ifindex)

    def route_del(self, address: int, ifindex: int) -> asyncio.Future[int]:
        """Take the route back; 0 also when there was none."""
        return self._request("route_del", address, ifindex)

    def net_add(self, found: Network, ifindex: int) -> asyncio.Future[int]:
        """A route to a network behind a subscriber."""
        return self._request("net_add", found.octets, found.length, ifindex)

    def net_del(self, found: Network, ifindex: int) -> asyncio.Future[int]:
        """Take it back; 0 also when there was none."""
        return self._request("net_del", found.octets, found.length, ifindex)

    def lists(self, address: int, names: tuple[str, ...]) -> asyncio.Future[int]:
        """The address is in these address lists, and in no others; 0 or an errno."""
        return self._request("lists", address, *(name[:32] for name in names[:16]))

    @property
    def unanswered(self) -> int:
        """Requests without their answer."""
        return self._ledger.unanswered

    def restarted(self) -> None:
        """netops is a new process: send again what the old one did not answer."""
        self._ledger.resend(self._loop.time())
        self._schedule()

    def close(self) -> None:
        """Stop using the descriptor, which stays the caller's; drop what is unanswered."""
        self._closed = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        if self._writing:
            self._loop.remove_writer(self._fd)
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()

    def _request(self, *request: int | str | bytes) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        self._futures[self._ledger.add(request, self._loop.time())] = future
        self._schedule()
        return future

    def _schedule(self) -> None:
        # One datagram for all requests of this turn of the loop.
        if not self._flush_soon and not self._writing and not self._closed:
            self._flush_soon = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_soon = False
        if self._closed:
            return
        while data := self._ledger.batch():
            try:
                os.write(self._fd, data)
            except BlockingIOError:
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._fd, self._flush)
                return
            except OSError:
                break  # no one holds the other end now; the timer sends again
            self._ledger.sent()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        while not self._closed:
            try:
                data = os.read(self._fd, 65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._fd)  # the keeper is gone: its socket says so too
                return
            try:
                replies = self._ledger.receive(data, self._loop.time())
            except ReplyError:
                self.bad_replies += 1
                continue
            if self._ledger.told is not None:
                self._told(self._ledger.told)
                self._ledger.told = None
            for seq, errno in replies:
                future = self._futures.pop(seq, None)
                if future is not None and not future.done():
                    future.set_result(errno)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(RESEND_S / 2, self._tick)
        self._ledger.handle_timer(self._loop.time())
        self._schedule()  # nothing to send is nothing sent
