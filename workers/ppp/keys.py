"""What authentication leaves for MPPE, and the start keys it makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from workers.ppp.actions import Verdict
from workers.ppp.mppe_keys import LENGTHS, asymmetric_start_key


@dataclass(frozen=True, slots=True)
class Keys:
    """Key material of one authentication: `master` for MS-CHAPv2, or both start keys as
    they came from elsewhere, or the two others for version 1."""

    server: bool = True
    master: bytes = b""
    start_key: bytes = b""
    lm_key: bytes = b""
    send_key: bytes = b""
    receive_key: bytes = b""

    @classmethod
    def of(cls, verdict: Verdict) -> Keys:
        """What a server's verdict carries."""
        return cls(
            True,
            verdict.master,
            verdict.start_key,
            verdict.lm_key,
            verdict.send_key,
            verdict.receive_key,
        )

    def __repr__(self) -> str:
        return "Keys(...)"  # never in a log

    def has(self, bits: int) -> bool:
        """There is a key of this strength."""
        if self.master or (self.send_key and self.receive_key):
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
        if self.send_key and self.receive_key:
            # A shorter start key is the head of the longer one, RFC 3079 section 3.4.
            return (self.send_key if send else self.receive_key)[: LENGTHS[bits]]
        # RFC 3079 section 2: version 1 has one key for both directions.
        return self.start_key if bits == 128 else self.lm_key
