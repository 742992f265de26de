"""The requests of workers to netops: what one looks like, and which are carried out.

ARCHITECTURE.md, "netops contract": a datagram is msgpack of [[seq, op, args...], ...].
A worker parses what strangers send, so every value is looked at here. No socket.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Any, Final

import msgpack

from dispatcher.rtnl import Change

MAX_REQUESTS: Final = 4096
MAX_DATAGRAM: Final = 65536
OPERATIONS: Final = {"route_add": True, "route_del": False}


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
            max_bin_len=0,
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


def judge(request: list[Any], tuns: Collection[int], local: Collection[int]) -> Change | str:
    """The change a request asks for, or what is wrong with it."""
    if len(request) != 4:
        return f"{len(request)} items, not 4"
    _, operation, address, ifindex = request
    if not isinstance(operation, str) or operation not in OPERATIONS:
        return f"unknown operation {str(operation)[:32]!r}"
    if type(address) is not int or not routable(address):
        return "no address of a subscriber"
    if address in local:
        return "our own address"
    if type(ifindex) is not int or ifindex not in tuns:
        return "no interface of ours"
    return Change(OPERATIONS[operation], address, 32, ifindex)


def reply(answers: list[tuple[int, int]]) -> bytes:
    """The answer's datagram."""
    packed: bytes = msgpack.packb([[seq, code] for seq, code in answers])
    return packed


BAD: Final = errno.EINVAL
