"""A worker, second stage: the control thread's loop and sockets around `Control`.

Everything here runs on the main thread. The data thread is already forwarding.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from fastpath import engine as engine_module
from fastpath.engine import Engine
from fastpath.layout import STATE_ACTIVE, Session, Table
from ops import boot, privileges
from ops import settings as settings_module
from ops.log import LEVELS, Log
from ops.messages import Heartbeat, Hello, Message
from ops.netops_client import NetopsClient
from ops.networks import Network
from ops.settings import Settings
from ops.trace import Teller
from workers.accounts import Accounts, Login, parse_file
from workers.bus import Bus
from workers.control import Control
from workers.hook_client import HookClient, event_of
from workers.kernel_drops import KernelDrops
from workers.live import Handle
from workers.logins import Logins
from workers.ports import EventKinds
from workers.ppp.actions import Authenticate, EapRelay, Verdict
from workers.radius import configured
from workers.radius.accounting import Counters, Facts, up_unix
from workers.radius.client import Client
from workers.secrets_file import NO_ADDRESS, Index
from workers.session import BlobError, Saved
from workers.way_out import WayOut

NICE: Final = 10  # of the control thread and those it starts; the data thread goes first
BEAT_S: Final = 0.5
LAG_BEATS: Final = 30  # the loop's worst lateness is told for so long: a scrape interval
HEARTBEAT_BEATS: Final = 2  # a Heartbeat to the dispatcher every second beat
DROPS_LOG_S: Final = 60.0  # between lines about an overflowing receive buffer
HELLO_WAIT_S: Final = 1.0  # for a dispatcher, before events are taken without one
STOP_S: Final = 3.0  # for peers to answer LCP Terminate-Request
STOP_LAST_S: Final = 1.0  # then for netops and the data thread
RETRY_S: Final = 0.005  # the engine's ring was full
EVENTS: Final = 256
PROBLEMS_LOGGED: Final = 20
DATAGRAM: Final = 1 << 20
SILENT_LOG_S: Final = 10.0  # between repeated lines about a broken bus

KINDS: Final = EventKinds(
    frame=engine_module.EVENT_FRAME,
    installed=engine_module.EVENT_INSTALLED,
    removed=engine_module.EVENT_REMOVED,
    echo_lost=engine_module.EVENT_ECHO_LOST,
    desync=engine_module.EVENT_DESYNC,
    resumed=engine_module.EVENT_RESUMED,
    packet=engine_module.EVENT_PACKET,
    bound=engine_module.EVENT_BOUND,
    traced=engine_module.EVENT_TRACED,
)


class Service:
    """Sockets, timers and the keeper's orders of one worker."""

    def __init__(
        self,
        started: boot.Boot,
        table: Table,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        log: Log,
    ) -> None:
        self._boot = started
        self._index = started.index
        self._table = table
        self._engine = engine
        self._loop = loop
        self._log = log
        self._settings = started.settings
        self._ifindex = int(started.extra["tun_ifindex"])
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._beats = 0
        self._beat_due = loop.time()
        self._late: deque[float] = deque(maxlen=LAG_BEATS)
        self._bus_log_at = 0.0
        self._stop_at: float | None = None
        self._aborted = False
        self._netops_pid = table.pids["netops"]
        self._secrets = b""
        self._secrets_turn = 0

        self.control = Control(
            table,
            engine,
            self,
            log,
            started.settings,
            worker=started.index,
            kinds=KINDS,
            teller=Teller(started.run_dir),
        )
        self.control.adopt(frozenset(started.extra.get("poison_sids", ())))
        index = Index()
        if "secrets" in started.fds:
            self._secrets = boot.read_memfd(started.fds["secrets"])
            os.close(started.fds["secrets"])
            index = parse_file(self._secrets, self._settings)
            self._loaded(index)
        self._accounts = Accounts(self._settings, index)
        fd = started.fds.get("accounts")
        self._radius = Client(fd, loop) if fd is not None else None
        fd = started.fds.get("hooks")
        self._hooks = HookClient(fd, loop) if fd is not None else None
        self._logins = Logins(self._radius)
        if self._accounts.empty and not configured.logs_in(self._settings):
            self._log.warning(
                "no accounts",
                hint="nobody can log in: set chap_secrets, users or radius.servers",
            )
        told_rings = started.extra.get("xdp", [])
        rings = {unit["ifindex"]: bytes.fromhex(unit["mac"]) for unit in told_rings}
        way_out = WayOut(engine, loop, rings) if "hop" in started.fds else None
        self._way_out = way_out
        told = (lambda value: way_out.close(bool(value))) if way_out else (lambda value: None)
        self._netops = NetopsClient(started.fds["netops"], loop, told)
        self._drops = KernelDrops(
            table,
            started.index,
            started.fds["gre"],
            str(started.extra["tun_name"]),
            started.fds["devices"],
            started.fds.get("xdp", [])[::2],
        )
        self._drops_log_at = 0.0
        self._keeper = socket.socket(fileno=started.fds["keeper"])
        self._keeper.setblocking(False)
        self._bus = Bus(
            started.bus_address,
            b"worker-%d" % started.index,
            loop,
            hello=self._hello,
            received=self._received,
            broken=self._bus_broken,
        )
        loop.add_reader(self._keeper.fileno(), self._keeper_says)
        self._hearing = False
        loop.call_later(HELLO_WAIT_S, self._hear)
        self._tell_keeper({"type": "ready"})
        self._beat()

    # -- Ports of Control

    def send(self, message: Message) -> None:
        """To the dispatcher."""
        if self._bus.send(message):
            self.control.count("bus_messages_sent")

    def route_add(self, handle: Handle, address: int) -> None:
        """Ask netops; the answer goes to Control.routed."""
        self._ask(self._netops.route_add(address, self._ifindex), handle, True)

    def route_del(self, handle: Handle, address: int) -> None:
        """Ask netops; the answer goes to Control.routed."""
        self._ask(self._netops.route_del(address, self._ifindex), handle, False)

    def net_add(self, handle: Handle, net: Network) -> None:
        """Ask netops; the answer goes to Control.net_routed."""
        self._ask_net(self._netops.net_add(net, self._ifindex), handle, net, True)

    def net_del(self, handle: Handle, net: Network) -> None:
        """Ask netops; the answer goes to Control.net_routed."""
        self._ask_net(self._netops.net_del(net, self._ifindex), handle, net, False)

    def authenticate(self, handle: Handle, request: Authenticate) -> None:
        """Check credentials in a task of their own; most are done within one step."""
        task = self._loop.create_task(self._authenticate(handle, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def relay(self, handle: Handle, request: EapRelay) -> None:
        """EAP of types we do not speak: a RADIUS server may."""
        task = self._loop.create_task(self._relay(handle, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def started(self, handle: Handle) -> None:
        """Tell the accounts process, where there is one, and the hooks'."""
        session = self._table.session(handle[0])
        if self._radius is not None and self._settings.needs_accounts:
            saved = Saved.unpack(self._table.blob(handle[0]))
            granted = self._table.granted6(handle[0])
            self._radius.start(Facts.of(session, saved, up_unix(session.up_ns), granted))
        self._list(session)
        self._hook("ip_up", session)

    def stopped(self, handle: Handle, cause: str) -> None:
        """The same for the end."""
        session = self._table.session(handle[0])
        if self._radius is not None:
            self._radius.forget(handle)
            if self._settings.needs_accounts:
                counters = Counters.of(session, time.monotonic_ns())
                self._radius.stop(f"{session.sid:016x}", counters, cause, time.time())
        self._hook("ip_down", session, cause)

    def authorized(self, handle: Handle, user: str, peer_name: str) -> None:
        """For hooks only."""
        self._hook("auth_up", self._table.session(handle[0]), names=(user, peer_name))

    def changed(self, handle: Handle) -> None:
        """For address lists and hooks."""
        session = self._table.session(handle[0])
        self._list(session, empty=True)
        self._hook("ip_change", session)

    def gone(self, handle: Handle, cause: str) -> None:
        """For hooks only."""
        self._hook("auth_down", self._table.session(handle[0]), cause)

    def _list(self, session: Session, *, empty: bool = False) -> None:
        """Tell netops the session's address lists; with `empty`, also that there are none."""
        try:
            saved = Saved.unpack(self._table.blob(session.index))
        except BlobError:
            return
        names = tuple(map(str, saved.policy.get("address_lists", ())))
        if names or empty:
            self._netops.lists(session.address, names)

    def _list_all(self) -> None:
        """Another netops: it knows of lists only what the kernel has."""
        for session in self._table.sessions():
            if session.worker == self._index and session.state == STATE_ACTIVE:
                self._list(session)

    def _hook(
        self, hook: str, session: Session, cause: str = "", names: tuple[str, str] = ("", "")
    ) -> None:
        conf = self._settings.hooks
        radattr = conf.radattr and hook.startswith("ip_")
        if self._hooks is None or not (getattr(conf, hook) or radattr):
            return
        saved = None
        try:
            saved = Saved.unpack(self._table.blob(session.index))
            names = saved.user, saved.peer_name
        except BlobError:
            names = names if names[0] else (session.name, session.name)
        now_ns = time.monotonic_ns()
        user, peer_name = names
        self._hooks.post(
            event_of(
                *(hook, session, saved),
                user=user,
                peer_name=peer_name,
                now_ns=now_ns,
                cause=cause,
            )
        )

    def _ask(self, future: asyncio.Future[int], handle: Handle, adding: bool) -> None:
        def answered(done: asyncio.Future[int]) -> None:
            if not done.cancelled():
                self.control.routed(handle, adding, done.result(), self._loop.time())
                self._after()

        future.add_done_callback(answered)

    def _ask_net(
        self, future: asyncio.Future[int], handle: Handle, net: Network, adding: bool
    ) -> None:
        def answered(done: asyncio.Future[int]) -> None:
            if not done.cancelled():
                self.control.net_routed(handle, net, adding, done.result())

        future.add_done_callback(answered)

    async def _relay(self, handle: Handle, request: EapRelay) -> None:
        try:
            packet, login = await self._logins.relay(
                self._accounts, self._settings, handle, request
            )
        except Exception as e:  # a login must end with a verdict
            reason = f"internal error: {type(e).__name__}: {e}"
            verdict = Verdict(False, reason=reason)
            packet, login = b"", Login(verdict, NO_ADDRESS, counted=False)
        self.control.relayed(handle, packet, login, self._loop.time())
        self._after()

    async def _authenticate(self, handle: Handle, request: Authenticate) -> None:
        try:
            login = await self._logins.verify(self._accounts, self._settings, handle, request)
        except Exception as e:  # a login must end with a verdict
            reason = f"internal error: {type(e).__name__}: {e}"
            login = Login(Verdict(False, reason=reason), NO_ADDRESS, counted=False)
        self.control.authenticated(handle, login, self._loop.time())
        self._after()

    # -- what becomes readable

    def _received(self, message: Message) -> None:
        self.control.count("bus_messages_received")
        self.control.message(message, self._loop.time())
        self._after()

    def _bus_broken(self, reason: str) -> None:
        self.control.count("bus_errors")
        now = self._loop.time()
        if now >= self._bus_log_at:
            self._bus_log_at = now + SILENT_LOG_S
            self._log.error("bus", reason=reason)

    def _hello(self) -> Hello:
        self._loop.call_soon(self._hear)
        return self.control.hello(os.getpid(), self._loop.time())

    def _hear(self) -> None:
        """Begin with the data thread's events, which may have waited for us to start.

        After the first Hello, that is: a session that ends between a predecessor's death and
        our Hello would not be in it, and the dispatcher would think it lost with the worker.
        """
        if not self._hearing:
            self._hearing = True
            self._loop.add_reader(self._engine.event_fd, self._engine_says)

    def _engine_says(self) -> None:
        events = self._engine.events(EVENTS)
        now = self._loop.time()
        for kind, index, generation, data in events:
            try:
                if self._way_out is not None:
                    self._find_way(self._way_out, kind, (index, generation))
                self.control.event(kind, index, generation, data, now)
            except Exception as e:  # a bug in one session's event must not lose the others'
                self.control.count("frames_malformed")
                fault = "".join(traceback.format_exception(e)).strip()
                self._log.error("event failed", kind=kind, index=index, fault=fault)
        if len(events) == EVENTS:
            self._loop.call_soon(self._engine_says)
        self._after()

    def _find_way(self, way_out: WayOut, kind: int, handle: Handle) -> None:
        """Sessions that begin, go on or end in the data thread: their next hop."""
        if kind == engine_module.EVENT_FRAME:
            return
        session = self._table.session(handle[0])
        if session.generation != handle[1]:
            return
        if kind in (KINDS.installed, KINDS.resumed):
            way_out.add(handle, session.peer_address, session.local_address)
        elif kind == KINDS.removed:
            way_out.remove(handle, session.peer_address, session.local_address)
        elif kind == engine_module.EVENT_HOP_LOST:
            way_out.lost()

    def _keeper_says(self) -> None:
        while True:
            try:
                data, fds, _flags, _address = socket.recv_fds(self._keeper, DATAGRAM, 4)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, fds = b"", []
            if not data:
                for fd in fds:
                    os.close(fd)
                self._log.error("keeper is gone", action="ending at once")
                self._finish()
                return
            try:
                self._order(json.loads(data), fds)
            except (ValueError, KeyError, TypeError) as e:
                self._log.error("order of the keeper not understood", reason=str(e))
            finally:
                for fd in fds:
                    os.close(fd)

    # -- the keeper's orders

    def _order(self, order: dict[str, Any], fds: list[int]) -> None:
        match order["type"]:
            case "stop":
                self._stop()
            case "log":
                self._log.order(order)
            case "settings":
                self._configure(settings_module.loads(json.dumps(order["settings"]).encode()))
            case "secrets":
                if fds:
                    self._read_secrets(boot.read_memfd(fds[0]))
            case other:
                self._log.error("order of the keeper not understood", reason=f"type {other!r}")

    def _configure(self, settings: Settings) -> None:
        before, self._settings = self._settings, settings
        self._log.level = LEVELS[settings.log.level]
        self._log.style = settings.log.format
        self.control.configure(settings)
        old, self._accounts = self._accounts, Accounts(settings, self._accounts.index)
        if settings.accounts.rules != before.accounts.rules:
            said = partial(self._accounts.changes, old)
            self.control.revise(said, self._loop.time())
        if not settings.accounts.chap_secrets:
            self._secrets_turn += 1  # what is being read is not wanted any more
            self._secrets = b""
            self._accounts = Accounts(settings, Index())
        elif self._secrets:
            # Pools' names are words of the address column: read the text again.
            self._read_secrets(self._secrets)

    def _read_secrets(self, data: bytes) -> None:
        """Parse beside the loop: a file of 100,000 lines takes a good part of a second."""
        self._secrets_turn += 1
        turn = self._secrets_turn
        settings = self._settings
        future = self._loop.run_in_executor(None, parse_file, data, settings)

        def parsed(done: asyncio.Future[Index]) -> None:
            if turn != self._secrets_turn or done.cancelled():
                return
            error = done.exception()
            if error is not None:
                self.control.count("secrets_errors")
                self._log.error("chap-secrets not read; the old ones stay", reason=str(error))
                return
            index = done.result()
            self._loaded(index)
            if index.problems and not len(index) and len(self._accounts.index):
                self._log.error("chap-secrets has no usable line; the old ones stay")
                return
            self._secrets = data
            self._accounts = Accounts(self._settings, index)

        future.add_done_callback(parsed)

    def _loaded(self, index: Index) -> None:
        self.control.count("secrets_loaded")
        if index.problems:
            self.control.count("secrets_errors", len(index.problems))
        # One worker speaks for all: they read the same text.
        if self._index == 0:
            for problem in index.problems[:PROBLEMS_LOGGED]:
                self._log.warning("chap-secrets", line=problem.line, problem=problem.text)
            more = len(index.problems) - PROBLEMS_LOGGED
            if more > 0:
                self._log.warning("chap-secrets", problem=f"and {more} more lines like these")
            self._log.info("chap-secrets read", accounts=len(index))

    def _tell_keeper(self, message: dict[str, str]) -> None:
        try:
            self._keeper.send(json.dumps(message).encode())
        except OSError as e:
            self._log.error("keeper does not listen", reason=str(e))

    # -- time

    def _look_for_drops(self) -> None:
        lost = self._drops.look()
        now = self._loop.time()
        if lost and now >= self._drops_log_at:
            self._drops_log_at = now + DROPS_LOG_S
            self._log.warning(
                "GRE receive buffer overflowed",
                packets=lost,
                hint="raise gre.receive_buffer_bytes or workers.count; see pptp_kernel_drops_total",
            )

    def _beat(self) -> None:
        now = self._loop.time()
        self._late.append(max(0.0, now - self._beat_due))
        self._beat_due = now + BEAT_S
        self._loop.call_at(self._beat_due, self._beat)
        self._table.control_beat(self._index, threading.get_native_id())
        self._table.loop_lag(self._index, int(max(self._late) * 1e9))
        self._beats += 1
        if self._beats % HEARTBEAT_BEATS == 0:
            self._bus.send(Heartbeat(self.control.credit))
            self._bus.tick()
            self._look_for_drops()
            pid = self._table.pids["netops"]
            if pid and pid != self._netops_pid:
                self._netops_pid = pid
                self._netops.restarted()
                self._list_all()
        self._after()

    def _after(self) -> None:
        """After each event: the ring's backlog, the next timer, the end of a stop."""
        if not self.control.flush() and self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._retried)
        deadline = self.control.deadline()
        if deadline is not None and (self._wake is None or deadline < self._wake_at):
            if self._wake is not None:
                self._wake.cancel()
            self._wake_at = deadline
            self._wake = self._loop.call_at(deadline, self._woken)
        if self._stop_at is not None:
            self._check_stop(self._loop.time())

    def _retried(self) -> None:
        self._retry = None
        self._after()

    def _woken(self) -> None:
        self._wake = None
        self.control.handle_timer(self._loop.time())
        self._after()

    # -- the end

    def _stop(self) -> None:
        if self._stop_at is not None:
            return
        now = self._loop.time()
        self._stop_at = now + STOP_S
        self._bus.send(Heartbeat(0))
        self.control.stop(now)
        self._loop.call_at(self._stop_at, self._after)
        self._loop.call_at(self._stop_at + STOP_LAST_S, self._after)
        self._after()

    def _check_stop(self, now: float) -> None:
        assert self._stop_at is not None
        if not self.control.busy and not self.control.backlog:
            self._finish()
        elif now >= self._stop_at + STOP_LAST_S:
            self._log.warning("sessions left behind at stop", sessions=self.control.busy)
            self._finish()
        elif now >= self._stop_at and not self._aborted:
            self._aborted = True
            self.control.abort(now)
            self._after()

    def _finish(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        """Give the sockets back."""
        self._bus.close()
        self._netops.close()
        if self._radius is not None:
            self._radius.close()
        if self._hooks is not None:
            self._hooks.close()
        self._loop.remove_reader(self._engine.event_fd)
        self._loop.remove_reader(self._keeper.fileno())


def _leave_data_cpu(cpu: int, others: tuple[int, ...]) -> None:
    """Keep this thread, and those it starts, off the CPUs of data threads if any are left."""
    allowed = os.sched_getaffinity(0)
    for taken in ({cpu, *others}, {cpu}):
        rest = allowed - taken
        if cpu >= 0 and rest:
            os.sched_setaffinity(0, rest)
            return


def _exception(log: Log) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        at, where = getattr(error, "__traceback__", None), ""
        while at is not None:
            where = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}"
            at = at.tb_next
        log.error("internal error", reason=f"{context['message']}: {error!r}", at=where)

    return handle


def serve(started: boot.Boot, table: Table, engine: Engine, thread: threading.Thread) -> int:
    """Run the control thread until the keeper says stop; returns the exit code."""
    settings = started.settings
    log = Log(
        f"worker-{started.index}", level=LEVELS[settings.log.level], style=settings.log.format
    )
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    _leave_data_cpu(int(started.extra.get("cpu", -1)), settings.workers.cpus)
    privileges.die_with_parent()
    # Python loads these at first use; the unprivileged user may not be able to read them.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    codecs.lookup("cp437")  # MS-CHAP version 1
    privileges.drop(settings.server.user)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(executor)
    loop.set_exception_handler(_exception(log))
    service = Service(started, table, engine, loop, log)
    try:
        loop.run_forever()
    finally:
        service.close()
        engine.stop()
        deadline = time.monotonic() + 2.0
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(0.1)
        if thread.is_alive():
            print(f"worker-{started.index}: data thread does not end", file=sys.stderr)
    return 0
