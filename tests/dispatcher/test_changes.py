"""Changes on their way to workers: answered when the last one is, or when time is up."""

from __future__ import annotations

from dispatcher.changes import CHANGE_TIMEOUT_S, Changes
from ops.messages import Changed

ONE, TWO = (1, 1), (2, 5)


def test_answered_with_the_last_session() -> None:
    changes = Changes()
    number = changes.begin(b"console-1", 77, {ONE: "a1", TWO: "a2"}, 10.0)
    assert changes.applied(number, ONE, "") is None
    assert changes.applied(number, ONE, "") is None  # said twice
    assert changes.applied(number, TWO, "rate_up: str, not int") == (
        b"console-1",
        Changed(77, 1, ("a2: rate_up: str, not int",)),
    )
    assert changes.timer_at is None


def test_a_silent_worker_is_named() -> None:
    changes = Changes()
    number = changes.begin(b"console-1", 77, {ONE: "a1", TWO: "a2"}, 10.0)
    changes.applied(number, TWO, "")
    assert changes.timer_at == 10.0 + CHANGE_TIMEOUT_S
    assert changes.overdue(12.9) == []
    assert changes.overdue(13.0) == [
        (b"console-1", Changed(77, 1, ("a1: its worker does not answer",)))
    ]
    assert changes.applied(number, ONE, "") is None  # too late
