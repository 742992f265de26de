"""Two links on a simulated wire: delay, loss, duplication; time is a number."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgpack

from workers.ppp.actions import (
    Action,
    Admission,
    Authenticate,
    Finished,
    Network6Down,
    Network6Up,
    NetworkDown,
    NetworkUp,
    Policy,
    Send,
    SetMppe,
)
from workers.ppp.credentials import check
from workers.ppp.link import Link

ADDRESS = 0x0A630102
LOCAL = 0x0A630001
FROZEN_MAX = 1400


def freeze_and_thaw(link: Link) -> Link:
    """As the session table keeps it."""
    packed = msgpack.packb(link.freeze())
    assert len(packed) < FROZEN_MAX
    return Link.thaw(link.policy, msgpack.unpackb(packed))


@dataclass
class End:
    """One side, with the owner's part played plainly."""

    link: Link
    password: str = "secret"
    refusal: str = ""
    freezing: bool = False
    log: list[Action] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    mppe: SetMppe | None = None
    up: NetworkUp | None = None
    six: Network6Up | None = None
    finished: Finished | None = None
    authentications: int = 0
    admissions: int = 0

    def act(self, now: float) -> list[bytes]:
        """Carry out all actions; the frames to send."""
        frames: list[bytes] = []
        while actions := self.link.take():
            for action in actions:
                assert self.finished is None, f"{action} after Finished"
                self.log.append(action)
                match action:
                    case Send(frame):
                        frames.append(frame)
                    case Authenticate():
                        self.authentications += 1
                        verdict = check(action, self.password)
                        if verdict.ok:
                            verdict = replace(verdict, user=action.name)
                        self.link.authenticated(verdict, now)
                    case Admission():
                        self.admissions += 1
                        self.link.admitted(ADDRESS, LOCAL, self.refusal, now)
                    case SetMppe():
                        assert self.up is None, "keys change while data flows"
                        self.mppe = action
                    case Network6Up():
                        assert self.up is not None and self.six is None
                        self.six = action
                    case Network6Down():
                        assert self.up is not None and self.six is not None
                        self.six = None
                    case NetworkUp():
                        assert self.up is None
                        self.up = action
                    case NetworkDown():
                        assert self.up is not None and self.six is None
                        self.up = None
                    case Finished():
                        assert self.up is None
                        self.finished = action
                    case _:
                        pass
        self.sent.extend(frames)
        if self.freezing and self.link.state == "active":
            self.link = freeze_and_thaw(self.link)
        return frames


@dataclass
class Wire:
    """Carries frames between ends and runs their timers."""

    ends: tuple[End, End]
    delay: float = 0.01
    loss: float = 0.0
    duplicate: float = 0.0
    seed: int = 0
    now: float = 1000.0
    tap: Callable[[int, bytes, float], None] | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.queue: list[tuple[float, int, int, bytes]] = []
        self.number = 0

    def carry(self, side: int) -> None:
        """Send what end `side` has to say."""
        for frame in self.ends[side].act(self.now):
            copies = 1 + (self.random.random() < self.duplicate)
            for _ in range(copies):
                if self.random.random() >= self.loss:
                    self.number += 1
                    at = self.now + self.delay
                    heapq.heappush(self.queue, (at, self.number, 1 - side, frame))

    def start(self) -> None:
        for side in (0, 1):
            self.ends[side].link.start(self.now)
            self.carry(side)

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Go on until nothing is left, `until`, or `stop()`."""
        while stop is None or not stop():
            times = [
                at for e in self.ends for at in (e.link.deadline, e.link.wake_at) if at is not None
            ]
            if self.queue:
                times.append(self.queue[0][0])
            if not times or min(times) > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, min(times))
            while self.queue and self.queue[0][0] <= self.now:
                _, _, side, frame = heapq.heappop(self.queue)
                self.ends[side].link.receive(frame, self.now)
                self.carry(side)
            for side in (0, 1):
                link = self.ends[side].link
                if any(at is not None and at <= self.now for at in (link.deadline, link.wake_at)):
                    self.ends[side].link.handle_timer(self.now)
                    self.carry(side)


def pair(server: Policy, client: Policy, **keys: object) -> tuple[End, End, Wire]:
    """Server end, client end, and the wire between them."""
    one = End(Link(server, magic=0x11111111, challenge=bytes(range(16))))
    two = End(Link(client, magic=0x22222222, challenge=bytes(range(16, 32))))
    wire = Wire((one, two), **keys)  # type: ignore[arg-type]
    return one, two, wire
