"""One session of the client: TCP, call, record, link, in this order and back.

No socket, no clock, no entropy: inputs are methods that take `now`, `take()` gives what
the owner has to do. RFC 2637 is `dispatcher.pptp.client`, PPP is `workers.ppp.link`;
this file only says how they hang together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dispatcher.pptp import client as pptp
from dispatcher.pptp.messages import GeneralError, OutgoingResult
from workers.ppp import actions as ppp
from workers.ppp.actions import Agreed, SetMppe
from workers.ppp.link import Link

CLOSE_TIMEOUT: Final = 8.0  # LCP's two Terminate-Requests and the control connection's end


class Phase(Enum):
    """How far a session is."""

    CONNECTING = "connecting"  # TCP
    CALLING = "calling"  # control connection and call
    INSTALLING = "installing"  # the data thread learns of the call
    NEGOTIATING = "negotiating"
    UP = "up"
    CLOSING = "closing"  # LCP Terminate is on its way
    CLEARING = "clearing"  # call and control connection are being ended
    DONE = "done"


P = Phase
# From which phases a phase can be reached; anything else is a bug of ours.
REACHED: Final[dict[Phase, frozenset[Phase]]] = {
    P.CALLING: frozenset({P.CONNECTING}),
    P.INSTALLING: frozenset({P.CALLING}),
    P.NEGOTIATING: frozenset({P.INSTALLING, P.UP}),
    P.UP: frozenset({P.NEGOTIATING}),
    P.CLOSING: frozenset({P.NEGOTIATING, P.UP}),
    P.CLEARING: frozenset({P.CALLING, P.INSTALLING, P.NEGOTIATING, P.UP, P.CLOSING}),
    P.DONE: frozenset({P.CONNECTING, P.CLEARING}),
}


# -- asked of the owner


@dataclass(frozen=True, slots=True)
class Write:
    """Write to TCP, at once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Install:
    """Allot a record with these call IDs and have the engine install it."""

    call_id: int
    peer_call_id: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Send a PPP frame through the engine."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Activate:
    """Address on the TUN, record up, data flows."""

    agreed: Agreed
    seconds: float  # from the start of TCP


@dataclass(frozen=True, slots=True)
class Deactivate:
    """Data must stop; the address goes."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Engine.remove, and the record is free after it."""


@dataclass(frozen=True, slots=True)
class Over:
    """Close TCP; the session is over. `was_up`: it carried data once."""

    cause: str
    reason: str
    was_up: bool


Action = Write | Install | Frame | SetMppe | Activate | Deactivate | Remove | Over


def _refusal(result: int, error: int) -> str:
    """Result and error of an Outgoing-Call-Reply in words, section 2.8."""
    names = {r.value: r.name.lower().replace("_", " ") for r in OutgoingResult}
    text = f"the server refused the call: result {result} ({names.get(result, 'unknown')})"
    if error:
        errors = {e.value: e.name.lower().replace("_", " ") for e in GeneralError}
        text += f", error {error} ({errors.get(error, 'unknown')})"
    return text


@dataclass(slots=True)
class Session:
    """Feed it; then carry out `take()`; wake it at `deadline`."""

    control: pptp.Client
    link: Link
    call_id: int
    started: float
    connect_timeout: float = 10.0
    phase: Phase = Phase.CONNECTING
    was_up: bool = False
    _cause: str = ""
    _reason: str = ""
    _installed: bool = False
    _stop_at: float | None = None
    _actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop_at = self.started + self.connect_timeout

    def take(self) -> list[Action]:
        """What the owner has to do now, in this order."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def deadline(self) -> float | None:
        """When to call `handle_timer`; None: never."""
        if self.phase is Phase.DONE:
            return None
        times = [self._stop_at, self.control.timer_at]
        if self.phase in (Phase.NEGOTIATING, Phase.UP, Phase.CLOSING):
            times.append(self.link.deadline)
        return min((t for t in times if t is not None), default=None)

    # -- inputs

    def connected(self, now: float) -> None:
        """TCP is open."""
        if self.phase is not Phase.CONNECTING:
            return
        self._go(Phase.CALLING)
        self._stop_at = None
        self._control(self.control.start(now), now)
        self._control(self.control.request_call(self.call_id, now), now)

    def octets(self, data: bytes, now: float) -> None:
        """From TCP."""
        if self.phase is not Phase.DONE:
            self._control(self.control.receive(data, now), now)

    def lost(self, reason: str, now: float) -> None:
        """TCP could not be opened, or it ended."""
        if self.phase is Phase.CONNECTING:
            self._over("connect_failed", reason)
        elif self.phase is not Phase.DONE:
            self._note("lost_carrier", reason)
            self._control(self.control.eof(), now)

    def installed(self, now: float) -> None:
        """The engine demultiplexes the call: PPP may begin."""
        if self.phase is Phase.INSTALLING:
            self._go(Phase.NEGOTIATING)
            self.link.start(now)
            self._link(now)

    def frame(self, frame: bytes, now: float) -> None:
        """A PPP frame of the server."""
        if self.phase in (Phase.NEGOTIATING, Phase.UP, Phase.CLOSING):
            self.link.receive(frame, now)
            self._link(now)

    def broken(self, cause: str, reason: str, now: float) -> None:
        """The engine says the session is useless: echoes lost, MPPE out of step."""
        if self.phase in (Phase.NEGOTIATING, Phase.UP):
            self._note(cause, reason)
            self._clear(now)

    def close(self, now: float, cause: str = "closed", reason: str = "we closed it") -> None:
        """End it properly: LCP Terminate, Call-Clear, Stop."""
        if self.phase in (Phase.CLOSING, Phase.CLEARING, Phase.DONE):
            return
        self._note(cause, reason)
        if self.phase is Phase.CONNECTING:
            self._over(cause, reason)
        elif self.phase in (Phase.NEGOTIATING, Phase.UP):
            self._go(Phase.CLOSING)
            self._stop_at = now + CLOSE_TIMEOUT
            self.link.close("user_request", reason, now)
            self._link(now)
        else:
            self._clear(now)

    def handle_timer(self, now: float) -> None:
        """What is due at `now`."""
        if self.phase is Phase.DONE:
            return
        if self._stop_at is not None and now >= self._stop_at:
            if self.phase is Phase.CONNECTING:
                self._over("connect_failed", f"no TCP within {self.connect_timeout:g} s")
            elif self.phase is Phase.CLOSING:
                self._clear(now)
            else:
                self._over(self._cause, self._reason)
            return
        if self.phase in (Phase.NEGOTIATING, Phase.UP, Phase.CLOSING):
            due = self.link.deadline
            if due is not None and now >= due:
                self.link.handle_timer(now)
                self._link(now)
        at = self.control.timer_at
        if at is not None and now >= at:
            self._control(self.control.handle_timer(now), now)

    # -- inside

    def _go(self, phase: Phase) -> None:
        if self.phase not in REACHED[phase]:
            raise RuntimeError(f"client session: {self.phase.value} to {phase.value}")
        self.phase = phase

    def _note(self, cause: str, reason: str) -> None:
        """The first cause is the one that is told."""
        if not self._cause:
            self._cause, self._reason = cause, reason

    def _control(self, actions: list[pptp.Action], now: float) -> None:
        for action in actions:
            match action:
                case pptp.Send(data):
                    self._actions.append(Write(data))
                case pptp.CallUp(call_id, peer_call_id):
                    if self.phase is Phase.CALLING:
                        self._go(Phase.INSTALLING)
                        self._installed = True
                        self._actions.append(Install(call_id, peer_call_id))
                case pptp.CallRefused(_, result, error):
                    # An end of the whole connection is told for each call first.
                    closed = next((a for a in actions if isinstance(a, pptp.Closed)), None)
                    if closed is not None and result == OutgoingResult.NO_CARRIER:
                        self._note("control_closed", closed.reason)
                    self._note("refused", _refusal(result, error))
                    self._clear(now)
                case pptp.CallEnded(_, result, error):
                    self._note("call_ended", f"the server ended the call: result {result}")
                    self._clear(now)
                    self._control(self.control.stop(now), now)
                case pptp.Closed(reason):
                    self._note("control_closed", reason)
                    self._clear(now)
                    self._over(self._cause, self._reason)
                case pptp.Started():
                    pass

    def _link(self, now: float) -> None:
        for action in self.link.take():
            match action:
                case ppp.Send(frame):
                    self._actions.append(Frame(frame))
                case ppp.SetMppe():
                    self._actions.append(action)
                case ppp.NetworkUp(agreed):
                    if self.phase is Phase.NEGOTIATING:
                        self._go(Phase.UP)
                        self.was_up = True
                        self._actions.append(Activate(agreed, now - self.started))
                case ppp.NetworkDown():
                    if self.phase is Phase.UP:
                        self._go(Phase.NEGOTIATING)
                    self._actions.append(Deactivate())
                case ppp.Finished(cause, reason):
                    self._note(cause, reason)
                    self._clear(now)
                    return
                case _:  # notes for a log; the server's questions never come to a client
                    pass

    def _clear(self, now: float) -> None:
        """The link is over or given up: the record goes, then call and connection."""
        if self.phase in (Phase.CLEARING, Phase.DONE):
            return
        self._go(Phase.CLEARING)
        self._stop_at = now + CLOSE_TIMEOUT
        if self._installed:
            self._actions += [Deactivate(), Remove()]
            self._installed = False
        cleared = self.control.clear(self.call_id, now)
        self._control(cleared or self.control.stop(now), now)

    def _over(self, cause: str, reason: str) -> None:
        if self.phase is Phase.DONE:
            return
        self._go(Phase.DONE)
        self._actions.append(Over(cause, reason, self.was_up))
