"""Traces that are open: datagrams of ops.trace become lines of JSON for who asked.

Nothing waits for a reader: its queue is bounded, and what it has no room for is counted
and told with the next line that has.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pwd
import secrets
import socket
from collections import deque
from typing import Any, Final

from aiohttp import web

from dispatcher.pptp import words as pptp_words
from ops.console.bus import Bus, BusError
from ops.trace import FROM_CLIENT, NOTE, PPTP, SOCKET, Told, unpack
from workers.ppp import words as ppp_words

QUEUE: Final = 2000  # lines of one trace
SENDERS: Final = 80  # 64 workers, the dispatcher, and successors
ALIVE_S: Final = 2.0  # an empty line, so that a client that has gone is noticed
BATCH: Final = 256
DATAGRAM: Final = 8192


class TracesError(Exception):
    """No trace, and why."""


def trace_socket(run_dir: str, user: str) -> socket.socket:
    """RUN_DIR/trace.sock, for `user` alone. Called while root."""
    path = f"{run_dir}/{SOCKET}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    before = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(SENDERS)
    finally:
        os.umask(before)
    if os.geteuid() == 0 and user:
        with contextlib.suppress(KeyError, OSError):
            account = pwd.getpwnam(user)
            os.chown(path, account.pw_uid, account.pw_gid)
    return sock


class Lines:
    """What one reader has not taken yet."""

    def __init__(self, packets: bool) -> None:
        self.packets = packets
        self.waiting: deque[dict[str, Any]] = deque()
        self.more = asyncio.Event()
        self._lost = 0

    def put(self, line: dict[str, Any]) -> None:
        """One more, if there is room."""
        if len(self.waiting) >= QUEUE:
            self._lost += 1 + line.get("lost", 0)
            return
        if self._lost:
            line["lost"] = line.get("lost", 0) + self._lost
            self._lost = 0
        self.waiting.append(line)
        self.more.set()


def line_of(told: Told, packets: bool) -> dict[str, Any]:
    """A datagram in words; the octets too where packets are wanted."""
    line: dict[str, Any] = {
        "time": round(told.time, 6),
        "sid": told.sid,
        "user": told.user.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        "peer": told.peer,
    }
    if told.direction == NOTE:
        line["text"] = told.octets.decode("utf-8", "backslashreplace")
    else:
        line["from"] = "client" if told.direction == FROM_CLIENT else "us"
        if told.protocol == PPTP:
            line["protocol"] = "PPTP"
            line["text"] = pptp_words.describe(told.octets)
        else:
            line["protocol"] = ppp_words.name(told.protocol)
            line["text"] = ppp_words.describe(told.protocol, told.octets)
        if packets:
            line["number"] = told.protocol
            line["octets"] = base64.b64encode(told.octets).decode()
    if told.lost:
        line["lost"] = told.lost
    return line


class Traces:
    """All of them, and the socket they are fed by."""

    def __init__(self, sock: socket.socket, bus: Bus) -> None:
        self._socket = sock
        self._bus = bus
        self._open: dict[int, Lines] = {}
        self._senders: set[socket.socket] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take what comes from now on."""
        self._loop = loop
        loop.add_reader(self._socket, self._acceptable)

    async def stop(self) -> None:
        """Readers are let go, the socket is closed."""
        self._ending = True
        for lines in self._open.values():
            lines.more.set()
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            for sock in list(self._senders):
                self._gone(sock)
        for task in self._tasks:
            task.cancel()
        self._socket.close()

    async def open(self, by: str, value: str, packets: bool) -> tuple[int, Lines, int]:
        """A number, what comes, and how many sessions match now."""
        number = secrets.randbits(48)
        lines = self._open[number] = Lines(packets)
        try:
            return number, lines, await self._bus.watch(number, by, value, packets)
        except BusError as e:
            del self._open[number]
            raise TracesError(str(e)) from None

    async def close(self, number: int) -> None:
        """No more of it; the dispatcher finds out by itself if it can't be told."""
        self._open.pop(number, None)
        with contextlib.suppress(BusError):
            await self._bus.unwatch(number)

    async def carry(self, response: web.StreamResponse, lines: Lines, sessions: int) -> None:
        """Lines to the reader until it or we go."""
        await response.write(json.dumps({"sessions": sessions}).encode() + b"\n")
        while not self._ending:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lines.more.wait(), ALIVE_S)
            lines.more.clear()
            batch = [json.dumps(lines.waiting.popleft()) for _ in range(len(lines.waiting))]
            try:
                await response.write(("\n".join(batch) + "\n").encode())
            except ConnectionError:
                return

    def _acceptable(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._socket.accept()
            sock.setblocking(False)
            if len(self._senders) >= SENDERS or self._loop is None:
                sock.close()
                return
            self._senders.add(sock)
            self._loop.add_reader(sock, self._readable, sock)

    def _gone(self, sock: socket.socket) -> None:
        if self._loop is not None:
            self._loop.remove_reader(sock)
        self._senders.discard(sock)
        sock.close()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._gone(sock)
                return
            try:
                told = unpack(data)
            except ValueError:
                continue
            lines = self._open.get(told.trace)
            if lines is None:
                self._forget(told.trace)
            elif told.octets or told.lost:
                lines.put(line_of(told, lines.packets))

    def _forget(self, number: int) -> None:
        """A trace of a console before this one, or one that has just been closed."""
        if not self._tasks and self._loop is not None:
            task = self._loop.create_task(self.close(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
