"""One who floods is thinned out; nobody else is, and nobody while there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastpath.crowd import Crowd

WINDOW = 2_000_000


def run(crowd: Crowd, loads: list[int], windows: int, drained: bool) -> list[float]:
    """Shares that pass in the last window, session by session."""
    passed = [0] * len(loads)
    for number in range(windows):
        crowd.turn((number + 1) * WINDOW, drained)
        passed = [sum(crowd.passes(s) for _ in range(n)) for s, n in enumerate(loads)]
    return [p / n if n else 1.0 for p, n in zip(passed, loads, strict=True)]


def test_one_who_floods_among_many() -> None:
    shares = run(Crowd(21), [1000] + [20] * 20, 6, drained=False)
    assert shares[0] <= 1 / 16 + 0.01
    assert shares[1:] == [1.0] * 20


def test_a_flood_beside_one_ping() -> None:
    shares = run(Crowd(2), [1000, 1], 4, drained=False)
    assert shares[0] < 0.6
    assert shares[1] == 1.0


@given(st.integers(1, 30), st.integers(1, 500))
def test_equals_are_left_alone(sessions: int, load: int) -> None:
    assert run(Crowd(sessions), [load] * sessions, 5, drained=False) == [1.0] * sessions


@given(st.lists(st.integers(0, 500), min_size=1, max_size=10))
def test_nobody_is_thinned_out_while_there_is_room(loads: list[int]) -> None:
    assert run(Crowd(len(loads)), loads, 5, drained=True) == [1.0] * len(loads)


def test_it_ends_soon_after_the_flood() -> None:
    crowd = Crowd(11)
    run(crowd, [1000] + [20] * 10, 8, drained=False)
    assert crowd.level == 4
    for number in range(9, 13):
        crowd.turn(number * WINDOW, drained=True)
    assert crowd.level == 0
    assert crowd.passes(0)


def test_who_comes_anew_is_not_blamed_for_the_past() -> None:
    crowd = Crowd(11)
    run(crowd, [1000] + [20] * 10, 4, drained=False)
    crowd.turn(5 * WINDOW, drained=False)
    assert all(crowd.passes(s) for s in range(1, 11))
    crowd.turn(6 * WINDOW, drained=False)
    # It sent nothing in the window before.
    assert crowd.passes(0)
