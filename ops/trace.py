"""What happens to a session, told to who traces it, by RUN_DIR/trace.sock.

Leaf module. The console listens there; dispatcher and workers connect and send while it has a
trace open (SOCK_SEQPACKET: of datagrams Linux queues no more than ten). Nobody waits: what the
buffer does not take is counted, and the next datagram tells how much was left out. Passwords
and responses are blotted out by who sends (workers.ppp.words.blotted): the socket carries none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgpack

from ops.messages import Traced
from ops.ranges import format_address

SOCKET: Final = "trace.sock"
TRACES_MAX: Final = 8  # at once
DATAGRAM_MAX: Final = 4096
BUFFER: Final = 1 << 20
BY: Final = ("sid", "username", "ip", "csid")

FROM_CLIENT: Final = 0
TO_CLIENT: Final = 1
NOTE: Final = 2  # no frame: `octets` is a sentence

PPTP: Final = 0  # in place of a PPP protocol: octets of the control connection


@dataclass(frozen=True, slots=True)
class Told:
    """One datagram."""

    trace: int
    time: float  # Unix
    sid: str  # "": a control connection without a session yet
    user: str
    peer: str
    direction: int
    protocol: int  # PPP's, or PPTP
    octets: bytes
    lost: int  # datagrams and frames left out before this one


def unpack(data: bytes) -> Told:
    """ValueError: it is none."""
    try:
        return Told(*msgpack.unpackb(data, unicode_errors="surrogateescape"))
    except (TypeError, msgpack.exceptions.UnpackException) as e:
        raise ValueError(f"not a trace's datagram: {e}") from None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a session, or of a control connection, to choose by."""

    sid: str
    user: str
    ip: int
    peer: int
    settled: bool  # nothing of it becomes known later


def fits(trace: Traced, subject: Subject) -> bool | None:
    """Whether it is traced; None: that is not known yet."""
    _, by, value, _ = trace
    known = {
        "sid": subject.sid,
        "username": subject.user,
        "ip": format_address(subject.ip) if subject.ip else "",
        "csid": format_address(subject.peer),
    }[by]
    if known == value:
        return True
    return None if not known and not subject.settled else False


class Teller:
    """The sending end of one process."""

    def __init__(self, run_dir: str) -> None:
        self._path = f"{run_dir}/{SOCKET}"
        self._socket: socket.socket | None = None
        self._lost: dict[int, int] = {}
        self.traces: tuple[Traced, ...] = ()
        self.deaf = False  # nobody has the socket any more

    def set(self, traces: Iterable[Traced]) -> None:
        """All there are."""
        self.traces = tuple(traces)
        self.deaf = False
        numbers = {trace[0] for trace in self.traces}
        self._lost = {n: lost for n, lost in self._lost.items() if n in numbers}
        if not self.traces:
            self._close()

    def of(self, subject: Subject) -> Iterator[Traced]:
        """The traces it is in."""
        return (trace for trace in self.traces if fits(trace, subject))

    def tell(
        self,
        trace: Traced,
        subject: Subject,
        direction: int,
        protocol: int,
        octets: bytes,
        lost: int = 0,
        at: float | None = None,
    ) -> None:
        """One datagram for one trace."""
        number = trace[0]
        lost += self._lost.pop(number, 0)
        told = [
            number,
            time.time() if at is None else at,
            subject.sid,
            subject.user,
            format_address(subject.peer),
            direction,
            protocol,
            octets[:DATAGRAM_MAX],
            lost,
        ]
        if not self._send(msgpack.packb(told, unicode_errors="surrogateescape")):
            self._lost[number] = lost + 1

    def note(self, subject: Subject, text: str) -> None:
        """A sentence for all traces it is in."""
        for trace in self.of(subject):
            self.tell(trace, subject, NOTE, PPTP, text.encode("utf-8", "surrogateescape"))

    def probe(self) -> None:
        """Find out whether somebody has the socket still (`deaf`); a reader that does not
        know the number says Unwatch."""
        nobody = Subject("", "", 0, 0, True)
        for trace in self.traces:
            self.tell(trace, nobody, NOTE, PPTP, b"")

    def _send(self, data: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = self._connected()
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            self.deaf = True
            self._close()
            return False
        return True

    def _connected(self) -> socket.socket:
        sock = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
