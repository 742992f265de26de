"""The console process: takes what the keeper hands it, gives root away, serves.

Everything it says comes from the session table, mapped read-only, so a slow scrape or a
page of 10,000 sessions delays no call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
from typing import Any, Final

from fastpath.layout import LayoutError, Table
from ops import boot, log, privileges
from ops import settings as settings_module
from ops.boot import Boot
from ops.console import samples
from ops.console.accel import AccelPort, Commands
from ops.console.api import Api
from ops.console.bus import Bus
from ops.console.collector import TableCollector
from ops.console.guard import Guard
from ops.console.history import EVERY_S, History
from ops.console.keeper import Orders
from ops.console.listener import Listener, bridge_logs
from ops.console.operations import Operations
from ops.console.top import Top
from ops.console.tracing import Traces, trace_socket
from ops.console.usage import Usage
from ops.console.view import View
from ops.log import Log
from ops.settings import Settings
from ops.status_page import StatusPage

NICE: Final = 10
SAMPLE_S: Final = 5.0
RETRY_S: Final = 10.0
KEEPER_MESSAGE_MAX: Final = 4 << 20  # settings with many accounts in one datagram


def bind(listen: str) -> socket.socket:
    """A listening TCP socket for `address:port`; ValueError or OSError says why not."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not address:port")
    host = host.removeprefix("[").removesuffix("]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _bound(listen: str) -> tuple[socket.socket | None, str]:
    """A listening socket, or why not."""
    try:
        return bind(listen), ""
    except (OSError, ValueError) as e:
        if isinstance(e, OSError) and e.errno == errno.EADDRINUSE:
            return None, "address in use"
        return None, (e.strerror or str(e)) if isinstance(e, OSError) else str(e)


class Console:
    """The process."""

    def __init__(self, start: Boot, table: Table, log: Log) -> None:
        self._log = log
        self._settings = start.settings
        page = StatusPage(start.fds["status"]) if "status" in start.fds else None
        hooks = StatusPage(start.fds["hooks"]) if "hooks" in start.fds else None
        self._view = View(table, start.settings, Usage(), page, hooks)
        usage, view = self._view.usage, self._view
        collector = TableCollector(
            table,
            usage,
            view.version,
            view.capacity,
            view.pools,
            view.accounts,
            view.hooks,
            lambda: Top.of(self._settings.metrics),
        )
        self._collector = collector
        self._bus = Bus(start.bus_address)
        self._guard = Guard(start.settings.console)
        self._history = History()
        self._api = Api(view, collector, self._bus, log, self._guard, self._history)
        self._keeper = socket.socket(fileno=start.fds["keeper"])
        self._keeper.setblocking(False)
        self._accel: AccelPort | None = None
        self._accel_bound: socket.socket | None = None
        self._accel_refusal = ""
        self._orders = Orders(self._keeper)
        self._commands = Commands(view, self._history, self._bus, log, self._orders.ask)
        self._traces = Traces(trace_socket(start.run_dir, start.settings.server.user), self._bus)
        operations = Operations(self._bus, self._orders, self._traces, log, table.workers)
        control = socket.socket(fileno=start.fds["control"])
        control.setblocking(False)
        self._control = Listener(self._api.control(operations), control)
        self._public: Listener | None = None
        self._bound: socket.socket | None = None  # bound, not served yet
        self._refusal = ""  # why the last attempt to bind failed, said once
        self._code = 0
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def bind(self) -> None:
        """Take the addresses. Called once while still root: a port may be below 1024."""
        self._bind_public()
        self._bind_accel()

    def _bind_public(self) -> None:
        listen = self._settings.metrics.listen
        if listen and self._public is None:
            self._bound, reason = _bound(listen)
            if reason and reason != self._refusal:
                self._log.warning(
                    "metrics not served",
                    listen=listen,
                    reason=reason,
                    retry_s=RETRY_S,
                    hint="change metrics.listen or free the port; `pptpcon show` works without",
                )
            self._refusal = reason

    def _bind_accel(self) -> None:
        listen = self._settings.console.accel_cmd
        if listen and self._accel is None:
            self._accel_bound, reason = _bound(listen)
            if reason and reason != self._accel_refusal:
                self._log.warning(
                    "accel-cmd port not served",
                    listen=listen,
                    reason=reason,
                    retry_s=RETRY_S,
                    hint="change console.accel_cmd or free the port",
                )
            self._accel_refusal = reason

    async def run(self) -> int:
        """Serve until the keeper says stop, or is gone; the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(self._keeper, self._from_keeper)
        self._traces.start(loop)
        await self._control.start()
        await self._serve_public()
        await self._serve_accel()
        self._tasks = [
            asyncio.create_task(self._sampling(), name="sampling"),
            asyncio.create_task(self._binding(), name="binding"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._over)
        self._keeper.send(json.dumps({"type": "ready"}).encode())
        await self._stop.wait()
        loop.remove_reader(self._keeper)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._traces.stop()
        await self._control.stop()
        if self._public is not None:
            await self._public.stop()
        if self._accel is not None:
            await self._accel.stop()
        self._bus.close()
        return self._code

    def _over(self, task: asyncio.Task[None]) -> None:
        """They run as long as the process: if one ends by a fault, the keeper starts us anew."""
        if not task.cancelled() and task.exception() is not None:
            self._log.error("task failed", task=task.get_name(), error=repr(task.exception())[:200])
            self._code = 1
            self._stop.set()

    # -- the metrics listener

    async def _serve_public(self) -> None:
        if self._bound is None:
            return
        sock, self._bound = self._bound, None
        self._public = Listener(self._api.public(), sock)
        await self._public.start()
        host, port = sock.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        self._log.notice("metrics served", url=f"http://{name}:{port}/metrics")

    async def _serve_accel(self) -> None:
        if self._accel_bound is None:
            return
        sock, self._accel_bound = self._accel_bound, None
        self._accel = AccelPort(self._commands, self._log)
        self._accel.apply(self._settings.console.accel_cmd_digest)
        await self._accel.start(sock)
        self._log.notice("accel-cmd port served", listen=self._settings.console.accel_cmd)

    async def _binding(self) -> None:
        """Follow the addresses: after a reload at once, after a refusal again and again."""
        listen, accel = self._settings.metrics.listen, self._settings.console.accel_cmd
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), RETRY_S)
            self._wake.clear()
            if self._settings.metrics.listen != listen:
                listen = self._settings.metrics.listen
                self._refusal = ""
                if self._public is not None:
                    await self._public.stop()
                    self._public = None
            if self._settings.console.accel_cmd != accel:
                accel = self._settings.console.accel_cmd
                self._accel_refusal = ""
                if self._accel is not None:
                    await self._accel.stop()
                    self._accel = None
            self.bind()
            await self._serve_public()
            await self._serve_accel()

    async def _sampling(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._view.sample()
            if loop.time() >= due:
                self._history.add(samples.take(self._view))
                due = loop.time() + EVERY_S - SAMPLE_S / 2
            self._collector.sample()
            await asyncio.sleep(SAMPLE_S)

    # -- the keeper

    def _from_keeper(self) -> None:
        try:
            data = self._keeper.recv(KEEPER_MESSAGE_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._stop.set()  # the keeper is dead
            return
        message: dict[str, Any] = json.loads(data)
        if message["type"] == "stop":
            self._stop.set()
        elif message["type"] == "log":
            self._log.order(message)
        elif message["type"] == "answer":
            self._orders.answered(message)
        elif message["type"] == "settings":
            text = json.dumps(message["settings"]).encode()
            self._apply(settings_module.loads(text))

    def _apply(self, settings: Settings) -> None:
        self._settings = settings
        self._view.apply(settings)
        self._guard.apply(settings.console)
        if self._accel is not None:
            self._accel.apply(settings.console.accel_cmd_digest)
        self._log.level = log.LEVELS[settings.log.level]
        self._log.style = settings.log.format
        self._wake.set()


def main() -> int:
    """Body of `python -m ops.console`."""
    start = boot.load()
    own = start.settings.log
    out = Log("console", level=log.LEVELS[own.level], style=own.format)
    bridge_logs(out)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the keeper decides
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        table = Table.attach(start.fds["table"], writable=False)
    except LayoutError as e:
        return log.fatal(f"console: {e}; was pptpcon upgraded under a running instance?", 69)

    async def body() -> int:
        console = Console(start, table, out)
        console.bind()
        privileges.drop(start.settings.server.user)
        return await console.run()

    return asyncio.run(body())
