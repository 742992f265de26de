"""The control thread's logic: from Install to Ended, for all sessions of one worker.

No socket, no clock, no entropy, no event loop: events and the time come in by method
calls, effects go out through `Ports` and the engine's ring. An up session has no object
here; an event makes one from the record and its blob, and it goes again as soon as the
link waits for nothing. The order of each step is commit before effect: what a successor
needs is in the record before anybody outside can know of it.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import msgpack

from fastpath import layout
from ops.log import Log
from ops.messages import (
    VERSION,
    Admit,
    Admitted,
    Applied,
    Apply,
    Banned,
    Down,
    End,
    Ended,
    Failed,
    Hello,
    Install,
    Installed,
    LinkInfo,
    Message,
    Refused,
    Traces,
    Up,
    Welcome,
)
from ops.metrics import AUTH_METHODS, CONTROL_COUNTERS, END_CAUSES
from ops.networks import Network
from ops.peers import Peers
from ops.ranges import format_address
from ops.realms import user_key
from ops.settings import Settings
from ops.trace import Teller
from workers.accounts import Login
from workers.bounds import Bounds, bounds_of, reached, timeout_s
from workers.ended import LatelyEnded
from workers.ipv6.errors import RemoteError
from workers.link_policy import account_policy, policy_of
from workers.live import OVER, Handle, Live, LocalError, Phase
from workers.networks import Networks
from workers.policy import RENEWED, Policy, PolicyError, unpack_changes
from workers.ports import Engine, EventKinds, Ports
from workers.ppp.actions import (
    Action,
    Admission,
    Agreed,
    Authenticate,
    EapRelay,
    Finished,
    Network6Down,
    Network6Up,
    NetworkDown,
    NetworkUp,
    Note,
    Send,
    SetMppe,
    Verdict,
)
from workers.ppp.link import Link
from workers.secrets_file import NO_ADDRESS
from workers.session import BlobError, Saved
from workers.shaping import Limits, Shaping, block_of
from workers.six import link_of, wishes
from workers.tracing import Tracing

CREDIT: Final = 512  # Installs the dispatcher may have unanswered
POISON: Final = "workers died of its packets"
POLICY_ROOM: Final = 832  # octets of the blob for a Policy and two names; the rest is the link
HELD_FRAMES: Final = 32  # of one link while its route is made
FIRST_FRAME_WAIT_S: Final = 0.5  # from Installed to our first Configure-Request
ENGINE_WAIT_S: Final = 2.0  # for its answer; both requests may be repeated
RESUME_WAIT_S: Final = 1.0  # from a predecessor's death to its sessions' timers
SAID_AGAIN_S: Final = 60.0  # age up to which a session taken over is told of again
RESUME_SPREAD: Final = 16  # and seconds over which they are looked at
LCP: Final = b"\xc0\x21"
IPCP: Final = b"\x80\x21"
LCP_PROTOCOL_REJECT: Final = 8

BANNED: Final = Login(
    Verdict(False, reason="the user is banned after too many wrong passwords (bans)"),
    NO_ADDRESS,
    counted=False,
)

SLOTS: Final[dict[str, int]] = {name: slot for slot, name in enumerate(CONTROL_COUNTERS)}
SETUP: Final[dict[str, int]] = {name: at for at, name in enumerate(layout.SETUP_PHASE_NAMES)}


class Control:
    """All sessions of one worker; every method on the control thread."""

    def __init__(
        self,
        table: layout.Table,
        engine: Engine,
        ports: Ports,
        log: Log,
        settings: Settings,
        *,
        worker: int,
        kinds: EventKinds,
        teller: Teller,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.stopping = False
        self._table = table
        self._engine = engine
        self._ports = ports
        self._log = log
        self._worker = worker
        self._kinds = kinds
        self._entropy = entropy
        self._settings = settings
        self._policy = policy_of(settings)
        self._shaping = Shaping(settings)
        self._block = block_of(settings)
        self._live: dict[int, Live] = {}  # by index
        self._backlog: deque[tuple[Callable[..., bool], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, int]] = []  # deadline, index, generation
        self._wakes: dict[Handle, float] = {}  # up and at rest, with an entry in _timers
        self._identifiers: dict[bytes, Handle] = {}  # IPv6CP: by the subscriber's
        self._networks = Networks(table, engine, ports, log, self._push, self.count)
        self._banned: frozenset[str] = frozenset()  # users whom no password helps
        self._tracing = Tracing(table, worker, teller, self._trace)
        self._refused_unseen: list[tuple[Handle, bool]] = []  # banned; whether by EapRelay
        self._poisoned: set[Handle] = set()  # told in Hello, and ended by their cause
        self._ended = LatelyEnded()  # lately: a dispatcher that begins anew may not know

    # -- what the owner asks

    @property
    def busy(self) -> int:
        """Sessions with an object."""
        return len(self._live)

    @property
    def credit(self) -> int:
        """Installs the dispatcher may have unanswered."""
        return 0 if self.stopping else max(0, CREDIT - len(self._backlog))

    def deadline(self) -> float | None:
        """When handle_timer has something to do."""
        while self._timers:
            at, index, generation = self._timers[0]
            live = self._live.get(index)
            wake = self._wakes.get((index, generation)) == at
            if live is None and wake:
                return at
            if live is not None and live.handle == (index, generation) and live.deadline == at:
                return at
            heapq.heappop(self._timers)
            if wake:
                del self._wakes[index, generation]
        return None

    def adopt(self, poison: frozenset[int]) -> None:
        """Once, before the first Hello: what a predecessor left half done is not up here.

        The data thread goes on with records that are ACTIVE on both sides; the sessions in
        `poison` it leaves out. The dispatcher ends what Hello does not list.
        """
        for session in self._table.sessions():
            if session.worker != self._worker or session.state != layout.STATE_ACTIVE:
                continue
            if session.sid in poison:
                self._log.error(
                    "poison session not resumed",
                    sid=f"{session.sid:016x}",
                    user=session.name,
                    peer=format_address(session.peer_address),
                    reason=POISON,
                )
                self._poisoned.add((session.index, session.generation))
            elif self.resumable(session):
                continue
            self._table.set_state(session.index, layout.STATE_FINISHING)

    def resumable(self, session: layout.Session) -> bool:
        """Whether the data thread goes on with a session that is ACTIVE here."""
        return session.data_state == layout.DATA_IS_UP

    def hello(self, pid: int, now: float) -> Hello:
        """Who we are and what is up here: the first message on each connection."""
        up = tuple(
            (s.index, s.generation)
            for s in self._table.sessions()
            if s.worker == self._worker
            and (s.state == layout.STATE_ACTIVE or (s.index, s.generation) in self._poisoned)
        )
        busy = {live.handle for live in self._live.values()}.difference(up)
        return Hello(
            VERSION, self._worker, pid, self.credit, up, tuple(busy), self._ended.handles(now)
        )

    def _say_again(self, now: float) -> None:
        """What a dispatcher that begins anew, or did not hear us, may not know."""
        for live in list(self._live.values()):
            handle = live.handle
            if live.phase in OVER:
                self._ports.send(Down(*handle, live.cause or live.asked_to_end, live.reason))
            elif live.phase is Phase.UP:
                self._ports.send(Up(*handle))
            elif live.phase is not Phase.INSTALLING:
                self._ports.send(Installed(*handle, True, ""))
                if live.admission is not None:
                    self._ports.send(live.admission)
        for handle, cause, reason in self._ended.since(now):
            if cause:
                self._ports.send(Down(*handle, cause, reason))
            self._ports.send(Ended(*handle))

    def configure(self, settings: Settings) -> None:
        """Settings after a reload; links that exist keep theirs until they are made anew."""
        before, self._settings = self._settings, settings
        self._policy = policy_of(settings)
        block, shaping = block_of(settings), Shaping(settings)
        bounds = settings.limits != before.limits
        if block != self._block:
            self._block = block
            self._push(self._engine.set_filters, block)
        if settings.listen != before.listen:
            allowed = Peers(settings.listen.allow, settings.listen.deny)
            self._push(self._engine.set_peers, allowed.block)
        if shaping != self._shaping or bounds:
            self._shaping = shaping
            self._limit_all()

    # -- what happens

    def message(self, message: Message, now: float) -> None:
        """A message of the dispatcher."""
        match message:
            case Install():
                self._install((message.index, message.generation), now)
            case Admitted():
                self._admitted(message, now)
            case End():
                handle = (message.index, message.generation)
                self._end(handle, message.cause, message.soft, now)
            case Welcome():
                self._banned = frozenset()  # it may be another dispatcher; what holds follows
                for handle in message.ends:
                    self._end(handle, "lost_carrier", True, now)
                for handle in self._poisoned - set(message.ends):
                    self._ports.send(Down(*handle, "poison", POISON))
                self._say_again(now)
            case Banned():
                self._banned = frozenset(message.users)
            case Apply():
                self._apply(message, now)
            case Traces():
                self._tracing.set(message.traces)
            case LinkInfo():
                pass  # asynchronous framing is never used on GRE: nothing to apply
            case Refused():
                self.count("bus_errors")
                self._log.error("dispatcher refuses", reason=message.reason)
            case _:
                self.count("bus_errors")

    def event(self, kind: int, index: int, generation: int, data: bytes, now: float) -> None:
        """An event of the data thread."""
        handle = (index, generation)
        kinds = self._kinds
        if kind == kinds.frame:
            self.count("frames_received")
            self._frame(handle, data, now)
        elif kind == kinds.traced:
            self._tracing.frame(handle, data)
        elif kind == kinds.installed:
            self._installed(handle, now)
        elif kind == kinds.removed:
            self._removed(handle, now)
        elif kind == kinds.echo_lost:
            live = self._awake(handle, now)
            if live is not None:
                reason = "LCP echoes are not answered"
                self._drive(live, now, lambda link: link.abort("echo_timeout", reason))
        elif kind == kinds.desync:
            live = self._awake(handle, now)
            if live is not None:
                what = "MPPE key mismatch"
                reason = f"{what}: packets decrypt to no known protocol"
                if data == b"stateful":
                    what = "MPPE state mismatch"
                    reason = f"{what}: the client agreed to stateless MPPE and sends stateful"
                self._log.warning(
                    what,
                    sid=live.sid,
                    user=live.user,
                    peer=format_address(live.calling),
                )
                self._close(live, "protocol_error", reason, now)
        elif kind == kinds.packet:
            self._packet(handle, data, now)
        elif kind == kinds.bound:
            self._bound(handle, data, now)
        elif kind == kinds.resumed:
            self.count("sessions_resumed")
            iid = self._table.session(index).iid
            if self._policy.chap_rechallenge or iid:
                # When its next challenge or advertisement is due stands in its blob.
                self._sleep(handle, now + RESUME_WAIT_S + index % RESUME_SPREAD)
            session = self._table.session(index)
            if iid:
                self._identifiers[iid] = handle
            if now - session.up_ns / 1e9 < SAID_AGAIN_S:
                self._ports.started(handle)  # a predecessor may have died before it said so

    def routed(self, handle: Handle, adding: bool, errno: int, now: float) -> None:
        """netops answered."""
        live = self._find(handle)
        if errno:
            self.count("netops_failures")
            self._log.error(
                "route not added" if adding else "route not deleted",
                sid=live.sid if live else "-",
                ip=format_address(live.routed) if live else "-",
                error=os.strerror(errno),
            )
        if live is None:
            return
        if adding and live.phase is Phase.ROUTING:
            if errno:
                reason = f"no route to the subscriber: {os.strerror(errno)}"
                self._close(live, "internal_error", reason, now)
            else:
                self._bring_up(live, now)
        elif not adding and live.phase is Phase.UNROUTING:
            live.routed = 0
            self._remove(live, now)

    def net_routed(self, handle: Handle, net: Network, adding: bool, errno: int) -> None:
        """netops answered; the session does without a network that it cannot have."""
        if errno:
            live = self._find(handle)
            self.count("netops_failures")
            self._log.error(
                "route not added" if adding else "route not deleted",
                sid=live.sid if live else f"{self._table.session(handle[0]).sid:016x}",
                network=str(net),
                error=os.strerror(errno),
            )

    def authenticated(self, handle: Handle, login: Login, now: float) -> None:
        """The verdict on credentials."""
        live = self._find(handle)
        if live is None or live.link is None or live.phase in OVER:
            return
        login = _storable(live, login)
        self._judged(live, login, now)
        self._drive(live, now, lambda link: link.authenticated(login.verdict, now))

    def relayed(self, handle: Handle, packet: bytes, login: Login | None, now: float) -> None:
        """What came back for an EapRelay: the next request, or the end with its verdict."""
        live = self._find(handle)
        if live is None or live.link is None or live.phase in OVER:
            return
        if login is not None:
            login = _storable(live, login)
            self._judged(live, login, now)
        verdict = login.verdict if login is not None else None
        self._drive(live, now, lambda link: link.eap_relayed(packet, verdict, now))

    def _judged(self, live: Live, login: Login, now: float) -> None:
        verdict = login.verdict
        if self._tracing.on:
            self._tracing.note(live.handle, _judgement(live, login))
        result = "accept" if verdict.ok else "timeout" if login.unanswered else "reject"
        self.count(f"auth_{live.method}_{result}")
        if verdict.ok:
            if verdict.message:
                self._log.info(
                    "login accepted", sid=live.sid, user=verdict.user, reply=verdict.message
                )
            if live.phase is Phase.UP:
                if live.policy.again:
                    self._renew(live, login.policy, now)
                return  # challenged again: nothing else of it is new
            live.over("auth", now)
            live.user = verdict.user
            live.addresses = login.addresses
            live.policy = replace(
                login.policy,
                address=login.policy.address or verdict.address,
                pool=login.policy.pool or verdict.pool,
            )
            assert live.link is not None
            live.link.name_servers(live.policy.dns, live.policy.wins)
            auth = AUTH_METHODS.index(live.method)
            self._table.set_user(live.handle[0], verdict.user, auth)
            self._ports.authorized(live.handle, verdict.user, live.peer_name)
        else:
            self._log.warning(
                "login refused",
                sid=live.sid,
                user=live.peer_name,
                peer=format_address(live.calling),
                auth=live.method,
                reason=verdict.reason,
            )
            if login.counted:
                self._ports.send(Failed(*live.handle, live.peer_name))

    def handle_timer(self, now: float) -> None:
        """Links whose time has come, each of them once."""
        due: list[Live] = []
        while (at := self.deadline()) is not None and at <= now:
            _, index, generation = heapq.heappop(self._timers)
            if self._wakes.get((index, generation)) == at:
                del self._wakes[index, generation]
            live = self._awake((index, generation), now)
            if live is not None:
                live.deadline = None
                due.append(live)
        for live in due:
            if live.phase is Phase.SILENT:
                self._start(live, now)
            elif live.phase is Phase.INSTALLING:
                self._ask_install(live, now)
            elif live.phase is Phase.REMOVING:
                self._ask_remove(live, now)
            else:
                if live.six is not None and live.phase is Phase.UP:
                    live.six.handle_timer(now)
                    self._six_send(live)
                self._drive(live, now, lambda link: link.handle_timer(now))

    def flush(self) -> bool:
        """Push again what the ring had no room for; True if all is pushed."""
        while self._backlog:
            method, arguments = self._backlog[0]
            if not method(*arguments):
                return False
            self._backlog.popleft()
        return True

    def stop(self, now: float) -> None:
        """We are stopping: end every session with LCP Terminate."""
        self.stopping = True
        reason = "the concentrator is stopping"
        for session in self._table.sessions():
            if session.worker == self._worker and session.state == layout.STATE_ACTIVE:
                self._awake((session.index, session.generation), now)
        for live in list(self._live.values()):
            self._close(live, "admin_reboot", reason, now)

    def abort(self, now: float) -> None:
        """No more time for answers of peers: end what is left at once."""
        for live in list(self._live.values()):
            if live.phase not in OVER:
                reason = "the concentrator is stopping"
                self._abort(live, "admin_reboot", reason, now)

    def count(self, name: str, n: int = 1) -> None:
        """Raise a counter of ops.metrics.CONTROL_COUNTERS."""
        self._table.control_count(self._worker, SLOTS[name], n)

    # -- Install to the first frame

    def _install(self, handle: Handle, now: float) -> None:
        index, generation = handle
        live = self._live.get(index)
        if live is not None and live.handle == handle:
            if live.phase is not Phase.INSTALLING and live.phase not in OVER:
                self._ports.send(Installed(index, generation, True, ""))
            return
        refusal = self._refusal(handle)
        if refusal:
            self._ports.send(Installed(index, generation, False, refusal))
            return
        session = self._table.session(index)
        if session.state == layout.STATE_ACTIVE:
            self._ports.send(Installed(index, generation, True, ""))
            return
        if live is not None:
            # The dispatcher gave the record away while we still had the old session.
            self._push(self._engine.remove, *live.handle)
            self._networks.forget(live)
            if live.routed:
                self._ports.route_del(live.handle, live.routed)
            del self._live[index]
        self._table.begin_link(index, generation)
        self._live[index] = live = Live.of(session, Phase.INSTALLING, now)
        self._ask_install(live, now)
        self._tracing.begin(handle)

    def _ask_install(self, live: Live, now: float) -> None:
        # The data thread drops an event that finds the ring full: ask until it answers.
        self._push(self._engine.install, *live.handle)
        self._arm(live, now + ENGINE_WAIT_S)

    def _refusal(self, handle: Handle) -> str:
        index, generation = handle
        if self.stopping:
            return "worker is stopping"
        if not 0 <= index < self._table.capacity:
            return f"record {index} of {self._table.capacity}"
        session = self._table.session(index)
        if session.generation != generation or session.allot != layout.USED:
            return f"record {index} has generation {session.generation}, not {generation}"
        if session.worker != self._worker:
            return f"record {index} belongs to worker {session.worker}"
        return ""

    def _installed(self, handle: Handle, now: float) -> None:
        live = self._find(handle)
        if live is None or live.phase is not Phase.INSTALLING:
            return
        magic = int.from_bytes(self._entropy(4), "big") or 1
        live.link = Link(self._policy, magic=magic, challenge=self._entropy(16))
        live.move(Phase.SILENT)
        live.over("call", now)
        # Our first Configure-Request would overtake the Outgoing-Call-Reply and be lost,
        # and the next one comes a whole restart interval later: let the peer begin.
        self._arm(live, now + FIRST_FRAME_WAIT_S)
        self._ports.send(Installed(*handle, True, ""))

    def _start(self, live: Live, now: float) -> None:
        live.move(Phase.NEGOTIATING)
        self._drive(live, now, lambda link: link.start(now))

    # -- frames and what links answer

    def _frame(self, handle: Handle, frame: bytes, now: float) -> None:
        live = self._awake(handle, now)
        if live is None or live.link is None or live.phase in OVER:
            return
        if live.phase is Phase.SILENT:
            self._start(live, now)
        self._drive(live, now, lambda link: link.receive(frame, now))

    def _drive(self, live: Live, now: float, step: Callable[[Link], None]) -> None:
        """Let the link take one step and carry out what it asks for."""
        link = live.link
        if link is None or live.phase in OVER:
            return
        try:
            step(link)
            actions = link.take()
            if live.phase is Phase.UP:
                self._save(live)
            elif live.phase is Phase.NEGOTIATING and any(type(a) is NetworkUp for a in actions):
                live.move(Phase.ROUTING)  # at once: the Configure-Ack before it waits, too
            for action in actions:
                self._act(live, action, now)
        except Exception as e:  # a bug in a link ends that link, not the worker
            self._broken(live, e, now)
            return
        self._settle(live)
        while self._refused_unseen:
            handle, relayed = self._refused_unseen.pop()
            if relayed:
                self.relayed(handle, b"", BANNED, now)
            else:
                self.authenticated(handle, BANNED, now)

    def _act(self, live: Live, action: Action, now: float) -> None:
        handle = live.handle
        match action:
            case Send(frame):
                self._send(live, frame)
            case Authenticate():
                self._asked(live, now)
                live.method = action.method
                live.peer_name = action.name
                if not live.user:  # who it says it is, for those who look why it failed
                    self._table.set_user(handle[0], action.name, AUTH_METHODS.index(action.method))
                if user_key(action.name) in self._banned:
                    self._refused_unseen.append((handle, False))
                else:
                    self._tracing.note(
                        handle, f"login of {action.name!r} by {action.method}: who may is asked"
                    )
                    self._ports.authenticate(handle, replace(action, state=live.policy.state))
            case EapRelay():
                self._asked(live, now)
                live.method = "eap"
                live.peer_name = action.identity
                if user_key(action.identity) in self._banned:
                    self._refused_unseen.append((handle, True))
                else:
                    self._ports.relay(handle, action)
            case Admission():
                live.admission = Admit(
                    *handle,
                    action.user,
                    live.policy.address,
                    live.policy.pool,
                    live.peer_name,
                    live.policy.sessions,
                    wishes(self._settings, live.policy),
                )
                self._ports.send(live.admission)
            case SetMppe():
                self._push(
                    self._engine.set_mppe,
                    *handle,
                    action.rx_bits,
                    action.rx_key,
                    action.rx_stateful,
                    action.tx_bits,
                    action.tx_key,
                    action.tx_stateful,
                )
            case NetworkUp(agreed):
                live.agreed = agreed
                six = bool(self._table.session(handle[0]).iid)
                if live.phase is Phase.UP:
                    self._networks.set(live, self._settings, six)
                    self._bring_up(live, now)  # something was agreed anew; the route stands
                else:
                    live.move(Phase.ROUTING)
                    live.routed = agreed.address
                    tell = (4, 6) if six else (4,)
                    self._networks.set(live, self._settings, six, tell)
                    self.count("netops_requests")
                    self._ports.route_add(handle, agreed.address)
            case Network6Up(iid, our_iid):
                self._six_up(live, iid, our_iid, now)
            case Network6Down():
                self._six_down(live)
            case NetworkDown():
                self._push(self._engine.down, *handle)
                if live.phase in (Phase.UP, Phase.ROUTING):
                    self._table.set_state(handle[0], layout.STATE_STARTING)
                    live.move(Phase.NEGOTIATING)
                    self._take_back(live)
                    self._release(live)
            case Finished(cause, reason):
                self._finish(live, cause, reason, now)
            case Note(event, fields):
                if event == "malformed":
                    self.count("frames_malformed")
                elif event == "auth_timeout":
                    self.count(f"auth_{dict(fields)['method']}_timeout")
                self._log.debug(event, sid=live.sid, user=live.user, **dict(fields))

    @staticmethod
    def _asked(live: Live, now: float) -> None:
        """Credentials are here: the time until then was LCP's, the first time they came."""
        if "lcp" not in live.times:
            live.over("lcp", now)

    def _send(self, live: Live, frame: bytes) -> None:
        if live.phase is Phase.ROUTING:
            # The peer may not learn that it is up before a successor could know it, too.
            if len(live.held) < HELD_FRAMES:
                live.held.append(frame)
            return
        self.count("frames_sent")
        if frame[:2] == LCP and frame[2:3] == bytes((LCP_PROTOCOL_REJECT,)):
            self.count("protocol_rejects_sent")
        self._push(self._engine.send, *live.handle, frame)

    def _take_back(self, live: Live) -> None:
        """The network does not come up: an Ack of IPCP that was held is not true any more."""
        live.held = [frame for frame in live.held if frame[:2] != IPCP]

    def _release(self, live: Live) -> None:
        held, live.held = live.held, []
        for frame in held:
            self._send(live, frame)

    def _settle(self, live: Live) -> None:
        """After a step: an up link that waits for nothing needs no object any more."""
        if live.link is None or live.phase in OVER:
            return
        deadline, wake = live.link.deadline, live.link.wake_at
        if live.six is not None and live.six.next_at:
            wake = live.six.next_at if wake is None else min(wake, live.six.next_at)
        if live.phase is Phase.UP and deadline is None:
            del self._live[live.handle[0]]
            if wake is not None:
                self._sleep(live.handle, wake)
        else:
            times = [at for at in (deadline, wake) if at is not None]
            self._arm(live, min(times, default=None))

    def _sleep(self, handle: Handle, until: float) -> None:
        """No object is kept for it, but at `until` one is to be made."""
        if self._wakes.get(handle) != until:
            self._wakes[handle] = until
            heapq.heappush(self._timers, (until, *handle))

    def _arm(self, live: Live, deadline: float | None) -> None:
        if deadline is not None and deadline != live.deadline:
            heapq.heappush(self._timers, (deadline, *live.handle))
        live.deadline = deadline

    # -- IPv6

    def _six_up(self, live: Live, iid: bytes, our_iid: bytes, now: float) -> None:
        owner = self._identifiers.get(iid)
        if owner is not None and owner != live.handle and self._has_identifier(owner, iid):
            # One device, one table: the second would get the first one's packets.
            self._log.warning(
                "IPv6 refused",
                sid=live.sid,
                user=live.user,
                peer=format_address(live.calling),
                reason=f"interface identifier {iid.hex(':', 2)} is another session's",
            )
            assert live.link is not None
            live.link.identifier_taken(now)
            for action in live.link.take():
                self._act(live, action, now)
            return
        self._identifiers[iid] = live.handle
        self._table.set_six(live.handle[0], iid, our_iid)
        self._push(self._engine.up6, *live.handle)
        self._networks.set(live, self._settings, six=True, tell=(6,))
        if live.phase is Phase.UP:
            self._six_open(live, now)

    def _six_open(self, live: Live, now: float) -> None:
        """IPv6CP and IPCP are up: advertise."""
        live.six = link_of(self._table, live.handle[0], self._settings, live.policy, {})
        if live.six is not None:
            live.six.open(now)
            self._save(live)
            self._six_send(live)

    def _six_again(self, live: Live, now: float) -> None:
        """What is advertised has changed."""
        assert live.six is not None
        before = live.six.freeze()
        live.six = link_of(self._table, live.handle[0], self._settings, live.policy, before)
        if live.six is not None:
            live.six.open(now)
            self._save(live)
            self._six_send(live)

    def _packet(self, handle: Handle, data: bytes, now: float) -> None:
        """A router solicitation or DHCPv6, of the subscriber to us."""
        live = self._awake(handle, now)
        if live is None:
            return
        if live.phase is Phase.UP and live.six is not None:
            try:
                live.six.receive(data, now)
            except RemoteError as e:
                self.count("ipv6_malformed")
                self._log.debug("ipv6 packet", sid=live.sid, user=live.user, reason=str(e))
            else:
                self.count("ipv6_received")
                self._save(live)
                self._six_send(live)
        self._settle(live)

    def _six_send(self, live: Live) -> None:
        assert live.six is not None
        for packet in live.six.take():
            self.count("ipv6_sent")
            self._push(self._engine.packet, *live.handle, packet)

    def _has_identifier(self, handle: Handle, iid: bytes) -> bool:
        session = self._table.session(handle[0])
        return session.generation == handle[1] and session.iid == iid

    def _six_down(self, live: Live) -> None:
        iid = self._table.session(live.handle[0]).iid
        if not iid:
            return
        if self._identifiers.get(iid) == live.handle:
            del self._identifiers[iid]
        live.six = None
        self._networks.set(live, self._settings, six=False, tell=())
        self._table.set_six(live.handle[0], b"", b"")
        self._push(self._engine.down6, *live.handle)

    # -- what the account is given

    def apply(
        self, handle: Handle, changes: Mapping[str, Any], now: float, *, from_start: bool = False
    ) -> str:
        """Other values for some fields of a session's Policy (CoA, reload, command line);
        "" when they are in force and in the blob, else why nothing has changed. A timeout
        counts from now on, or from the session's start."""
        live = self._awake(handle, now)
        if live is None or live.phase in OVER or live.link is None:
            return "no such session"
        before = live.policy
        try:
            live.policy = before.changed(changes)
            if live.phase is Phase.UP:
                self._save(live)
        except (PolicyError, layout.LayoutError) as e:
            live.policy = before
            self._settle(live)
            return str(e)
        if live.policy != before:
            self._log.info(
                "session changed", sid=live.sid, user=live.user, fields=",".join(sorted(changes))
            )
            self._policy_changed(live, before, now, from_start=from_start)
            if live.phase is Phase.UP:
                self._ports.changed(live.handle)
        self._settle(live)
        return ""

    def revise(self, changes: Callable[[str, str, Policy], dict[str, Any]], now: float) -> None:
        """Other rules of accounts: `changes` says, of user, name and Policy of each session that
        is up, what it is to have instead."""
        for session in self._table.sessions():
            if session.worker != self._worker or session.state != layout.STATE_ACTIVE:
                continue
            try:
                saved = Saved.unpack(self._table.blob(session.index))
                found = changes(saved.user, saved.peer_name, Policy.thaw(saved.policy))
            except (BlobError, TypeError):
                continue
            if found:
                self.apply((session.index, session.generation), found, now, from_start=True)

    def _policy_changed(
        self, live: Live, before: Policy, now: float, *, from_start: bool = False
    ) -> None:
        """Carry out what an up session's new Policy says beside being kept in the blob."""
        if live.phase is Phase.UP:
            if (live.policy.routes, live.policy.routes6) != (before.routes, before.routes6):
                six = bool(self._table.session(live.handle[0]).iid)
                self._networks.set(live, self._settings, six)
            if live.policy.dns6 != before.dns6 and live.six is not None:
                self._six_again(live, now)
            if live.policy.filter != before.filter:
                self._tell_unknown(live)
            self._limit(live.handle, live.policy)
            if live.policy.session_timeout_s != before.session_timeout_s:
                # A CoA says how long from now on, as accel-ppp takes it.
                self._bind(live.handle, live.policy, live.up if from_start else now)
            else:
                self._bind(live.handle, live.policy)

    def _bind(self, handle: Handle, policy: Policy, since: float | None = None) -> None:
        """What ends the session, to its record; its time runs on unless `since` is given."""
        session = self._table.session(handle[0])
        bounds = bounds_of(self._settings, policy, 0.0 if since is None else since)
        if since is None:
            bounds = replace(bounds, ends_ns=session.ends_ns)
        if bounds != Bounds.of(session):
            self._table.set_bounds(handle[0], **asdict(bounds))

    def _bound(self, handle: Handle, data: bytes, now: float) -> None:
        """The data thread says that something ends the session; it says so every second."""
        live = self._awake(handle, now)
        if live is None:
            return
        lasts = timeout_s(self._settings, live.policy)
        found = reached(data, self._table.session(handle[0]), lasts)
        if found is None or live.phase is not Phase.UP or live.link is None:
            self._settle(live)
        elif found.field == "ends_ns" and live.policy.again and live.link.challenges:
            # Termination-Action RADIUS-Request: a new login may give more time.
            self._drive(live, now, lambda link: link.reauthenticate(now))
        else:
            self._close(live, found.cause, found.reason, now)

    def _renew(self, live: Live, policy: Policy, now: float) -> None:
        """A login of a session that is up: its limits begin anew."""
        before = live.policy
        live.policy = replace(before, **{name: getattr(policy, name) for name in RENEWED})
        self._policy_changed(live, before, now)
        self._bind(live.handle, live.policy, now)
        self._log.info("session renewed", sid=live.sid, user=live.user)

    def _limit(self, handle: Handle, policy: Policy) -> None:
        """Rates and filter to the record, and the data thread told; nothing if they are there."""
        limits = self._shaping.limits(policy)
        session = self._table.session(handle[0])
        if limits != Limits(
            session.rate_up,
            session.rate_down,
            session.burst_up,
            session.burst_down,
            session.filter,
        ):
            self._table.set_limits(handle[0], **asdict(limits))
            self._push(self._engine.set_rates, *handle)

    def _limit_all(self) -> None:
        """After a reload that changes what accounts get that say nothing."""
        for session in self._table.sessions():
            if session.worker != self._worker or session.state != layout.STATE_ACTIVE:
                continue
            live = self._live.get(session.index)
            if live is not None:
                policy, up = live.policy, live.up
            else:
                try:
                    saved = Saved.unpack(self._table.blob(session.index))
                    policy, up = Policy.thaw(saved.policy), saved.up
                except (BlobError, TypeError):
                    continue  # its next event ends it, and names the fault
            handle = session.index, session.generation
            self._limit(handle, policy)
            # A general timeout counts from the session's start.
            self._bind(handle, policy, None if policy.session_timeout_s else up)

    def _tell_unknown(self, live: Live) -> None:
        name = self._shaping.unknown(live.policy)
        if name:
            self.count("filters_unknown")
            self._log.warning(
                "unknown filter: the session has none",
                sid=live.sid,
                user=live.user,
                filter=name,
                hint="add [filters.NAME], or correct what names it",
            )

    def _apply(self, message: Apply, now: float) -> None:
        handle = (message.index, message.generation)
        try:
            error = self.apply(handle, unpack_changes(message.changes), now)
        except PolicyError as e:
            error = str(e)
        self._ports.send(Applied(*handle, message.request, error))

    # -- admission and coming up

    def _admitted(self, message: Admitted, now: float) -> None:
        handle = (message.index, message.generation)
        live = self._find(handle)
        if live is None or live.phase is not Phase.NEGOTIATING or live.admission is None:
            return
        live.admission = None
        refusal = message.text or message.reason
        if not message.reason and not live.addresses.allows(message.address, handle[0]):
            refusal = (
                f"{format_address(message.address)} from the pool is not among the addresses"
                " that chap-secrets allows this user"
            )
        if refusal:
            self._log.warning(
                "session refused",
                sid=live.sid,
                user=live.user,
                peer=format_address(live.calling),
                cause=message.reason or "address_not_allowed",
                reason=refusal,
            )
        self._drive(
            live,
            now,
            lambda link: link.admitted(message.address, message.local, refusal, now),
        )

    def _bring_up(self, live: Live, now: float) -> None:
        agreed, link = live.agreed, live.link
        if agreed is None or link is None:
            raise LocalError(f"session {live.sid}: up without a link")
        first = live.up == 0.0
        live.up = live.up or now
        live.dns = agreed.dns
        index = live.handle[0]
        self._table.set_user(index, live.user, AUTH_METHODS.index(agreed.auth or "none"))
        self._table.set_link(
            index,
            address=agreed.address,
            local=agreed.local,
            mtu=min(agreed.mtu, live.policy.mtu or agreed.mtu),
            mru=agreed.mru,
            mppe_rx_bits=agreed.mppe_rx_bits,
            mppe_tx_bits=agreed.mppe_tx_bits,
            stateful=agreed.stateful,
            framing=agreed.acfc | agreed.pfc << 1,
            magic=agreed.magic,
            peer_magic=agreed.peer_magic,
            echo_interval_s=self._settings.ppp.lcp_echo_interval_s,
            echo_failures=self._settings.ppp.lcp_echo_failures,
        )
        try:
            self._save(live)
        except (layout.LayoutError, ValueError, TypeError) as e:
            self._broken(live, e, now)
            return
        self._limit(live.handle, live.policy)
        self._bind(live.handle, live.policy, now if first else None)
        if first:
            self._tell_unknown(live)
        self._table.set_state(index, layout.STATE_ACTIVE)
        live.move(Phase.UP)
        if self._tracing.on:
            self._tracing.note(live.handle, _came_up(live, agreed))
        self._push(self._engine.up, *live.handle)
        self._ports.send(Up(*live.handle))
        self._release(live)
        if live.six is None and self._table.session(index).iid:
            self._six_open(live, now)
        if first:
            for phase, seconds in live.set_up_times(now).items():
                self._table.session_set_up(self._worker, SETUP[phase], int(seconds * 1e9))
            self._ports.started(live.handle)
            self._log.debug(  # the dispatcher's line stands in the log at level info
                "link up",
                sid=live.sid,
                user=live.user,
                ip=format_address(agreed.address),
                peer=format_address(live.calling),
                auth=agreed.auth,
                mppe=_mppe(agreed),
                mtu=agreed.mtu,
                setup_ms=int(now * 1e3 - live.allotted_ns / 1e6),
            )
        self._settle(live)

    def _save(self, live: Live) -> None:
        assert live.link is not None
        saved = Saved(
            link=live.link.freeze(),
            user=live.user,
            peer_name=live.peer_name,
            auth=live.method,
            called=live.called,
            calling=live.calling,
            dns=live.dns,
            pool=live.policy.pool,
            started=live.started,
            up=live.up,
            policy=live.policy.freeze(),
            six=live.six.freeze() if live.six is not None else {},
        )
        self._table.write_blob(live.handle[0], saved.pack())

    # -- finding and waking

    def _find(self, handle: Handle) -> Live | None:
        live = self._live.get(handle[0])
        return live if live is not None and live.handle == handle else None

    def _awake(self, handle: Handle, now: float) -> Live | None:
        """The session's object, made from its record if it is up; None: there is none."""
        index, generation = handle
        live = self._live.get(index)
        if live is not None:
            return live if live.handle == handle else None
        session = self._table.session(index)
        if (
            session.generation != generation
            or session.worker != self._worker
            or session.state != layout.STATE_ACTIVE
        ):
            return None
        live = Live.of(session, Phase.UP, now)
        live.user = session.name
        live.routed = session.address
        live.networks = self._networks.held(index)
        self._live[index] = live
        try:
            saved = Saved.unpack(self._table.blob(index))
            live.policy = Policy.thaw(saved.policy)
            live.link = Link.thaw(account_policy(self._policy, live.policy), saved.link)
            live.six = link_of(self._table, index, self._settings, live.policy, saved.six)
        except Exception as e:  # whatever the blob holds, only this session may end of it
            what = f"blob: {e}" if isinstance(e, BlobError) else f"blob: {type(e).__name__}: {e}"
            self._finish(live, "internal_error", f"the saved session cannot be used: {what}", now)
            return None
        live.user = saved.user
        live.peer_name = saved.peer_name
        live.method = saved.auth
        live.dns = tuple(saved.dns)
        live.started = saved.started
        live.up = saved.up
        return live

    # -- the end

    def _end(self, handle: Handle, cause: str, soft: bool, now: float) -> None:
        index = handle[0]
        if not 0 <= index < self._table.capacity:
            self.count("bus_errors")
            return
        live = self._awake(handle, now)
        if live is None:
            live = self._find(handle)  # its blob was no good: it is already ending
            if live is None:
                self._end_unknown(handle, cause, now)
                return
        if not live.asked_to_end:
            live.asked_to_end = cause if cause in END_CAUSES else "admin_reset"
        cause = live.asked_to_end
        if soft:
            self._close(live, cause, "asked by the control connection", now)
        else:
            self._abort(live, cause, "asked by the control connection", now)

    def _end_unknown(self, handle: Handle, cause: str, now: float) -> None:
        """Of a predecessor, while it was starting or ending; or long gone. Always answered."""
        session = self._table.session(handle[0])
        address = session.address or session.granted_address
        left_over = (
            session.generation == handle[1]
            and session.worker == self._worker
            and session.state in (layout.STATE_STARTING, layout.STATE_FINISHING)
        )
        if left_over and handle[0] not in self._live:
            self._table.set_state(handle[0], layout.STATE_FINISHING)
            live = Live.of(session, Phase.UNROUTING if address else Phase.REMOVING, now)
            live.asked_to_end = cause
            live.routed = address
            live.networks = self._networks.held(handle[0])
            self._live[handle[0]] = live
            self._networks.drop(live)
            if address:
                self.count("netops_requests")
                self._ports.route_del(handle, address)
            else:
                self._ask_remove(live, now)
            return
        self._push(self._engine.remove, *handle)

    def _close(self, live: Live, cause: str, reason: str, now: float) -> None:
        """End by LCP Terminate where there is a link to end."""
        if live.phase in OVER:
            return
        if live.phase in (Phase.INSTALLING, Phase.SILENT):
            self._finish(live, cause, reason, now)
        elif not live.closing:
            live.closing = True
            self._drive(live, now, lambda link: link.close(cause, reason, now))

    def _abort(self, live: Live, cause: str, reason: str, now: float) -> None:
        if live.phase in OVER:
            return
        if live.phase in (Phase.INSTALLING, Phase.SILENT):
            self._finish(live, cause, reason, now)
        else:
            self._drive(live, now, lambda link: link.abort(cause, reason))

    def _broken(self, live: Live, error: Exception, now: float) -> None:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = ""
        if at is not None:
            name = os.path.basename(at.tb_frame.f_code.co_filename)
            where = f"{name}:{at.tb_lineno}"
        reason = f"{type(error).__name__}: {error}"
        self._log.error("internal error", sid=live.sid, user=live.user, reason=reason, at=where)
        self._finish(live, "internal_error", reason, now)

    def _finish(self, live: Live, cause: str, reason: str, now: float) -> None:
        """The link is over: tell, take the route back, have the data thread forget it."""
        if live.phase in OVER:
            return
        index = live.handle[0]
        if live.phase is Phase.ROUTING:
            self._take_back(live)
            live.move(Phase.NEGOTIATING)
            self._release(live)
        live.cause = cause
        live.reason = reason
        self._tracing.note(live.handle, f"the link ends, {cause}: {reason}")
        if self._policy.ipv6 or self._identifiers:
            self._six_down(live)
        self._networks.drop(live)
        live.link = None
        live.deadline = None
        self._table.set_state(index, layout.STATE_FINISHING)
        if live.asked_to_end != cause:  # it may have been ending when it was asked to
            self._ports.send(Down(*live.handle, cause, reason))
        self._log.debug(  # the dispatcher logs every end, with this reason
            "link ended",
            sid=live.sid,
            user=live.user or live.peer_name,
            peer=format_address(live.calling),
            cause=cause,
            reason=reason,
        )
        if live.routed:
            live.move(Phase.UNROUTING)
            self._push(self._engine.down, *live.handle)
            self.count("netops_requests")
            self._ports.route_del(live.handle, live.routed)
        else:
            self._remove(live, now)

    def _remove(self, live: Live, now: float) -> None:
        live.move(Phase.REMOVING)
        self._ask_remove(live, now)

    def _ask_remove(self, live: Live, now: float) -> None:
        self._push(self._engine.remove, *live.handle)
        self._arm(live, now + ENGINE_WAIT_S)

    def _removed(self, handle: Handle, now: float) -> None:
        live = self._find(handle)
        if live is not None:
            if live.phase is Phase.INSTALLING:
                reason = "the data thread refused: the record is free or another call's"
                self._ports.send(Installed(*handle, False, reason))
                live.move(Phase.REMOVING)
            if live.phase is not Phase.REMOVING:
                return  # the answer to a repeated End; this session's own comes later
            del self._live[handle[0]]
            session, cause = self._table.session(handle[0]), live.cause or live.asked_to_end
            self._ended.add(handle, cause, live.reason, now)
            if session.up_ns:
                self._ports.stopped(handle, cause)
            if session.name:
                self._ports.gone(handle, cause)
            self._table.set_state(handle[0], layout.STATE_NONE)
        self._poisoned.discard(handle)
        self._tracing.end(handle)
        self._ports.send(Ended(*handle))

    # -- the ring

    def _trace(self, handle: Handle, what: int) -> None:
        self._push(self._engine.trace, *handle, what)

    def _push(self, method: Callable[..., bool], *arguments: Any) -> None:
        """An operation for the data thread, in order; kept while the ring is full."""
        if self._backlog or not method(*arguments):
            self._backlog.append((method, arguments))

    @property
    def backlog(self) -> int:
        """Operations that wait for room in the ring."""
        return len(self._backlog)


def _storable(live: Live, login: Login) -> Login:
    """Refuse an account whose words would not fit into the session's blob."""
    size = len(msgpack.packb(login.policy.freeze(), unicode_errors="surrogateescape"))
    names = len(live.peer_name) + len(login.verdict.user)
    room = POLICY_ROOM - names
    if not login.verdict.ok or size <= room:
        return login
    reason = (
        f"{login.policy.source or 'the account'} says too much: {size} octets of routes, classes"
        f" and other attributes, at most {room} for this name; use fewer or shorter ones"
    )
    return Login(Verdict(False, reason=reason), NO_ADDRESS, counted=False)


def _judgement(live: Live, login: Login) -> str:
    """The verdict on a login, and what the account is given, for who traces it."""
    verdict = login.verdict
    if not verdict.ok:
        return f"login of {live.peer_name!r} refused: {verdict.reason}"
    given = {k: v for k, v in login.policy.freeze().items() if k != "source"}
    shown = ", ".join(f"{key} {_shown(key, value)}" for key, value in given.items())
    source = login.policy.source or "the accounts"
    return f"login of {live.peer_name!r} accepted by {source}" + (f": {shown}" if shown else "")


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return " ".join(_shown(key, item) for item in value)
    if key in ("address", "dns", "wins") and isinstance(value, int):
        return format_address(value)
    return str(value)


def _came_up(live: Live, agreed: Agreed) -> str:
    return (
        f"up: user {live.user!r}, address {format_address(agreed.address)}, "
        f"auth {agreed.auth or 'none'}, MPPE {_mppe(agreed)}, MTU {agreed.mtu}"
    )


def _mppe(agreed: Agreed) -> str:
    """As the log has it: 128s is stateless, 128f stateful, - is clear."""
    if not agreed.mppe_rx_bits and not agreed.mppe_tx_bits:
        return "-"
    kind = "f" if agreed.stateful else "s"
    if agreed.mppe_rx_bits == agreed.mppe_tx_bits:
        return f"{agreed.mppe_rx_bits}{kind}"
    return f"{agreed.mppe_rx_bits}/{agreed.mppe_tx_bits}{kind}"
