"""Logins against local accounts: names, domains, servers, addresses, and what the log hears."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from ops.ranges import parse_address
from ops.settings import AccountRule, Pool, Settings
from workers.accounts import Accounts, Login, Rule, parse_file
from workers.ppp import mschap
from workers.ppp.actions import Authenticate

FILE = b"""
billy       pptpcon  bob        *
DBNET\\\\sue pptpcon  suesecret  *
ann         *        annsecret  10.0.0.5
far         other    x          *
none        pptpcon  x
net         pptpcon  x          10.7.0.0/24
latin       pptpcon  p\xe4ss    *
nihon       pptpcon  \xe5\xaf\x86 *
"""


def settings(domain: str = "strip", default: str = "", **users: str) -> Settings:
    base = Settings()
    accounts = replace(
        base.accounts,
        domain=domain,  # type: ignore[arg-type]
        default_domain=default,
        users=tuple(users.items()),
    )
    return replace(base, accounts=accounts)


def make(conf: Settings, data: bytes = FILE) -> Accounts:
    return Accounts(conf, parse_file(data, conf))


def request(method: str, name: str, password: str) -> Authenticate:
    """What a client sends that believes in `password`."""
    challenge = os.urandom(8 if method == "mschap" else 16)
    if method == "pap":
        return Authenticate(method, name, 1, b"", mschap.octets(password))
    if method == "chap-md5":
        response = mschap.chap_md5(1, mschap.octets(password), challenge)
    elif method == "mschap":
        response = bytes(24) + mschap.nt_challenge_response(challenge, password) + b"\1"
    else:
        peer = os.urandom(16)
        user = mschap.octets(mschap.split_domain(name)[1])
        nt_hash = mschap.nt_password_hash(password)
        nt_response = mschap.generate_nt_response(challenge, peer, user, nt_hash)
        response = peer + bytes(8) + nt_response + b"\0"
    return Authenticate(method, name, 1, challenge, response)


def login(accounts: Accounts, name: str, password: str, method: str = "mschapv2") -> Login:
    return asyncio.run(accounts.verify(request(method, name, password), 3))


@pytest.mark.parametrize("method", ["pap", "chap-md5", "mschap", "mschapv2"])
def test_each_method(method: str) -> None:
    accounts = make(settings())
    good = login(accounts, "billy", "bob", method)
    assert good.verdict.ok
    assert good.verdict.user == "billy"
    assert good.verdict.reason == ""
    bad = login(accounts, "billy", "bobby", method)
    assert not bad.verdict.ok
    assert bad.verdict.reason == "wrong password (chap-secrets line 2)"
    assert bad.verdict.user == ""
    assert (len(good.verdict.master), len(good.verdict.start_key), len(good.verdict.lm_key)) == {
        "mschap": (0, 16, 8),
        "mschapv2": (16, 0, 0),
    }.get(method, (0, 0, 0))


def test_the_domain_is_stripped_for_the_lookup() -> None:
    accounts = make(settings("strip"))
    for name in ("billy", "BIGCO\\billy", "A\\B\\billy"):
        verdict = login(accounts, name, "bob").verdict
        assert verdict.ok, verdict.reason
        assert verdict.user == "billy"
        assert verdict.authenticator_response.startswith("S=")
    # A line that has the domain itself is found, too.
    assert login(accounts, "DBNET\\sue", "suesecret").verdict.user == "DBNET\\sue"
    assert not login(accounts, "sue", "suesecret").verdict.ok


def test_the_domain_is_kept() -> None:
    accounts = make(settings("keep"))
    assert login(accounts, "DBNET\\sue", "suesecret").verdict.ok
    assert login(accounts, "billy", "bob").verdict.ok
    refused = login(accounts, "BIGCO\\billy", "bob").verdict
    assert not refused.ok
    assert refused.reason.startswith("wrong domain: 'billy' exists without 'BIGCO'")


def test_the_default_domain() -> None:
    accounts = make(settings("keep", "DBNET"))
    assert login(accounts, "sue", "suesecret").verdict.user == "DBNET\\sue"
    assert not login(accounts, "billy", "bob").verdict.ok
    both = make(settings("strip", "DBNET"))
    assert login(both, "sue", "suesecret").verdict.ok
    assert login(both, "billy", "bob").verdict.ok


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("nobody", "x", "no such user"),
        ("nobody", "no such account", "no such user"),  # the stand-in's password opens nothing
        ("billy", "", "wrong password"),
        ("far", "x", "no secret for this server: 'far' is in chap-secrets, but not with server"),
        ("none", "x", "address not allowed: chap-secrets line 6"),
        ("none", "y", "wrong password (chap-secrets line 6)"),
        ("", "x", "no such user"),
        ("DOM\\", "x", "no such user"),
    ],
)
def test_the_log_hears_the_cause(name: str, password: str, reason: str) -> None:
    refused = login(make(settings()), name, password)
    assert not refused.verdict.ok
    assert refused.verdict.reason.startswith(reason)
    assert refused.verdict.message == ""
    assert refused.verdict.master == b""
    assert not refused.addresses.any_allowed


def test_addresses_of_an_account() -> None:
    accounts = make(settings())
    assert login(accounts, "ann", "annsecret").verdict.address == parse_address("10.0.0.5")
    net = login(accounts, "net", "x")
    assert net.verdict.address == 0
    assert net.addresses.allows(parse_address("10.7.0.9"))
    assert not net.addresses.allows(parse_address("10.8.0.9"))


def test_a_pool_of_an_account() -> None:
    conf = replace(settings(), pools=(Pool("default", ("10.0.0.0/24",)), Pool("gold", ())))
    accounts = make(conf, b"billy pptpcon bob gold")
    verdict = login(accounts, "billy", "bob").verdict
    assert (verdict.ok, verdict.pool, verdict.address) == (True, "gold", 0)


def test_configured_users_come_before_the_file() -> None:
    accounts = make(settings(billy="other", anna="secret"))
    assert login(accounts, "billy", "other").verdict.ok
    assert login(accounts, "DOM\\anna", "secret").verdict.user == "anna"
    assert login(accounts, "billy", "bob").verdict.reason == "wrong password (accounts.users)"


def test_wildcards_and_the_users_name() -> None:
    accounts = make(settings(), b"* pptpcon shared *\nann pptpcon own *\n")
    assert login(accounts, "DOM\\bob", "shared").verdict.user == "bob"
    assert login(accounts, "DOM\\ann", "own").verdict.user == "ann"
    assert not login(accounts, "ann", "shared").verdict.ok


def test_passwords_that_are_no_ascii() -> None:
    accounts = make(settings())
    assert login(accounts, "nihon", "\u5bc6").verdict.ok
    assert login(accounts, "latin", "p\u00e4ss").verdict.ok
    octets = "p\udce4ss"  # PAP carries the octets of the file
    assert login(accounts, "latin", octets, "pap").verdict.ok


def test_lan_manager_only_is_refused_by_name() -> None:
    wanted = replace(request("mschap", "billy", "bob"), response=bytes(49))
    refused = make(settings()).check(wanted, 0)
    assert "LAN Manager" in refused.verdict.reason


def test_malformed_responses() -> None:
    accounts = make(settings())
    for method in ("chap-md5", "mschap", "mschapv2", "pap", "eap"):
        for length in (0, 1, 48, 50, 300):
            broken = Authenticate(method, "billy", 1, bytes(16), bytes(length))
            assert not accounts.check(broken, 0).verdict.ok


def test_empty() -> None:
    assert Accounts(settings(), parse_file(b"# nothing", settings())).empty
    assert not make(settings()).empty


# -- domains


def with_accounts(**keys: object) -> Settings:
    base = settings()
    return replace(base, accounts=replace(base.accounts, **keys))  # type: ignore[arg-type]


def test_domains_are_mapped() -> None:
    conf = with_accounts(domain="map", domain_map=("OLDNET=DBNET", "BIGCO=", "far=x"))
    accounts = make(conf)
    assert login(accounts, "oldnet\\sue", "suesecret").verdict.user == "DBNET\\sue"
    assert login(accounts, "BIGCO\\billy", "bob").verdict.user == "billy"
    assert login(accounts, "DBNET\\sue", "suesecret").verdict.ok, "others are kept"
    assert login(accounts, "billy", "bob").verdict.ok
    refused = login(accounts, "ELSE\\billy", "bob").verdict
    assert not refused.ok and refused.reason.startswith("wrong domain: 'billy' exists")


def test_only_some_domains_are_allowed() -> None:
    accounts = make(with_accounts(domain="allow", domain_allow=("BigCo", "DBNET")))
    assert login(accounts, "BIGCO\\billy", "bob").verdict.user == "billy"
    assert login(accounts, "DBNET\\sue", "suesecret").verdict.user == "DBNET\\sue"
    assert login(accounts, "billy", "bob").verdict.ok, "no domain at all"
    for password in ("bob", "wrong"):
        refused = login(accounts, "EVIL\\billy", password).verdict
        assert refused.reason == "domain 'EVIL' is not allowed (accounts.domain_allow)"


def test_the_default_domain_is_mapped_too() -> None:
    conf = with_accounts(domain="map", domain_map=("corp=DBNET",), default_domain="CORP")
    assert login(make(conf), "sue", "suesecret").verdict.user == "DBNET\\sue"


# -- NT hashes

HASH = mschap.nt_password_hash("bob").hex()


@pytest.mark.parametrize("method", ["mschap", "mschapv2", "eap-mschapv2", "pap"])
@pytest.mark.parametrize("bare", [False, True])
def test_an_nt_hash_in_place_of_the_password(method: str, bare: bool) -> None:
    line = f"billy * {HASH} *\n" if bare else f"billy * nthash:{HASH.upper()} *\n"
    accounts = make(with_accounts(nt_hashes=bare), line.encode())
    kind = method.removeprefix("eap-")
    good = replace(request(kind, "billy", "bob"), method=method)
    verdict = accounts.check(good, 0).verdict
    assert verdict.ok, verdict.reason
    assert verdict.lm_key == b"", "there is none of an NT hash"
    assert len(verdict.master + verdict.start_key) == (0 if method == "pap" else 16)
    bad = replace(request(kind, "billy", "bo"), method=method)
    assert accounts.check(bad, 0).verdict.reason == "wrong password (chap-secrets line 1)"


def test_an_nt_hash_does_not_do_for_md5() -> None:
    accounts = make(settings(), f"billy * nthash:{HASH} *\n".encode())
    for method in ("chap-md5", "eap-md5"):
        asked = replace(request("chap-md5", "billy", "bob"), method=method)
        verdict = accounts.check(asked, 0).verdict
        assert not verdict.ok and f"{method} needs the password" in verdict.reason


def test_32_hex_digits_are_a_password_unless_said_otherwise() -> None:
    accounts = make(settings(), f"billy * {HASH} *\n".encode())
    assert login(accounts, "billy", HASH).verdict.ok
    assert not login(accounts, "billy", "bob").verdict.ok


def test_a_damaged_hash_is_named() -> None:
    index = parse_file(b"a * nthash:12 *\nb * nthash:" + b"x" * 32 + b" *\n", settings())
    assert len(index) == 0
    assert [str(p) for p in index.problems] == [
        f"line {n}: nthash: is not followed by 32 hex digits; line not used" for n in (1, 2)
    ]


# -- rules


def test_rules_for_some_accounts() -> None:
    rules = (
        AccountRule("billy", mppe="prefer", strengths=(128, 40)),
        AccountRule("DBNET\\*", auth=("mschapv2", "eap")),
        AccountRule("*", mppe="deny"),
    )
    accounts = make(with_accounts(rules=rules))
    verdict = login(accounts, "BIGCO\\billy", "bob").verdict
    assert (verdict.mppe, verdict.mppe_strengths) == ("prefer", (128, 40))
    verdict = login(accounts, "DBNET\\sue", "suesecret").verdict
    assert verdict.ok and (verdict.mppe, verdict.mppe_strengths) == ("", ())
    refused = login(accounts, "DBNET\\sue", "suesecret", "pap").verdict
    assert not refused.ok and refused.reason == (
        "pap is not allowed for this account, only mschapv2, eap-mschapv2, eap-md5, eap"
        " (accounts.rules, match = 'DBNET\\\\*')"
    )
    asked = replace(request("mschapv2", "DBNET\\sue", "suesecret"), method="eap-mschapv2")
    assert accounts.check(asked, 0).verdict.ok
    assert login(accounts, "ann", "annsecret").verdict.mppe == "deny"


@pytest.mark.parametrize(
    ("match", "name", "fits"),
    [
        ("a*c", "abc", True),
        ("a*c", "ac", True),
        ("a*c", "abcd", False),
        ("a.c", "abc", False),
        ("*@realm", "x@realm", True),
        ("[a]", "a", False),
        ("SALES\\*", "SALES\\x", True),
    ],
)
def test_what_a_rule_matches(match: str, name: str, fits: bool) -> None:
    assert Rule(AccountRule(match)).fits({name}) is fits
