"""Local accounts: chap-secrets and [accounts.users], domains, and which addresses they give.

The peer learns only that it was refused; the log learns why. An unknown user costs
the same work as a known one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from ops.ranges import parse_address
from ops.settings import AccountRule, Settings
from workers.domains import Domains
from workers.policy import NOTHING_SAID, Policy
from workers.ppp import credentials, mschap
from workers.ppp.actions import Authenticate, Verdict
from workers.secrets_file import (
    ANY_ADDRESS,
    NO_ADDRESS,
    Addresses,
    Index,
    Match,
    Secret,
    nt_hash,
    parse,
)

NOBODY: Final = Secret(0, "", "", b"no such account", NO_ADDRESS)
# Of a rule, what a session that is up can be given anew.
LIVE: Final = (
    "session_timeout_s",
    "idle_timeout_s",
    "volume_up",
    "volume_down",
    "volume",
    "rate_up",
    "rate_down",
    "burst_up",
    "burst_down",
    "filter",
)
CONFIGURED: Final = 4  # rank of [accounts.users]: above every line of the file


@dataclass(frozen=True, slots=True)
class Login:
    """A verdict, the addresses that go with it, and what else its source said."""

    verdict: Verdict
    addresses: Addresses
    policy: Policy = NOTHING_SAID
    counted: bool = True  # a refusal is the peer's fault: bans count it
    unanswered: bool = False  # nobody who could know was there


@dataclass(frozen=True, slots=True)
class _Found:
    name: str  # the form of the peer's name that the account was found by
    match: Match


class Rule:
    """One of accounts.rules, made ready to match names."""

    def __init__(self, rule: AccountRule) -> None:
        self.match = rule.match
        self.mppe = rule.mppe
        self.strengths = rule.strengths
        self.auth = _methods(rule.auth)
        self._said: dict[str, Any] = {
            "pool": rule.pool,
            "sessions": rule.sessions,
            "session_timeout_s": rule.session_timeout_s,
            "idle_timeout_s": rule.idle_timeout_s,
            "volume_up": rule.volume_up,
            "volume_down": rule.volume_down,
            "volume": rule.volume,
            "rate_up": rule.rate_up,
            "rate_down": rule.rate_down,
            "burst_up": rule.burst_up,
            "burst_down": rule.burst_down,
            "filter": rule.filter,
            "routes": tuple(text for text in rule.routes if ":" not in text),
            "routes6": tuple(text for text in rule.routes if ":" in text),
            "prefix6": rule.prefix6,
            "pool6": rule.pool6,
            "delegated6": rule.delegated6,
            "delegated_pool6": rule.delegated_pool6,
            "address6": rule.address6,
            "address_pool6": rule.address_pool6,
            "dns6": rule.dns6,
            "dns": tuple(parse_address(text) for text in rule.dns),
            "wins": tuple(parse_address(text) for text in rule.wins),
        }
        parts = (re.escape(part) for part in rule.match.split("*"))
        self._pattern = re.compile(".*".join(parts), re.DOTALL)

    def fits(self, names: Iterable[str]) -> bool:
        """Whether one of these forms of a name is meant."""
        return any(self._pattern.fullmatch(name) for name in names)

    def says(self, name: str) -> Any:
        """Its word for a field of Policy."""
        return self._said.get(name, getattr(NOTHING_SAID, name))

    def complete(self, policy: Policy) -> Policy:
        """What the rule says, where the account itself said nothing."""
        said = {
            name: value
            for name, value in self._said.items()
            if getattr(policy, name) == getattr(NOTHING_SAID, name)
        }
        return replace(policy, **said)


def _methods(allowed: Iterable[str]) -> tuple[str, ...]:
    """As Authenticate names them: "eap" stands for all types of it."""
    found: list[str] = []
    for method in allowed:
        found += ("eap-mschapv2", "eap-md5", "eap") if method == "eap" else (method,)
    return tuple(found)


def parse_file(data: bytes, settings: Settings) -> Index:
    """chap-secrets, with the pools' names as address words."""
    return parse(data, frozenset(pool.name for pool in settings.pools))


class Accounts:
    """All that a login is checked against; replaced as a whole when something changes."""

    def __init__(self, settings: Settings, index: Index) -> None:
        self._server = settings.server.name
        self._domains = Domains(settings.accounts)
        self._rules = [Rule(rule) for rule in settings.accounts.rules]
        self._strengths = settings.mppe.strengths
        self._bare_hashes = settings.accounts.nt_hashes
        self._index = index
        self._users = {
            name: Secret(0, name, "*", mschap.octets(password), ANY_ADDRESS)
            for name, password in settings.accounts.users
        }

    @property
    def index(self) -> Index:
        """The secrets file as it was read."""
        return self._index

    @property
    def empty(self) -> bool:
        """Whether nobody at all can log in."""
        return not self._users and not len(self._index)

    def names(self, name: str) -> tuple[str, ...]:
        """The forms under which a peer's name is looked up, best first."""
        return self._domains.forms(name)

    async def verify(self, request: Authenticate, unit: int) -> Login:
        """Check credentials; `unit` is the session's number, for `addr/n+` words.

        A coroutine although nothing is awaited here: other sources of accounts wait.
        """
        return self.check(request, unit)

    def check(self, request: Authenticate, unit: int) -> Login:
        """`verify` for callers without a loop."""
        found = self._find(request.name)
        secret = found.match.secret if found is not None else NOBODY
        # Checked for unknown users, too: the time taken does not tell whether one exists.
        verdict = credentials.check(request, self._password(request.method, secret.secret))
        if refusal := self._domains.refusal(request.name):
            return _refused(refusal)
        if found is None:
            return _refused(self._unknown(request.name))
        if not verdict.ok:
            return _refused(f"{verdict.reason} ({_source(secret)})")
        rule = self._rule(found, request.name)
        if rule is not None and rule.auth and request.method not in rule.auth:
            return _refused(_not_allowed(request.method, rule))
        addresses = secret.addresses
        if not addresses.any_allowed:
            return _refused(
                f"address not allowed: {_source(secret)} allows no address;"
                " its fourth word should be * or an address"
            )
        user = found.name if secret.client == "*" else secret.client
        policy = Policy(
            source="secrets" if secret.line else "users",
            address=addresses.suggested(unit),
            pool=addresses.pool,
            rate_up=secret.rate_up,
            rate_down=secret.rate_down,
        )
        if rule is not None:
            verdict = replace(verdict, mppe=rule.mppe, mppe_strengths=rule.strengths)
            policy = rule.complete(policy)
        verdict = replace(verdict, user=user, address=policy.address, pool=policy.pool)
        return Login(verdict, addresses, policy)

    def elsewhere(self, method: str, name: str, verdict: Verdict, policy: Policy) -> Login:
        """What another source has judged, with the rules that hold for its accounts, too."""
        if refusal := self._domains.refusal(name):
            return _refused(refusal)
        if not verdict.ok:
            return Login(verdict, NO_ADDRESS)
        rule = self._first({verdict.user, name, *self.names(name)})
        allowed = self._strengths
        if rule is not None:
            if rule.auth and method not in rule.auth:
                return _refused(_not_allowed(method, rule))
            policy = rule.complete(policy)
            allowed = rule.strengths or allowed
            verdict = replace(verdict, mppe=verdict.mppe or rule.mppe)
        # A server may allow less than we do, not more.
        both = tuple(bits for bits in allowed if bits in verdict.mppe_strengths)
        verdict = replace(
            verdict, mppe_strengths=both or allowed, address=policy.address, pool=policy.pool
        )
        return Login(verdict, ANY_ADDRESS, policy)

    def changes(self, before: Accounts, user: str, name: str, policy: Policy) -> dict[str, Any]:
        """What other rules than those of `before` make of a session that is up: where it has
        what its rule said then, it gets what its rule says now."""
        names = {user, name, *self.names(name)}
        old, new = before._first(names), self._first(names)
        found: dict[str, Any] = {}
        for field in LIVE:
            was = old.says(field) if old is not None else getattr(NOTHING_SAID, field)
            now = new.says(field) if new is not None else getattr(NOTHING_SAID, field)
            if was != now and getattr(policy, field) == was:
                found[field] = now
        return found

    def _rule(self, found: _Found, name: str) -> Rule | None:
        """The first that matches the account or the name as it came."""
        return self._first({found.match.secret.client, found.name, name})

    def _first(self, names: set[str]) -> Rule | None:
        return next((rule for rule in self._rules if rule.fits(names)), None)

    def _password(self, method: str, secret: bytes) -> credentials.Password:
        hashed = nt_hash(secret, bare=self._bare_hashes)
        return _plain(method, secret) if hashed is None else credentials.NtHash(hashed)

    def _find(self, name: str) -> _Found | None:
        best: _Found | None = None
        for form in self.names(name):
            user = self._users.get(form)
            match = Match(CONFIGURED, user) if user else self._index.find(form, self._server)
            if match is None:
                continue
            if best is None or match.rank > best.match.rank:
                best = _Found(form, match)
            elif match.rank == best.match.rank and match.secret is best.match.secret:
                # A wildcard line fits both forms: the user is known by the shorter one.
                best = _Found(form, match)
        return best

    def _unknown(self, name: str) -> str:
        forms = self.names(name)
        elsewhere = [form for form in forms if form in self._index.clients]
        if elsewhere:
            return (
                f"no secret for this server: {elsewhere[0]!r} is in chap-secrets, but not"
                f" with server {self._server!r} (server.name) or *"
            )
        domain, user = mschap.split_domain(name)
        if domain and len(forms) == 1 and (user in self._users or user in self._index.clients):
            return (
                f"wrong domain: {user!r} exists without {domain!r}"
                ' (accounts.domain = "strip" would accept it)'
            )
        return f"no such user: looked up as {' and '.join(repr(form) for form in forms)}"


def _not_allowed(method: str, rule: Rule) -> str:
    return (
        f"{method} is not allowed for this account, only {', '.join(rule.auth)}"
        f" (accounts.rules, match = {rule.match!r})"
    )


def _plain(method: str, secret: bytes) -> str:
    text = secret.decode("utf-8", "surrogateescape")
    if method in ("mschap", "mschapv2", "eap-mschapv2"):
        # Old files are in Latin-1, and pppd widens octets one by one for the NT hash.
        try:
            secret.decode("utf-8")
        except UnicodeDecodeError:
            return secret.decode("latin-1")
    return text


def _source(secret: Secret) -> str:
    return f"chap-secrets line {secret.line}" if secret.line else "accounts.users"


def _refused(reason: str) -> Login:
    return Login(Verdict(False, reason=reason), NO_ADDRESS)
