"""DHCPv6 messages and options: RFC 8415 sections 8 and 21, RFC 3646 (name servers)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from workers.ipv6.errors import RemoteError

CLIENT_PORT: Final = 546
SERVER_PORT: Final = 547
DUID_MAX: Final = 130  # RFC 8415 section 11.1: 128 octets and the type
NESTED_MAX: Final = 64  # options of one message: a client has a dozen


class Kind(IntEnum):
    """RFC 8415 section 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


class Code(IntEnum):
    """Options, RFC 8415 section 21 and RFC 3646."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_TA = 4
    IA_ADDRESS = 5
    REQUESTED = 6
    PREFERENCE = 7
    STATUS = 13
    RAPID_COMMIT = 14
    DNS_SERVERS = 23
    DOMAIN_LIST = 24
    IA_PD = 25
    IA_PREFIX = 26
    REFRESH_TIME = 32


class Status(IntEnum):
    """RFC 8415 section 21.13."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    NO_PREFIX = 6


Options = tuple[tuple[int, bytes], ...]

_OPTION: Final = Struct(">HH")
_IA: Final = Struct(">4sII")  # IAID, T1, T2
_ADDRESS: Final = Struct(">16sII")  # preferred, valid lifetime
_PREFIX: Final = Struct(">IIB16s")


def decode_options(data: bytes) -> Options:
    """(code, data) each; RemoteError where one goes beyond the end."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data) or len(found) == NESTED_MAX:
            raise RemoteError("options cut short" if at + 4 > len(data) else "too many options")
        code, size = _OPTION.unpack_from(data, at)
        if at + 4 + size > len(data):
            raise RemoteError(f"option {code} of {size} octets goes beyond the end")
        found.append((code, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return tuple(found)


def encode_options(options: Options) -> bytes:
    """The inverse."""
    return b"".join(_OPTION.pack(code, len(data)) + data for code, data in options)


@dataclass(frozen=True, slots=True)
class Message:
    """Of a client or server; `transaction` has three octets."""

    kind: int
    transaction: bytes
    options: Options = ()

    @classmethod
    def decode(cls, data: bytes) -> Message:
        if len(data) < 4:
            raise RemoteError(f"DHCPv6 message of {len(data)} octets")
        return cls(data[0], data[1:4], decode_options(data[4:]))

    def encode(self) -> bytes:
        return bytes((self.kind,)) + self.transaction + encode_options(self.options)

    def first(self, code: int) -> bytes | None:
        """The data of the first option of that code."""
        return next((data for found, data in self.options if found == code), None)

    @property
    def client(self) -> bytes | None:
        """DUID of the client; RemoteError if it is none."""
        return _duid(self.first(Code.CLIENT_ID))

    @property
    def server(self) -> bytes | None:
        return _duid(self.first(Code.SERVER_ID))

    @property
    def requested(self) -> frozenset[int]:
        """Codes of the Option Request option."""
        data = self.first(Code.REQUESTED) or b""
        return frozenset(
            int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)
        )


def _duid(data: bytes | None) -> bytes | None:
    if data is not None and not 3 <= len(data) <= DUID_MAX:
        raise RemoteError(f"DUID of {len(data)} octets")
    return data


@dataclass(frozen=True, slots=True)
class Association:
    """IA_NA or IA_PD; times in s."""

    iaid: bytes
    t1: int = 0
    t2: int = 0
    options: Options = ()

    @classmethod
    def decode(cls, data: bytes) -> Association:
        if len(data) < _IA.size:
            raise RemoteError(f"identity association of {len(data)} octets")
        iaid, t1, t2 = _IA.unpack_from(data)
        return cls(iaid, t1, t2, decode_options(data[_IA.size :]))

    def encode(self) -> bytes:
        return _IA.pack(self.iaid, self.t1, self.t2) + encode_options(self.options)


@dataclass(frozen=True, slots=True)
class Lease:
    """What is inside of an association: a prefix, or an address (length 128)."""

    prefix: bytes
    length: int
    preferred: int = 0
    valid: int = 0

    @classmethod
    def decode(cls, code: int, data: bytes) -> Lease:
        kind = _ADDRESS if code == Code.IA_ADDRESS else _PREFIX
        if len(data) < kind.size:
            raise RemoteError(f"lease of {len(data)} octets")
        decode_options(data[kind.size :])
        if code == Code.IA_ADDRESS:
            address, preferred, valid = _ADDRESS.unpack_from(data)
            return cls(address, 128, preferred, valid)
        preferred, valid, length, prefix = _PREFIX.unpack_from(data)
        return cls(prefix, length, preferred, valid)

    def option(self, code: int) -> tuple[int, bytes]:
        """As an option of that code, IA_ADDRESS or IA_PREFIX."""
        if code == Code.IA_ADDRESS:
            return code, _ADDRESS.pack(self.prefix, self.preferred, self.valid)
        return code, _PREFIX.pack(self.preferred, self.valid, self.length, self.prefix)


def status(code: Status, text: str) -> tuple[int, bytes]:
    """A Status Code option."""
    return Code.STATUS, int(code).to_bytes(2, "big") + text.encode()
