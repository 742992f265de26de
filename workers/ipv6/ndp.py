"""Router solicitations and advertisements: RFC 4861 section 4, RFC 8106 (RDNSS, DNSSL)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from workers.ipv6.errors import RemoteError
from workers.ipv6.names import decode_names, encode_names
from workers.ipv6.packets import HOPS, UNSPECIFIED, Packet

ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134

SOURCE_LINK_LAYER: Final = 1
PREFIX_INFORMATION: Final = 3
MTU: Final = 5
RDNSS: Final = 25
DNSSL: Final = 31

FOREVER: Final = 0xFFFFFFFF
MANAGED: Final = 0x80
OTHER: Final = 0x40
ON_LINK: Final = 0x80
AUTONOMOUS: Final = 0x40

_ADVERTISEMENT: Final = Struct(">BBHBBHII")
_PREFIX: Final = Struct(">BBBBIII16s")
_MTU: Final = Struct(">BBHI")
_LIFETIME: Final = Struct(">BBHI")


@dataclass(frozen=True, slots=True)
class PrefixInformation:
    """RFC 4861 section 4.6.2. Lifetimes in s; FOREVER is infinity."""

    prefix: bytes
    length: int
    valid: int
    preferred: int
    on_link: bool = False  # a subscriber's link has two ends: all else goes by the router
    autonomous: bool = True

    def encode(self) -> bytes:
        flags = ON_LINK * self.on_link | AUTONOMOUS * self.autonomous
        return _PREFIX.pack(
            PREFIX_INFORMATION, 4, self.length, flags, self.valid, self.preferred, 0, self.prefix
        )


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Times in s; `lifetime` 0: no default router."""

    lifetime: int
    managed: bool = False  # addresses by DHCPv6
    other: bool = False  # other words, as name servers, by DHCPv6
    hop_limit: int = 64
    prefixes: tuple[PrefixInformation, ...] = ()
    mtu: int = 0  # 0: not said
    dns: tuple[bytes, ...] = ()
    search: tuple[str, ...] = ()
    dns_lifetime: int = 0

    def encode(self) -> bytes:
        """The ICMPv6 message; its checksum is still 0."""
        flags = MANAGED * self.managed | OTHER * self.other
        message = _ADVERTISEMENT.pack(
            ROUTER_ADVERTISEMENT, 0, 0, self.hop_limit, flags, self.lifetime, 0, 0
        )
        message += b"".join(prefix.encode() for prefix in self.prefixes)
        if self.mtu:
            message += _MTU.pack(MTU, 1, 0, self.mtu)
        if self.dns:
            head = _LIFETIME.pack(RDNSS, 1 + 2 * len(self.dns), 0, self.dns_lifetime)
            message += head + b"".join(self.dns)
        if self.search:
            names = encode_names(self.search)
            names += bytes(-len(names) % 8)
            message += _LIFETIME.pack(DNSSL, 1 + len(names) // 8, 0, self.dns_lifetime) + names
        return message

    @classmethod
    def decode(cls, message: bytes) -> Advertisement:
        """The inverse; options it does not know are passed over."""
        if len(message) < _ADVERTISEMENT.size or message[0] != ROUTER_ADVERTISEMENT:
            raise RemoteError("no router advertisement")
        _, _, _, hop_limit, flags, lifetime, _, _ = _ADVERTISEMENT.unpack_from(message)
        prefixes: list[PrefixInformation] = []
        mtu = dns_lifetime = 0
        dns: list[bytes] = []
        search: tuple[str, ...] = ()
        for kind, option in options(message[_ADVERTISEMENT.size :]):
            if kind == PREFIX_INFORMATION and len(option) == _PREFIX.size:
                _, _, length, said, valid, preferred, _, prefix = _PREFIX.unpack(option)
                prefixes.append(
                    PrefixInformation(
                        prefix,
                        length,
                        valid,
                        preferred,
                        bool(said & ON_LINK),
                        bool(said & AUTONOMOUS),
                    )
                )
            elif kind == MTU and len(option) == _MTU.size:
                mtu = _MTU.unpack(option)[3]
            elif kind in (RDNSS, DNSSL):
                dns_lifetime = _LIFETIME.unpack_from(option)[3]
                if kind == RDNSS:
                    dns += [option[at : at + 16] for at in range(8, len(option) - 15, 16)]
                else:
                    search += decode_names(option[8:])
        return cls(
            lifetime,
            bool(flags & MANAGED),
            bool(flags & OTHER),
            hop_limit,
            tuple(prefixes),
            mtu,
            tuple(dns),
            search,
            dns_lifetime,
        )


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, the whole option); RFC 4861 section 4.6: a length of 0 spoils the packet."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise RemoteError("an option of one octet")
        size = data[at + 1] * 8
        if not size or at + size > len(data):
            raise RemoteError(f"option {data[at]} of length {data[at + 1]}")
        yield data[at], data[at : at + size]
        at += size


def check_solicitation(packet: Packet) -> None:
    """RFC 4861 section 6.1.1: RemoteError if this is no valid router solicitation."""
    message = packet.payload
    if packet.hops != HOPS:
        raise RemoteError(f"router solicitation with hop limit {packet.hops}")
    if len(message) < 8 or message[0] != ROUTER_SOLICITATION or message[1]:
        raise RemoteError("no router solicitation")
    for kind, _ in options(message[8:]):
        if kind == SOURCE_LINK_LAYER and packet.source == UNSPECIFIED:
            raise RemoteError("router solicitation of nobody with a link-layer address")
