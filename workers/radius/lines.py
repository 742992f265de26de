"""A *line* is one server's port for one kind of request: its channels, health and figures.

A *channel* is a source port of ours, good for 256 requests in flight (RFC 2865 section 3:
the identifier is an octet). A number whose request got no answer rests for a while: a
late answer must not meet a new request.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["auth", "acct"]
KINDS: Final[tuple[Kind, ...]] = ("auth", "acct")
MAX_CHANNELS: Final = 32  # 8192 in flight a line
REST_S: Final = 30.0  # of a number that got no answer
DEAD_AFTER: Final = 3  # tries lost in a row, and no answer to anything meanwhile
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Address:
    """What a line is made of; two of equal values are the same line after a reload."""

    server: str  # its name in the log and in metrics
    kind: Kind
    host: str
    port: int
    secret: bytes = field(repr=False)
    priority: int = 0  # the lower ones first
    weight: int = 1
    timeout_s: float = 1.0
    tries: int = 3
    probe: bool = True  # Status-Server, RFC 5997
    probe_interval_s: float = 5.0
    dead_time_s: float = 60.0  # then a request may try it, answer to a probe or not
    signed: Literal["require", "auto", "off"] = "auto"
    flight: int = 0  # requests that may wait for an answer at once; 0: any number


@dataclass(slots=True)
class Figures:
    """Counts of one line, for metrics; they outlive what they count."""

    sent: int = 0
    retransmits: int = 0
    results: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    deaths: int = 0
    late: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def result(self, name: str) -> None:
        """One request is over."""
        self.results[name] = self.results.get(name, 0) + 1

    def fault(self, name: str) -> None:
        """One bad answer."""
        self.faults[name] = self.faults.get(name, 0) + 1

    def took(self, seconds: float) -> None:
        """One request was answered."""
        self.seconds += seconds
        for at, bound in enumerate(BOUNDS):
            if seconds <= bound:
                self.buckets[at] += 1
                return
        self.buckets[-1] += 1


@dataclass(slots=True)
class Channel:
    """One source port. Values of `waiting` are tokens of the exchange."""

    number: int
    free: deque[int] = field(default_factory=lambda: deque(range(256)))
    waiting: dict[int, int] = field(default_factory=dict)
    resting: deque[tuple[float, int]] = field(default_factory=deque)

    def wake(self, now: float) -> None:
        """Numbers that have rested are free again."""
        while self.resting and self.resting[0][0] <= now:
            self.free.append(self.resting.popleft()[1])


@dataclass(slots=True)
class Line:
    """One (server, kind)."""

    address: Address
    channels: list[Channel] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    dead_since: float | None = None
    lost: int = 0  # tries in a row
    heard_at: float = 0.0  # last answer of any kind
    probe_at: float = 0.0
    tried_at: float = 0.0  # last time a request was let through although it is dead
    signs: bool = False  # it has sent a good Message-Authenticator once
    waiting: int = 0
    held: deque[int] = field(default_factory=deque)  # tokens beyond `flight`, in order
    # Accounting given up here, by channel and number while that rests: token, octets.
    past: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """As many wait as may."""
        return 0 < self.address.flight <= self.waiting

    @property
    def alive(self) -> bool:
        """It answered last time, or was not asked yet."""
        return self.dead_since is None

    def take(self, token: int, now: float) -> tuple[int, int] | None:
        """A channel and a number for a request; None: too many are in flight."""
        for channel in self.channels:
            channel.wake(now)
            if channel.free:
                break
        else:
            if len(self.channels) >= MAX_CHANNELS:
                return None
            channel = Channel(len(self.channels))
            self.channels.append(channel)
        number = channel.free.popleft()
        self.past.pop((channel.number, number), None)
        channel.waiting[number] = token
        self.waiting += 1
        return channel.number, number

    def give_back(self, channel: int, number: int, now: float, *, answered: bool) -> None:
        """The request is over; its number rests if an answer may still be on the way."""
        own = self.channels[channel]
        if own.waiting.pop(number, None) is None:
            return
        self.waiting -= 1
        if answered:
            own.free.append(number)
        else:
            own.resting.append((now + REST_S, number))

    def rests(self, channel: int, number: int) -> bool:
        """Whether an answer with this number is a late one."""
        return any(resting == number for _, resting in self.channels[channel].resting)
