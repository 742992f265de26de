"""The hooks process: runs the administrator's programs, as a user of their own.

`python -m dispatcher.hooks --boot-fd N`. It has given root away before it hears of anything
(unless `hooks.user` is root). A program is run without a shell, in a session of its own, with
nothing on its input; the first line it prints is what the log has of it. A worker never
waits: it is answered when the program has ended, and asks again if we die meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher import radattr
from dispatcher.hook_queue import Job, Queue
from fastpath import layout
from ops import boot, hook_event, log, privileges
from ops import settings as settings_module
from ops.hook_event import Event
from ops.log import LEVELS, Log
from ops.settings import Settings
from ops.status_page import StatusPage

NICE: Final = 10
BATCH: Final = 256
TICK_S: Final = 1.0
OUTPUT: Final = 4096  # octets of a program that are read for its first line
LINE: Final = 200
FAILURES: Final = 20  # that `show hooks` has
KEEPER_DATAGRAM: Final = 8 << 20
STOP_S: Final = 1.0  # for programs that run when we stop


@dataclass(slots=True)
class _Run:
    """A program that runs."""

    job: Job
    process: subprocess.Popen[bytes]
    pidfd: int
    output: int
    began: float
    kept: bytearray = field(default_factory=bytearray)
    timer: asyncio.TimerHandle | None = None
    late: bool = False


class Service:
    """The process."""

    def __init__(self, info: boot.Boot, loop: asyncio.AbstractEventLoop, out: Log) -> None:
        self._loop = loop
        self._log = out
        self._settings = info.settings
        self._conf = info.settings.hooks
        self._queue = Queue(self._conf.at_once, self._conf.queue)
        self._runs: dict[int, _Run] = {}  # by pidfd
        self._page = StatusPage(info.fds["status"], writable=True)
        before = self._page.read()
        self._results: Counter[str] = Counter(before.get("results", {}))
        self._seconds: Counter[str] = Counter(before.get("seconds", {}))
        self._failures: deque[dict[str, Any]] = deque(before.get("failures", ()), FAILURES)
        self._changed = True
        self._stop_at: float | None = None
        self._workers = list(info.fds["workers"])
        self._keeper = socket.socket(fileno=info.fds["keeper"])
        self._keeper.setblocking(False)
        self._alive(info)
        for at, fd in enumerate(self._workers):
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._worker_says, at)
            self._answer(at, 0)
        loop.add_reader(self._keeper.fileno(), self._keeper_says)
        self._tick()
        self._keeper.send(b'{"type": "ready"}')

    def _alive(self, info: boot.Boot) -> None:
        """Sweep the radattr files of sessions that ended with their concentrator."""
        if not self._conf.radattr:
            return
        table = layout.Table.attach(info.fds["table"], writable=False)
        names = {hook_event.session_name(session.sid) for session in table.sessions()}
        try:
            swept = radattr.sweep(self._conf.radattr, names)
        except OSError as e:
            self._log.error("radattr files not swept", path=self._conf.radattr, reason=e.strerror)
            return
        if swept:
            self._log.notice("radattr files of former sessions removed", files=swept)

    # -- workers

    def _worker_says(self, at: int) -> None:
        for _ in range(BATCH):
            try:
                data = os.read(self._workers[at], hook_event.DATAGRAM)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._workers[at])
                return
            try:
                seq, event = hook_event.unpack(data)
            except ValueError as e:
                self._log.error("event of a worker not understood", worker=at, reason=str(e))
                continue
            match self._queue.add(Job(at, seq, event)):
                case "full":
                    self._count(event, "dropped", "too many wait: see hooks.queue, hooks.at_once")
                    self._without_radattr(event)
                    self._answer(at, seq)
                case "repeated":
                    self._answer(at, seq)
        self._go_on()

    def _answer(self, at: int, seq: int) -> None:
        try:
            os.write(self._workers[at], hook_event.pack_done(seq))
        except BlockingIOError:
            self._loop.call_later(0.05, self._answer, at, seq)
        except OSError as e:
            self._log.error("worker not told", worker=at, reason=e.strerror)

    # -- programs

    def _go_on(self) -> None:
        while (job := self._queue.ready()) is not None:
            self._begin(job)

    def _begin(self, job: Job) -> None:
        event, conf = job.event, self._conf
        if conf.radattr and event.hook in ("ip_up", "ip_change"):
            try:
                radattr.write(conf.radattr, event)
            except OSError as e:
                self._log.warning("radattr file not written", path=conf.radattr, reason=e.strerror)
        path = getattr(conf, event.hook)
        if not path:
            self._end(job)
            return
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        try:
            process = subprocess.Popen(
                [path, *hook_event.arguments(event, conf.ipparam, conf.user)],
                env=hook_event.environment(event, conf.radattr, conf.user),
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as e:
            os.close(reader)
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
            self._count(event, "not_started", f"{path}: {reason}")
            self._end(job)
            return
        finally:
            os.close(writer)
        run = _Run(job, process, os.pidfd_open(process.pid), reader, self._loop.time())
        self._runs[run.pidfd] = run
        self._loop.add_reader(reader, self._printed, run)
        self._loop.add_reader(run.pidfd, self._ended, run)
        run.timer = self._loop.call_later(conf.timeout_s, self._kill, run)

    def _printed(self, run: _Run) -> None:
        try:
            data = os.read(run.output, 65536)
        except BlockingIOError:
            return
        run.kept += data[: max(0, OUTPUT - len(run.kept))]
        if not data:
            self._loop.remove_reader(run.output)

    def _kill(self, run: _Run) -> None:
        run.late = True
        try:
            os.killpg(run.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _ended(self, run: _Run) -> None:
        self._loop.remove_reader(run.pidfd)
        self._printed(run)
        self._loop.remove_reader(run.output)
        os.close(run.output)
        os.close(run.pidfd)
        del self._runs[run.pidfd]
        if run.timer is not None:
            run.timer.cancel()
        code = run.process.wait()
        event = run.job.event
        self._seconds[event.hook] += self._loop.time() - run.began  # type: ignore[assignment]
        text = bytes(run.kept).decode("utf-8", "replace").strip()
        line = text.splitlines()[0][:LINE] if text else ""
        line = "".join(c if c.isprintable() else "?" for c in line)
        if run.late:
            self._count(event, "timeout", f"killed after {self._conf.timeout_s:g} s", code, line)
        elif code:
            self._count(event, "failed", _how(code), code, line)
        else:
            self._count(event, "ok")
        self._end(run.job)
        self._go_on()

    def _without_radattr(self, event: Event) -> None:
        if self._conf.radattr and event.hook == "ip_down":
            try:
                radattr.remove(self._conf.radattr, event)
            except OSError as e:
                self._log.warning("radattr file not removed", reason=e.strerror)

    def _end(self, job: Job) -> None:
        self._without_radattr(job.event)
        self._queue.done(job)
        self._answer(job.worker, job.seq)
        self._changed = True

    def _count(
        self, event: Event, result: str, reason: str = "", code: int = 0, line: str = ""
    ) -> None:
        self._changed = True
        self._results[f"{event.hook}:{result}"] += 1
        if result == "ok":
            return
        user = hook_event.word(event.user)
        self._failures.append(
            {
                "unix": time.time(),
                "hook": event.hook,
                "name": event.name,
                "sid": f"{event.sid:016x}",
                "user": user,
                "result": result,
                "reason": reason,
                "line": line,
            }
        )
        self._log.warning(
            "hook failed",
            hook=event.hook,
            sid=f"{event.sid:016x}",
            user=user,
            result=result,
            reason=reason,
            exit=code,
            said=line,
        )

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)
        if self._changed:
            self._write_page()

    def _write_page(self) -> None:
        self._changed = False
        self._page.write(
            {
                "pid": os.getpid(),
                "results": dict(self._results),
                "seconds": dict(self._seconds),
                "running": self._queue.running,
                "waiting": self._queue.waiting,
                "failures": list(self._failures),
            }
        )

    # -- the keeper

    def _keeper_says(self) -> None:
        while True:
            try:
                data = self._keeper.recv(KEEPER_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._loop.stop()
                return
            order = json.loads(data)
            match order.get("type"):
                case "stop":
                    self._stop_at = self._loop.time() + STOP_S
                    for at in range(len(self._workers)):
                        self._worker_says(at)
                    self._stopping()
                case "settings":
                    self._configure(settings_module.loads(json.dumps(order["settings"]).encode()))
                case "ping":
                    self._keeper.send(b'{"type": "pong"}')

    def _configure(self, new: Settings) -> None:
        self._settings, self._conf = new, new.hooks
        self._queue.at_once, self._queue.limit = new.hooks.at_once, new.hooks.queue
        self._log.level = LEVELS[new.log.level]
        self._log.style = new.log.format
        self._go_on()

    def _stopping(self) -> None:
        assert self._stop_at is not None
        left = self._queue.running + self._queue.waiting
        if not left or self._loop.time() >= self._stop_at:
            if left:
                self._log.warning("stopping without hooks that wait or run", hooks=left)
            self._loop.stop()
            return
        self._loop.call_later(0.02, self._stopping)

    def close(self) -> None:
        """At the end: programs that still run are left to themselves no longer."""
        for run in list(self._runs.values()):
            self._kill(run)
        self._write_page()


def _how(code: int) -> str:
    if code > 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def main() -> int:
    """Serve until the keeper says stop, or is gone; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler that does nothing: what is ignored, the programs would ignore, too.
        signal.signal(number, lambda *_: None)
    info = boot.load()
    own = info.settings.log
    out = Log("hooks", level=LEVELS[own.level], style=own.format)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    privileges.drop(info.settings.hooks.user, groups=True, key="hooks.user")
    loop = asyncio.new_event_loop()
    try:
        service = Service(info, loop, out)
    except layout.LayoutError as e:
        return log.fatal(f"hooks: {e}; was pptpcon upgraded under a running instance?", 69)
    try:
        loop.run_forever()
    finally:
        service.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
