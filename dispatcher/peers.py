"""Who may connect: listen.allow and listen.deny as one sorted table of address ranges.

The longest prefix that holds an address decides, `deny` between equals. An address that
no prefix holds is let in unless `allow` names somebody. Asked at TCP's accept only: GRE of
an address without a call finds no session in the data thread's table and is dropped and
counted there, which costs no more than a look into a list of prefixes would.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ops.ranges import parse_network


class Peers:
    """Built once per configuration; `allowed` is a binary search."""

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        """Prefixes as checked by ops.config; faulty ones raise ValueError."""
        self._otherwise = not allow
        found = [(*parse_network(text), True) for text in allow]
        found += [(*parse_network(text), False) for text in deny]
        # Wide before narrow, `allow` before `deny`: what comes later overrides.
        found.sort(key=lambda entry: (entry[0] - entry[1], not entry[2]))
        self._starts, self._verdicts = _flatten(found, self._otherwise)

    def allowed(self, address: int) -> bool:
        """Whether this host-order address may connect."""
        return self._verdicts[bisect_right(self._starts, address) - 1]


def _flatten(
    found: Sequence[tuple[int, int, bool]], otherwise: bool
) -> tuple[list[int], list[bool]]:
    """Ranges that nest become ranges side by side: where each begins, and what it says.

    Prefixes either nest or are apart, so a stack of those that are open is enough.
    """
    opened: list[tuple[int, bool]] = [(1 << 32, otherwise)]  # (first address behind it, verdict)
    starts, verdicts = [0], [otherwise]

    def begin(at: int, verdict: bool) -> None:
        if starts[-1] == at:
            verdicts[-1] = verdict
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
