"""plain.c from Python: built into a temporary folder, called without the interpreter's lock."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from ctypes import POINTER, byref, c_double, c_int, c_uint8, c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastpath import mppe
from tests.bench.results import BenchError

SOURCE: Final = Path(__file__).with_name("plain.c")
BITS: Final = 128
STRIDE: Final = 2048
SUPER: Final = 66000
SEGMENT: Final = 1360
INNER: Final = 1400


class Direction(ctypes.Structure):
    """Keys and counts of one direction of a call."""

    _fields_ = [
        ("start", c_uint8 * 16),
        ("key", c_uint8 * 16),
        ("seq", c_uint32),
        ("count", c_uint32),
    ]


class Session(ctypes.Structure):
    """One call as one of its ends sees it."""

    _fields_ = [
        ("up", Direction),
        ("down", Direction),
        ("inner", c_uint32),
        ("lan", c_uint32),
        ("peer", c_uint32),
        ("here", c_uint32),
        ("call_id", c_uint32),
        ("peer_call_id", c_uint32),
        ("tcp_seq", c_uint32),
        ("unacked", c_uint32),
    ]


class Counts(ctypes.Structure):
    """What a loop did, and the CPU time of its thread."""

    _fields_ = [
        ("packets", c_uint64),
        ("octets", c_uint64),
        ("calls", c_uint64),
        ("bad", c_uint64),
        ("cpu_ns", c_double),
    ]


@dataclass(frozen=True, slots=True)
class Call:
    """What both ends of a call know."""

    number: int
    inner: str
    lan: str
    peer: str
    here: str
    call_id: int
    peer_call_id: int

    @property
    def up_start(self) -> bytes:
        """The start key of what the client sends."""
        return bytes((self.number * 3 + k) & 255 for k in range(16))

    @property
    def down_start(self) -> bytes:
        """The start key of what the server sends."""
        return bytes((self.number * 5 + k + 128) & 255 for k in range(16))


def _network(address: str) -> int:
    """As the kernel has it in memory."""
    return int.from_bytes(socket.inet_aton(address), "little")


def _direction(start: bytes) -> Direction:
    key = mppe.initial_key(start, BITS)
    return Direction((c_uint8 * 16)(*start), (c_uint8 * 16)(*key), 0, 0)


def sessions(calls: Sequence[Call]) -> Any:
    """The calls as an array for the C side, all at their beginning."""
    made = (Session * len(calls))()
    for i, call in enumerate(calls):
        made[i] = Session(
            _direction(call.up_start),
            _direction(call.down_start),
            _network(call.inner),
            _network(call.lan),
            _network(call.peer),
            _network(call.here),
            call.call_id,
            call.peer_call_id,
            1,
            0,
        )
    return made


@dataclass(slots=True)
class Burst:
    """Frames ready to be sent."""

    data: Any
    at: Any
    sizes: Any
    count: int
    packets: int  # inner packets they are
    ahead: int = 0  # frames that wake the receiver, not counted in what sending costs

    @classmethod
    def empty(cls, count: int, stride: int, packets: int, ahead: int = 0) -> Burst:
        """Room for `count` frames."""
        data = (c_uint8 * (count * stride))()
        return cls(data, (c_uint32 * count)(), (c_uint32 * count)(), count, packets, ahead)

    def frames(self) -> list[bytes]:
        """The frames one by one."""
        whole = memoryview(self.data)
        return [bytes(whole[a : a + n]) for a, n in zip(self.at, self.sizes, strict=True)]


class Plain:
    """The C side."""

    def __init__(self) -> None:
        if shutil.which("gcc") is None:
            raise BenchError("gcc is missing: apt-get install gcc libssl3")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "plain.so")
            words = ["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
            done = subprocess.run(
                [*words, "-l:libcrypto.so.3"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise BenchError(f"plain.c does not build: {done.stderr.strip()[-500:]}")
            self.lib = ctypes.CDLL(str(target))
        for name in ("plain_cpu_ns", "plain_clock"):
            getattr(self.lib, name).restype = c_double
        size = self.lib.plain_session_size()
        if size != ctypes.sizeof(Session):
            raise BenchError(f"plain.c has {size} octets a session, plain.py another number")

    def cpu_ns(self) -> float:
        """CPU time of the calling thread."""
        return float(self.lib.plain_cpu_ns())

    def clock_ghz(self) -> float:
        """The core's clock now, by multiplications that wait for each other, 3 cycles each."""
        return float(self.lib.plain_clock())

    def make_up(
        self, made: Any, n: int, burst: Burst, *, run: int, encrypted: bool, ethernet: bytes
    ) -> None:
        """Fill a burst with packets of the first n clients, `run` of a session in a row."""
        self.lib.plain_make_up(
            *(made, c_uint32(n), c_uint32(burst.count), c_uint32(run)),
            *(c_int(encrypted), ethernet, burst.data, burst.at, burst.sizes),
        )

    def make_down(self, made: Any, n: int, burst: Burst, *, segments: int, ethernet: bytes) -> None:
        """Fill a burst with super-packets to the first n clients by turns."""
        self.lib.plain_make_down(
            *(made, c_uint32(n), c_uint32(burst.count), c_uint32(segments)),
            *(ethernet, burst.data, burst.at, burst.sizes),
        )

    def make_mix(
        self, made: Any, n: int, first: int, burst: Burst, *, up: bool, ethernet: bytes
    ) -> int:
        """Fill a burst with IMIX under MPPE, a packet of each session from `first` on: octets."""
        return int(
            self.lib.plain_make_mix(
                *(made, c_uint32(n), c_uint32(first), c_uint32(burst.count)),
                *(c_int(up), c_int(True), ethernet, burst.data, burst.at, burst.sizes),
            )
        )

    def inject(self, fd: int, burst: Burst, counts: Counts, *, nap_ns: int = 0) -> None:
        """Send a burst by a bound packet socket; a nap after those that go ahead."""
        code = self.lib.plain_inject(
            *(fd, burst.data, burst.at, burst.sizes, c_uint32(burst.count)),
            *(c_uint32(burst.ahead), c_uint32(nap_ns), byref(counts)),
        )
        if code:
            raise OSError(code, "the burst could not be sent")

    def pointers(self, made: Any, key: Sequence[int], places: int) -> Any:
        """A table from `key` (one for each session) to the session."""
        table = (POINTER(Session) * places)()
        for i, place in enumerate(key):
            table[place] = ctypes.pointer(made[i])
        return table

    def up(self, gre_fd: int, tun_fd: int, by_call: Any, encrypted: bool, counts: Counts) -> None:
        """The plain loop from the clients."""
        self.lib.plain_up(gre_fd, tun_fd, by_call, c_int(encrypted), byref(counts))

    def down(self, tun_fd: int, gre_fd: int, by_inner: Any, encrypted: bool, c: Counts) -> None:
        """The plain loop to the clients."""
        self.lib.plain_down(tun_fd, gre_fd, by_inner, c_int(encrypted), byref(c))

    def rc4(self, rounds: int) -> Counts:
        """RC4 over 1400 octets, so often."""
        counts = Counts()
        self.lib.plain_rc4(c_uint32(rounds), byref(counts))
        return counts
