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

    @property
    def ranges(self) -> list[list[tuple[int, int]]]:
        """First and last addresses of each pool, for fastpath.census."""
        return [list(pool.ranges) for pool in self._pools]

    @property
    def nets6(self) -> list[tuple[int, list[tuple[bytes, int]]]]:
        """Of each pool of prefixes what it gives (a length), and of which networks."""
        return [(p.length, [(n.octets, n.length) for n in p.nets]) for p in self._pools6]

    def told(self, used: list[int], outside: int, used6: list[int]) -> list[PoolUse]:
        """What `use` answers, from counts in the order of `ranges` and `nets6`."""
        return [
            *(PoolUse(p.name, p.size, n, p.next) for p, n in zip(self._pools, used, strict=True)),
            PoolUse(STATIC, None, outside),
            *(PoolUse(p.name, p.size, n, p.next) for p, n in zip(self._pools6, used6, strict=True)),
        ]

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
        used = [sum(p.position(a) is not None for a in given) for p in self._pools]
        outside = sum(all(p.position(a) is None for p in self._pools) for a in given)
        given6 = list(prefixes) if self._pools6 else []
        return self.told(used, outside, [sum(map(p.has, given6)) for p in self._pools6])
