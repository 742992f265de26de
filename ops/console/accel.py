"""The port of console.accel_cmd: accel-ppp's "cli tcp", as accel-cmd and panels speak it.

A line is a command, its answer is text, and nothing marks the answer's end: clients send
`exit` after their command, or close their half, and read to the end. With a password the
first line must be it. Whoever reaches this port may end sessions, so what looks like a
browser that was made to ask (its first line is HTTP) is hung up on.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastpath.layout import Session
from ops.console import accel_text, snapshot
from ops.console.accel_text import COLUMNS, END
from ops.console.bus import Bus, BusError
from ops.console.columns import sid
from ops.console.guard import Rates
from ops.console.history import History
from ops.console.keeper import OrderError
from ops.console.matching import MatchError, matching
from ops.console.view import View
from ops.log import Log
from ops.ranges import format_address, parse_address

LINE_MAX: Final = 1024
CLIENTS_MAX: Final = 32
IDLE_S: Final = 300.0
LOGIN_S: Final = 10.0  # for the password: who has none holds no place
LINGER_S: Final = 10.0  # for the end of an answer to somebody who does not read it
WRONG_PER_S: Final = 1 / 6  # wrong passwords of one source
WRONG_BURST: Final = 5.0
SYNTAX: Final = "syntax error" + END
INVALID: Final = "invalid argument" + END
UNKNOWN: Final = "command unknown" + END
FAILED: Final = "command failed" + END
_HTTP: Final = re.compile(r"\AHTTP/|\bHTTP/\d")

Ask = Callable[..., Awaitable[dict[str, Any]]]


class HangUpError(Exception):
    """The connection ends; what is to be sent goes out before."""


class Commands:
    """What a line answers; no socket here."""

    def __init__(
        self, view: View, history: History, bus: Bus, log: Log, ask: Ask | None = None
    ) -> None:
        """`ask` gives the keeper an order; None: it takes none."""
        self._view = view
        self._history = history
        self._bus = bus
        self._ask = ask
        self._log = log

    async def run(self, line: str, source: str) -> str:
        """The answer; HangUpError for `exit`."""
        words = line.split()
        match words:
            case []:
                return ""
            case ["help" | "?", *_]:
                return accel_text.HELP + (accel_text.ORDERS if self._ask else "")
            case ["exit" | "quit"]:
                raise HangUpError
            case ["show", "sessions", *rest]:
                return await self._sessions(rest)
            case ["show", "stat"]:
                return self._stat()
            case ["show", "ippool"]:
                return accel_text.ippool(self._view.ippool())
            case ["show", "version"]:
                return f"pptpcon {self._view.version}{END}"
            case ["terminate", *rest]:
                return await self._terminate(rest, source)
            case ["reload"]:
                return await self._order(source, "reload")
            case ["shutdown"]:
                return await self._order(source, "shutdown", how="now")
            case ["shutdown", "soft" | "hard" | "cancel" as how]:
                return await self._order(source, "shutdown", how=how)
            case ["reload" | "shutdown", *_] | ["show", "stat" | "ippool" | "version", *_]:
                return SYNTAX
            case _:
                return UNKNOWN

    def _stat(self) -> str:
        return accel_text.stat(
            self._view.status(),
            self._view.accounts().get("servers", ()),
            self._history.lines(300),
            self._history.lines(60),
        )

    async def _sessions(self, words: list[str]) -> str:
        names, order, pattern = "", "", ("", "")
        rest = iter(words)
        for word in rest:
            if word == "order":
                order = next(rest, "")
                if not order:
                    return SYNTAX
            elif word == "match":
                pattern = next(rest, ""), next(rest, "")
                if not pattern[1]:
                    return SYNTAX
            elif names:
                return SYNTAX
            else:
                names = word
        wanted = (names or accel_text.DEFAULT).split(",")
        for name in (*wanted, order, pattern[0]):
            if name and name not in COLUMNS:
                return f"unknown column {name[:40]}{END}"
        if "" in wanted:
            return f"unknown column {END}"
        found = snapshot.take(self._view.table)
        sessions = list(found.sessions)
        if pattern[0]:
            texts = [accel_text.cell(pattern[0], s, found.now_ns) for s in sessions]
            try:
                kept = await matching(pattern[1], texts)
            except MatchError as e:
                return f"match: {e}{END}"
            sessions = [s for s, keep in zip(sessions, kept, strict=True) if keep]
        if order:  # as text, which is accel-ppp's way
            sessions.sort(key=lambda s: accel_text.cell(order, s, found.now_ns))
        return accel_text.table(wanted, accel_text.cells(found, sessions, wanted))

    async def _terminate(self, words: list[str], source: str) -> str:
        soft = True
        if words and words[-1] in ("soft", "hard") and len(words) > 1:
            soft = words.pop() == "soft"
        try:
            match words:
                case ["all"]:
                    return await self._end("all", "", soft, source)
                case ["username", name]:
                    return await self._end("username", name, soft, source)
                case ["ip" | "csid" as by, address]:
                    wanted = format_address(parse_address(address))
                    return await self._end(by, wanted, soft, source)
                case ["sid", text]:
                    return await self._end("sid", f"{int(text, 16):016x}", soft, source)
                case ["if", name]:
                    return await self._end_each(
                        lambda s: accel_text.interface(s) == name, soft, source
                    )
                case ["match", "username", pattern]:
                    return await self._end_matching(pattern, soft, source)
                case _:
                    return SYNTAX
        except ValueError:
            return INVALID

    async def _end_matching(self, pattern: str, soft: bool, source: str) -> str:
        named = [s for s in snapshot.take(self._view.table).sessions if s.name]
        try:
            kept = await matching(pattern, [s.name for s in named])
        except MatchError as e:
            return f"match: {e}{END}"
        sids = {s.sid for s, keep in zip(named, kept, strict=True) if keep}
        return await self._end_each(lambda s: s.sid in sids, soft, source)

    async def _end_each(self, wanted: Callable[[Session], bool], soft: bool, source: str) -> str:
        """By their sids: a record may belong to another session by then."""
        for s in snapshot.take(self._view.table).sessions:
            if wanted(s) and (said := await self._end("sid", sid(s), soft, source)):
                return said
        return ""

    async def _end(self, by: str, value: str, soft: bool, source: str) -> str:
        if not value.isprintable():
            return INVALID
        try:
            count = await self._bus.terminate(by, value, soft)
        except BusError as e:
            self._log.warning("terminate failed", by=by, value=value, reason=str(e))
            return FAILED
        self._log.notice(
            "terminate", by=by, value=value, soft=soft, sessions=count, accel_cmd=source
        )
        return ""

    async def _order(self, source: str, order: str, **words: str) -> str:
        if self._ask is None:
            return UNKNOWN
        self._log.notice(order, **words, accel_cmd=source)
        try:
            answer = await self._ask(order, **words)
        except OrderError as e:
            self._log.warning(f"{order} failed", reason=str(e))
            return f"failed: {e}{END}"
        if answer.get("ok"):
            return ""
        self._log.warning(f"{order} failed", reason=str(answer.get("reason", "see the log")))
        return "failed" + END


class AccelPort:
    """The listener."""

    def __init__(self, commands: Commands, log: Log) -> None:
        self._commands = commands
        self._log = log
        self._digest = ""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._wrong = Rates(WRONG_PER_S, WRONG_BURST)

    def apply(self, digest: str) -> None:
        """SHA-256 of the password, in hexadecimal; "": none is asked for."""
        self._digest = digest

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening socket."""
        self._server = await asyncio.start_server(self._client, sock=sock, limit=LINE_MAX)

    async def stop(self) -> None:
        """Close the socket and what is connected."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        source = str((writer.get_extra_info("peername") or ("",))[0])
        if len(self._clients) >= CLIENTS_MAX:
            writer.close()
            return
        self._clients.add(task)
        try:
            await self._talk(reader, writer, source)
        except (HangUpError, ConnectionError, TimeoutError, asyncio.CancelledError):
            pass
        except (ValueError, asyncio.IncompleteReadError):
            self._log.debug("accel-cmd line too long", source=source)
        except Exception as e:
            self._log.error("accel-cmd request failed", source=source, error=repr(e)[:200])
        finally:
            await self._close(writer)
            self._clients.discard(task)

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        """What is not sent holds its connection, so that one counts until it is gone."""
        writer.close()
        try:
            async with asyncio.timeout(LINGER_S):
                await writer.wait_closed()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str
    ) -> None:
        known, first = not self._digest, True
        while True:
            async with asyncio.timeout(IDLE_S if known else LOGIN_S):
                octets = await reader.readline()
            if not octets:
                return
            line = octets.decode("utf-8", "replace").rstrip("\r\n\0")
            if first and _HTTP.search(line):
                self._log.warning(
                    "HTTP on the accel_cmd port", source=source, hint="a browser was made to ask"
                )
                return
            first = False
            if not known:
                self._check(line, source)
                known = True
                continue
            writer.write((await self._commands.run(line, source)).encode())
            async with asyncio.timeout(IDLE_S):
                await writer.drain()

    def _check(self, line: str, source: str) -> None:
        now = asyncio.get_running_loop().time()
        given = hashlib.sha256(line.encode()).hexdigest()
        if not self._wrong.wait_s(source, now) and hmac.compare_digest(given, self._digest):
            return
        self._wrong.take(source, now)
        self._log.notice("wrong accel_cmd password", source=source)
        raise HangUpError
