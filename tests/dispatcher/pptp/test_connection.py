"""The PAC's control connection: PROTOCOL.md 1.1 and traps 4.1 to 4.6, 4.25 to 4.27."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.pptp.connection import (
    CALL_TABLE,
    CONNECTION_TABLE,
    MAX_CALLS,
    Action,
    CallCleared,
    CallEvent,
    CallRequested,
    CallState,
    Closed,
    Connection,
    ConnectionSettings,
    Count,
    Ending,
    Event,
    LinkInfo,
    LocalError,
    Send,
    Started,
    State,
)
from dispatcher.pptp.messages import (
    ClearRequest,
    ControlType,
    DisconnectNotify,
    DisconnectResult,
    EchoReply,
    EchoRequest,
    GeneralError,
    IncomingConnected,
    IncomingReply,
    IncomingRequest,
    Message,
    OutgoingReply,
    OutgoingRequest,
    OutgoingResult,
    SetLinkInfo,
    StartReply,
    StartRequest,
    StopReason,
    StopReply,
    StopRequest,
    WanErrorNotify,
    decode,
    text_field,
)
from tests.dispatcher.pptp.test_messages import any_message

SETTINGS = ConnectionSettings()
SAMPLES: dict[ControlType, Message] = {
    m.TYPE: m
    for m in (
        StartRequest(),
        StartReply(),
        StopRequest(),
        StopReply(),
        EchoRequest(1),
        EchoReply(1),
        OutgoingRequest(50),
        OutgoingReply(1, 2),
        IncomingRequest(3),
        IncomingReply(1, 2),
        IncomingConnected(1),
        ClearRequest(0),
        DisconnectNotify(0),
        WanErrorNotify(1),
        SetLinkInfo(1),
    )
}


def sent(actions: list[Action]) -> list[Message]:
    """The messages; each is a send of its own (trap 4.27)."""
    return [decode(action.data) for action in actions if isinstance(action, Send)]


def others(actions: list[Action]) -> list[Action]:
    return [action for action in actions if not isinstance(action, Send)]


def feed(connection: Connection, *messages: Message, now: float = 0.0) -> list[Action]:
    return connection.receive(b"".join(m.encode() for m in messages), now)


def started(now: float = 0.0) -> Connection:
    connection = Connection(SETTINGS, now)
    feed(connection, StartRequest(), now=now)
    assert connection.state is State.ESTABLISHED
    return connection


def requested(connection: Connection, peer_id: int, call_id: int, now: float = 0.0) -> int:
    (action,) = feed(connection, OutgoingRequest(peer_id), now=now)
    assert isinstance(action, CallRequested)
    connection.assign_call(action.number, call_id)
    return action.number


def called(connection: Connection, peer_id: int = 0, call_id: int = 0x1234) -> int:
    number = requested(connection, peer_id, call_id)
    (reply,) = sent(connection.accept_call(number, 0.0))
    assert reply == OutgoingReply(call_id, peer_id, speed=100_000_000, window=64)
    return number


# -- 4.1 start


def test_windows_start() -> None:
    connection = Connection(SETTINGS, 0.0)
    vendor = text_field("Microsoft Windows NT")
    request = StartRequest(framing=1, bearer=1, firmware=2600, vendor=vendor)
    actions = feed(connection, request)
    (reply,) = sent(actions)
    assert isinstance(reply, StartReply)
    assert (reply.version, reply.result, reply.error) == (0x0100, 1, 0)
    assert (reply.framing, reply.bearer) == (3, 3)
    assert len(reply.encode()) == 156
    assert others(actions) == [Started(bytes(64), vendor)]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 65535),
    st.binary(max_size=64),
)
def test_framing_and_bearer_never_matter(framing: int, bearer: int, n: int, name: bytes) -> None:
    connection = Connection(SETTINGS, 0.0)
    field = name.ljust(64, b"\0")
    (reply,) = sent(feed(connection, StartRequest(0x0100, framing, bearer, n, n, field, field)))
    assert isinstance(reply, StartReply)
    assert reply.result == 1


def test_second_start_is_answered_and_the_connection_lives() -> None:
    connection = started()
    number = called(connection)
    (reply,) = sent(feed(connection, StartRequest()))
    assert isinstance(reply, StartReply)
    assert reply.result == 3
    assert connection.state is State.ESTABLISHED
    assert number in connection.calls


def test_other_version_is_answered_and_may_try_again() -> None:
    connection = Connection(SETTINGS, 0.0)
    (reply,) = sent(feed(connection, StartRequest(version=0x0200)))
    assert isinstance(reply, StartReply)
    assert (reply.result, reply.version) == (5, 0x0100)
    assert connection.state is State.IDLE
    assert connection.timer_at == SETTINGS.start_timeout
    (reply,) = sent(feed(connection, StartRequest()))
    assert isinstance(reply, StartReply)
    assert reply.result == 1


def test_start_and_call_in_one_segment_and_octet_by_octet() -> None:
    wire = StartRequest().encode() + OutgoingRequest(0).encode()
    whole = Connection(SETTINGS, 0.0)
    pieces = Connection(SETTINGS, 0.0)
    at_once = whole.receive(wire, 0.0)
    one_by_one = [a for octet in wire for a in pieces.receive(bytes([octet]), 0.0)]
    assert at_once == one_by_one
    assert [type(a) for a in at_once] == [Send, Started, CallRequested]


# -- 4.2, 4.3 calls


def test_peer_call_id_zero_is_an_id() -> None:
    connection = started()
    number = called(connection, peer_id=0, call_id=77)
    (notify, cleared) = feed(connection, ClearRequest(0))
    assert isinstance(notify, Send)
    assert decode(notify.data) == DisconnectNotify(77, DisconnectResult.REQUEST)
    assert cleared == CallCleared(number)


def test_several_calls_and_a_repeated_id() -> None:
    connection = started()
    numbers = [called(connection, peer, 100 + peer) for peer in range(5)]
    actions = feed(connection, OutgoingRequest(3))
    (reply,) = sent(actions)
    assert isinstance(reply, OutgoingReply)
    assert (reply.peer_call_id, reply.result, reply.error) == (3, 2, GeneralError.BAD_CALL_ID)
    assert len(connection.calls) == 5
    for peer in (4, 0, 2):
        (notify,) = sent(feed(connection, ClearRequest(peer)))
        assert isinstance(notify, DisconnectNotify)
        assert notify.call_id == 100 + peer
    assert sorted(connection.calls) == [numbers[1], numbers[3]]


def test_clear_with_our_id_counts_when_one_call_is_there() -> None:
    connection = started()
    called(connection, 5, 600)
    assert len(sent(feed(connection, ClearRequest(600)))) == 1
    called(connection, 5, 600)
    called(connection, 6, 700)
    actions = feed(connection, ClearRequest(600))
    assert sent(actions) == []
    assert [type(a) for a in actions] == [Count]
    assert len(connection.calls) == 2


def test_the_reply_waits_for_the_owner() -> None:
    connection = started()
    number = requested(connection, 9, 50)
    assert feed(connection, EchoRequest(4)) == [Send(EchoReply(4).encode())]
    (reply,) = sent(connection.accept_call(number, 1.0))
    assert isinstance(reply, OutgoingReply)
    assert (reply.call_id, reply.peer_call_id, reply.result) == (50, 9, 1)


def test_refused_call_leaves_the_connection() -> None:
    connection = started()
    number = requested(connection, 9, 50)
    actions = connection.refuse_call(number, OutgoingResult.BUSY, GeneralError.NONE, 5.0)
    assert sent(actions) == [OutgoingReply(0, 9, 4, 0)]
    assert connection.state is State.ESTABLISHED
    assert connection.timer_at == 60.0  # echo; the call time-out begins anew, at 65
    called(connection, 9, 51)


def test_clear_before_the_reply() -> None:
    connection = started()
    number = requested(connection, 9, 50)
    actions = feed(connection, ClearRequest(9))
    assert sent(actions) == [DisconnectNotify(50, 4)]
    assert others(actions) == [CallCleared(number)]
    # the worker's answer comes too late, and says nothing
    assert connection.accept_call(number, 1.0) == []


def test_call_before_start() -> None:
    connection = Connection(SETTINGS, 0.0)
    (reply,) = sent(feed(connection, OutgoingRequest(3)))
    assert reply == OutgoingReply(0, 3, 2, GeneralError.NOT_CONNECTED)
    assert connection.state is State.IDLE


def test_a_client_that_only_asks_is_bounded() -> None:
    connection = started()
    for peer in range(MAX_CALLS):
        requested(connection, peer, peer + 1)
    (reply,) = sent(feed(connection, OutgoingRequest(60000)))
    assert isinstance(reply, OutgoingReply)
    assert reply.error == GeneralError.NO_RESOURCE


def test_incoming_call_is_not_accepted() -> None:
    connection = started()
    actions = feed(connection, IncomingRequest(8))
    assert sent(actions) == [IncomingReply(0, 8, 3)]
    assert others(actions) == [Count(Event.INCOMING_CALL, "Incoming-Call-Request")]


# -- 4.4 Set-Link-Info, WAN-Error-Notify


def test_link_info() -> None:
    connection = started()
    number = called(connection, 0, 77)
    assert feed(connection, SetLinkInfo(77)) == [LinkInfo(number, 0xFFFFFFFF, 0xFFFFFFFF)]
    for wrong in (0, 1, 0xFFFF):
        (count,) = feed(connection, SetLinkInfo(wrong, 0, 0))
        assert isinstance(count, Count)
        assert count.event is Event.LINK_INFO_UNMATCHED
    assert number in connection.calls


def test_wan_errors_are_counted() -> None:
    connection = started()
    called(connection)
    assert feed(connection, WanErrorNotify(1, 2, 3)) == [Count(Event.WAN_ERRORS)]


# -- 4.5 Call-Disconnect-Notify of the client, FIN


@pytest.mark.parametrize("result", range(5))
@pytest.mark.parametrize("call_id", [5, 77])
def test_disconnect_notify_of_windows(result: int, call_id: int) -> None:
    connection = started()
    number = called(connection, 5, 77)
    assert feed(connection, DisconnectNotify(call_id, result)) == [CallCleared(number)]
    assert connection.state is State.ESTABLISHED


def test_fin_ends_all_calls() -> None:
    connection = started()
    numbers = tuple(called(connection, peer, 10 + peer) for peer in range(3))
    (closed,) = connection.eof()
    assert isinstance(closed, Closed)
    assert (closed.ending, closed.calls) == (Ending.CLOSED_BY_PEER, numbers)
    assert connection.eof() == []
    assert connection.receive(EchoRequest(1).encode(), 0.0) == []


def test_stop_request_is_answered_then_closed() -> None:
    connection = started()
    number = called(connection)
    (reply, closed) = feed(connection, StopRequest(1))
    assert reply == Send(StopReply(1, 0).encode())
    assert isinstance(closed, Closed)
    assert (closed.ending, closed.calls) == (Ending.STOPPED_BY_PEER, (number,))


def test_nothing_is_read_after_stop() -> None:
    actions = feed(started(), StopRequest(1), OutgoingRequest(1))
    assert [type(a) for a in actions] == [Send, Closed]


# -- 4.25 timers: control messages only


def test_start_timeout_runs_from_accept_whatever_dribbles_in() -> None:
    connection = Connection(SETTINGS, 100.0)
    for n, octet in enumerate(StartRequest().encode()[:90]):
        assert connection.receive(bytes([octet]), 100.0 + n / 10) == []
    assert connection.timer_at == 110.0
    assert connection.handle_timer(109.9) == []
    (closed,) = connection.handle_timer(110.0)
    assert isinstance(closed, Closed)
    assert closed.ending is Ending.START_TIMEOUT


def test_call_timeout() -> None:
    connection = started()
    assert connection.timer_at == 60.0
    feed(connection, EchoRequest(1), now=50.0)
    assert connection.timer_at == 60.0  # life, but no call
    (stop, closed) = connection.handle_timer(60.0)
    assert stop == Send(StopRequest(StopReason.NONE).encode())
    assert isinstance(closed, Closed)
    assert closed.ending is Ending.CALL_TIMEOUT


def test_echo_after_silence_then_close() -> None:
    connection = started()
    number = called(connection)
    assert connection.timer_at == 60.0
    (request,) = sent(connection.handle_timer(60.0))
    assert isinstance(request, EchoRequest)
    assert connection.timer_at == 120.0
    # octets of half a message are no life
    assert connection.receive(EchoReply(1).encode()[:19], 119.0) == []
    assert connection.handle_timer(119.9) == []
    (closed,) = connection.handle_timer(120.0)
    assert isinstance(closed, Closed)
    assert (closed.ending, closed.calls) == (Ending.ECHO_TIMEOUT, (number,))


@pytest.mark.parametrize(
    "message", [EchoReply(1), EchoReply(99), EchoRequest(5), SetLinkInfo(9), WanErrorNotify(1)]
)
def test_any_message_is_life(message: Message) -> None:
    connection = started()
    called(connection)
    connection.handle_timer(60.0)
    feed(connection, message, now=119.0)
    assert connection.timer_at == 179.0


def test_echo_is_answered_with_its_identifier() -> None:
    assert sent(feed(started(), EchoRequest(0xDEADBEEF))) == [EchoReply(0xDEADBEEF, 1, 0)]


# -- 4.26 our own endings


def test_our_clear_uses_our_id_and_lingers_a_little() -> None:
    connection = started()
    number = called(connection, 0, 77)
    actions = connection.clear_call(
        number, DisconnectResult.ADMIN_SHUTDOWN, GeneralError.NONE, 10.0
    )
    assert sent(actions) == [DisconnectNotify(77, 3)]
    assert connection.clear_call(number, DisconnectResult.REQUEST, GeneralError.NONE, 10.0) == []
    assert connection.timer_at == 10.0 + SETTINGS.linger
    # the client asks for another call instead of closing
    number = called(connection, 0, 78)
    assert connection.timer_at == 60.0
    connection.clear_call(number, DisconnectResult.REQUEST, GeneralError.NONE, 20.0)
    # nor does it close: Stop, and a moment for its answer
    assert sent(connection.handle_timer(20.0 + SETTINGS.linger)) == [StopRequest(3)]
    (closed,) = connection.handle_timer(30.0)
    assert isinstance(closed, Closed)
    assert closed.ending is Ending.STOPPED_BY_US


def test_clear_of_a_call_that_was_not_answered_refuses_it() -> None:
    connection = started()
    number = requested(connection, 4, 77)
    actions = connection.clear_call(number, DisconnectResult.REQUEST, GeneralError.NONE, 0.0)
    assert sent(actions) == [OutgoingReply(0, 4, 2, GeneralError.PAC_ERROR)]


def test_stop_waits_for_its_reply_a_moment() -> None:
    connection = started()
    assert sent(connection.stop(5.0)) == [StopRequest(StopReason.LOCAL_SHUTDOWN)]
    assert connection.stop(5.0) == []
    assert connection.timer_at == 5.0 + SETTINGS.stop_timeout
    assert feed(connection, OutgoingRequest(1), now=5.1) == []
    (closed,) = feed(connection, StopReply(), now=5.2)
    assert isinstance(closed, Closed)
    assert closed.ending is Ending.STOPPED_BY_US
    silent = started()
    silent.stop(5.0)
    (closed,) = silent.handle_timer(6.0)
    assert isinstance(closed, Closed)


def test_owner_errors_are_local() -> None:
    connection = started()
    (action,) = feed(connection, OutgoingRequest(1))
    assert isinstance(action, CallRequested)
    with pytest.raises(LocalError):
        connection.accept_call(action.number, 0.0)
    connection.assign_call(action.number, 5)
    connection.accept_call(action.number, 0.0)
    with pytest.raises(LocalError):
        connection.refuse_call(action.number, OutgoingResult.BUSY, GeneralError.NONE, 0.0)


# -- every state and event


def in_state(state: State) -> Connection:
    connection = Connection(SETTINGS, 0.0)
    if state is State.IDLE:
        return connection
    feed(connection, StartRequest())
    called(connection, 0, 77)
    if state is State.WAIT_STOP_REPLY:
        connection.stop(0.0)
    if state is State.CLOSED:
        connection.eof()
    assert connection.state is state
    return connection


@pytest.mark.parametrize(("state", "kind"), list(product(State, ControlType)))
def test_sweep_of_states_and_messages(state: State, kind: ControlType) -> None:
    connection = in_state(state)
    calls = set(connection.calls)
    actions = feed(connection, SAMPLES[kind])
    closed = [a for a in actions if isinstance(a, Closed)]
    if state is State.CLOSED:
        assert actions == []
    elif (state, kind) in CONNECTION_TABLE:
        assert not closed or closed[0].ending in (Ending.STOPPED_BY_PEER, Ending.STOPPED_BY_US)
        ends = {ControlType.CLEAR_REQUEST, ControlType.DISCONNECT_NOTIFY}
        if not closed and kind not in ends:
            assert calls <= set(connection.calls)
    else:
        assert closed[0].ending is Ending.PROTOCOL_ERROR
        assert set(closed[0].calls) == calls
    for message in sent(actions):
        assert message.TYPE is not ControlType.START_REQUEST
    assert (connection.timer_at is None) == (connection.state is State.CLOSED)


def test_tables_name_methods_that_exist() -> None:
    assert all(hasattr(Connection, name) for name in CONNECTION_TABLE.values())
    # What an established connection does not take is what only a PAC may send.
    missing = {k for k in ControlType if (State.ESTABLISHED, k) not in CONNECTION_TABLE}
    assert missing == {ControlType.START_REPLY}
    assert set(CALL_TABLE) == {
        (s, e)
        for s, e in product(CallState, CallEvent)
        if s is CallState.REQUESTED or e not in (CallEvent.ACCEPT, CallEvent.REFUSE)
    }


step = st.one_of(
    st.tuples(st.just("bytes"), st.binary(max_size=200)),
    st.tuples(st.just("message"), any_message),
    st.tuples(st.just("timer"), st.floats(0, 200)),
    st.tuples(st.sampled_from(["accept", "refuse", "clear"]), st.integers(1, 6)),
    st.tuples(st.just("stop"), st.none()),
)


@settings(max_examples=200)
@given(st.lists(step, max_size=30), st.booleans())
def test_any_history_keeps_its_word(steps: list[tuple[str, object]], begin: bool) -> None:
    """Whatever comes: no exception, closed once, and each request gets one answer."""
    connection = started() if begin else Connection(SETTINGS, 0.0)
    now = 0.0
    answered: list[int] = []
    asked: list[int] = []
    closed = 0
    for what, value in steps:
        match what, value:
            case "bytes", bytes(data):
                actions = connection.receive(data, now)
            case "message", _:
                actions = connection.receive(value.encode(), now)  # type: ignore[attr-defined]
            case "timer", float(span):
                now += span
                actions = connection.handle_timer(now)
            case "stop", _:
                actions = connection.stop(now)
            case _, int(number):
                call = connection.calls.get(number)
                if call is not None and what != "clear" and call.state is CallState.ESTABLISHED:
                    continue
                if what == "accept":
                    actions = connection.accept_call(number, now)
                elif what == "refuse":
                    actions = connection.refuse_call(
                        number, OutgoingResult.BUSY, GeneralError.NONE, now
                    )
                else:
                    actions = connection.clear_call(
                        number, DisconnectResult.REQUEST, GeneralError.NONE, now
                    )
            case _:
                raise AssertionError(what)
        for action in actions:
            assert not closed, "an action after Closed"
            if isinstance(action, CallRequested):
                asked.append(action.number)
                connection.assign_call(action.number, 1000 + action.number)
            if isinstance(action, Closed):
                closed += 1
                answered += action.calls
            if isinstance(action, CallCleared):
                answered.append(action.number)
        assert (connection.timer_at is None) == bool(closed)
    assert closed <= 1
    assert len(asked) == len(set(asked))
    assert len(set(answered)) == len(answered)
