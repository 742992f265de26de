"""Every size there is: header lengths 0 to 65535 of each type, streams of any size and cut."""

from __future__ import annotations

import random

import pytest

from dispatcher.pptp.connection import Closed, Connection, ConnectionSettings, Ending, State
from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    HEADER,
    LENGTHS,
    MAX_LENGTH,
    RemoteError,
    StartRequest,
    check_header,
)

SETTINGS = ConnectionSettings()


@pytest.mark.parametrize("kind", range(17))
def test_every_length_of_a_header(kind: int) -> None:
    """Trap 4.30: one length a type is right, 65535 are not; none makes anybody wait."""
    good = []
    for length in range(65536):
        try:
            check_header(HEADER.pack(length, 1, 0x1A2B3C4D, kind, 0))
        except RemoteError:
            continue
        good.append(length)
    assert good == ([LENGTHS[kind]] if kind in LENGTHS else [])


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 155, 156, 157, 1460, 4096, 65535])
@pytest.mark.parametrize("fill", ["zeros", "ones", "random", "starts", "magic"])
def test_a_stream_of_any_size(size: int, fill: str) -> None:
    """Then silence: the connection is closed, at once or when its time is up."""
    start = StartRequest().encode()
    data = {
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "random": random.Random(size).randbytes(size),
        "starts": (start * (size // len(start) + 1))[:size],
        "magic": (HEADER.pack(0xFFFF, 1, 0x1A2B3C4D, 1, 0) * (size // 12 + 1))[:size],
    }[fill]
    connection = Connection(SETTINGS, 0.0)
    actions = connection.receive(data, 0.0)
    for _ in range(10):
        if connection.timer_at is None:
            break
        actions += connection.handle_timer(connection.timer_at)
    assert connection.state is State.CLOSED
    (closed,) = [a for a in actions if isinstance(a, Closed)]
    if size >= 12 and fill != "starts":
        assert closed.ending is Ending.PROTOCOL_ERROR
    else:
        assert closed.ending in (Ending.START_TIMEOUT, Ending.CALL_TIMEOUT)


def test_never_more_than_a_message_is_kept() -> None:
    framer = Framer()
    wire = StartRequest().encode()
    for size in range(1, 2 * MAX_LENGTH):
        framer.feed((wire * 3)[:size])
        assert framer.partial < MAX_LENGTH
