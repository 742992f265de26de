"""Who may ask what over TCP: rate, Host, token. No HTTP and no clock here.

A browser on the admin's desk can be made to ask for any name that resolves to our address
(DNS rebinding), so pages and API answer to names we know only. Names of subscribers are
for who brings a token; of tokens only the SHA-256 is here, and both sides of a comparison
are digests, whose common beginnings tell nothing of the token.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ops.settings import Console

TOKEN_MAX: Final = 512  # octets looked at
SOURCES_MAX: Final = 1024  # addresses whose rate is remembered; the longest unseen is forgotten
REQUESTS_PER_S: Final = 50.0
REQUESTS_BURST: Final = 200.0
WRONG_PER_S: Final = 1 / 6  # wrong tokens of one source
WRONG_BURST: Final = 10.0


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Rates:
    """A token bucket for each source address."""

    def __init__(self, per_s: float, burst: float, most: int = SOURCES_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, source: str, now: float) -> float:
        """0 if one more is within the rate; else how long until it would be."""
        bucket = self._buckets.get(source)
        if bucket is None:
            return 0.0
        left = min(self._burst, bucket.left + (now - bucket.at) * self._per_s)
        return 0.0 if left >= 1 else (1 - left) / self._per_s

    def take(self, source: str, now: float) -> None:
        """One was spent."""
        bucket = self._buckets.pop(source, None) or _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_s) - 1
        bucket.left = max(bucket.left, 0.0)
        bucket.at = now
        self._buckets[source] = bucket
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


def _names_of_host() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, name.partition(".")[0]})


class Guard:
    """What [console] says of strangers."""

    def __init__(self, console: Console) -> None:
        self.requests = Rates(REQUESTS_PER_S, REQUESTS_BURST)
        self.wrong = Rates(WRONG_PER_S, WRONG_BURST)
        self.apply(console)

    def apply(self, console: Console) -> None:
        """Settings at start, and again after a reload."""
        self._digests = tuple(console.token_digests)
        self._hosts = _names_of_host() | {name.lower() for name in console.hosts}

    @property
    def has_tokens(self) -> bool:
        """Is there any token that would do?"""
        return bool(self._digests)

    def knows_host(self, host: str) -> bool:
        """`host`: the Host header. Addresses can't be rebound, so all of them will do."""
        name = _without_port(host)
        if name is None:
            return False
        try:
            ip_address(name)
        except ValueError:
            return name.lower().removesuffix(".") in self._hosts
        return True

    def knows_token(self, authorization: str) -> bool:
        """`authorization`: that header."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_MAX:
            return False
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        known = False
        for digest in self._digests:
            known |= hmac.compare_digest(given, digest)
        return known


def _without_port(host: str) -> str | None:
    """The name or address in `name:port`; None: there is none."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        return name if bracket and (not port or port.startswith(":")) else None
    name, colon, port = host.rpartition(":")
    name = name if colon else port
    return name or None
