"""Numbered datagrams: what is in one, and the account of those that came.

Each flow (a session's) counts its datagrams from 0 in each direction. A receiver can say
of every number below the sender's count whether it came, how often, and whether in order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Final

MAGIC: Final = 0x70746E75
# magic, flow, number on the way up, number on the way down, when it was sent up
HEADER: Final = struct.Struct("!IIQQd")
NUMBER_DOWN: Final = struct.Struct("!Q")
NUMBER_DOWN_AT: Final = 16
MAX_AHEAD: Final = 1 << 22  # numbers: more in one step is no datagram of this run


@dataclass(slots=True)
class Account:
    """The numbers of one flow that have come so far."""

    received: int = 0  # different numbers
    octets: int = 0  # of inner IP packets, duplicates left out
    duplicated: int = 0
    reordered: int = 0  # came after a higher number
    next: int = 0  # one more than the highest number seen
    missing: set[int] = field(default_factory=set)  # below `next`

    def take(self, number: int, octets: int) -> bool:
        """A datagram came; False if its number can't be."""
        if number == self.next:
            self.next = number + 1
        elif number > self.next:
            if number - self.next > MAX_AHEAD:
                return False
            self.missing.update(range(self.next, number))
            self.next = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.reordered += 1
        else:
            self.duplicated += 1
            return True
        self.received += 1
        self.octets += octets
        return True

    def seen(self) -> tuple[int, ...]:
        """What `settle` needs to know, for the other end."""
        return (
            *(self.next, len(self.missing), self.received),
            *(self.duplicated, self.reordered, self.octets),
        )


@dataclass(frozen=True, slots=True)
class Way:
    """All flows of one direction, added up."""

    sent: int = 0
    received: int = 0  # different ones
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    octets: int = 0  # received, of inner IP packets

    def __add__(self, other: Way) -> Way:
        return Way(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def since(self, before: Way) -> Way:
        """What came after `before`."""
        return Way(*(a - b for a, b in zip(astuple(self), astuple(before), strict=True)))


def settle(sent: int, seen: Sequence[int]) -> Way:
    """One flow: what its sender says against what its receiver has seen (`Account.seen`)."""
    above, missing, received, duplicated, reordered, octets = seen
    lost = missing + max(0, sent - above)
    return Way(sent, received, lost, duplicated, reordered, octets)


# Octets of inner IP packets in the shares of the classic "simple IMIX", 7 : 4 : 1, spread so
# that no size comes in a row of its own.
IMIX: Final = (64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64)
NUMBERED: Final = (92, 228, 540, 928, 1228, 1396)
