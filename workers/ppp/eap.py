"""EAP over PPP, RFC 3748: both roles.

EAP-MD5 (type 4) and EAP-MSCHAPv2 (type 26, draft-kamath-pppext-eap-mschapv2) are spoken
here. Where "relay" stands in Policy.eap, the packets from there on are the owner's: they
are handed on unread (RFC 3579 section 2), whatever their type.

The server sends one Request at a time and repeats it until the Response with its number
comes; a client only answers (RFC 3748 section 4.1).
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from workers.ppp import mschap
from workers.ppp.actions import Authenticate, EapRelay, Policy, Verdict
from workers.ppp.authentication import NAME_MAX, Again, Exchange, Failed, Passed, text_of
from workers.ppp.chap import (
    NO_CHANGE,
    NO_CHANGE_TEXT,
    WRONG,
    failure_text,
    following,
    is_expected,
    parse_value,
    respond_v2,
    success_text,
    why_refused,
)
from workers.ppp.errors import RemoteError
from workers.ppp.keys import Keys
from workers.ppp.packets import EAP, HEADER, Packet

REQUEST: Final = 1
RESPONSE: Final = 2
SUCCESS: Final = 3
FAILURE: Final = 4


class Type(IntEnum):
    """RFC 3748 section 5, and the types of others we know by name."""

    IDENTITY = 1
    NOTIFICATION = 2
    NAK = 3
    MD5 = 4
    GTC = 6
    TLS = 13
    LEAP = 17
    SIM = 18
    TTLS = 21
    AKA = 23
    PEAP = 25
    MSCHAPV2 = 26
    FAST = 43
    EXPANDED = 254


class Op(IntEnum):
    """OpCodes of EAP-MSCHAPv2."""

    CHALLENGE = 1
    RESPONSE = 2
    SUCCESS = 3
    FAILURE = 4
    CHANGE_PASSWORD = 7


RELAY: Final = "relay"
TYPES: Final[dict[str, Type]] = {"md5": Type.MD5, "mschapv2": Type.MSCHAPV2}
METHODS: Final[dict[str, str]] = {"md5": "eap-md5", "mschapv2": "eap-mschapv2", RELAY: "eap"}
KEYED: Final = frozenset({"mschapv2", RELAY})  # may give keys for MPPE
SIZE: Final = 16  # octets of a challenge
LAST_WORDS: Final = 3  # how often a final result is sent to a peer that does not answer it


class Stage(IntEnum):
    """What the Request we sent is about."""

    IDENTITY = 0
    PROPOSED = 1  # a type's first Request, which the peer may Nak
    RETRY = 2  # EAP-MSCHAPv2: a Failure with R=1
    GOOD = 3  # EAP-MSCHAPv2: its Success, which the peer confirms
    BAD = 4  # EAP-MSCHAPv2: its Failure, which the peer confirms
    RELAYED = 5


def named(numbers: bytes) -> str:
    """EAP types for a log line."""
    known = {int(kind): kind.name for kind in Type}
    return ", ".join(f"{n} ({known[n]})" if n in known else str(n) for n in numbers[:8])


def opcode(body: bytes) -> tuple[int, int, bytes]:
    """OpCode, MS-CHAPv2-ID and data of an EAP-MSCHAPv2 packet.

    A confirmation is the OpCode alone. MS-Length repeats EAP's own length: what lies
    behind the latter is gone already, so of the former only impossible values matter.
    """
    if len(body) == 1:
        return body[0], 0, b""
    if len(body) < HEADER:
        raise RemoteError(f"EAP-MSCHAPv2 of {len(body)} octets")
    length = int.from_bytes(body[2:4], "big")
    if not HEADER <= length <= len(body):
        raise RemoteError(f"EAP-MSCHAPv2 length {length} in {len(body)} octets")
    return body[0], body[1], body[HEADER:length]


class EapServer(Exchange):
    """We ask for an identity, then propose types until the peer takes one."""

    NUMBER: ClassVar[int] = EAP
    KEPT: ClassVar[tuple[str, ...]] = (
        "stage",
        "proposals",
        "kind",
        "identity",
        "first",
        "challenge",
        "entropy",
        "turn",
        "ms_id",
        "retries",
        "request",
        "answer",
    )

    def __init__(self, policy: Policy, method: str, *, challenge: bytes) -> None:
        """`challenge`: 32 random octets; the peer sees at most the first half."""
        super().__init__(policy, method)
        self.stage: int = Stage.IDENTITY
        self.proposals = policy.eap  # not tried yet, in order
        self.kind = ""  # of Policy.eap, the one proposed
        self.identity = b""
        self.first = b""  # the Identity response, for a relay that begins later
        self.challenge = challenge[:SIZE]
        self.entropy = challenge[SIZE:]
        self.turn = 0
        self.ms_id = 0
        self.retries = policy.auth_retries
        self.request = b""  # type and data of the Request that is out
        self.answer = 0  # SUCCESS or FAILURE, at the end
        self._outcome: Passed | Failed | None = None

    def start(self, now: float) -> None:
        self._ask(bytes([Type.IDENTITY]), now)

    def repeat(self) -> None:
        self.send(REQUEST, self.identifier, self.request)

    def receive(self, packet: Packet, now: float) -> None:
        if packet.code != RESPONSE or packet.identifier != self.identifier or self.asked:
            return
        if self.over:
            # RFC 3748 section 4.2: Success and Failure are not confirmed, and may be lost.
            self.send(self.answer, self.identifier, b"")
            return
        if not packet.data:
            raise RemoteError("EAP response without a type")
        if self.stage == Stage.RELAYED:
            self._relay(packet.encode())
        elif self.stage == Stage.IDENTITY:
            self._identified(packet, now)
        elif packet.data[0] in (Type.NAK, Type.EXPANDED) and self.stage == Stage.PROPOSED:
            expanded = packet.data[0] == Type.EXPANDED
            self._naked(b"" if expanded else packet.data[1:], now)
        elif packet.data[0] != TYPES[self.kind]:
            raise RemoteError(f"EAP response of type {packet.data[0]}")
        elif self.kind == "md5":
            self._md5(packet.data[1:])
        else:
            self._mschapv2(packet.data[1:], now)

    # -- which type

    def _identified(self, packet: Packet, now: float) -> None:
        if packet.data[0] != Type.IDENTITY:
            raise RemoteError(f"EAP response of type {packet.data[0]}, not an identity")
        # RFC 3748 section 5.1: options may follow the identity behind a zero.
        identity = packet.data[1:].partition(b"\0")[0]
        if len(identity) > NAME_MAX:
            raise RemoteError(f"EAP identity of {len(identity)} octets")
        self.identity = identity
        if RELAY in self.proposals:
            self.first = packet.encode()
        self._propose(now)

    def _naked(self, wanted: bytes, now: float) -> None:
        """RFC 3748 section 5.3.1: the peer names what it would rather have; zero: nothing."""
        names = [n for n in self.proposals if n == RELAY or TYPES[n] in wanted]
        if names:
            self.proposals = tuple(names)
            self._propose(now)
            return
        allowed = ", ".join(METHODS[name] for name in self.policy.eap if name != RELAY)
        asks = f"EAP type {named(wanted)}" if wanted.strip(b"\0") else "no type we have"
        self._fail(f"the peer agrees to {asks}; allowed are {allowed}")

    def _propose(self, now: float) -> None:
        if not self.proposals:
            self._fail("no EAP type is allowed that gives keys for MPPE")
            return
        self.kind, *rest = self.proposals
        self.proposals = tuple(rest)
        self.method = METHODS[self.kind]
        if self.kind == RELAY:
            self.stage = Stage.RELAYED
            self._relay(self.first)
            return
        self.stage = Stage.PROPOSED
        name = mschap.octets(self.policy.name)
        value = bytes([SIZE]) + self.challenge + name
        if self.kind == "md5":
            self._ask(bytes([Type.MD5]) + value, now)
        else:
            self.ms_id = (self.identifier + 1) & 0xFF
            self._ask_mschapv2(Op.CHALLENGE, value, now)

    # -- EAP-MD5, RFC 3748 section 5.4

    def _md5(self, body: bytes) -> None:
        value, _name = parse_value(body)
        if len(value) != 16:
            raise RemoteError(f"EAP-MD5 response of {len(value)} octets")
        self._check(text_of(self.identity), self.identifier, value)

    # -- EAP-MSCHAPv2

    def _mschapv2(self, body: bytes, now: float) -> None:
        if not body:
            raise RemoteError("EAP-MSCHAPv2 without an OpCode")
        op, ms_id, data = opcode(body)
        match self.stage, op:
            case (Stage.PROPOSED | Stage.RETRY, Op.RESPONSE):
                # A retry counts the number up, as that of MS-CHAPv2 itself does.
                if ms_id not in (self.ms_id, (self.ms_id + 1) & 0xFF):
                    return
                self.ms_id = ms_id
                value, name = parse_value(data)
                if len(value) != 49 or len(name) > NAME_MAX:
                    raise RemoteError(f"EAP-MSCHAPv2 response of {len(value)} octets")
                self._check(text_of(name), ms_id, value)
            case (Stage.PROPOSED | Stage.RETRY, Op.CHANGE_PASSWORD):
                self.refusal = "the client wants to change its password, which is not done here"
                text = failure_text(
                    "mschapv2", self._next(), NO_CHANGE_TEXT, error=NO_CHANGE, retry=False
                )
                self._result(Stage.BAD, Op.FAILURE, text, Failed(self.refusal), now)
            case (Stage.RETRY | Stage.BAD, Op.FAILURE):
                self._fail(self.refusal)
            case (Stage.GOOD, Op.SUCCESS):
                self._end(SUCCESS)
            case _:
                raise RemoteError(f"EAP-MSCHAPv2 OpCode {op} in stage {Stage(self.stage).name}")

    def _check(self, name: str, identifier: int, value: bytes) -> None:
        self.asked = True
        self.timer_at = None
        self.out.append(Authenticate(self.method, name, identifier, self.challenge, value))

    def decide(self, verdict: Verdict, now: float) -> None:
        self.asked = False
        self.refusal = "" if verdict.ok else verdict.reason or "refused"
        passed = Passed(Keys.of(verdict))
        if self.kind != "mschapv2":
            self._outcome = passed if verdict.ok else Failed(self.refusal)
            self._end(SUCCESS if verdict.ok else FAILURE)
        elif verdict.ok:
            self._result(Stage.GOOD, Op.SUCCESS, success_text(verdict), passed, now)
        elif self.retries <= 0 or not verdict.retry:
            error = verdict.error or WRONG
            text = failure_text("mschapv2", self._next(), verdict.message, error=error)
            self._result(Stage.BAD, Op.FAILURE, text, Failed(self.refusal), now)
        else:
            self.retries -= 1
            given = verdict.challenge
            self.challenge = given if len(given) == SIZE else self._next()
            self.turn += 1
            error = verdict.error or WRONG
            text = failure_text(
                "mschapv2", self.challenge, verdict.message, error=error, retry=True
            )
            self._result(Stage.RETRY, Op.FAILURE, text, Failed(self.refusal), now)
            self.timer_at = None  # a person is typing
            self.out.append(Again())

    def _next(self) -> bytes:
        return following(self.entropy, self.turn + 1, SIZE)

    def _result(
        self, stage: Stage, op: Op, text: bytes, outcome: Passed | Failed, now: float
    ) -> None:
        self.stage = stage
        self._outcome = outcome
        self._ask_mschapv2(op, text, now)
        self.left = min(self.left, LAST_WORDS)

    # -- relayed

    def _relay(self, octets: bytes) -> None:
        self.asked = True
        self.timer_at = None
        self.out.append(EapRelay(text_of(self.identity), octets))

    def relayed(self, octets: bytes, verdict: Verdict | None, now: float) -> None:
        """What the owner got back: a Request for the peer, or the end with its Verdict."""
        self.asked = False
        try:
            packet = Packet.decode(octets)
        except RemoteError:
            packet = Packet(FAILURE, self.identifier, b"")
        if verdict is None and packet.code == REQUEST and packet.data:
            self.identifier = packet.identifier
            self.request = packet.data
            self._send_request(now)
        elif verdict is not None and verdict.ok:
            self._outcome = Passed(Keys.of(verdict))
            self._end(SUCCESS)
        else:
            self._fail(verdict.reason or "refused" if verdict else "the answer is no EAP request")

    # -- sending and ending

    def _ask_mschapv2(self, op: Op, data: bytes, now: float) -> None:
        length = (HEADER + len(data)).to_bytes(2, "big")
        self._ask(bytes([Type.MSCHAPV2, op, self.ms_id]) + length + data, now)

    def _ask(self, data: bytes, now: float) -> None:
        self.identifier = (self.identifier + 1) & 0xFF
        self.request = data
        self._send_request(now)

    def _send_request(self, now: float) -> None:
        self.left = self.policy.max_configure
        self.repeat()
        self.timer_at = now + self.policy.restart_interval

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if self.timer_at is None and self.left <= 0 and self.stage == Stage.BAD and not self.over:
            self._fail(self.refusal)

    def _fail(self, reason: str) -> None:
        self._outcome = Failed(reason)
        self._end(FAILURE)

    def _end(self, code: int) -> None:
        self.answer = code
        self.send(code, self.identifier, b"")
        # Not needed any more, and an up link is kept small.
        self.request = self.first = self.identity = b""
        self.finish(self._outcome or Failed("EAP ended without a verdict"))


class EapClient(Exchange):
    """We answer what the peer asks for, and Nak types that are not in Policy.eap."""

    NUMBER: ClassVar[int] = EAP
    KEPT: ClassVar[tuple[str, ...]] = ("mine", "response", "expected", "proven")

    def __init__(self, policy: Policy, method: str, *, challenge: bytes) -> None:
        super().__init__(policy, method)
        self.mine = challenge[:SIZE]
        self.response = b""  # to the Request with our `identifier`
        self.expected = ""  # what EAP-MSCHAPv2's Success must say
        self.proven = False  # all is said but EAP's own Success
        self._keys = Keys(server=False)

    def start(self, now: float) -> None:
        pass  # the authenticator asks

    def repeat(self) -> None:
        self.send(RESPONSE, self.identifier, self.response)

    def receive(self, packet: Packet, now: float) -> None:
        if packet.code == REQUEST and packet.data:
            if not self.response or packet.identifier != self.identifier:
                answer = self._answer(packet)
                if answer is None:
                    return
                self.identifier, self.response = packet.identifier, answer
            self.repeat()
        elif self.over or packet.identifier != self.identifier:
            return
        elif packet.code == SUCCESS:
            self.indicated()
        elif packet.code == FAILURE:
            self.finish(Failed(self.refusal or "the concentrator refuses the login (EAP)"))

    def indicated(self) -> None:
        """EAP's Success came, or what can only follow it (RFC 3748 section 4.2)."""
        if self.proven and not self.over:
            self.finish(Passed(self._keys))

    def _answer(self, packet: Packet) -> bytes | None:
        if self.over:
            return None
        kind, body = packet.data[0], packet.data[1:]
        if kind == Type.IDENTITY:
            return bytes([kind]) + mschap.octets(self.policy.name)[:NAME_MAX]
        if kind == Type.NOTIFICATION:
            return bytes([kind])
        if kind == Type.MD5 and "md5" in self.policy.eap:
            return bytes([kind]) + self._md5(packet.identifier, body)
        if kind == Type.MSCHAPV2 and "mschapv2" in self.policy.eap:
            answer = self._mschapv2(body)
            return None if answer is None else bytes([kind]) + answer
        wanted = bytes(TYPES[name] for name in self.policy.eap if name in TYPES)
        return bytes([Type.NAK]) + (wanted or b"\0")

    def _md5(self, identifier: int, body: bytes) -> bytes:
        value, _name = parse_value(body)
        self.method = METHODS["md5"]
        self.proven = True
        secret = mschap.octets(self.policy.password)
        digest = mschap.chap_md5(identifier, secret, value)
        return bytes([len(digest)]) + digest + mschap.octets(self.policy.name)[:NAME_MAX]

    def _mschapv2(self, body: bytes) -> bytes | None:
        if not body:
            raise RemoteError("EAP-MSCHAPv2 without an OpCode")
        op, ms_id, data = opcode(body)
        if op == Op.CHALLENGE:
            value, _name = parse_value(data)
            if len(value) != SIZE:
                raise RemoteError(f"EAP-MSCHAPv2 challenge of {len(value)} octets")
            self.method = METHODS["mschapv2"]
            response, self.expected, self._keys = respond_v2(
                value, self.mine, self.policy.name, self.policy.password
            )
            name = mschap.octets(self.policy.name)[:NAME_MAX]
            answer = bytes([len(response)]) + response + name
            return bytes([Op.RESPONSE, ms_id]) + (HEADER + len(answer)).to_bytes(2, "big") + answer
        if op == Op.SUCCESS and self.expected:
            if not is_expected(data, self.expected):
                self.finish(Failed("the concentrator does not know the password (wrong S=)"))
                return None
            self.proven = True
            return bytes([Op.SUCCESS])
        if op == Op.FAILURE:
            self.refusal = why_refused(data)
            return bytes([Op.FAILURE])
        raise RemoteError(f"EAP-MSCHAPv2 OpCode {op}")
