"""What a dispatcher and the vault say to each other, a datagram each, with a descriptor or none.

Standard library only. A number is a control connection's; of ASK, HELD and DONE it is the
question's, so that an answer to a dead dispatcher is not taken for one to its successor.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HOLD: Final = 1  # D to V: this connection, with its descriptor
NOTE: Final = 2  # D to V: its octets half read, and not sent yet
DROP: Final = 3  # D to V: it is closed
ASK: Final = 4  # D to V: what is there?
HELD: Final = 5  # V to D: a connection, with its descriptor
DONE: Final = 6  # V to D: those were all
EMPTY: Final = 7  # V to D: I have just begun, tell me all of them

HEAD: Final = struct.Struct("=BQQI")  # kind, question, number, octets of `rest`
SIZE_MAX: Final = 1 << 17


class Said(NamedTuple):
    """A datagram."""

    kind: int
    question: int = 0
    number: int = 0
    rest: bytes = b""
    pending: bytes = b""

    def encode(self) -> bytes:
        """As octets."""
        head = HEAD.pack(self.kind, self.question, self.number, len(self.rest))
        return head + self.rest + self.pending


def decode(data: bytes) -> Said:
    """The datagram; ValueError if it is none."""
    if len(data) < HEAD.size:
        raise ValueError(f"datagram of {len(data)} octets")
    kind, question, number, size = HEAD.unpack_from(data)
    body = data[HEAD.size :]
    if not HOLD <= kind <= EMPTY or size > len(body):
        raise ValueError(f"datagram of kind {kind}, {size} of {len(body)} octets")
    return Said(kind, question, number, body[:size], body[size:])
