"""Under which names an account is looked up whose client says `DOMAIN\\user`.

Windows sends the domain it was once given and may never forget it; other clients send
none. Only the look-up is concerned: MS-CHAP hashes the name as the client sent it,
without its domain (RFC 2759 section 8.2).
"""

from __future__ import annotations

from ops.settings import Accounts
from workers.ppp.mschap import split_domain


class Domains:
    """The policy of [accounts]; domains are compared without regard to case."""

    def __init__(self, accounts: Accounts) -> None:
        self._policy = accounts.domain
        self._default = accounts.default_domain
        pairs = (pair.partition("=") for pair in accounts.domain_map)
        self._map = {old.casefold(): new for old, _, new in pairs}
        self._allowed = {domain.casefold() for domain in accounts.domain_allow}

    def forms(self, name: str) -> tuple[str, ...]:
        """The names to look up, best first."""
        domain, user = split_domain(name)
        if not domain and user and self._default:
            domain = self._default
        if self._policy == "map":
            domain = self._map.get(domain.casefold(), domain)
        whole = f"{domain}\\{user}" if domain else user
        if not user:
            return (name,)
        if self._policy in ("strip", "allow") and domain:
            return whole, user
        return (whole,)

    def refusal(self, name: str) -> str:
        """Why a name is refused whoever it belongs to; "": it is not."""
        domain, _user = split_domain(name)
        if self._policy != "allow" or not domain or domain.casefold() in self._allowed:
            return ""
        return f"domain {domain!r} is not allowed (accounts.domain_allow)"
