"""IPv4 ranges as pptpd writes them, and CIDR. Leaf module: standard library only.

    192.168.0.234                    one address
    192.168.0.234-238                a range in the last octet, or in any other:
    192.168.0-255.2                  256 addresses, one in each /24
    10.0.0.0-10.0.3.255              from one address to another
    10.0.0.0-3.255                   the same: the end's missing octets are the start's
    10.0.0.0/22                      all addresses of a prefix
    192.168.0.1,192.168.0.5-8        a list of these

pptpd refuses shortcuts such as 234-8, and so does this.
"""

from __future__ import annotations

from itertools import product

MAX_RANGES = 65536  # of one text; octet ranges multiply


def address(text: str) -> int:
    """The host-order value of a dotted quad."""
    octets = text.split(".")
    if len(octets) != 4:
        raise ValueError(f"{text!r} is no IPv4 address")
    value = 0
    for octet in octets:
        value = value << 8 | _octet(octet, text)
    return value


def dotted(value: int) -> str:
    """A host-order value as a dotted quad."""
    return ".".join(str(value >> shift & 0xFF) for shift in (24, 16, 8, 0))


def show_range(first: int, last: int) -> str:
    """A range in the shortest form `parse_ranges` reads back."""
    if first == last:
        return dotted(first)
    if first >> 8 == last >> 8:
        return f"{dotted(first)}-{last & 0xFF}"
    return f"{dotted(first)}-{dotted(last)}"


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """(first, last) of each range in host order, as written; ValueError says what is wrong.

    Neighbours that follow each other are joined. An address that comes twice is an
    error: a pool would give it to two subscribers.
    """
    found: list[tuple[int, int]] = []
    for item in text.split(","):
        for first, last in _item(item.strip(), text):
            if found and found[-1][1] + 1 == first:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
            if len(found) > MAX_RANGES:
                raise ValueError(f"{text[:60]!r}: more than {MAX_RANGES} separate ranges")
    twice = overlap(found)
    if twice is not None:
        raise ValueError(f"{dotted(twice)} comes twice in {text[:60]!r}")
    return found


def overlap(ranges: list[tuple[int, int]]) -> int | None:
    """The lowest address that two of the ranges share, or None."""
    end = -1
    for first, last in sorted(ranges):
        if first <= end:
            return first
        end = last
    return None


def subtract(
    ranges: list[tuple[int, int]], without: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """`ranges`, in their order, less all addresses in `without`."""
    left = list(ranges)
    for low, high in without:
        kept: list[tuple[int, int]] = []
        for first, last in left:
            if high < first or low > last:
                kept.append((first, last))
                continue
            if first < low:
                kept.append((first, low - 1))
            if high < last:
                kept.append((high + 1, last))
        left = kept
    return left


def size(ranges: list[tuple[int, int]]) -> int:
    """How many addresses."""
    return sum(last - first + 1 for first, last in ranges)


def _octet(text: str, whole: str) -> int:
    # isdigit() alone takes digits of other scripts; a leading zero is octal to some readers.
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or int(text) > 255:
        raise ValueError(f"{whole[:60]!r} is no IPv4 address or range: {text[:20]!r} is no octet")
    if len(text) > 1 and text[0] == "0":
        raise ValueError(f"{whole[:60]!r}: write {int(text)} for {text!r}, without leading zeros")
    return int(text)


def _item(item: str, text: str) -> list[tuple[int, int]]:
    if not item:
        where = f" in {text[:60]!r}" if text.strip() else ""
        raise ValueError(f"an empty address or range{where}")
    if "/" in item:
        return [_prefix(item)]
    head, dash, tail = item.partition("-")
    if dash and head.count(".") == 3 and "-" not in tail:
        return [_span(head, tail, item)]
    return _octets(item)


def _prefix(item: str) -> tuple[int, int]:
    base, _, length = item.partition("/")
    if not (length.isascii() and length.isdigit()) or len(length) > 2 or int(length) > 32:
        raise ValueError(f"{item[:60]!r}: the prefix length must be 0 to 32")
    first = address(base)
    last = first | (1 << (32 - int(length))) - 1
    if first != last & -(1 << (32 - int(length))):
        start = dotted(first & -(1 << (32 - int(length))))
        raise ValueError(f"{item[:60]!r} begins inside its prefix; write {start}/{length}")
    return first, last


def _span(head: str, tail: str, item: str) -> tuple[int, int]:
    """a.b.c.d-e, a.b.c.d-e.f, ... to a full address at the end."""
    first = address(head)
    ends = tail.split(".")
    if len(ends) > 4:
        raise ValueError(f"{item[:60]!r}: {tail[:40]!r} has more than four octets")
    last = first >> 8 * len(ends)
    for octet in ends:
        last = last << 8 | _octet(octet, item)
    if last < first:
        raise ValueError(f"{item[:60]!r} ends before it begins ({dotted(last)} < {dotted(first)})")
    return first, last


def _octets(item: str) -> list[tuple[int, int]]:
    """Each octet a number or a range of its own."""
    parts = item.split(".")
    if len(parts) != 4:
        raise ValueError(f"{item[:60]!r} is no IPv4 address or range")
    bounds: list[tuple[int, int]] = []
    for part in parts:
        low, dash, high = part.partition("-")
        first = _octet(low, item)
        last = _octet(high, item) if dash else first
        if last < first:
            raise ValueError(f"{item[:60]!r}: {part} ends before it begins")
        bounds.append((first, last))
    steps = 1
    for first, last in bounds[:3]:
        steps *= last - first + 1
    if steps > MAX_RANGES:
        raise ValueError(f"{item[:60]!r}: more than {MAX_RANGES} separate ranges; use CIDR")
    found = []
    for a, b, c in product(*(range(first, last + 1) for first, last in bounds[:3])):
        base = (a << 8 | b) << 8 | c
        found.append((base << 8 | bounds[3][0], base << 8 | bounds[3][1]))
    return found
