"""Bans and start rates by themselves, in simulated time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher import bans as bans_module
from dispatcher.bans import Bans
from dispatcher.rates import StartRates
from ops.realms import split
from ops.settings import Bans as Settings

BOB, EVE = 0x0A000001, 0x0A000002


def seconds(bans: Bans, name: str, source: int, now: float) -> list[float]:
    return [ban.until - now for ban in bans.failed(name, source, now)]


def test_each_ban_in_a_row_is_twice_as_long() -> None:
    bans = Bans(Settings(user_failures=2, ban_s=60, longest_s=200, window_s=600))
    now = 0.0
    for expected in (60, 120, 200, 200):
        assert seconds(bans, "bob", BOB, now) == []
        assert seconds(bans, "bob", BOB, now) == [expected]
        assert seconds(bans, "bob", BOB, now + 1) == []  # it holds already
        now += expected
        assert bans.expire(now)
        assert not bans.expire(now)


def test_who_stays_clean_begins_anew() -> None:
    bans = Bans(Settings(user_failures=2, ban_s=60, window_s=600))
    seconds(bans, "bob", BOB, 0.0)
    assert seconds(bans, "bob", BOB, 0.0) == [60]
    bans.expire(60.0)
    bans.expire(661.0)
    seconds(bans, "bob", BOB, 700.0)
    assert seconds(bans, "bob", BOB, 700.0) == [60]


def test_old_failures_do_not_count() -> None:
    bans = Bans(Settings(user_failures=2, source_failures=2, window_s=600))
    for hour in range(5):
        assert bans.failed("bob", BOB, hour * 3600.0) == []
        bans.expire(hour * 3600.0)


def test_a_success_clears_the_user_and_not_the_source() -> None:
    bans = Bans(Settings(user_failures=2, source_failures=2))
    bans.failed("bob", BOB, 0.0)
    bans.succeeded("bob", 0.0)
    (ban,) = bans.failed("bob", BOB, 0.0)
    assert (ban.kind, ban.name) == ("source", "10.0.0.1")
    assert bans.source_left(BOB, 10.0) == 50.0
    assert bans.source_left(EVE, 10.0) == 0.0
    assert bans.lift("all", "") == 2
    assert bans.source_left(BOB, 10.0) == 0.0
    assert list(bans.current(10.0)) == []


def test_exempt_sources_are_never_banned() -> None:
    bans = Bans(Settings(user_failures=1, source_failures=1, exempt=("10.0.0.1/32",)))
    assert bans.failed("bob", BOB, 0.0) == []
    assert len(bans.failed("bob", EVE, 0.0)) == 2


def test_memory_is_bounded() -> None:
    size = bans_module.ENTRIES_MAX
    bans = Bans(Settings(user_failures=1))
    for n in range(size + 10):
        bans.failed(f"user{n}", BOB, float(n) / size)
    assert bans.holding == size
    rates = StartRates(sources=10)
    for n in range(100):
        assert rates.allow(n, 1, 0.0)
    assert not rates.allow(99, 1, 0.0)
    assert rates.allow(1, 1, 0.0)  # forgotten


@given(st.lists(st.floats(0, 120), min_size=1, max_size=200).map(sorted))
def test_no_minute_has_more_than_twice_the_rate(times: list[float]) -> None:
    """A bucket that was full, and what ran in meanwhile."""
    rates = StartRates()
    allowed = [at for at in times if rates.allow(1, 10, at)]
    for begin in allowed:
        assert sum(begin <= at < begin + 60 for at in allowed) <= 20


def test_realms() -> None:
    assert split(r"DOM\Bob") == ("dom", "bob")
    assert split("Bob@isp.example") == ("isp.example", "bob")
    assert split("bob") == ("", "bob")
    assert split(r"DOM\bob@x") == ("dom", "bob@x")
    assert split("@x") == ("x", "")
