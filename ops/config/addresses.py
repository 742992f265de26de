"""Arithmetic on lists of address ranges."""

from __future__ import annotations

from bisect import bisect_left

from ops.ranges import format_address, parse_ranges

Ranges = list[tuple[int, int]]


def without(texts: tuple[str, ...], local: Ranges) -> tuple[str, ...]:
    """The range texts, those that hold a local address rewritten to leave it out."""
    result: list[str] = []
    for text in texts:
        found = parse_ranges(text)
        left = subtract(found, local)
        if left == found:
            result.append(text)
        elif left:
            result.append(",".join(show_range(first, last) for first, last in left))
    return tuple(result)


def subtract(ranges: Ranges, minus: Ranges) -> Ranges:
    """`ranges`, in their order, less all addresses in `minus`."""
    holes = sorted(minus)
    reach: list[int] = []  # highest address of the holes so far: ascending, for the search
    for _, last in holes:
        reach.append(max(last, reach[-1]) if reach else last)
    kept: Ranges = []
    for first, last in ranges:
        at = first
        hole = bisect_left(reach, first)
        while hole < len(holes) and holes[hole][0] <= last:
            low, high = holes[hole]
            if low > at:
                kept.append((at, low - 1))
            at = max(at, high + 1)
            hole += 1
        if at <= last:
            kept.append((at, last))
    return kept


def show_range(first: int, last: int) -> str:
    """A range in the shortest form `parse_ranges` reads back."""
    if first == last:
        return format_address(first)
    if first >> 8 == last >> 8:
        return f"{format_address(first)}-{last & 0xFF}"
    return f"{format_address(first)}-{format_address(last)}"
