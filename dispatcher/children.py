"""The keeper's children: starting one with its boot memfd, judging when to start another.

ARCHITECTURE.md, "Boot contract". A child gets exactly the descriptors it is to have;
it is killed by the kernel when the keeper dies (netops is not: it sees the end of its
keeper socket and takes its routes back).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dispatcher.descriptors import SO_SNDBUFFORCE
from ops import boot
from ops.log import Log
from ops.settings import Settings

ROOT: Final = str(Path(__file__).resolve().parent.parent)
PR_SET_PDEATHSIG: Final = 1
KEEPER_BUFFER: Final = 4 << 20  # settings with many accounts go in one datagram
MESSAGE_MAX: Final = 65536
QUICK_DEATH_S: Final = 5.0
WAITS_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
POISON_WITHIN_S: Final = 60.0
POISON_DEATHS: Final = 2
NAMED_S: Final = 600.0

Fds = dict[str, int | list[int]]


@dataclass(frozen=True, slots=True)
class Role:
    """What to start. `vital`: without it at start there is no service."""

    name: str  # netops, dispatcher, worker-0, ..., console
    kind: str
    module: str
    index: int = 0
    nice: int = 0
    vital: bool = True
    dies_with_keeper: bool = True


@dataclass(slots=True)
class Waits:
    """How long to wait before the next start: not at all, unless deaths follow each other."""

    _quick: int = 0

    def died(self, lived_s: float) -> float:
        """The wait in seconds after a death at this age."""
        self._quick = self._quick + 1 if lived_s < QUICK_DEATH_S else 0
        return WAITS_S[min(max(self._quick - 1, 0), len(WAITS_S) - 1)]


@dataclass(slots=True)
class Poison:
    """Sessions during whose packets a worker died twice within a minute."""

    _deaths: dict[int, list[float]] = field(default_factory=dict)
    _guilty: dict[int, float] = field(default_factory=dict)

    def died(self, sid: int, now: float) -> bool:
        """A worker died with this session in hand; True if it is to be ended."""
        if not sid:
            return False
        # Old entries go, so that the table stays as small as the trouble is.
        for other in list(self._deaths):
            recent = [at for at in self._deaths[other] if now - at < POISON_WITHIN_S]
            if recent:
                self._deaths[other] = recent
            else:
                del self._deaths[other]
        times = self._deaths.setdefault(sid, [])
        times.append(now)
        if len(times) < POISON_DEATHS:
            return False
        self._guilty[sid] = now
        return True

    def named(self, now: float) -> list[int]:
        """Those found guilty, for every successor that may still meet them."""
        self._guilty = {s: at for s, at in self._guilty.items() if now - at < NAMED_S}
        return list(self._guilty)


def environment() -> dict[str, str]:
    """The children's environment: our package first, nothing of systemd's protocol."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFY_", "WATCHDOG_"))}
    own.pop("LISTEN_FDS", None)
    own.pop("LISTEN_PID", None)
    own["PYTHONPATH"] = ROOT + (f":{own['PYTHONPATH']}" if own.get("PYTHONPATH") else "")
    return own


def interpreter(module: str, *words: str) -> list[str]:
    """argv of one of our modules. -P: never import from the current folder as root."""
    return [sys.executable, "-P", "-m", module, *words]


def _in_child(role: Role) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        if role.dies_with_keeper:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if role.nice:
            os.setpriority(os.PRIO_PROCESS, 0, role.nice)

    return prepare


def how_it_ended(code: int) -> str:
    """A return code of subprocess in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


class Child:
    """One running process of a role."""

    def __init__(
        self,
        role: Role,
        *,
        settings: Settings,
        run_dir: str,
        fds: Fds,
        extra: Mapping[str, Any],
    ) -> None:
        self.role = role
        self.ready = False
        self.started = time.monotonic()
        self.heard_at = self.started
        self.asked = False  # and has not answered yet
        self.eof_at = 0.0  # when it closed its end of our socket; 0: not
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            try:
                ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, KEEPER_BUFFER)
            except OSError:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEEPER_BUFFER)
            ours.setblocking(False)
            fds = {"keeper": theirs.fileno(), **fds}
            content = {
                "role": role.kind,
                "index": role.index,
                "run_dir": run_dir,
                "settings": asdict(settings),
                "fds": fds,
                "extra": dict(extra),
            }
            boot_fd = boot.make_memfd(f"boot-{role.name}", json.dumps(content).encode())
            try:
                self._process = subprocess.Popen(
                    interpreter(role.module, "--boot-fd", str(boot_fd)),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[boot_fd, *_numbers(fds)],
                    env=environment(),
                    start_new_session=True,  # Ctrl-C is for the keeper, which stops in order
                    preexec_fn=_in_child(role),  # noqa: PLW1509 - the keeper has one thread
                )
            finally:
                os.close(boot_fd)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.sock = ours
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def send(self, message: Mapping[str, Any], log: Log, fd: int = -1) -> None:
        """Send one message, with a descriptor if given. A dead child is no error here."""
        data = json.dumps(message).encode()
        try:
            if fd >= 0:
                socket.send_fds(self.sock, [data], [fd])
            else:
                self.sock.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except OSError as e:
            kind = str(message.get("type"))
            log.error("message not sent", to=self.role.name, type=kind, error=e.strerror)

    def receive(self) -> list[dict[str, Any]]:
        """All messages that wait; sets `eof_at` once the child has closed its end."""
        messages: list[dict[str, Any]] = []
        while True:
            try:
                data = self.sock.recv(MESSAGE_MAX)
            except (BlockingIOError, InterruptedError):
                return messages
            except OSError:
                data = b""
            if not data:
                self.eof_at = time.monotonic()
                return messages
            try:
                message = json.loads(data)
            except ValueError:
                continue
            if isinstance(message, dict):
                messages.append(message)

    def kill(self) -> None:
        """SIGKILL; a pidfd can't hit another process."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except OSError:
            pass

    def reap(self) -> str | None:
        """How it ended, None while it runs. After an answer the child's descriptors are closed."""
        code = self._process.poll()
        if code is None:
            return None
        if self.pidfd >= 0:
            self.sock.close()
            os.close(self.pidfd)
            self.pidfd = -1
        return how_it_ended(code)


def _numbers(fds: Fds) -> Iterator[int]:
    for value in fds.values():
        if isinstance(value, list):
            yield from value
        else:
            yield value


class Helper:
    """A short-lived child that fills a memfd: reading a configuration or a secrets file."""

    def __init__(self, name: str, module: str, argument: str, memfd: int) -> None:
        self.name = name
        self.memfd = memfd
        self.started = time.monotonic()
        self.stdout = os.memfd_create(f"{name}-out", os.MFD_CLOEXEC)
        self.stderr = os.memfd_create(f"{name}-err", os.MFD_CLOEXEC)
        self.said = ""  # on standard error, once there is a result
        self._process = subprocess.Popen(
            interpreter(module, argument, "--out-fd", str(memfd)),
            stdin=subprocess.DEVNULL,
            stdout=self.stdout,
            stderr=self.stderr,
            pass_fds=[memfd],
            env=environment(),
            start_new_session=True,
            preexec_fn=_in_child(Role(name, name, module)),  # noqa: PLW1509
        )
        self.pidfd = os.pidfd_open(self._process.pid)

    def wait(self, timeout: float) -> None:
        """Block until it ends, at most `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """It takes too long."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except OSError:
            pass

    def result(self) -> tuple[int, bytes] | None:
        """(return code, what it printed), None while it runs. The memfd is the caller's."""
        code = self._process.poll()
        if code is None:
            return None
        printed = boot.read_memfd(self.stdout)
        said = boot.read_memfd(self.stderr)
        self.said = said.decode("utf-8", "backslashreplace")
        if said:
            os.write(2, said)
        os.close(self.stdout)
        os.close(self.stderr)
        os.close(self.pidfd)
        return code, printed
