"""Where control connections and workers meet: admission, call IDs, records, endings.

No socket and no clock here: the owner brings what arrived and `now`; messages to
workers leave by `send`, actions of control connections by `carry`. The truth about a
session is its record in the shared table; a Call is what the dispatcher adds to it.

A record is taken in `call_requested` and freed in `_ended`, nowhere else.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Protocol, TypeVar

from dispatcher.answers import DISCONNECTED, REFUSED
from dispatcher.bans import Bans
from dispatcher.callids import CallIds
from dispatcher.calls import (
    TABLE,
    Call,
    CallEvent,
    CallState,
    Control,
    Handle,
    found_in,
    mark,
    matches,
)
from dispatcher.changes import Changes
from dispatcher.counters import Counters, QuietLog
from dispatcher.ends import LEFT, TEXT_MAX, History, explained, sentence
from dispatcher.placement import LOST_S, Placement, Worker
from dispatcher.pools import Addresses, Grant, NoAddress
from dispatcher.pools6 import NoPrefix, Prefixes6
from dispatcher.pptp.connection import Action, Ending
from dispatcher.pptp.messages import OutgoingRequest
from dispatcher.rates import StartRates
from fastpath.layout import FREE, STATIC_POOL, Session, Table
from ops.log import Log
from ops.messages import (
    VERSION,
    Admit,
    Admitted,
    Applied,
    Apply,
    BanList,
    Banned,
    Change,
    Changed,
    Down,
    Drain,
    Drained,
    End,
    Ended,
    Ends,
    Failed,
    Heartbeat,
    Hello,
    Install,
    Installed,
    LinkInfo,
    ListBans,
    Message,
    MessageError,
    PastCalls,
    Refused,
    Terminate,
    Terminated,
    Traces,
    Unban,
    Unbanned,
    Unwatch,
    Up,
    Watch,
    Watched,
    Welcome,
)
from ops.metrics import AUTH_METHODS, END_CAUSES
from ops.networks import Network
from ops.ranges import format_address
from ops.realms import split
from ops.settings import Settings
from ops.trace import BY, TRACES_MAX, Subject, Teller, fits

INSTALL_TIMEOUT_S: Final = 5.0
END_AGAIN_S: Final = 5.0  # End is said again until Ended comes
END_HARD_S: Final = 15.0  # and no longer softly

Key = TypeVar("Key", bound=Hashable)

GRANTED6: Final = ("link prefix", "delegated prefix", "address")  # as Admit.six has them


ENDING_CAUSES: Final[dict[Ending, str]] = {
    Ending.CLOSED_BY_PEER: "lost_carrier",
    Ending.STOPPED_BY_PEER: "user_request",
    Ending.STOPPED_BY_US: "admin_reboot",
    Ending.START_TIMEOUT: "lost_service",
    Ending.CALL_TIMEOUT: "lost_service",
    Ending.ECHO_TIMEOUT: "lost_service",
    Ending.PROTOCOL_ERROR: "protocol_error",
    Ending.INTERNAL_ERROR: "internal_error",
}


class Bus(Protocol):
    """What of dispatcher.bus is used here."""

    def send(self, peer: bytes, message: Message) -> None: ...
    def backlog(self, peer: bytes) -> int: ...
    def forget(self, peer: bytes) -> None: ...


class Exchange:
    """All calls of the box."""

    def __init__(
        self,
        *,
        table: Table,
        settings: Settings,
        log: Log,
        counters: Counters,
        bus: Bus,
        carry: Callable[[Control, list[Action], float], None],
        entropy: random.Random,
        now: float,
        teller: Teller,
        controls: dict[int, Control] | None = None,
    ) -> None:
        """`controls`: the connections that were taken over, by number, without their calls."""
        self._table = table
        self.teller = teller
        self._settings = settings
        self._log = log
        self._quiet = QuietLog(log)
        self._count = counters.add
        self._gauge = counters.set
        self._bus = bus
        self._carry = carry
        self.stopping = False
        self.placement = Placement(table.workers, bus.backlog)
        self.placement.draining = frozenset(table.draining)
        self.addresses = Addresses(settings)
        self.prefixes6 = Prefixes6(settings)
        self.calls: dict[int, Call] = {}  # by index
        self._by_worker: list[set[int]] = [set() for _ in range(table.workers)]
        self._starting = 0
        self._of_ip: dict[int, int] = {}
        self._of_user: dict[int, dict[int, Call]] = {}  # admitted, oldest first, by mark
        self._of_realm: dict[int, int] = {}
        self._rates = StartRates()
        self.bans = Bans(settings.bans)
        # Admissions that wait for another session's end, by that one's record.
        self._admit_later: dict[int, list[Admit]] = {}
        self._of_peer_call: dict[tuple[int, int], int] = {}  # address, its call ID
        self._changes = Changes()
        self.history = History()
        self._free: deque[int] = deque()
        self._install_due: deque[tuple[float, Handle]] = deque()
        self._gre_due: deque[tuple[float, Handle]] = deque()
        self._end_due: deque[tuple[float, Handle]] = deque()
        used = self._adopt(controls or {}, now)
        self.call_ids = CallIds(table.workers, used, entropy)

    def _adopt(self, controls: dict[int, Control], now: float) -> set[int]:
        """Records a dispatcher before us left: calls of connections that were taken over go on,
        and those of connections that died with it end, as soon as their workers say Hello."""
        used: set[int] = set()
        orphans = 0
        for index in range(self._table.capacity):
            if self._table.allot_state(index)[1] == FREE:
                self._free.append(index)
                continue
            s = self._table.session(index)
            call = Call(
                index=index,
                generation=s.generation,
                sid=s.sid,
                worker=s.worker,
                call_id=s.call_id,
                peer_call_id=s.peer_call_id,
                peer=s.peer_address,
                state=found_in(s),
                control=controls.get(s.connection),
                accepted=s.answered,
                accepted_at=now,
                was_up=s.up_ns != 0,
                user=s.name,
                user_mark=s.user_mark,
                realm_mark=s.realm_mark,
                local=s.granted_local,
            )
            used.add(s.call_id)
            self._hold(call, s)
            self._enter(call)
            if call.user_mark:
                self._enter_user(call)
            if call.control is None:
                orphans += 1
                self._orphan(call, now)
            else:
                self._go_on(call, call.control, s, now)
        if self.calls:
            self._log.warning(
                "calls of the dispatcher before this one taken over",
                calls=len(self.calls) - orphans,
                end=orphans,
            )
        return used

    def _hold(self, call: Call, s: Session) -> None:
        """What admission gave it is still its own."""
        if s.granted_address and self.addresses.hold(s.granted_address, call):
            call.address = s.granted_address
        given = (Network(*found) for found in self._table.granted6(s.index) if found[1])
        call.prefixes6 = tuple(net for net in given if self.prefixes6.hold(net, call))

    def _orphan(self, call: Call, now: float) -> None:
        """Its control connection is gone: the client has hung up, or will."""
        self._table.set_ending(call.index)
        call.state = CallState.ENDING
        call.accepted = True
        call.cause = "lost_carrier"
        call.reason = "the dispatcher before this one died, and the control connection with it"
        call.soft = True
        call.ending_since = now
        self._end_due.append((now + END_AGAIN_S, call.handle))

    def _go_on(self, call: Call, control: Control, s: Session, now: float) -> None:
        call.number = control.protocol.resume_call(
            s.call_id, s.peer_call_id, s.peer_speed, answered=s.answered
        )
        control.calls[call.number] = call
        match call.state:
            case CallState.INSTALLING | CallState.STARTING:
                self._starting += 1
                if call.accepted:
                    due = now + self._settings.listen.gre_timeout_s
                    self._gre_due.append((due, call.handle))
                else:
                    self._install_due.append((now + INSTALL_TIMEOUT_S, call.handle))
            case CallState.ENDING:
                # Why is its worker's to say; the client may have been told already.
                call.cause = "lost_carrier"
                call.reason = "it was ending when the dispatcher before this one died"
                call.ending_since = now
                self._end_due.append((now + END_AGAIN_S, call.handle))

    # -- from control connections

    def call_requested(
        self, control: Control, number: int, request: OutgoingRequest, now: float
    ) -> None:
        """Outgoing-Call-Request: take a slot, a call ID and a record, and install."""
        self._count("calls_requested")
        if number not in control.protocol.calls:
            return  # cleared, or the connection ended, by what was read together with it
        limits = self._settings.limits
        peer = control.peer
        slots = min(limits.max_sessions, self._table.capacity)
        refuse = ""
        text = ""
        if self.stopping or self._table.stopping:
            refuse, text = "shutting_down", "the concentrator is stopping"
        elif len(self.calls) >= slots or not self._free:
            refuse = "no_slot"
            text = f"all {slots} slots are in use; raise limits.max_sessions"
            if slots < limits.max_sessions:
                text = f"all {slots} slots are in use; limits.max_sessions needs a restart to grow"
        elif limits.per_ip_sessions and self._of_ip.get(peer, 0) >= limits.per_ip_sessions:
            refuse = "per_ip_limit"
            text = f"{limits.per_ip_sessions} sessions of this address (limits.per_ip_sessions)"
        elif left := self.bans.source_left(peer, now):
            refuse = "banned"
            text = f"too many wrong passwords from this address (bans); {left:.0f} s are left"
        elif not self._rates.allow(peer, limits.per_ip_starts_per_minute, now):
            refuse = "start_rate"
            text = (
                f"more than {limits.per_ip_starts_per_minute} calls of this address in a minute"
                " (limits.per_ip_starts_per_minute)"
            )
        elif self._starting >= limits.max_starting:
            refuse = "starting_limit"
            text = f"{self._starting} calls are being set up (limits.max_starting)"
        if refuse:
            self._refuse(control, number, refuse, text, now)
            return
        worker = self.placement.pick(now, lambda w: self.call_ids.available(w, now))
        call_id = self.call_ids.take(worker.index, now) if worker is not None else None
        if worker is None or call_id is None:
            self._refuse(control, number, "no_worker", self.placement.why_none(now), now)
            return
        index = self._free.popleft()
        generation, sid = self._table.allot(
            index,
            worker=worker.index,
            call_id=call_id,
            peer_call_id=request.call_id,
            local_address=control.local,
            peer_address=peer,
            peer_port=control.peer_port,
            peer_window=request.window,
            peer_speed=request.max_bps,
            connection=control.number,
        )
        call = Call(
            index=index,
            generation=generation,
            sid=sid,
            worker=worker.index,
            call_id=call_id,
            peer_call_id=request.call_id,
            peer=peer,
            state=CallState.INSTALLING,
            control=control,
            number=number,
        )
        self._enter(call)
        self._starting += 1
        control.calls[number] = call
        control.protocol.assign_call(number, call_id)
        worker.waiting.add(call.handle)
        self._install_due.append((now + INSTALL_TIMEOUT_S, call.handle))
        self._send(call.worker, Install(*call.handle))

    def call_cleared(self, control: Control, number: int, now: float) -> None:
        """The client ended the call, and has been answered."""
        call = control.calls.pop(number, None)
        if call is not None:
            call.control = None
            self._end(call, "user_request", "the client cleared the call", False, now)

    def link_info(self, control: Control, number: int, send: int, receive: int) -> None:
        """Set-Link-Info."""
        call = control.calls.get(number)
        if call is not None and call.state is not CallState.ENDING:
            self._send(call.worker, LinkInfo(*call.handle, send, receive))

    def control_closed(self, control: Control, ending: Ending, text: str, now: float) -> None:
        """The control connection is over, `text` says why: so are its calls."""
        calls = list(control.calls.values())
        control.calls.clear()
        # With TCP dead but GRE perhaps alive, LCP can still tell the client.
        soft = ending is Ending.ECHO_TIMEOUT
        for call in calls:
            call.control = None
            self._end(call, ENDING_CAUSES[ending], f"control connection: {text}", soft, now)

    def end_all(self, control: Control, cause: str, reason: str, now: float) -> None:
        """End the calls of a control connection at once, and tell its client."""
        for call in list(control.calls.values()):
            self._end(call, cause, reason, False, now)
            self._disconnect(call, cause, now)

    # -- from the bus

    def message(self, peer: bytes, message: Message, now: float) -> None:
        """A message of a worker or a console."""
        if peer.startswith(b"console-"):
            if isinstance(message, Terminate):
                self._terminate(peer, message, now)
            elif isinstance(message, ListBans):
                held = tuple(
                    (ban.kind, ban.name, math.ceil(ban.until - now), ban.level)
                    for ban in self.bans.current(now)
                )
                self._bus.send(peer, BanList(message.request, held))
            elif isinstance(message, Unban):
                self._unban(peer, message, now)
            elif isinstance(message, Change):
                self._change(peer, message, now)
            elif isinstance(message, Drain):
                self._drain(peer, message)
            elif isinstance(message, Watch):
                self._watch(peer, message)
            elif isinstance(message, Unwatch):
                self._unwatch(message.number)
                self._bus.send(peer, Watched(message.request, 0, ""))
            elif isinstance(message, Ends):
                calls = self.history.newest(message.value, message.limit)
                self._bus.send(peer, PastCalls(message.request, calls))
            else:
                self._stray(peer, message, now)
            return
        worker = self._worker(peer)
        if worker is None:
            self._stray(peer, message, now)
            return
        if isinstance(message, Hello):
            self._hello(worker, message, now)
            return
        if not worker.present:
            # Left in its queue from before a Hello: the Hello says what is true.
            self._log.debug("message before Hello", peer=peer, message=type(message).__name__)
            return
        worker.heard = now
        if worker.silent:
            worker.silent = False
            self._log.notice("worker speaks again", worker=worker.index, pid=worker.pid)
        match message:
            case Heartbeat():
                worker.credit = message.credit
            case Installed():
                self._installed(worker, message, now)
            case Admit():
                self._admit(worker, message, now)
            case Failed():
                self._failed(worker, message, now)
            case Up():
                self._up(worker, message, now)
            case Down():
                self._down(worker, message, now)
            case Applied():
                handle = (message.index, message.generation)
                self._tell_changed(self._changes.applied(message.request, handle, message.error))
            case Ended():
                call = self._find(worker, message.index, message.generation)
                if call is not None:
                    self._ended(call, now)
            case _:
                self._stray(peer, message, now)

    def bad_message(self, peer: bytes, error: MessageError, now: float) -> None:
        """Undecodable: another version, or a bug."""
        self._count("bus_errors")
        self._quiet.warning("bus", "bad bus message", now, peer=peer, reason=str(error))
        self._bus.send(peer, Refused(VERSION, str(error)))

    def peer_gone(self, peer: bytes, now: float) -> None:
        """Something was sent to a peer that is not connected any more."""
        worker = self._worker(peer)
        if worker is not None and worker.present:
            worker.present = False
            self._lost(worker, "its connection to the bus is closed", now)

    def _worker(self, peer: bytes) -> Worker | None:
        name, _, number = peer.partition(b"-")
        if name == b"worker" and number.isdigit() and int(number) < len(self.placement.workers):
            return self.placement.workers[int(number)]
        return None

    def _stray(self, peer: bytes, message: Message, now: float) -> None:
        self._count("bus_errors")
        kind = type(message).__name__
        self._quiet.warning("bus", "unexpected bus message", now, peer=peer, message=kind)

    def _find(self, worker: Worker, index: int, generation: int) -> Call | None:
        """The call that a worker's message is about, if it is still that one."""
        call = self.calls.get(index)
        if call is None or call.generation != generation or call.worker != worker.index:
            return None
        return call

    def _hello(self, worker: Worker, hello: Hello, now: float) -> None:
        """Reconcile: what is up there and not wanted ends, what is wanted and not up ends."""
        if hello.worker != worker.index:
            self._stray(worker.identity, hello, now)
            return
        again = worker.present
        self._bus.forget(worker.identity)
        worker.present = True
        worker.silent = False
        worker.heard = now
        worker.pid = hello.pid
        worker.page_pid = self._table.worker(worker.index).pid
        worker.credit = hello.credit
        asked = set(worker.waiting)
        worker.waiting.clear()
        listed = set(hello.sessions)
        busy = set(hello.starting)
        ended = set(hello.ended)
        known: set[Handle] = set()
        lost: list[Call] = []
        install: list[Call] = []
        for index in sorted(self._by_worker[worker.index]):
            call = self.calls[index]
            known.add(call.handle)
            if call.handle in ended:
                continue  # it says so again
            if call.state is CallState.ENDING:
                lost.append(call)
            elif call.state is CallState.INSTALLING:
                # Nobody asked this worker yet, or it goes on: it may be asked.
                (install if call.handle in busy or call.handle not in asked else lost).append(call)
            elif call.handle in listed:
                if call.state is CallState.STARTING:
                    self._set_up(call)
            elif call.handle not in busy:
                lost.append(call)
        ends = sorted((listed | busy) - known)
        self._send(worker.index, Welcome(VERSION, self._table.epoch, tuple(ends)))
        if users := self.bans.users(now):
            self._send(worker.index, Banned(users))
        if self.teller.traces:
            self._send(worker.index, Traces(self.teller.traces))
        for call in lost:
            if call.state is CallState.ENDING:
                self._say_end(call, now)
            else:
                self._fail(call, "worker_lost", "its worker began anew", now)
        for call in install:
            worker.waiting.add(call.handle)
            self._send(call.worker, Install(*call.handle))
        self._log.info(
            "worker said Hello",
            worker=worker.index,
            pid=hello.pid,
            sessions=len(listed),
            to_end=len(ends) + len(lost),
            again=again,
        )

    def _lost(self, worker: Worker, text: str, now: float) -> None:
        """No way to a worker: calls that wait for it are refused, sessions stay."""
        waiting = [self.calls[index] for index, _ in sorted(worker.waiting)]
        worker.waiting.clear()
        self._quiet.warning(
            "worker",
            "worker lost",
            now,
            worker=worker.index,
            pid=worker.pid,
            reason=text,
            calls_refused=len(waiting),
        )
        for call in waiting:
            self._fail(call, "worker_lost", f"worker {worker.index} is lost", now)

    def _installed(self, worker: Worker, message: Installed, now: float) -> None:
        worker.waiting.discard((message.index, message.generation))
        call = self._find(worker, message.index, message.generation)
        if call is None or call.state is not CallState.INSTALLING:
            return  # cleared or refused in the meantime, or said twice
        if not message.ok:
            text = f"worker {worker.index} can't install: {message.reason}"
            self._fail(call, "worker_lost", text, now)
            return
        self._step(call, CallEvent.INSTALLED)
        call.accepted = True
        call.accepted_at = now
        self._table.answered(call.index)
        self._count("calls_accepted")
        self._gre_due.append((now + self._settings.listen.gre_timeout_s, call.handle))
        if call.control is not None:
            control = call.control
            self._carry(control, control.protocol.accept_call(call.number, now), now)

    def _admit(self, worker: Worker, message: Admit, now: float) -> None:
        call = self._find(worker, message.index, message.generation)
        if call is None or not self._step(call, CallEvent.ADMIT):
            return
        if call.address:  # said twice: the same answer
            self._send(call.worker, Admitted(*call.handle, call.address, call.local, "", ""))
            return
        user = message.user
        refusal, older = self._over_limit(call, message)
        grant: Grant | None = None
        if not refusal[0] and not older:
            try:
                grant, older = self._address(call, message)
            except NoAddress as e:
                refusal = e.reason, e.text
        if refusal[0]:
            self._refuse_session(call, user, *refusal, now)
        elif older:
            for other in older:
                self._admit_later.setdefault(other.index, []).append(message)
                text = f"replaced by session {call.sid:016x} of user {user!r}"
                self._end(other, "replaced", text, False, now)
        elif grant is not None:
            self._grant(call, message, grant, now)

    def _over_limit(self, call: Call, message: Admit) -> tuple[tuple[str, str], list[Call]]:
        """Reason and text of a refusal; or the sessions that have to end first."""
        limits = self._settings.limits
        user = message.user
        if self.stopping:
            return ("shutting_down", "the concentrator is stopping"), []
        realm = split(message.name or user)[0]
        most = limits.per_realm_sessions
        if most and realm and self._of_realm.get(mark(realm), 0) >= most:
            text = f"{most} sessions of realm {realm!r} (limits.per_realm_sessions)"
            return ("per_realm_limit", text), []
        most = message.sessions or limits.per_user_sessions
        has = self._of_user.get(mark(user), {})
        if not most or len(has) < most:
            return ("", ""), []
        if limits.over_user_limit == "replace":
            return ("", ""), list(has.values())[: len(has) - most + 1]
        key = "of the account" if message.sessions else "limits.per_user_sessions"
        return ("per_user_limit", f"{most} sessions of user {user!r} ({key})"), []

    def _address(self, call: Call, message: Admit) -> tuple[Grant | None, list[Call]]:
        """An address, or the session that has to end before there is one."""
        if not message.address:
            return self.addresses.from_pool(message.pool, message.user, call), []
        policy = self._settings.ip.conflict
        owner = self.addresses.owner(message.address)
        if not isinstance(owner, Call) or policy == "refuse":
            return self.addresses.static(message.address, call), []
        if policy == "new":
            return None, [owner]
        self._log.notice(
            "static address in use",
            sid=f"{call.sid:016x}",
            user=message.user,
            ip=format_address(message.address),
            holder=f"{owner.sid:016x}",
            action="one of the pool instead",
        )
        return self.addresses.from_pool(message.pool, message.user, call), []

    def _refuse_session(self, call: Call, user: str, reason: str, text: str, now: float) -> None:
        self._count(f"refused_{reason}")
        self._quiet.warning(
            reason,
            "session refused",
            now,
            sid=f"{call.sid:016x}",
            user=user,
            peer=format_address(call.peer),
            reason=reason,
            text=text,
        )
        self._send(call.worker, Admitted(*call.handle, 0, 0, reason, text))

    def _grant(self, call: Call, message: Admit, grant: Grant, now: float) -> None:
        self.bans.succeeded(message.name or message.user, now)
        call.user = message.user
        call.user_mark = mark(message.user)
        call.realm_mark = mark(split(message.name or message.user)[0])
        call.address = grant.address
        call.local = grant.local
        self._enter_user(call)
        pool = STATIC_POOL if grant.pool < 0 else min(grant.pool, STATIC_POOL - 1)
        self._table.grant(
            call.index, grant.address, grant.local, pool, call.user_mark, call.realm_mark
        )
        self._grant6(call, message)
        self._send(call.worker, Admitted(*call.handle, grant.address, grant.local, "", ""))

    def _grant6(self, call: Call, message: Admit) -> None:
        """IPv6 prefixes, in the record only: what cannot be had is named in the log."""
        given: list[tuple[bytes, int]] = []
        words = iter(message.six)
        for what, text, name in zip(GRANTED6, words, words, strict=False):
            found: Network | None = None
            try:
                if text:
                    found, holder = self.prefixes6.static(text, call, what)
                    if holder is not None:
                        of = f" of user {holder.user!r}" if isinstance(holder, Call) else ""
                        sid = f"{holder.sid:016x}" if isinstance(holder, Call) else "-"
                        raise NoPrefix(f"the account's {what} {found} is session {sid}'s{of}")
                elif name:
                    found = self.prefixes6.from_pool(name, message.user, call, what)
            except NoPrefix as e:
                found = None
                self._count("prefixes6_refused")
                self._log.warning(
                    "no IPv6 prefix", sid=f"{call.sid:016x}", user=message.user, reason=str(e)
                )
            if found is not None:
                call.prefixes6 = (*call.prefixes6, found)
            given.append(found or (b"", 0))
        self._table.grant6(call.index, tuple(given))

    def _failed(self, worker: Worker, message: Failed, now: float) -> None:
        """Wrong credentials: of whom, from where, and how often by now?"""
        call = self._find(worker, message.index, message.generation)
        if call is None:
            return
        begun = self.bans.failed(message.name, call.peer, now)
        for ban in begun:
            self._count(f"bans_{ban.kind}")
            self._log.warning(
                "ban",
                kind=ban.kind,
                name=ban.name,
                seconds=round(ban.until - now),
                in_a_row=ban.level,
                peer=format_address(call.peer),
                hint="pptpcon unban lifts it",
            )
        if any(ban.kind == "user" for ban in begun):
            self._tell_bans(now)

    def _tell_bans(self, now: float) -> None:
        users = self.bans.users(now)
        for worker in self.placement.workers:
            if worker.present:
                self._send(worker.index, Banned(users))

    def _unban(self, peer: bytes, message: Unban, now: float) -> None:
        count = self.bans.lift(message.kind, message.name)
        self._log.notice("unban", kind=message.kind, name=message.name, count=count)
        self._tell_bans(now)
        self._bus.send(peer, Unbanned(message.request, count))

    def _up(self, worker: Worker, message: Up, now: float) -> None:
        call = self._find(worker, message.index, message.generation)
        if call is not None and call.state is CallState.STARTING:
            self._set_up(call)

    def _set_up(self, call: Call) -> None:
        self._step(call, CallEvent.UP)
        call.was_up = True
        self._count("sessions_started")
        s = self._table.session(call.index)
        self._log.info(
            "session up",
            sid=f"{call.sid:016x}",
            user=call.user,
            ip=format_address(s.address or call.address),
            peer=format_address(call.peer),
            worker=call.worker,
            auth=AUTH_METHODS[s.auth] if s.auth < len(AUTH_METHODS) else s.auth,
            mppe=_mppe(s),
            setup_ms=max(0, s.up_ns - s.allotted_ns) // 1_000_000,
        )

    def _down(self, worker: Worker, message: Down, now: float) -> None:
        """The link is over: tell the client; its control connection closes by itself."""
        call = self._find(worker, message.index, message.generation)
        if call is None:
            return
        cause = message.cause if message.cause in END_CAUSES else "internal_error"
        if call.state is CallState.ENDING:
            # The client went while its link was ending for a reason of its own: that one.
            if call.cause in LEFT:
                call.cause, call.reason = cause, message.reason
            return
        self._end(call, cause, message.reason, False, now)
        self._disconnect(call, call.cause, now)

    def _terminate(self, peer: bytes, message: Terminate, now: float) -> None:
        if message.by == "sids":
            chosen = set(message.value.split(","))
            calls = [call for call in self.calls.values() if f"{call.sid:016x}" in chosen]
        else:
            calls = [c for c in self.calls.values() if matches(c, message.by, message.value)]
        calls = [call for call in calls if call.state is not CallState.ENDING]
        self._log.notice(
            "terminate",
            by=message.by,
            value=message.value[:64],
            soft=message.soft,
            sessions=len(calls),
        )
        for call in calls:
            self._end(call, "admin_reset", f"terminate by {message.by}", message.soft, now)
        self._bus.send(peer, Terminated(message.request, len(calls)))

    def _drain(self, peer: bytes, message: Drain) -> None:
        draining = self.placement.draining
        chosen = set(message.workers) or set(range(self._table.workers))
        known = chosen & set(range(self._table.workers))
        draining = draining | known if message.on else draining - known
        if draining != self.placement.draining:
            self.placement.draining = draining
            self._table.set_draining(draining)
            names = ",".join(map(str, sorted(draining))) or "none"
            self._log.notice("drain" if message.on else "undrain", draining=names)
        left = sum(len(self._by_worker[worker]) for worker in draining)
        self._bus.send(peer, Drained(message.request, tuple(sorted(draining)), left))

    def _watch(self, peer: bytes, message: Watch) -> None:
        traces = self.teller.traces
        if len(traces) >= TRACES_MAX:
            reason = f"{TRACES_MAX} traces are open already; end one of them"
            self._bus.send(peer, Watched(message.request, 0, reason))
            return
        if message.by not in BY:
            reason = f"{message.by} is not one of {', '.join(BY)}"
            self._bus.send(peer, Watched(message.request, 0, reason))
            return
        trace = (message.number, message.by, message.value, message.packets)
        self._set_traces((*traces, trace))
        self._log.notice(
            "trace begins", by=message.by, value=message.value, packets=message.packets
        )
        count = sum(fits(trace, self.subject(call)) is True for call in self.calls.values())
        self._bus.send(peer, Watched(message.request, count, ""))

    def _unwatch(self, number: int) -> None:
        left = tuple(trace for trace in self.teller.traces if trace[0] != number)
        if left != self.teller.traces:
            self._log.notice("trace ends")
            self._set_traces(left)

    def _set_traces(self, traces: tuple[tuple[int, str, str, bool], ...]) -> None:
        self.teller.set(traces)
        for worker in self.placement.workers:
            if worker.present:
                self._send(worker.index, Traces(traces))

    def subject(self, call: Call) -> Subject:
        """A call as a trace chooses it."""
        s = self._table.session(call.index)
        user = call.user or s.name
        return Subject(f"{call.sid:016x}", user, call.address, call.peer, bool(call.address))

    def _change(self, peer: bytes, message: Change, now: float) -> None:
        calls = {
            call.handle: call
            for call in self.calls.values()
            if call.was_up
            and call.state is not CallState.ENDING
            and matches(call, message.by, message.value)
        }
        self._log.notice("change", by=message.by, value=message.value, sessions=len(calls))
        if not calls:
            self._bus.send(peer, Changed(message.request, 0, ()))
            return
        names = {handle: f"{call.sid:016x}" for handle, call in calls.items()}
        number = self._changes.begin(peer, message.request, names, now)
        for handle, call in calls.items():
            self._send(call.worker, Apply(*handle, number, message.changes))

    def _tell_changed(self, answer: tuple[bytes, Changed] | None) -> None:
        if answer is not None:
            self._bus.send(*answer)

    # -- time

    def tick(self, now: float) -> None:
        """Every second: heartbeats, silent workers, bans that are over, traces nobody reads."""
        if self.teller.traces:
            self.teller.probe()
            if self.teller.deaf:
                self._log.notice("traces end, their reader is gone")
                self._set_traces(())
        if self.bans.expire(now):
            self._tell_bans(now)
        self._gauge("bans_now", self.bans.holding)
        for worker in self.placement.workers:
            self._table.bus_queue(worker.index, self._bus.backlog(worker.identity))
            if not worker.present:
                continue
            if self._replaced(worker):
                worker.present = False
                self._lost(worker, "the keeper has started another", now)
                continue
            if now - worker.heard > LOST_S and not worker.silent:
                worker.silent = True
                self._lost(worker, f"silent for {now - worker.heard:.0f} s", now)
            self._send(worker.index, Heartbeat(0))

    def _replaced(self, worker: Worker) -> bool:
        """Whether the keeper has written another pid since the Hello. 0 is nobody's: it is
        about to start a successor, or there is no keeper."""
        pid = self._table.worker(worker.index).pid
        return pid not in (0, worker.pid, worker.page_pid)

    def handle_timers(self, now: float) -> None:
        """Installs without an answer, calls without GRE, Ends without Ended."""
        for _, handle in _due(self._install_due, now):
            call = self._call(handle)
            if call is not None and call.state is CallState.INSTALLING:
                self.placement.workers[call.worker].waiting.discard(handle)
                text = f"worker {call.worker} did not install within {INSTALL_TIMEOUT_S:g} s"
                self._fail(call, "worker_lost", text, now)
        for _, handle in _due(self._gre_due, now):
            call = self._call(handle)
            if call is not None and call.state is CallState.STARTING:
                self._look_for_gre(call, now)
        for answer in self._changes.overdue(now):
            self._tell_changed(answer)
        for _, handle in _due(self._end_due, now):
            call = self._call(handle)
            if call is not None:
                if now - call.ending_since >= END_HARD_S:
                    call.soft = False
                self._say_end(call, now)

    @property
    def timer_at(self) -> float | None:
        """When `handle_timers` has something to do."""
        queues = (self._install_due, self._gre_due, self._end_due)
        times = [queue[0][0] for queue in queues if queue]
        if (due := self._changes.timer_at) is not None:
            times.append(due)
        return min(times, default=None)

    def _call(self, handle: Handle) -> Call | None:
        call = self.calls.get(handle[0])
        return call if call is not None and call.generation == handle[1] else None

    def _look_for_gre(self, call: Call, now: float) -> None:
        if self._table.session(call.index).gre_rx_packets:
            return
        self._count("no_gre_seen")
        self._quiet.warning(
            "no_gre",
            "no GRE from the client: GRE (IP protocol 47) is blocked by a firewall or NAT "
            "on the way; the client will see error 619 or 806",
            now,
            sid=f"{call.sid:016x}",
            peer=format_address(call.peer),
            seconds=self._settings.listen.gre_timeout_s,
        )

    # -- from the keeper

    def configure(self, settings: Settings) -> None:
        """After a reload: sessions keep what they have."""
        self._settings = settings
        self.addresses.configure(settings)
        self.prefixes6.configure(settings)
        self.bans.configure(settings.bans)

    def stop(self, now: float) -> None:
        """No new calls; every session gets a soft end."""
        self.stopping = True
        for call in list(self.calls.values()):
            if call.state is not CallState.ENDING:
                self._end(call, "admin_reboot", "the concentrator is stopping", True, now)

    def abandon(self, now: float) -> None:
        """No more time for soft ends: tell the clients that are left."""
        for call in list(self.calls.values()):
            self._disconnect(call, call.cause or "admin_reboot", now)

    def pools(self) -> list[tuple[str, int, int]]:
        """(name, addresses, held) of each pool."""
        return self.addresses.usage()

    # -- a call's way

    def _enter(self, call: Call) -> None:
        self.calls[call.index] = call
        self._by_worker[call.worker].add(call.index)
        self.placement.workers[call.worker].used += 1
        self._of_ip[call.peer] = self._of_ip.get(call.peer, 0) + 1
        key = call.peer, call.peer_call_id
        self._of_peer_call[key] = self._of_peer_call.get(key, 0) + 1

    def _enter_user(self, call: Call) -> None:
        self._of_user.setdefault(call.user_mark, {})[call.index] = call
        self._of_realm[call.realm_mark] = self._of_realm.get(call.realm_mark, 0) + 1

    def _step(self, call: Call, event: CallEvent) -> bool:
        """Move by TABLE; False if the event does not belong to the state (any more)."""
        state = TABLE.get((call.state, event))
        if state is None:
            self._log.debug("event out of state", what=event.value, state=call.state.value)
            return False
        setting_up = (CallState.INSTALLING, CallState.STARTING)
        if call.state in setting_up and state not in setting_up:
            self._starting -= 1
        call.state = state
        return True

    def _refuse(self, control: Control, number: int, reason: str, text: str, now: float) -> None:
        self._count(f"refused_{reason}")
        self._quiet.warning(
            reason,
            "call refused",
            now,
            peer=format_address(control.peer),
            reason=reason,
            text=text,
        )
        result, error = REFUSED[reason]
        self._carry(control, control.protocol.refuse_call(number, result, error, now), now)

    def _fail(self, call: Call, cause: str, text: str, now: float) -> None:
        """Our side can't carry the call on: refuse it if it is not answered, else clear it."""
        control = call.control
        if call.state is CallState.INSTALLING and control is not None:
            control.calls.pop(call.number, None)
            call.control = None
            call.refused = True
            self._refuse(control, call.number, "worker_failed", text, now)
        else:
            self._disconnect(call, cause, now)
        self._end(call, cause, text, False, now)

    def _disconnect(self, call: Call, cause: str, now: float) -> None:
        """Call-Disconnect-Notify, if the client is there and does not know yet."""
        control = call.control
        if control is None:
            return
        call.control = None
        control.calls.pop(call.number, None)
        result, error = DISCONNECTED[cause]
        actions = control.protocol.clear_call(call.number, result, error, now)
        if self.stopping and not control.protocol.calls:
            actions += control.protocol.stop(now)
        self._carry(control, actions, now)

    def _end(self, call: Call, cause: str, reason: str, soft: bool, now: float) -> None:
        """Have the worker end it. The first cause is the one that counts."""
        if not self._step(call, CallEvent.END):
            return
        if call.accepted and not call.was_up:
            shared = self._of_peer_call[call.peer, call.peer_call_id] > 1
            cause, reason = explained(
                cause,
                reason,
                gre=self._table.session(call.index).gre_rx_packets > 0,
                waited=now - call.accepted_at,
                patience=self._settings.listen.gre_timeout_s,
                shared=call.peer_call_id if shared else None,
            )
        call.cause = cause
        call.reason = reason
        call.soft = soft
        call.ending_since = now
        self._table.set_ending(call.index)
        self.placement.workers[call.worker].waiting.discard(call.handle)
        self._say_end(call, now)

    def _say_end(self, call: Call, now: float) -> None:
        """Idempotent, so said again until Ended comes; a worker that is away hears of it
        after its Hello."""
        self._end_due.append((now + END_AGAIN_S, call.handle))
        if self.placement.workers[call.worker].present:
            self._send(call.worker, End(*call.handle, call.cause, call.soft))

    def _ended(self, call: Call, now: float) -> None:
        """Nothing of it is left at the worker: all that it had is free again."""
        if call.state is not CallState.ENDING:
            self._step(call, CallEvent.END)
            call.cause, call.reason = "internal_error", "its worker forgot it"
        self._disconnect(call, call.cause, now)
        if not call.refused:
            self._tell_end(call)
        del self.calls[call.index]
        self._by_worker[call.worker].discard(call.index)
        worker = self.placement.workers[call.worker]
        worker.used -= 1
        worker.waiting.discard(call.handle)
        _less(self._of_ip, call.peer)
        _less(self._of_peer_call, (call.peer, call.peer_call_id))
        if call.user_mark:
            sessions = self._of_user[call.user_mark]
            del sessions[call.index]
            if not sessions:
                del self._of_user[call.user_mark]
            _less(self._of_realm, call.realm_mark)
        if call.address:
            self.addresses.release(call.address)
        for net in call.prefixes6:
            self.prefixes6.release(net)
        self.call_ids.give_back(call.call_id, now)
        self._table.release(call.index)
        self._free.append(call.index)
        for waiting in self._admit_later.pop(call.index, ()):
            newcomer = self.calls.get(waiting.index)
            if newcomer is not None and newcomer.generation == waiting.generation:
                self._admit(self.placement.workers[newcomer.worker], waiting, now)

    def _tell_end(self, call: Call) -> None:
        """The one cause, to the counter, the log and the history."""
        s = self._table.session(call.index)
        # Never admitted: who the peer said it was, if it came so far.
        user = (call.user or s.name)[:TEXT_MAX]
        reason = sentence(call.reason)
        seconds = (time.monotonic_ns() - (s.up_ns or s.allotted_ns)) // 1_000_000_000
        self._count(f"ended_{call.cause}")
        if call.was_up:
            self._table.session_lasted(seconds)
        self._log.info(
            "session down" if call.was_up else "call ended before it was up",
            sid=f"{call.sid:016x}",
            user=user,
            ip=format_address(call.address) if call.address else None,
            peer=format_address(call.peer),
            worker=call.worker,
            cause=call.cause,
            reason=reason,
            seconds=seconds,
            rx_bytes=s.rx_bytes,
            tx_bytes=s.tx_bytes,
        )
        self.history.add(
            (
                time.time_ns() // 1_000_000,
                call.sid,
                user,
                call.address,
                call.peer,
                call.cause,
                reason,
                call.was_up,
                seconds,
                s.rx_bytes,
                s.tx_bytes,
            )
        )

    def _send(self, worker: int, message: Message) -> None:
        self._count("bus_messages_sent")
        self._bus.send(self.placement.workers[worker].identity, message)


def _due(queue: deque[tuple[float, Handle]], now: float) -> list[tuple[float, Handle]]:
    found = []
    while queue and queue[0][0] <= now:
        found.append(queue.popleft())
    return found


def _less(counts: dict[Key, int], key: Key) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)


def _mppe(s: Session) -> str:
    """As in the log: 128s is stateless, 40f stateful, "-" clear."""
    if not s.mppe_rx_bits and not s.mppe_tx_bits:
        return "-"
    kind = "f" if s.stateful else "s"
    if s.mppe_rx_bits == s.mppe_tx_bits:
        return f"{s.mppe_rx_bits}{kind}"
    return f"{s.mppe_rx_bits}/{s.mppe_tx_bits}{kind}"
