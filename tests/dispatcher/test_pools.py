"""Pools: to the last address, never twice, the user's last again, never our own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.pools import Addresses, NoAddress, Pool, pool_ranges, subtract
from ops.ranges import format_address, parse_address, parse_ranges
from ops.settings import Ip, Settings
from ops.settings import Pool as PoolSettings


def configured(*ranges: str, local: str = "10.0.0.1", **more: tuple[str, ...]) -> Settings:
    pools = (PoolSettings("default", ranges), *(PoolSettings(n, r) for n, r in more.items()))
    return Settings(ip=Ip(local=local), pools=pools)


def take(addresses: Addresses, user: str, pool: str = "") -> str:
    return format_address(addresses.from_pool(pool, user, user).address)


def refused(addresses: Addresses, user: str, pool: str = "") -> NoAddress:
    with pytest.raises(NoAddress) as caught:
        addresses.from_pool(pool, user, user)
    return caught.value


def test_the_seeds_pool_of_five() -> None:
    addresses = Addresses(configured("192.168.1.234-238", local="192.168.0.1"))
    got = [take(addresses, f"u{n}") for n in range(5)]
    assert got == [f"192.168.1.{n}" for n in range(234, 239)]
    e = refused(addresses, "u5")
    assert e.reason == "no_address"
    for part in ("'default'", "all 5", "192.168.1.234-238", "pools.default.ranges"):
        assert part in e.text
    addresses.release(parse_address("192.168.1.236"))
    assert take(addresses, "u5") == "192.168.1.236"


def test_the_users_last_address_if_free() -> None:
    addresses = Addresses(configured("10.0.1.0-9"))
    first = take(addresses, "ann")
    addresses.release(parse_address(first))
    assert take(addresses, "bob") == "10.0.1.1"
    assert take(addresses, "ann") == first
    addresses.release(parse_address(first))
    addresses.hold(parse_address(first), "somebody")
    assert take(addresses, "ann") == "10.0.1.2"


def test_what_came_back_is_used_last_and_longest_free_first() -> None:
    addresses = Addresses(configured("10.0.1.0-3"))
    for n in range(3):
        take(addresses, f"u{n}")
    addresses.release(parse_address("10.0.1.2"))
    addresses.release(parse_address("10.0.1.0"))
    assert [take(addresses, f"v{n}") for n in range(3)] == ["10.0.1.3", "10.0.1.2", "10.0.1.0"]


def test_our_own_address_is_not_given_out() -> None:
    addresses = Addresses(configured("10.0.1.0-3", local="10.0.1.1"))
    got = [take(addresses, f"u{n}") for n in range(3)]
    assert got == ["10.0.1.0", "10.0.1.2", "10.0.1.3"]
    assert "all 3" in refused(addresses, "u").text


def test_cidr_without_network_and_broadcast() -> None:
    addresses = Addresses(configured("10.0.1.0/30"))
    assert [take(addresses, f"u{n}") for n in range(2)] == ["10.0.1.1", "10.0.1.2"]
    assert "all 2" in refused(addresses, "u").text


def test_local_one_for_all_or_paired() -> None:
    one = Addresses(configured("10.0.1.0-9"))
    assert {one.from_pool("", f"u{n}", n).local for n in range(5)} == {parse_address("10.0.0.1")}
    many = Addresses(configured("10.0.1.0-9", local="10.0.0.1-2,10.0.0.9"))
    locals_ = [format_address(many.from_pool("", f"u{n}", n).local) for n in range(4)]
    assert locals_ == ["10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.1"]


def test_static_addresses() -> None:
    addresses = Addresses(configured("10.0.1.0-2"))
    grant = addresses.static(parse_address("10.0.1.0"), "a")
    assert grant.pool == -1
    assert take(addresses, "bob") == "10.0.1.1"  # the static one is used in the pool
    with pytest.raises(NoAddress) as caught:
        addresses.static(grant.address, "b")
    assert caught.value.reason == "address_in_use"
    assert addresses.static(parse_address("172.16.0.9"), "c").local == parse_address("10.0.0.1")
    for bad in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.1"):
        with pytest.raises(NoAddress) as caught:
            addresses.static(parse_address(bad), "d")
        assert caught.value.reason == "address_not_allowed"
        assert bad in caught.value.text
    assert addresses.usage() == [("default", 3, 2)]
    addresses.release(grant.address)
    assert [take(addresses, f"v{n}") for n in range(2)] == ["10.0.1.2", "10.0.1.0"]


def test_pools_by_name() -> None:
    addresses = Addresses(configured("10.0.1.0-1", vip=("10.0.2.0-1",)))
    assert take(addresses, "ann", "vip") == "10.0.2.0"
    assert addresses.from_pool("vip", "bob", 1).pool == 1
    assert "[pools.nowhere]" in refused(addresses, "eve", "nowhere").text
    # the last address counts only in the pool that is asked for
    addresses.release(parse_address("10.0.2.0"))
    assert take(addresses, "ann") == "10.0.1.0"


def test_pools_that_share_addresses_never_give_one_twice() -> None:
    addresses = Addresses(configured("10.0.1.0-3", other=("10.0.1.2-5",)))
    got = [take(addresses, f"a{n}") for n in range(3)]
    got += [take(addresses, f"b{n}", "other") for n in range(3)]
    assert len(set(got)) == 6
    refused(addresses, "x")
    refused(addresses, "x", "other")
    addresses.release(parse_address("10.0.1.2"))
    assert take(addresses, "x", "other") == "10.0.1.2"
    refused(addresses, "y")


def test_reload_keeps_what_is_in_use() -> None:
    settings = configured("10.0.1.0-3")
    addresses = Addresses(settings)
    got = [take(addresses, f"u{n}") for n in range(3)]
    addresses.configure(
        replace(settings, pools=(PoolSettings("default", ("10.0.1.2-3", "10.0.9.1")),))
    )
    assert addresses.usage() == [("default", 3, 1)]
    assert [take(addresses, f"v{n}") for n in range(2)] == ["10.0.1.3", "10.0.9.1"]
    refused(addresses, "w")
    addresses.release(parse_address(got[0]))  # not in the pool any more
    refused(addresses, "w")
    addresses.release(parse_address(got[2]))
    assert take(addresses, "w") == got[2]


def test_a_huge_pool_costs_nothing() -> None:
    addresses = Addresses(configured("10.0.0.0/8"))
    assert addresses.usage() == [("default", 2**24 - 3, 0)]
    assert take(addresses, "u") == "10.0.0.2"


spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])),
    max_size=6,
)


def members(ranges: list[tuple[int, int]]) -> list[int]:
    return [n for first, last in ranges for n in range(first, last + 1)]


@given(spans, spans)
def test_subtract_against_the_obvious(
    ranges: list[tuple[int, int]], less: list[tuple[int, int]]
) -> None:
    gone = set(members(less))
    assert members(subtract(ranges, less)) == [n for n in members(ranges) if n not in gone]


@given(spans.filter(bool))
def test_positions_and_addresses_are_each_others_inverse(ranges: list[tuple[int, int]]) -> None:
    texts = tuple(f"{format_address(a)}-{format_address(b)}" for a, b in ranges)
    pool = Pool("p", 0, pool_ranges(texts), "")
    obvious = list(dict.fromkeys(members([r for t in texts for r in parse_ranges(t)])))
    assert pool.size == len(obvious)
    assert [pool.at(n) for n in range(pool.size)] == obvious
    assert [pool.position(a) for a in obvious] == list(range(pool.size))
    assert pool.position(1000) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "other", "static", "release", "reload"]), st.integers(0, 19)
        ),
        max_size=120,
    )
)
def test_against_a_set(steps: list[tuple[str, int]]) -> None:
    """The obvious twin: a set of what is held, and each pool as a set."""
    settings = configured("10.0.1.0-9", other=("10.0.1.5-14",))
    addresses = Addresses(settings)
    base = parse_address("10.0.1.0")
    pools = {"": set(range(base, base + 10)), "other": set(range(base + 5, base + 15))}
    held: set[int] = set()
    for what, n in steps:
        if what in ("take", "other"):
            name = "" if what == "take" else "other"
            try:
                address = addresses.from_pool(name, f"u{n}", n).address
            except NoAddress:
                assert pools[name] <= held
                continue
            assert address in pools[name] - held
            held.add(address)
        elif what == "static":
            try:
                addresses.static(base + n, n)
            except NoAddress:
                assert base + n in held
                continue
            assert base + n not in held
            held.add(base + n)
        elif what == "release":
            addresses.release(base + n)
            held.discard(base + n)
        else:
            addresses.configure(settings)
        assert addresses.usage() == [
            ("default", 10, len(pools[""] & held)),
            ("other", 10, len(pools["other"] & held)),
        ]
