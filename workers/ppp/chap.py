"""CHAP with MD5 (RFC 1994), MS-CHAPv1 (RFC 2433) and MS-CHAPv2 (RFC 2759): both roles."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final

from workers.ppp import mppe_keys, mschap
from workers.ppp.actions import Authenticate, Policy, Verdict
from workers.ppp.authentication import (
    NAME_MAX,
    Again,
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
# Both ways of RFC 2433 (sections 7 and 8), then that of RFC 2759 (section 7).
CHANGE_PASSWORD: Final = frozenset({5, 6, 7})

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


WRONG: Final = 691
NO_CHANGE: Final = 709
NO_CHANGE_TEXT: Final = "Passwords are not changed here"


def parse_value(data: bytes) -> tuple[bytes, bytes]:
    """Value and name of a Challenge or Response."""
    if not data or len(data) < 1 + data[0]:
        raise RemoteError("CHAP value does not fit")
    return data[1 : 1 + data[0]], data[1 + data[0] :]


def failure_text(
    method: str, challenge: bytes, message: str = "", *, error: int = WRONG, retry: bool = False
) -> bytes:
    """The message of a Failure, RFC 2433 section 6 and RFC 2759 section 6.

    `challenge` is what a retry is to answer. V: 3 is "we could change passwords the
    version 2 way", and 2 the same of version 1, which has no M=.
    """
    version = 2 if method == "mschap" else 3
    head = f"E={error} R={retry:d} C={challenge.hex().upper()} V={version}".encode()
    if method == "mschap":
        return head
    return head + b" M=" + message_octets(message, "Access denied")


def success_text(verdict: Verdict) -> bytes:
    """The message of a Success of version 2, RFC 2759 section 5."""
    message = message_octets(verdict.message, "Welcome")
    return f"{verdict.authenticator_response} M=".encode() + message


def following(entropy: bytes, turn: int, size: int) -> bytes:
    """Challenge number `turn` of an exchange, of entropy that no packet shows."""
    return hashlib.sha256(b"next %d" % turn + entropy).digest()[:size]


class ChapServer(Exchange):
    """We challenge the peer, and may do so again while the link is up."""

    NUMBER: ClassVar[int] = CHAP
    KEPT: ClassVar[tuple[str, ...]] = (
        "challenge",
        "entropy",
        "turn",
        "retries",
        "answered",
        "answer_code",
        "answer",
    )

    def __init__(self, policy: Policy, method: str, *, challenge: bytes) -> None:
        """`challenge`: 32 random octets; the peer sees at most the first half."""
        super().__init__(policy, method)
        self.size = CHALLENGE_SIZE[method]
        self.challenge = challenge[: self.size]
        self.entropy = challenge[16:]
        self.turn = 0  # challenges since the first
        self.retries = 0 if method == "chap-md5" else policy.auth_retries
        self.answered = -1  # the identifier that `answer` belongs to
        self.answer_code = 0
        self.answer = b""

    def start(self, now: float) -> None:
        self.identifier = 1
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def rechallenge(self, now: float) -> None:
        """RFC 1994 section 2: "at random intervals, the authenticator sends a new challenge
        to the peer". MPPE goes on with the keys it has."""
        self._turn()
        self.over = self.asked = False
        self.retries = 0  # a program answers: there is nobody to ask
        self.left = self.policy.max_configure
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def repeat(self) -> None:
        name = mschap.octets(self.policy.name)
        data = bytes([len(self.challenge)]) + self.challenge + name
        self.send(CHALLENGE, self.identifier, data)

    def receive(self, packet: Packet, now: float) -> None:
        if packet.identifier == self.answered and packet.code == RESPONSE:
            # RFC 1994 section 4.2: "whenever a Response packet is received with the same
            # identifier, the same reply Code MUST be returned". Nobody is asked again.
            self.send(self.answer_code, self.answered, self.answer)
        elif packet.code in CHANGE_PASSWORD and not self.over and not self.asked:
            self._no_change(packet)
        elif packet.code != RESPONSE or packet.identifier != self.identifier or self.over:
            return
        else:
            self._response(packet)

    def _response(self, packet: Packet) -> None:
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

    def _no_change(self, packet: Packet) -> None:
        """A new password, which nobody asked for: the answer is a clear no."""
        if self.method == "chap-md5":
            return
        text = failure_text(self.method, self._next(), NO_CHANGE_TEXT, error=NO_CHANGE)
        self._answer(packet.identifier, FAILURE, text)
        self.finish(Failed("the client wants to change its password, which is not done here"))

    def decide(self, verdict: Verdict, now: float) -> None:
        self.asked = False
        if verdict.ok:
            self.refusal = ""
            text = message_octets(verdict.message, "Welcome")
            if self.method == "mschapv2":
                text = success_text(verdict)
            self._answer(self.identifier, SUCCESS, text)
            self.finish(Passed(Keys.of(verdict)))
            return
        self.refusal = verdict.reason or "refused"
        retry = self.retries > 0 and verdict.retry
        given = verdict.challenge if len(verdict.challenge) == self.size else b""
        if self.method == "chap-md5":
            text = message_octets(verdict.message, "Access denied")
        else:
            error = verdict.error or WRONG
            challenge = given or self._next()
            text = failure_text(self.method, challenge, verdict.message, error=error, retry=retry)
        self._answer(self.identifier, FAILURE, text)
        if not retry:
            self.finish(Failed(self.refusal))
            return
        # RFC 2759 section 6: the peer asks its user and answers the challenge of the
        # Failure, under the next identifier (section 9.1.3).
        self.retries -= 1
        self._turn()
        if given:
            self.challenge = given
        self.out.append(Again())

    def _next(self) -> bytes:
        return following(self.entropy, self.turn + 1, self.size)

    def _turn(self) -> None:
        self.challenge = self._next()
        self.turn += 1
        self.identifier = (self.identifier + 1) & 0xFF

    def _answer(self, identifier: int, code: int, text: bytes) -> None:
        self.answered, self.answer_code, self.answer = identifier, code, text
        self.send(code, identifier, text)


def respond_v2(challenge: bytes, mine: bytes, name: str, password: str) -> tuple[bytes, str, Keys]:
    """A client's response of version 2, what the Success must say, and the keys."""
    nt_hash = mschap.nt_password_hash(password)
    user = mschap.octets(mschap.split_domain(name)[1])
    nt_response = mschap.generate_nt_response(challenge, mine, user, nt_hash)
    expected = mschap.authenticator_response(nt_hash, nt_response, mine, challenge, user)
    hash_hash = mschap.hash_nt_password_hash(nt_hash)
    keys = Keys(False, mppe_keys.master_key(hash_hash, nt_response))
    return mine + bytes(8) + nt_response + b"\0", expected, keys


def is_expected(success: bytes, expected: str) -> bool:
    """Whether a Success of version 2 proves that the other side knows the password."""
    return mschap.same(success[: len(expected)].upper(), expected.encode())


def why_refused(failure: bytes) -> str:
    """What a Failure says, in words."""
    text = printable(failure, 128)
    code = text[2:].split(" ")[0] if text.startswith("E=") else ""
    return f"{ERRORS.get(code, 'authentication failed')} ({text})"


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
            self.finish(Failed(why_refused(packet.data)))

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
        mine = self.peer_challenge
        value, self.expected, self._keys = respond_v2(challenge, mine, self.policy.name, password)
        return value

    def _success(self, data: bytes) -> None:
        if self.method == "mschapv2" and not is_expected(data, self.expected):
            self.finish(Failed("the concentrator does not know the password (wrong S=)"))
            return
        self.finish(Passed(self._keys))
