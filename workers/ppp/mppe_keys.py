"""Keys of MPPE: from authentication to start keys (RFC 3079), and on (RFC 3078 section 7).

A *start key* is what authentication gives: 16 octets for 128 bits, 8 octets for 56
and 40 (RFC 3079 section 3.4), one a direction. The *session key* is what RC4 is
keyed with. Every change needs both: the new session key is a hash of the start key,
which stays, and of the session key in force. A start key is therefore all that a data
path must be given (SetMppe.rx_key, tx_key), and it must keep it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from workers.ppp.rc4 import Rc4

MASTER: Final = b"This is the MPPE Master Key"
CLIENT_SENDS: Final = (
    b"On the client side, this is the send key; on the server side, it is the receive key."
)
SERVER_SENDS: Final = (
    b"On the client side, this is the receive key; on the server side, it is the send key."
)
PAD1: Final = bytes(40)
PAD2: Final = b"\xf2" * 40

# Key octets and the fixed head that weakens the shorter ones, RFC 3079 sections 2.3 and 3.4.
LENGTHS: Final[dict[int, int]] = {40: 8, 56: 8, 128: 16}
SALTS: Final[dict[int, bytes]] = {40: b"\xd1\x26\x9e", 56: b"\xd1", 128: b""}


def _sha(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()


def master_key(nt_hash_hash: bytes, nt_response: bytes) -> bytes:
    """16 octets for MS-CHAPv2, RFC 3079 section 3.4.

    The input is the 24-octet NT-Response, not the peer's challenge.
    """
    return _sha(nt_hash_hash, nt_response, MASTER)[:16]


def asymmetric_start_key(master: bytes, length: int, *, send: bool, server: bool) -> bytes:
    """Start key of one direction, RFC 3079 section 3.4: our send key is their receive key."""
    magic = SERVER_SENDS if send == server else CLIENT_SENDS
    return _sha(master, PAD1, magic, PAD2)[:length]


def start_key_v1_128(nt_hash_hash: bytes, challenge: bytes) -> bytes:
    """128-bit start key of MS-CHAPv1, RFC 3079 section 2.4: the same for both directions."""
    return _sha(nt_hash_hash, nt_hash_hash, challenge)[:16]


def start_key_v1_40(lm_hash: bytes) -> bytes:
    """40- and 56-bit start key of MS-CHAPv1, RFC 3079 sections 2.1 and 2.2."""
    return lm_hash[:8]


def new_key_from_sha(start: bytes, session: bytes) -> bytes:
    """GetNewKeyFromSHA of RFC 3079 section 2.1, as long as the start key."""
    return _sha(start, PAD1, session, PAD2)[: len(start)]


def salted(key: bytes, bits: int) -> bytes:
    """The key with the fixed head of its strength."""
    head = SALTS[bits]
    return head + key[len(head) :]


def initial_session_key(start: bytes, bits: int) -> bytes:
    """Session key before the first packet: hashed, not passed through RC4.

    RFC 3078 section 7.1; Linux calls it mppe_rekey(state, 1).
    """
    return salted(new_key_from_sha(start, start), bits)


def next_session_key(start: bytes, session: bytes, bits: int) -> bytes:
    """One change of keys, RFC 3078 section 7.3; Linux's mppe_rekey(state, 0).

    The hash is encrypted with RC4 keyed by itself; the head is put on last.
    """
    interim = new_key_from_sha(start, session)
    return salted(Rc4(interim).crypt(interim), bits)
