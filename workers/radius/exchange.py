"""Requests to several servers: who is asked, again when, who next. No socket, no clock.

The owner sends what `take` gives, feeds `receive` and `handle_timer`, and hears of every
request once: `Answered` or `Unanswered`; of an accounting request that was Unanswered, Answered may
come late. RFC 5080 section 2.2.1 (retransmission
with jitter), RFC 5997 (Status-Server), RFC 3539 section 3.4 (fail-over).

A request is sent on one line again and again with the very same octets, so that a server
can tell that it has seen it (RFC 5080 section 2.2.2). Only the next line gets a new one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from workers.radius.attributes import A
from workers.radius.lines import DEAD_AFTER, Address, Kind, Line
from workers.radius.packets import (
    MESSAGE_AUTHENTICATOR,
    Attributes,
    Code,
    Packet,
    RemoteError,
    TooLongError,
    check_response,
    request,
)

MAX_TIMEOUT_S: Final = 16.0  # MRT
HELD_S: Final = 20.0  # till a request that is held back is given up
JITTER: Final = 0.1  # RAND
ANSWERS: Final[dict[int, frozenset[int]]] = {
    Code.ACCESS_REQUEST: frozenset({Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE}),
    Code.ACCOUNTING_REQUEST: frozenset({Code.ACCOUNTING_RESPONSE}),
    Code.STATUS_SERVER: frozenset({Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE}),
}
RESULTS: Final[dict[int, str]] = {
    Code.ACCESS_ACCEPT: "accept",
    Code.ACCESS_REJECT: "reject",
    Code.ACCESS_CHALLENGE: "challenge",
    Code.ACCOUNTING_RESPONSE: "response",
}

# The attributes for one server: its secret and the request's authenticator hide values.
Build = Callable[[bytes, bytes], Attributes]


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data` by the source port `channel` of a line."""

    line: int
    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server said. `authenticator` is the request's, `line` who said it."""

    token: int
    packet: Packet
    line: int
    authenticator: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody answered; `reason` is a sentence."""

    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A line died or lives again."""

    line: int
    alive: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Faulty:
    """A bad answer: counted, and for the log."""

    line: int
    error: RemoteError


Event = Send | Answered | Unanswered | Changed | Faulty


@dataclass(slots=True)
class _Request:
    token: int
    kind: Kind
    code: int
    build: Build
    started: float
    pinned: int  # the only line that may answer; -1: any
    strict: bool  # the answer must carry a Message-Authenticator, RFC 3579 section 3.2
    probe: bool = False
    line: int = -1
    channel: int = 0
    number: int = 0
    octets: bytes = b""
    left: int = 0
    timeout: float = 0.0
    at: float = 0.0  # of its entry in the heap that counts
    tried: set[int] = field(default_factory=set)


class Exchange:
    """All requests of one process."""

    def __init__(
        self,
        addresses: Iterable[Address],
        entropy: Callable[[int], bytes],
        chance: Callable[[], float],
    ) -> None:
        """`chance` gives numbers of [0, 1): jitter, and the choice by weight."""
        self.lines = [Line(address) for address in addresses]
        self._entropy = entropy
        self._chance = chance
        self._requests: dict[int, _Request] = {}
        self._timers: list[tuple[float, int]] = []
        self._out: list[Event] = []
        self._next = 1

    # -- what the owner asks

    def take(self) -> list[Event]:
        """What happened since the last time, in order."""
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When handle_timer has something to do."""
        while self._timers:
            at, token = self._timers[0]
            if token < 0:
                line = self.lines[-token - 1]
                if line.dead_since is not None and line.probe_at == at:
                    return at
            elif (asked := self._requests.get(token)) is not None and asked.at == at:
                return at
            heapq.heappop(self._timers)
        return None

    def waiting(self, kind: Kind) -> int:
        """Requests of a kind without an answer yet."""
        return sum(r.kind == kind and not r.probe for r in self._requests.values())

    def alive(self, kind: Kind) -> bool:
        """Whether some server of a kind answers, as far as we know."""
        return any(line.alive for line in self.lines if line.address.kind == kind)

    def ask(
        self,
        kind: Kind,
        code: int,
        build: Build,
        now: float,
        *,
        pinned: int = -1,
        strict: bool = False,
    ) -> int:
        """Send a request to whom it is for; the token its outcome will carry."""
        token = self._next
        self._next += 1
        asked = _Request(token, kind, code, build, now, pinned, strict)
        self._requests[token] = asked
        self._advance(asked, now, "no RADIUS server is configured for it")
        return token

    def forget(self, token: int, now: float) -> None:
        """Its outcome matters to nobody any more."""
        asked = self._requests.pop(token, None)
        if asked is not None and asked.line >= 0:
            self._release(asked, now, answered=False)

    # -- what happens

    def receive(self, at: int, channel: int, data: bytes, now: float) -> None:
        """A datagram on a source port of ours, from the line's server."""
        line = self.lines[at]
        if len(data) < 2 or channel >= len(line.channels):
            self.note(at, RemoteError("short", f"{len(data)} octets"))
            return
        token = line.channels[channel].waiting.get(data[1])
        asked = self._requests.get(token) if token is not None else None
        if asked is None:
            if line.rests(channel, data[1]):
                line.figures.late += 1
                self._late(at, channel, data, now)
            else:
                try:
                    Packet.decode(data)
                    error = RemoteError("unexpected", f"identifier {data[1]} waits for nothing")
                except RemoteError as e:
                    error = e
                self.note(at, error)
            return
        try:
            packet = check_response(data, asked.octets, line.address.secret)
            self._judge(line, asked, packet)
        except RemoteError as e:
            self.note(at, e)
            return
        self._lives(at, now)
        del self._requests[asked.token]
        authenticator = asked.octets[4:20]
        self._release(asked, now, answered=True)
        line.figures.took(now - asked.started)
        if not asked.probe:
            line.figures.result(RESULTS.get(packet.code, "other"))
            self._out.append(Answered(asked.token, packet, at, authenticator))

    def _late(self, at: int, channel: int, data: bytes, now: float) -> None:
        """A server has taken a record after all: it must not be delivered again."""
        line = self.lines[at]
        token, octets = line.past.get((channel, data[1]), (0, b""))
        if not octets:
            return
        try:
            packet = check_response(data, octets, line.address.secret)
        except RemoteError as e:
            self.note(at, e)
            return
        if packet.code != Code.ACCOUNTING_RESPONSE:
            return
        del line.past[channel, data[1]]
        self._lives(at, now)
        asked = self._requests.pop(token, None)
        if asked is not None and asked.line >= 0:
            self._release(asked, now, answered=False)
        self._out.append(Answered(token, packet, at, octets[4:20]))

    def refused(self, at: int, now: float, reason: str) -> None:
        """The kernel says that nobody is there (ICMP port or host unreachable)."""
        if not self.lines[at].waiting:
            return
        self._dies(at, now, reason)
        for asked in self._requests.values():
            if asked.line == at:
                asked.left = min(asked.left, 1)  # it may be starting anew; not for long

    def handle_timer(self, now: float) -> None:
        """Requests whose time has come are sent again, or to the next server."""
        while (at := self.deadline()) is not None and at <= now:
            _, token = heapq.heappop(self._timers)
            if token < 0:
                self._probe(-token - 1, now)
                continue
            asked = self._requests[token]
            line = self.lines[asked.line]
            if not asked.octets:
                self._next_line(asked, now, "held back for too long")
                continue
            line.lost += 1
            # In a storm some are lost while hundreds are answered: silence is what counts.
            silent = now - line.heard_at >= line.address.timeout_s * (1.0 - JITTER)
            if line.alive and line.lost >= DEAD_AFTER and silent:
                self._dies(asked.line, now, f"no answer to {line.lost} requests in a row")
                if asked.at != at or token not in self._requests:
                    continue  # it has moved on with all the others
            if asked.left > 0:
                self._again(asked, now)
            else:
                self._next_line(asked, now, "no answer")

    # -- one request

    def _advance(self, asked: _Request, now: float, reason: str) -> None:
        """To the best line not tried yet; Unanswered if there is none."""
        while True:
            at = self._choose(asked, now)
            if at < 0:
                del self._requests[asked.token]
                self._out.append(Unanswered(asked.token, reason))
                return
            asked.tried.add(at)
            if self.lines[at].full:
                # More than it can hold in its socket would be lost, and all come again.
                asked.line, asked.at = at, now + HELD_S
                self.lines[at].held.append(asked.token)
                heapq.heappush(self._timers, (asked.at, asked.token))
                return
            if self._begin(asked, at, now):
                return
            reason = "too many requests wait for an answer"

    def _choose(self, asked: _Request, now: float) -> int:
        if asked.pinned >= 0:
            return -1 if asked.pinned in asked.tried else asked.pinned
        left = [
            at
            for at, line in enumerate(self.lines)
            if line.address.kind == asked.kind and at not in asked.tried
        ]
        # One that was silent for long enough gets a live request to try itself on.
        ripe = [
            at
            for at in left
            if not self.lines[at].alive
            and now - self.lines[at].tried_at >= self.lines[at].address.dead_time_s
        ]
        best = [at for at in left if self.lines[at].alive]
        if ripe and not asked.tried and (not best or self._chance() < 0.1):
            return ripe[0]
        if best:
            first = min(self.lines[at].address.priority for at in best)
            best = [at for at in best if self.lines[at].address.priority == first]
            spot = self._chance() * sum(self.lines[at].address.weight for at in best)
            for at in best:
                spot -= self.lines[at].address.weight
                if spot < 0:
                    return at
            return best[-1]
        # Nobody is known to live: better one try each than a refusal unasked.
        return min(left, key=lambda at: self.lines[at].tried_at, default=-1)

    def _begin(self, asked: _Request, at: int, now: float) -> bool:
        line = self.lines[at]
        taken = line.take(asked.token, now)
        if taken is None:
            return False
        asked.line, (asked.channel, asked.number) = at, taken
        secret, random = line.address.secret, self._entropy(16)
        try:
            attributes = asked.build(secret, random)
            asked.octets = request(asked.code, asked.number, attributes, secret, random)
        except TooLongError:
            line.give_back(asked.channel, asked.number, now, answered=True)
            return False
        if line.alive:
            asked.left = line.address.tries - 1
        else:
            asked.left = 0
            line.tried_at = now
        if asked.probe:
            asked.left = 0
        asked.timeout = line.address.timeout_s * self._jitter()
        line.figures.sent += 1
        self._transmit(asked, now)
        return True

    def _jitter(self) -> float:
        return 1.0 + JITTER * (2.0 * self._chance() - 1.0)

    def _transmit(self, asked: _Request, now: float) -> None:
        asked.at = now + asked.timeout
        heapq.heappush(self._timers, (asked.at, asked.token))
        self._out.append(Send(asked.line, asked.channel, asked.octets))

    def _again(self, asked: _Request, now: float) -> None:
        asked.left -= 1
        asked.timeout = min(asked.timeout * (1.0 + self._jitter()), MAX_TIMEOUT_S)
        self.lines[asked.line].figures.retransmits += 1
        self._transmit(asked, now)

    def _next_line(self, asked: _Request, now: float, why: str) -> None:
        line = self.lines[asked.line]
        self._release(asked, now, answered=False)
        if asked.probe:
            del self._requests[asked.token]
            return
        line.figures.result("timeout")
        name = line.address.server
        self._advance(asked, now, f"RADIUS server {name}: {why} after {now - asked.started:.1f} s")

    def _release(self, asked: _Request, now: float, *, answered: bool) -> None:
        at, asked.line = asked.line, -1
        if not asked.octets:
            return  # it was held back: `_unhold` will pass it over
        line = self.lines[at]
        if not answered and asked.code == Code.ACCOUNTING_REQUEST:
            line.past[asked.channel, asked.number] = asked.token, asked.octets
        asked.octets = b""
        line.give_back(asked.channel, asked.number, now, answered=answered)
        self._unhold(at, now)

    def _unhold(self, at: int, now: float) -> None:
        """The next of those that were held back, as there is room for one."""
        line = self.lines[at]
        while line.held and not line.full:
            asked = self._requests.get(line.held.popleft())
            if asked is None or asked.line != at or asked.octets:
                continue
            if not self._begin(asked, at, now):
                self._advance(asked, now, "too many requests wait for an answer")

    # -- answers

    def _judge(self, line: Line, asked: _Request, packet: Packet) -> None:
        """Codes, and whether the Message-Authenticator may be missing (BlastRADIUS)."""
        if packet.code not in ANSWERS[asked.code]:
            raise RemoteError("unexpected_code", f"code {packet.code} answers {asked.code}")
        if packet.get(MESSAGE_AUTHENTICATOR) is not None:
            line.signs = True
            return
        if asked.code == Code.ACCOUNTING_REQUEST:
            return
        policy = line.address.signed
        strict = asked.strict or packet.get(A.EAP_MESSAGE) is not None
        # "auto": one that has shown that it can sign may not stop doing so.
        if strict or policy == "require" or (policy == "auto" and line.signs):
            raise RemoteError(
                "missing_message_authenticator",
                "the answer has no Message-Authenticator: have the server send it, or set"
                ' message_authenticator = "off" for it',
            )

    def note(self, at: int, error: RemoteError) -> None:
        """Count something bad in an answer; also for what the owner finds in it."""
        self.lines[at].figures.fault(error.fault)
        self._out.append(Faulty(at, error))

    # -- life and death of lines

    def _lives(self, at: int, now: float) -> None:
        line = self.lines[at]
        line.lost = 0
        line.heard_at = now
        if line.dead_since is not None:
            line.dead_since = None
            self._out.append(Changed(at, True, "it answers again"))

    def _dies(self, at: int, now: float, reason: str) -> None:
        line = self.lines[at]
        if line.alive:
            line.dead_since = line.tried_at = now
            line.figures.deaths += 1
            self._out.append(Changed(at, False, reason))
            line.probe_at = now + line.address.probe_interval_s
            heapq.heappush(self._timers, (line.probe_at, -at - 1))
        # Those with somewhere to go go at once; the others are sent again here.
        moving = [r for r in self._requests.values() if r.line == at and self._other(r)]
        for asked in moving:
            self._next_line(asked, now, reason)

    def _other(self, asked: _Request) -> bool:
        return asked.pinned < 0 and any(
            line.alive and line.address.kind == asked.kind and at not in asked.tried
            for at, line in enumerate(self.lines)
        )

    def _probe(self, at: int, now: float) -> None:
        line = self.lines[at]
        if line.alive:
            return
        line.probe_at = now + line.address.probe_interval_s * self._jitter()
        heapq.heappush(self._timers, (line.probe_at, -at - 1))
        if not line.address.probe:
            return
        token = self._next
        self._next += 1
        asked = _Request(
            token,
            line.address.kind,
            Code.STATUS_SERVER,
            lambda _secret, _random: (),
            now,
            at,
            strict=False,
            probe=True,
        )
        self._requests[token] = asked
        tried_at = line.tried_at
        if not self._begin(asked, at, now):
            del self._requests[token]
        line.tried_at = tried_at
