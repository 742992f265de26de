"""RC4 as plainly as it can be said: the slow twin that compiled code is checked against.

Not for packets: it costs some 100 microseconds a kilobyte.
"""

from __future__ import annotations


class Rc4:
    """One key stream. State goes on from call to call, as stateful MPPE needs."""

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("RC4 needs a key")
        self._s = list(range(256))
        self._i = 0
        self._j = 0
        j = 0
        for i in range(256):
            j = (j + self._s[i] + key[i % len(key)]) & 0xFF
            self._s[i], self._s[j] = self._s[j], self._s[i]

    def crypt(self, data: bytes) -> bytes:
        """Encrypt or decrypt, which are the same."""
        out = bytearray(data)
        s = self._s
        for at, octet in enumerate(data):
            self._i = (self._i + 1) & 0xFF
            self._j = (self._j + s[self._i]) & 0xFF
            s[self._i], s[self._j] = s[self._j], s[self._i]
            out[at] = octet ^ s[(s[self._i] + s[self._j]) & 0xFF]
        return bytes(out)
