"""A PPTP server for one client session, in memory: control messages and a real Link.

What the wire would carry is passed as values: control octets both ways, PPP frames both
ways. Keys that both ends install are kept for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    ClearRequest,
    DisconnectNotify,
    OutgoingReply,
    OutgoingRequest,
    OutgoingResult,
    StartReply,
    StartRequest,
    StopReply,
    StopRequest,
)
from workers.ppp import credentials
from workers.ppp.actions import (
    Admission,
    Authenticate,
    Finished,
    NetworkUp,
    Policy,
    Send,
    SetMppe,
)
from workers.ppp.link import Link

PASSWORD = "opensesame"
LOCAL = 0x0A630001


@dataclass
class ServerEnd:
    """One control connection with one call."""

    address: int = 0x0A630101
    policy: Policy = field(default_factory=lambda: Policy(dns=(0x0A630035,)))
    refuse: int = 0  # result of the Outgoing-Call-Reply instead of 1
    silent: bool = False
    link: Link | None = None
    mppe: SetMppe | None = None
    finished: str = ""
    terminated: bool = False  # LCP Terminate-Request came
    stopped: bool = False
    up: bool = False
    call_id: int = 0x1041
    peer_call_id: int = -1
    framer: Framer = field(default_factory=Framer)

    def control(self, data: bytes) -> bytes:
        """Answer control octets."""
        if self.silent:
            return b""
        messages, error = self.framer.feed(data)
        assert error is None, error
        answer = b""
        for message in messages:
            match message:
                case StartRequest():
                    answer += StartReply().encode()
                case OutgoingRequest():
                    self.peer_call_id = message.call_id
                    result = self.refuse or OutgoingResult.CONNECTED
                    answer += OutgoingReply(self.call_id, message.call_id, result).encode()
                case ClearRequest():
                    answer += DisconnectNotify(self.call_id).encode()
                case StopRequest():
                    self.stopped = True
                    answer += StopReply().encode()
        return answer

    def frame(self, frame: bytes, now: float) -> list[bytes]:
        """Answer a PPP frame; the link begins with the first one."""
        frames: list[bytes] = []
        self.terminated |= frame.startswith(b"\xc0\x21\x05")
        if self.link is None:
            self.link = Link(self.policy, magic=0x5E5E5E5E, challenge=bytes(range(16)))
            self.link.start(now)
            frames += self.take(now)
        self.link.receive(frame, now)
        return frames + self.take(now)

    def take(self, now: float) -> list[bytes]:
        """Frames that the link wants sent, its questions answered."""
        assert self.link is not None
        frames = []
        while actions := self.link.take():
            for action in actions:
                match action:
                    case Send(frame):
                        frames.append(frame)
                    case Authenticate():
                        verdict = credentials.check(action, PASSWORD)
                        self.link.authenticated(verdict, now)
                    case Admission():
                        self.link.admitted(self.address, LOCAL, "", now)
                    case SetMppe():
                        self.mppe = action
                    case NetworkUp():
                        self.up = True
                    case Finished(cause):
                        self.finished = cause
        return frames
