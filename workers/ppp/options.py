"""Configuration options: type, length, data. RFC 1661 section 6.

Any octets give a list of options or a RemoteError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from workers.ppp.errors import RemoteError


@dataclass(frozen=True, slots=True)
class Option:
    """One option; `data` comes without type and length."""

    type: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Octets of the option."""
        return bytes([self.type, 2 + len(self.data)]) + self.data

    @classmethod
    def number(cls, kind: int, value: int, size: int) -> Option:
        """An option that holds one number of `size` octets."""
        return cls(kind, value.to_bytes(size, "big"))

    @property
    def value(self) -> int:
        """The data as one number."""
        return int.from_bytes(self.data, "big")


def decode_options(octets: bytes) -> tuple[Option, ...]:
    """All options, in order; a length that cannot be spoils the whole packet."""
    found = []
    at = 0
    while at < len(octets):
        left = len(octets) - at
        if left < 2 or not 2 <= octets[at + 1] <= left:
            raise RemoteError(f"option {octets[at]} does not fit: {left} octets left")
        end = at + octets[at + 1]
        found.append(Option(octets[at], octets[at + 2 : end]))
        at = end
    return tuple(found)


def encode_options(options: Iterable[Option]) -> bytes:
    """Octets of all options."""
    return b"".join(option.encode() for option in options)
