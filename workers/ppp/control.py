"""What LCP, CCP and IPCP have in common: packets 1 to 7 around one automaton.

RFC 1661 section 5. A subclass brings its options: what we wish, how a request of the
peer is judged, and what a Nak or Reject of ours changes. Frames to send and signals for
the link gather in `out`, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from workers.ppp.actions import Policy
from workers.ppp.automaton import DEAF, NEGOTIATING, Automaton, Do, Event, State
from workers.ppp.errors import LocalError
from workers.ppp.options import Option, decode_options, encode_options
from workers.ppp.packets import (
    HEADER,
    Code,
    Packet,
    make_frame,
)

TEXT_MAX = 64  # octets of our reason in a Terminate-Request


class Signal(Enum):
    """What the link must know."""

    UP = "layer up"
    DOWN = "layer down"
    FINISHED = "layer finished"
    ENDED = "the peer sent Terminate-Request before the layer was up"
    FAILED = "no agreement is possible; `fatal` says why"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Our opinion of a Configure-Request. Rejects go first, and alone."""

    rejects: tuple[Option, ...] = ()
    naks: tuple[Option, ...] = ()
    settings: Any = None  # what an Ack commits us to
    fatal: str = ""


class ControlProtocol:
    """One protocol of one link."""

    NUMBER: ClassVar[int]
    NAME: ClassVar[str]
    # Attributes that a frozen link keeps, beside those of the automaton and of this class.
    KEPT: ClassVar[tuple[str, ...]] = ()
    _BASE_KEPT: ClassVar[tuple[str, ...]] = (
        "identifier",
        "request_identifier",
        "request",
        "awaited",
        "failures",
        "refusals",
        "acked",
        "repeats_until",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.automaton = Automaton(
            restart_interval=policy.restart_interval,
            max_configure=policy.max_configure,
            max_terminate=policy.max_terminate,
        )
        self.out: list[bytes | Signal] = []
        self.identifier = 0  # of the last packet that was ours to number
        self.request_identifier = 0
        self.request = b""  # options of our last Configure-Request
        self.awaited = False  # no answer to it yet: a second answer is a duplicate
        self.failures = 0  # Naks we sent since the last Ack
        self.refusals = 0  # Naks and Rejects we got since the layer was up
        # The request we acknowledged last, as a digest, and until when it may come again.
        self.acked = b""
        self.repeats_until = 0.0
        self.fatal = ""
        self.gave_up = False  # the peer was silent to all our requests
        self.close_text = b""
        self._reply = Packet(Code.CONFIGURE_ACK, 0, b"")
        self._settings: Any = None
        self._received = Packet(0, 0, b"")

    # -- for the subclass

    def wishes(self) -> Iterable[Option]:
        """Options of our next Configure-Request."""
        raise NotImplementedError

    def judge(self, options: tuple[Option, ...]) -> Judgement:
        """Our opinion of the peer's Configure-Request."""
        raise NotImplementedError

    def commit(self, settings: Any) -> None:
        """We acknowledged the peer's request."""
        raise NotImplementedError

    def agreed(self) -> None:
        """The peer acknowledged ours."""

    def naked(self, options: tuple[Option, ...]) -> str:
        """Change our wishes; a text says why no agreement is possible."""
        raise NotImplementedError

    def rejected(self, options: tuple[Option, ...]) -> str:
        """As `naked`: these options must go."""
        raise NotImplementedError

    def receive_other(self, packet: Packet, now: float) -> bool:
        """Codes above 7; False: unknown, to be answered by Code-Reject."""
        return False

    @property
    def peer_mru(self) -> int:
        """What our answers are cut to."""
        raise NotImplementedError

    # -- for the link

    @property
    def state(self) -> State:
        """State of the automaton."""
        return self.automaton.state

    @property
    def opened(self) -> bool:
        """Both sides acknowledged."""
        return self.automaton.state is State.OPENED

    def open(self, now: float) -> None:
        """Lower layer up and administrative open, in one."""
        if self.state is State.INITIAL:
            self.step(Event.OPEN, now)
        if self.state is State.STARTING:
            self.step(Event.UP, now)

    def listen(self) -> None:
        """Say nothing until the peer does: RFC 1661's Stopped state, entered directly."""
        if self.state is State.INITIAL:
            self.automaton.state = State.STOPPED

    def close(self, text: str, now: float) -> None:
        """Ask the peer to end this protocol."""
        self.close_text = text.encode("ascii", "replace")[:TEXT_MAX]
        self.step(Event.CLOSE, now)

    def down(self, now: float) -> None:
        """The lower layer went down."""
        if self.state not in DEAF:
            self.step(Event.DOWN, now)

    def rejected_by_peer(self, now: float) -> None:
        """A Protocol-Reject names this protocol."""
        if self.state not in DEAF:
            self.step(Event.REJECT_BAD, now)

    @property
    def deadline(self) -> float | None:
        """When handle_timer has something to do."""
        return self.automaton.timer_at

    def handle_timer(self, now: float) -> None:
        """Retransmit or give up."""
        event = self.automaton.handle_timer(now)
        if event is not None:
            self.gave_up = event is Event.GAVE_UP and self.state in NEGOTIATING
            self.step(event, now)

    def receive(self, payload: bytes, now: float) -> None:
        """Take one packet; RemoteError if its octets are no packet."""
        packet = Packet.decode(payload)
        if self.state in DEAF:
            return
        self._received = packet
        match packet.code:
            case Code.CONFIGURE_REQUEST:
                self._configure_request(packet, now)
            case Code.CONFIGURE_ACK:
                self._configure_ack(packet, now)
            case Code.CONFIGURE_NAK | Code.CONFIGURE_REJECT:
                self._configure_refused(packet, now)
            case Code.TERMINATE_REQUEST:
                early = self.state in NEGOTIATING
                self.step(Event.TERM_REQUEST, now)
                if early:
                    self.out.append(Signal.ENDED)
            case Code.TERMINATE_ACK:
                self.step(Event.TERM_ACK, now)
            case Code.CODE_REJECT:
                # Codes 1 to 7 are what the automaton is made of: without them it is over.
                bad = packet.data[:1] and 1 <= packet.data[0] <= Code.CODE_REJECT
                self.step(Event.REJECT_BAD if bad else Event.REJECT_GOOD, now)
            case _:
                if not self.receive_other(packet, now):
                    self.step(Event.UNKNOWN, now)

    # -- packets

    def _is_repeated(self, packet: Packet, now: float) -> bool:
        """The peer had not seen our Ack yet when it sent its request again.

        In the RFC's table that takes an opened layer down, and where the round trip is
        longer than the restart timer both sides then negotiate for ever. So the same
        octets under the same number, soon after the layer came up, only get their Ack
        again; whoever really begins anew has another number or magic number.
        """
        return self.opened and now < self.repeats_until and _digest(packet) == self.acked

    def _configure_request(self, packet: Packet, now: float) -> None:
        if self._is_repeated(packet, now):
            self.send(Packet(Code.CONFIGURE_ACK, packet.identifier, packet.data))
            return
        options = decode_options(packet.data)
        judgement = self.judge(options)
        if judgement.fatal:
            self._fail(judgement.fatal)
            return
        rejects, naks = judgement.rejects, judgement.naks
        if naks and not rejects and self.failures >= self.policy.max_failure:
            # RFC 1661 section 4.6: after Max-Failure Naks, Reject instead; what we only
            # suggested is no longer insisted on.
            kinds = {option.type for option in naks}
            rejects, naks = tuple(o for o in options if o.type in kinds), ()
        if rejects:
            code, answer = Code.CONFIGURE_REJECT, encode_options(rejects)
        elif naks:
            code, answer = Code.CONFIGURE_NAK, encode_options(naks)
        else:
            code, answer = Code.CONFIGURE_ACK, packet.data
        self._reply = Packet(code, packet.identifier, answer)
        self._settings = judgement.settings
        good = code == Code.CONFIGURE_ACK
        self.step(Event.REQUEST_GOOD if good else Event.REQUEST_BAD, now)

    def _is_answer(self, packet: Packet) -> bool:
        # A stale or repeated answer is dropped: in the table it would take the layer down.
        return self.awaited and packet.identifier == self.request_identifier

    def _configure_ack(self, packet: Packet, now: float) -> None:
        if not self._is_answer(packet) or packet.data != self.request:
            return
        self.awaited = False
        self.agreed()
        self.step(Event.ACK, now)

    def _configure_refused(self, packet: Packet, now: float) -> None:
        if not self._is_answer(packet):
            return
        options = decode_options(packet.data)
        if packet.code == Code.CONFIGURE_REJECT and not set(options) <= set(
            decode_options(self.request)
        ):
            return  # names what we did not ask for
        self.awaited = False
        self.refusals += 1
        if self.refusals > 2 * self.policy.max_failure:
            self._fail(f"the peer refused {self.NAME} options {self.refusals} times")
            return
        # Some modems Nak without end: past the limit a Nak counts as a Reject.
        soft = packet.code == Code.CONFIGURE_NAK and self.refusals <= self.policy.max_failure
        fatal = self.naked(options) if soft else self.rejected(options)
        if fatal:
            self._fail(fatal)
            return
        self.step(Event.NAK, now)

    def _fail(self, why: str) -> None:
        self.fatal = why
        self.out.append(Signal.FAILED)

    # -- actions

    def step(self, event: Event, now: float) -> None:
        """One event of the automaton, its actions carried out."""
        for action in self.automaton.step(event, now):
            self._carry_out(action)
            if action is Do.LAYER_UP:
                policy = self.policy
                self.repeats_until = now + policy.max_configure * policy.restart_interval

    def _carry_out(self, action: Do) -> None:
        match action:
            case Do.SEND_REQUEST:
                request = encode_options(self.wishes())
                # A mere repetition keeps its number, so that a late answer still counts.
                if not self.awaited or request != self.request:
                    self.request, self.awaited = request, True
                    self.request_identifier = self.next_identifier()
                self.send(Packet(Code.CONFIGURE_REQUEST, self.request_identifier, self.request))
            case Do.SEND_ACK:
                self.failures = 0
                self.acked = _digest(self._received)
                self.commit(self._settings)
                self.send(self._reply)
            case Do.SEND_NAK:
                if self._reply.code == Code.CONFIGURE_NAK:
                    self.failures += 1
                self.send(self._reply)
            case Do.SEND_TERM_REQUEST:
                self.send(Packet(Code.TERMINATE_REQUEST, self.next_identifier(), self.close_text))
            case Do.SEND_TERM_ACK:
                self.send(Packet(Code.TERMINATE_ACK, self._received.identifier, b""))
            case Do.SEND_CODE_REJECT:
                rejected = self._received.encode()[: max(0, self.peer_mru - HEADER)]
                self.send(Packet(Code.CODE_REJECT, self.next_identifier(), rejected))
            case Do.LAYER_UP:
                self.failures = self.refusals = 0
                self.out.append(Signal.UP)
            case Do.LAYER_DOWN:
                self.out.append(Signal.DOWN)
            case Do.LAYER_FINISHED:
                self.out.append(Signal.FINISHED)
            case Do.SEND_ECHO_REPLY:
                raise LocalError(f"{self.NAME} has no echo")
            case _:
                pass  # counters are the automaton's

    def next_identifier(self) -> int:
        """A number for a packet of ours."""
        self.identifier = (self.identifier + 1) & 0xFF
        return self.identifier

    def send(self, packet: Packet) -> None:
        """Queue a packet."""
        self.out.append(make_frame(self.NUMBER, packet))

    # -- the frozen form

    def freeze(self) -> list[Any]:
        """All that lives longer than one call, as plain values."""
        machine = self.automaton
        return [
            [int(machine.state), machine.timer_at, machine.left],
            [getattr(self, name) for name in self._BASE_KEPT],
            [getattr(self, name) for name in self.KEPT],
        ]

    def thaw(self, frozen: list[Any]) -> None:
        """The inverse of `freeze`, on a new object."""
        (state, self.automaton.timer_at, self.automaton.left), base, kept = frozen
        self.automaton.state = State(state)
        for name, value in zip(self._BASE_KEPT, base, strict=True):
            setattr(self, name, value)
        for name, value in zip(self.KEPT, kept, strict=True):
            # msgpack knows lists only; what is kept here are numbers, texts and tuples.
            setattr(self, name, tuple(value) if isinstance(value, list) else value)


def _digest(packet: Packet) -> bytes:
    return hashlib.sha256(packet.encode()).digest()[:8]
