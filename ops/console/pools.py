"""Size and use of the address pools, by the dispatcher's own arithmetic.

A static address that lies in a pool takes a place there, so use goes by address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dispatcher.pools import Pool, pool_ranges, subtract
from dispatcher.pools6 import Prefixes
from ops.networks import Network
from ops.ranges import parse_ranges
from ops.settings import Settings

STATIC: Final = "(static)"  # no name a pool of the settings would have


@dataclass(frozen=True, slots=True)
class PoolUse:
    """One pool; `size` None: no pool, but static addresses outside of all."""

    name: str
    size: int | None
    used: int
    next: str = ""  # the pool to go on with


class Pools:
    """The pools of the settings."""

    def __init__(self, settings: Settings) -> None:
        own = parse_ranges(settings.ip.local)
        self._pools = [
            Pool(
                pool.name,
                index,
                subtract(pool_ranges(pool.ranges), own),
                ",".join(pool.ranges),
                pool.next,
            )
            for index, pool in enumerate(settings.pools)
        ]
        self._pools6 = [Prefixes.of(pool) for pool in settings.ipv6.pools]

    def name_of(self, address: int) -> str:
        """The first pool that holds the address."""
        for pool in self._pools:
            if pool.position(address) is not None:
                return pool.name
        return STATIC

    def use(self, addresses: Iterable[int], prefixes: Iterable[Network] = ()) -> list[PoolUse]:
        """A line for each pool and one for STATIC, when `addresses` are given out; then one for
        each pool of IPv6 `prefixes`."""
        given = list(addresses)
        found = [
            PoolUse(p.name, p.size, sum(p.position(a) is not None for a in given), p.next)
            for p in self._pools
        ]
        static = sum(all(p.position(a) is None for p in self._pools) for a in given)
        return [*found, PoolUse(STATIC, None, static), *self._use6(prefixes)]

    def _use6(self, prefixes: Iterable[Network]) -> list[PoolUse]:
        given = list(prefixes) if self._pools6 else []
        return [
            PoolUse(p.name, p.size, sum(p.has(net) for net in given), p.next) for p in self._pools6
        ]
