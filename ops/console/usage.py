"""CPU and memory of our processes, from /proc; readable without privilege."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Stat:
    """What we use of /proc/PID/stat (proc(5))."""

    cpu: float  # user and system, seconds
    start: int  # in ticks after boot: tells a reused number from the old one
    virtual: int  # octets
    resident: int


def read_stat(pid: int, tid: int = 0) -> Stat | None:
    """Of a process (all its threads, ended ones too) or of one thread; None: it is gone."""
    path = f"/proc/{pid}/task/{tid}/stat" if tid else f"/proc/{pid}/stat"
    try:
        with open(path, "rb") as file:
            text = file.read()
        # The name may hold spaces and parentheses: fields count from the last one.
        fields = text[text.rindex(b")") + 2 :].split()
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        return Stat(cpu, int(fields[19]), int(fields[20]), int(fields[21]) * PAGE)
    except (OSError, ValueError, IndexError):
        return None


def memory(pids: list[int]) -> tuple[int, int]:
    """(resident, virtual) octets of several processes; what they share counts once."""
    private = shared = virtual = 0
    for pid in pids:
        fields: dict[bytes, int] = {}
        try:
            with open(f"/proc/{pid}/status", "rb") as file:
                for line in file:
                    key, _, rest = line.partition(b":")
                    if key in (b"RssAnon", b"RssShmem", b"VmSize"):
                        fields[key] = int(rest.split()[0]) * 1024
        except (OSError, ValueError, IndexError):
            continue
        private += fields.get(b"RssAnon", 0)
        shared = max(shared, fields.get(b"RssShmem", 0))
        virtual += fields.get(b"VmSize", 0)
    return private + shared, virtual


@dataclass(slots=True)
class Meter:
    """CPU seconds of a role through the lives of the processes that fill it: never goes back.

    What a process used between the last reading and its death is lost.
    """

    base: float = 0.0  # of those that are gone
    last: float = 0.0
    identity: tuple[int, int] | None = None

    def read(self, identity: tuple[int, int] | None, cpu: float) -> float:
        """`identity` (pid, start) of who fills the role now, None for nobody; its CPU."""
        if identity is not None and identity != self.identity:
            self.base += self.last
            self.last = 0.0
            self.identity = identity
        if identity is not None:
            # Two files read one after the other may differ by a tick in the wrong direction.
            self.last = max(self.last, cpu)
        return round(self.base + self.last, 2)  # ticks; sums of floats show noise


@dataclass(slots=True)
class Usage:
    """Meters of all roles."""

    meters: dict[tuple[str, str], Meter] = field(default_factory=dict)

    def process(self, role: str, pid: int) -> float:
        """CPU seconds of a process without threads of interest."""
        stat = read_stat(pid) if pid else None
        return self._meter(role, "").read(
            (pid, stat.start) if stat else None, stat.cpu if stat else 0.0
        )

    def worker(self, worker: int, pid: int, data_tid: int) -> tuple[float, float]:
        """CPU seconds of (data thread, all other threads) of a worker."""
        whole = read_stat(pid) if pid else None
        thread = read_stat(pid, data_tid) if whole and data_tid else None
        identity = (pid, whole.start) if whole else None
        data, rest = (
            self._meter(f"worker-{worker}", "data"),
            self._meter(f"worker-{worker}", "rest"),
        )
        # No thread: not begun, or ended while its process goes on: its CPU stays in the whole.
        before = data.last if data.identity == identity else 0.0
        used = thread.cpu if thread else before
        return data.read(identity, used), rest.read(identity, whole.cpu - used if whole else 0.0)

    def _meter(self, role: str, thread: str) -> Meter:
        return self.meters.setdefault((role, thread), Meter())
