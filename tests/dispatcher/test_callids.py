"""Call IDs: the worker's buckets, never 0, quarantine, first in first out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.callids import QUARANTINE_S, CallIds


def drain(ids: CallIds, worker: int, now: float) -> list[int]:
    out = []
    while (call_id := ids.take(worker, now)) is not None:
        out.append(call_id)
    return out


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 63, 64])
def test_all_ids_of_all_workers(workers: int) -> None:
    ids = CallIds(workers, set(), random.Random(1))
    everything = []
    for worker in range(workers):
        mine = drain(ids, worker, 0.0)
        assert all(call_id & 63 % 64 == call_id % 64 for call_id in mine)
        assert all((call_id & 63) % workers == worker for call_id in mine)
        everything += mine
    assert sorted(everything) == list(range(1, 65536))


def test_used_ones_are_left_out() -> None:
    ids = CallIds(1, {1, 2, 3}, random.Random(1))
    assert {1, 2, 3}.isdisjoint(drain(ids, 0, 0.0))
    ids.give_back(2, 10.0)
    assert ids.take(0, 10.0 + QUARANTINE_S) == 2


def test_quarantine_and_order() -> None:
    ids = CallIds(64, set(), random.Random(1))
    mine = drain(ids, 5, 0.0)
    assert not ids.available(5, 0.0)
    ids.give_back(mine[3], 1.0)
    ids.give_back(mine[1], 2.0)
    later = 1.0 + QUARANTINE_S
    assert ids.take(5, later - 0.1) is None
    assert not ids.available(5, later - 0.1)
    assert ids.available(5, later)
    assert ids.take(5, later) == mine[3]
    assert ids.take(5, later) is None
    assert ids.take(5, later + 1.0) == mine[1]


def test_a_storm_of_short_calls_does_not_use_up_the_ids() -> None:
    """2,500 calls a second are what one connection brought about, each cleared at once."""
    ids = CallIds(2, set(), random.Random(1))
    for n in range(150_000):
        now = n / 2500
        call_id = ids.take(n % 2, now)
        assert call_id is not None
        ids.give_back(call_id, now)


def test_successors_do_not_repeat_the_order() -> None:
    one, other = (CallIds(1, set(), random.Random(seed)) for seed in (1, 2))
    assert [one.take(0, 0.0) for _ in range(8)] != [other.take(0, 0.0) for _ in range(8)]


@pytest.mark.parametrize("workers", [0, 65])
def test_workers_have_buckets(workers: int) -> None:
    with pytest.raises(ValueError, match="workers, not 1 to 64"):
        CallIds(workers, set(), random.Random(1))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=200))
def test_never_two_at_once_nor_too_soon(steps: list[tuple[bool, float]]) -> None:
    # few enough free for reuse to happen
    ids = CallIds(1, set(range(9, 65536)), random.Random(3))
    now = 0.0
    out: list[int] = []
    freed: dict[int, float] = {}
    for take, span in steps:
        now += span
        if take:
            call_id = ids.take(0, now)
            if call_id is None:
                assert len(out) + sum(now < at + QUARANTINE_S for at in freed.values()) == 8
                continue
            assert call_id not in out
            assert now >= freed.pop(call_id, -1e9) + QUARANTINE_S
            out.append(call_id)
        elif out:
            call_id = out.pop(0)
            freed[call_id] = now
            ids.give_back(call_id, now)
