"""A page of memory that one process writes and others read: its figures. Leaf module.

A memfd with two copies of a msgpack value, written in turn, each with its turn, length
and CRC: a reader always finds a whole one, and it outlives the process that wrote it.
"""

from __future__ import annotations

import mmap
import os
import zlib
from struct import Struct
from typing import Any, Final

import msgpack

SIZE: Final = 1 << 19  # of both copies; only touched pages cost memory
HEAD: Final = Struct("=QII")  # turn, length, CRC
COPY: Final = SIZE // 2


class StatusPage:
    """One end of it. The keeper makes the memfd `SIZE` octets long."""

    def __init__(self, fd: int, *, writable: bool = False) -> None:
        if writable and os.fstat(fd).st_size < SIZE:
            os.ftruncate(fd, SIZE)
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(fd, SIZE, access=access) if os.fstat(fd).st_size else None

    def read(self) -> dict[str, Any]:
        """What was written last; {} if nothing was."""
        found: tuple[int, dict[str, Any]] = (0, {})
        for at in (0, COPY):
            turn, value = self._copy(at)
            if turn > found[0]:
                found = turn, value
        return found[1]

    def write(self, value: dict[str, Any]) -> bool:
        """False if it is too long to be kept."""
        data: bytes = msgpack.packb(value)
        if self._map is None or len(data) > COPY - HEAD.size:
            return False
        turn, at = max((self._turn(at), at) for at in (0, COPY))
        at = COPY - at
        # The head last: until then this copy has no valid CRC, and the other one is there.
        self._map[at + HEAD.size : at + HEAD.size + len(data)] = data
        self._map[at : at + HEAD.size] = HEAD.pack(turn + 1, len(data), zlib.crc32(data))
        return True

    def _turn(self, at: int) -> int:
        assert self._map is not None
        return int(HEAD.unpack_from(self._map, at)[0])

    def _copy(self, at: int) -> tuple[int, dict[str, Any]]:
        if self._map is None:
            return 0, {}
        turn, length, crc = HEAD.unpack_from(self._map, at)
        data = self._map[at + HEAD.size : at + HEAD.size + min(length, COPY)]
        if not turn or zlib.crc32(data) != crc:
            return 0, {}
        value = msgpack.unpackb(data)
        return turn, value if isinstance(value, dict) else {}
