"""Traffic for the demo: known numbers of UDP datagrams with echoes, and bulk TCP both ways.

Two ends, each a process of its own: `lan` (echo, sink and source of a host behind the
concentrator) and `clients` (a socket for each inner address). Each prints its running
totals as a JSON line once a second and at its end. Octets of UDP are counted as inner IP
packets (RFC 768 and 791 headers, 28 octets), as the concentrator counts them.
"""

from __future__ import annotations

import json
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from types import FrameType
from typing import Final

import click

HEADERS: Final = 28  # IPv4 and UDP
STAMP: Final = struct.Struct(">d")
SIZES: Final = (64, 200, 512, 900, 1200, 1368)  # UDP payloads; MPPE leaves 1396 of an MTU of 1400
TICK: Final = 0.005
GRACE: Final = 1.0  # for echoes that are still on their way
BULK: Final = 256 * 1024
UP, DOWN = b"u", b"d"
BLOCK: Final = bytes(BULK)
BUFFER: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Totals:
    """What one end has seen so far."""

    udp_sent: int = 0
    udp_sent_octets: int = 0
    udp_received: int = 0
    udp_received_octets: int = 0
    udp_refused: int = 0  # sends that the kernel refused
    tcp_sent_octets: int = 0
    tcp_received_octets: int = 0
    tcp_failed: int = 0
    seconds: float = 0.0  # of sending
    round_trip_ms: float = 0.0  # median of the last second's echoes


@dataclass(slots=True)
class Loop:
    """Readiness of many sockets, and a line of totals each second."""

    totals: Totals = field(default_factory=Totals)
    handlers: dict[int, tuple[socket.socket, Callable[[int], None]]] = field(default_factory=dict)
    stopping: bool = False
    poll: select.epoll = field(default_factory=select.epoll)
    _line_at: float = 0.0

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def add(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the events whenever there are some."""
        sock.setblocking(False)
        self.handlers[sock.fileno()] = (sock, handler)
        self.poll.register(sock.fileno(), events)

    def drop(self, sock: socket.socket) -> None:
        """Close a socket and forget it."""
        self.handlers.pop(sock.fileno(), None)
        sock.close()  # leaves the epoll set by itself

    def turn(self, timeout: float) -> None:
        """Wait for events at most so long, and handle them."""
        for fd, events in self.poll.poll(max(timeout, 0.0), 512):
            found = self.handlers.get(fd)
            if found is not None:
                found[1](events)
        now = time.monotonic()
        if now >= self._line_at:
            self.line()
            self._line_at = now + 1.0

    def line(self) -> None:
        """Print the totals; a reader that went away ends the program."""
        try:
            print(json.dumps(asdict(self.totals)), flush=True)
        except BrokenPipeError:
            self.stopping = True


class Lan:
    """The host behind the concentrator: echoes UDP, swallows or sends TCP."""

    def __init__(self, loop: Loop, address: str, port: int) -> None:
        self.loop = loop
        self.totals = loop.totals
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        udp.bind((address, port))
        tcp = socket.create_server((address, port), backlog=1024)
        loop.add(udp, select.EPOLLIN, lambda _events: self._echo(udp))
        loop.add(tcp, select.EPOLLIN, lambda _events: self._accept(tcp))

    def _echo(self, udp: socket.socket) -> None:
        totals = self.totals
        for _ in range(256):
            try:
                data, peer = udp.recvfrom(2048)
            except OSError:
                return
            totals.udp_received += 1
            totals.udp_received_octets += len(data) + HEADERS
            try:
                udp.sendto(data, peer)
            except OSError:
                totals.udp_refused += 1
                continue
            totals.udp_sent += 1
            totals.udp_sent_octets += len(data) + HEADERS

    def _accept(self, tcp: socket.socket) -> None:
        try:
            stream, _ = tcp.accept()
        except OSError:
            return
        self.loop.add(stream, select.EPOLLIN, lambda events: self._first(stream, events))

    def _first(self, stream: socket.socket, _events: int) -> None:
        try:
            mode = stream.recv(1)
        except OSError:
            mode = b""
        if mode not in (UP, DOWN):
            self.loop.drop(stream)
            return
        bulk = Bulk(self.loop, stream, sends=mode == DOWN)
        self.loop.handlers.pop(stream.fileno())
        bulk.watch(known=True)


class Bulk:
    """One TCP stream in one direction, until the other end closes."""

    def __init__(self, loop: Loop, stream: socket.socket, *, sends: bool) -> None:
        self.loop = loop
        self.stream = stream
        self.sends = sends
        self.first = b""

    def watch(self, *, known: bool = False) -> None:
        """Handle the stream's events from now on."""
        events = select.EPOLLIN | (select.EPOLLOUT if self.sends or self.first else 0)
        if known:
            self.loop.handlers[self.stream.fileno()] = (self.stream, self._ready)
            self.loop.poll.modify(self.stream.fileno(), events)
        else:
            self.loop.add(self.stream, events, self._ready)

    def _ready(self, events: int) -> None:
        totals = self.loop.totals
        try:
            if self.first and events & select.EPOLLOUT:
                self.stream.send(self.first)
                self.first = b""
                if not self.sends:
                    self.loop.poll.modify(self.stream.fileno(), select.EPOLLIN)
            if self.sends and events & select.EPOLLOUT:
                totals.tcp_sent_octets += self.stream.send(BLOCK)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = self.stream.recv(BULK)
                totals.tcp_received_octets += len(data)
                if not data:
                    self.loop.drop(self.stream)
        except BlockingIOError:
            return
        except OSError:
            totals.tcp_failed += 1
            self.loop.drop(self.stream)


class Clients:
    """Sockets bound to inner addresses: the kernel routes them into their sessions."""

    def __init__(self, loop: Loop, target: tuple[str, int], addresses: list[str]) -> None:
        self.loop = loop
        self.totals = loop.totals
        self.target = target
        self.addresses = addresses
        self.udp: list[socket.socket] = []
        self.trips: list[float] = []
        self.streams: list[socket.socket] = []

    def open(self, *, udp: bool, streams: int) -> None:
        """Make the sockets: one of UDP for each address, and some TCP streams by turns."""
        for address in self.addresses if udp else ():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.bind((address, 0))
            sock.connect(self.target)
            self.loop.add(sock, select.EPOLLIN, partial(self._echoed, sock))
            self.udp.append(sock)
        for i in range(streams):
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            stream.bind((self.addresses[i % len(self.addresses)], 0))
            stream.setblocking(False)
            stream.connect_ex(self.target)
            bulk = Bulk(self.loop, stream, sends=i % 2 == 0)
            bulk.first = UP if bulk.sends else DOWN
            bulk.watch()
            self.streams.append(stream)

    def _echoed(self, sock: socket.socket, _events: int) -> None:
        totals = self.totals
        for _ in range(64):
            try:
                data = sock.recv(2048)
            except OSError:
                return
            totals.udp_received += 1
            totals.udp_received_octets += len(data) + HEADERS
            if len(data) >= STAMP.size:
                self.trips.append(time.monotonic() - STAMP.unpack_from(data)[0])

    def run(self, seconds: float, rate: float) -> None:
        """Send `rate` datagrams a second over all sessions by turns, then wait for echoes."""
        start = now = time.monotonic()
        sent = 0
        noted = start
        while not self.loop.stopping and now - start < seconds:
            due = int((now - start) * rate) if self.udp else 0
            budget = min(due, sent + 512)  # the events of others must not wait for long
            while sent < budget:
                # A size for each turn through the sessions, so that all see every size.
                turn, place = divmod(sent, len(self.udp))
                self._send(self.udp[place], SIZES[turn % len(SIZES)], now)
                sent += 1
            self.loop.turn(TICK)
            now = time.monotonic()
            self.totals.seconds = now - start
            if now - noted >= 1.0 and self.trips:
                self.trips.sort()
                self.totals.round_trip_ms = self.trips[len(self.trips) // 2] * 1000
                self.trips.clear()
                noted = now
        for stream in self.streams:
            if stream.fileno() >= 0:
                self.loop.drop(stream)
        until = now + GRACE
        while now < until and not self.loop.stopping:
            self.loop.turn(TICK)
            now = time.monotonic()

    def _send(self, sock: socket.socket, size: int, now: float) -> None:
        try:
            sock.send(STAMP.pack(now) + BLOCK[: size - STAMP.size])
        except OSError:
            self.totals.udp_refused += 1
            return
        self.totals.udp_sent += 1
        self.totals.udp_sent_octets += size + HEADERS


@click.group()
def main() -> None:
    """Traffic through a concentrator."""


@main.command()
@click.option("--address", required=True)
@click.option("--port", type=int, required=True)
def lan(address: str, port: int) -> None:
    """Echo UDP, sink and source TCP, until SIGTERM."""
    loop = Loop()
    Lan(loop, address, port)
    while not loop.stopping:
        loop.turn(0.5)
    loop.line()


@main.command()
@click.option("--target", required=True)
@click.option("--port", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--rate", type=float, default=0.0, help="UDP datagrams a second, all together")
@click.option("--streams", type=int, default=0, help="TCP streams, half of them each way")
def clients(target: str, port: int, seconds: float, rate: float, streams: int) -> None:
    """Send from the inner addresses given on standard input as a JSON list."""
    addresses = json.load(sys.stdin)
    loop = Loop()
    senders = Clients(loop, (target, port), addresses)
    senders.open(udp=rate > 0, streams=streams)
    senders.run(seconds, rate)
    loop.line()


if __name__ == "__main__":
    main()
