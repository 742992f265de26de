"""A dispatcher dies: its successor goes on with connections and calls, in whatever state."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.calls import Call, CallState, Control
from dispatcher.pptp.connection import Connection, ConnectionSettings
from dispatcher.pptp.messages import (
    ClearRequest,
    DisconnectNotify,
    EchoReply,
    EchoRequest,
    OutgoingReply,
    OutgoingRequest,
    StopReply,
    StopRequest,
)
from ops import messages as bus
from ops.settings import Limits, Listen
from tests.dispatcher.rig import SETTINGS, Client, Rig, Worker, eventually, rig
from tests.dispatcher.test_exchange import SETTINGS as BOX_SETTINGS
from tests.dispatcher.test_exchange import Box


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box(workers=1)
    made.hello(0)
    yield made
    made.close()


def heir_of(box: Box, *controls: Control, limits: Limits | None = None) -> Box:
    """The exchange of a successor that got these connections from the vault."""
    resumed = {
        control.number: Control(
            control.number,
            control.peer,
            control.peer_port,
            control.local,
            Connection.resumed(ConnectionSettings(), b"", box.now),
        )
        for control in controls
    }
    settings = BOX_SETTINGS if limits is None else replace(BOX_SETTINGS, limits=limits)
    return Box(settings, workers=1, fd=os.dup(box.fd), controls=resumed)


def link(box: Box, call: Call) -> None:
    """The worker's part of the record of a session that is up."""
    box.table.begin_link(*call.handle)
    box.table.set_user(call.index, call.user, 0)
    box.table.set_link(
        call.index,
        address=call.address,
        local=call.local,
        mtu=1396,
        mru=1400,
        mppe_rx_bits=0,
        mppe_tx_bits=0,
        stateful=0,
        framing=0,
        magic=1,
        peer_magic=2,
        echo_interval_s=30,
        echo_failures=4,
    )


def test_a_session_that_is_up_stays(box: Box) -> None:
    control = box.connect()
    call = box.up(control, 5, "ann")
    link(box, call)
    heir = heir_of(box, control)
    (kept,) = heir.exchange.calls.values()
    assert kept.state is CallState.UP
    assert (kept.user, kept.address) == ("ann", call.address)
    assert heir.exchange.addresses.usage() == [("default", 10, 1)]
    (welcome,) = heir.hello(0, call.handle)
    assert isinstance(welcome, bus.Welcome)
    assert welcome.ends == ()
    assert heir.count("sessions_started") == 1  # it was counted when it began
    # the client goes on with the same call
    again = heir.controls[control.number]
    heir.speak(again, ClearRequest(5))
    (notify,) = heir.replies(again)
    assert notify == DisconnectNotify(call.call_id, 4)
    assert heir.take() == [bus.End(*call.handle, "user_request", False)]
    heir.say(0, bus.Ended(*call.handle))
    assert heir.exchange.calls == {}
    assert heir.table.used() == [0]
    heir.close()


def test_limits_know_who_was_there(box: Box) -> None:
    control = box.connect()
    first = box.up(control, 1, "ann")
    link(box, first)
    heir = heir_of(box, control, limits=replace(BOX_SETTINGS.limits, per_user_sessions=1))
    heir.hello(0, first.handle)
    again = heir.controls[control.number]
    second = heir.started(again, 2)
    heir.take()
    heir.say(0, bus.Admit(*second.handle, "ann", 0, ""))
    (answer,) = heir.take()
    assert isinstance(answer, bus.Admitted)
    assert answer.reason == "per_user_limit"
    heir.say(0, bus.Down(*first.handle, "user_request", ""))
    heir.say(0, bus.Ended(*first.handle))
    heir.take()
    heir.say(0, bus.Admit(*second.handle, "ann", 0, ""))
    (answer,) = heir.take()
    assert isinstance(answer, bus.Admitted)
    assert answer.reason == ""
    heir.close()


def test_a_call_that_negotiates_goes_on(box: Box) -> None:
    """Admission was asked of the dead one; the answer may have been lost as well."""
    control = box.connect()
    call = box.started(control, 7)
    box.table.begin_link(*call.handle)
    box.say(0, bus.Admit(*call.handle, "bob", 0, ""))
    heir = heir_of(box, control)
    assert [c.state for c in heir.exchange.calls.values()] == [CallState.STARTING]
    (welcome,) = heir.hello(0, starting=(call.handle,))
    assert isinstance(welcome, bus.Welcome)
    heir.say(0, bus.Installed(*call.handle, True, ""))
    heir.say(0, bus.Admit(*call.handle, "bob", 0, ""))
    (answer,) = heir.take()
    assert isinstance(answer, bus.Admitted)
    assert answer.address == call.address
    assert heir.replies(heir.controls[control.number]) == []  # no second Outgoing-Call-Reply
    heir.say(0, bus.Up(*call.handle))
    assert [c.state for c in heir.exchange.calls.values()] == [CallState.UP]
    heir.close()


@pytest.mark.parametrize("asked", [False, True])
def test_a_call_that_was_not_answered_is(box: Box, asked: bool) -> None:
    """Whether the worker had heard of it or not."""
    control = box.connect()
    call = box.call(control, 9)
    heir = heir_of(box, control)
    welcome, install = heir.hello(0, starting=(call.handle,) if asked else ())
    assert isinstance(welcome, bus.Welcome)
    assert install == bus.Install(*call.handle)
    heir.say(0, bus.Installed(*call.handle, True, ""))
    (reply,) = heir.replies(heir.controls[control.number])
    assert isinstance(reply, OutgoingReply)
    assert (reply.result, reply.peer_call_id, reply.call_id) == (1, 9, call.call_id)
    heir.close()


def test_what_ended_meanwhile_ends_for_its_own_cause(box: Box) -> None:
    control = box.connect()
    calls = [box.up(control, n, f"user{n}") for n in range(3)]
    for call in calls:
        link(box, call)
    heir = heir_of(box, control)
    gone, going, up = calls
    heir.hello(0, up.handle, starting=(going.handle,), ended=(gone.handle,))
    heir.say(0, bus.Down(*going.handle, "idle_timeout", "idle"))
    heir.say(0, bus.Down(*gone.handle, "echo_timeout", "LCP echoes are not answered"))
    heir.say(0, bus.Ended(*gone.handle))
    heir.say(0, bus.Ended(*going.handle))
    assert [c.handle for c in heir.exchange.calls.values()] == [up.handle]
    notified = heir.replies(heir.controls[control.number])
    assert [type(m) for m in notified] == [DisconnectNotify] * 2
    assert heir.count("ended_echo_timeout") == heir.count("ended_idle_timeout") == 1
    heir.close()


def test_what_was_ending_ends(box: Box) -> None:
    control = box.connect()
    call = box.up(control, 3)
    link(box, call)
    box.exchange.end_all(control, "admin_reset", "test", box.now)
    heir = heir_of(box, control)
    assert [c.state for c in heir.exchange.calls.values()] == [CallState.ENDING]
    _, end = heir.hello(0, starting=(call.handle,))
    assert isinstance(end, bus.End)
    heir.say(0, bus.Down(*call.handle, "admin_reset", "asked"))
    heir.say(0, bus.Ended(*call.handle))
    assert heir.count("ended_admin_reset") == 1
    assert heir.table.used() == [0]
    heir.close()


# -- real processes


def up(client: Client, worker: Worker, user: str = "bob", call_id: int = 0) -> tuple[int, int]:
    client.send(OutgoingRequest(call_id))
    handle = worker.install()
    assert client.read(OutgoingReply).result == 1
    admitted = worker.admit(handle, user)
    worker.rig.table.set_user(handle[0], user, 0)
    worker.up(handle, admitted)
    return handle


def again(one: Rig, worker: Worker, *handles: tuple[int, int]) -> Worker:
    """SIGKILL of the dispatcher, a successor, and the worker's Hello to it."""
    one.kill()
    worker.close()
    one.start()
    successor = one.worker()
    assert successor.hello(*handles).ends == ()
    return successor


def test_sigkill_costs_no_session(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client, idle = one.client(), one.client()
    client.start()
    idle.start()
    handle = up(client, worker, "ann", 4)
    one.logged("session up")
    for turn in range(3):
        worker = again(one, worker, handle)
        for one_of in (client, idle):
            one_of.send(EchoRequest(turn))
            assert one_of.read(EchoReply).identifier == turn
    assert one.count("connections_open") == 2
    # others come and go as ever, and numbers of connections are not given twice
    other = one.client()
    other.start()
    second = up(other, worker, "bob", 4)
    assert one.table.session(second[0]).connection > one.table.session(handle[0]).connection
    client.send(ClearRequest(4))
    client.read(DisconnectNotify)
    assert worker.end().cause == "user_request"
    client.send(StopRequest(1))
    client.read(StopReply)
    assert client.at_end()
    one.logged("session down", "user=ann", "cause=user_request")
    idle.send(StopRequest(1))
    idle.read(StopReply)
    assert idle.at_end()
    eventually(lambda: one.count("connections_open") == 1, "one connection is left")


def test_a_client_that_leaves_meanwhile(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    handle = up(client, worker)
    one.logged("session up")
    one.kill()
    client.close()
    worker.close()
    one.start()
    worker = one.worker()
    assert worker.hello(handle).ends == ()
    end = worker.end()
    assert (end.cause, one.count("connections_closed")) == ("lost_carrier", 1)


def test_half_a_message(one: Rig) -> None:
    """What the dead one had read of a message is not lost."""
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    octets = EchoRequest(77).encode() + OutgoingRequest(6).encode()
    client.sock.sendall(octets[:40])
    assert client.read(EchoReply).identifier == 77
    worker = again(one, worker)
    client.sock.sendall(octets[40:])
    worker.install()
    assert client.read(OutgoingReply).peer_call_id == 6


def test_octets_that_were_not_sent(one: Rig) -> None:
    """A client that reads late reads all of it, whole."""
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.start()
    sent = 2200  # more than the kernel holds, less than what is given up
    for number in range(sent):
        client.sock.sendall(EchoRequest(number).encode())
    eventually(lambda: one.count("control_messages_sent") > sent, "all are answered")
    one.client().start()  # the round in which the last one was is over
    again(one, worker)
    for number in range(sent):
        assert client.read(EchoReply).identifier == number, number


def test_a_client_that_reads_nothing_fills_no_vault(one: Rig) -> None:
    """It is served, and not held over a death; what it has not read counts."""
    client, other = one.client(), one.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.start()
    other.start()
    for number in range(5000):
        client.sock.sendall(EchoRequest(number).encode())
    eventually(lambda: one.count("control_messages_sent") > 5000, "all are answered")
    other.send(EchoRequest(1))
    other.read(EchoReply)
    one.kill()
    one.start()
    eventually(lambda: one.count("connections_open") == 1, "the other one is taken over")
    other.send(EchoRequest(2))
    assert other.read(EchoReply).identifier == 2


def test_a_vault_dies_before_the_dispatcher(one: Rig) -> None:
    worker = one.worker()
    worker.hello()
    client = one.client()
    client.start()
    handle = up(client, worker)
    one.logged("session up")
    one.kill_vault()
    late = one.client()  # while there is none
    late.start()
    one.start_vault()
    one.logged("the vault has all control connections", "connections=2")
    again(one, worker, handle)
    for each in (client, late):
        each.send(EchoRequest(1))
        assert each.read(EchoReply).identifier == 1


def test_denied_meanwhile(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        worker = one.worker()
        worker.hello()
        client = one.client()
        client.start()
        handle = up(client, worker)
        one.logged("session up")
        one.settings = replace(SETTINGS, listen=Listen(deny=("127.0.0.0/8",)))
        again(one, worker, handle)
        client.read(DisconnectNotify)
        client.read(StopRequest)


def test_a_thousand_connections(one: Rig) -> None:
    """All that the vault's and the dispatcher's sockets cannot hold at once."""
    clients = [one.client() for _ in range(1000)]
    for client in clients:
        client.start()
    worker = one.worker()
    worker.hello()
    began = time.monotonic()
    again(one, worker)
    print(f"{time.monotonic() - began:.2f} s")
    for client in clients:
        client.send(EchoRequest(5))
    assert all(client.read(EchoReply).identifier == 5 for client in clients)
