"""Check an Authenticate against a plain password: the arithmetic of each method.

Finding the account, its address and its pool is the caller's; so is the log.
"""

from __future__ import annotations

from workers.ppp import mppe_keys, mschap
from workers.ppp.actions import Authenticate, Verdict

USE_NT_RESPONSE = 1  # flag of RFC 2433 section 4: prefer the NT response
V1_RESPONSE = 49
V2_RESPONSE = 49


def check(request: Authenticate, password: str) -> Verdict:
    """The verdict for `request` if the account's password is `password`.

    `user` is the name as it came; `reason` is "wrong password" or says what is malformed.
    """
    if request.method == "pap":
        return _bare(request, mschap.same(request.response, mschap.octets(password)))
    if request.method == "chap-md5":
        want = mschap.chap_md5(request.identifier, mschap.octets(password), request.challenge)
        return _bare(request, mschap.same(request.response, want))
    if request.method == "mschap":
        return _version1(request, password)
    if request.method == "mschapv2":
        return _version2(request, password)
    return Verdict(False, request.name, f"no such method: {request.method}")


def _bare(request: Authenticate, good: bool) -> Verdict:
    return Verdict(good, request.name, "" if good else "wrong password")


def _version1(request: Authenticate, password: str) -> Verdict:
    response = request.response
    if len(response) != V1_RESPONSE:
        return Verdict(False, request.name, f"response of {len(response)} octets, not 49")
    # The LAN Manager response is a gift to whoever cracks passwords: never accepted.
    if not response[48] & USE_NT_RESPONSE:
        return Verdict(False, request.name, "the client offers a LAN Manager response only")
    nt_hash = mschap.nt_password_hash(password)
    if not mschap.same(response[24:48], mschap.challenge_response(request.challenge, nt_hash)):
        return Verdict(False, request.name, "wrong password")
    return Verdict(
        True,
        request.name,
        start_key=mppe_keys.start_key_v1_128(
            mschap.hash_nt_password_hash(nt_hash), request.challenge
        ),
        lm_key=mppe_keys.start_key_v1_40(mschap.lm_password_hash(password)),
    )


def _version2(request: Authenticate, password: str) -> Verdict:
    response = request.response
    if len(response) != V2_RESPONSE:
        return Verdict(False, request.name, f"response of {len(response)} octets, not 49")
    peer_challenge, nt_response = response[:16], response[24:48]
    user = mschap.octets(mschap.split_domain(request.name)[1])
    nt_hash = mschap.nt_password_hash(password)
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
