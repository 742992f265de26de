"""Rates in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.rates import LEAST, MOST, UNLIMITED, format_rate, parse_pair, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("512k", 512_000),
        ("512K", 512_000),
        ("10M", 10_000_000),
        ("10m", 10_000_000),
        ("1G", 1_000_000_000),
        ("0", 0),
        ("none", UNLIMITED),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no rate"),
        ("fast", "no rate"),
        ("1.5M", "no rate"),
        ("-1", "no rate"),
        ("1T", "no rate"),
        ("5", "no unit: write 5k or 5M"),
        ("7k", "not from 8k"),
        ("1001G", "not from 8k"),
        ("99999999999999G", "no rate"),
    ],
)
def test_no_rates(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_rate(text)


def test_pairs() -> None:
    assert parse_pair("10M/512k") == (10_000_000, 512_000)
    assert parse_pair("5120/512", 1000) == (5_120_000, 512_000)
    assert parse_pair("2048", 1000) == (2_048_000, 2_048_000)
    assert parse_pair("none/1M") == (UNLIMITED, 1_000_000)
    with pytest.raises(ValueError, match="no rate"):
        parse_pair("1M/1M/1M")


@given(st.integers(LEAST // 1000, MOST // 1000))
def test_a_round_trip(kbit: int) -> None:
    assert parse_rate(format_rate(kbit * 1000)) == kbit * 1000


def test_no_rate_in_words() -> None:
    assert format_rate(0) == format_rate(UNLIMITED) == "none"
    assert format_rate(64_500) == "64.5k"
