"""The client's side (PNS) of a control connection: RFC 2637 section 3.1.1, 3.2.4.

No socket, no clock. The owner opens TCP, sends the `data` of each Send in one write,
feeds what arrives to `receive`, calls `handle_timer` at `timer_at`, and carries out
the other actions:

    c = Client(ClientSettings(), now=now)
    send(c.start(now)); send(c.request_call(call_id=1, now=now))   # may be pipelined
    for action in c.receive(data, now): ...
    c.clear(1, now)          # Call-Clear-Request; CallEnded follows
    c.stop(now)              # Stop-Control-Connection-Request; Closed follows
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    ClearRequest,
    ControlType,
    DisconnectNotify,
    DisconnectResult,
    EchoReply,
    EchoRequest,
    IncomingReply,
    IncomingRequest,
    IncomingResult,
    Message,
    OutgoingReply,
    OutgoingRequest,
    OutgoingResult,
    RemoteError,
    SetLinkInfo,
    StartReply,
    StartRequest,
    StartResult,
    StopReason,
    StopReply,
    StopRequest,
    field_text,
    text_field,
)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the client says of itself, and how long it waits (seconds)."""

    host_name: str = ""
    vendor: str = "pptpcon"
    window: int = 64
    max_bps: int = 100_000_000
    start_timeout: float = 10.0
    call_timeout: float = 60.0
    clear_timeout: float = 3.0
    stop_timeout: float = 3.0
    echo_interval: float = 60.0  # silence (control messages) before an Echo-Request
    echo_timeout: float = 60.0


# -- actions


@dataclass(frozen=True, slots=True)
class Send:
    """Write these octets at once: one message, one segment."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Started:
    """Start-Control-Connection-Reply with result 1 arrived."""

    host_name: str
    vendor: str


@dataclass(frozen=True, slots=True)
class CallUp:
    """The call is connected: GRE we send carries `peer_call_id`, GRE we get `call_id`."""

    call_id: int
    peer_call_id: int
    window: int
    speed: int


@dataclass(frozen=True, slots=True)
class CallRefused:
    """Outgoing-Call-Reply with another result than 1, or none in time (result 6)."""

    call_id: int
    result: int
    error: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call that was up is over; result of Call-Disconnect-Notify, 0: none came."""

    call_id: int
    result: int
    error: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Close TCP; nothing works any more. All calls have been reported before."""

    reason: str


Action = Send | Started | CallUp | CallRefused | CallEnded | Closed


class State(Enum):
    """Section 3.1.1, control connection originator."""

    IDLE = "idle"
    WAIT_REPLY = "wait_ctl_reply"
    ESTABLISHED = "established"
    WAIT_STOP = "wait_stop_reply"
    CLOSED = "closed"


class CallState(Enum):
    """Section 3.2.4.2, outgoing call at the PNS."""

    WAIT_REPLY = "wait_reply"
    ESTABLISHED = "established"
    WAIT_DISCONNECT = "wait_disconnect"


@dataclass(slots=True)
class _Call:
    call_id: int
    state: CallState
    deadline: float | None
    peer_call_id: int | None = None


_S = State
_T = ControlType
# Which method handles a message, by state; "ignore" counts as a sign of life only.
TABLE: Final[dict[tuple[State, ControlType], str]] = {
    (_S.WAIT_REPLY, _T.START_REPLY): "_start_reply",
    (_S.WAIT_REPLY, _T.STOP_REQUEST): "_stop_request",
    (_S.WAIT_REPLY, _T.ECHO_REQUEST): "_echo_request",
    (_S.ESTABLISHED, _T.START_REPLY): "_ignore",
    (_S.ESTABLISHED, _T.STOP_REQUEST): "_stop_request",
    (_S.ESTABLISHED, _T.STOP_REPLY): "_ignore",
    (_S.ESTABLISHED, _T.ECHO_REQUEST): "_echo_request",
    (_S.ESTABLISHED, _T.ECHO_REPLY): "_ignore",
    (_S.ESTABLISHED, _T.OUTGOING_REPLY): "_outgoing_reply",
    (_S.ESTABLISHED, _T.INCOMING_REQUEST): "_incoming_request",
    (_S.ESTABLISHED, _T.INCOMING_CONNECTED): "_ignore",
    (_S.ESTABLISHED, _T.CLEAR_REQUEST): "_ignore",
    (_S.ESTABLISHED, _T.DISCONNECT_NOTIFY): "_disconnect_notify",
    (_S.ESTABLISHED, _T.WAN_ERROR_NOTIFY): "_ignore",
    (_S.ESTABLISHED, _T.SET_LINK_INFO): "_ignore",
    (_S.WAIT_STOP, _T.STOP_REPLY): "_stop_reply",
    (_S.WAIT_STOP, _T.STOP_REQUEST): "_stop_request",
    (_S.WAIT_STOP, _T.ECHO_REQUEST): "_echo_request",
    (_S.WAIT_STOP, _T.ECHO_REPLY): "_ignore",
    (_S.WAIT_STOP, _T.START_REPLY): "_ignore",
    (_S.WAIT_STOP, _T.OUTGOING_REPLY): "_ignore",
    (_S.WAIT_STOP, _T.DISCONNECT_NOTIFY): "_ignore",
    (_S.WAIT_STOP, _T.WAN_ERROR_NOTIFY): "_ignore",
    (_S.WAIT_STOP, _T.SET_LINK_INFO): "_ignore",
}


@dataclass(slots=True)
class Client:
    """One control connection, seen from the client."""

    settings: ClientSettings
    now: float
    state: State = State.IDLE
    _calls: dict[int, _Call] = field(default_factory=dict)
    _waiting: list[OutgoingRequest] = field(default_factory=list)  # until the start reply
    _framer: Framer = field(default_factory=Framer)
    _deadline: float | None = None  # of the control connection's own exchange
    _heard: float = 0.0
    _echo_sent: float | None = None
    _serial: int = 0
    _echo_id: int = 0

    # -- asked by the owner

    def start(self, now: float) -> list[Action]:
        """TCP is connected: send Start-Control-Connection-Request."""
        if self.state is not State.IDLE:
            raise ValueError("start() was called before")
        self.state = State.WAIT_REPLY
        self._heard = now
        self._deadline = now + self.settings.start_timeout
        s = self.settings
        request = StartRequest(host_name=text_field(s.host_name), vendor=text_field(s.vendor))
        return [Send(request.encode())]

    def request_call(self, call_id: int, now: float) -> list[Action]:
        """Ask for a call with our `call_id` (0 to 65535); waits for the start reply."""
        if call_id in self._calls:
            raise ValueError(f"call ID {call_id} is in use")
        if self.state not in (State.WAIT_REPLY, State.ESTABLISHED):
            raise ValueError(f"request_call() in state {self.state.value}")
        self._serial = self._serial + 1 & 0xFFFF
        self._calls[call_id] = _Call(
            call_id, CallState.WAIT_REPLY, now + self.settings.call_timeout
        )
        request = OutgoingRequest(
            call_id=call_id,
            serial=self._serial,
            max_bps=self.settings.max_bps,
            window=self.settings.window,
        )
        if self.state is State.WAIT_REPLY:
            self._waiting.append(request)
            return []
        return [Send(request.encode())]

    def set_link_info(self, call_id: int) -> list[Action]:
        """Tell the ACCMs of a call that is up, as Windows does (section 2.15)."""
        call = self._calls.get(call_id)
        if call is None or call.peer_call_id is None:
            return []
        return [Send(SetLinkInfo(peer_call_id=call.peer_call_id).encode())]

    def clear(self, call_id: int, now: float) -> list[Action]:
        """Ask for the end of a call; CallEnded follows (or CallRefused if never up)."""
        call = self._calls.get(call_id)
        if call is None or self.state is not State.ESTABLISHED:
            return []
        if call.state is CallState.WAIT_DISCONNECT:
            return []
        call.state = CallState.WAIT_DISCONNECT
        call.deadline = now + self.settings.clear_timeout
        return [Send(ClearRequest(call_id).encode())]

    def stop(self, now: float) -> list[Action]:
        """End the control connection and with it all calls; Closed follows."""
        if self.state in (State.IDLE, State.CLOSED):
            return self._close("stopped")
        if self.state is State.WAIT_STOP:
            return []
        actions = self._end_calls()
        self.state = State.WAIT_STOP
        self._deadline = now + self.settings.stop_timeout
        return [*actions, Send(StopRequest(StopReason.LOCAL_SHUTDOWN).encode())]

    def eof(self) -> list[Action]:
        """TCP was closed or reset."""
        return self._close("the server closed the control connection")

    def receive(self, data: bytes, now: float) -> list[Action]:
        """Octets from TCP."""
        actions: list[Action] = []
        messages, error = self._framer.feed(data)
        for message in messages:
            if self.state is State.CLOSED:
                return actions
            self._heard = now
            self._echo_sent = None
            method = TABLE.get((self.state, message.TYPE))
            if method is None:
                error = RemoteError(f"{type(message).__name__} in state {self.state.value}")
                break
            actions += getattr(self, method)(message, now)
        if error is not None and self.state is not State.CLOSED:
            if error.answer is not None:
                actions.append(Send(error.answer.encode()))
            actions += self._close(f"protocol error: {error.text}")
        return actions

    @property
    def timer_at(self) -> float | None:
        """When to call `handle_timer`; None: never."""
        if self.state in (State.IDLE, State.CLOSED):
            return None
        times = [c.deadline for c in self._calls.values() if c.deadline is not None]
        if self._deadline is not None:
            times.append(self._deadline)
        if self.state is State.ESTABLISHED:
            if self._echo_sent is None:
                times.append(self._heard + self.settings.echo_interval)
            else:
                times.append(self._echo_sent + self.settings.echo_timeout)
        return min(times, default=None)

    def handle_timer(self, now: float) -> list[Action]:
        """What is due at `now`."""
        if self.state in (State.IDLE, State.CLOSED):
            return []
        if self._deadline is not None and now >= self._deadline:
            return self._close(
                "no answer to Stop-Control-Connection-Request"
                if self.state is State.WAIT_STOP
                else "no answer to Start-Control-Connection-Request"
            )
        actions: list[Action] = []
        for call in list(self._calls.values()):
            if call.deadline is None or now < call.deadline:
                continue
            del self._calls[call.call_id]
            if call.state is CallState.WAIT_REPLY:
                actions.append(CallRefused(call.call_id, OutgoingResult.TIME_OUT, 0))
            else:
                actions.append(CallEnded(call.call_id, 0, 0))
        if self.state is State.ESTABLISHED:
            if self._echo_sent is not None:
                if now >= self._echo_sent + self.settings.echo_timeout:
                    return actions + self._close("Echo-Request unanswered")
            elif now >= self._heard + self.settings.echo_interval:
                self._echo_sent = now
                self._echo_id += 1
                actions.append(Send(EchoRequest(self._echo_id & 0xFFFFFFFF).encode()))
        return actions

    # -- messages, by TABLE

    def _ignore(self, message: Message, now: float) -> list[Action]:
        return []

    def _start_reply(self, message: StartReply, now: float) -> list[Action]:
        if message.result != StartResult.OK:
            return self._close(
                f"the server refused: start result {message.result}, error {message.error}"
            )
        self.state = State.ESTABLISHED
        self._deadline = None
        actions: list[Action] = [Started(field_text(message.host_name), field_text(message.vendor))]
        actions += [Send(request.encode()) for request in self._waiting]
        self._waiting.clear()
        return actions

    def _stop_request(self, message: StopRequest, now: float) -> list[Action]:
        reply = Send(StopReply().encode())
        return [reply, *self._close(f"the server stopped the connection, reason {message.reason}")]

    def _stop_reply(self, message: StopReply, now: float) -> list[Action]:
        return self._close("stopped")

    def _echo_request(self, message: EchoRequest, now: float) -> list[Action]:
        return [Send(EchoReply(message.identifier).encode())]

    def _outgoing_reply(self, message: OutgoingReply, now: float) -> list[Action]:
        call = self._calls.get(message.peer_call_id)
        if call is None or call.state is CallState.ESTABLISHED:
            return []
        if message.result != OutgoingResult.CONNECTED:
            del self._calls[call.call_id]
            return [CallRefused(call.call_id, message.result, message.error)]
        call.peer_call_id = message.call_id
        if call.state is CallState.WAIT_DISCONNECT:  # cleared before it was up
            return []
        call.state = CallState.ESTABLISHED
        call.deadline = None
        return [CallUp(call.call_id, message.call_id, message.window, message.speed)]

    def _incoming_request(self, message: IncomingRequest, now: float) -> list[Action]:
        reply = IncomingReply(0, message.call_id, IncomingResult.DO_NOT_ACCEPT)
        return [Send(reply.encode())]

    def _disconnect_notify(self, message: DisconnectNotify, now: float) -> list[Action]:
        """The PAC's own ID is what the RFC wants here; some servers send the client's."""
        calls = list(self._calls.values())
        found = next((c for c in calls if c.peer_call_id == message.call_id), None)
        if found is None and message.call_id in self._calls:
            found = self._calls[message.call_id]
        if found is None and len(calls) == 1:
            found = calls[0]
        if found is None:
            return []
        del self._calls[found.call_id]
        if found.state is CallState.WAIT_REPLY:
            return [CallRefused(found.call_id, message.result, message.error)]
        # Result 0 is what Windows servers send; the owner takes it for a request.
        return [CallEnded(found.call_id, message.result or DisconnectResult.REQUEST, message.error)]

    # -- endings

    def _end_calls(self) -> list[Action]:
        actions: list[Action] = []
        for call in self._calls.values():
            if call.state is CallState.WAIT_REPLY:
                actions.append(CallRefused(call.call_id, OutgoingResult.NO_CARRIER, 0))
            else:
                actions.append(CallEnded(call.call_id, 0, 0))
        self._calls.clear()
        self._waiting.clear()
        return actions

    def _close(self, reason: str) -> list[Action]:
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        self._deadline = None
        return [*self._end_calls(), Closed(reason)]
