"""Inner addresses: pools, static ones, and our own side's.

An address is held by at most one session of the box, wherever it came from: a static
address that lies in a pool is used there. Nothing is kept per free address: a pool
hands out its ranges from a cursor, then what came back, the longest free first; and a
user gets the address of last time if it is free.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

from ops.ranges import count, format_address, parse_ranges
from ops.settings import Settings

REMEMBERED_USERS: Final = 16384


class NoAddress(Exception):  # noqa: N818 - an answer, not a fault
    """`reason` is of ops.metrics.REFUSALS; the text names pool, size and key."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Grant:
    """An address given to a session."""

    address: int
    local: int
    pool: int  # index into settings.pools, -1: static


def subtract(
    ranges: list[tuple[int, int]], without: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """`ranges`, in their order, less all addresses in `without`."""
    left = list(ranges)
    for low, high in without:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, low - 1)), (max(first, high + 1), last))
            if part[0] <= part[1]
        ]
    return left


def pool_ranges(texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """Ranges of a pool; an address that comes twice counts where it comes first."""
    ranges = [found for text in texts for found in parse_ranges(text)]
    ordered = sorted(ranges)
    if all(a[1] < b[0] for a, b in pairwise(ordered)):
        return ranges
    result: list[tuple[int, int]] = []
    for found in ranges:
        result += subtract([found], result)
    return result


@dataclass(slots=True)
class Pool:
    """One pool: position n of it is an address, in the order of the configuration."""

    name: str
    index: int
    ranges: list[tuple[int, int]]
    text: str  # as configured, for messages
    next: str = ""  # the pool to go on with
    held: int = 0
    _ends: list[int] = field(default_factory=list)
    _sorted: list[tuple[int, int, int]] = field(default_factory=list)  # first, last, position
    _cursor: int = 0
    _returned: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._ends = list(accumulate(last - first + 1 for first, last in self.ranges))
        begins = [0, *self._ends]
        self._sorted = sorted(
            (first, last, begin) for (first, last), begin in zip(self.ranges, begins, strict=False)
        )

    @property
    def size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def position(self, address: int) -> int | None:
        """Of an address in the pool; None: it is not there."""
        at = bisect_right(self._sorted, (address, 1 << 32, 0)) - 1
        if at < 0 or address > self._sorted[at][1]:
            return None
        first, _, begin = self._sorted[at]
        return begin + address - first

    def at(self, position: int) -> int:
        """The address at a position."""
        which = bisect_right(self._ends, position)
        _, last = self.ranges[which]
        return last - (self._ends[which] - 1 - position)

    def take(self, held: dict[int, object]) -> int | None:
        """Some address that is not in `held`; None: all are."""
        if self.held >= self.size:
            return None
        while self._cursor < self.size:
            address = self.at(self._cursor)
            self._cursor += 1
            if address not in held and address not in self._returned:
                return address
        while self._returned:
            address, _ = self._returned.popitem(last=False)
            if address not in held:
                return address
        return None

    def give_back(self, address: int) -> None:
        """An address of this pool that nobody holds any more."""
        position = self.position(address)
        if position is not None and position < self._cursor:
            self._returned[address] = None


class Addresses:
    """All inner addresses of the box."""

    def __init__(self, settings: Settings) -> None:
        self._held: dict[int, object] = {}
        self._last: OrderedDict[str, int] = OrderedDict()
        self._pools: list[Pool] = []
        self._default = ""
        self._locals: list[tuple[int, int]] = []
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new pools; addresses in use stay with their sessions, in a pool or not."""
        locals_ = parse_ranges(settings.ip.local)
        self._locals = locals_
        self._default = settings.ip.pool
        self._pools = [
            Pool(
                pool.name,
                index,
                subtract(pool_ranges(pool.ranges), locals_),
                ",".join(pool.ranges),
                pool.next,
            )
            for index, pool in enumerate(settings.pools)
        ]
        for pool in self._pools:
            pool.held = sum(pool.position(a) is not None for a in self._held)

    @property
    def default_pool(self) -> str:
        return self._default

    def usage(self) -> list[tuple[str, int, int]]:
        """(name, addresses, held) of each pool."""
        return [(pool.name, pool.size, pool.held) for pool in self._pools]

    def is_local(self, address: int) -> bool:
        return any(first <= address <= last for first, last in self._locals)

    def hold(self, address: int, owner: object) -> bool:
        """Mark an address used, e.g. one that a session had before us; False: it is held."""
        if address in self._held:
            return False
        self._held[address] = owner
        for pool in self._pools:
            if pool.position(address) is not None:
                pool.held += 1
        return True

    def owner(self, address: int) -> object | None:
        """Who holds it."""
        return self._held.get(address)

    def release(self, address: int) -> None:
        """The session that had it is gone."""
        if self._held.pop(address, None) is None:
            return
        for pool in self._pools:
            if pool.position(address) is not None:
                pool.held -= 1
                pool.give_back(address)

    def static(self, address: int, owner: object) -> Grant:
        """The address that the account names."""
        top = address >> 24
        if top in (0, 127) or top >= 224 or self.is_local(address):
            what = "our own address (ip.local)" if self.is_local(address) else "no host's address"
            raise NoAddress(
                "address_not_allowed",
                f"the account's address {format_address(address)} is {what}; change the account",
            )
        if not self.hold(address, owner):
            raise NoAddress(
                "address_in_use",
                f"the account's address {format_address(address)} is held by another session",
            )
        position = next(
            (at for pool in self._pools if (at := pool.position(address)) is not None), 0
        )
        return Grant(address, self._local(position), -1)

    def from_pool(self, name: str, user: str, owner: object) -> Grant:
        """An address of the pool `name` ("": the default one), the user's last if free."""
        chain = self._chain(name or self._default)
        if not chain:
            key = "the account" if name else "ip.pool"
            wanted = name or self._default
            raise NoAddress(
                "no_address",
                f"pool {wanted!r}, named by {key}, is not configured; add [pools.{wanted}]",
            )
        pool = chain[0]
        address = self._last.get(user)
        if address is not None and address not in self._held:
            pool = next((p for p in chain if p.position(address) is not None), pool)
        if address is None or address in self._held or pool.position(address) is None:
            address = None
            for pool in chain:
                if (address := pool.take(self._held)) is not None:
                    break
        if address is None:
            raise NoAddress("no_address", _used_up(chain))
        self.hold(address, owner)
        pool._returned.pop(address, None)
        self._last[user] = address
        self._last.move_to_end(user)
        if len(self._last) > REMEMBERED_USERS:
            self._last.popitem(last=False)
        position = pool.position(address)
        return Grant(address, self._local(position or 0), pool.index)

    def _chain(self, name: str) -> list[Pool]:
        """The pool of this name and those to go on with, each of them once."""
        by_name = {pool.name: pool for pool in self._pools}
        chain: list[Pool] = []
        while (pool := by_name.get(name)) is not None and pool not in chain:
            chain.append(pool)
            name = pool.next
        return chain

    def _local(self, position: int) -> int:
        """Our address beside the remote one at `position`: paired as pptpd does."""
        left = position % count(self._locals)
        for first, last in self._locals:
            if left <= last - first:
                return first + left
            left -= last - first + 1
        raise AssertionError("unreachable: left is below the count")


def _used_up(chain: list[Pool]) -> str:
    first = chain[0]
    if len(chain) == 1:
        return (
            f"pool {first.name!r} is used up: all {first.size} addresses of {first.text[:200]} "
            f"are in use; enlarge pools.{first.name}.ranges"
        )
    names = ", ".join(repr(pool.name) for pool in chain)
    total = sum(pool.size for pool in chain)
    return (
        f"pools {names} are used up: all {total} addresses are in use; enlarge one of them,"
        f" or name another one in pools.{chain[-1].name}.next"
    )
