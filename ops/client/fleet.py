"""Any number of client sessions in one process: sockets, timers, the engine, the records.

Two threads, as in a worker: this one runs asyncio and everything of PPTP and PPP, the
other is the engine's. One table in a memfd that nobody else sees; records are allotted
here, since a client has no dispatcher.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dispatcher.pptp.client import Client, ClientSettings
from fastpath.layout import STATE_ACTIVE, STATE_STARTING, Table
from ops.client.gre import open_gre
from ops.client.netlink import Device, NetlinkError
from ops.client.options import Options
from ops.client.report import Report, quantile
from ops.client.session import (
    Activate,
    Deactivate,
    Frame,
    Install,
    Over,
    Phase,
    Remove,
    Session,
    Write,
)
from ops.client.sockets import CallIds, open_tun
from ops.metrics import AUTH_METHODS
from workers.ppp.actions import SetMppe
from workers.ppp.link import Link

WINDOW: Final = 64
RETRY: Final = 0.005  # the engine's ring was full
LCP_ECHO_INTERVAL: Final = 30
LCP_ECHO_FAILURES: Final = 4
END_PATIENCE: Final = 20.0
NO_ENGINE: Final = "the compiled data path is missing: run `python setup.py build_ext --inplace`"


class Engine(Protocol):
    """What the fleet asks of fastpath.engine.Engine."""

    event_fd: int

    def run(self) -> None: ...
    def stop(self) -> None: ...
    def install(self, index: int, generation: int) -> bool: ...
    def send(self, index: int, generation: int, frame: bytes) -> bool: ...
    def set_mppe(
        self,
        index: int,
        generation: int,
        rx_bits: int,
        rx_key: bytes,
        rx_stateful: bool,
        tx_bits: int,
        tx_key: bytes,
        tx_stateful: bool,
    ) -> bool: ...
    def up(self, index: int, generation: int) -> bool: ...
    def down(self, index: int, generation: int) -> bool: ...
    def remove(self, index: int, generation: int) -> bool: ...
    def events(self, limit: int = 256) -> list[tuple[int, int, int, bytes]]: ...


@dataclass(frozen=True, slots=True)
class EventKinds:
    """The numbers of the engine's events."""

    frame: int
    installed: int
    removed: int
    echo_lost: int
    desync: int


@dataclass(frozen=True, slots=True)
class Path:
    """The packet path of one client: table, engine, device, and the call IDs it may use."""

    table: Table
    engine: Engine
    kinds: EventKinds
    device: Device
    device_name: str
    first_call_id: int
    close: Callable[[], None]


def open_path(options: Options) -> Path:
    """Make the real thing, in this process's network namespace."""
    from fastpath import engine as fast  # noqa: PLC0415 - tests of the control logic need none

    rng = random.Random()  # noqa: S311 - spreads, keeps no secret
    ids = CallIds(options.count, rng, options.call_id)
    gre = open_gre(options.server, ids.first, ids.last)
    tun = open_tun(options.tun)
    device = Device(tun.ifindex)
    device.up(options.mtu)
    for network in options.routes:
        device.add_route(int(network.network_address), network.prefixlen)
    memory = os.memfd_create("pptpcon-client", os.MFD_CLOEXEC)
    table = Table.create(memory, options.count, 1, int(time.time()) & 0xFFFFFFFF)
    engine = fast.Engine(
        table,
        0,
        role=fast.CLIENT,
        gre_fd=gre.receive.fileno(),
        raw_fd=gre.send.fileno(),
        tun_fd=tun.fd,
        packet_mode=gre.table is not None,
        cpu=options.cpu,
        reorder_timeout_ms=options.reorder_ms,
    )
    kinds = EventKinds(
        frame=fast.EVENT_FRAME,
        installed=fast.EVENT_INSTALLED,
        removed=fast.EVENT_REMOVED,
        echo_lost=fast.EVENT_ECHO_LOST,
        desync=fast.EVENT_DESYNC,
    )

    def close() -> None:
        device.close()
        os.close(tun.fd)
        gre.close()
        os.close(memory)
        ids.close()

    return Path(table, engine, kinds, device, tun.name, ids.first, close)


@dataclass(slots=True)
class Member:
    """A session with what it holds of this process."""

    number: int
    session: Session
    transport: asyncio.Transport | None = None
    index: int = -1
    generation: int = 0
    address: int = 0
    up_at: float = 0.0
    counted: bool = False  # its login has ended, one way or the other
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class _Tcp(asyncio.Protocol):
    """TCP's events, for the session."""

    def __init__(self, fleet: Fleet, member: Member) -> None:
        self._fleet = fleet
        self._member = member

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._member.transport = transport
        self._member.session.connected(self._fleet.now())
        self._fleet.act(self._member)

    def data_received(self, data: bytes) -> None:
        self._member.session.octets(data, self._fleet.now())
        self._fleet.act(self._member)

    def connection_lost(self, exc: Exception | None) -> None:
        why = str(exc) if exc is not None else "the server closed TCP"
        self._member.session.lost(why, self._fleet.now())
        self._fleet.act(self._member)


@dataclass(slots=True)
class Fleet:
    """Run it; it returns the exit status."""

    options: Options
    report: Report
    path: Path
    members: dict[int, Member] = field(default_factory=dict)  # by number; those not over
    stopping: bool = False
    ups: int = 0
    failures: int = 0
    losses: int = 0
    seconds: list[float] = field(default_factory=list)  # set-up times
    _by_index: dict[int, Member] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _pending: deque[tuple[Callable[..., bool], tuple[Any, ...]]] = field(default_factory=deque)
    _retry: asyncio.TimerHandle | None = None
    _starting: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _began: float = 0.0
    _mtu: int = 0

    async def run(self) -> int:
        """Log in, stay, close; 0 if every session came up and none was lost."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGUSR1, self.tell)
        self._free = list(range(self.options.count - 1, -1, -1))
        self._mtu = self.options.mtu
        engine = self.path.engine
        thread = threading.Thread(target=engine.run, name="data", daemon=True)
        thread.start()
        loop.add_reader(engine.event_fd, self._events)
        self._began = self.now()
        self.report.event(
            "start", count=self.options.count, tun=self.path.device_name, at=self._began
        )
        try:
            await self._log_in()
            await self._stay()
            await self._end()
        finally:
            loop.remove_reader(engine.event_fd)
            engine.stop()
            await asyncio.to_thread(thread.join, 5.0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
        self._summary()
        return 1 if self.failures or self.losses else 0

    @staticmethod
    def now() -> float:
        """The clock of sessions and of asyncio."""
        return time.monotonic()

    def stop(self) -> None:
        """End properly: a signal arrived."""
        self.stopping = True
        self._changed.set()

    def tell(self) -> None:
        """The packet path's counters, now."""
        self.report.event("counters", counters=self._counters())

    def _counters(self) -> dict[str, int]:
        return {name: n for name, n in self.path.table.data_counters(0).items() if n}

    # -- phases of a run

    async def _log_in(self) -> None:
        for number in range(1, self.options.count + 1):
            if self.options.rate:
                due = self._began + (number - 1) / self.options.rate
                await self._wait(lambda: False, due - self.now())
            await self._wait(lambda: self._starting < self.options.starting, None)
            if self.stopping:
                return
            self._begin(number)
        await self._wait(lambda: self._starting == 0, None)
        if not self.stopping:
            now = self.now()
            spent = now - self._began
            self.report.event("all", up=self.ups, failed=self.failures, seconds=spent, at=now)

    async def _stay(self) -> None:
        await self._wait(lambda: not self.members, self.options.hold)

    async def _end(self) -> None:
        self.stopping = True
        now = self.now()
        for member in list(self.members.values()):
            member.session.close(now)
            self.act(member)
        until = now + END_PATIENCE + self.options.count / 50
        while (self.members or self._by_index) and self.now() < until:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), until - self.now())
            except TimeoutError:
                break

    async def _wait(self, ready: Callable[[], bool], seconds: float | None) -> None:
        """Until `ready`, until stopping, or so many seconds."""
        until = None if seconds is None else self.now() + seconds
        while not self.stopping and not ready():
            left = None if until is None else until - self.now()
            if left is not None and left <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return

    def _summary(self) -> None:
        self.report.event(
            "summary",
            count=self.options.count,
            up=self.ups,
            failed=self.failures,
            lost=self.losses,
            p50=quantile(self.seconds, 0.5),
            p95=quantile(self.seconds, 0.95),
            counters=self._counters(),
        )

    # -- one session

    def _begin(self, number: int) -> None:
        now = self.now()
        options = self.options
        session = Session(
            control=Client(ClientSettings(host_name="pptpcon-client", window=WINDOW), now=now),
            link=Link(
                options.policy(number),
                magic=secrets.randbelow(0xFFFFFFFF) + 1,
                challenge=secrets.token_bytes(16),
            ),
            call_id=self.path.first_call_id + number - 1,
            started=now,
            connect_timeout=options.connect_timeout,
        )
        member = Member(number, session)
        self.members[number] = member
        self._starting += 1
        member.task = asyncio.get_running_loop().create_task(self._connect(member))
        self.act(member)

    async def _connect(self, member: Member) -> None:
        source = self.options.source_of(member.number)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Tcp(self, member),
                self.options.server,
                self.options.port,
                local_addr=None if source is None else (source, 0),
            )
        except OSError as e:
            member.session.lost(f"TCP to {self.options.server}: {e.strerror or e}", self.now())
            self.act(member)

    def act(self, member: Member) -> None:
        """Carry out what the session asks for, and set its timer."""
        for action in member.session.take():
            match action:
                case Write(data):
                    if member.transport is not None:
                        member.transport.write(data)
                case Frame(frame):
                    self._push(self.path.engine.send, member.index, member.generation, frame)
                case Install(call_id, peer_call_id):
                    self._install(member, call_id, peer_call_id)
                case SetMppe():
                    self._push(
                        self.path.engine.set_mppe,
                        *(member.index, member.generation),
                        *(action.rx_bits, action.rx_key, action.rx_stateful),
                        *(action.tx_bits, action.tx_key, action.tx_stateful),
                    )
                case Activate():
                    self._activate(member, action)
                case Deactivate():
                    self._deactivate(member)
                case Remove():
                    self._push(self.path.engine.remove, member.index, member.generation)
                case Over():
                    self._over(member, action)
        self._arm(member)

    def _arm(self, member: Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        at = member.session.deadline
        if at is not None:
            delay = max(0.0, at - self.now())
            member.timer = asyncio.get_running_loop().call_later(delay, self._due, member)

    def _due(self, member: Member) -> None:
        member.session.handle_timer(self.now())
        self.act(member)

    def _install(self, member: Member, call_id: int, peer_call_id: int) -> None:
        assert member.transport is not None
        local = member.transport.get_extra_info("sockname")
        peer = member.transport.get_extra_info("peername")
        member.index = self._free.pop()
        self._by_index[member.index] = member
        member.generation, _ = self.path.table.allot(
            member.index,
            worker=0,
            call_id=call_id,
            peer_call_id=peer_call_id,
            local_address=_number(local[0]),
            peer_address=_number(peer[0]),
            peer_port=peer[1],
            peer_window=WINDOW,
            peer_speed=0,
            connection=member.number,
        )
        self.path.table.begin_link(member.index, member.generation)
        self._push(self.path.engine.install, member.index, member.generation)

    def _activate(self, member: Member, action: Activate) -> None:
        agreed = action.agreed
        table, index = self.path.table, member.index
        try:
            if agreed.mtu < self._mtu:
                self._mtu = agreed.mtu
                self.path.device.up(agreed.mtu)
            self.path.device.add_address(agreed.address)
        except NetlinkError as e:
            member.session.broken("internal_error", f"TUN device: {e}", self.now())
            asyncio.get_running_loop().call_soon(self.act, member)
            return
        member.address = agreed.address
        method = AUTH_METHODS.index(agreed.auth) if agreed.auth in AUTH_METHODS else 0
        table.set_user(index, self.options.user_of(member.number), method)
        table.set_link(
            index,
            address=agreed.address,
            local=agreed.local,
            mtu=agreed.mtu,
            mru=agreed.mru,
            mppe_rx_bits=agreed.mppe_rx_bits,
            mppe_tx_bits=agreed.mppe_tx_bits,
            stateful=agreed.stateful,
            framing=agreed.acfc | agreed.pfc << 1,
            magic=agreed.magic,
            peer_magic=agreed.peer_magic,
            echo_interval_s=LCP_ECHO_INTERVAL,
            echo_failures=LCP_ECHO_FAILURES,
        )
        table.set_state(index, STATE_ACTIVE)
        self._push(self.path.engine.up, index, member.generation)
        member.up_at = self.now()
        if not member.counted:
            self.ups += 1
            self.seconds.append(action.seconds)
        self._counted(member)
        self.report.event(
            "up",
            i=member.number,
            user=self.options.user_of(member.number),
            address=_dotted(agreed.address),
            local=_dotted(agreed.local),
            dns=[_dotted(a) for a in agreed.dns],
            auth=agreed.auth,
            mppe=agreed.mppe_tx_bits,
            mtu=agreed.mtu,
            seconds=action.seconds,
        )

    def _deactivate(self, member: Member) -> None:
        if not member.address:
            return
        self._push(self.path.engine.down, member.index, member.generation)
        self.path.table.set_state(member.index, STATE_STARTING)
        try:
            self.path.device.delete_address(member.address)
        except NetlinkError as e:
            self.report.event("trouble", i=member.number, reason=str(e))
        member.address = 0

    def _counted(self, member: Member) -> None:
        if not member.counted:
            member.counted = True
            self._starting -= 1
        self._changed.set()

    def _over(self, member: Member, action: Over) -> None:
        if member.transport is not None:
            member.transport.close()
        elif member.task is not None:
            member.task.cancel()
        event = "down" if action.was_up else "failed"
        if action.cause == "closed":
            event = "down"
        elif action.was_up:
            self.losses += 1
        else:
            self.failures += 1
        self.report.event(
            event,
            i=member.number,
            user=self.options.user_of(member.number),
            cause=action.cause,
            reason=action.reason,
            seconds=self.now() - member.up_at if action.was_up else 0.0,
        )
        self.members.pop(member.number, None)
        self._counted(member)

    # -- the engine

    def _push(self, operation: Callable[..., bool], *arguments: Any) -> None:
        """Give the engine an operation; in order, later if its ring is full."""
        if self._pending or not operation(*arguments):
            self._pending.append((operation, arguments))
            self._retry_later()

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY, self._flush)

    def _flush(self) -> None:
        self._retry = None
        while self._pending:
            operation, arguments = self._pending[0]
            if not operation(*arguments):
                self._retry_later()
                return
            self._pending.popleft()

    def _events(self) -> None:
        kinds = self.path.kinds
        while events := self.path.engine.events():
            now = self.now()
            for kind, index, generation, data in events:
                member = self._by_index.get(index)
                if member is None or member.generation != generation:
                    continue
                session = member.session
                if kind == kinds.frame:
                    session.frame(data, now)
                elif kind == kinds.installed:
                    session.installed(now)
                elif kind == kinds.removed:
                    self._removed(member)
                    continue
                elif kind == kinds.echo_lost:
                    session.broken("echo_timeout", "LCP Echo-Requests unanswered", now)
                elif kind == kinds.desync:
                    session.broken("ccp_failed", "MPPE is out of step", now)
                if session.phase is not Phase.DONE:
                    self.act(member)

    def _removed(self, member: Member) -> None:
        self.path.table.release(member.index)
        self._by_index.pop(member.index, None)
        self._free.append(member.index)
        self._changed.set()


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address))


def _dotted(address: int) -> str:
    return socket.inet_ntoa(address.to_bytes(4))
