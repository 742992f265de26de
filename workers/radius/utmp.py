"""utmp and wtmp, utmp(5): who(1) and last(1) show subscribers.

A record's line is the session's name, which is used once: it says whose record it is. Files
are written with the lock that the C library takes; a place in utmp is found once at the
start, then known. Whoever is killed leaves records behind: `sweep` ends those of
concentrators that are gone, and no others.
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ops.hook_event import NAME

USER_PROCESS: Final = 7
DEAD_PROCESS: Final = 8
# bits/utmp.h. Of 64 bit machines x86 alone keeps the sizes it had with 32.
NARROW: Final = platform.machine() in ("x86_64", "AMD64")
RECORD: Final = struct.Struct("=hxxi32s4s32s256shh" + ("iII16s20s" if NARROW else "qqq16s20s4x"))
SIZE: Final = RECORD.size
LOOK_BACK: Final = 1 << 26  # octets of wtmp that are searched for logins without an end
LOCK_S: Final = 0.2  # for the file's lock; beyond that the record is not written
BOOT_SLACK_S: Final = 120.0


class Utmp:
    """Both files, either of which may be "" or missing: then it is not written."""

    def __init__(self, utmp: str, wtmp: str, pid: int, *, strip_domain: bool = False) -> None:
        """`pid`: of the keeper, so that who(1) knows a record of a dead one by itself."""
        self.utmp, self.wtmp = utmp, wtmp
        self.strip_domain = strip_domain
        self.failures: list[str] = []  # since the owner looked
        self._pid = pid
        self._places: dict[str, int] = {}  # line to offset in utmp
        self._free: list[int] = []

    def login(self, line: str, user: str, host: str, when: float) -> None:
        """A session is up; said again it changes nothing."""
        if line in self._places:
            return
        if self.strip_domain:
            user = user.rpartition("\\")[2]
        data = pack(USER_PROCESS, self._pid, line, user, host, when)
        self._places[line] = -1
        if self.utmp:
            self._places[line] = self._put(line, data)
        self._append(data)

    def logout(self, line: str, when: float) -> None:
        """It is over."""
        place = self._places.pop(line, None)
        if place is None:
            return
        data = pack(DEAD_PROCESS, self._pid, line, "", "", when)
        if self.utmp and place >= 0 and self._write(place, data, line):
            self._free.append(place)
        self._append(data)

    def sweep(self, ended: Callable[[str], float | None], epoch: int) -> int:
        """End records of concentrators that are gone; take on those of this very instance.
        `ended`: when a session was seen last, by its line. How many were ended."""
        ghosts: dict[str, int] = {}
        for place, kind, pid, line in self._records():
            if not NAME.fullmatch(line):
                continue
            if kind == DEAD_PROCESS:
                self._free.append(place)
            elif kind == USER_PROCESS:
                if line.endswith(f".{epoch:08x}"):
                    self._places[line] = place
                elif not alive(pid, int(line[-8:], 16)):
                    ghosts[line] = place
        for line in self._open_in_wtmp():
            if line.endswith(f".{epoch:08x}"):
                self._places.setdefault(line, -1)
            else:
                ghosts.setdefault(line, -1)
        for line, place in ghosts.items():
            self._places[line] = place
            self.logout(line, ended(line) or time.time())
        return len(ghosts)

    @property
    def lines(self) -> set[str]:
        """Those that are logged in here."""
        return set(self._places)

    # -- inside

    def _fail(self, path: str, error: OSError) -> None:
        if len(self.failures) < 8:
            self.failures.append(f"{path}: {error.strerror or error}")

    def _records(self) -> list[tuple[int, int, int, str]]:
        try:
            data = Path(self.utmp).read_bytes() if self.utmp else b""
        except OSError as e:
            self._fail(self.utmp, e)
            return []
        return [(at, *_head(data, at)) for at in range(0, len(data) - SIZE + 1, SIZE)]

    def _open_in_wtmp(self) -> set[str]:
        """Lines of ours that logged in and not out, of concentrators that are gone or this one."""
        try:
            with open(self.wtmp or os.devnull, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - LOOK_BACK) // SIZE * SIZE)
                data = file.read(LOOK_BACK + SIZE)
        except OSError as e:
            self._fail(self.wtmp, e)
            return set()
        found: dict[str, int] = {}
        for at in range(0, len(data) - SIZE + 1, SIZE):
            kind, pid, line = _head(data, at)
            if kind == USER_PROCESS and NAME.fullmatch(line):
                found[line] = pid
            elif kind == DEAD_PROCESS:
                found.pop(line, None)
        return {
            line
            for line, pid in found.items()
            if pid == self._pid or not alive(pid, int(line[-8:], 16))
        }

    def _put(self, line: str, data: bytes) -> int:
        """Into a place that is free, else behind all; -1 if it failed."""
        while self._free:
            place = self._free.pop()
            if self._write(place, data, None):
                return place
        return self._write_end(self.utmp, data)

    def _append(self, data: bytes) -> None:
        if self.wtmp:
            self._write_end(self.wtmp, data)

    def _write_end(self, path: str, data: bytes) -> int:
        try:
            with open(path, "r+b", buffering=0) as file:
                _lock(file.fileno())
                place = os.fstat(file.fileno()).st_size // SIZE * SIZE
                os.pwrite(file.fileno(), data, place)
                return place
        except OSError as e:
            self._fail(path, e)
            return -1

    def _write(self, place: int, data: bytes, line: str | None) -> bool:
        """Over a record of ours: the one of `line`, or any that is over."""
        try:
            with open(self.utmp, "r+b", buffering=0) as file:
                _lock(file.fileno())
                before = os.pread(file.fileno(), SIZE, place)
                if len(before) < SIZE:
                    return False
                kind, _, name = _head(before, 0)
                fits = kind == DEAD_PROCESS if line is None else name == line
                if not fits or not NAME.fullmatch(name):
                    return False  # somebody has made another record of it
                os.pwrite(file.fileno(), data, place)
                return True
        except OSError as e:
            self._fail(self.utmp, e)
            return False


def pack(kind: int, pid: int, line: str, user: str, host: str, when: float) -> bytes:
    """One record; text that is too long is cut."""
    counter = int(line[4:].partition(".")[0], 16)
    try:
        address = socket.inet_aton(host)
    except OSError:
        address = b""
    return RECORD.pack(
        kind,
        pid,
        line.encode(),
        counter.to_bytes(4, "little"),
        # Names are strangers' octets, and who(1) prints them as they are on a terminal.
        "".join(c if c.isprintable() else "?" for c in user).encode(),
        host.encode(),
        0,
        0,
        0,
        int(when) & 0xFFFFFFFF,
        int(when % 1 * 1_000_000),
        address,
        b"",
    )


def _head(data: bytes, at: int) -> tuple[int, int, str]:
    kind, pid, line = struct.unpack_from("=hxxi32s", data, at)
    return kind, pid, line.partition(b"\0")[0].decode("ascii", "replace")


def _lock(fd: int) -> None:
    """The lock of the C library: of the whole file, for writing. Closing gives it back."""
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def alive(pid: int, epoch: int) -> bool:
    """Whether the keeper of this number that began then still runs."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        began = float(words[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False
    if words[0] == "Z":
        return False
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + began <= epoch + BOOT_SLACK_S
