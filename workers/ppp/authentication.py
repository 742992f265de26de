"""What PAP, CHAP and EAP have in common, in both roles: timer, outcome, frozen form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from workers.ppp.actions import Authenticate, EapRelay, Note, Policy, Verdict
from workers.ppp.keys import Keys
from workers.ppp.packets import Packet, make_frame

NAME_MAX = 256  # octets, RFC 2759 section 4
MESSAGE_MAX = 128  # ours: text for the peer


@dataclass(frozen=True, slots=True)
class Passed:
    """Authentication is over and good."""

    keys: Keys


@dataclass(frozen=True, slots=True)
class Failed:
    """Authentication is over and bad."""

    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """The user may try again (R=1): a person needs time for it."""


Item = bytes | Authenticate | EapRelay | Passed | Failed | Again | Note


class Exchange:
    """One authentication of one link. What it has to say gathers in `out`."""

    NUMBER: ClassVar[int]
    KEPT: ClassVar[tuple[str, ...]] = ()
    _BASE_KEPT: ClassVar[tuple[str, ...]] = (
        "method",
        "identifier",
        "timer_at",
        "left",
        "over",
        "asked",
        "refusal",
    )

    def __init__(self, policy: Policy, method: str) -> None:
        self.policy = policy
        self.method = method
        self.out: list[Item] = []
        self.identifier = 0
        self.timer_at: float | None = None
        self.left = policy.max_configure
        self.over = False
        self.asked = False  # a verdict is awaited
        self.refusal = ""  # why the last one was bad, while another may come

    def start(self, now: float) -> None:
        """Begin, if it is ours to begin."""
        raise NotImplementedError

    def receive(self, packet: Packet, now: float) -> None:
        """Take one packet of our protocol; RemoteError if its fields do not fit."""
        raise NotImplementedError

    def decide(self, verdict: Verdict, now: float) -> None:
        """The answer to Authenticate (server)."""

    def repeat(self) -> None:
        """Send again what the peer owes an answer to."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Retransmit; giving up is the link's, by its own deadline."""
        if self.timer_at is None or now < self.timer_at:
            return
        self.left -= 1
        if self.left <= 0:
            self.timer_at = None
            return
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def send(self, code: int, identifier: int, data: bytes) -> None:
        """Queue a packet."""
        self.out.append(make_frame(self.NUMBER, Packet(code, identifier, data)))

    def finish(self, outcome: Passed | Failed) -> None:
        """It is over; repeated packets are still answered."""
        self.over = True
        self.timer_at = None
        self.out.append(outcome)

    def freeze(self) -> list[Any]:
        """All that lives longer than one call, as plain values."""
        return [getattr(self, name) for name in (*self._BASE_KEPT, *self.KEPT)]

    def thaw(self, frozen: list[Any]) -> None:
        """The inverse of `freeze`."""
        for name, value in zip((*self._BASE_KEPT, *self.KEPT), frozen, strict=True):
            # msgpack knows lists only; what is kept here are numbers, texts and tuples.
            setattr(self, name, tuple(value) if isinstance(value, list) else value)


def text_of(octets: bytes) -> str:
    """A name or password of the wire; octets that are no UTF-8 become surrogates."""
    return octets.decode("utf-8", "surrogateescape")


def message_octets(message: str, default: str) -> bytes:
    """Text for the peer, cut."""
    return (message or default).encode("utf-8", "replace")[:MESSAGE_MAX]
