"""RFC 2433 and RFC 2759 examples; DES by `cryptography` as the second opinion."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ppp import mschap
from workers.ppp.actions import Authenticate
from workers.ppp.credentials import check

AUTH = bytes.fromhex("5b5d7c7d7b3f2f3e3c2c602132262628")
PEER = bytes.fromhex("21402324255e262a28295f2b3a337c7e")
NT_HASH = bytes.fromhex("44ebba8d5312b8d611474411f56989ae")
NT_RESPONSE = bytes.fromhex("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df")


def test_rfc2759_9_2() -> None:
    assert mschap.nt_password_hash("clientPass") == NT_HASH
    assert mschap.hash_nt_password_hash(NT_HASH).hex() == "41c00c584bd2d91c4017a2a12fa59f3f"
    assert mschap.challenge_hash(PEER, AUTH, b"User").hex() == "d02e4386bce91226"
    assert mschap.generate_nt_response(AUTH, PEER, b"User", NT_HASH) == NT_RESPONSE
    assert (
        mschap.authenticator_response(NT_HASH, NT_RESPONSE, PEER, AUTH, b"User")
        == "S=407A5589115FD0D6209F510FE9C04566932CDA56"
    )


@pytest.mark.parametrize(
    ("seven", "eight"),
    [("fc156af7edcd6c", "fd0b5b5e7f6e34d9"), ("0edde3337d427f", "0e6e796737ea08fe")],
)
def test_rfc2759_9_3_des_keys(seven: str, eight: str) -> None:
    assert mschap.des_key(bytes.fromhex(seven)).hex() == eight


def test_lm_hash_of_rfc3079() -> None:
    assert mschap.lm_password_hash("clientPass").hex() == "76a152936096d7830e2390227404afd2"
    assert mschap.lm_password_hash("CLIENTPASS") == mschap.lm_password_hash("clientPass")


def test_v1_example_of_rfc2433() -> None:
    """RFC 2433 appendix B.2: password MyPw, challenge 10 2d b5 df 08 5d 30 41."""
    challenge = bytes.fromhex("102db5df085d3041")
    assert mschap.nt_password_hash("MyPw").hex() == "fc156af7edcd6c0edde3337d427f4eac"
    assert (
        mschap.nt_challenge_response(challenge, "MyPw").hex()
        == "4e9d3c8f9cfd385d5bf4d3246791956ca4c351ab409a3d61"
    )


@given(st.binary(min_size=7, max_size=7), st.binary(min_size=8, max_size=8))
def test_des_against_cryptography(seven: bytes, block: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers import Cipher, modes  # noqa: PLC0415

        eight = mschap.des_key(seven)
        # Three times the same key is single DES.
        other = Cipher(TripleDES(eight * 3), modes.ECB()).encryptor().update(block)  # noqa: S305
    assert mschap._des(seven, block) == other


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("johndoe", ("", "johndoe")),
        ("BIGCO\\johndoe", ("BIGCO", "johndoe")),
        ("a\\b\\c", ("a\\b", "c")),
        ("x@realm", ("", "x@realm")),
        ("", ("", "")),
    ],
)
def test_split_domain(name: str, parts: tuple[str, str]) -> None:
    assert mschap.split_domain(name) == parts


def test_domain_is_not_part_of_the_hash() -> None:
    """Trap 4.11: the Response's name carries the domain, the hash does not."""
    response = PEER + bytes(8) + NT_RESPONSE + b"\0"
    verdict = check(Authenticate("mschapv2", "BIGCO\\User", 1, AUTH, response), "clientPass")
    assert verdict.ok and verdict.user == "BIGCO\\User"
    assert verdict.authenticator_response == "S=407A5589115FD0D6209F510FE9C04566932CDA56"
    assert verdict.master.hex() == "fdece3717a8c838cb388e527ae3cdd31"


def test_v1_refuses_lan_manager_only() -> None:
    challenge = bytes(8)
    lm = mschap.lm_challenge_response(challenge, "pw")
    request = Authenticate("mschap", "u", 1, challenge, lm + bytes(24) + b"\0")
    verdict = check(request, "pw")
    assert not verdict.ok and "LAN Manager" in verdict.reason


@given(
    st.sampled_from(["pap", "chap-md5", "mschap", "mschapv2", "eap"]),
    st.text(max_size=20),
    st.integers(0, 255),
    st.binary(max_size=60),
    st.text(max_size=20),
)
def test_any_response_gives_a_verdict(
    method: str, name: str, identifier: int, response: bytes, password: str
) -> None:
    challenge = bytes(8 if method == "mschap" else 16)
    verdict = check(Authenticate(method, name, identifier, challenge, response), password)
    assert verdict.ok or verdict.reason


def test_undecodable_octets_keep_their_value() -> None:
    name = b"\xff\xfeuser".decode("utf-8", "surrogateescape")
    assert mschap.octets(name) == b"\xff\xfeuser"
    assert len(mschap.nt_password_hash(name)) == 16
