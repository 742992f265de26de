"""A worker's control logic in a world of simulated time: table, engine twin, real clients.

Peers are real Links in the client's role; the dispatcher's and netops' answers are the
plainest that the contracts allow, and can be held back.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field, replace

from fastpath import layout
from ops.log import Log
from ops.messages import Admit, Admitted, Down, Install, Message
from ops.metrics import CONTROL_COUNTERS
from ops.networks import Network
from ops.ranges import parse_address
from ops.settings import Settings
from ops.trace import Teller
from tests.workers.slow_engine import KINDS, SlowEngine
from workers.accounts import Accounts, parse_file
from workers.control import Control
from workers.live import Handle
from workers.ppp.actions import Action, Authenticate, EapRelay, Finished, NetworkUp, Policy, Send
from workers.ppp.link import Link

LOCAL = parse_address("10.99.0.1")
SECRETS = b"""
billy pptpcon bob *
static pptpcon secret 10.5.5.5
net pptpcon secret 10.7.0.0/24
"""


class Lines(Log):
    """A log that keeps its lines for the test."""

    def __init__(self) -> None:
        super().__init__("worker-0", level=7)
        self.lines: list[tuple[int, str, dict[str, object]]] = []

    def write(self, level: int, event: str, fields: dict[str, object]) -> None:  # type: ignore[override]
        self.lines.append((level, event, fields))

    def named(self, event: str) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.lines if name == event]


@dataclass
class Client:
    """A subscriber's PPP."""

    link: Link
    actions: list[Action] = field(default_factory=list)
    deaf: bool = False  # nothing it sends arrives any more
    mute: tuple[bytes, ...] = ()  # frames beginning so are lost

    @property
    def up(self) -> bool:
        return any(isinstance(a, NetworkUp) for a in self.actions)

    @property
    def finished(self) -> Finished | None:
        return next((a for a in self.actions if isinstance(a, Finished)), None)


def settings() -> Settings:
    base = Settings()
    return replace(base, ppp=replace(base.ppp, auth=("mschapv2", "mschap", "chap-md5", "pap")))


class TwinControl(Control):
    """The engine twin cannot write the data thread's fields of a record."""

    def resumable(self, session: layout.Session) -> bool:
        return True


class World:
    """One worker of index 0, with `capacity` records."""

    def __init__(self, conf: Settings | None = None, capacity: int = 8) -> None:
        fd = os.memfd_create("test-table")
        self.table = layout.Table.create(fd, capacity, 2, 0x5EED)
        os.close(fd)
        self.settings = conf or settings()
        self.accounts = Accounts(self.settings, parse_file(SECRETS, self.settings))
        self.now = 1000.0
        self.log = Lines()
        self.messages: list[Message] = []
        self.clients: dict[Handle, Client] = {}
        self.routes: set[int] = set()
        self.route_requests: deque[tuple[Handle, bool, int]] = deque()
        self.answer_routes = True
        self.nets: set[Network] = set()
        self.net_errno = 0
        self.granted6: tuple[tuple[bytes, int], ...] = ()
        self.route_errno = 0
        self.requests: deque[tuple[Handle, Authenticate]] = deque()
        self.accounting: list[tuple[str, Handle, str]] = []
        self.hooks: list[tuple[str, Handle, str]] = []
        self.relays: deque[tuple[Handle, EapRelay]] = deque()
        self.admits: deque[Admit] = deque()
        self.answer_admits = True
        self.pool = parse_address("10.99.1.1")
        self.refuse: tuple[str, str] = ("", "")
        self.before_send: list[Handle] = []  # sessions ACTIVE in the table at their Up
        self.engine = SlowEngine()
        self.teller = Teller("/nonexistent")
        self.restart()

    def restart(self) -> None:
        """A (new) process of the worker: all that was private is lost."""
        self.engine.close()
        self.engine = SlowEngine()
        self.route_requests.clear()
        self.requests.clear()
        self.control = TwinControl(
            self.table,
            self.engine,
            self,
            self.log,
            self.settings,
            worker=0,
            kinds=KINDS,
            teller=self.teller,
        )
        self.control.adopt(frozenset())
        for session in self.table.sessions():
            if session.state == layout.STATE_ACTIVE:
                handle = (session.index, session.generation)
                self.engine.installed.add(handle)
                self.engine.is_up.add(handle)
                if session.iid:
                    self.engine.is_up6.add(handle)
                self.engine.emit(KINDS.resumed, handle)

    def close(self) -> None:
        self.engine.close()

    # -- Ports

    def send(self, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, Admit):
            self.admits.append(message)

    def route_add(self, handle: Handle, address: int) -> None:
        self.route_requests.append((handle, True, address))

    def route_del(self, handle: Handle, address: int) -> None:
        self.route_requests.append((handle, False, address))

    def net_add(self, handle: Handle, net: Network) -> None:
        self.nets.add(net)
        self.control.net_routed(handle, net, True, self.net_errno)

    def net_del(self, handle: Handle, net: Network) -> None:
        self.nets.discard(net)
        self.control.net_routed(handle, net, False, self.net_errno)

    def authenticate(self, handle: Handle, request: Authenticate) -> None:
        self.requests.append((handle, request))

    def relay(self, handle: Handle, request: EapRelay) -> None:
        self.relays.append((handle, request))

    def started(self, handle: Handle) -> None:
        self.accounting.append(("start", handle, ""))

    def stopped(self, handle: Handle, cause: str) -> None:
        self.accounting.append(("stop", handle, cause))

    def authorized(self, handle: Handle, user: str, peer_name: str) -> None:
        self.hooks.append(("authorized", handle, user))

    def changed(self, handle: Handle) -> None:
        self.hooks.append(("changed", handle, ""))

    def gone(self, handle: Handle, cause: str) -> None:
        self.hooks.append(("gone", handle, cause))

    # -- the others

    def allot(self, index: int, *, worker: int = 0) -> Handle:
        generation, _sid = self.table.allot(
            index,
            worker=worker,
            call_id=index + 100,
            peer_call_id=0,
            local_address=parse_address("198.18.0.1"),
            peer_address=parse_address("198.18.1.1") + index,
            peer_port=40000,
            peer_window=64,
            peer_speed=100_000_000,
            connection=index,
        )
        return index, generation

    def install(self, index: int = 0, name: str = "billy", password: str = "bob") -> Handle:  # noqa: S107
        """A call and a client behind it, which begins after Installed."""
        handle = self.allot(index)
        auth, mppe = self.settings.ppp.auth, self.settings.mppe.policy
        policy = Policy(role="client", name=name, password=password, auth=auth, mppe=mppe)
        link = Link(policy, magic=0xC0FFEE + index, challenge=bytes(16))
        self.clients[handle] = Client(link)
        self.control.message(Install(*handle), self.now)
        return handle

    def start(self, index: int = 0, name: str = "billy", password: str = "bob") -> Handle:  # noqa: S107
        """Up to the end of what happens without a timer."""
        handle = self.install(index, name, password)
        self.run()
        self.clients[handle].link.start(self.now)
        self.run()
        return handle

    def up(self, index: int = 0) -> Handle:
        handle = self.start(index)
        assert self.clients[handle].up, self.log.lines
        return handle

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while True:
            deadlines = [self.control.deadline()]
            deadlines += [c.link.deadline for c in self.clients.values()]
            at = min((d for d in deadlines if d is not None), default=end)
            if at > end:
                break
            self.now = max(self.now, at)
            self.control.handle_timer(self.now)
            for client in self.clients.values():
                if client.link.deadline is not None and client.link.deadline <= self.now:
                    client.link.handle_timer(self.now)
            self.run()
            if at == end:
                break
        self.now = end

    def run(self) -> None:
        """Everybody answers until nobody has anything to say."""
        for _ in range(10_000):
            if not self._turn():
                return
        raise AssertionError("it never ends")

    def _turn(self) -> bool:
        busy = False
        for event in self.engine.events():
            self.control.event(*event, self.now)
            busy = True
        busy |= self.control.backlog > 0 and self.engine.room != 0
        self.control.flush()
        while self.engine.sent:
            handle, frame = self.engine.sent.popleft()
            busy = True
            if handle in self.clients:
                self.clients[handle].link.receive(frame, self.now)
        for handle, client in self.clients.items():
            for action in client.link.take():
                busy = True
                client.actions.append(action)
                if not isinstance(action, Send) or client.deaf:
                    continue
                if not action.frame.startswith(client.mute):
                    self.engine.deliver(handle, action.frame)
        while self.requests:
            handle, request = self.requests.popleft()
            busy = True
            login = self.accounts.check(request, handle[0])
            self.control.authenticated(handle, login, self.now)
        while self.admits and self.answer_admits:
            busy = True
            self.control.message(self.admitted(self.admits.popleft()), self.now)
        while self.route_requests and self.answer_routes:
            handle, adding, address = self.route_requests.popleft()
            busy = True
            if self.route_errno == 0:
                (self.routes.add if adding else self.routes.discard)(address)
            self.control.routed(handle, adding, self.route_errno, self.now)
        return busy

    def admitted(self, admit: Admit) -> Admitted:
        address = admit.address or self.pool + admit.index
        if not self.refuse[0]:
            self.table.grant(admit.index, address, LOCAL, 0)
            self.table.grant6(admit.index, self.granted6)
        return Admitted(admit.index, admit.generation, address, LOCAL, *self.refuse)

    def counter(self, name: str) -> int:
        return self.table.control_counters(0)[CONTROL_COUNTERS.index(name)]

    def causes(self, handle: Handle) -> list[str]:
        """Of the Downs that were said about a session; each has a reason."""
        downs = [m for m in self.of(handle, Down) if isinstance(m, Down)]
        assert all(down.reason for down in downs)
        return [down.cause for down in downs]

    def of(self, handle: Handle, kind: type) -> list[Message]:
        """Messages of one type about one session."""
        return [
            m
            for m in self.messages
            if isinstance(m, kind)
            and (getattr(m, "index", -1), getattr(m, "generation", -1)) == handle
        ]
