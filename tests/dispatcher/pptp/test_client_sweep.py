"""The client's control connection in every state under every message, and any history."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.pptp.client import (
    TABLE,
    CallEnded,
    CallRefused,
    CallUp,
    Client,
    ClientSettings,
    Closed,
    Send,
    State,
)
from dispatcher.pptp.messages import ControlType, OutgoingReply, StartReply, decode
from tests.dispatcher.pptp.test_connection import SAMPLES
from tests.dispatcher.pptp.test_messages import any_message


def in_state(state: State) -> Client:
    """With one call up and one asked for, where calls can be."""
    client = Client(ClientSettings(), now=0.0)
    if state is State.IDLE:
        return client
    client.start(0.0)
    if state is State.WAIT_REPLY:
        return client
    client.receive(StartReply().encode(), 0.0)
    client.request_call(5, 0.0)
    client.receive(OutgoingReply(77, 5).encode(), 0.0)
    client.request_call(6, 0.0)
    if state is State.WAIT_STOP:
        client.stop(0.0)
    if state is State.CLOSED:
        client.receive(b"x" * 12, 0.0)
    assert client.state is state
    return client


@pytest.mark.parametrize(("state", "kind"), list(product(State, ControlType)))
def test_sweep_of_states_and_messages(state: State, kind: ControlType) -> None:
    client = in_state(state)
    actions = client.receive(SAMPLES[kind].encode(), 1.0)
    closed = [a for a in actions if isinstance(a, Closed)]
    if state is State.CLOSED:
        assert actions == []
    elif (state, kind) not in TABLE:
        assert closed and "protocol error" in closed[0].reason
    assert (client.state is State.CLOSED) == (bool(closed) or state is State.CLOSED)
    for action in actions:
        if isinstance(action, Send):
            decode(action.data)
    assert closed == [] or actions[-1] == closed[0], "nothing after Closed"


step = st.one_of(
    st.binary(max_size=40),
    any_message.map(lambda message: message.encode()),
    st.builds(lambda peer: OutgoingReply(9, peer).encode(), st.integers(0, 6)),
    st.floats(0, 100),
    st.tuples(st.sampled_from(["call", "clear"]), st.integers(0, 6)),
    st.just(("stop", 0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(step, max_size=30))
def test_any_history_ends_and_tells_each_calls_fate_once(
    steps: list[bytes | float | tuple[str, int]],
) -> None:
    client = Client(ClientSettings(), now=0.0)
    now, actions = 0.0, client.start(0.0)
    actions += client.receive(StartReply().encode(), 0.0)
    calls: dict[int, str] = {}
    for what in steps:
        alive = client.state is not State.CLOSED
        match what:
            case bytes():
                actions = client.receive(what, now)
            case float():
                now += what
                actions = client.handle_timer(now)
            case ("call", int(number)):
                actions = []
                if client.state is State.ESTABLISHED and number not in calls:
                    calls[number] = "asked"
                    actions = client.request_call(number, now)
            case ("clear", int(number)):
                actions = client.clear(number, now)
            case _:
                actions = client.stop(now)
        assert alive or actions == []
        account(calls, actions)
    for _ in range(50):  # the server is silent from here on, but for its sign of life
        if client.timer_at is None:
            break
        now = max(now, client.timer_at)
        account(calls, client.handle_timer(now))
    assert client.state is State.CLOSED
    assert not calls, "every call's end was told"


def account(calls: dict[int, str], actions: Sequence[object]) -> None:
    """What is told of calls is about calls that are there, and in order."""
    for action in actions:
        match action:
            case CallUp(number, _, _, _):
                assert calls[number] == "asked"
                calls[number] = "up"
            case CallRefused(number, _, _):
                assert calls.pop(number) == "asked"
            case CallEnded(number, _, _):
                calls.pop(number)
            case _:
                pass
