"""Check an Authenticate against a password or its NT hash: the arithmetic of each method.

Finding the account, its address and its pool is the caller's; so is the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.ppp import mppe_keys, mschap
from workers.ppp.actions import Authenticate, Verdict

USE_NT_RESPONSE = 1  # flag of RFC 2433 section 4: prefer the NT response
V1_RESPONSE = 49
V2_RESPONSE = 49


@dataclass(frozen=True, slots=True)
class NtHash:
    """What is kept in place of a password: MD4 of it, 16 octets."""

    octets: bytes = field(repr=False)


Password = str | NtHash


def check(request: Authenticate, password: Password) -> Verdict:
    """The verdict for `request` if the account's password is `password`.

    `user` is the name as it came; `reason` is "wrong password" or says what is malformed.
    """
    match request.method:
        case "pap":
            return _bare(request, _pap(request, password))
        case "chap-md5" | "eap-md5":
            return _md5(request, password)
        case "mschap":
            return _version1(request, password)
        case "mschapv2" | "eap-mschapv2":
            return _version2(request, password)
    return Verdict(False, request.name, f"no such method: {request.method}")


def _nt_hash(password: Password) -> bytes:
    if isinstance(password, NtHash):
        return password.octets
    return mschap.nt_password_hash(password)


def _md5(request: Authenticate, password: Password) -> Verdict:
    if isinstance(password, NtHash):
        why = f"the account has an NT hash only, and {request.method} needs the password"
        return Verdict(False, request.name, why)
    secret = mschap.octets(password)
    want = mschap.chap_md5(request.identifier, secret, request.challenge)
    return _bare(request, mschap.same(request.response, want))


def _pap(request: Authenticate, password: Password) -> bool:
    if isinstance(password, str):
        return mschap.same(request.response, mschap.octets(password))
    said = request.response.decode("utf-8", "surrogateescape")
    return mschap.same(mschap.nt_password_hash(said), password.octets)


def _bare(request: Authenticate, good: bool) -> Verdict:
    return Verdict(good, request.name, "" if good else "wrong password")


def _version1(request: Authenticate, password: Password) -> Verdict:
    response = request.response
    if len(response) != V1_RESPONSE:
        return Verdict(False, request.name, f"response of {len(response)} octets, not 49")
    # The LAN Manager response is a gift to whoever cracks passwords: never accepted.
    if not response[48] & USE_NT_RESPONSE:
        return Verdict(False, request.name, "the client offers a LAN Manager response only")
    nt_hash = _nt_hash(password)
    if not mschap.same(response[24:48], mschap.challenge_response(request.challenge, nt_hash)):
        return Verdict(False, request.name, "wrong password")
    # The LAN Manager hash, which the shorter keys are made of, is not to be had of an NT hash.
    lm_hash = mschap.lm_password_hash(password) if isinstance(password, str) else b""
    return Verdict(
        True,
        request.name,
        start_key=mppe_keys.start_key_v1_128(
            mschap.hash_nt_password_hash(nt_hash), request.challenge
        ),
        lm_key=mppe_keys.start_key_v1_40(lm_hash),
    )


def _version2(request: Authenticate, password: Password) -> Verdict:
    response = request.response
    if len(response) != V2_RESPONSE:
        return Verdict(False, request.name, f"response of {len(response)} octets, not 49")
    peer_challenge, nt_response = response[:16], response[24:48]
    user = mschap.octets(mschap.split_domain(request.name)[1])
    nt_hash = _nt_hash(password)
    want = mschap.generate_nt_response(request.challenge, peer_challenge, user, nt_hash)
    if not mschap.same(nt_response, want):
        return Verdict(False, request.name, "wrong password")
    return Verdict(
        True,
        request.name,
        authenticator_response=mschap.authenticator_response(
            nt_hash, nt_response, peer_challenge, request.challenge, user
        ),
        master=mppe_keys.master_key(mschap.hash_nt_password_hash(nt_hash), nt_response),
    )
