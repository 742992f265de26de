"""IPv6 prefixes for sessions: pools, static ones, and who holds which.

A pool hands out prefixes of one length from a cursor, so a /16 of /64s costs as much memory as
what was given of it. A prefix is held by one session of the box. IPv6 is never a reason to
refuse a session: what it cannot have it does without, and the log names why.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ops.networks import Network, NetworkError, network, parse_network, usable
from ops.settings import Pool6, Settings

REMEMBERED: Final = 16384  # users, and prefixes that came back
MOST: Final = 1 << 62  # prefixes of a pool that are counted


class NoPrefix(Exception):  # noqa: N818 - an answer, not a fault
    """The text names pool or account, and what to do."""


@dataclass(slots=True)
class Prefixes:
    """One pool."""

    name: str
    length: int
    nets: list[Network]
    next: str = ""
    held: int = 0
    _cursor: int = 0
    _returned: OrderedDict[Network, None] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, pool: Pool6) -> Prefixes:
        nets = [parse_network(text, 6) for text in pool.prefixes]
        return cls(pool.name, pool.length, nets, pool.next)

    @property
    def size(self) -> int:
        routers = sum(self.length == 128 and net.length < 127 for net in self.nets)
        return min(MOST, sum(1 << self.length - net.length for net in self.nets) - routers)

    def has(self, found: Network) -> bool:
        return found.length == self.length and any(net.holds(found) for net in self.nets)

    def take(self, ledger: Ledger) -> Network | None:
        """One that is free; None: there is none."""
        if self.held >= self.size:
            return None
        end = sum(1 << self.length - net.length for net in self.nets)
        while len(self._returned) >= REMEMBERED or self._cursor >= end:
            if not self._returned:
                return None
            found, _ = self._returned.popitem(last=False)
            if ledger.free(found):
                return found
        while self._cursor < end:
            net, within = self._place(self._cursor)
            found = self._at(self._cursor)
            over = ledger.over(found)
            if over is not None:
                # All that it holds at once: a static /32 may hold billions of ours.
                last = min(over.last, net.last)
                self._cursor += (last >> 128 - self.length) - (net.first >> 128 - self.length)
                self._cursor += 1 - within
                continue
            self._cursor += 1
            if found not in self._returned and not self._anycast(found):
                return found
        return self.take(ledger) if self._returned else None

    def _anycast(self, found: Network) -> bool:
        """RFC 4291 section 2.6.1: the first address of a subnet is all its routers'."""
        return self.length == 128 and any(
            net.length < 127 and net.first == found.first for net in self.nets
        )

    def _place(self, position: int) -> tuple[Network, int]:
        """One of `nets`, and the position in it."""
        for net in self.nets:
            count = 1 << self.length - net.length
            if position < count:
                return net, position
            position -= count
        raise AssertionError("unreachable: the position is below the size")

    def _at(self, position: int) -> Network:
        net, within = self._place(position)
        return network(6, net.first + (within << 128 - self.length), self.length)

    def give_back(self, found: Network) -> None:
        """Nobody has it any more."""
        self._returned[found] = None

    def forget(self, found: Network) -> None:
        """It was given to its last user again."""
        self._returned.pop(found, None)


class Ledger:
    """Who holds which prefix. Overlaps of unequal lengths are looked for among static ones."""

    def __init__(self) -> None:
        self._held: dict[Network, object] = {}
        self._lengths: dict[int, int] = {}

    def over(self, found: Network) -> Network | None:
        """The held prefix that it is or lies in; of several the shortest."""
        for length in sorted(self._lengths):
            if length <= found.length:
                held = network(6, found.first, length)
                if held in self._held:
                    return held
        return None

    def owner(self, found: Network) -> object | None:
        """Whose it is, or whose prefix it lies in."""
        held = self.over(found)
        return None if held is None else self._held[held]

    def free(self, found: Network) -> bool:
        return self.over(found) is None

    def hold(self, found: Network, owner: object) -> None:
        self._held[found] = owner
        self._lengths[found.length] = self._lengths.get(found.length, 0) + 1

    def release(self, found: Network) -> bool:
        if self._held.pop(found, None) is None:
            return False
        self._lengths[found.length] -= 1
        if not self._lengths[found.length]:
            del self._lengths[found.length]
        return True

    def all(self) -> Iterable[Network]:
        return self._held


class Prefixes6:
    """All of the box."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger()
        self._last: OrderedDict[tuple[str, str], Network] = OrderedDict()
        self._pools: dict[str, Prefixes] = {}
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new pools; what is held stays with its session, in a pool or not."""
        self._pools = {pool.name: Prefixes.of(pool) for pool in settings.ipv6.pools}
        for pool in self._pools.values():
            pool.held = sum(pool.has(found) for found in self._ledger.all())

    def usage(self) -> list[tuple[str, int, int]]:
        """(name, prefixes, held) of each pool."""
        return [(pool.name, pool.size, pool.held) for pool in self._pools.values()]

    def hold(self, found: Network, owner: object) -> bool:
        """Mark one used, as one that a session had before us; False: it is held."""
        if not self._ledger.free(found):
            return False
        self._ledger.hold(found, owner)
        for pool in self._pools.values():
            pool.held += pool.has(found)
        return True

    def release(self, found: Network) -> None:
        """The session that had it is gone."""
        if self._ledger.release(found):
            for pool in self._pools.values():
                if pool.has(found):
                    pool.held -= 1
                    pool.give_back(found)

    def static(self, text: str, owner: object, what: str) -> tuple[Network, object | None]:
        """The prefix that an account names, and who has it already, if somebody does."""
        try:
            found = parse_network(text, 6)
        except NetworkError as e:
            raise NoPrefix(f"the account's {what}: {e}") from None
        if wrong := usable(found):
            raise NoPrefix(f"the account's {what} {found} is {wrong}; change the account")
        holder = self._ledger.owner(found)
        if holder is None:
            self.hold(found, owner)
        return found, holder

    def from_pool(self, name: str, user: str, owner: object, what: str) -> Network:
        """One of the pool, the user's last one if it is free."""
        chain = self._chain(name)
        if not chain:
            raise NoPrefix(f"{what}: there is no pool {name!r}; add it to [[ipv6.pools]]")
        key = (what, user)
        found = self._last.get(key)
        if found is not None and self._ledger.free(found):
            for pool in chain:
                if pool.has(found):
                    pool.forget(found)
                    break
            else:
                found = None
        else:
            found = None
        if found is None:
            found = next((got for pool in chain if (got := pool.take(self._ledger))), None)
        if found is None:
            raise NoPrefix(
                f"{what}: pool {name!r} is used up: all {chain[0].size} /{chain[0].length}"
                " prefixes are in use; give it more"
            )
        self.hold(found, owner)
        self._last[key] = found
        self._last.move_to_end(key)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return found

    def _chain(self, name: str) -> list[Prefixes]:
        chain: list[Prefixes] = []
        while (pool := self._pools.get(name)) is not None and pool not in chain:
            chain.append(pool)
            name = pool.next
        return chain
