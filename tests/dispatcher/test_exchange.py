"""Calls, workers and records together, in simulated time, on a real table.

Worker and client are the other ends of what Exchange sends: values in lists.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.answers import DISCONNECTED, REFUSED
from dispatcher.callids import QUARANTINE_S
from dispatcher.calls import Call, CallState, Control
from dispatcher.counters import Counters, QuietLog
from dispatcher.exchange import Exchange
from dispatcher.placement import Placement
from dispatcher.pptp.connection import (
    Action,
    CallCleared,
    CallRequested,
    Closed,
    Connection,
    ConnectionSettings,
    Send,
)
from dispatcher.pptp.messages import (
    ClearRequest,
    DisconnectNotify,
    Message,
    OutgoingReply,
    OutgoingRequest,
    StartRequest,
    decode,
)
from fastpath.layout import FREE, Table
from ops import messages as bus
from ops.log import Log
from ops.metrics import DISPATCHER_COUNTERS
from ops.settings import Ip, Limits, Pool, Settings
from ops.trace import Teller

SETTINGS = Settings(
    ip=Ip(local="10.0.0.1"),
    pools=(Pool("default", ("10.0.1.0-9",)),),
    limits=Limits(max_sessions=12),
)


class Lines(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__("dispatcher", level=7)
        self.lines: list[str] = []

    def write(
        self, level: int, event: str, fields: dict[str, str | int | float | bool | bytes | None]
    ) -> None:
        self.lines.append(f"{event} " + " ".join(f"{k}={v!r}" for k, v in fields.items()))


class Box:
    """An exchange with its workers and clients as values."""

    def __init__(
        self,
        config: Settings = SETTINGS,
        workers: int = 2,
        fd: int = -1,
        controls: dict[int, Control] | None = None,
    ) -> None:
        self.fd = fd if fd >= 0 else os.memfd_create("table")
        if fd < 0:
            Table.create(self.fd, config.limits.max_sessions, workers, 7)
        self.table = Table.attach(self.fd)
        self.log = Lines()
        self.now = 1000.0
        self.sent: dict[bytes, list[bus.Message]] = {}
        self.stuck: dict[bytes, int] = {}
        self.heard: dict[int, list[Message]] = {}
        self.controls: dict[int, Control] = {}
        self.exchange = Exchange(
            table=self.table,
            settings=config,
            log=self.log,
            counters=Counters(self.table),
            bus=self,
            carry=self.carry,
            entropy=random.Random(1),
            now=self.now,
            teller=Teller("/nonexistent"),
            controls=controls,
        )
        self.controls = dict(controls or {})
        self.heard = {number: [] for number in self.controls}

    # the bus
    def send(self, peer: bytes, message: bus.Message) -> None:
        self.sent.setdefault(peer, []).append(message)

    def backlog(self, peer: bytes) -> int:
        return self.stuck.get(peer, 0)

    def forget(self, peer: bytes) -> None:
        self.sent.pop(peer, None)

    # control connections
    def carry(self, control: Control, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self.heard[control.number].append(decode(data))
                case CallRequested(number, request):
                    self.exchange.call_requested(control, number, request, now)
                case CallCleared(number):
                    self.exchange.call_cleared(control, number, now)
                case Closed(ending, text, _):
                    del self.controls[control.number]
                    self.exchange.control_closed(control, ending, text, now)
                case _:
                    pass

    def connect(self, peer: int = 0x7F000001) -> Control:
        number = len(self.heard) + 1
        control = Control(
            number, peer, 4000, 0x7F000001, Connection(ConnectionSettings(), self.now)
        )
        self.heard[number] = []
        self.controls[number] = control
        self.speak(control, StartRequest())
        self.heard[number].clear()
        return control

    def speak(self, control: Control, message: Message) -> None:
        self.carry(control, control.protocol.receive(message.encode(), self.now), self.now)

    # workers
    def hello(
        self,
        worker: int = 0,
        *sessions: tuple[int, int],
        credit: int = 50,
        starting: tuple[tuple[int, int], ...] = (),
        ended: tuple[tuple[int, int], ...] = (),
    ) -> list[bus.Message]:
        """Say Hello; what comes back."""
        message = bus.Hello(bus.VERSION, worker, 100 + worker, credit, sessions, starting, ended)
        self.say(worker, message)
        return self.take(worker)

    def say(self, worker: int, message: bus.Message) -> None:
        self.exchange.message(b"worker-%d" % worker, message, self.now)

    def take(self, worker: int = 0) -> list[bus.Message]:
        return self.sent.pop(b"worker-%d" % worker, [])

    def replies(self, control: Control) -> list[Message]:
        heard, self.heard[control.number] = self.heard[control.number], []
        return heard

    def call(self, control: Control, call_id: int = 0) -> Call:
        """Ask for a call."""
        before = set(self.exchange.calls)
        self.speak(control, OutgoingRequest(call_id))
        (index,) = set(self.exchange.calls) - before
        return self.exchange.calls[index]

    def started(self, control: Control, call_id: int = 0) -> Call:
        call = self.call(control, call_id)
        self.say(call.worker, bus.Installed(*call.handle, True, ""))
        return call

    def up(self, control: Control, call_id: int = 0, user: str = "bob") -> Call:
        call = self.started(control, call_id)
        self.say(call.worker, bus.Admit(*call.handle, user, 0, ""))
        self.say(call.worker, bus.Up(*call.handle))
        assert call.state is CallState.UP
        self.take(call.worker)
        self.replies(control)
        return call

    def pass_time(self, seconds: float) -> None:
        """In steps of a second, as the process ticks; workers that are here speak."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for worker in self.exchange.placement.workers:
                if worker.present and not worker.silent and worker.index not in self.quiet:
                    self.say(worker.index, bus.Heartbeat(50))
            self.exchange.tick(self.now)
            self.exchange.handle_timers(self.now)

    quiet: set[int] = set()

    def count(self, name: str) -> int:
        return int(self.table.dispatcher_counters()[DISPATCHER_COUNTERS.index(name)])

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    made.quiet = set()
    made.hello(0)
    made.hello(1)
    yield made
    made.close()


def of(messages: list[bus.Message], kind: type) -> list[bus.Message]:
    return [message for message in messages if isinstance(message, kind)]


def test_installs_spread_by_sessions_used(box: Box) -> None:
    control = box.connect()
    workers = [box.call(control, n).worker for n in range(6)]
    assert workers == [0, 1, 0, 1, 0, 1]
    for n in (0, 2, 4):
        box.speak(control, ClearRequest(n))
    for message in of(box.take(0), bus.End):
        assert isinstance(message, bus.End)
        box.say(0, bus.Ended(message.index, message.generation))
    assert [box.call(control, 10 + n).worker for n in range(3)] == [0, 0, 0]


def test_end_is_said_until_ended_comes_and_then_all_is_free(box: Box) -> None:
    control = box.connect()
    call = box.up(control)
    address, call_id = call.address, call.call_id
    box.speak(control, ClearRequest(0))
    (end,) = of(box.take(call.worker), bus.End)
    assert end == bus.End(*call.handle, "user_request", False)
    box.pass_time(6)
    assert of(box.take(call.worker), bus.End) == [end]
    box.pass_time(5)
    assert of(box.take(call.worker), bus.End) == [end]
    assert box.table.allot_state(call.index)[1] != FREE
    assert box.exchange.addresses.usage() == [("default", 10, 1)]
    box.say(call.worker, bus.Ended(*call.handle))
    box.say(call.worker, bus.Ended(*call.handle))  # twice does nothing
    assert box.table.allot_state(call.index)[1] == FREE
    assert box.exchange.addresses.usage() == [("default", 10, 0)]
    assert box.exchange.calls == {}
    assert not box.exchange.addresses.is_local(address)
    box.pass_time(30)
    assert of(box.take(call.worker), bus.End) == []
    assert call_id not in [box.call(control, 20 + n).call_id for n in range(3)]


def test_soft_end_hardens(box: Box) -> None:
    control = box.connect()
    call = box.up(control)
    box.exchange.message(b"console-1", bus.Terminate(9, "all", "", True), box.now)
    assert box.sent[b"console-1"] == [bus.Terminated(9, 1)]
    box.pass_time(20)
    softness = [end.soft for end in of(box.take(call.worker), bus.End) if isinstance(end, bus.End)]
    assert softness[0] is True
    assert softness[-1] is False
    # the client hears of it when LCP is done
    assert box.replies(control) == []
    box.say(call.worker, bus.Ended(*call.handle))
    (notify,) = box.replies(control)
    assert notify == DisconnectNotify(call.call_id, 3)
    assert box.count("ended_admin_reset") == 1


@pytest.mark.parametrize(("cause", "codes"), sorted(DISCONNECTED.items()))
def test_down_is_told_to_the_client(box: Box, cause: str, codes: tuple[int, int]) -> None:
    control = box.connect()
    call = box.up(control)
    box.say(call.worker, bus.Down(*call.handle, cause, "why"))
    (notify,) = box.replies(control)
    assert notify == DisconnectNotify(call.call_id, *codes)
    box.say(call.worker, bus.Ended(*call.handle))
    assert box.count(f"ended_{cause}") == 1
    assert box.replies(control) == []


def test_a_cause_of_no_list_is_internal(box: Box) -> None:
    call = box.up(box.connect())
    box.say(call.worker, bus.Down(*call.handle, "whatever", ""))
    box.say(call.worker, bus.Ended(*call.handle))
    assert box.count("ended_internal_error") == 1


def test_install_times_out(box: Box) -> None:
    control = box.connect()
    call = box.call(control, 4)
    box.pass_time(6)
    (reply,) = box.replies(control)
    assert isinstance(reply, OutgoingReply)
    assert (reply.peer_call_id, reply.result, reply.error) == (4, 2, 6)
    assert call.state is CallState.ENDING
    box.say(call.worker, bus.Installed(*call.handle, True, ""))  # too late
    assert box.replies(control) == []
    box.say(call.worker, bus.Ended(*call.handle))
    assert box.exchange.calls == {}


def test_a_silent_worker_gets_no_calls_and_is_heard_again(box: Box) -> None:
    control = box.connect()
    waiting = box.call(control, 1)
    assert waiting.worker == 0
    stays = box.up(control, 2)
    assert stays.worker == 1
    box.quiet = {0}
    box.pass_time(4)
    assert {box.call(control, 10 + n).worker for n in range(3)} == {1}
    box.pass_time(4)
    replies = box.replies(control)
    assert any(
        isinstance(r, OutgoingReply) and r.peer_call_id == 1 and r.result == 2 for r in replies
    )
    box.quiet = set()
    box.say(0, bus.Heartbeat(50))
    assert any("speaks again" in line for line in box.log.lines)
    assert box.call(control, 20).worker == 0


def test_credit(box: Box) -> None:
    control = box.connect()
    box.say(0, bus.Heartbeat(2))
    box.say(1, bus.Heartbeat(1))
    calls = [box.call(control, n) for n in range(3)]
    box.speak(control, OutgoingRequest(9))
    (reply,) = box.replies(control)
    assert isinstance(reply, OutgoingReply)
    assert (reply.result, reply.error) == (2, 4)
    assert "take no more new calls" in box.log.lines[-1]
    box.say(calls[0].worker, bus.Installed(*calls[0].handle, True, ""))
    assert box.call(control, 10).worker == calls[0].worker


def test_a_queue_that_does_not_drain(box: Box) -> None:
    control = box.connect()
    box.stuck = {b"worker-0": 1000, b"worker-1": 1000}
    box.speak(control, OutgoingRequest(9))
    assert "do not drain" in box.log.lines[-1]
    box.stuck = {b"worker-0": 1000}
    assert {box.call(control, n).worker for n in range(3)} == {1}


def test_hello_of_a_successor(box: Box) -> None:
    box.exchange.peer_gone(b"worker-1", box.now)
    control = box.connect()
    up_there = box.up(control, 0, "a")
    not_there = box.up(control, 2, "b")
    missed_up = box.started(control, 4)
    assert {c.worker for c in (up_there, not_there, missed_up)} == {0}
    box.replies(control)
    (welcome, *rest) = box.hello(0, up_there.handle, missed_up.handle, (11, 99))
    assert welcome == bus.Welcome(bus.VERSION, 7, ((11, 99),))
    assert rest == [bus.End(*not_there.handle, "worker_lost", False)]
    assert missed_up.state is CallState.UP
    assert not_there.state is CallState.ENDING
    assert up_there.state is CallState.UP
    (notify,) = box.replies(control)
    assert isinstance(notify, DisconnectNotify)
    assert notify.call_id == not_there.call_id


def test_hello_when_an_end_was_lost(box: Box) -> None:
    control = box.connect()
    call = box.up(control)
    box.exchange.peer_gone(b"worker-0", box.now)
    box.speak(control, ClearRequest(0))
    assert box.take(0) == []
    welcome, end = box.hello(0, call.handle)
    assert isinstance(welcome, bus.Welcome)
    assert welcome.ends == ()
    assert end == bus.End(*call.handle, "user_request", False)


def test_messages_of_other_generations_and_workers_are_nobodys(box: Box) -> None:
    call = box.up(box.connect())
    for worker, handle in (
        (0, (call.index, call.generation + 1)),
        (1, call.handle),
        (0, (99999, 1)),
    ):
        box.say(worker, bus.Ended(*handle))
        box.say(worker, bus.Down(*handle, "user_request", ""))
        box.say(worker, bus.Installed(*handle, False, "no"))
        box.say(worker, bus.Admit(*handle, "eve", 0, ""))
    assert call.state is CallState.UP
    assert list(box.exchange.calls) == [call.index]


def test_strays_are_counted(box: Box) -> None:
    box.exchange.message(b"worker-77", bus.Heartbeat(1), box.now)
    box.exchange.message(b"worker-x", bus.Heartbeat(1), box.now)
    box.exchange.message(b"console-1", bus.Heartbeat(1), box.now)
    box.say(0, bus.Welcome(bus.VERSION, 1, ()))
    box.say(1, bus.Hello(bus.VERSION, 0, 1, 1, ()))
    box.exchange.bad_message(b"worker-0", bus.MessageError("rubbish"), box.now)
    assert box.count("bus_errors") == 6
    assert isinstance(box.take(0)[0], bus.Refused)


def test_the_keeper_started_another(box: Box) -> None:
    control = box.connect()
    box.call(control, 1)
    box.table.set_worker(0, 999, True)
    box.pass_time(1)
    assert not box.exchange.placement.workers[0].present
    (reply,) = box.replies(control)
    assert isinstance(reply, OutgoingReply)
    assert reply.result == 2


def test_call_ids_run_out_only_for_real() -> None:
    config = replace(SETTINGS, limits=Limits(max_sessions=2))
    box = Box(config, workers=1)
    box.hello(0)
    control = box.connect()
    seen: dict[int, float] = {}
    for n in range(200):
        call = box.started(control, 1)
        assert box.now >= seen.get(call.call_id, -1e9) + QUARANTINE_S
        seen[call.call_id] = box.now
        box.speak(control, ClearRequest(1))
        box.say(0, bus.Ended(*call.handle))
        assert n < 200
    assert box.table.used() == [0]
    box.close()


def test_successor_without_the_connections_ends_their_calls(box: Box) -> None:
    control = box.connect()
    up = box.up(control, 0, "ann")
    starting = box.started(control, 2)
    heir = Box(fd=os.dup(box.fd))
    assert len(heir.exchange.calls) == 2
    assert heir.exchange.addresses.usage() == [("default", 10, 1)]
    (welcome, *ends) = heir.hello(up.worker, up.handle)
    assert isinstance(welcome, bus.Welcome)
    assert welcome.ends == ()
    assert (ends[0].index, ends[0].soft) == (up.index, True)  # type: ignore[union-attr]
    (_, *others) = heir.hello(starting.worker) if starting.worker != up.worker else (0, *ends)
    found = {(e.index, e.soft) for e in (*ends, *others) if isinstance(e, bus.End)}
    assert found == {(up.index, True), (starting.index, True)}
    for call in (up, starting):
        heir.say(call.worker, bus.Ended(*call.handle))
    assert heir.exchange.calls == {}
    assert heir.exchange.addresses.usage() == [("default", 10, 0)]
    assert heir.table.used() == [0, 0]
    heir.close()


def test_every_reason_and_cause_has_its_codes() -> None:
    assert all(result != 1 for result, _ in REFUSED.values())
    # an error code goes with General Error and with nothing else
    for result, error in (*REFUSED.values(), *DISCONNECTED.values()):
        assert not error or result == 2


def test_placement_without_workers_says_so() -> None:
    placement = Placement(3, lambda peer: 0)
    assert placement.pick(0.0, lambda w: True) is None
    assert placement.why_none(0.0) == "none of the 3 workers is up"


def test_a_storm_of_refusals_is_ten_lines() -> None:
    log = Lines()
    quiet = QuietLog(log)
    for n in range(1000):
        quiet.warning("no_slot", "call refused", 50.0 + n / 1000, n=n)
    assert len(log.lines) == 10
    quiet.warning("no_slot", "call refused", 61.0)
    assert "omitted_before=990" in log.lines[-1]


KINDS = (
    "connect call call installed installed failed admit admit static up up down ended "
    "clear fin hello gone time terminate"
)
STEPS = st.lists(st.tuples(st.sampled_from(KINDS.split()), st.integers(0, 15)), max_size=60)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_history_leaves_nothing_behind(steps: list[tuple[str, int]]) -> None:
    """Table, addresses, call IDs and counts agree all the time, and at the end all is free."""
    box = Box()
    box.quiet = set()
    box.hello(0)
    box.hello(1)
    exchange = box.exchange

    def some(n: int) -> Call | None:
        calls = sorted(exchange.calls.values(), key=lambda call: call.index)
        return calls[n % len(calls)] if calls else None

    for what, n in steps:
        call = some(n)
        controls = list(box.controls.values())
        control = controls[n % len(controls)] if controls else None
        if what == "connect":
            box.connect(0x0A000000 + n % 3)
        elif what == "call" and control is not None:
            box.speak(control, OutgoingRequest(n))
        elif what == "clear" and control is not None:
            box.speak(control, ClearRequest(n))
        elif what == "fin" and control is not None and n % 3 == 0:
            box.carry(control, control.protocol.eof(), box.now)
        elif what == "hello":
            up = [c.handle for c in exchange.calls.values() if c.state is CallState.UP]
            box.hello(n % 2, *[h for h in up if exchange.calls[h[0]].worker == n % 2][: n // 2])
        elif what == "gone":
            exchange.peer_gone(b"worker-%d" % (n % 2), box.now)
        elif what == "time":
            box.pass_time(n)
        elif what == "terminate":
            exchange.message(b"console-1", bus.Terminate(1, "username", f"u{n % 4}", True), box.now)
        elif call is not None:
            answers: dict[str, bus.Message] = {
                "installed": bus.Installed(*call.handle, True, ""),
                "failed": bus.Installed(*call.handle, False, "no"),
                "admit": bus.Admit(*call.handle, f"u{n % 4}", 0, ""),
                "static": bus.Admit(*call.handle, f"u{n % 4}", 0x0A000100 + n % 4, ""),
                "up": bus.Up(*call.handle),
                "down": bus.Down(*call.handle, "user_request", ""),
                "ended": bus.Ended(*call.handle),
            }
            if what in answers:
                box.say(call.worker, answers[what])
        # -- what always holds
        records = {s.index: s for s in box.table.sessions()}
        assert set(records) == set(exchange.calls)
        assert sum(w.used for w in exchange.placement.workers) == len(records)
        granted = [s.granted_address for s in records.values() if s.granted_address]
        assert len(granted) == len(set(granted))
        ids = [s.call_id for s in records.values()]
        assert len(ids) == len(set(ids))
        assert all(s.call_id % 64 % 2 == s.worker for s in records.values())
        setting_up = (CallState.INSTALLING, CallState.STARTING)
        assert exchange._starting == sum(c.state in setting_up for c in exchange.calls.values())
        for connection in box.controls.values():
            assert set(connection.calls) == set(connection.protocol.calls)
        for worker in exchange.placement.workers:
            for handle in worker.waiting:
                assert exchange.calls[handle[0]].state is CallState.INSTALLING
    for connection in list(box.controls.values()):
        box.carry(connection, connection.protocol.eof(), box.now)
    for worker_index in (0, 1):
        box.hello(worker_index)
    for call in list(exchange.calls.values()):
        assert call.state is CallState.ENDING
        box.say(call.worker, bus.Ended(*call.handle))
    assert box.table.used() == [0, 0]
    assert exchange.addresses.usage() == [("default", 10, 0)]
    assert (exchange._of_ip, exchange._of_user, exchange._starting) == ({}, {}, 0)
    assert len(exchange._free) == box.table.capacity
    box.close()
