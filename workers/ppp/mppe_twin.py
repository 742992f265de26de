"""MPPE packet by packet, slow and obvious: what a compiled data path is checked against.

RFC 3078, and where it is silent, what Linux's ppp_mppe (and so every pppd) does.

What the data path must do, exactly:

1. SetMppe gives the START key of each direction: 16 octets for 128 bits, 8 for 56
   and 40. Keep it for the life of the keys: every change hashes it in again, so the
   session key alone is not enough, neither to go on nor to resume after a crash.
2. At SetMppe: session = initial_session_key(start), the change without RC4. The
   sender's next count is 0, the receiver expects 0. (Linux holds 4095 and adds one.)
3. STATELESS, each packet, the first with count 0 included: first
   session = next_session_key(...), then a fresh RC4 state from it. So packet n is under
   the key that n + 1 changes from the initial one make. Bits A and D are set:
   0x9000 | count. The first packet of a link begins 90 00.
4. STATELESS, receiving count c when e is expected: distance d = (c - e) mod 4096.
   d >= 2048: a late packet; drop it and touch nothing. Else change keys d + 1 times,
   decrypt, expect c + 1. A clear or D clear: drop, count, touch nothing.
5. STATEFUL, sending: one RC4 stream runs on through the packets, from the initial
   session key. On a packet whose count ends in 0xff, and on the next one after a
   Reset-Request however many of those came, change keys first, start a fresh RC4
   state and set A.
6. STATEFUL, receiving what was expected: if A is set, change keys first. A packet
   ending in 0xff without A: drop, touch nothing. Any other count ahead of the
   expected one is a loss: drop it, send one Reset-Request, then drop all without A.
   The first with A: change keys once for each packet ending in 0xff that was missed,
   not counting this one, then once for this one.
   RFC 3078 section 8.2 would only reload RC4 with the unchanged key for an A
   outside 0xff; Linux changes keys, and Linux is what the peers of stateful mode run.
7. The count has 12 bits: after 0xfff comes 0.
8. The plaintext begins with the protocol field, 2 octets from us, 1 or 2 from peers.
   Only protocols 0x0021 to 0x00fa are encrypted.

The two directions share nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.ppp.mppe_keys import LENGTHS, initial_session_key, next_session_key
from workers.ppp.rc4 import Rc4

FLUSHED: Final = 0x8000  # bit A
ENCRYPTED: Final = 0x1000  # bit D
COUNTS: Final = 0x1000
LATE: Final = 0x800  # a distance from here on looks back, not forward


class DroppedError(Exception):
    """A packet that is not decrypted; the text is the reason: short, bits, late, or loss."""


class _Half:
    """Keys of one direction."""

    def __init__(self, start: bytes, bits: int, stateful: bool) -> None:
        if len(start) != LENGTHS[bits]:
            raise ValueError(f"{bits} bits need a start key of {LENGTHS[bits]} octets")
        self.start = start
        self.bits = bits
        self.stateful = stateful
        self.session = initial_session_key(start, bits)
        self.changes = 0
        self.rc4 = Rc4(self.session)

    def change(self) -> None:
        """RFC 3078 section 7.3, and RC4 loaded anew."""
        self.session = next_session_key(self.start, self.session, self.bits)
        self.changes += 1
        self.rc4 = Rc4(self.session)


class Encryptor(_Half):
    """The sender's half."""

    def __init__(self, start: bytes, bits: int, stateful: bool = False) -> None:
        super().__init__(start, bits, stateful)
        self.count = 0  # of the next packet
        self._flush = False

    def reset_request(self) -> None:
        """The peer lost something: flush with the next packet, once."""
        self._flush = True

    def encrypt(self, plain: bytes) -> bytes:
        """Payload of protocol 00fd: 2 octets of head, then the ciphertext."""
        head = ENCRYPTED | self.count
        if not self.stateful or self.count & 0xFF == 0xFF or self._flush:
            self.change()
            head |= FLUSHED
        self._flush = False
        self.count = (self.count + 1) % COUNTS
        return head.to_bytes(2, "big") + self.rc4.crypt(plain)


@dataclass(frozen=True, slots=True)
class Decrypted:
    """What came out, and whether it cost more than one change (a gap)."""

    plain: bytes
    missed: int


class Decryptor(_Half):
    """The receiver's half."""

    def __init__(self, start: bytes, bits: int, stateful: bool = False) -> None:
        super().__init__(start, bits, stateful)
        self.expected = 0
        self.waiting = False  # stateful: Reset-Request sent, A not seen yet

    def decrypt(self, payload: bytes) -> Decrypted:
        """The inverse of `Encryptor.encrypt`; raises DroppedError."""
        if len(payload) < 3:
            raise DroppedError("short")
        head = int.from_bytes(payload[:2], "big")
        count = head % COUNTS
        if not head & ENCRYPTED:
            raise DroppedError("bits")
        ahead = (count - self.expected) % COUNTS
        missed = self._stateful(head, ahead) if self.stateful else self._stateless(head, ahead)
        self.expected = (count + 1) % COUNTS
        return Decrypted(self.rc4.crypt(payload[2:]), missed)

    def _stateless(self, head: int, ahead: int) -> int:
        if not head & FLUSHED:
            raise DroppedError("bits")
        if ahead >= LATE:
            raise DroppedError("late")
        for _ in range(ahead + 1):
            self.change()
        return ahead

    def _stateful(self, head: int, ahead: int) -> int:
        count = head % COUNTS
        flushed = bool(head & FLUSHED)
        if count & 0xFF == 0xFF and not flushed:
            raise DroppedError("bits")
        if ahead >= LATE:
            raise DroppedError("late")
        if (ahead or self.waiting) and not flushed:
            self.waiting = True
            raise DroppedError("loss")
        for lost in range(self.expected, self.expected + ahead):
            if lost & 0xFF == 0xFF:
                self.change()
        if flushed:
            self.change()
        self.waiting = False
        return ahead
