"""The requests of workers to netops: what one looks like, and which are carried out.

ARCHITECTURE.md, "netops contract": a datagram is msgpack of [[seq, op, args...], ...].
A worker parses what strangers send, so every value is looked at here. No socket.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from dispatcher.rtnl import Change
from ops.networks import WHOLE, Network, host, network, usable

MAX_REQUESTS: Final = 4096
MAX_DATAGRAM: Final = 65536


class RequestError(Exception):
    """A datagram that is no list of requests: our own bug, or a worker gone wrong."""


def unpack(datagram: bytes) -> list[tuple[int, Any]]:
    """(sequence, the whole request) of each request; its operation is not judged yet."""
    try:
        items = msgpack.unpackb(
            datagram,
            max_array_len=MAX_REQUESTS,
            max_map_len=0,
            max_str_len=64,
            max_bin_len=16,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as e:
        raise RequestError(f"not msgpack: {e}") from None
    if not isinstance(items, list):
        raise RequestError("not a list")
    found = []
    for item in items:
        if not isinstance(item, list) or not item or type(item[0]) is not int:
            raise RequestError("an item has no sequence number")
        found.append((item[0], item))
    return found


def routable(address: int) -> bool:
    """May a subscriber have it? Not 0/8, loopback, multicast, reserved or broadcast."""
    return 0x01000000 <= address < 0xE0000000 and address >> 24 != 127


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a worker's requests are judged by."""

    tuns: Collection[int]  # interfaces its routes may lead to
    local: Collection[int]  # our own IPv4 addresses
    default: bool = False  # may a subscriber have a default route?


Judge = Callable[[list[Any], Grounds], Change | str]


def _route(request: list[Any], grounds: Grounds) -> Change | str:
    """[seq, op, address, ifindex]: the /32 of a session."""
    if len(request) != 4:
        return f"{len(request)} items, not 4"
    _, operation, address, ifindex = request
    if type(address) is not int or not routable(address):
        return "no address of a subscriber"
    if address in grounds.local:
        return "our own address"
    if type(ifindex) is not int or ifindex not in grounds.tuns:
        return "no interface of ours"
    return Change(operation == "route_add", host(address), ifindex)


def _net(request: list[Any], grounds: Grounds) -> Change | str:
    """[seq, op, octets of the prefix, length, ifindex]: a network behind a session."""
    if len(request) != 5:
        return f"{len(request)} items, not 5"
    _, operation, octets, length, ifindex = request
    if type(octets) is not bytes or len(octets) not in WHOLE:
        return "no prefix of 4 or 16 octets"
    if type(length) is not int or not 0 <= length <= WHOLE[len(octets)]:
        return "no prefix length"
    found = Network(octets, length)
    if found != network(found.version, found.first, length):
        return f"{found}: bits behind the length"
    if wrong := usable(found, grounds.default):
        return f"{found}: {wrong}"
    if found.version == 4 and length == 32 and found.first in grounds.local:
        return "our own address"
    if type(ifindex) is not int or ifindex not in grounds.tuns:
        return "no interface of ours"
    return Change(operation == "net_add", found, ifindex)


OPERATIONS: Final[dict[str, Judge]] = {
    "route_add": _route,
    "route_del": _route,
    "net_add": _net,
    "net_del": _net,
}


def judge(request: list[Any], grounds: Grounds) -> Change | str:
    """The change a request asks for, or what is wrong with it."""
    operation = request[1] if len(request) > 1 else None
    found = OPERATIONS.get(operation) if isinstance(operation, str) else None
    if found is None:
        return f"unknown operation {str(operation)[:32]!r}"
    return found(request, grounds)


def reply(answers: list[tuple[int, int]]) -> bytes:
    """The answer's datagram."""
    packed: bytes = msgpack.packb([[seq, code] for seq, code in answers])
    return packed


BAD: Final = errno.EINVAL
