"""Arithmetic of MS-CHAP versions 1 and 2: RFC 2433 appendix A, RFC 2759 section 8.

Pure functions, no packets and no policy. MD4 and DES come from pycryptodome, since
OpenSSL 3 hides both in its legacy provider.
"""

from __future__ import annotations

import codecs
import hashlib
import hmac
from typing import Final

from Crypto.Cipher import DES
from Crypto.Hash import MD4

LM_TEXT: Final = b"KGS!@#$%"
SIGNING: Final = b"Magic server to client signing constant"
ITERATION: Final = b"Pad to make it do more than one iteration"

# Used once now: both are imported at their first use, and their files may be out of reach
# once a worker has given root away (a checkout under /root).
codecs.lookup("utf-16-le")
DES.new(bytes(8), DES.MODE_ECB)  # noqa: S304


def octets(name: str) -> bytes:
    """A name as it was on the wire: undecodable octets travel as surrogates."""
    return name.encode("utf-8", "surrogateescape")


def split_domain(name: str) -> tuple[str, str]:
    r"""``DOMAIN\user`` as (domain, user); the domain is "" if the name has none."""
    domain, _, user = name.rpartition("\\")
    return domain, user


def nt_password_hash(password: str) -> bytes:
    """MD4 of the password in UTF-16LE, RFC 2759 section 8.3."""
    digest: bytes = MD4.new(password.encode("utf-16-le", "surrogatepass")).digest()  # noqa: S303
    return digest


def hash_nt_password_hash(nt_hash: bytes) -> bytes:
    """MD4 once more, RFC 2759 section 8.4: what the MPPE master key starts from."""
    digest: bytes = MD4.new(nt_hash).digest()  # noqa: S303
    return digest


def des_key(seven: bytes) -> bytes:
    """56 bits of key spread over 8 octets, each with odd parity in its lowest bit."""
    bits = int.from_bytes(seven, "big")
    key = bytearray()
    for shift in range(49, -1, -7):
        octet = (bits >> shift & 0x7F) << 1
        key.append(octet | (octet.bit_count() + 1) % 2)
    return bytes(key)


def _des(seven: bytes, block: bytes) -> bytes:
    # DES is what the protocol is made of; its weakness is told in the README.
    result: bytes = DES.new(des_key(seven), DES.MODE_ECB).encrypt(block)  # noqa: S304
    return result


def lm_password_hash(password: str) -> bytes:
    """RFC 2433 appendix A.2: upper case, OEM code page, 14 octets, two DES blocks."""
    plain = password.upper().encode("cp437", "replace")[:14].ljust(14, b"\0")
    return _des(plain[:7], LM_TEXT) + _des(plain[7:], LM_TEXT)


def challenge_response(challenge: bytes, password_hash: bytes) -> bytes:
    """24 octets: the challenge under three DES keys of the hash, RFC 2759 section 8.5."""
    padded = password_hash.ljust(21, b"\0")
    return b"".join(_des(padded[at : at + 7], challenge) for at in (0, 7, 14))


def nt_challenge_response(challenge: bytes, password: str) -> bytes:
    """NT response of version 1, RFC 2433 appendix A.5."""
    return challenge_response(challenge, nt_password_hash(password))


def lm_challenge_response(challenge: bytes, password: str) -> bytes:
    """LAN Manager response of version 1, RFC 2433 appendix A.1."""
    return challenge_response(challenge, lm_password_hash(password))


def challenge_hash(peer_challenge: bytes, auth_challenge: bytes, user: bytes) -> bytes:
    """8 octets that both sides' challenges and the user's name make, RFC 2759 section 8.2.

    `user` is the name as the peer sent it, without the domain.
    """
    digest = hashlib.sha1(peer_challenge + auth_challenge + user, usedforsecurity=False)
    return digest.digest()[:8]


def generate_nt_response(
    auth_challenge: bytes, peer_challenge: bytes, user: bytes, nt_hash: bytes
) -> bytes:
    """NT-Response of version 2, RFC 2759 section 8.1."""
    return challenge_response(challenge_hash(peer_challenge, auth_challenge, user), nt_hash)


def authenticator_response(
    nt_hash: bytes, nt_response: bytes, peer_challenge: bytes, auth_challenge: bytes, user: bytes
) -> str:
    """``S=`` and 40 upper-case digits: we know the password too, RFC 2759 section 8.7."""
    inner = hashlib.sha1(
        hash_nt_password_hash(nt_hash) + nt_response + SIGNING, usedforsecurity=False
    )
    challenge = challenge_hash(peer_challenge, auth_challenge, user)
    outer = hashlib.sha1(inner.digest() + challenge + ITERATION, usedforsecurity=False)
    return f"S={outer.hexdigest().upper()}"


def chap_md5(identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """The response of plain CHAP, RFC 1994 section 4.1."""
    data = bytes([identifier]) + secret + challenge
    return hashlib.md5(data, usedforsecurity=False).digest()


def same(one: bytes, other: bytes) -> bool:
    """Compare without telling by the time taken where they differ."""
    return hmac.compare_digest(one, other)
