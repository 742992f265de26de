"""The server's side (PAC) of a control connection: RFC 2637 sections 3.1.2 and 3.2.4.1.

No socket, no clock, no addresses: the owner feeds octets and `now`, and carries out
the actions it gets back, in order. Every transition is in CONNECTION_TABLE and
CALL_TABLE; a message that a table does not list for a state is the peer's error.

Calls are named by `number`, counted up in a connection: the peer's call ID may be any
16-bit value, 0 too, and ours is not known before the owner has assigned it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    VERSION,
    ClearRequest,
    ControlType,
    DisconnectNotify,
    DisconnectResult,
    EchoReply,
    EchoRequest,
    GeneralError,
    IncomingReply,
    IncomingRequest,
    IncomingResult,
    Message,
    OutgoingReply,
    OutgoingRequest,
    OutgoingResult,
    SetLinkInfo,
    StartReply,
    StartRequest,
    StartResult,
    StopReason,
    StopReply,
    StopRequest,
    WanErrorNotify,
    text_field,
)

FRAMING: Final = 3  # asynchronous and synchronous
BEARER: Final = 3  # analog and digital
MAX_CALLS: Final = 1024  # of one connection, against a client that only ever asks


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What all control connections have in common; times in seconds."""

    host_name: str = "pptpcon"
    vendor: str = "pptpcon"
    firmware: int = 1
    window: int = 64
    start_timeout: float = 10.0
    call_timeout: float = 60.0
    echo_interval: float = 60.0
    echo_timeout: float = 60.0
    linger: float = 5.0  # after our Call-Disconnect-Notify ended the last call
    stop_timeout: float = 1.0


# -- actions


@dataclass(frozen=True, slots=True)
class Send:
    """Write these octets at once: one message, one segment (NAT helpers see no more)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Started:
    """The connection is established; what the client calls itself, unescaped."""

    host_name: bytes
    vendor: bytes


@dataclass(frozen=True, slots=True)
class CallRequested:
    """Outgoing-Call-Request: answer by assign_call and accept_call, or refuse_call."""

    number: int
    request: OutgoingRequest


@dataclass(frozen=True, slots=True)
class CallCleared:
    """The peer ended a call; nothing more will be sent for it."""

    number: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """Set-Link-Info for a call of ours."""

    number: int
    send_accm: int
    receive_accm: int


class Event(Enum):
    """What is only counted."""

    LINK_INFO_UNMATCHED = "link_info_unmatched"
    WAN_ERRORS = "wan_errors_received"
    PROTOCOL_ERROR = "control_protocol_errors"
    INCOMING_CALL = "refused_incoming_call"
    BAD_REQUEST = "refused_bad_request"


@dataclass(frozen=True, slots=True)
class Count:
    """Raise a counter; `text` is for the debug log."""

    event: Event
    text: str = ""


class Ending(Enum):
    """Why a control connection ended."""

    CLOSED_BY_PEER = "closed"  # FIN or reset
    STOPPED_BY_PEER = "stopped"
    STOPPED_BY_US = "stopped_by_us"
    START_TIMEOUT = "start_timeout"
    CALL_TIMEOUT = "call_timeout"
    ECHO_TIMEOUT = "echo_timeout"
    PROTOCOL_ERROR = "protocol_error"
    INTERNAL_ERROR = "internal_error"  # a fault of the owner's


@dataclass(frozen=True, slots=True)
class Closed:
    """Close TCP once all is sent. Calls that were left are in `calls`."""

    ending: Ending
    text: str
    calls: tuple[int, ...]


Action = Send | Started | CallRequested | CallCleared | LinkInfo | Count | Closed


class State(Enum):
    """Of the control connection, section 3.1.2 (recipient)."""

    IDLE = "idle"
    ESTABLISHED = "established"
    WAIT_STOP_REPLY = "wait_stop_reply"
    CLOSED = "closed"


class CallState(Enum):
    """Of a call, section 3.2.4.1 (PAC, outgoing calls)."""

    REQUESTED = "wait_cs_ans"  # the owner is getting it ready
    ESTABLISHED = "established"


class CallEvent(Enum):
    """What happens to a call."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    CLEAR_REQUEST = "clear_request"
    NOTIFIED = "disconnect_notify"
    CLEAR = "clear"


_S = State
_T = ControlType
# One row a message and state; the value names the method.
CONNECTION_TABLE: Final[dict[tuple[State, ControlType], str]] = {
    (_S.IDLE, _T.START_REQUEST): "_start_request",
    (_S.IDLE, _T.STOP_REQUEST): "_stop_request",
    (_S.IDLE, _T.ECHO_REQUEST): "_echo_request",
    (_S.IDLE, _T.OUTGOING_REQUEST): "_call_too_early",
    (_S.IDLE, _T.INCOMING_REQUEST): "_incoming_request",
    (_S.IDLE, _T.WAN_ERROR_NOTIFY): "_wan_error",
    (_S.IDLE, _T.SET_LINK_INFO): "_set_link_info",
    (_S.ESTABLISHED, _T.START_REQUEST): "_start_again",
    (_S.ESTABLISHED, _T.STOP_REQUEST): "_stop_request",
    (_S.ESTABLISHED, _T.STOP_REPLY): "_unexpected",
    (_S.ESTABLISHED, _T.ECHO_REQUEST): "_echo_request",
    (_S.ESTABLISHED, _T.ECHO_REPLY): "_echo_reply",
    (_S.ESTABLISHED, _T.OUTGOING_REQUEST): "_outgoing_request",
    (_S.ESTABLISHED, _T.OUTGOING_REPLY): "_unexpected",
    (_S.ESTABLISHED, _T.INCOMING_REQUEST): "_incoming_request",
    (_S.ESTABLISHED, _T.INCOMING_REPLY): "_unexpected",
    (_S.ESTABLISHED, _T.INCOMING_CONNECTED): "_unexpected",
    (_S.ESTABLISHED, _T.CLEAR_REQUEST): "_clear_request",
    (_S.ESTABLISHED, _T.DISCONNECT_NOTIFY): "_disconnect_notify",
    (_S.ESTABLISHED, _T.WAN_ERROR_NOTIFY): "_wan_error",
    (_S.ESTABLISHED, _T.SET_LINK_INFO): "_set_link_info",
    # We have asked for the end: what crossed our request on the way is no error.
    (_S.WAIT_STOP_REPLY, _T.START_REQUEST): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.STOP_REQUEST): "_stop_request",
    (_S.WAIT_STOP_REPLY, _T.STOP_REPLY): "_stop_reply",
    (_S.WAIT_STOP_REPLY, _T.ECHO_REQUEST): "_echo_request",
    (_S.WAIT_STOP_REPLY, _T.ECHO_REPLY): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.OUTGOING_REQUEST): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.INCOMING_REQUEST): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.CLEAR_REQUEST): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.DISCONNECT_NOTIFY): "_ignore",
    (_S.WAIT_STOP_REPLY, _T.WAN_ERROR_NOTIFY): "_wan_error",
    (_S.WAIT_STOP_REPLY, _T.SET_LINK_INFO): "_ignore",
}

_C = CallState
_E = CallEvent
# (messages to send, next state); None: the call is gone. "reply" is Outgoing-Call-Reply,
# "notify" Call-Disconnect-Notify.
CALL_TABLE: Final[dict[tuple[CallState, CallEvent], tuple[tuple[str, ...], CallState | None]]] = {
    (_C.REQUESTED, _E.ACCEPT): (("reply",), _C.ESTABLISHED),
    (_C.REQUESTED, _E.REFUSE): (("reply",), None),
    (_C.REQUESTED, _E.CLEAR_REQUEST): (("notify",), None),
    (_C.REQUESTED, _E.NOTIFIED): ((), None),
    (_C.REQUESTED, _E.CLEAR): (("reply",), None),
    (_C.ESTABLISHED, _E.CLEAR_REQUEST): (("notify",), None),
    (_C.ESTABLISHED, _E.NOTIFIED): ((), None),
    (_C.ESTABLISHED, _E.CLEAR): (("notify",), None),
}


class LocalError(Exception):
    """Our own code asked for what the tables do not have: a bug."""


@dataclass(slots=True)
class Call:
    """One call of this connection."""

    number: int
    peer_call_id: int
    speed: int
    state: CallState = CallState.REQUESTED
    call_id: int | None = None


@dataclass(slots=True)
class Connection:
    """One control connection."""

    settings: ConnectionSettings
    now: float
    state: State = State.IDLE
    messages_received: int = 0
    calls: dict[int, Call] = field(default_factory=dict)
    _framer: Framer = field(default_factory=Framer)
    _next_number: int = 1
    _deadline: float | None = None  # start, call, linger or stop time-out
    _lingering: bool = False  # we ended the last call: the client may close, or ask again
    _heard: float = 0.0
    _echo_sent: float | None = None
    _echo_id: int = 0

    def __post_init__(self) -> None:
        self._deadline = self.now + self.settings.start_timeout

    @classmethod
    def resumed(cls, settings: ConnectionSettings, rest: bytes, now: float) -> Connection:
        """One that was established in a process before this one, which left `rest`: the octets
        of an unfinished message. Its calls follow by `resume_call`."""
        made = cls(settings, now, State.ESTABLISHED)
        made._deadline = now + settings.call_timeout
        made._heard = now
        made._framer.resume(rest)
        return made

    def resume_call(self, call_id: int, peer_call_id: int, speed: int, *, answered: bool) -> int:
        """A call of a resumed connection; its number here."""
        number = self._next_number
        self._next_number += 1
        state = CallState.ESTABLISHED if answered else CallState.REQUESTED
        self.calls[number] = Call(number, peer_call_id, speed, state, call_id)
        self._deadline = None
        return number

    @property
    def rest(self) -> bytes:
        """Octets of an unfinished message."""
        return self._framer.rest

    # -- from the peer

    def receive(self, data: bytes, now: float) -> list[Action]:
        """Octets from TCP."""
        actions: list[Action] = []
        messages, error = self._framer.feed(data)
        for message in messages:
            if self.state is State.CLOSED:
                return actions
            self.messages_received += 1
            # Any complete message is a sign of life; octets of half a message are not.
            self._heard = now
            self._echo_sent = None
            name = CONNECTION_TABLE.get((self.state, message.TYPE))
            if name is None:
                text = f"{type(message).__name__} in state {self.state.value}"
                actions += self._fail(text, StopRequest(StopReason.PROTOCOL))
                return actions
            handler: Callable[[Any, float], list[Action]] = getattr(self, name)
            actions += handler(message, now)
        if error is not None and self.state is not State.CLOSED:
            actions += self._fail(error.text, error.answer)
        return actions

    def eof(self, text: str = "TCP closed by the client") -> list[Action]:
        """TCP was closed or reset: the end of all its calls (Windows does no more)."""
        return self._close(Ending.CLOSED_BY_PEER, text)

    @property
    def timer_at(self) -> float | None:
        """When to call `handle_timer`; None: never."""
        if self.state is State.CLOSED:
            return None
        if self.state is not State.ESTABLISHED:
            return self._deadline
        if self._echo_sent is None:
            at = self._heard + self.settings.echo_interval
        else:
            at = self._echo_sent + self.settings.echo_timeout
        return at if self._deadline is None else min(at, self._deadline)

    def handle_timer(self, now: float) -> list[Action]:
        """What is due at `now`."""
        if self.state is State.CLOSED:
            return []
        s = self.settings
        if self._deadline is not None and now >= self._deadline:
            if self.state is State.IDLE:
                text = f"no Start-Control-Connection-Request within {s.start_timeout:g} s"
                return self._close(Ending.START_TIMEOUT, text)
            if self.state is State.WAIT_STOP_REPLY:
                return self._close(Ending.STOPPED_BY_US, "stopped, unanswered")
            if self._lingering:
                return self.stop(now)
            stop = Send(StopRequest(StopReason.NONE).encode())
            return [stop, *self._close(Ending.CALL_TIMEOUT, "no call on the connection")]
        if self.state is not State.ESTABLISHED:
            return []
        if self._echo_sent is not None:
            if now >= self._echo_sent + s.echo_timeout:
                text = f"Echo-Request unanswered for {s.echo_timeout:g} s"
                return self._close(Ending.ECHO_TIMEOUT, text)
        elif now >= self._heard + s.echo_interval:
            self._echo_sent = now
            self._echo_id = self._echo_id + 1 & 0xFFFFFFFF
            return [Send(EchoRequest(self._echo_id).encode())]
        return []

    # -- from the owner

    def assign_call(self, number: int, call_id: int) -> None:
        """The requested call will have our ID `call_id`."""
        self.calls[number].call_id = call_id

    def accept_call(self, number: int, now: float) -> list[Action]:
        """The call is installed: Outgoing-Call-Reply, result 1. Nothing if it is gone."""
        call = self.calls.get(number)
        if call is None:
            return []
        if call.call_id is None:
            raise LocalError(f"call {number} accepted without a call ID")
        reply = OutgoingReply(
            call.call_id, call.peer_call_id, speed=call.speed, window=self.settings.window
        )
        return self._step(call, CallEvent.ACCEPT, reply, now)

    def refuse_call(
        self, number: int, result: OutgoingResult, error: GeneralError, now: float
    ) -> list[Action]:
        """The call can't be had: Outgoing-Call-Reply with this result."""
        call = self.calls.get(number)
        if call is None:
            return []
        reply = OutgoingReply(0, call.peer_call_id, result=result, error=error)
        return self._step(call, CallEvent.REFUSE, reply, now)

    def clear_call(
        self, number: int, result: DisconnectResult, error: GeneralError, now: float
    ) -> list[Action]:
        """The call is over on our side: Call-Disconnect-Notify with our call ID."""
        call = self.calls.get(number)
        if call is None:
            return []
        if call.state is CallState.REQUESTED:
            reply: Message = OutgoingReply(
                0, call.peer_call_id, OutgoingResult.GENERAL_ERROR, GeneralError.PAC_ERROR
            )
        else:
            reply = DisconnectNotify(call.call_id or 0, result, error)
        actions = self._step(call, CallEvent.CLEAR, reply, now)
        if not self.calls and self.state is State.ESTABLISHED:
            self._lingering = True
            self._deadline = now + self.settings.linger
        return actions

    def stop(self, now: float) -> list[Action]:
        """End the connection: Stop-Control-Connection-Request; Closed comes later."""
        if self.state is State.IDLE:
            return self._close(Ending.STOPPED_BY_US, "stopped before it began")
        if self.state is not State.ESTABLISHED:
            return []
        self.state = State.WAIT_STOP_REPLY
        self._deadline = now + self.settings.stop_timeout
        return [Send(StopRequest(StopReason.LOCAL_SHUTDOWN).encode())]

    # -- messages, by CONNECTION_TABLE

    def _start_request(self, message: StartRequest, now: float) -> list[Action]:
        """Framing, bearer and channels are never a reason to refuse: Windows fills in
        what it likes, and so do home routers."""
        if message.version != VERSION:
            text = f"protocol version {message.version:04x}, not {VERSION:04x}"
            return [
                self._start_reply(StartResult.BAD_VERSION),
                Count(Event.PROTOCOL_ERROR, text),
            ]
        self.state = State.ESTABLISHED
        self._deadline = now + self.settings.call_timeout
        return [self._start_reply(StartResult.OK), Started(message.host_name, message.vendor)]

    def _start_again(self, message: StartRequest, now: float) -> list[Action]:
        return [
            self._start_reply(StartResult.ALREADY_EXISTS),
            Count(Event.PROTOCOL_ERROR, "second Start-Control-Connection-Request"),
        ]

    def _stop_request(self, message: StopRequest, now: float) -> list[Action]:
        reply = Send(StopReply().encode())
        text = f"Stop-Control-Connection-Request, reason {message.reason}"
        return [reply, *self._close(Ending.STOPPED_BY_PEER, text)]

    def _stop_reply(self, message: StopReply, now: float) -> list[Action]:
        return self._close(Ending.STOPPED_BY_US, "stopped")

    def _echo_request(self, message: EchoRequest, now: float) -> list[Action]:
        return [Send(EchoReply(message.identifier).encode())]

    def _echo_reply(self, message: EchoReply, now: float) -> list[Action]:
        """Its arrival is what counts; identifiers of broken clients are not compared."""
        return []

    def _call_too_early(self, message: OutgoingRequest, now: float) -> list[Action]:
        reply = OutgoingReply(
            0, message.call_id, OutgoingResult.GENERAL_ERROR, GeneralError.NOT_CONNECTED
        )
        text = "Outgoing-Call-Request before Start-Control-Connection-Request"
        return [Send(reply.encode()), Count(Event.BAD_REQUEST, text)]

    def _outgoing_request(self, message: OutgoingRequest, now: float) -> list[Action]:
        error = None
        if any(call.peer_call_id == message.call_id for call in self.calls.values()):
            error, text = GeneralError.BAD_CALL_ID, f"call ID {message.call_id} is in use here"
        elif len(self.calls) >= MAX_CALLS:
            error, text = GeneralError.NO_RESOURCE, f"{MAX_CALLS} calls on one connection"
        if error is not None:
            reply = OutgoingReply(0, message.call_id, OutgoingResult.GENERAL_ERROR, error)
            return [Send(reply.encode()), Count(Event.BAD_REQUEST, text)]
        number = self._next_number
        self._next_number += 1
        self.calls[number] = Call(number, message.call_id, message.max_bps)
        self._deadline = None
        self._lingering = False
        return [CallRequested(number, message)]

    def _incoming_request(self, message: IncomingRequest, now: float) -> list[Action]:
        """We place no calls on behalf of a PAC: said at once, not by silence."""
        reply = IncomingReply(0, message.call_id, IncomingResult.DO_NOT_ACCEPT)
        return [Send(reply.encode()), Count(Event.INCOMING_CALL, "Incoming-Call-Request")]

    def _clear_request(self, message: ClearRequest, now: float) -> list[Action]:
        call = self._find(message.call_id)
        if call is None:
            text = f"Call-Clear-Request for call ID {message.call_id}, which is not here"
            return [Count(Event.PROTOCOL_ERROR, text)]
        # The ID that we assigned, not the client's (section 2.13).
        notify = DisconnectNotify(call.call_id or 0, DisconnectResult.REQUEST)
        return [
            *self._step(call, CallEvent.CLEAR_REQUEST, notify, now),
            CallCleared(call.number),
        ]

    def _disconnect_notify(self, message: DisconnectNotify, now: float) -> list[Action]:
        """Windows: result 0, and its own call ID or ours."""
        call = self._find(message.call_id)
        if call is None:
            text = f"Call-Disconnect-Notify for call ID {message.call_id}, which is not here"
            return [Count(Event.PROTOCOL_ERROR, text)]
        return [*self._step(call, CallEvent.NOTIFIED, None, now), CallCleared(call.number)]

    def _wan_error(self, message: WanErrorNotify, now: float) -> list[Action]:
        return [Count(Event.WAN_ERRORS)]

    def _set_link_info(self, message: SetLinkInfo, now: float) -> list[Action]:
        """Never fatal: NATs translate its call ID, wrongly (client error 619 elsewhere)."""
        for call in self.calls.values():
            if call.call_id == message.peer_call_id:
                return [LinkInfo(call.number, message.send_accm, message.receive_accm)]
        text = f"Set-Link-Info for call ID {message.peer_call_id}, which is not here"
        return [Count(Event.LINK_INFO_UNMATCHED, text)]

    def _unexpected(self, message: Message, now: float) -> list[Action]:
        """An answer to nothing we asked: no reason to end calls that work."""
        return [Count(Event.PROTOCOL_ERROR, f"unexpected {type(message).__name__}")]

    def _ignore(self, message: Message, now: float) -> list[Action]:
        return []

    # -- parts

    def _start_reply(self, result: StartResult) -> Send:
        s = self.settings
        return Send(
            StartReply(
                result=result,
                framing=FRAMING,
                bearer=BEARER,
                firmware=s.firmware,
                host_name=text_field(s.host_name),
                vendor=text_field(s.vendor),
            ).encode()
        )

    def _find(self, call_id: int) -> Call | None:
        """By the peer's ID; by ours too if there is only one call to mean."""
        for call in self.calls.values():
            if call.peer_call_id == call_id:
                return call
        if len(self.calls) == 1:
            (call,) = self.calls.values()
            if call.call_id == call_id:
                return call
        return None

    def _step(
        self, call: Call, event: CallEvent, message: Message | None, now: float
    ) -> list[Action]:
        try:
            outputs, state = CALL_TABLE[call.state, event]
        except KeyError:
            raise LocalError(f"{event.value} of a call in {call.state.value}") from None
        if state is None:
            del self.calls[call.number]
            if not self.calls and self.state is State.ESTABLISHED:
                self._deadline = now + self.settings.call_timeout
        else:
            call.state = state
        if not outputs:
            return []
        if message is None:
            raise LocalError(f"{event.value} without a message")
        return [Send(message.encode())]

    def _fail(self, text: str, answer: Message | None) -> list[Action]:
        actions: list[Action] = [Count(Event.PROTOCOL_ERROR, text)]
        if answer is not None:
            actions.append(Send(answer.encode()))
        return actions + self._close(Ending.PROTOCOL_ERROR, text)

    def _close(self, ending: Ending, text: str) -> list[Action]:
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        self._deadline = None
        left = tuple(self.calls)
        self.calls.clear()
        return [Closed(ending, text, left)]
