"""IPv4 and IPv6 prefixes: the networks behind a subscriber. Leaf module: standard library only."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

WHOLE: Final = {4: 32, 16: 128}


class NetworkError(ValueError):
    """A text that is no prefix; says what is wrong with it."""


class Network(NamedTuple):
    """4 or 16 octets, with zeros behind the first `length` bits."""

    octets: bytes
    length: int

    @property
    def version(self) -> int:
        return 4 if len(self.octets) == 4 else 6

    @property
    def first(self) -> int:
        """The lowest address, as a number."""
        return int.from_bytes(self.octets, "big")

    @property
    def last(self) -> int:
        """The highest one."""
        return self.first | (1 << (8 * len(self.octets) - self.length)) - 1

    def holds(self, other: Network) -> bool:
        """Whether all of `other` lies in it."""
        return (
            len(self.octets) == len(other.octets)
            and self.length <= other.length
            and self.first == other.first >> (shift := 8 * len(self.octets) - self.length) << shift
        )

    def __str__(self) -> str:
        return f"{ip_address(self.octets)}/{self.length}"


def network(version: int, value: int, length: int) -> Network:
    """Of a number, whose bits behind `length` are cleared."""
    size = 4 if version == 4 else 16
    shift = 8 * size - length
    return Network((value >> shift << shift).to_bytes(size, "big"), length)


def host(value: int) -> Network:
    """One IPv4 address."""
    return Network(value.to_bytes(4, "big"), 32)


def host6(octets: bytes) -> Network:
    """One IPv6 address."""
    return Network(octets, 128)


def parse_network(text: str, version: int = 0) -> Network:
    """ "PREFIX/LENGTH", or one address; `version` 4 or 6: nothing else. Bits behind the length
    are an error: most often it is the length that is wrong."""
    try:
        found = ip_network(text.strip())
    except ValueError as e:
        raise NetworkError(f"{text[:60]!r} is no prefix: {str(e)[:120]}") from None
    if version and found.version != version:
        raise NetworkError(f"{text[:60]!r} is no IPv{version} prefix")
    return Network(found.network_address.packed, found.prefixlen)


def usable(found: Network, default: bool = False) -> str:
    """May it lie behind a subscriber? "" or what it is. `default`: all addresses at once, too."""
    if not found.length:
        return "" if default else "a default route"
    if found.version == 4:
        if found.first < 0x01000000 or found.last >= 0xE0000000:
            return "in 0.0.0.0/8, or multicast or reserved"
        if found.first <= 0x7FFFFFFF and found.last >= 0x7F000000:
            return "loopback"
        return ""
    if found.octets[0] == 0:
        return "in ::/8 (unspecified, loopback, mapped)"
    if found.last >> 120 >= 0xFE:
        return "link-local, multicast or reserved"
    return ""
