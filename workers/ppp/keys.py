"""What authentication leaves for MPPE, and the start keys it makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.ppp.mppe_keys import LENGTHS, asymmetric_start_key


@dataclass(frozen=True, slots=True)
class Keys:
    """Key material of one authentication: `master` for MS-CHAPv2, the others for version 1."""

    server: bool = True
    master: bytes = b""
    start_key: bytes = b""
    lm_key: bytes = b""

    def __repr__(self) -> str:
        return "Keys(...)"  # never in a log

    def has(self, bits: int) -> bool:
        """There is a key of this strength."""
        if self.master:
            return True
        return bool(self.start_key if bits == 128 else self.lm_key)

    def receive(self, bits: int) -> bytes:
        """Start key of what we decrypt."""
        return self._start(bits, send=False)

    def send(self, bits: int) -> bytes:
        """Start key of what we encrypt."""
        return self._start(bits, send=True)

    def _start(self, bits: int, *, send: bool) -> bytes:
        if not bits:
            return b""
        if self.master:
            length = LENGTHS[bits]
            return asymmetric_start_key(self.master, length, send=send, server=self.server)
        # RFC 3079 section 2: version 1 has one key for both directions.
        return self.start_key if bits == 128 else self.lm_key
