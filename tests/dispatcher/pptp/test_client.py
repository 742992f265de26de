"""The client's state, alone and against the server's: two ends and a wire of values."""

from __future__ import annotations

from dispatcher.pptp import client as c
from dispatcher.pptp import connection as s
from dispatcher.pptp.client import Client, ClientSettings
from dispatcher.pptp.connection import Connection, ConnectionSettings
from dispatcher.pptp.messages import (
    DisconnectNotify,
    DisconnectResult,
    EchoReply,
    EchoRequest,
    GeneralError,
    OutgoingReply,
    OutgoingRequest,
    OutgoingResult,
    StartReply,
    StopReply,
    StopRequest,
    decode,
)


class Wire:
    """A client and a server; the server accepts calls with IDs from 100."""

    def __init__(self) -> None:
        self.client = Client(ClientSettings(), now=0.0)
        self.server = Connection(ConnectionSettings(), now=0.0)
        self.heard: list[c.Action] = []
        self.seen: list[s.Action] = []
        self.refuse = False

    def carry(self, actions: list[c.Action], now: float = 0.0) -> None:
        for action in actions:
            if isinstance(action, c.Send):
                self.serve(self.server.receive(action.data, now), now)
            else:
                self.heard.append(action)

    def serve(self, actions: list[s.Action], now: float = 0.0) -> None:
        for action in actions:
            match action:
                case s.Send(data):
                    self.carry(self.client.receive(data, now), now)
                case s.CallRequested(number):
                    self.server.assign_call(number, 99 + number)
                    if self.refuse:
                        result = OutgoingResult.BUSY
                        answer = self.server.refuse_call(number, result, GeneralError.NONE, now)
                    else:
                        answer = self.server.accept_call(number, now)
                    self.serve(answer, now)
                case _:
                    self.seen.append(action)


def test_from_start_to_stop() -> None:
    wire = Wire()
    wire.carry(wire.client.start(0.0))
    assert wire.heard == [c.Started("pptpcon", "pptpcon")]
    wire.carry(wire.client.request_call(0, 0.0))
    wire.carry(wire.client.request_call(7, 0.0))
    assert wire.heard[1:] == [c.CallUp(0, 100, 64, 100_000_000), c.CallUp(7, 101, 64, 100_000_000)]
    wire.carry(wire.client.set_link_info(7))
    assert wire.seen[-1] == s.LinkInfo(2, 0xFFFFFFFF, 0xFFFFFFFF)
    wire.carry(wire.client.clear(0, 0.0))
    assert wire.heard[-1] == c.CallEnded(0, DisconnectResult.REQUEST, 0)
    wire.carry(wire.client.stop(0.0))
    assert wire.heard[-2:] == [c.CallEnded(7, 0, 0), c.Closed("stopped")]
    assert wire.client.timer_at is None


def test_calls_asked_for_early_wait_for_the_start_reply() -> None:
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    assert client.request_call(5, 0.0) == []
    (up, request) = client.receive(StartReply().encode(), 0.0)
    assert isinstance(up, c.Started)
    assert isinstance(request, c.Send)
    message = decode(request.data)
    assert isinstance(message, OutgoingRequest)
    assert message.call_id == 5


def test_refused() -> None:
    wire = Wire()
    wire.refuse = True
    wire.carry(wire.client.start(0.0))
    wire.carry(wire.client.request_call(3, 0.0))
    assert wire.heard[-1] == c.CallRefused(3, OutgoingResult.BUSY, 0)
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    (closed,) = client.receive(StartReply(result=4).encode(), 0.0)
    assert closed == c.Closed("the server refused: start result 4, error 0")


def test_server_ends_a_call() -> None:
    wire = Wire()
    wire.carry(wire.client.start(0.0))
    wire.carry(wire.client.request_call(3, 0.0))
    wire.carry(wire.client.request_call(4, 0.0))
    wire.serve(wire.server.clear_call(2, DisconnectResult.ADMIN_SHUTDOWN, GeneralError.NONE, 0.0))
    assert wire.heard[-1] == c.CallEnded(4, 3, 0)
    wire.serve(wire.server.stop(0.0))
    assert isinstance(wire.heard[-1], c.Closed)
    assert c.CallEnded(3, 0, 0) in wire.heard


def test_servers_that_name_the_clients_call() -> None:
    """accept both: our ID in Call-Disconnect-Notify is against the RFC, but seen."""
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    client.receive(StartReply().encode(), 0.0)
    client.request_call(3, 0.0)
    client.request_call(4, 0.0)
    client.receive(OutgoingReply(50, 3).encode(), 0.0)
    client.receive(OutgoingReply(51, 4).encode(), 0.0)
    assert client.receive(DisconnectNotify(3, 1).encode(), 0.0) == [c.CallEnded(3, 1, 0)]
    assert client.receive(DisconnectNotify(51, 0).encode(), 0.0) == [c.CallEnded(4, 4, 0)]


def test_timers() -> None:
    client = Client(ClientSettings(), now=0.0)
    assert client.timer_at is None
    client.start(0.0)
    assert client.timer_at == 10.0
    assert isinstance(client.handle_timer(10.0)[0], c.Closed)

    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    client.receive(StartReply().encode(), 1.0)
    client.request_call(1, 1.0)
    assert client.receive(EchoRequest(9).encode(), 55.0) == [c.Send(EchoReply(9).encode())]
    assert client.handle_timer(61.0) == [c.CallRefused(1, OutgoingResult.TIME_OUT, 0)]
    (echo,) = client.handle_timer(115.0)
    assert isinstance(echo, c.Send)
    assert isinstance(decode(echo.data), EchoRequest)
    assert client.timer_at == 175.0
    client.receive(EchoReply(1).encode(), 170.0)
    assert client.timer_at == 230.0
    client.handle_timer(230.0)
    assert client.handle_timer(290.0) == [c.Closed("Echo-Request unanswered")]


def test_clear_and_stop_do_not_wait_for_ever() -> None:
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    client.receive(StartReply().encode(), 0.0)
    client.request_call(1, 0.0)
    client.receive(OutgoingReply(9, 1).encode(), 0.0)
    client.clear(1, 5.0)
    assert client.clear(1, 5.0) == []
    assert client.handle_timer(8.0) == [c.CallEnded(1, 0, 0)]
    assert client.stop(9.0) == [c.Send(StopRequest(3).encode())]
    assert client.handle_timer(12.0)[-1] == c.Closed("no answer to Stop-Control-Connection-Request")
    assert client.receive(StopReply().encode(), 13.0) == []


def test_garbage_closes() -> None:
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    actions = client.receive(b"HTTP/1.1 400 Bad Request\r\n", 0.0)
    assert isinstance(actions[-1], c.Closed)
    assert "protocol error" in actions[-1].reason
    client = Client(ClientSettings(), now=0.0)
    client.start(0.0)
    assert isinstance(client.receive(OutgoingReply(1, 1).encode(), 0.0)[-1], c.Closed)


def test_every_row_names_a_method() -> None:
    assert all(hasattr(Client, name) for name in c.TABLE.values())
