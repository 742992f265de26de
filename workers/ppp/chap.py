"""CHAP with MD5 (RFC 1994), MS-CHAPv1 (RFC 2433) and MS-CHAPv2 (RFC 2759): both roles."""

from __future__ import annotations

from typing import ClassVar, Final

from workers.ppp import mppe_keys, mschap
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
from workers.ppp.packets import CHAP, Packet, printable

CHALLENGE: Final = 1
RESPONSE: Final = 2
SUCCESS: Final = 3
FAILURE: Final = 4

CHALLENGE_SIZE: Final[dict[str, int]] = {"chap-md5": 16, "mschap": 8, "mschapv2": 16}
RESPONSE_SIZE: Final[dict[str, int]] = {"chap-md5": 16, "mschap": 49, "mschapv2": 49}

# RFC 2759 section 6: errors a Failure may carry.
ERRORS: Final[dict[str, str]] = {
    "646": "logon is not allowed at this hour",
    "647": "the account is disabled",
    "648": "the password has expired",
    "649": "the account may not dial in",
    "691": "wrong user name or password",
    "709": "the password could not be changed",
}


def parse_value(data: bytes) -> tuple[bytes, bytes]:
    """Value and name of a Challenge or Response."""
    if not data or len(data) < 1 + data[0]:
        raise RemoteError("CHAP value does not fit")
    return data[1 : 1 + data[0]], data[1 + data[0] :]


class ChapServer(Exchange):
    """We challenge the peer."""

    NUMBER: ClassVar[int] = CHAP
    KEPT: ClassVar[tuple[str, ...]] = ("challenge", "next", "asked", "answer_code", "answer")

    def __init__(self, policy: Policy, method: str, *, challenge: bytes) -> None:
        super().__init__(policy, method)
        size = CHALLENGE_SIZE[method]
        self.challenge = challenge[:size]
        # Told in a Failure (C=); with R=0 nobody may use it, and nobody does.
        self.next = challenge[::-1][:size]
        self.asked = False
        self.answer_code = 0
        self.answer = b""

    def start(self, now: float) -> None:
        self.identifier = 1
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def repeat(self) -> None:
        name = mschap.octets(self.policy.name)
        data = bytes([len(self.challenge)]) + self.challenge + name
        self.send(CHALLENGE, self.identifier, data)

    def receive(self, packet: Packet, now: float) -> None:
        if packet.code != RESPONSE or packet.identifier != self.identifier:
            return
        if self.over:
            # RFC 1994 section 4.2: "whenever a Response packet is received with the same
            # identifier, the same reply Code MUST be returned". Nobody is asked again.
            self.send(self.answer_code, self.identifier, self.answer)
            return
        value, name = parse_value(packet.data)
        if len(value) != RESPONSE_SIZE[self.method]:
            raise RemoteError(f"{self.method} response of {len(value)} octets")
        if len(name) > NAME_MAX:
            raise RemoteError(f"{self.method} name of {len(name)} octets")
        if self.asked:
            return
        self.asked = True
        self.timer_at = None
        self.out.append(
            Authenticate(self.method, text_of(name), self.identifier, self.challenge, value)
        )

    def decide(self, verdict: Verdict) -> None:
        self.answer_code = SUCCESS if verdict.ok else FAILURE
        self.answer = self._success(verdict) if verdict.ok else self._failure(verdict)
        self.send(self.answer_code, self.identifier, self.answer)
        if verdict.ok:
            keys = Keys(True, verdict.master, verdict.start_key, verdict.lm_key)
            self.finish(Passed(keys))
        else:
            self.finish(Failed(verdict.reason or "refused"))

    def _success(self, verdict: Verdict) -> bytes:
        message = message_octets(verdict.message, "Welcome")
        if self.method == "mschapv2":
            return f"{verdict.authenticator_response} M=".encode() + message
        return message

    def _failure(self, verdict: Verdict) -> bytes:
        message = message_octets(verdict.message, "Access denied")
        if self.method == "chap-md5":
            return message
        # V: 3 is "we could change passwords the version 2 way", RFC 2759 section 6.
        version = 3 if self.method == "mschapv2" else 2
        head = f"E=691 R=0 C={self.next.hex().upper()} V={version}".encode()
        return head + b" M=" + message if self.method == "mschapv2" else head


class ChapClient(Exchange):
    """The peer challenges us."""

    NUMBER: ClassVar[int] = CHAP
    KEPT: ClassVar[tuple[str, ...]] = ("peer_challenge", "response", "expected", "challenged")

    def __init__(self, policy: Policy, method: str, *, challenge: bytes) -> None:
        super().__init__(policy, method)
        self.peer_challenge = challenge[:16]
        self.challenged = b""  # the Challenge that `response` answers
        self.response = b""
        self.expected = ""  # mschapv2: what a Success must say
        self._keys = Keys(server=False)

    def start(self, now: float) -> None:
        pass  # the Challenge is the peer's to send

    def repeat(self) -> None:
        self.send(RESPONSE, self.identifier, self.response)

    def receive(self, packet: Packet, now: float) -> None:
        if packet.code == CHALLENGE:
            value, _ = parse_value(packet.data)
            if not value or (self.method != "chap-md5" and len(value) != self._size):
                raise RemoteError(f"{self.method} challenge of {len(value)} octets")
            if value != self.challenged or packet.identifier != self.identifier:
                self.identifier = packet.identifier
                self.challenged = value
                self.left = self.policy.max_configure
                self._respond(value)
            self.repeat()
            if not self.over:
                # The Success may be lost: it is ours to repeat the Response.
                self.timer_at = now + self.policy.restart_interval
        elif self.over or not self.response or packet.identifier != self.identifier:
            return
        elif packet.code == SUCCESS:
            self._success(packet.data)
        elif packet.code == FAILURE:
            self.finish(Failed(self._why(packet.data)))

    @property
    def _size(self) -> int:
        return CHALLENGE_SIZE[self.method]

    def _respond(self, challenge: bytes) -> None:
        password = self.policy.password
        name = mschap.octets(self.policy.name)[:NAME_MAX]
        if self.method == "chap-md5":
            value = mschap.chap_md5(self.identifier, mschap.octets(password), challenge)
        elif self.method == "mschap":
            value = self._version1(challenge, password)
        else:
            value = self._version2(challenge, password)
        self.response = bytes([len(value)]) + value + name

    def _version1(self, challenge: bytes, password: str) -> bytes:
        nt_hash = mschap.nt_password_hash(password)
        hash_hash = mschap.hash_nt_password_hash(nt_hash)
        self._keys = Keys(
            False,
            start_key=mppe_keys.start_key_v1_128(hash_hash, challenge),
            lm_key=mppe_keys.start_key_v1_40(mschap.lm_password_hash(password)),
        )
        # No LAN Manager response; the flag says so.
        return bytes(24) + mschap.challenge_response(challenge, nt_hash) + b"\x01"

    def _version2(self, challenge: bytes, password: str) -> bytes:
        nt_hash = mschap.nt_password_hash(password)
        user = mschap.octets(mschap.split_domain(self.policy.name)[1])
        mine = self.peer_challenge
        nt_response = mschap.generate_nt_response(challenge, mine, user, nt_hash)
        self.expected = mschap.authenticator_response(nt_hash, nt_response, mine, challenge, user)
        hash_hash = mschap.hash_nt_password_hash(nt_hash)
        self._keys = Keys(False, mppe_keys.master_key(hash_hash, nt_response))
        return mine + bytes(8) + nt_response + b"\0"

    def _success(self, data: bytes) -> None:
        if self.method == "mschapv2":
            said = data[: len(self.expected)].upper()
            if not mschap.same(said, self.expected.encode()):
                self.finish(Failed("the concentrator does not know the password (wrong S=)"))
                return
        self.finish(Passed(self._keys))

    def _why(self, data: bytes) -> str:
        text = printable(data, 128)
        code = text[2:].split(" ")[0] if text.startswith("E=") else ""
        return f"{ERRORS.get(code, 'authentication failed')} ({text})"
