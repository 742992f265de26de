"""Serves an aiohttp application on a socket, with a bound on what strangers can hold.

Over aiohttp's own site it adds: errors of the HTTP parser are one line, and reach our log
instead of a traceback; at most MAX_CONNECTIONS connections, the oldest gives way, so that
open but silent ones cannot keep Prometheus out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any, Final

from aiohttp import web

from ops.log import Log

MAX_CONNECTIONS: Final = 128
KEEPALIVE_S: Final = 120.0  # longer than a scrape interval: Prometheus keeps its connection
STOP_S: Final = 1.0


def one_line(text: str) -> str:
    """The gist of a parser's message, printable."""
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in words)[:160]


class _LogBridge(logging.Handler):
    """What aiohttp and asyncio log, as lines of ours without their traceback."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = one_line(f"{type(error).__name__}: {error}") if error else "-"
        write = self._log.warning if record.levelno >= logging.WARNING else self._log.debug
        write("http", message=one_line(record.getMessage()), cause=cause)


def bridge_logs(log: Log) -> None:
    """Send Python's logging to `log`."""
    root = logging.getLogger()
    root.handlers = [_LogBridge(log)]
    root.setLevel(logging.WARNING)


class _Connection(web.RequestHandler):
    """One HTTP connection."""

    __slots__ = ("_manager_of_all",)

    def __init__(self, manager: web.Server, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._manager_of_all = manager

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connections = self._manager_of_all.connections
        # Closing takes a turn of the loop, in which a whole backlog may be accepted: so not
        # the oldest one, but all that are too many. A second close does nothing.
        for oldest in connections[: max(0, len(connections) - MAX_CONNECTIONS)]:
            oldest.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            response = super().handle_error(request, status, exc, message)
        else:
            reason = one_line(message or "bad request")
            response = web.Response(status=status, text=f"bad HTTP request: {reason}\n")
        response.force_close()
        return response


class Listener:
    """One application on one listening socket."""

    def __init__(self, app: web.Application, sock: socket.socket) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        self._socket = sock
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Serve from now on."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None

        def connection() -> _Connection:
            return _Connection(manager, loop=loop, access_log=None, keepalive_timeout=KEEPALIVE_S)

        self._server = await loop.create_server(connection, sock=self._socket, backlog=128)

    async def stop(self) -> None:
        """Close the socket and what is connected."""
        if self._server is not None:
            self._server.close()
            self._server = None
        with contextlib.suppress(asyncio.TimeoutError):
            await self._runner.cleanup()
        self._socket.close()
