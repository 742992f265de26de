"""A data thread ahead of all others leaves them time. The clock is a number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.priority import Turns

MS = 1_000_000
WINDOW = 20 * MS
PIECE = 4 * MS  # the window of who can't give it up and take it again
NAP = PIECE // 20
ROUNDS = st.lists(st.tuples(st.integers(1, 5 * MS), st.integers(0, 5 * MS)), min_size=50)


def run(turns: Turns, rounds: Iterable[tuple[int, int]], now: int = 0) -> list[tuple[str, int]]:
    """Rounds of work and of sleep behind it; what became due, and when."""
    said: list[tuple[str, int]] = []
    for work, sleep in rounds:
        if word := turns.turn(now):
            said.append((word, now))
        if word == "nap":
            now += NAP
        now += work + sleep
        turns.sleeps(sleep)
    return said


def test_who_never_sleeps_gives_it_up_after_a_window() -> None:
    turns = Turns(0, used=True, returns=True)
    assert run(turns, [(100_000, 0)] * 1000) == [("give up", WINDOW)]
    assert not turns.ahead


def test_who_sleeps_a_fifth_keeps_it() -> None:
    turns = Turns(0, used=True, returns=True)
    assert run(turns, [(80_000, 20_000)] * 1000) == []
    assert turns.ahead


def test_it_comes_back_when_the_load_is_over() -> None:
    turns = Turns(0, used=True, returns=True)
    run(turns, [(100_000, 0)] * 300)
    assert not turns.ahead
    (found,) = run(turns, [(10_000, 90_000)] * 500, 30 * MS)
    assert found[0] == "take"
    assert found[1] <= 30 * MS + 2 * WINDOW
    assert turns.ahead


def test_who_could_not_come_back_naps_a_twentieth() -> None:
    turns = Turns(0, used=True, returns=False)
    said = run(turns, [(100_000, 0)] * 10_000)  # a second
    assert {word for word, _ in said} == {"nap"}
    assert turns.ahead
    assert len(said) >= 230
    gaps = [b - a for (_, a), (_, b) in pairwise(said)]
    assert max(gaps) < PIECE + NAP + 100_000


def test_who_sleeps_a_twentieth_by_itself_does_not_nap() -> None:
    assert run(Turns(0, used=True, returns=False), [(95_000, 5_000)] * 1000) == []


@pytest.mark.parametrize("returns", [False, True])
def test_without_priority_nothing_is_done(returns: bool) -> None:
    turns = Turns(0, used=False, returns=returns)
    assert run(turns, [(100_000, 0)] * 1000) == []


def test_a_refusal_is_tried_again_a_window_later() -> None:
    turns = Turns(0, used=True, returns=True)
    assert turns.turn(WINDOW, refused=True) == "give up"
    assert turns.ahead
    assert turns.turn(WINDOW + MS) == ""
    assert turns.turn(2 * WINDOW) == "give up"
    assert not turns.ahead


def test_a_long_round_is_judged_as_one_window() -> None:
    turns = Turns(0, used=True, returns=True)
    turns.sleeps(19 * MS)
    assert turns.turn(100 * MS) == "give up"


@given(ROUNDS)
def test_others_get_a_fifth_or_the_scheduler_is_fair(rounds: list[tuple[int, int]]) -> None:
    """A window that was spent ahead of others with less sleep than a fifth is the last such."""
    turns = Turns(0, used=True, returns=True)
    now = begun = slept = 0
    for work, sleep in rounds:
        word = turns.turn(now)
        if now - begun >= WINDOW:
            # Ahead from now on only after a window in which a fifth was left to others.
            assert turns.ahead == (100 * slept // (now - begun) >= 20)
            begun, slept = now, 0
        else:
            assert not word
        now += work + sleep
        slept += sleep
        turns.sleeps(sleep)


@given(ROUNDS)
def test_others_get_a_twentieth_whatever_comes(rounds: list[tuple[int, int]]) -> None:
    """Where the priority could not come back: naps are counted in with what it sleeps."""
    turns = Turns(0, used=True, returns=False)
    now = begun = slept = 0
    for work, sleep in rounds:
        due = now - begun >= PIECE and 100 * slept // (now - begun) < 5
        assert (turns.turn(now) == "nap") == due
        if now - begun >= PIECE:
            begun, slept = now, 0
        now += NAP if due else 0
        now += work + sleep
        slept += sleep
        turns.sleeps(sleep)
    assert turns.ahead
