"""One concentrator per run folder: the lock, what a dead predecessor left, who has a port.

A file is never believed by itself. The lock is the kernel's (flock): held means a live
owner. A process named in a file counts only if its start time agrees, so a number that
was given to someone else since is left alone.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import json
import os
import pwd
import signal
import socket
import stat
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dispatcher.descriptors import UnavailableError
from ops.log import Log

SOCKETS: Final = ("bus.sock", "control.sock", "trace.sock")
OURS: Final = (*SOCKETS, "state.json", "lock")
RUN_MODE: Final = 0o1775
STATE_LIMIT: Final = 65536
SIBLING_AGE_S: Final = 60.0
HOLDER_WAIT: Final = 2.0  # seconds a dying process may take to give its TUN back
KEEPER_MODULE: Final = b"dispatcher.keeper"
TCP_LISTEN: Final = "0A"


# -- processes


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can't be mistaken for a later one with the same number."""

    pid: int
    started: int  # field 22 of /proc/PID/stat: clock ticks since boot

    @property
    def alive(self) -> bool:
        """Is it this very process that has the number now, and does it still run?"""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none or it is a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] in "ZX" else int(words[19])


def boot_id() -> str:
    """Differs after each boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def command(pid: int) -> str:
    """A short name for a process: ours by its module, any other by its command."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if KEEPER_MODULE in words:
            return "pptpcon"
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


# -- who has the port


def _listening(path: str, port: int) -> Iterable[tuple[str, str]]:
    """(local address, socket inode) of listeners on `port` in /proc/net/tcp or tcp6."""
    try:
        lines = Path(path).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        address, _, number = words[1].partition(":")
        if words[3] == TCP_LISTEN and int(number, 16) == port:
            yield address, words[9]


def port_owner(address: str, port: int) -> int:
    """The process that listens where `address`:`port` would; 0 if it can't be seen."""
    own = int.from_bytes(socket.inet_aton(address), "little")
    inodes = set()
    for theirs, inode in _listening("/proc/net/tcp", port):
        if 0 in (own, int(theirs, 16)) or own == int(theirs, 16):
            inodes.add(f"socket:[{inode}]")
    for theirs, inode in _listening("/proc/net/tcp6", port):
        if int(theirs, 16) == 0 or own == 0 or theirs.endswith(f"{own:08X}"):
            inodes.add(f"socket:[{inode}]")
    if not inodes:
        return 0
    # A socket that a parent shares with its children is the parent's: lowest start time.
    owners = [pid for pid in _processes() if inodes & _open_files(pid)]
    return min(owners, key=start_time, default=0)


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue
    except OSError:
        pass
    return found


def address_trouble(address: str, port: int, error: OSError) -> str:
    """What to tell the user when the listener can't be opened."""
    if error.errno == errno.EADDRINUSE:
        pid = port_owner(address, port)
        if not pid:
            return (
                f"address {address}:{port} is taken by a process that can't be seen from here; "
                f"`ss -ltnp sport = :{port}` on the host names it; stop it, or set listen.address"
            )
        name = command(pid)
        if name == "pptpcon":
            return (
                f"address {address}:{port} is taken by another pptpcon (pid {pid}); "
                f"`pptpcon show stat` asks it, `kill {pid}` stops it; "
                "to run a second one give it its own listen.address"
            )
        return (
            f"address {address}:{port} is taken by {name} (pid {pid}); "
            f"stop it (`systemctl stop {name}` or `kill {pid}`), or set listen.address to an "
            "address it does not use"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"address {address} is not on this host; set listen.address to one that "
            "`ip -brief address` shows, or to 0.0.0.0"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs root; run it as root or set listen.port to 1024 or more"
    return f"can't listen on {address}:{port}: {os.strerror(error.errno or 0)}"


# -- the run folder


@dataclass(frozen=True, slots=True)
class State:
    """What exists because of us, for the next start to find after a SIGKILL."""

    boot: str
    keeper: Process
    children: tuple[Process, ...] = ()
    tuns: tuple[str, ...] = ()


def _state_of(data: Any) -> State | None:
    """A State from untrusted JSON; None if it has another shape."""
    try:
        children = tuple(Process(int(c["pid"]), int(c["started"])) for c in data["children"])
        keeper = Process(int(data["keeper"]["pid"]), int(data["keeper"]["started"]))
        return State(str(data["boot"]), keeper, children, tuple(str(name) for name in data["tuns"]))
    except (KeyError, TypeError, ValueError):
        return None


class Instance:
    """The run folder of a running keeper. `enter` makes or takes it, `leave` empties it."""

    def __init__(self, run_dir: str, log: Log) -> None:
        self.path = Path(run_dir)
        self._log = log
        self._lock_fd = -1
        self._written: State | None = None

    def enter(self, user: str) -> None:
        """Make the folder, take the lock, sweep. UnavailableError if another one lives here."""
        self._make(user)
        self._lock()
        self._sweep()

    def _make(self, user: str) -> None:
        """The dispatcher, as `user`, makes its socket here; all else in it is root's.

        With the sticky bit the group may add files, and remove none of ours.
        """
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            found = os.lstat(self.path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                raise UnavailableError(f"server.run_dir {self.path} is no folder of root's")
            if set(os.listdir(self.path)).difference(OURS):
                raise UnavailableError(
                    f"server.run_dir {self.path} holds other files; name a folder of its own"
                )
            if os.geteuid() == 0 and user:
                os.chown(self.path, 0, _group_of(user), follow_symlinks=False)
                os.chmod(self.path, RUN_MODE)
        except OSError as e:
            raise UnavailableError(
                f"run folder {self.path}: {os.strerror(e.errno or 0)}; set server.run_dir to a "
                "folder that can be written"
            ) from None

    def _lock(self) -> None:
        path = self.path / "lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o644)
        except OSError as e:
            raise UnavailableError(
                f"lock {path}: {os.strerror(e.errno or 0)}; remove that file"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 64, 0).split()
            os.close(fd)
            pid = int(owner[0]) if owner and owner[0].isdigit() else 0
            who = f"{command(pid)} (pid {pid})" if pid else "another pptpcon"
            raise UnavailableError(
                f"run folder {self.path} is in use by {who}; `kill {pid or 'PID'}` stops it; to "
                "run a second one give it its own server.run_dir and listen.address"
            ) from None
        try:
            same = os.path.samestat(os.fstat(fd), os.lstat(path))
        except OSError:
            same = False
        if not same:  # its owner left, and removed the file, between our two calls
            os.close(fd)
            self._lock()
            return
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} {start_time(os.getpid())}\n".encode(), 0)
        self._lock_fd = fd

    # -- what a dead predecessor left

    def _read_state(self) -> State | None:
        try:
            fd = os.open(self.path / "state.json", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
                self._log.warning("state file ignored", file=str(self.path), owner=found.st_uid)
                return None
            state = _state_of(json.loads(os.read(fd, STATE_LIMIT)))
        except (OSError, ValueError):
            state = None
        finally:
            os.close(fd)
        if state is None:
            self._log.warning("state file unreadable", file=str(self.path / "state.json"))
        return state

    def _sweep(self) -> None:
        state = self._read_state()
        if state is not None:
            if state.boot == boot_id():
                self._sweep_processes(state)
                self._sweep_tuns(state.tuns)
            self._log.notice("predecessor swept", pid=state.keeper.pid)
        for name in (*SOCKETS, "state.json"):
            self._remove(name)

    def _sweep_processes(self, state: State) -> None:
        """End children that outlived their keeper. We hold its lock, so it is dead or stuck."""
        for process in (state.keeper, *state.children):
            if process.pid == os.getpid() or not process.alive:
                continue
            self._log.warning("left-over process killed", pid=process.pid)
            try:
                fd = os.pidfd_open(process.pid)
            except OSError:
                continue
            try:
                # The number could have changed hands between the check and pidfd_open.
                if process.alive:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(fd)

    def _sweep_tuns(self, names: tuple[str, ...]) -> None:
        """TUNs go with their last descriptor; wait for that, and say who holds one."""
        ends = time.monotonic() + HOLDER_WAIT
        present = {name for _, name in socket.if_nameindex()}
        left = [name for name in names if name in present]
        while left and time.monotonic() < ends:
            time.sleep(0.02)
            present = {name for _, name in socket.if_nameindex()}
            left = [name for name in left if name in present]
        for name in left:
            holder = tun_holder(name)
            self._log.warning(
                "left-over device stays",
                device=name,
                holder=f"{command(holder)} (pid {holder})" if holder else "unknown",
                advice=f"ip link delete {name}",
            )

    # -- our own traces

    def record(self, children: Iterable[int], tuns: Iterable[str]) -> None:
        """Write down what the next start must find if we are killed."""
        state = State(
            boot_id(),
            Process(os.getpid(), start_time(os.getpid())),
            tuple(Process(pid, start_time(pid)) for pid in children if pid),
            tuple(tuns),
        )
        if state == self._written:
            return
        path = self.path / "state.json"
        new = self.path / f"state.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(new, flags, 0o644)
            try:
                os.write(fd, json.dumps(asdict(state)).encode())
            finally:
                os.close(fd)
            os.rename(new, path)
            self._written = state
        except OSError as e:
            self._log.warning("state file not written", file=str(path), error=e.strerror)

    def control_socket(self) -> socket.socket:
        """The listening socket of `pptpcon show`: root's, and group pptpcon's if there is one."""
        path = self.path / "control.sock"
        self._remove("control.sock")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o117)
        try:
            sock.bind(str(path))
            sock.listen(64)
            sock.setblocking(False)
            try:
                os.chown(path, -1, grp.getgrnam("pptpcon").gr_gid)
            except (KeyError, PermissionError):
                pass
        except OSError as e:
            sock.close()
            raise UnavailableError(
                f"{path}: {os.strerror(e.errno or 0)}; set server.run_dir to a shorter or "
                "writable path"
            ) from None
        finally:
            os.umask(before)
        return sock

    def _remove(self, name: str) -> None:
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            pass
        except OSError as e:
            self._log.warning("not removed", file=str(self.path / name), error=e.strerror)

    def leave(self) -> None:
        """Remove what `enter` and the children made. The lock goes last."""
        if self._lock_fd < 0:
            return
        for name in OURS:
            self._remove(name)
        try:
            self.path.rmdir()
        except OSError:
            pass  # systemd's RuntimeDirectory, or somebody's own files
        os.close(self._lock_fd)
        self._lock_fd = -1


def sweep_siblings(base: str, log: Log) -> None:
    """Remove run folders of instances that were killed in namespaces long gone.

    Only what has our files and nothing else, is not locked, and whose keeper is dead. A
    folder younger than a minute may belong to one that is just starting.
    """
    for path in Path(base).parent.glob(f"{Path(base).name}-*"):
        if not path.name.rpartition("-")[2].isdigit():
            continue
        try:
            if set(os.listdir(path)).difference(OURS) or path.stat().st_uid != os.geteuid():
                continue
            fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(fd).st_mtime < SIBLING_AGE_S:
                continue
            for name in OURS:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
            log.info("run folder of a dead instance removed", folder=str(path))
        except OSError:
            continue
        finally:
            os.close(fd)


def tun_holder(name: str) -> int:
    """The process that has the TUN device open, 0 if none is seen."""
    wanted = f"iff:\t{name}"
    for pid in _processes():
        try:
            for fd in os.listdir(f"/proc/{pid}/fdinfo"):
                if wanted in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines():
                    return pid
        except OSError:
            continue
    return 0


def _group_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return pwd.getpwnam("nobody").pw_gid
