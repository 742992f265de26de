"""[ip-pool] and its IPv6 sisters: ranges with a name and a next one behind commas."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ops.config.accel.text import Line
from ops.config.addresses import show_range, subtract
from ops.config.draft import POOL, Draft, Origin, PoolDraft
from ops.config.values import check_pool_name, check_ranges
from ops.ranges import parse_network, parse_ranges

_RANGE: Final = re.compile(r"[0-9][0-9./-]*")


@dataclass(slots=True)
class Pools:
    """The pools so far."""

    draft: Draft
    gateways: list[tuple[str, Origin]] = field(default_factory=list)  # `gw=` ranges
    _found: dict[str, PoolDraft] = field(default_factory=dict)
    _taken: list[tuple[int, int]] = field(default_factory=list)

    def takes(self, line: Line, origin: Origin) -> bool:
        """A line of [ip-pool] that is a range, or about the attribute that names a pool."""
        if line.key == "vendor" or line.key == "attr":
            if line.value not in ("Framed-Pool", "Cisco", "Cisco-AVPair"):
                self.draft.loud(
                    origin, f"[ip-pool] {line.key}: pools are named by Framed-Pool or Cisco-AVPair"
                )
            else:
                self.draft.quiet(origin, f"[ip-pool] {line.key}: Framed-Pool and Cisco-AVPair")
            return True
        if line.key in ("gw", "tunnel"):
            text = line.value
        elif _RANGE.match(line.key):
            text = line.bare
        else:
            return False
        words = [word.strip() for word in text.split(",")]
        name = following = ""
        for word in words[1:]:
            key, is_pair, value = word.partition("=")
            if key == "next" and is_pair:
                following = value
            elif key == "name" and is_pair:
                name = value
            elif word and not is_pair:
                name = word
            else:
                self.draft.loud(origin, f"[ip-pool] {word[:40]!r}: neither name= nor next=")
        self._range(words[0], name or POOL, following, origin, gateway=line.key == "gw")
        return True

    def _range(
        self, text: str, name: str, following: str, origin: Origin, *, gateway: bool
    ) -> None:
        try:
            # accel-ppp hands out all addresses of a prefix, first and last too.
            ranges = [parse_network(text)] if "/" in text else parse_ranges(text)
            for first, last in ranges:
                check_ranges(show_range(first, last))
            check_pool_name(name)
            if following:
                check_pool_name(following)
        except ValueError as e:
            self.draft.loud(origin, f"[ip-pool] {text[:40]}: {e}")
            return
        if gateway:
            self.gateways += [(show_range(*each), origin) for each in ranges]
            return
        new = subtract(ranges, self._taken)
        if new != ranges:
            self.draft.loud(
                origin, f"[ip-pool] {text}: is in a pool already, in part; each address is once"
            )
        self._taken += new
        pool = self._found.setdefault(name, PoolDraft())
        pool.ranges += [show_range(first, last) for first, last in new]
        pool.comments.append(str(origin))
        if following and pool.next and following != pool.next:
            self.draft.loud(origin, f"[ip-pool] {name}: goes on with {pool.next}, not {following}")
        pool.next = pool.next or following

    def finish(self, default: tuple[str, Origin] | None) -> None:
        """Write them; `default` is the pool that [pptp] names."""
        pools = {name: pool for name, pool in self._found.items() if pool.ranges}
        for name, pool in pools.items():
            if pool.next and pool.next not in pools:
                self.draft.loud(None, f"pool {name}: its next, {pool.next}, has no addresses")
                pool.next = ""
        if not pools:
            pools[POOL] = PoolDraft(
                ["10.99.1.0-255"], ["no [ip-pool] there; these are pptpcon's default"]
            )
        self.draft.pools = pools
        if default is not None and default[0] in pools:
            self.draft.set("ip", "pool", *default)
            return
        if default is not None:
            self.draft.loud(default[1], f"[pptp] ip-pool={default[0][:40]}: no such pool")
        if POOL not in pools:
            first = next(iter(pools))
            self.draft.set("ip", "pool", first, None, "no range is without a name there")
