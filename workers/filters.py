"""Filters and exempt destinations: from the words of the configuration to the data path's block.

A rule is a line of words, and the first that fits a packet decides:

    (permit | deny) [up | down] [PROTOCOL] [from NET [port PORTS]] [to NET [port PORTS]]

`up` is from the subscriber, `down` to it, neither is both. NET is `any`, an address or a
prefix; PORTS are numbers and ranges, `80,443,6881-6889`. The block is what
`fastpath/filter.pxd` describes. Standard library only: the check of a configuration reads
rules with the same words as a worker.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network
Ports = tuple[int, int]

MAX_FILTERS: Final = 1024
MAX_RULES: Final = 1024  # of a filter, after port lists are taken apart
UP: Final = 1
DOWN: Final = 2
ANY_PROTOCOL: Final = 256
PROTOCOLS: Final = {
    "ip": ANY_PROTOCOL,
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "sctp": 132,
}
WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
_HEAD: Final = struct.Struct("=IIII")
_FILTER: Final = struct.Struct("=IIII")
_RULE: Final = struct.Struct("=BBBBHHHHHH16s16s16s16s")


class RuleError(ValueError):
    """These words are no rule; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. Networks None: any; port lists (): any."""

    permit: bool
    ways: int = UP | DOWN
    protocol: int = ANY_PROTOCOL
    source: Network | None = None
    source_ports: tuple[Ports, ...] = ()
    target: Network | None = None
    target_ports: tuple[Ports, ...] = ()

    @property
    def family(self) -> int:
        """4, 6, or 0: both."""
        for network in (self.source, self.target):
            if network is not None:
                return network.version
        return 0

    @property
    def size(self) -> int:
        """Rules of the data path that it becomes: one for each pair of port ranges."""
        return max(1, len(self.source_ports)) * max(1, len(self.target_ports))


@dataclass(frozen=True, slots=True)
class Filter:
    """[filters.NAME]"""

    name: str
    rules: tuple[Rule, ...]
    permits: bool  # what no rule speaks of


def number_of(name: str) -> int:
    """What names a filter in a session's record: the same in every process and after a reload."""
    return zlib.crc32(name.encode()) or 1


def parse_rule(text: str) -> Rule:
    """A rule from its words; RuleError says what is wrong."""
    words = text.split()
    if not words or words[0] not in ("permit", "deny"):
        raise RuleError("a rule begins with permit or deny")
    permit = words.pop(0) == "permit"
    ways = UP | DOWN
    if words and words[0] in ("up", "down"):
        ways = UP if words.pop(0) == "up" else DOWN
    protocol = ANY_PROTOCOL
    if words and words[0] not in ("from", "to"):
        protocol = _protocol(words.pop(0))
    source, source_ports = _side("from", words)
    target, target_ports = _side("to", words)
    if words:
        hint = ": from comes before to" if words[0] == "from" else ""
        raise RuleError(f"{words[0]!r} is not expected here{hint}")
    if (source_ports or target_ports) and protocol not in WITH_PORTS:
        raise RuleError("port needs a protocol that has ports: tcp, udp or sctp")
    if source is not None and target is not None and source.version != target.version:
        raise RuleError(f"{source} and {target} are of different IP versions")
    rule = Rule(permit, ways, protocol, source, source_ports, target, target_ports)
    if (protocol == PROTOCOLS["icmp"] and rule.family == 6) or (
        protocol == PROTOCOLS["icmp6"] and rule.family == 4
    ):
        raise RuleError("icmp is of IPv4, icmp6 of IPv6")
    return rule


def _protocol(word: str) -> int:
    if word in PROTOCOLS:
        return PROTOCOLS[word]
    if word.isdecimal() and int(word) < ANY_PROTOCOL:
        return int(word)
    known = ", ".join(PROTOCOLS)
    raise RuleError(f"{word!r} is no protocol: {known}, or a number from 0 to 255")


def _side(keyword: str, words: list[str]) -> tuple[Network | None, tuple[Ports, ...]]:
    """`from NET port PORTS` or the same with to, taken from the front of the words."""
    if not words or words[0] != keyword:
        return None, ()
    words.pop(0)
    if not words:
        raise RuleError(f"{keyword!r} without an address, a prefix or any")
    network = parse_network(words.pop(0))
    if not words or words[0] != "port":
        return network, ()
    words.pop(0)
    if not words:
        raise RuleError("'port' without a number")
    return network, _ports(words.pop(0))


def parse_network(word: str) -> Network | None:
    """An address or prefix; None for any. 0.0.0.0/0 and ::/0 name a version, which any does not."""
    if word == "any":
        return None
    try:
        return ip_network(word)
    except ValueError as e:
        raise RuleError(f"{word!r} is no address, prefix or any: {e}") from None


def _ports(word: str) -> tuple[Ports, ...]:
    found: list[Ports] = []
    for part in word.split(","):
        low, dash, high = part.partition("-")
        high = high if dash else low
        if not (low.isdecimal() and high.isdecimal() and int(low) <= int(high) <= 65535):
            raise RuleError(f"{part!r} is no port: a number up to 65535, or two with a dash")
        found.append((int(low), int(high)))
    return tuple(found)


def _address(network: Network | None) -> tuple[bytes, bytes]:
    """Octets and mask, as the data path compares them."""
    if network is None:
        return bytes(16), bytes(16)
    return (
        network.network_address.packed.ljust(16, b"\0"),
        network.netmask.packed.ljust(16, b"\0"),
    )


def _packed(rule: Rule) -> Iterable[bytes]:
    source, source_mask = _address(rule.source)
    target, target_mask = _address(rule.target)
    ports = (1 if rule.source_ports else 0) | (2 if rule.target_ports else 0)
    for from_low, from_high in rule.source_ports or ((0, 65535),):
        for to_low, to_high in rule.target_ports or ((0, 65535),):
            yield _RULE.pack(
                rule.permit,
                rule.ways,
                rule.family,
                ports,
                rule.protocol,
                from_low,
                from_high,
                to_low,
                to_high,
                0,
                source,
                target,
                source_mask,
                target_mask,
            )


def _ranges(networks: Sequence[Network], version: int) -> list[bytes]:
    """Disjoint and rising: low and high address of each."""
    spans = sorted(
        (int(n.network_address), int(n.broadcast_address)) for n in networks if n.version == version
    )
    merged: list[list[int]] = []
    for low, high in spans:
        if merged and low <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    kind = IPv4Address if version == 4 else IPv6Address
    return [kind(low).packed + kind(high).packed for low, high in merged]


def pack(filters: Iterable[Filter], exempt: Sequence[Network] = ()) -> bytes:
    """The block for `Engine.set_filters`."""
    heads: list[bytes] = []
    rules: list[bytes] = []
    for each in sorted(filters, key=lambda f: number_of(f.name)):
        packed = [octets for rule in each.rules for octets in _packed(rule)]
        heads.append(_FILTER.pack(number_of(each.name), len(rules), len(packed), each.permits))
        rules += packed
    four, six = _ranges(exempt, 4), _ranges(exempt, 6)
    head = _HEAD.pack(len(heads), len(rules), len(four), len(six))
    return b"".join((head, *heads, *rules, *four, *six))
