"""The dispatcher process: `python -m dispatcher.process --boot-fd N`.

One thread, one epoll: listening sockets, control connections, the bus, the keeper.
Nothing here blocks, so that a client that says nothing, reads nothing or sends
rubbish delays nobody.
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import pwd
import random
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from dispatcher.bus import Bus, give_to
from dispatcher.calls import Control
from dispatcher.counters import Counters, QuietLog
from dispatcher.deposit import Deposit
from dispatcher.exchange import Exchange
from dispatcher.pptp.connection import (
    Action,
    CallCleared,
    CallRequested,
    Closed,
    Connection,
    ConnectionSettings,
    Count,
    Ending,
    Event,
    LinkInfo,
    Send,
    Started,
)
from dispatcher.pptp.messages import field_text
from dispatcher.sockets import ControlSocket, Listener, connection_limit
from fastpath.layout import Table
from ops import boot as boot_module
from ops import settings as settings_module
from ops.boot import Boot
from ops.log import LEVELS, Log, Value
from ops.messages import Message, MessageError
from ops.peers import Peers
from ops.privileges import FALLBACK_ID, FALLBACK_USER, die_with_parent, drop
from ops.ranges import format_address, parse_address
from ops.settings import Settings
from ops.trace import FROM_CLIENT, PPTP, TO_CLIENT, Subject, Teller

NICE: Final = 10  # the data threads of the workers come first
TICK_S: Final = 1.0
PENDING_MAX: Final = 16384  # octets for a client, which the vault keeps as well
CLOSING_S: Final = 1.0  # for the client to take our last words and close
SOFT_STOP_S: Final = 3.5  # LCP Terminate and its answers
STOP_S: Final = 5.0
KEEPER_MESSAGE: Final = 4 << 20
EXIT_UNAVAILABLE: Final = 69
ACL: Final = "listen.allow and listen.deny"
TCP_BROKEN: Final = "TCP broke while we were sending"

RESULTS: Final[dict[Ending, str]] = {
    Ending.CLOSED_BY_PEER: "closed",
    Ending.STOPPED_BY_PEER: "closed",
    Ending.STOPPED_BY_US: "closed",
    Ending.START_TIMEOUT: "timeout",
    Ending.CALL_TIMEOUT: "timeout",
    Ending.ECHO_TIMEOUT: "timeout",
    Ending.PROTOCOL_ERROR: "protocol_error",
    Ending.INTERNAL_ERROR: "protocol_error",
}


def connection_settings(settings: Settings) -> ConnectionSettings:
    """What control connections need of the configuration."""
    listen = settings.listen
    return ConnectionSettings(
        host_name=settings.server.name,
        window=settings.gre.window,
        start_timeout=listen.start_timeout_s,
        call_timeout=listen.call_timeout_s,
        echo_interval=listen.echo_interval_s,
        echo_timeout=listen.echo_timeout_s,
    )


class Dispatcher:
    """The loop and all that it watches."""

    def __init__(self, boot: Boot, bus: Bus, table: Table, log: Log, limit: int) -> None:
        self._settings = boot.settings
        self._log = log
        self._quiet = QuietLog(log)
        self._table = table
        self._counters = Counters(table)
        self._bus = bus
        self._max_connections = limit
        self._peers = Peers(boot.settings.listen.allow, boot.settings.listen.deny)
        self._protocol_settings = connection_settings(boot.settings)
        now = time.monotonic()
        self._deposit = Deposit(boot.fds["vault"], log, self._descriptor_of)
        self._controls: dict[int, ControlSocket] = {}  # by number
        self._by_fd: dict[int, ControlSocket] = {}
        self._of_ip: dict[int, int] = {}
        self._next_number = 1
        taken_over = self._take_over(now)
        self._exchange = Exchange(
            table=table,
            settings=boot.settings,
            log=log,
            counters=self._counters,
            bus=bus,
            carry=self._carry_exchange,
            entropy=random.SystemRandom(),
            now=now,
            teller=Teller(boot.run_dir),
            controls={c.control.number: c.control for c in taken_over},
        )
        self._closing: dict[int, ControlSocket] = {}  # by descriptor
        self._timers: list[tuple[float, int]] = []
        self._stop_by: float | None = None  # we are stopping
        self._soft_until = 0.0
        self._tick_at = now
        self._done = False
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[float], None]] = {}
        self._listeners: list[Listener] = []
        for fd in boot.fds["listeners"]:
            listener = Listener(fd)
            self._listeners.append(listener)
            self._watch(listener.fileno(), self._acceptor(listener))
        self._keeper = socket.socket(fileno=boot.fds["keeper"])
        self._keeper.setblocking(False)
        self._watch(self._keeper.fileno(), self._keeper_readable)
        self._watch(bus.fileno(), lambda now: None)  # drained after every round
        self._watch(self._deposit.fileno(), lambda now: self._fill_vault())
        for connection in taken_over:
            self._epoll.register(connection.sock.fileno(), select.EPOLLIN)
            self._watch_output(connection)
            self._schedule(connection)
        self._hang_up(now)

    # -- the vault

    def _descriptor_of(self, number: int) -> int | None:
        connection = self._controls.get(number)
        return None if connection is None else connection.sock.fileno()

    def _take_over(self, now: float) -> list[ControlSocket]:
        """Connections of a dispatcher before us; their calls are found in the records."""
        found = self._deposit.collect()
        # A number is never given twice, or a call would be taken for another connection's.
        self._next_number = 1 + max((s.connection for s in self._table.sessions()), default=0)
        taken: list[ControlSocket] = []
        for number, sock, rest, pending in found:
            self._next_number = max(self._next_number, number + 1)
            try:
                peer, port = sock.getpeername()
                local = parse_address(sock.getsockname()[0])
            except OSError:  # it was reset meanwhile: its calls end as those of no connection
                sock.close()
                self._deposit.drop(number)
                continue
            address = parse_address(peer)
            protocol = Connection.resumed(self._protocol_settings, rest, now)
            connection = ControlSocket(sock, Control(number, address, port, local, protocol), now)
            connection.started = connection.held = True
            connection.noted = rest, pending
            if pending:
                connection.send(pending)
            self._controls[number] = connection
            self._by_fd[sock.fileno()] = connection
            self._of_ip[address] = self._of_ip.get(address, 0) + 1
            taken.append(connection)
        self._counters.set("connections_open", len(self._controls))
        if taken:
            self._log.notice("control connections taken over", connections=len(taken))
        return taken

    def _fill_vault(self) -> None:
        """Another vault has begun, with nothing in it."""
        if not self._deposit.began_anew():
            return
        self._deposit.forget()
        held = [c for c in self._controls.values() if c.held]
        for connection in held:
            number = connection.control.number
            self._deposit.hold(number)
            if any(connection.noted):
                self._deposit.note(number, *connection.noted)
        self._log.info("the vault has all control connections", connections=len(held))

    def _note(self, connection: ControlSocket) -> None:
        """Tell the vault what a successor would need, where there is anything.

        A client that leaves so much unread that the vault would fill is not held for one.
        """
        number = connection.control.number
        wanted = connection.started and connection.queued <= PENDING_MAX
        if wanted and not connection.held:
            connection.held = True
            self._deposit.hold(number)
        elif connection.held and not wanted:
            connection.held = False
            connection.noted = b"", b""
            self._deposit.drop(number)
        if not connection.held:
            return
        now = connection.control.protocol.rest, connection.unsent if connection.pending else b""
        if now != connection.noted:
            connection.noted = now
            self._deposit.note(number, *now)

    # -- the loop

    def _watch(self, fd: int, handler: Callable[[float], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> int:
        """Serve until the keeper says stop, or is gone; the exit status."""
        self._tell_keeper({"type": "ready"})
        self._log.notice(
            "dispatcher serves",
            max_connections=self._max_connections,
            slots=min(self._settings.limits.max_sessions, self._table.capacity),
            workers=self._table.workers,
        )
        now = time.monotonic()
        self._turn(now)
        while not self._done:
            events = self._epoll.poll(max(0.0, self._wake_at() - time.monotonic()), 256)
            now = time.monotonic()
            for fd, mask in events:
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(now)
                    continue
                connection = self._by_fd.get(fd)
                if connection is not None:
                    self._guarded(connection, self._connection_ready, mask, now)
            self._turn(now)
        self._close_all()
        return 0

    def _turn(self, now: float) -> None:
        """What every round ends with: bus, timers, tick."""
        self._drain_bus(now)
        while self._timers and self._timers[0][0] <= now:
            connection = self._controls.get(heapq.heappop(self._timers)[1])
            if connection is not None:
                self._guarded(connection, self._timer, now)
        due = self._exchange.timer_at
        if due is not None and due <= now:
            self._exchange.handle_timers(now)
        if now >= self._tick_at:
            self._tick(now)
        if self._stop_by is not None:
            self._stopping(now)
        if self._deposit.unsaid:
            self._deposit.flush()
        # Sends above may have used up the edge of ZeroMQ's descriptor.
        self._drain_bus(now)

    def _wake_at(self) -> float:
        at = self._tick_at
        if self._timers:
            at = min(at, self._timers[0][0])
        due = self._exchange.timer_at
        if due is not None:
            at = min(at, due)
        if self._stop_by is not None:
            at = min(at, time.monotonic() + 0.1)
        return at

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK_S
        self._table.dispatcher_beat()
        self._exchange.tick(now)
        for connection in [c for c in self._closing.values() if now >= (c.closing_at or 0.0)]:
            self._close_socket(connection)

    # -- the bus

    def _drain_bus(self, now: float) -> None:
        self._bus.flush()
        for peer, message in self._bus.receive():
            self._counters.add("bus_messages_received")
            if isinstance(message, MessageError):
                self._exchange.bad_message(peer, message, now)
            else:
                self._bus_message(peer, message, now)
        self._bus.flush()
        for peer in self._bus.gone():
            self._exchange.peer_gone(peer, now)

    def _bus_message(self, peer: bytes, message: Message, now: float) -> None:
        """As `_guarded`: at worst the one call that the message is about hangs for a while."""
        try:
            self._exchange.message(peer, message, now)
        except Exception as e:
            self._counters.add("bus_errors")
            self._fault(e, peer=peer, message=type(message).__name__)

    def _fault(self, error: Exception, **fields: Value) -> None:
        """A bug of ours, in one line."""
        at = traceback.extract_tb(error.__traceback__)[-1]
        self._log.error(
            "internal error",
            **fields,
            reason=f"{type(error).__name__}: {error}",
            at=f"{os.path.basename(at.filename)}:{at.lineno}",
        )

    # -- new connections

    def _acceptor(self, listener: Listener) -> Callable[[float], None]:
        def acceptable(now: float) -> None:
            for accepted in listener.accept():
                if isinstance(accepted, OSError):
                    reason = f"{accepted.strerror}: raise LimitNOFILE or lower the load"
                    self._turned_away("descriptors", "-", reason, now)
                else:
                    self._accepted(*accepted, now)

        return acceptable

    def _accepted(self, sock: socket.socket, peer: str, port: int, now: float) -> None:
        address = parse_address(peer)
        if not self._peers.allowed(address):
            sock.close()
            self._counters.add("connections_refused_acl")
            self._quiet.warning("acl", "control connection refused", now, peer=peer, reason=ACL)
            return
        if self._exchange.bans.source_left(address, now):
            sock.close()
            self._counters.add("connections_refused_ban")
            reason = "too many wrong passwords from this address (bans)"
            self._quiet.warning("ban", "control connection refused", now, peer=peer, reason=reason)
            return
        limits = self._settings.limits
        mine = self._of_ip.get(address, 0)
        if len(self._by_fd) >= self._max_connections:
            reason = f"{self._max_connections} control connections (limits.max_connections)"
        elif limits.per_ip_connections and mine >= limits.per_ip_connections:
            reason = f"{mine} connections of this address (limits.per_ip_connections)"
        else:
            reason = ""
        if reason:
            sock.close()
            self._turned_away("connections", peer, reason, now)
            return
        try:
            local = parse_address(sock.getsockname()[0])
        except OSError:
            local = 0
        control = Control(
            self._next_number, address, port, local, Connection(self._protocol_settings, now)
        )
        self._next_number += 1
        connection = ControlSocket(sock, control, now)
        self._controls[control.number] = connection
        self._by_fd[sock.fileno()] = connection
        self._of_ip[address] = mine + 1
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._counters.add("connections_accepted")
        self._counters.set("connections_open", len(self._controls))
        self._log.info("control connection open", peer=peer, port=port, number=control.number)
        self._schedule(connection)

    def _turned_away(self, kind: str, peer: str, reason: str, now: float) -> None:
        self._counters.add("connections_refused_limit")
        self._counters.add("refused_connection_limit")
        self._quiet.warning(kind, "control connection refused", now, peer=peer, reason=reason)

    # -- connections there are

    def _connection_ready(self, connection: ControlSocket, mask: int, now: float) -> None:
        if mask & select.EPOLLOUT:
            self._flush(connection)
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        data = connection.receive()
        if data is None:
            return
        if connection.closing_at is not None:  # what still comes is not read any more
            if not data:
                self._close_socket(connection)
            return
        protocol = connection.control.protocol
        if not data:
            self._carry(connection, protocol.eof(), now)
            return
        if self._exchange.teller.traces:
            self._trace(connection.control, FROM_CLIENT, data)
        before = protocol.messages_received
        actions = protocol.receive(data, now)
        self._note(connection)  # half a message, before what the whole ones before it lead to
        self._counters.add("control_messages_received", protocol.messages_received - before)
        self._carry(connection, actions, now)

    def _guarded(
        self, connection: ControlSocket, work: Callable[..., None], *arguments: Any
    ) -> None:
        """A fault of ours ends the one connection that met it, not everybody's sessions."""
        try:
            work(connection, *arguments)
        except Exception as e:
            control = connection.control
            self._fault(e, peer=format_address(control.peer), number=control.number)
            self._closed(connection, Ending.INTERNAL_ERROR, "internal error", arguments[-1])
            self._close_socket(connection)

    def _carry_exchange(self, control: Control, actions: list[Action], now: float) -> None:
        connection = self._controls.get(control.number)
        if connection is not None:
            self._carry(connection, actions, now)

    def _carry(self, connection: ControlSocket, actions: list[Action], now: float) -> None:
        """Do what the protocol asks for, in order."""
        control = connection.control
        for action in actions:
            if control.number not in self._controls:
                return  # the answer to an action before this one found TCP broken
            match action:
                case Send(data):
                    self._counters.add("control_messages_sent")
                    if self._exchange.teller.traces:
                        self._trace(control, TO_CLIENT, data)
                    if not connection.send(data):
                        # As if the client had closed; unless what was to be sent was the
                        # last word of a protocol that is over: its Closed comes next.
                        text = "the client reads nothing" if connection.pending else TCP_BROKEN
                        self._carry(connection, control.protocol.eof(text), now)
                case CallRequested(number, request):
                    self._exchange.call_requested(control, number, request, now)
                case CallCleared(number):
                    self._exchange.call_cleared(control, number, now)
                case LinkInfo(number, send, receive):
                    self._exchange.link_info(control, number, send, receive)
                case Count(event, text):
                    self._count(connection, event, text, now)
                case Started(host_name, vendor):
                    connection.started = True
                    self._log.debug(
                        "control connection started",
                        number=control.number,
                        host=field_text(host_name),
                        vendor=field_text(vendor),
                    )
                case Closed(ending, text, _):
                    self._closed(connection, ending, text, now)
                    return
        if connection.control.number in self._controls:
            self._schedule(connection)
            self._watch_output(connection)
            self._note(connection)

    def _count(self, connection: ControlSocket, event: Event, text: str, now: float) -> None:
        self._counters.add(event.value)
        if text:
            peer = format_address(connection.control.peer)
            level_up = event in (Event.PROTOCOL_ERROR, Event.BAD_REQUEST, Event.INCOMING_CALL)
            if level_up:
                self._quiet.warning(event.value, "control message", now, peer=peer, reason=text)
            else:
                self._log.debug("control message", peer=peer, reason=text)

    def _closed(self, connection: ControlSocket, ending: Ending, text: str, now: float) -> None:
        """The protocol is over: its calls end, TCP follows when the last words are out."""
        control = connection.control
        if self._controls.pop(control.number, None) is None:
            return
        left = self._of_ip.get(control.peer, 0) - 1
        if left > 0:
            self._of_ip[control.peer] = left
        else:
            self._of_ip.pop(control.peer, None)
        calls = len(control.calls)
        self._counters.add(f"connections_{RESULTS[ending]}")
        self._counters.set("connections_open", len(self._controls))
        self._log.info(
            "control connection closed",
            peer=format_address(control.peer),
            number=control.number,
            reason=text,
            seconds=round(now - connection.opened, 1),
            calls=calls,
        )
        self._exchange.control_closed(control, ending, text, now)
        if ending is Ending.CLOSED_BY_PEER:
            self._close_socket(connection)
            return
        # Closing with octets unread sends a reset, which can overtake our last message.
        connection.closing_at = now + CLOSING_S
        self._closing[connection.sock.fileno()] = connection
        self._flush(connection)

    def _flush(self, connection: ControlSocket) -> None:
        if not connection.flush():
            if connection.closing_at is not None:
                self._close_socket(connection)
            return  # else the broken connection is found at the next read
        if connection.closing_at is not None and not connection.pending:
            try:
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close_socket(connection)
                return
        self._watch_output(connection)
        self._note(connection)

    def _watch_output(self, connection: ControlSocket) -> None:
        if connection.pending == connection.watched:
            return
        connection.watched = connection.pending
        mask = select.EPOLLIN | (select.EPOLLOUT if connection.pending else 0)
        self._epoll.modify(connection.sock.fileno(), mask)

    def _close_socket(self, connection: ControlSocket) -> None:
        fd = connection.sock.fileno()
        if fd < 0:
            return
        self._closing.pop(fd, None)
        self._by_fd.pop(fd, None)
        self._epoll.unregister(fd)
        if connection.held:
            # The vault's duplicate keeps it open: closing alone would tell the client nothing.
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._deposit.drop(connection.control.number)
        connection.sock.close()

    def _trace(self, control: Control, direction: int, data: bytes) -> None:
        """Octets of a control connection, to who traces it or one of its calls."""
        teller = self._exchange.teller
        subjects = [self._exchange.subject(call) for call in control.calls.values()]
        subjects = subjects or [Subject("", "", 0, control.peer, True)]
        for trace in teller.traces:
            for subject in subjects:
                if trace in teller.of(subject):
                    teller.tell(trace, subject, direction, PPTP, data)
                    break

    # -- timers

    def _schedule(self, connection: ControlSocket) -> None:
        """See that the heap has an entry no later than the protocol's next time."""
        at = connection.control.protocol.timer_at
        if at is not None and (connection.scheduled is None or at < connection.scheduled):
            connection.scheduled = at
            heapq.heappush(self._timers, (at, connection.control.number))

    def _timer(self, connection: ControlSocket, now: float) -> None:
        connection.scheduled = None
        self._carry(connection, connection.control.protocol.handle_timer(now), now)

    # -- the keeper

    def _tell_keeper(self, message: dict[str, Any]) -> None:
        try:
            self._keeper.send(json.dumps(message).encode())
        except OSError as e:
            self._log.error("the keeper does not hear", reason=e.strerror)

    def _keeper_readable(self, now: float) -> None:
        try:
            data = self._keeper.recv(KEEPER_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._log.error("the keeper is gone: exit")
            self._done = True
            return
        try:
            message = json.loads(data)
            kind = message["type"]
        except (ValueError, KeyError, TypeError):
            self._log.error("unreadable message from the keeper", octets=len(data))
            return
        if kind == "stop":
            self._stop(now)
        elif kind == "log":
            self._log.order(message)
        elif kind == "settings":
            text = json.dumps(message["settings"]).encode()
            self._configure(settings_module.loads(text), now)
        else:
            self._log.debug("message from the keeper ignored", type=str(kind))

    def _hang_up(self, now: float) -> None:
        """End what there is of peers that may not connect any more: their GRE goes with it."""
        unwanted = [c for c in self._controls.values() if not self._peers.allowed(c.control.peer)]
        for connection in unwanted:
            control = connection.control
            self._exchange.end_all(control, "admin_reset", f"denied by {ACL}", now)
            self._carry(connection, control.protocol.stop(now), now)
        if unwanted:
            self._log.notice("connections of denied peers ended", connections=len(unwanted))

    def _configure(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._log.level = LEVELS[settings.log.level]
        self._log.style = settings.log.format
        self._max_connections = connection_limit(settings.limits.max_connections)
        self._protocol_settings = connection_settings(settings)
        for connection in self._controls.values():
            connection.control.protocol.settings = self._protocol_settings
            self._schedule(connection)
        self._exchange.configure(settings)
        self._peers = Peers(settings.listen.allow, settings.listen.deny)
        self._hang_up(now)
        self._log.notice(
            "settings taken over",
            **{f"pool_{name}": f"{held}/{size}" for name, size, held in self._exchange.pools()},
        )

    def _stop(self, now: float) -> None:
        """End properly: LCP Terminate, Call-Disconnect-Notify, Stop, FIN."""
        if self._stop_by is not None:
            return
        self._stop_by = now + STOP_S
        self._soft_until = now + SOFT_STOP_S
        self._log.notice(
            "stopping", sessions=len(self._exchange.calls), connections=len(self._controls)
        )
        for listener in self._listeners:
            self._epoll.unregister(listener.fileno())
            del self._handlers[listener.fileno()]
        self._exchange.stop(now)
        for connection in list(self._controls.values()):
            if not connection.control.protocol.calls:
                self._carry(connection, connection.control.protocol.stop(now), now)

    def _stopping(self, now: float) -> None:
        if now >= self._soft_until:
            self._soft_until = float("inf")
            self._exchange.abandon(now)
            for connection in list(self._controls.values()):
                self._carry(connection, connection.control.protocol.stop(now), now)
        told = not self._controls and not any(c.pending for c in self._closing.values())
        waited = not self._exchange.calls or self._soft_until == float("inf")
        if (told and waited) or now >= (self._stop_by or 0.0):
            self._done = True

    def _close_all(self) -> None:
        for connection in list(self._by_fd.values()):
            self._close_socket(connection)
        for listener in self._listeners:
            listener.close()
        self._deposit.flush()
        self._log.notice("dispatcher ends", sessions_left=len(self._exchange.calls))
        self._bus.close()


def _ids(user: str) -> tuple[int, int]:
    """Whom `drop` will make us."""
    for name in (user, FALLBACK_USER):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return account.pw_uid, account.pw_gid
    return FALLBACK_ID, FALLBACK_ID


def main() -> int:
    die_with_parent()
    # Ctrl-C in a terminal reaches every process of the service; the keeper says what to do.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    boot = boot_module.load()
    settings = boot.settings
    log = Log("dispatcher", level=LEVELS[settings.log.level], style=settings.log.format)
    os.nice(NICE)  # before ZeroMQ starts its threads, which inherit it
    limit = connection_limit(settings.limits.max_connections)
    table = Table.attach(boot.fds["table"])
    try:
        bus = Bus(boot.bus_address)
    except OSError as e:
        log.error("can't bind the bus", address=boot.bus_address, reason=e.strerror)
        return EXIT_UNAVAILABLE
    give_to(boot.bus_address, *_ids(settings.server.user or "root"))
    drop(settings.server.user)
    dispatcher = Dispatcher(boot, bus, table, log, limit)
    gc.collect()
    gc.freeze()
    return dispatcher.run()


if __name__ == "__main__":
    sys.exit(main())
