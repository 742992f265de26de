"""RADIUS packets, RFC 2865 section 3: octets to values and back, and what proves them.

A packet is a header of 20 octets and attributes of type, length, value. What an attribute
means stands in attributes.py; which request an answer belongs to, in exchange.py. Any
octets give a Packet or a RemoteError whose `fault` is the name of a counter.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

HEADER: Final = Struct(">BBH16s")  # code, identifier, length, authenticator
AUTHENTICATOR_SIZE: Final = 16
MAX_SIZE: Final = 4096  # RFC 2865 section 3
VALUE_MAX: Final = 253
MESSAGE_AUTHENTICATOR: Final = 80
NO_SIGNATURE: Final = bytes(16)

Attributes = tuple[tuple[int, bytes], ...]


class Code(IntEnum):
    """RFC 2865 section 3, RFC 2866, RFC 5997, RFC 5176."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


# Requests whose authenticator is random; the others' is a hash of the packet (RFC 2866
# section 3, RFC 5176 section 2.3).
RANDOM: Final = frozenset({Code.ACCESS_REQUEST, Code.STATUS_SERVER})


class RemoteError(Exception):
    """A packet that breaks the protocol; `fault` is one of FAULTS."""

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(text)
        self.fault = fault


# What a bad packet is counted as.
FAULTS: Final = (
    "short",  # less than a header
    "wrong_length",  # the header's length does not fit the datagram
    "malformed",  # attributes do not fill the packet
    "bad_vendor_attribute",  # an empty or overlong one; the rest of the packet counts
    "bad_attribute",  # a value of the wrong size or kind; the rest counts
    "wrong_secret",  # Response or Request Authenticator does not fit
    "wrong_message_authenticator",
    "missing_message_authenticator",
    "unexpected_code",
    "unexpected",  # no request waits for it
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, its attributes in order."""

    code: int
    identifier: int
    authenticator: bytes
    attributes: Attributes

    @classmethod
    def decode(cls, data: bytes) -> Packet:
        """Octets behind the packet's own length are padding (RFC 2865 section 3)."""
        if len(data) < HEADER.size:
            raise RemoteError("short", f"{len(data)} octets, a header has {HEADER.size}")
        code, identifier, length, authenticator = HEADER.unpack_from(data)
        if not HEADER.size <= length <= min(len(data), MAX_SIZE):
            raise RemoteError("wrong_length", f"length {length} in {len(data)} octets")
        attributes = []
        at = HEADER.size
        while at < length:
            size = data[at + 1] if at + 1 < length else 0
            if size < 2 or at + size > length:
                raise RemoteError(
                    "malformed", f"attribute {data[at]} of length {size} at octet {at} of {length}"
                )
            attributes.append((data[at], data[at + 2 : at + size]))
            at += size
        return cls(code, identifier, authenticator, tuple(attributes))

    def encode(self) -> bytes:
        """As octets, whatever the authenticator is."""
        body = pack_attributes(self.attributes)
        length = HEADER.size + len(body)
        return HEADER.pack(self.code, self.identifier, length, self.authenticator) + body

    def get(self, kind: int) -> bytes | None:
        """The first attribute of a type."""
        return next((value for found, value in self.attributes if found == kind), None)

    def all(self, kind: int) -> list[bytes]:
        """All attributes of a type, in order."""
        return [value for found, value in self.attributes if found == kind]


class TooLongError(ValueError):
    """What we would send does not fit into a packet."""


def pack_attributes(attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """Attributes as octets."""
    parts = []
    for kind, value in attributes:
        if len(value) > VALUE_MAX:
            raise TooLongError(f"attribute {kind} of {len(value)} octets, at most {VALUE_MAX}")
        parts.append(bytes((kind, len(value) + 2)) + value)
    body = b"".join(parts)
    if HEADER.size + len(body) > MAX_SIZE:
        raise TooLongError(f"packet of {HEADER.size + len(body)} octets, at most {MAX_SIZE}")
    return body


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _signature(data: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, data, "md5")


def _signed(data: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """With the Message-Authenticator, which stands first, filled in."""
    at = HEADER.size + 2
    shown = data[:4] + authenticator + data[HEADER.size :]
    return data[:at] + _signature(shown, secret) + data[at + 16 :]


def request(
    code: int, identifier: int, attributes: Attributes, secret: bytes, random: bytes
) -> bytes:
    """A request of ours. `random` is the authenticator where that is random.

    Message-Authenticator stands first (draft-ietf-radext-deprecating-radius: what an
    attacker chooses must not come before it). Accounting has none: RFC 2869 section
    5.14 knows it for Access only, and the authenticator covers the packet anyway.
    """
    if code == Code.ACCOUNTING_REQUEST:
        body = pack_attributes(attributes)
        head = HEADER.pack(code, identifier, HEADER.size + len(body), bytes(16))
        digest = _md5(head, body, secret)
        return head[:4] + digest + body
    signed = ((MESSAGE_AUTHENTICATOR, NO_SIGNATURE), *attributes)
    if code in RANDOM:
        data = Packet(code, identifier, random, signed).encode()
        return _signed(data, secret, random)
    data = _signed(Packet(code, identifier, bytes(16), signed).encode(), secret, bytes(16))
    return data[:4] + _md5(data, secret) + data[HEADER.size :]


def response(
    code: int, asked: Packet, attributes: Attributes, secret: bytes, *, sign: bool = True
) -> bytes:
    """An answer to `asked`, RFC 2865 section 3 and RFC 5176 section 2.3."""
    if sign:
        attributes = ((MESSAGE_AUTHENTICATOR, NO_SIGNATURE), *attributes)
    data = Packet(code, asked.identifier, asked.authenticator, attributes).encode()
    if sign:
        data = _signed(data, secret, asked.authenticator)
    return data[:4] + _md5(data, secret) + data[HEADER.size :]


def check_response(data: bytes, sent: bytes, secret: bytes) -> Packet:
    """An answer to our request `sent`; RemoteError if it was not made by who has the secret.

    Whether a Message-Authenticator must be there is for the caller to say; one that is
    there is right (RFC 3579 section 3.2).
    """
    packet = Packet.decode(data)
    length = int.from_bytes(data[2:4], "big")
    data = data[:length]
    digest = _md5(data[:4], sent[4:20], data[HEADER.size :], secret)
    if not hmac.compare_digest(digest, packet.authenticator):
        raise RemoteError("wrong_secret", "Response Authenticator is wrong: another secret?")
    _check_signature(data, packet, sent[4:20], secret)
    return packet


def check_request(data: bytes, secret: bytes) -> Packet:
    """A request of CoA, Disconnect or accounting kind; RFC 5176 section 2.3."""
    packet = Packet.decode(data)
    length = int.from_bytes(data[2:4], "big")
    data = data[:length]
    digest = _md5(data[:4], bytes(16), data[HEADER.size :], secret)
    if not hmac.compare_digest(digest, packet.authenticator):
        raise RemoteError("wrong_secret", "Request Authenticator is wrong: another secret?")
    _check_signature(data, packet, bytes(16), secret)
    return packet


def _check_signature(data: bytes, packet: Packet, authenticator: bytes, secret: bytes) -> None:
    at = HEADER.size
    for kind, value in packet.attributes:
        if kind == MESSAGE_AUTHENTICATOR:
            if len(value) != 16:
                text = f"Message-Authenticator of {len(value)} octets"
                raise RemoteError("wrong_message_authenticator", text)
            shown = data[:4] + authenticator + data[20 : at + 2] + bytes(16) + data[at + 18 :]
            if not hmac.compare_digest(_signature(shown, secret), value):
                text = "Message-Authenticator is wrong"
                raise RemoteError("wrong_message_authenticator", text)
        at += 2 + len(value)
