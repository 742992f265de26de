"""PAP, RFC 1334 section 2: both roles."""

from __future__ import annotations

from typing import ClassVar, Final

from workers.ppp.actions import Authenticate, Policy, Verdict
from workers.ppp.authentication import (
    NAME_MAX,
    Exchange,
    Failed,
    Passed,
    message_octets,
    text_of,
)
from workers.ppp.errors import RemoteError
from workers.ppp.keys import Keys
from workers.ppp.mschap import octets
from workers.ppp.packets import PAP, Packet, printable

REQUEST: Final = 1
ACK: Final = 2
NAK: Final = 3


def parse_request(data: bytes) -> tuple[bytes, bytes]:
    """Name and password of an Authenticate-Request."""
    if not data or len(data) < 2 + data[0]:
        raise RemoteError("PAP request: name does not fit")
    name, rest = data[1 : 1 + data[0]], data[1 + data[0] :]
    if len(rest) < 1 + rest[0]:
        raise RemoteError("PAP request: password does not fit")
    return name, rest[1 : 1 + rest[0]]


class PapServer(Exchange):
    """We check the peer. Its requests are repeated by it, not by us."""

    NUMBER: ClassVar[int] = PAP
    KEPT: ClassVar[tuple[str, ...]] = ("answer_code", "answer")

    def __init__(self, policy: Policy, method: str) -> None:
        super().__init__(policy, method)
        self.answer_code = 0
        self.answer = b""

    def start(self, now: float) -> None:
        pass

    def repeat(self) -> None:
        pass

    def receive(self, packet: Packet, now: float) -> None:
        if packet.code != REQUEST:
            return
        name, password = parse_request(packet.data)
        self.identifier = packet.identifier
        if self.over:
            # The answer was lost: the same again, without asking again.
            self._answer()
        elif not self.asked:
            self.asked = True
            self.out.append(
                Authenticate(self.method, text_of(name), packet.identifier, b"", password)
            )

    def decide(self, verdict: Verdict, now: float) -> None:
        self.answer_code = ACK if verdict.ok else NAK
        message = message_octets(verdict.message, "" if verdict.ok else "Authentication failed")
        self.answer = bytes([len(message)]) + message
        self._answer()
        good = Passed(Keys())
        self.finish(good if verdict.ok else Failed(verdict.reason or "refused"))

    def _answer(self) -> None:
        self.send(self.answer_code, self.identifier, self.answer)


class PapClient(Exchange):
    """The peer checks us."""

    NUMBER: ClassVar[int] = PAP

    def start(self, now: float) -> None:
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def repeat(self) -> None:
        self.identifier = (self.identifier + 1) & 0xFF
        name = octets(self.policy.name)[: NAME_MAX - 1]
        password = octets(self.policy.password)[: NAME_MAX - 1]
        data = bytes([len(name)]) + name + bytes([len(password)]) + password
        self.send(REQUEST, self.identifier, data)

    def receive(self, packet: Packet, now: float) -> None:
        if self.over:
            return
        if packet.code == ACK:
            self.finish(Passed(Keys(server=False)))
        elif packet.code == NAK:
            text = printable(packet.data[1:])
            self.finish(Failed(f"the concentrator refuses the password: {text}"))
