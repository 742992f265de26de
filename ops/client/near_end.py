"""Traffic of the subscribers, for `pptpcon bench`: `python -m ops.client.near_end`.

Told on standard input, a JSON line each: first the sessions (flow and inner address) and
the far end, then steps of load. One UDP socket sends for all sessions, each datagram from
its session's address; TCP streams are bound to theirs. Answers are JSON lines: `tick` while
it goes, `done` with totals since the start, `account` on request.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TextIO

from ops.client.far_end import ANSWER, BUFFER, COUNTS, EXCHANGE, REPORT, REQUEST, Silent
from ops.client.mmsg import BATCH, IP_PKTINFO, MTU, Batch, network_order, overflows, widen
from ops.client.numbers import HEADER, IMIX, MAGIC, NUMBERED, Account, Way, settle
from ops.client.report import quantile
from ops.client.traffic import DOWN, HEADERS, UP, Bulk, Loop

PROFILES: Final = ("bulk", "imix", "numbered")
TURN: Final = 0.002  # seconds between bursts
LATE: Final = 0.05  # more than so much behind, and the rate is not kept: no burst makes up for it
QUIET: Final = 0.4  # nothing has come for so long: nothing is on its way
GRACE: Final = 5.0  # but no longer than this
TCP_SHARE: Final = 0.25  # of what IMIX begins, requests of small TCP
MAX_EXCHANGES: Final = 4096
ANSWER_PATIENCE: Final = 10.0
SAMPLES: Final = 200_000
NOTHING: Final = (0, *Account().seen())  # of a flow that the far end has not heard of
IP_MTU_DISCOVER: Final = 10  # linux/in.h
IP_PMTUDISC_DO: Final = 2


@dataclass(slots=True)
class Session:
    """A subscriber: the flow's number and address, and both accounts."""

    flow: int
    address: str
    number: int = 0  # the address as the kernel's structures hold it
    sent: int = 0
    account: Account = field(default_factory=Account)


@dataclass(slots=True)
class Exchanges:
    """Small TCP: a request, its answer, the next request."""

    loop: Loop
    stream: socket.socket
    waiting: int = 0  # octets of the answer that have not come; connecting: more than any
    answered: int = 0
    failed: bool = False
    _opened: bool = False

    def watch(self, target: tuple[str, int], source: str) -> None:
        """Connect, from this inner address."""
        self.stream.bind((source, 0))
        self.waiting = len(ANSWER) + 1
        self.loop.add(self.stream, select.EPOLLOUT, self.ready)
        self.stream.connect_ex(target)

    def ready(self, events: int) -> None:
        """Connected, or octets of an answer."""
        try:
            if not self._opened and events & select.EPOLLOUT:
                self.stream.send(EXCHANGE)
                self._opened = True
                self.waiting = 0
                self.loop.poll.modify(self.stream.fileno(), select.EPOLLIN)
                return
            data = self.stream.recv(65536)
            self.waiting -= len(data)
            self.loop.totals.tcp_received_octets += len(data)
            if data and self.waiting == 0:
                self.answered += 1
            if not data:
                self._broken()
        except BlockingIOError:
            return
        except OSError:
            self._broken()

    def _broken(self) -> None:
        self.failed = True
        self.loop.drop(self.stream)

    def ask(self) -> bool:
        """Send a request, if none is unanswered."""
        if self.failed or self.waiting:
            return False
        try:
            self.stream.send(REQUEST)
        except OSError:
            self._broken()
            return False
        self.waiting = len(ANSWER)
        return True


class NearEnd:
    """All sessions of one client process."""

    def __init__(
        self, loop: Loop, sessions: list[Session], target: tuple[str, int], output: TextIO
    ) -> None:
        self.loop = loop
        self.target = target
        self.sessions = sessions
        self.by_flow = {s.flow: s for s in sessions}
        self.refused = 0
        self.strange = 0
        self.misrouted = 0  # came to the address of another session
        self.requests = 0
        self.trips: list[float] = []
        self.exchanges: list[Exchanges] = []
        self._output = output
        self._turn = 0  # of the sessions: whose datagram is next
        self._place = 0  # the same of the exchanges
        self._received_at = 0.0
        self._tick_at = 0.0
        self._out, self._in = Batch(packet_info=True), Batch(packet_info=True)
        self._out.address(target)
        for session in sessions:
            session.number = network_order(session.address)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        widen(self.udp, BUFFER)
        self.udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        # Inner packets are not cut: what is too big is refused here and counted.
        self.udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        self.udp.bind(("0.0.0.0", 0))  # noqa: S104 - hears every inner address
        loop.add(self.udp, select.EPOLLIN, lambda _events: self._receive())

    # -- steps

    def step(self, profile: str, seconds: float, rate: float, streams: int) -> None:
        """Load for so long; `rate` counts datagrams and requests, a second."""
        now = start = time.monotonic()
        self.trips.clear()
        bulks = self._bulks(streams) if profile == "bulk" else []
        tcp = TCP_SHARE if profile == "imix" else 0.0
        if tcp and not self.exchanges:
            self._connect()
        sizes = tuple(s - HEADERS for s in (IMIX if profile == "imix" else NUMBERED))
        done, base = 0, start
        while not self.loop.stopping and now - start < seconds:
            due = int((now - base) * rate) if not bulks else 0
            if due - done > rate * LATE + BATCH:
                base += (due - done) / rate  # we can't keep up, and do not try to make up for it
                due = done
            while done < due:
                count = min(due - done, BATCH)
                asked = self._ask(int((done + count) * tcp) - int(done * tcp)) if tcp else 0
                self._burst(count - asked, sizes)
                done += count
                self.loop.turn(0)
            self.loop.turn(TURN)
            now = time.monotonic()
            self._tick(now)
        for bulk in bulks:
            if bulk.stream.fileno() >= 0:
                self.loop.drop(bulk.stream)
        spent = now - start
        self._settle(now)
        self._say(
            "done",
            seconds=spent,
            trips_ms=[1000 * quantile(self.trips, q) for q in (0.5, 0.95, 0.99)],
            requests=self.requests,
            answers=sum(e.answered for e in self.exchanges),
            tcp_failed=self.loop.totals.tcp_failed + sum(e.failed for e in self.exchanges),
        )

    def _settle(self, now: float) -> None:
        """Until nothing comes any more."""
        self._received_at = now
        until = now + GRACE
        while not self.loop.stopping and now < min(until, self._received_at + QUIET):
            self.loop.turn(TURN)
            now = time.monotonic()
            self._tick(now)

    def _bulks(self, streams: int) -> list[Bulk]:
        """TCP streams, half of them each way, by turns over the sessions."""
        bulks = []
        for i in range(streams):
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            stream.bind((self.sessions[i // 2 % len(self.sessions)].address, 0))
            stream.setblocking(False)
            stream.connect_ex(self.target)
            bulk = Bulk(self.loop, stream, sends=i % 2 == 0)
            bulk.first = UP if bulk.sends else DOWN
            bulk.watch()
            bulks.append(bulk)
        return bulks

    def _connect(self) -> None:
        for session in self.sessions[:MAX_EXCHANGES]:
            exchange = Exchanges(self.loop, socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            self.exchanges.append(exchange)
            try:
                exchange.watch(self.target, session.address)
            except OSError:
                exchange.failed = True

    def _ask(self, count: int) -> int:
        """So many requests, by turns; those whose turn has no answer yet are passed over."""
        asked = 0
        for _ in range(count):
            asked += self.exchanges[self._place % len(self.exchanges)].ask()
            self._place += 1
        self.requests += asked
        return asked

    def _burst(self, count: int, sizes: tuple[int, ...]) -> None:
        sessions, out, first = self.sessions, self._out, self._turn
        now = time.monotonic()
        for i in range(count):
            turn, place = divmod(first + i, len(sessions))
            session = sessions[place]
            HEADER.pack_into(out.data, i * MTU, MAGIC, session.flow, session.sent, 0, now)
            # A size for each turn through the sessions, so that all see every size.
            out.put(i, sizes[(turn + place) % len(sizes)], session.number)
            session.sent += 1
        reached = out.send(self.udp, 0, count)
        for i in range(reached, count):  # not sent: its number is given again
            sessions[(first + i) % len(sessions)].sent -= 1
        self._turn += reached
        if reached < count:  # that one's session is gone, perhaps: the next has its turn
            self.refused += 1
            self._turn += 1

    def _receive(self) -> None:
        batch = self._in
        for _ in range(8):
            taken = batch.receive(self.udp)
            if not taken:
                return
            for i in range(taken):
                octets = batch.length(i)
                magic, flow, _, number, _ = HEADER.unpack_from(batch.data, i * MTU)
                session = self.by_flow.get(flow) if magic == MAGIC else None
                if session is None or octets < HEADER.size:
                    self.strange += 1
                elif batch.destination(i) != session.number:
                    self.misrouted += 1
                elif not session.account.take(number, octets + HEADERS):
                    self.strange += 1
            self._received_at = time.monotonic()
            if len(self.trips) < SAMPLES:
                magic, *_, stamp = HEADER.unpack_from(batch.data, 0)
                if magic == MAGIC:
                    self.trips.append(self._received_at - stamp)
            if taken < BATCH:
                return

    # -- what is said

    def _tick(self, now: float) -> None:
        if now < self._tick_at:
            return
        self._tick_at = now + 1.0
        self._say(
            "tick",
            sent=sum(s.sent for s in self.sessions),
            received=sum(s.account.received for s in self.sessions),
            round_trip_ms=1000 * quantile(self.trips[-1000:], 0.5),
        )

    def account(self) -> None:
        """Ask the far end, and put both ends' accounts together."""
        try:
            there = self._ask_far_end()
        except (OSError, ValueError) as e:
            self._say("trouble", reason=f"no account of {self.target[0]}: {e}")
            return
        up, down = Way(), Way()
        for session in self.sessions:
            sent, *seen = there["flows"].get(str(session.flow), NOTHING)
            up += settle(session.sent, seen)
            down += settle(sent, session.account.seen())
        self._say(
            "account",
            up=asdict(up),
            down=asdict(down),
            far={name: there[name] for name in COUNTS},
            near={
                "strange": self.strange,
                "misrouted": self.misrouted,
                "refused": self.refused,
                "overflows": overflows(self.udp),
                "tcp_octets": self.loop.totals.tcp_received_octets,
            },
        )

    def _ask_far_end(self) -> dict[str, Any]:
        with socket.create_connection(
            self.target, ANSWER_PATIENCE, source_address=(self.sessions[0].address, 0)
        ) as stream:
            stream.sendall(REPORT)
            text = b"".join(iter(lambda: stream.recv(1 << 20), b""))
        answer = json.loads(text)
        if not isinstance(answer, dict) or not {"flows", *COUNTS} <= answer.keys():
            raise ValueError("that is no far end of this version")
        return answer

    def _say(self, event: str, **fields: object) -> None:
        try:
            print(json.dumps({"event": event, **fields}), file=self._output, flush=True)
        except BrokenPipeError:
            self.loop.stopping = True


def serve(loop: Loop, commands: TextIO, output: TextIO) -> None:
    """Carry out what is asked, until there is no more."""
    first = json.loads(commands.readline())
    sessions = [Session(flow, address) for flow, address in first["sessions"]]
    near = NearEnd(loop, sessions, (first["target"][0], first["target"][1]), output)
    for text in commands:
        command = json.loads(text)
        if command["do"] == "account":
            near.account()
        else:
            near.step(command["do"], command["seconds"], command["rate"], command.get("streams", 0))
        if loop.stopping:
            return


if __name__ == "__main__":
    serve(Silent(), sys.stdin, sys.stdout)
