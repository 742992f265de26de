"""Who may connect: listen.allow and listen.deny as one sorted table of address ranges.

The longest prefix that holds an address decides, `deny` between equals. An address that
no prefix holds is let in unless `allow` names somebody. The dispatcher asks at TCP's accept;
workers give `block` to their data threads, which ask of each GRE packet before they look
for its call. Leaf module: ops.ranges and the standard library only.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence

from ops.ranges import parse_network


class Peers:
    """Built once per configuration; `allowed` is a binary search.

    `block` is the same for fastpath/peers.pxd; b"" if everybody may connect.
    """

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        """Prefixes as checked by ops.config; faulty ones raise ValueError."""
        self._otherwise = not allow
        found = [(*parse_network(text), True) for text in allow]
        found += [(*parse_network(text), False) for text in deny]
        # Wide before narrow, `allow` before `deny`: what comes later overrides.
        found.sort(key=lambda entry: (entry[0] - entry[1], not entry[2]))
        self._starts, self._verdicts = _flatten(found, self._otherwise)
        self.block = b""
        if self._verdicts != [True]:
            values = (self._verdicts[0], *self._starts)
            self.block = struct.pack(f"={len(values)}I", *values)

    def allowed(self, address: int) -> bool:
        """Whether this host-order address may connect."""
        return self._verdicts[bisect_right(self._starts, address) - 1]


def _flatten(
    found: Sequence[tuple[int, int, bool]], otherwise: bool
) -> tuple[list[int], list[bool]]:
    """Ranges that nest become ranges side by side, by turns allowed and not: where each begins.

    Prefixes either nest or are apart, so a stack of those that are open is enough.
    """
    opened: list[tuple[int, bool]] = [(1 << 32, otherwise)]  # (first address behind it, verdict)
    starts, verdicts = [0], [otherwise]

    def begin(at: int, verdict: bool) -> None:
        if starts[-1] == at:
            verdicts[-1] = verdict
            if verdicts[-2:-1] == [verdict]:  # as the range before it, after all
                del starts[-1], verdicts[-1]
        elif verdicts[-1] != verdict:
            starts.append(at)
            verdicts.append(verdict)

    order = {entry: place for place, entry in enumerate(found)}
    for first, last, verdict in sorted(found, key=lambda e: (e[0], order[e])):
        while opened[-1][0] <= first:
            behind, _ = opened.pop()
            begin(behind, opened[-1][1])
        opened.append((last + 1, verdict))
        begin(first, verdict)
    while len(opened) > 1:
        behind, _ = opened.pop()
        if behind < 1 << 32:
            begin(behind, opened[-1][1])
    return starts, verdicts
