"""The host behind the concentrator, for `pptpcon bench`: `python -m ops.client.far_end`.

One UDP and one TCP port. A numbered datagram is noted and sent back with a number of the
way down; a TCP stream is swallowed, filled, or answered piece by piece, as its first octet
asks. It may also ask for the account of this host. Flows are learned from what arrives, so
that nothing has to be agreed on before.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import click

from ops.client.mmsg import BATCH, MTU, Batch, overflows, widen
from ops.client.numbers import HEADER, MAGIC, NUMBER_DOWN, NUMBER_DOWN_AT, Account
from ops.client.traffic import DOWN, HEADERS, UP, Bulk, Loop

EXCHANGE, REPORT = b"x", b"r"  # first octets of a stream, beside UP and DOWN
REQUEST: Final = bytes(100)  # of an exchange ...
ANSWER: Final = bytes(300)
BUFFER: Final = 32 << 20
MAX_FLOWS: Final = 1 << 17
ROUNDS: Final = 8  # batches of UDP before TCP has its turn


COUNTS: Final = ("strange", "refused", "overflows", "tcp_octets")


@dataclass(slots=True)
class Silent(Loop):
    """A loop that prints no totals."""

    def line(self) -> None:
        """Nobody reads them."""


@dataclass(slots=True)
class Flow:
    """A session as this end sees it."""

    account: Account = field(default_factory=Account)
    sent: int = 0  # on the way down


class FarEnd:
    """Sockets, flows, and what they count."""

    def __init__(self, loop: Loop, address: str, port: int) -> None:
        self.loop = loop
        self.flows: dict[int, Flow] = {}
        self.strange = 0  # datagrams that are none of ours, or whose number can't be
        self.refused = 0  # sends that the kernel refused
        self._batch = Batch(packet_info=False)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        widen(self.udp, BUFFER)
        self.udp.bind((address, port))
        self.tcp = socket.create_server((address, port), backlog=4096)
        loop.add(self.udp, select.EPOLLIN, lambda _events: self._udp())
        loop.add(self.tcp, select.EPOLLIN, lambda _events: self._accept())

    def report(self) -> bytes:
        """The account of this host, as a JSON line."""
        flows = {number: [flow.sent, *flow.account.seen()] for number, flow in self.flows.items()}
        counts = (
            self.strange,
            self.refused,
            overflows(self.udp),
            self.loop.totals.tcp_received_octets,
        )
        return json.dumps({"flows": flows, **dict(zip(COUNTS, counts, strict=True))}).encode()

    # -- UDP

    def _udp(self) -> None:
        for _ in range(ROUNDS):
            taken = self._batch.receive(self.udp)
            first = 0
            for i in range(taken):
                if not self._note(i):
                    self._send(first, i)
                    first = i + 1
            self._send(first, taken)
            if taken < BATCH:
                return

    def _note(self, i: int) -> bool:
        """Take datagram i into the account, and number its answer; False if there is none."""
        data, at = self._batch.data, i * MTU
        octets = self._batch.keep(i)
        magic, number_of_flow, number, _, _ = HEADER.unpack_from(data, at)
        if octets < HEADER.size or magic != MAGIC:
            self.strange += 1
            return False
        flow = self.flows.get(number_of_flow)
        if flow is None:
            if len(self.flows) >= MAX_FLOWS:
                self.strange += 1
                return False
            flow = self.flows[number_of_flow] = Flow()
        if not flow.account.take(number, octets + HEADERS):
            self.strange += 1
            return False
        NUMBER_DOWN.pack_into(data, at + NUMBER_DOWN_AT, flow.sent)
        flow.sent += 1
        return True

    def _send(self, first: int, end: int) -> None:
        # What the kernel refuses was not sent: its number is given again.
        for i in range(self._batch.send(self.udp, first, end), end):
            self.refused += 1
            self.flows[HEADER.unpack_from(self._batch.data, i * MTU)[1]].sent -= 1

    # -- TCP

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                stream, _ = self.tcp.accept()
            except OSError:
                return
            self.loop.add(stream, select.EPOLLIN, partial(self._first, stream))

    def _first(self, stream: socket.socket, _events: int) -> None:
        try:
            mode = stream.recv(1)
        except OSError:
            mode = b""
        if mode in (UP, DOWN):
            bulk = Bulk(self.loop, stream, sends=mode == DOWN)
            self.loop.handlers.pop(stream.fileno())
            bulk.watch(known=True)
        elif mode == EXCHANGE:
            self._handle(stream, Exchange(self.loop, stream).ready)
        elif mode == REPORT:
            self.loop.poll.modify(stream.fileno(), select.EPOLLOUT)
            self._handle(stream, Rest(self.loop, stream, self.report()).ready)
        else:
            self.loop.drop(stream)

    def _handle(self, stream: socket.socket, handler: Callable[[int], None]) -> None:
        self.loop.handlers[stream.fileno()] = (stream, handler)


@dataclass(slots=True)
class Exchange:
    """A stream on which each REQUEST is answered by an ANSWER."""

    loop: Loop
    stream: socket.socket
    taken: int = 0

    def ready(self, _events: int) -> None:
        """Answer what has come whole."""
        try:
            data = self.stream.recv(65536)
            if not data:
                self.loop.drop(self.stream)
                return
            self.loop.totals.tcp_received_octets += len(data)
            requests, self.taken = divmod(self.taken + len(data), len(REQUEST))
            if requests:
                self.stream.send(ANSWER * requests)
        except BlockingIOError:
            return
        except OSError:
            self.loop.totals.tcp_failed += 1
            self.loop.drop(self.stream)


@dataclass(slots=True)
class Rest:
    """A stream that is told one thing and closed."""

    loop: Loop
    stream: socket.socket
    data: bytes

    def ready(self, _events: int) -> None:
        """Send on."""
        try:
            self.data = self.data[self.stream.send(self.data) :]
        except BlockingIOError:
            return
        except OSError:
            self.data = b""
        if not self.data:
            self.loop.drop(self.stream)


@click.command()
@click.option("--address", required=True)
@click.option("--port", type=int, required=True)
def main(address: str, port: int) -> None:
    """Answer the load generator until SIGTERM."""
    loop = Silent()
    FarEnd(loop, address, port)
    while not loop.stopping:
        loop.turn(0.5)


if __name__ == "__main__":
    main()
