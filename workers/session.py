"""What the blob of a session holds, beside the record's C fields, and its octets.

An up session is nothing but its record and this blob: any worker process of this
version can go on from them. Change the fields, raise VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import msgpack

VERSION: Final = 1


class BlobError(Exception):
    """These octets are no session of this version."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A session between two events. Addresses are host-order, times CLOCK_MONOTONIC s."""

    link: dict[str, Any]  # Link.freeze()
    user: str  # whole; the record's copy is cut
    peer_name: str  # as the peer sent it, with its domain
    auth: str
    called: int  # our outer address
    calling: int  # the peer's
    dns: tuple[int, ...]
    pool: str
    started: float
    up: float

    def pack(self) -> bytes:
        """As octets; fits BLOB_MAX for any name CHAP can carry."""
        values = [getattr(self, f.name) for f in fields(self)]
        packed: bytes = msgpack.packb([VERSION, *values], unicode_errors="surrogateescape")
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Saved:
        """The session in a blob; BlobError names what is wrong with it."""
        if not data:
            raise BlobError("no valid copy")
        try:
            items = msgpack.unpackb(
                data, use_list=False, strict_map_key=False, unicode_errors="surrogateescape"
            )
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
            # TypeError: a map whose key is a map
            raise BlobError(f"not msgpack: {e}") from None
        if not isinstance(items, tuple) or not items:
            raise BlobError("not a list")
        if items[0] != VERSION:
            raise BlobError(f"blob version {items[0]}, this program has {VERSION}")
        if len(items) != 1 + len(fields(cls)) or not isinstance(items[1], dict):
            raise BlobError(f"{len(items)} items")
        return cls(*items[1:])
