"""ops.ranges and ops.config.addresses against lists of single addresses."""

from __future__ import annotations

import ipaddress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.config.addresses import show_range, subtract, without
from ops.ranges import count, format_address, parse_address, parse_ranges


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.1.234-238", ["192.168.1.234-238"]),
        ("192.168.0.234-238,192.168.0.245", ["192.168.0.234-238", "192.168.0.245"]),
        (" 10.0.0.1 - 9 , 10.0.0.40", ["10.0.0.1-9", "10.0.0.40"]),
        ("192.168.0-2.5", ["192.168.0.5", "192.168.1.5", "192.168.2.5"]),
        ("10.99.1.0-255,10.99.2.0-255", ["10.99.1.0-10.99.2.255"]),
        ("10.0.0.1-10.0.3.254", ["10.0.0.1-10.0.3.254"]),
        ("10.0.0.0/22", ["10.0.0.1-10.0.3.254"]),
        ("10.0.0.4/31", ["10.0.0.4-5"]),
        ("10.0.0.4/32", ["10.0.0.4"]),
        ("10.0.0.9,10.0.0.1", ["10.0.0.9", "10.0.0.1"]),
    ],
)
def test_forms(text: str, expected: list[str]) -> None:
    assert [show_range(*r) for r in parse_ranges(text)] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("10.0.0.1,,10.0.0.2", "empty"),
        ("10.0.0", "no IPv4 address or range"),
        ("10.0.0.256", "above 255"),
        ("10.0.0.234-8", "8 is below 234"),
        ("10.0.0.-8", "not a number"),
        ("10.0.0.1/22", "write 10.0.0.0/22"),
        ("10.0.0.0/33", "prefix length"),
        ("10.0.0.9-10.0.0.1", "below"),
        ("0-255.0-255.0-255.1", "more than"),
        ("\uff110.0.0.1", "not a number"),
    ],
)
def test_errors_name_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_ranges(text)
    assert says in str(caught.value)


@given(st.integers(0, 2**32 - 1))
def test_address_round_trip(number: int) -> None:
    text = format_address(number)
    assert parse_address(text) == number == int(ipaddress.IPv4Address(text))


span = st.tuples(st.integers(0, 255), st.integers(0, 3)).map(lambda p: (p[0], min(255, sum(p))))


@given(st.lists(span, min_size=4, max_size=4))
def test_octet_ranges_are_a_product(spans: list[tuple[int, int]]) -> None:
    text = ".".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)
    ranges = parse_ranges(text)
    obvious = [
        a << 24 | b << 16 | c << 8 | d
        for a, b, c, d in product(*(range(x, y + 1) for x, y in spans))
    ]
    assert [n for first, last in ranges for n in range(first, last + 1)] == obvious
    assert count(ranges) == len(obvious)


@given(st.text("0123456789.,-/ abX\uff11", max_size=30))
def test_any_text_gives_ranges_or_value_error(text: str) -> None:
    try:
        ranges = parse_ranges(text)
    except ValueError:
        return
    assert all(0 <= first <= last < 2**32 for first, last in ranges)


small = st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1]))


@given(st.lists(small, max_size=6), st.lists(small, max_size=6))
def test_subtract_keeps_order_and_nothing_else(
    ranges: list[tuple[int, int]], minus: list[tuple[int, int]]
) -> None:
    gone = {n for first, last in minus for n in range(first, last + 1)}
    obvious = [n for first, last in ranges for n in range(first, last + 1) if n not in gone]
    left = subtract(ranges, minus)
    assert [n for first, last in left for n in range(first, last + 1)] == obvious


def test_without_rewrites_only_what_it_must() -> None:
    local = parse_ranges("10.0.0.1")
    assert without(("10.1.0.0/24", "10.0.0.0-3"), local) == ("10.1.0.0/24", "10.0.0.0,10.0.0.2-3")
    assert without(("10.0.0.1",), local) == ()


def test_many_separate_ranges_are_quick() -> None:
    """65,536 holes in 65,536 ranges: quadratic work would take minutes."""
    many = parse_ranges("10.0-255.0-255.1-8")
    holes = parse_ranges("10.0-255.0-255.4")
    assert count(subtract(many, holes)) == 65536 * 7
