"""IPv4 ranges as pptpd writes them, and CIDR. Leaf module: standard library only.

    192.168.0.234                    one address
    192.168.0.234-238                a range in the last octet, or in any other:
    192.168.0-255.2                  256 addresses, one in each /24
    10.0.0.0-10.0.3.255              from one address to another
    10.0.0.0/22                      a prefix, less its network and broadcast address
    192.168.0.1,192.168.0.5-8        a list of these

pptpd refuses shortcuts such as 234-8, and so does this. The order of the text is
the order of assignment; whether ranges overlap is for the caller to check.
"""

from __future__ import annotations

from itertools import product

MAX_RANGES = 65536  # separate ones in one item: octet ranges multiply


def parse_address(text: str) -> int:
    """The host-order value of a dotted quad."""
    octets = text.split(".")
    if len(octets) != 4:
        raise ValueError(f"{text[:60]!r} is no IPv4 address")
    value = 0
    for octet in octets:
        value = value << 8 | _octet(octet, text)
    return value


def format_address(value: int) -> str:
    """A host-order value as a dotted quad."""
    return ".".join(str(value >> shift & 0xFF) for shift in (24, 16, 8, 0))


def parse_network(text: str) -> tuple[int, int]:
    """(first, last) of a prefix, network and broadcast address with it; or of one address."""
    item = text.strip()
    if "/" not in item:
        value = parse_address(item)
        return value, value
    first, last = _prefix(item)
    hosts = (1 << (32 - int(item.partition("/")[2]))) - 1
    return (first & ~hosts, last | hosts) if hosts > 1 else (first, last)


def count(ranges: list[tuple[int, int]]) -> int:
    """How many addresses."""
    return sum(last - first + 1 for first, last in ranges)


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """(first, last) of each range in host order; ValueError says what is wrong and where.

    A range that goes on where the one before it ends is joined to it.
    """
    found: list[tuple[int, int]] = []
    for item in text.split(","):
        for first, last in _item("".join(item.split()), text):
            if found and found[-1][1] + 1 == first:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
    return found


def _octet(text: str, whole: str) -> int:
    # isdigit() alone takes digits of other scripts.
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{whole[:60]!r}: octet {text[:20]!r} is not a number")
    if len(text) > 3 or int(text) > 255:
        raise ValueError(f"{whole[:60]!r}: octet {text[:20]!r} is above 255")
    return int(text)


def _item(item: str, text: str) -> list[tuple[int, int]]:
    if not item:
        where = f" in {text[:60]!r}" if text.strip() else ""
        raise ValueError(f"empty address range{where}")
    if "/" in item:
        return [_prefix(item)]
    head, _, tail = item.partition("-")
    if head.count(".") == 3 and tail.count(".") == 3:
        first, last = parse_address(head), parse_address(tail)
        if last < first:
            raise ValueError(f"{item[:60]!r}: {tail} is below {head}")
        return [(first, last)]
    return _octets(item)


def _prefix(item: str) -> tuple[int, int]:
    base, _, length = item.partition("/")
    if not (length.isascii() and length.isdigit()) or len(length) > 2 or int(length) > 32:
        raise ValueError(f"{item[:60]!r}: the prefix length must be 0 to 32")
    hosts = (1 << (32 - int(length))) - 1
    address = parse_address(base)
    first, last = address & ~hosts, address | hosts
    if address != first:
        start = format_address(first)
        raise ValueError(f"{item[:60]!r} begins inside its prefix; write {start}/{length}")
    # Network and broadcast address are no hosts', except in a /31 (RFC 3021) and /32.
    return (first + 1, last - 1) if hosts > 1 else (first, last)


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
            raise ValueError(f"{item[:60]!r}: {last} is below {first}; write the whole number")
        bounds.append((first, last))
    separate = 1
    for first, last in bounds[:3]:
        separate *= last - first + 1
    if separate > MAX_RANGES:
        raise ValueError(f"{item[:60]!r} is more than {MAX_RANGES} separate ranges; use CIDR")
    found = []
    for a, b, c in product(*(range(first, last + 1) for first, last in bounds[:3])):
        base = ((a << 8 | b) << 8 | c) << 8
        found.append((base | bounds[3][0], base | bounds[3][1]))
    return found
