"""What `top` shows, from two answers of a console made up here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.cli.top_view import COLUMNS, SORTS, Sample, State, plain, press, rate, rows_of, sample_of
from ops.cli.top_view import screen as screen_of

USERS = {"alice": (1000, 10), "bob": (10, 5000), "carol": (0, 0)}


def sample(at: float, times: int) -> Sample:
    """Everybody moves so many octets a time."""
    worker = {
        "worker": 0,
        "state": "up",
        "sessions": 3,
        "rx-bytes-raw": 1010 * times,
        "tx-bytes-raw": 5010 * times,
        "rx-pkts": times,
        "tx-pkts": times,
        "drops": 0,
        "data-cpu-s": 0.5 * at,
        "control-cpu-s": 0.0,
    }
    status: dict[str, Any] = {
        "version": "9.9",
        "uptime_s": 90_061,
        "ready": True,
        "not_ready": [],
        "cpu_percent": 12.5,
        "slots": {"capacity": 64, "used": 3},
        "sessions": {"starting": 0, "active": 3, "finishing": 0},
        "traffic": {"rx_bytes": 1010 * times, "tx_bytes": 5010 * times},
        "pptp": {"sessions_started": 3},
        "ended": {"user_request": 0},
        "workers": [worker],
    }
    rows = []
    for n, (user, (rx, tx)) in enumerate(USERS.items()):
        said: dict[str, Any] = dict.fromkeys(COLUMNS) | {
            "sid": f"{n:016x}",
            "username": user,
            "ip": f"10.99.1.{n}",
            "csid": "192.0.2.7",
            "worker": 0,
            "state": "active",
            "uptime": "00:01:00",
            "uptime-raw": 60 + n,
            "rx-bytes-raw": rx * times,
            "tx-bytes-raw": tx * times,
            "drops": n * times,
            "loss-raw": 0,
        }
        rows.append([said[name] for name in COLUMNS])
    return sample_of(at, status, {"columns": list(COLUMNS), "rows": rows})


BEFORE, NOW = sample(10.0, 1), sample(12.0, 3)


@pytest.mark.parametrize(
    ("sort", "turned", "order"),
    [
        ("b", False, ["bob", "alice", "carol"]),
        ("r", False, ["alice", "bob", "carol"]),
        ("t", True, ["carol", "alice", "bob"]),
        ("d", False, ["carol", "bob", "alice"]),
        ("u", False, ["carol", "bob", "alice"]),
        ("n", False, ["alice", "bob", "carol"]),
    ],
)
def test_order(sort: str, turned: bool, order: list[str]) -> None:
    rows = rows_of(BEFORE, NOW, State(sort=sort, turned=turned))
    assert [row.said["username"] for row in rows] == order


def test_rates_are_those_of_the_interval() -> None:
    rows = {row.said["username"]: row for row in rows_of(BEFORE, NOW, State())}
    # Two times 1000 octets in two seconds.
    assert (rows["alice"].rx, rows["alice"].tx, rows["carol"].drops) == (8000, 80, 2)
    state = State()
    state.rows = list(rows.values())
    text = "\n".join(plain(BEFORE, NOW, state, 10))
    assert "up 1.01:01:01" in text
    assert "rx 8.1kbit/s from subscribers, tx 40.1kbit/s to them" in text
    assert "50%" in text
    assert [rate(n) for n in (0, 999, 1000, 999_960, 2.5e9)] == ["0", "999", "1.0k", "1.0M", "2.5G"]


def test_search_and_scroll() -> None:
    state = State()
    for key in "/10.99.1.1\r":
        assert press(state, key, 10)
    assert not state.typing
    assert [row.said["username"] for row in rows_of(BEFORE, NOW, state)] == ["bob"]
    press(state, "\x1b", 10)
    assert len(rows_of(BEFORE, NOW, state)) == 3
    press(state, "page down", 10)
    state.rows = rows_of(BEFORE, NOW, state)
    screen_of(BEFORE, NOW, state, 100, 40)
    assert state.offset == 0  # there is nothing to scroll to
    assert not press(state, "q", 10)


keys = st.sampled_from([*SORTS, "R", "/", "x", "\x1b", "\r", "\x7f", "s", "h", "up", "page down"])


@given(st.lists(keys, max_size=12), st.integers(0, 200), st.integers(1, 60))
def test_any_keys_in_any_window(pressed: list[str], width: int, height: int) -> None:
    state = State()
    for key in pressed:
        press(state, key, 10)
        state.rows = rows_of(BEFORE, NOW, state)
        lines = screen_of(BEFORE, NOW, state, width, height)
        assert len(lines) == height
        assert max(len(line.text) for line in lines) <= width
