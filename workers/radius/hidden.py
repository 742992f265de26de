"""Attributes that hide their value: User-Password and the MPPE keys.

RFC 2865 section 5.2, RFC 2548 sections 2.4.1 to 2.4.3. All hash the shared secret and the
*request's* authenticator; the keys of version 2 have a salt of their own as well.
"""

from __future__ import annotations

import hashlib
from typing import Final

from workers.radius.packets import RemoteError

BLOCK: Final = 16
PASSWORD_MAX: Final = 128


def _mask(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _hide(clear: bytes, secret: bytes, start: bytes) -> bytes:
    clear += bytes(-len(clear) % BLOCK)
    out = b""
    last = start
    for at in range(0, len(clear), BLOCK):
        last = _xor(clear[at : at + BLOCK], _mask(secret, last))
        out += last
    return out


def _show(hidden: bytes, secret: bytes, start: bytes) -> bytes:
    out = b""
    last = start
    for at in range(0, len(hidden), BLOCK):
        block = hidden[at : at + BLOCK]
        out += _xor(block, _mask(secret, last))
        last = block
    return out


def hide_password(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """User-Password. One of no octets is a block of zeros."""
    return _hide(password[:PASSWORD_MAX] or b"\0", secret, authenticator)


def show_password(hidden: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """The inverse, without the padding."""
    if not hidden or len(hidden) % BLOCK:
        raise RemoteError("bad_attribute", f"hidden value of {len(hidden)} octets")
    return _show(hidden, secret, authenticator).rstrip(b"\0")


def show_mppe_keys(hidden: bytes, secret: bytes, authenticator: bytes) -> tuple[bytes, bytes]:
    """LM key (8) and NT key (16) of MS-CHAP-MPPE-Keys; it has no salt."""
    if len(hidden) != 2 * BLOCK:
        raise RemoteError("bad_attribute", f"MS-CHAP-MPPE-Keys of {len(hidden)} octets, not 32")
    clear = _show(hidden, secret, authenticator)
    return clear[:8], clear[8:24]


def hide_key(key: bytes, salt: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """MS-MPPE-Send-Key or -Recv-Key: salt, then length and key, hidden."""
    return salt + _hide(bytes((len(key),)) + key, secret, authenticator + salt)


def show_key(hidden: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """The key in MS-MPPE-Send-Key or -Recv-Key."""
    salt, body = hidden[:2], hidden[2:]
    if len(salt) < 2 or not body or len(body) % BLOCK:
        raise RemoteError("bad_attribute", f"MPPE key of {len(hidden)} octets")
    clear = _show(body, secret, authenticator + salt)
    length = clear[0]
    if not 0 < length < len(clear):
        # Seldom the server's fault: with another secret this is random.
        raise RemoteError("wrong_secret", f"MPPE key of length {length} in {len(clear)} octets")
    return clear[1 : 1 + length]
