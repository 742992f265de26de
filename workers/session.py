"""What the blob of a session holds, beside the record's C fields, and its octets.

An up session is nothing but its record and this blob: any worker process of this
version can go on from them. Fields are appended with a default and VERSION is raised:
a blob of an earlier version is then read as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

import msgpack

VERSION: Final = 3

LENGTHS: Final = {1: 11, 2: 12, 3: 13}  # items of each version, itself included


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
    policy: dict[str, Any] = field(default_factory=dict)  # Policy.freeze()
    six: dict[str, Any] = field(default_factory=dict)  # Link6.freeze()

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
        version = items[0]
        if type(version) is not int or not 1 <= version <= VERSION:
            raise BlobError(f"blob version {version}, this program has {VERSION}")
        if len(items) != LENGTHS[version] or not isinstance(items[1], dict):
            raise BlobError(f"{len(items)} items")
        saved = cls(*items[1:])
        if not isinstance(saved.policy, dict) or not isinstance(saved.six, dict):
            raise BlobError("its policy is no map")
        return saved
