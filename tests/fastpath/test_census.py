"""Sums in one pass against the slow way: a list of sessions, looked at one by one."""

from __future__ import annotations

import os
import random
from collections import Counter

from fastpath import census, layout
from fastpath.census import Census
from fastpath.layout import Table
from ops.console import snapshot
from ops.console.pools import Pools
from ops.networks import parse_network
from ops.ranges import parse_address
from ops.settings import Ip, Ipv6, Pool, Pool6, Settings
from tests.ops.console.rig import WORKERS, Shared

SETTINGS = Settings(
    ip=Ip(local="10.0.0.1"),
    pools=(
        Pool("a", ("10.0.0.0-40", "10.0.2.0/28")),
        Pool("b", ("10.0.1.0-255",)),
        Pool("empty", ("10.9.9.9",)),
    ),
    ipv6=Ipv6(
        pools=(
            Pool6("link", ("2001:db8:1::/50", "2001:db8:2::/48"), 64),
            Pool6("delegated", ("2001:db8:8000::/33",), 56),
            Pool6("odd", ("2001:db8:1::/51",), 64),
        )
    ),
)
PREFIXES = [
    parse_network(text, 6)
    for text in (
        *(
            "2001:db8:1::/64",
            "2001:db8:1:2fff::/64",
            "2001:db8:1:3fff::/64",
            "2001:db8:1:4000::/64",
        ),
        *("2001:db8:2:ffff::/64", "2001:db8:3::/64", "2001:db8:8000::/56", "2001:db8:7fff::/56"),
        *("2001:db8:9000::/64", "2001:db8:1::1/128", "2001:db8:ffff:ff00::/56"),
    )
]


def allot(shared: Shared, index: int, worker: int) -> None:
    """D's record is new, C's fields are still those of the session before."""
    shared.table.allot(
        index,
        worker=worker,
        call_id=64 + index,
        peer_call_id=index,
        local_address=1,
        peer_address=2,
        peer_port=3,
        peer_window=64,
        peer_speed=1,
        connection=1,
    )


def slow(table: Table, pools: Pools) -> tuple[list[list[int]], list[int], int, list[int]]:
    taken = snapshot.take(table)
    counts = Counter((s.worker, snapshot.state(s)) for s in taken.sessions)
    used = pools.use(taken.addresses(), taken.prefixes6)
    four = len(SETTINGS.pools)
    return (
        [[counts[w, state] for state in census.STATES] for w in range(table.workers)],
        [pool.used for pool in used[:four]],
        used[four].used,
        [pool.used for pool in used[four + 1 :]],
    )


def test_the_same_as_one_by_one() -> None:
    rng = random.Random(5)
    pools = Pools(SETTINGS)
    base = parse_address("10.0.0.0")
    for turn in range(60):
        shared = Shared(200)
        for index in range(200):
            kind = rng.randrange(5)
            if kind == 0:
                continue
            worker = rng.randrange(WORKERS)
            if kind == 1:
                shared.call(index, worker=worker)
                continue
            address = base + rng.randrange(1100)
            shared.up(index, f"u{index}", f"10.0.{address >> 8 & 255}.{address & 255}", worker)
            shared.table.grant6(index, tuple(rng.choice([*PREFIXES, (b"", 0)]) for _ in range(3)))
            if kind == 3:
                shared.table.set_ending(index)
            if kind == 4:
                shared.table.release(index)
                if rng.random() < 0.5:
                    allot(shared, index, worker)
        counted = Census(shared.table, pools.ranges, pools.nets6).take()
        assert counted == slow(shared.table, pools), turn


def test_no_pools_and_no_sessions() -> None:
    table = Shared(1).table
    assert Census(table, []).take() == ([[0, 0, 0]] * WORKERS, [], 0, [])
    assert Census(table, [[], [(1, 2)]]).take() == ([[0, 0, 0]] * WORKERS, [0, 0], 0, [])


def test_busiest_goes_by_what_came_since_the_last_look() -> None:
    shared = Shared(50)
    for index in range(40):
        shared.up(index, f"u{index}", "10.0.0.9")
        shared.set_traffic(index, (1, 1000 * index), (1, 0), 0)
    counting = Census(shared.table, [])
    assert counting.busiest(5) == []
    counting.look()
    assert counting.busiest(5) == [39, 38, 37, 36, 35]
    assert counting.busiest(0) == []
    assert sorted(counting.busiest(1000)) == list(range(40))
    shared.set_traffic(3, (2, 3000 + 70), (1, 0), 0)
    shared.set_traffic(7, (2, 7000), (2, 50), 0)
    counting.look()
    assert counting.busiest(2) == [3, 7]
    # Another session in the record: its octets are all new.
    shared.table.release(3)
    shared.up(3, "other", "10.0.0.9")
    assert 3 not in counting.busiest(50)
    shared.set_traffic(3, (1, 60), (1, 0), 0)
    counting.look()
    assert counting.busiest(1) == [3]
    shared.table.set_ending(3)
    assert 3 not in counting.busiest(50)


def test_busiest_against_sorting() -> None:
    rng = random.Random(9)
    for _ in range(100):
        shared = Shared(64)
        octets = {}
        for index in rng.sample(range(64), rng.randrange(1, 64)):
            shared.up(index, "u", "10.0.0.9")
            octets[index] = rng.randrange(20)
            shared.set_traffic(index, (1, octets[index]), (0, 0), 0)
        counting = Census(shared.table, [])
        counting.look()
        most = rng.randrange(1, 70)
        found = counting.busiest(most)
        assert len(found) == len(set(found)) == min(most, len(octets))
        grown = [octets[index] for index in found]
        assert grown == sorted(octets.values(), reverse=True)[: len(found)]


def test_histograms_of_the_table() -> None:
    fd = os.memfd_create("table")
    table = Table.create(fd, 4, 2, 9)
    os.close(fd)
    for ns in (0, 50_000_000, 50_000_001, 10_000_000_000, 10_000_000_001):
        table.session_set_up(1, 4, ns)
    counts, seconds = table.setup_times(1, 4)
    assert counts == [2, 1, 0, 0, 0, 0, 0, 1, 1] and round(seconds, 6) == 20.1
    assert table.setup_times(0, 4) == ([0] * (len(layout.SETUP_BOUNDS) + 1), 0)
    for length in (0, 60, 61, 604800, 604801):
        table.session_lasted(length)
    assert table.durations() == ([2, 1, 0, 0, 0, 1, 1], 0 + 60 + 61 + 604800 + 604801)
    table.bus_queue(1, 7)
    table.loop_lag(1, 5)
    assert (table.worker(1).bus_queue, table.worker(1).loop_lag_ns) == (7, 5)
