"""CoA- and Disconnect-Requests, RFC 5176: who may ask, what is meant, what is answered.

No socket and no clock. `receive` gives octets to send back, or an Order for the owner to
carry out, whose outcome goes into `done`. A request that comes again gets the answer it
got before, or none while that is being found.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from ops.ranges import format_address
from workers.policy import AT_LOGIN
from workers.radius import replies
from workers.radius.attributes import A, flatten, integer, read_integer, read_text
from workers.radius.packets import Attributes, Code, Packet, RemoteError, check_request, response
from workers.radius.requests import Nas

PROXY_STATE: Final = 33
AUTHORIZE_ONLY: Final = 17
REMEMBERED: Final = 4096
REMEMBER_S: Final = 60.0
ERROR_MAX: Final = 200


class Cause(IntEnum):
    """Error-Cause, RFC 5176 section 3.6."""

    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_MISMATCH = 403
    INVALID_REQUEST = 404
    UNSUPPORTED_SERVICE = 405
    INVALID_VALUE = 407
    NO_SESSION = 503
    RESOURCES = 506


@dataclass(frozen=True, slots=True)
class Client:
    """Who may ask."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    secret: bytes


@dataclass(frozen=True, slots=True)
class Keys:
    """Which session is meant: all that are given must fit. "" or -1: not given."""

    sid: str = ""
    user: str = ""
    address: str = ""
    calling: str = ""
    port: int = -1
    port_id: str = ""

    @property
    def none(self) -> bool:
        """Nothing names a session."""
        return self == Keys()


@dataclass(frozen=True, slots=True)
class Order:
    """To be carried out; `changes` is None for a Disconnect."""

    number: int
    keys: Keys
    changes: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request was answered, or was not worth an answer: for counts and log."""

    kind: str  # "coa", "disconnect", "other"
    result: str  # ack, nak, or why it was dropped
    text: str = ""


@dataclass(slots=True)
class _Asked:
    packet: Packet
    source: tuple[Any, ...]
    secret: bytes
    kind: str
    answer: bytes = b""
    at: float = 0.0


KINDS: Final[dict[int, str]] = {
    Code.COA_REQUEST: "coa",
    Code.DISCONNECT_REQUEST: "disconnect",
}


class Dynamic:
    """All requests of one listener."""

    def __init__(self, clients: Iterable[Client], nas: Nas, window_s: int) -> None:
        self.clients = tuple(clients)
        self.nas = nas
        self.window_s = window_s
        self.outcomes: list[Outcome] = []
        self._asked: OrderedDict[tuple[Any, ...], _Asked] = OrderedDict()
        self._orders: dict[int, _Asked] = {}
        self._next = 1

    def receive(
        self, data: bytes, source: tuple[Any, ...], now: float, unix: float
    ) -> bytes | Order | None:
        """A datagram; `source` is who sent it, as a socket has it."""
        client = self._client(str(source[0]))
        if client is None:
            self._drop("other", "not_allowed", f"{source[0]} is not in radius.clients")
            return None
        try:
            packet = check_request(data, client.secret)
        except RemoteError as e:
            self._drop("other", e.fault, str(e))
            return None
        kind = KINDS.get(packet.code)
        if kind is None:
            self._drop("other", "unexpected_code", f"code {packet.code}")
            return None
        key = (source, packet.identifier, packet.authenticator)
        before = self._before(key, now)
        if before is not None:
            self._drop(kind, "duplicate")
            return before.answer or None
        asked = _Asked(packet, source, client.secret, kind, at=now)
        stamp = packet.get(A.EVENT_TIMESTAMP)
        if stamp is not None and self.window_s:
            age = unix - int.from_bytes(stamp, "big")
            if abs(age) > self.window_s:
                # RFC 5176 section 6.3: "silently discarded".
                self._drop(kind, "stale", f"Event-Timestamp is {age:.0f} s old; are clocks right?")
                return None
        self._asked[key] = asked
        return self._judge(asked)

    def done(self, number: int, error: str = "", cause: int = Cause.NO_SESSION) -> bytes | None:
        """An Order was carried out, or could not be; octets for who asked, at `source`."""
        asked = self._orders.pop(number, None)
        if asked is None:
            return None
        return self._nak(asked, cause, error) if error else self._ack(asked)

    def source(self, number: int) -> tuple[Any, ...]:
        """Where the answer to an Order goes."""
        return self._orders[number].source

    # -- inside

    def _client(self, host: str) -> Client | None:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        fitting = [c for c in self.clients if address in c.network]
        return max(fitting, key=lambda c: c.network.prefixlen, default=None)

    def _before(self, key: tuple[Any, ...], now: float) -> _Asked | None:
        while self._asked:
            first = next(iter(self._asked))
            old = now - self._asked[first].at > REMEMBER_S
            if not old and len(self._asked) <= REMEMBERED:
                break
            del self._asked[first]
        return self._asked.get(key)

    def _judge(self, asked: _Asked) -> bytes | Order:
        packet = asked.packet
        name, address = packet.get(A.NAS_IDENTIFIER), packet.get(A.NAS_IP_ADDRESS)
        if name is not None and read_text(name) != self.nas.identifier:
            return self._nak(asked, Cause.NAS_MISMATCH, f"we are {self.nas.identifier!r}")
        if address is not None and self.nas.address and address != integer(self.nas.address):
            return self._nak(asked, Cause.NAS_MISMATCH, "NAS-IP-Address is another's")
        if packet.get(A.SERVICE_TYPE) == integer(AUTHORIZE_ONLY):
            return self._nak(asked, Cause.UNSUPPORTED_SERVICE, "Authorize-Only is not done here")
        faults: list[RemoteError] = []
        try:
            keys = _keys(packet)
        except RemoteError as e:
            return self._nak(asked, Cause.INVALID_VALUE, str(e))
        if keys.none:
            return self._nak(asked, Cause.MISSING_ATTRIBUTE, "nothing says which session is meant")
        changes = None
        if asked.kind == "coa":
            changes = replies.changes(packet, faults)
            # Keys of the session, and not what it is to become.
            for field in ("address", "interface_id", "reply"):
                changes.pop(field, None)
            if faults:
                return self._nak(asked, Cause.INVALID_VALUE, str(faults[0]))
            if "refusal" in changes:
                return self._nak(asked, Cause.INVALID_REQUEST, str(changes["refusal"]))
            fixed = sorted(AT_LOGIN & set(changes))
            if fixed:
                text = f"{', '.join(fixed)}: cannot change while the session is up"
                return self._nak(asked, Cause.UNSUPPORTED_ATTRIBUTE, text)
            if not changes:
                text = "nothing in it that can be changed"
                return self._nak(asked, Cause.UNSUPPORTED_ATTRIBUTE, text)
        number = self._next
        self._next += 1
        self._orders[number] = asked
        return Order(number, keys, changes)

    def _ack(self, asked: _Asked) -> bytes:
        self.outcomes.append(Outcome(asked.kind, "ack"))
        code = Code.COA_ACK if asked.kind == "coa" else Code.DISCONNECT_ACK
        return self._answer(asked, code, ())

    def _nak(self, asked: _Asked, cause: int, text: str) -> bytes:
        self.outcomes.append(Outcome(asked.kind, "nak", text))
        code = Code.COA_NAK if asked.kind == "coa" else Code.DISCONNECT_NAK
        said = text.encode("utf-8", "replace")[:ERROR_MAX]
        return self._answer(asked, code, ((A.ERROR_CAUSE, integer(cause)), (A.REPLY_MESSAGE, said)))

    def _answer(self, asked: _Asked, code: int, attributes: Attributes) -> bytes:
        # RFC 5176 section 3.1: Proxy-State goes back unmodified and in order.
        proxies = tuple((PROXY_STATE, value) for value in asked.packet.all(PROXY_STATE))
        asked.answer = response(code, asked.packet, (*attributes, *proxies), asked.secret)
        return asked.answer

    def _drop(self, kind: str, why: str, text: str = "") -> None:
        self.outcomes.append(Outcome(kind, why, text))


def _keys(packet: Packet) -> Keys:
    values: dict[str, Any] = {}
    for key, value in flatten(packet.attributes, []):
        match key:
            case A.ACCT_SESSION_ID:
                values["sid"] = read_text(value).lower()
            case A.USER_NAME:
                values["user"] = read_text(value)
            case A.FRAMED_IP_ADDRESS:
                values["address"] = format_address(read_integer(value))
            case A.CALLING_STATION_ID:
                values["calling"] = read_text(value)
            case A.NAS_PORT:
                values["port"] = read_integer(value)
            case A.NAS_PORT_ID:
                values["port_id"] = read_text(value)
    return Keys(**values)


def fits(keys: Keys, facts: Any, nas: Nas) -> bool:
    """Whether a session is the one that is meant."""
    return (
        (not keys.sid or keys.sid == facts.sid)
        and (not keys.user or keys.user == facts.user)
        and (not keys.address or keys.address == format_address(facts.address))
        and (not keys.calling or keys.calling == facts.calling)
        and (keys.port < 0 or keys.port == facts.index)
        and (not keys.port_id or keys.port_id == f"{nas.port_id}{facts.index}")
    )
