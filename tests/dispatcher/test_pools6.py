"""IPv6 prefixes: pools that are never written out, static ones, users' last ones."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.pools6 import REMEMBERED, NoPrefix, Prefixes6
from ops.networks import Network, parse_network
from ops.settings import Pool6, Settings

SMALL = Pool6("small", ("2001:db8:0:10::/62", "2001:db8:0:20::/63"), 64)


def made(*pools: Pool6) -> Prefixes6:
    base = Settings()
    return Prefixes6(replace(base, ipv6=replace(base.ipv6, pools=pools)))


def take(prefixes: Prefixes6, user: str = "u", pool: str = "small") -> str:
    return str(prefixes.from_pool(pool, user, user, "link prefix"))


def test_all_of_a_pool_in_order_then_what_came_back() -> None:
    prefixes = made(SMALL)
    got = [take(prefixes, f"u{n}") for n in range(6)]
    assert got == [f"2001:db8:0:{n}::/64" for n in (10, 11, 12, 13, 20, 21)]
    assert prefixes.usage() == [("small", 6, 6)]
    with pytest.raises(NoPrefix, match="used up: all 6 /64"):
        take(prefixes, "late")
    for n in (4, 2):
        prefixes.release(parse_network(got[n]))
    assert prefixes.usage() == [("small", 6, 4)]
    assert take(prefixes, "new") == got[4]
    assert take(prefixes, "u2") == got[2]  # its own, as last time


def test_the_last_one_if_it_is_free() -> None:
    prefixes = made(SMALL)
    mine = take(prefixes, "me")
    prefixes.release(parse_network(mine))
    assert take(prefixes, "other") != mine
    assert take(prefixes, "me") == mine
    assert take(prefixes, "me") != mine  # a second session


def test_chains_and_unknown_pools() -> None:
    first = Pool6("a", ("2001:db8:a::/64",), 64, next="b")
    prefixes = made(first, Pool6("b", ("2001:db8:b::/64",), 64, next="a"))
    assert take(prefixes, "1", "a") == "2001:db8:a::/64"
    assert take(prefixes, "2", "a") == "2001:db8:b::/64"
    with pytest.raises(NoPrefix, match="used up"):
        take(prefixes, "3", "a")
    with pytest.raises(NoPrefix, match="no pool 'c'"):
        take(prefixes, "4", "c")


def test_static_ones() -> None:
    prefixes = made(SMALL)
    net, holder = prefixes.static("2001:db8:0:10::/64", "me", "link prefix")
    assert holder is None and prefixes.usage() == [("small", 6, 1)]
    assert prefixes.static(str(net), "you", "link prefix") == (net, "me")
    assert take(prefixes) == "2001:db8:0:11::/64"  # not the one that is held
    inside, holder = prefixes.static("2001:db8:0:10::7/128", "you", "address")
    assert holder == "me" and inside.length == 128
    for text, what in (("fish", "no prefix"), ("fe80::/64", "link-local"), ("::/0", "default")):
        with pytest.raises(NoPrefix, match=what):
            prefixes.static(text, "me", "link prefix")


def test_a_static_block_in_a_pool_is_left_out_of_it() -> None:
    prefixes = made(Pool6("homes", ("2001:db8::/48",), 56))
    prefixes.static("2001:db8::/52", "me", "delegated prefix")  # sixteen of them
    assert take(prefixes, "u", "homes") == "2001:db8:0:1000::/56"


def test_a_pool_of_any_size_costs_what_is_given_of_it() -> None:
    prefixes = made(Pool6("big", ("2000::/16",), 64), Pool6("most", ("3000::/16",), 128))
    for pool in ("big", "most"):
        for n in range(3 * REMEMBERED):
            net = prefixes.from_pool(pool, f"u{n % 7}{n}", "x", "link prefix")
            prefixes.release(net)
    inner = prefixes._pools["big"]
    assert len(inner._returned) <= REMEMBERED and sys.getsizeof(inner._returned) < 4 << 20
    assert len(prefixes._last) <= REMEMBERED
    assert prefixes.usage() == [("big", 1 << 48, 0), ("most", 1 << 62, 0)]


def test_addresses_begin_behind_the_routers_own() -> None:
    prefixes = made(Pool6("one", ("2001:db8::/126", "2001:db8::8/127"), 128))
    assert prefixes.usage() == [("one", 5, 0)]
    got = [take(prefixes, str(n), "one") for n in range(5)]
    assert got == [f"2001:db8::{n}/128" for n in (1, 2, 3, 8, 9)]
    with pytest.raises(NoPrefix):
        take(prefixes, "late", "one")


def test_a_reload_keeps_what_is_held() -> None:
    prefixes = made(SMALL)
    mine = take(prefixes, "me")
    base = Settings()
    other = Pool6("small", ("2001:db8:0:10::/63",), 64)
    prefixes.configure(replace(base, ipv6=replace(base.ipv6, pools=(other,))))
    assert prefixes.usage() == [("small", 2, 1)]
    assert take(prefixes, "you") != mine
    prefixes.configure(base)
    prefixes.release(parse_network(mine))
    assert prefixes.usage() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_nobody_gets_what_another_has(steps: list[tuple[bool, int]]) -> None:
    prefixes = made(SMALL)
    held: list[Network] = []
    for add, n in steps:
        if add:
            try:
                found = prefixes.from_pool("small", f"u{n}", n, "link prefix")
            except NoPrefix:
                assert len(held) == 6
                continue
            assert found not in held
            held.append(found)
        elif held:
            prefixes.release(held.pop(n % len(held)))
        assert prefixes.usage() == [("small", 6, len(held))]


def test_a_static_prefix_over_a_whole_pool_is_passed_at_once() -> None:
    large = made(Pool6("small", ("2001:db8::/32",), 64))
    large.static("2001:db8::/31", object(), "prefix")
    with pytest.raises(NoPrefix, match="used up"):  # not after 4 billion looks
        take(large)


def test_behind_a_static_prefix_the_pool_goes_on() -> None:
    large = made(Pool6("small", ("2001:db8::/32", "2001:db9:1::/48"), 64))
    large.static("2001:db8::/33", object(), "prefix")
    assert take(large, "anna") == "2001:db8:8000::/64"
    assert take(large, "bert") == "2001:db8:8000:1::/64"
    other = made(Pool6("small", ("2001:db8::/32", "2001:db9:1::/48"), 64))
    other.static("2001:db8::/32", object(), "prefix")
    assert take(other, "anna") == "2001:db9:1::/64"
