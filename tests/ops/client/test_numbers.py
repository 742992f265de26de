"""Numbered datagrams: the account against a slow, obvious twin."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ops.client.numbers import HEADER, IMIX, MAX_AHEAD, NUMBERED, Account, Way, settle
from ops.client.traffic import HEADERS


@given(st.lists(st.integers(0, 40), max_size=120), st.integers(0, 45))
def test_every_number_has_one_fate(numbers: list[int], sent: int) -> None:
    sent = max([sent, *(n + 1 for n in numbers)])
    account = Account()
    late, highest = 0, -1
    seen: Counter[int] = Counter()
    for number in numbers:
        assert account.take(number, 100)
        late += number < highest and not seen[number]
        highest = max(highest, number)
        seen[number] += 1
    way = settle(sent, account.seen())
    assert way.received == len(seen)
    assert way.lost == sent - len(seen)
    assert way.duplicated == len(numbers) - len(seen)
    assert way.reordered == late
    assert way.octets == 100 * len(seen)


def test_a_number_that_cannot_be_changes_nothing() -> None:
    account = Account()
    assert account.take(0, 64)
    assert not account.take(MAX_AHEAD + 2, 64)
    assert account == Account(received=1, octets=64, next=1)


def test_ways_add_up_and_differ() -> None:
    one, two = Way(10, 8, 2, 1, 3, 800), Way(5, 5, 0, 0, 0, 500)
    assert one + two == Way(15, 13, 2, 1, 3, 1300)
    assert (one + two).since(one) == two


def test_the_mix_is_seven_four_one() -> None:
    assert Counter(IMIX) == {64: 7, 576: 4, 1400: 1}
    assert min(*IMIX, *NUMBERED) - HEADERS >= HEADER.size
