"""A control connection: segments, time and the owner's decisions, in any order.

Each step is one octet and what it needs. Checked: nothing is raised, all that is sent is a
whole message, Closed comes once and last, a request is answered at most once, and a
connection that is not closed knows when it will have to be looked at again.
"""

from __future__ import annotations

from struct import error as struct_error

from dispatcher.pptp.connection import (
    Action,
    CallCleared,
    CallRequested,
    CallState,
    Closed,
    Connection,
    ConnectionSettings,
    Send,
    State,
)
from dispatcher.pptp.messages import (
    HEADER,
    LENGTHS,
    DisconnectResult,
    GeneralError,
    OutgoingResult,
    RemoteError,
    StartRequest,
    decode,
)
from tests.fuzz.targets import Reader

SETTINGS = ConnectionSettings()
PATIENCE = 200.0  # longest time from any moment to the end, with a silent client


class Owner:
    """Plays the dispatcher and checks what it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.connection = Connection(SETTINGS, self.now)
        self.closed = False
        self.open: set[int] = set()

    def check(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.closed, "an action after Closed"
            match action:
                case Send(data):
                    decode(data)
                case CallRequested(number, _):
                    assert number not in self.open
                    self.open.add(number)
                    self.connection.assign_call(number, number & 0xFFFF)
                case CallCleared(number):
                    self.open.remove(number)
                case Closed(_, text, calls):
                    assert text.isprintable()
                    assert set(calls) <= self.open
                    self.closed = True
                case _:
                    pass
        # What the owner ended itself is not told back.
        self.open &= set(self.connection.calls)
        assert self.open == set(self.connection.calls)
        assert (self.connection.timer_at is None) == self.closed

    def decide(self, number: int, how: int) -> None:
        call = self.connection.calls.get(number)
        c, now = self.connection, self.now
        requested = call is not None and call.state is CallState.REQUESTED
        if how == 0 and requested:
            self.check(c.accept_call(number, now))
        elif how == 1 and requested:
            self.check(c.refuse_call(number, OutgoingResult.BUSY, GeneralError.NONE, now))
        elif how == 2:
            self.check(c.clear_call(number, DisconnectResult.REQUEST, GeneralError.NONE, now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.check(self.connection.handle_timer(self.now))


def framed(kind: int, body: bytes) -> bytes:
    """A message of the right length around any octets; types 1 to 15."""
    kind = kind % 15 + 1
    size = LENGTHS[kind]
    return (HEADER.pack(size, 1, 0x1A2B3C4D, kind, 0) + body).ljust(size, b"\0")[:size]


def one(data: bytes) -> None:
    try:
        decode(data)
    except RemoteError as e:
        assert e.text.isprintable()
        if e.answer is not None:
            decode(e.answer.encode())
    except struct_error as e:  # an escape of struct's is what `decode` must not let out
        raise AssertionError(e) from e
    reader = Reader(data)
    owner = Owner()
    if reader.number() & 1:
        owner.check(owner.connection.receive(StartRequest().encode(), 0.0))
    while reader:
        step = reader.number()
        match step & 7:
            case 0:
                owner.check(owner.connection.receive(reader.block(), owner.now))
            case 1 | 2 | 3:
                wire = framed(step >> 3, reader.block())
                owner.check(owner.connection.receive(wire, owner.now))
            case 4:
                owner.decide(reader.number() % 8, step >> 3 & 3)
            case 5:
                owner.wait(float(reader.number()))
            case 6:
                for octet in framed(step >> 3, reader.block()):
                    owner.check(owner.connection.receive(bytes([octet]), owner.now))
            case _:
                owner.check(owner.connection.stop(owner.now))
    settle(owner)


def settle(owner: Owner) -> None:
    """The client is silent from here on: within its deadlines all is over."""
    end = owner.now + PATIENCE
    for _ in range(20):
        at = owner.connection.timer_at
        if at is None:
            break
        assert at <= end, "half open"
        owner.wait(max(0.0, at - owner.now))
    assert owner.connection.state is State.CLOSED
    assert owner.closed
