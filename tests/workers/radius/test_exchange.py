"""workers/radius/exchange.py in simulated time: retries, fail-over, probes, bad answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import md5
from itertools import count

import pytest

from workers.radius.attributes import A
from workers.radius.exchange import (
    Answered,
    Changed,
    Event,
    Exchange,
    Faulty,
    Send,
    Unanswered,
)
from workers.radius.lines import MAX_CHANNELS, Address
from workers.radius.packets import Attributes, Code, Packet, response

ONE = Address("one", "auth", "192.0.2.1", 1812, b"s1")
TWO = replace(ONE, server="two", host="192.0.2.2", secret=b"s2")


class World:
    """An exchange and its servers; `up` says which of them answer."""

    def __init__(self, *addresses: Address, chance: Callable[[], float] = lambda: 0.5) -> None:
        numbers = count(1)
        self.exchange = Exchange(addresses, lambda n: next(numbers).to_bytes(n, "big"), chance)
        self.addresses = addresses
        self.now = 100.0
        self.up = [True] * len(addresses)
        self.sign = True
        self.answers: dict[int, list[Event]] = {}
        self.sent: list[Send] = []
        self.changes: list[Changed] = []
        self.faults: list[Faulty] = []
        self.attributes: Attributes = ()
        self.lose: Callable[[], bool] = lambda: False

    def ask(self, *, pinned: int = -1, strict: bool = False, code: int = 1) -> int:
        kind = self.addresses[0].kind
        token = self.exchange.ask(
            kind, code, lambda s, r: ((1, b"anna"),), self.now, pinned=pinned, strict=strict
        )
        self.turn()
        return token

    def turn(self) -> None:
        for _ in range(1000):
            events = self.exchange.take()
            if not events:
                return
            for event in events:
                self.one(event)
        raise AssertionError("never at rest")

    def one(self, event: Event) -> None:
        match event:
            case Send():
                self.sent.append(event)
                if self.up[event.line] and not self.lose():
                    data = self.answer(event)
                    if not self.lose():
                        self.exchange.receive(event.line, event.channel, data, self.now)
            case Answered() | Unanswered():
                self.answers.setdefault(event.token, []).append(event)
            case Changed():
                self.changes.append(event)
            case Faulty():
                self.faults.append(event)

    def answer(self, sent: Send, code: int = 0) -> bytes:
        asked = Packet.decode(sent.data)
        accounting = asked.code == Code.ACCOUNTING_REQUEST
        code = code or (Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT)
        secret = self.addresses[sent.line].secret
        return response(code, asked, self.attributes, secret, sign=self.sign)

    def run(self, seconds: float) -> None:
        ends = self.now + seconds
        while (at := self.exchange.deadline()) is not None and at <= ends:
            self.now = max(at, self.now)
            self.exchange.handle_timer(self.now)
            self.turn()
        self.now = ends

    def fault(self) -> str:
        assert len(self.faults) == 1, self.faults
        return self.faults[0].error.fault


def outcome(world: World, token: int) -> Event:
    (event,) = world.answers[token]
    return event


def test_an_answer() -> None:
    world = World(ONE)
    found = outcome(world, world.ask())
    assert isinstance(found, Answered) and found.packet.code == Code.ACCESS_ACCEPT
    assert found.authenticator == world.sent[0].data[4:20]
    assert world.exchange.deadline() is None and world.exchange.waiting("auth") == 0


def test_the_same_octets_again_then_the_next_server() -> None:
    world = World(ONE, replace(TWO, priority=1))
    world.up[0] = False
    token = world.ask()
    world.run(0.99)
    assert len(world.sent) == 1
    world.run(0.02)
    assert [s.data for s in world.sent] == [world.sent[0].data] * 2
    world.run(6.1)
    assert isinstance(outcome(world, token), Answered)
    assert [s.line for s in world.sent] == [0, 0, 0, 1]
    assert world.sent[3].data != world.sent[0].data
    assert world.exchange.lines[0].figures.retransmits == 2


def test_intervals_double_with_jitter() -> None:
    for chance, want in ((0.0, [0.9, 1.71]), (0.9999, [1.1, 2.31])):
        world = World(replace(ONE, tries=9), chance=partial(float, chance))
        world.up[0] = False
        start = world.now
        world.ask()
        times = []
        for _ in range(2):
            world.run((world.exchange.deadline() or 0) - world.now)
            times.append(world.now - start)
        assert times[0] == pytest.approx(want[0], rel=0.01)
        assert times[1] - times[0] == pytest.approx(want[1], rel=0.01)


def test_nobody_answers() -> None:
    world = World(ONE, TWO)
    world.up = [False, False]
    token = world.ask()
    world.run(60)
    found = outcome(world, token)
    assert isinstance(found, Unanswered) and "RADIUS server" in found.reason


def test_a_dead_server_costs_nothing_and_is_probed_back() -> None:
    world = World(ONE, replace(TWO, priority=1))
    world.up[0] = False
    first = world.ask()
    world.run(13)
    assert isinstance(outcome(world, first), Answered)
    assert [c.alive for c in world.changes] == [False]
    before = len(world.sent)
    assert isinstance(outcome(world, world.ask()), Answered)
    assert [s.line for s in world.sent[before:]] == [1]
    probes = [s for s in world.sent if s.data[0] == Code.STATUS_SERVER]
    assert probes and all(s.line == 0 for s in probes)
    world.up[0] = True
    world.run(6)
    assert [c.alive for c in world.changes] == [False, True]
    world.ask()
    assert world.sent[-1].line == 0


def test_a_death_moves_all_that_wait() -> None:
    world = World(ONE, replace(TWO, priority=1))
    world.up[0] = False
    tokens = [world.ask() for _ in range(400)]
    world.run(1.2)
    assert all(isinstance(outcome(world, token), Answered) for token in tokens)
    assert world.exchange.lines[0].waiting == 0


def test_a_refused_port_is_a_death_at_once() -> None:
    world = World(ONE, replace(TWO, priority=1))
    world.up[0] = False
    token = world.ask()
    world.exchange.refused(0, world.now, "Connection refused")
    world.turn()
    assert isinstance(outcome(world, token), Answered)


def test_a_lone_server_that_starts_anew_loses_no_login() -> None:
    world = World(ONE)
    world.up[0] = False
    tokens = [world.ask() for _ in range(300)]
    world.exchange.refused(0, world.now, "Connection refused")
    world.turn()
    assert not world.answers and not world.exchange.lines[0].alive
    world.up[0] = True
    world.run(1.2)
    assert all(isinstance(outcome(world, token), Answered) for token in tokens)


def test_losses_among_many_answers_are_no_death() -> None:
    world = World(ONE)
    world.up[0] = False
    lost = [world.ask() for _ in range(10)]
    world.up[0] = True
    for _ in range(12):
        world.ask()
        world.run(0.1)
    assert not world.changes
    assert all(isinstance(outcome(world, token), Answered) for token in lost)


def test_all_dead_is_told_soon() -> None:
    world = World(ONE)
    world.up[0] = False
    world.ask()
    world.run(20)
    token = world.ask()
    world.run(1.2)
    assert isinstance(outcome(world, token), Unanswered)


def test_without_probes_a_live_request_tries_it() -> None:
    world = World(replace(ONE, probe=False), replace(TWO, priority=1))
    world.up[0] = False
    world.ask()
    world.run(10)
    world.up[0] = True
    world.run(61)
    assert not [s for s in world.sent if s.data[0] == Code.STATUS_SERVER]
    world.exchange._chance = lambda: 0.0
    world.ask()
    assert world.sent[-1].line == 0 and world.exchange.lines[0].alive


def test_weights_share() -> None:
    chance = random.Random(1).random
    world = World(replace(ONE, weight=3), TWO, replace(TWO, priority=5, server="x"), chance=chance)
    for _ in range(1000):
        world.ask()
    lines = [s.line for s in world.sent]
    assert 690 < lines.count(0) < 810 and lines.count(2) == 0


def test_more_than_256_in_flight() -> None:
    world = World(ONE)
    world.up[0] = False
    for _ in range(1000):
        world.ask()
    assert len({(s.channel, s.data[1]) for s in world.sent}) == 1000
    assert {s.channel for s in world.sent} == {0, 1, 2, 3}
    assert MAX_CHANNELS > 4


def test_more_than_may_fly_are_held_back() -> None:
    world = World(replace(ONE, flight=10))
    world.up[0] = False
    tokens = [world.ask() for _ in range(50)]
    line = world.exchange.lines[0]
    assert line.waiting == 10 and len(line.held) == 40 and world.exchange.waiting("auth") == 50
    world.exchange.forget(tokens[20], world.now)
    world.up[0] = True
    world.run(1.2)
    assert line.waiting == 0 and not line.held
    answered = [token for token in tokens if token in world.answers]
    assert len(answered) == 49
    assert all(isinstance(outcome(world, token), Answered) for token in answered)


def test_what_is_held_back_moves_with_its_line() -> None:
    world = World(replace(ONE, flight=10), replace(TWO, priority=1, flight=10))
    world.up[0] = False
    tokens = [world.ask() for _ in range(50)]
    world.run(3)
    assert all(isinstance(outcome(world, token), Answered) for token in tokens)
    assert not world.exchange.lines[0].held or not world.exchange.waiting("auth")


def test_what_is_held_back_for_too_long_is_told() -> None:
    world = World(replace(ONE, flight=1, tries=10, timeout_s=10.0))
    world.up[0] = False
    world.ask()
    token = world.ask()
    world.run(21)
    found = outcome(world, token)
    assert isinstance(found, Unanswered) and "held back" in found.reason


def test_a_late_answer_meets_no_new_request() -> None:
    world = World(replace(ONE, tries=1))
    world.up[0] = False
    world.ask()
    world.run(2)
    late = world.answer(world.sent[0])
    for _ in range(255):
        world.ask()
    assert {s.data[1] for s in world.sent[1:] if s.channel == 0} == set(range(1, 256))
    world.exchange.receive(0, 0, late, world.now)
    world.turn()
    assert not world.faults and world.exchange.lines[0].figures.late == 1


def test_a_record_that_is_taken_late_is_taken() -> None:
    one = replace(ONE, kind="acct", tries=1)
    world = World(one, replace(one, server="two", host="192.0.2.2", priority=1))
    world.up = [False, False]
    code = Code.ACCOUNTING_REQUEST
    first = world.ask(code=code)
    world.run(1.5)
    assert [s.line for s in world.sent] == [0, 1]  # with the second by now
    late = world.answer(world.sent[0])
    world.exchange.receive(0, 0, late[:-1] + bytes((late[-1] ^ 1,)), world.now)  # a forged one
    world.turn()
    assert first not in world.answers and world.fault() == "wrong_secret"
    world.exchange.receive(0, 0, late, world.now)
    world.exchange.receive(0, 0, late, world.now)
    world.turn()
    assert isinstance(outcome(world, first), Answered)
    assert world.exchange.waiting("acct") == 0
    second = world.ask(code=code)
    world.run(9)
    assert isinstance(outcome(world, second), Unanswered)
    last = world.sent[-1]
    world.exchange.receive(last.line, last.channel, world.answer(last), world.now)
    world.turn()
    assert [type(e) for e in world.answers[second]] == [Unanswered, Answered]
    world.run(60)
    assert all(len(line.past) <= 4 for line in world.exchange.lines)


def test_a_conversation_stays_with_its_server() -> None:
    world = World(ONE, TWO)
    world.up = [True, False]
    token = world.ask(pinned=1)
    world.run(60)
    assert isinstance(outcome(world, token), Unanswered)
    assert {s.line for s in world.sent if s.data[0] == 1} == {1}


@pytest.mark.parametrize(
    ("mangle", "fault"),
    [
        (lambda d: d[:10], "short"),
        (lambda d: d[:1], "short"),
        (lambda d: d[:2] + b"\x00\x05" + d[4:], "wrong_length"),
        (lambda d: d[:2] + b"\x0f\xff" + d[4:], "wrong_length"),
        (lambda d: d[:4] + bytes(16) + d[20:], "wrong_secret"),
        (lambda d: d[:1] + b"\xee" + d[2:], "unexpected"),
        (lambda d: d[:2] + b"\x00\x16" + d[4:20] + b"\x1a\x00", "malformed"),
    ],
)
def test_bad_answers_are_counted_and_waited_through(
    mangle: Callable[[bytes], bytes], fault: str
) -> None:
    world = World(ONE)
    world.up[0] = False
    token = world.ask()
    good = world.answer(world.sent[0])
    world.exchange.receive(0, 0, mangle(good), world.now)
    world.turn()
    assert world.fault() == fault and token not in world.answers
    assert world.exchange.lines[0].figures.faults == {fault: 1}
    world.exchange.receive(0, 0, good, world.now)
    world.turn()
    assert isinstance(outcome(world, token), Answered)


@pytest.mark.parametrize("policy", ["require", "auto", "off"])
def test_blastradius(policy: str) -> None:
    world = World(replace(ONE, signed=policy))  # type: ignore[arg-type]
    world.sign = False
    token = world.ask()
    if policy == "require":
        assert world.fault() == "missing_message_authenticator" and token not in world.answers
        return
    assert token in world.answers
    world.sign = True
    world.ask()
    world.sign = False
    last = world.ask()
    # One that has shown it can sign does not stop: "auto" sees through who takes it out.
    assert (last in world.answers) == (policy == "off")


def test_eap_needs_a_message_authenticator_in_any_case() -> None:
    world = World(replace(ONE, signed="off"))
    world.sign = False
    assert world.ask(strict=True) not in world.answers
    assert world.fault() == "missing_message_authenticator"


def test_accounting_has_lines_of_its_own() -> None:
    world = World(replace(ONE, kind="acct"))
    token = world.ask(code=4)
    found = outcome(world, token)
    assert isinstance(found, Answered) and found.packet.code == 5
    data = world.sent[0].data
    assert data[4:20] == md5(data[:4] + bytes(16) + data[20:] + b"s1").digest()
    empty = World(ONE).exchange
    empty.ask("acct", 4, lambda s, r: (), 0.0)
    (event,) = empty.take()
    assert isinstance(event, Unanswered)


def test_a_wrong_code_is_no_answer() -> None:
    world = World(ONE)
    world.up[0] = False
    world.ask()
    world.exchange.receive(0, 0, world.answer(world.sent[0], Code.ACCOUNTING_RESPONSE), world.now)
    world.turn()
    assert world.fault() == "unexpected_code"


@pytest.mark.parametrize("seed", range(5))
def test_one_percent_lost_fails_no_request(seed: int) -> None:
    dice = random.Random(seed)
    world = World(ONE, TWO, chance=dice.random)
    world.lose = lambda: dice.random() < 0.01
    tokens = []
    for _ in range(500):
        tokens.append(world.ask())
        world.run(0.01)
    world.run(20)
    assert all(isinstance(outcome(world, token), Answered) for token in tokens)
    assert not world.changes


def test_state_is_sent_by_who_asks() -> None:
    world = World(ONE)
    world.attributes = ((A.STATE, b"x"),)
    found = outcome(world, world.ask())
    assert isinstance(found, Answered) and found.packet.get(A.STATE) == b"x"
