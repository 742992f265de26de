"""keeper: opens what needs privilege, starts the other processes, replaces what dies.

`python -m dispatcher.keeper --config-fd N [--config-path FILE]`; memfd N holds the
settings as JSON (ops.settings). It parses nothing that strangers send: its children do.
Its own death ends the service, and the next start sweeps what is left.

Everything happens on one thread in one poll loop. Descriptors opened here stay open
here, so that a child's successor gets the very same sockets and TUN.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from dispatcher import advice, cpus, descriptors, gre_sockets, instance
from dispatcher.children import Child, Fds, Helper, Poison, Role, Waits
from dispatcher.descriptors import Tun, UnavailableError
from dispatcher.notify import Notifier
from dispatcher.secrets_watch import Secrets
from fastpath.layout import Table
from ops import boot, log, privileges, rundir
from ops import settings as settings_module
from ops.ranges import parse_ranges
from ops.settings import Settings

EXIT_UNAVAILABLE: Final = 69
EXIT_PERMISSION: Final = 77
EXIT_SOFTWARE: Final = 70

MODULES: Final = {
    "netops": "dispatcher.netops",
    "dispatcher": "dispatcher.process",
    "worker": "workers.process",
    "console": "ops.console",
}
SIGNALS: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGCHLD,
)

TICK_S: Final = 0.5
START_S: Final = 30.0  # all children ready, or there is no service
START_ATTEMPTS: Final = 3
STOP_S: Final = 10.0
# Until when after the request each may take; the dispatcher ends all calls properly.
STOP_STAGES: Final = (("dispatcher", 6.0), ("worker", 8.0), ("console", 8.5), ("netops", 9.5))
BEAT_GRACE_S: Final = 10.0
BEAT_LIMIT_S: Final = 5.0
PONG_S: Final = 15.0
DEAF_S: Final = 2.0
RELOAD_S: Final = 30.0

# Read by the keeper only once: a reload can't change them.
FIXED: Final = ("server", "listen", "workers", "gre", "metrics")


class PermissionMissingError(Exception):
    """We lack the privilege to serve (exit 77)."""


def check_privilege() -> None:
    """Root, or at least CAP_NET_ADMIN and CAP_NET_RAW."""
    missing = privileges.missing_capabilities()
    if missing:
        raise PermissionMissingError(
            f"serving needs {' and '.join(missing)}: run it as root (`sudo pptpcon run`), or from "
            "the systemd unit"
        )


class Keeper:
    """The service as a whole."""

    def __init__(
        self,
        settings: Settings,
        config_path: str,
        out: log.Log,
        modules: Mapping[str, str] = MODULES,
    ) -> None:
        self.settings = settings
        self._fixed = settings
        self._config_path = config_path
        self._modules = modules
        self._log = out
        self._notifier = Notifier()
        self._poll = select.poll()
        self._wake = -1
        self._children: dict[str, Child] = {}
        self._due: dict[str, float] = {}  # roles to start, and when
        self._waits: dict[str, Waits] = {}
        self._attempts: dict[str, int] = {}
        self._poison = Poison()
        self._serving = False
        self._stop_at = 0.0  # when the stop was asked for; 0: not
        self._failure = ""
        self._secrets = Secrets(settings.accounts.chap_secrets, out)
        self._reload: Helper | None = None
        self._looked_at = time.monotonic()
        self._next_tick = 0.0
        self._next_watch = 0.0
        self._next_watchdog = 0.0
        self._beats_from = 0.0  # beats are judged from then on

    # -- opening

    def catch_signals(self) -> None:
        """From here on a signal is an octet in a pipe, read by the loop."""
        self._wake, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._poll.register(self._wake, select.POLLIN)

    def open(self) -> None:
        """Everything that needs privilege, in the order in which it may fail."""
        listen = self.settings.listen
        try:
            self._listener = descriptors.listener(listen.address, listen.port, listen.backlog)
        except OSError as e:
            raise UnavailableError(
                instance.address_trouble(listen.address, listen.port, e)
            ) from None
        run_dir = self.settings.server.run_dir or rundir.serving_run_dir()
        self._instance = instance.Instance(run_dir, self._log)
        self._instance.enter(self.settings.server.user)
        self._plan = cpus.plan(self.settings.workers, cpus.available())
        if self._plan.missing:
            self._log.warning(
                "workers.cpus names CPUs this process may not use",
                cpus=",".join(map(str, self._plan.missing)),
                used=",".join(map(str, dict.fromkeys(self._plan.cpus))),
            )
        workers = self._plan.workers
        self._tuns: list[Tun] = []
        for _ in range(workers):
            last = self._tuns[-1].name if self._tuns else ""
            first = int(last.removeprefix(descriptors.TUN_PREFIX)) + 1 if last else 0
            self._tuns.append(descriptors.tun(first))
        try:
            self._gre = gre_sockets.open_all(self.settings, workers, self._tuns)
        except OSError as e:
            raise UnavailableError(f"GRE sockets: {os.strerror(e.errno or 0)}") from None
        self._log.info(
            "gre mode",
            mode="packet" if self._gre.packet_mode else "raw",
            reason=self._gre.reason,
        )
        self._table_fd = descriptors.memfd("sessions")
        self._table = Table.create(
            self._table_fd,
            self.settings.limits.max_sessions,
            workers,
            int(time.time()) & 0xFFFFFFFF,
        )
        self._table.set_pid("keeper", os.getpid())
        self._table.set_config(True)
        self._table_read_only = descriptors.read_only(self._table_fd)
        # Both ends stay open here: neither a worker nor netops sees the other one die.
        self._pairs = [
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)
        ]
        self._control = self._instance.control_socket()
        self._instance.record([], [tun.name for tun in self._tuns])
        self._roles = self._make_roles()
        self._secrets.read_now()

    def _make_roles(self) -> dict[str, Role]:
        roles = [
            Role("netops", "netops", self._modules["netops"], dies_with_keeper=False),
            Role("dispatcher", "dispatcher", self._modules["dispatcher"]),
            *(
                Role(f"worker-{index}", "worker", self._modules["worker"], index)
                for index in range(self._plan.workers)
            ),
            Role("console", "console", self._modules["console"], nice=10, vital=False),
        ]
        return {role.name: role for role in roles}

    # -- children

    def _handed(self, role: Role) -> tuple[Fds, dict[str, Any]]:
        """What a child gets: ARCHITECTURE.md, "Boot contract"."""
        fds: Fds = {"table": self._table_fd}
        extra: dict[str, Any] = {}
        if role.kind == "netops":
            fds["workers"] = [netops.fileno() for _, netops in self._pairs]
            extra["tuns"] = [
                {"name": tun.name, "ifindex": tun.ifindex, "worker": worker}
                for worker, tun in enumerate(self._tuns)
            ]
            extra["packet_mode"] = self._gre.packet_mode
            extra["keeper_pid"] = os.getpid()
        elif role.kind == "dispatcher":
            fds["listeners"] = [self._listener.fileno()]
        elif role.kind == "console":
            fds["table"] = self._table_read_only
            fds["control"] = self._control.fileno()
        else:
            tun = self._tuns[role.index]
            fds["gre"] = self._gre.receive[role.index].fileno()
            fds["raw"] = self._gre.send[role.index].fileno()
            fds["tun"] = tun.fd
            fds["netops"] = self._pairs[role.index][0].fileno()
            if self._secrets.fd >= 0:
                fds["secrets"] = self._secrets.fd
            extra["packet_mode"] = self._gre.packet_mode
            extra["cpu"] = self._plan.cpus[role.index]
            extra["tun_name"] = tun.name
            extra["tun_ifindex"] = tun.ifindex
            extra["local"] = parse_ranges(self.settings.ip.local)[0][0]
            extra["poison_sids"] = self._poison.named(time.monotonic())
        return fds, extra

    def _drain_answers(self, worker: int) -> None:
        """Answers to a dead worker must not be taken for answers to its successor."""
        end = self._pairs[worker][0]
        while True:
            try:
                end.recv(1, socket.MSG_DONTWAIT)
            except OSError:
                return

    def _start(self, role: Role) -> None:
        if role.kind == "worker":
            self._drain_answers(role.index)
        fds, extra = self._handed(role)
        self._attempts[role.name] = self._attempts.get(role.name, 0) + 1
        try:
            child = Child(
                role,
                settings=self.settings,
                run_dir=str(self._instance.path),
                fds=fds,
                extra=extra,
            )
        except OSError as e:  # no memory, no process number: try again
            self._log.error("not started", name=role.name, error=str(e))
            self._due[role.name] = time.monotonic() + 1.0
            return
        self._children[role.name] = child
        self._poll.register(child.pidfd, select.POLLIN)
        self._poll.register(child.sock, select.POLLIN)
        if role.kind == "worker":
            self._table.set_worker(role.index, child.pid, True)
        else:
            self._table.set_pid(role.kind, child.pid)
        self._record()
        self._log.debug("started", name=role.name, pid=child.pid)

    def _record(self) -> None:
        pids = [child.pid for child in self._children.values()]
        self._instance.record(pids, [tun.name for tun in self._tuns])

    def _reap(self, child: Child) -> None:
        pidfd, sock = child.pidfd, child.sock.fileno()
        ended = child.reap()
        if ended is None:
            return
        self._poll.unregister(pidfd)
        if not child.eof_at:
            self._poll.unregister(sock)
        role = child.role
        del self._children[role.name]
        if self._stop_at:
            self._mark_down(role)
            self._log.debug("ended", name=role.name, pid=child.pid, how=ended)
            return
        now = time.monotonic()
        poisoned = role.kind == "worker" and self._judge_poison(child, now)
        self._mark_down(role)
        if not self._serving and role.vital and self._attempts[role.name] >= START_ATTEMPTS:
            self._fail(
                f"{role.name} ended {START_ATTEMPTS} times while starting ({ended}); its lines "
                "above say why"
            )
            return
        wait = self._waits.setdefault(role.name, Waits()).died(child.age)
        self._due[role.name] = now + wait
        self._log.error(
            "process died",
            name=role.name,
            pid=child.pid,
            how=ended,
            age_s=round(child.age, 1),
            again_in_s=wait,
            poison=poisoned,
        )

    def _mark_down(self, role: Role) -> None:
        if role.kind == "worker":
            self._table.set_worker(role.index, 0, False)
        else:
            self._table.set_pid(role.kind, 0)

    def _judge_poison(self, child: Child, now: float) -> bool:
        """Only what this very process's data thread had in hand counts, not its predecessor's."""
        page = self._table.worker(child.role.index)
        if page.data_beat_ns < int(child.started * 1e9):
            return False
        if not self._poison.died(page.poison_sid, now):
            return False
        self._log.error(
            "session kills its worker; it is ended",
            sid=f"{page.poison_sid:016x}",
            worker=child.role.index,
        )
        return True

    def _hear(self, child: Child) -> None:
        for message in child.receive():
            child.heard_at = time.monotonic()
            child.asked = False
            if message.get("type") == "ready":
                child.ready = True
                self._attempts[child.role.name] = 0
                if self._serving:
                    self._log.notice(
                        "process replaced",
                        name=child.role.name,
                        pid=child.pid,
                        took_ms=round(child.age * 1000),
                    )
        if child.eof_at:
            self._poll.unregister(child.sock)

    # -- starting

    def _advance_start(self) -> None:
        """netops first: links are up and addresses set before anyone is let in."""
        if self._serving or self._stop_at:
            return
        netops = self._children.get("netops")
        if netops is None or not netops.ready:
            return
        for name, role in self._roles.items():
            if name not in self._children and name not in self._due:
                self._start(role)
        if all(
            (child := self._children.get(name)) is not None and child.ready
            for name, role in self._roles.items()
            if role.vital or self._attempts.get(name, 0) < START_ATTEMPTS
        ):
            self._begin_service()

    def _begin_service(self) -> None:
        self._serving = True
        self._beats_from = time.monotonic() + BEAT_GRACE_S
        listen = self.settings.listen
        distinct = dict.fromkeys(self._plan.cpus)
        metrics = self.settings.metrics.listen
        lines = [
            f"pptpcon: listening on {listen.address}:{listen.port} (TCP) and for GRE",
            f"  configuration  {self._config_path or 'built-in defaults'}",
            f"  workers        {self._plan.workers} on CPU {', '.join(map(str, distinct))}, "
            f"{'packet' if self._gre.packet_mode else 'raw'} sockets, "
            f"{self.settings.limits.max_sessions} slots",
            f"  metrics        {f'http://{metrics}/metrics' if metrics else 'off'}",
            f"  next           {self._next_command()}",
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)
        for wrong, command in advice.remarks(self.settings):
            self._log.warning(wrong, mend=command)
        self._log.notice("ready", pid=os.getpid(), took_ms=round(self._since_start() * 1000))
        self._notifier.send(READY="1", STATUS=f"serving, {self._plan.workers} workers")

    def _since_start(self) -> float:
        return time.monotonic() - self._table.started_ns / 1e9

    def _next_command(self) -> str:
        if not self.settings.server.run_dir:
            return "pptpcon show sessions"
        return f"pptpcon show sessions --run-dir {self._instance.path}"

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._begin_stop(time.monotonic())

    # -- watching

    def _tick(self, now: float) -> None:
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            if not self._stop_at:
                self._start(self._roles[name])
        if self._stop_at:
            self._advance_stop(now)
            return
        # If we ourselves stood still (Ctrl-Z, a paused machine), so did everyone's beat.
        if now - self._looked_at > 4 * TICK_S:
            self._beats_from = now + BEAT_GRACE_S
            for child in self._children.values():
                child.heard_at = now
        self._check_deaf(now)
        if self._serving:
            self._ping(now)
            self._check_beats(now)
        elif self._since_start() > START_S:
            late = [n for n, c in self._children.items() if not c.ready and c.role.vital]
            self._fail(
                f"{', '.join(late) or 'some process'} not ready after {START_S:.0f} s; "
                "the lines above may say why"
            )
            return
        self._watch_secrets(now)
        self._watch_helpers(now)
        if self._serving and self._notifier.watchdog_s and now >= self._next_watchdog:
            self._next_watchdog = now + self._notifier.watchdog_s / 3
            self._notifier.send(WATCHDOG="1")

    def _check_deaf(self, now: float) -> None:
        """Who closed our socket, or never says it is ready, can't be told anything."""
        for child in self._children.values():
            deaf = child.eof_at and now - child.eof_at > DEAF_S
            if deaf or (self._serving and not child.ready and child.age > START_S):
                self._log.error("process is deaf; killed", name=child.role.name, pid=child.pid)
                child.kill()

    def _ping(self, now: float) -> None:
        """netops has no beat in the table: it is asked."""
        child = self._children.get("netops")
        if child is None or not child.ready or now < self._beats_from:
            return
        if now - child.heard_at > PONG_S and child.asked:
            self._log.error("process does not answer; killed", name="netops", pid=child.pid)
            child.kill()
        elif now - child.heard_at > PONG_S / 3 and not child.asked:
            child.asked = True
            child.send({"type": "ping"}, self._log)

    def _check_beats(self, now: float) -> None:
        if now < self._beats_from:
            return
        for child in list(self._children.values()):
            if child.age < BEAT_GRACE_S:
                continue
            beats: dict[str, int] = {}
            if child.role.kind == "worker":
                page = self._table.worker(child.role.index)
                beats = {"data": page.data_beat_ns, "control": page.control_beat_ns}
            elif child.role.kind == "dispatcher":
                beats = {"main": self._table.dispatcher_beat_ns}
            for thread, beat in beats.items():
                # A beat of its predecessor is older than the child and counts as none.
                silent = now - max(beat / 1e9, child.started)
                if silent > BEAT_LIMIT_S:
                    self._log.error(
                        "thread stands still; process killed",
                        name=child.role.name,
                        pid=child.pid,
                        thread=thread,
                        silent_s=round(silent, 1),
                    )
                    child.kill()
                    break

    def _watch_secrets(self, now: float) -> None:
        if now < self._next_watch:
            return
        self._next_watch = now + 1.0
        if self._secrets.changed:
            self._read_secrets()

    def _read_secrets(self) -> None:
        helper = self._secrets.begin()
        if helper is not None:
            self._poll.register(helper.pidfd, select.POLLIN)

    def _watch_helpers(self, now: float) -> None:
        for helper in (self._secrets.helper, self._reload):
            if helper is not None and now - helper.started > RELOAD_S:
                helper.kill()

    def _finish_secrets(self, helper: Helper) -> None:
        self._poll.unregister(helper.pidfd)
        if self._secrets.finish():
            for child in self._children.values():
                if child.role.kind == "worker":
                    child.send({"type": "secrets"}, self._log, self._secrets.fd)

    # -- reload

    def _begin_reload(self) -> None:
        self._read_secrets()
        if not self._config_path:
            self._log.notice("nothing to reload: built-in defaults")
            return
        if self._reload is not None:
            return
        self._notifier.send(STATUS="reloading")
        memfd = descriptors.memfd("config")
        self._reload = Helper("config", "ops.config.load", self._config_path, memfd)
        self._poll.register(self._reload.pidfd, select.POLLIN)

    def _finish_reload(self, helper: Helper) -> None:
        self._poll.unregister(helper.pidfd)
        result = helper.result()
        self._reload = None
        if result is None:
            os.close(helper.memfd)
            return
        new = None
        if result[0] == 0:
            try:
                new = settings_module.loads(boot.read_memfd(helper.memfd))
            except (ValueError, KeyError, TypeError) as e:
                self._log.error("configuration unreadable", error=str(e))
        os.close(helper.memfd)
        if new is None:
            self._table.set_config(False)
            self._log.error("configuration refused; the old one stays", file=self._config_path)
        else:
            self._configure(new)
        self._notifier.send(STATUS=f"serving, {self._plan.workers} workers")

    def _configure(self, new: Settings) -> None:
        fixed = [name for name in FIXED if getattr(new, name) != getattr(self._fixed, name)]
        if new.limits.max_sessions > self._table.capacity:
            fixed.append("limits.max_sessions")
        if fixed:
            self._log.warning("needs a restart to take effect", sections=",".join(fixed))
        self.settings = new
        message = {"type": "settings", "settings": asdict(new)}
        for child in self._children.values():
            child.send(message, self._log)
        if new.accounts.chap_secrets != self._secrets.path:
            self._secrets.path = new.accounts.chap_secrets
            self._read_secrets()
        self._log.level = log.LEVELS[new.log.level]
        self._table.set_config(True)
        self._log.notice("configuration loaded", file=self._config_path)

    # -- stopping

    def _begin_stop(self, now: float) -> None:
        """Dispatcher first: it ends the calls, for which it needs all the others."""
        if self._stop_at:
            self._log.notice("stopping at once")
            for child in self._children.values():
                if child.role.kind == "netops":
                    child.send({"type": "stop"}, self._log)
                else:
                    child.kill()
            self._stop_at = now - STOP_S + 1.0
            return
        self._stop_at = now
        self._stopped: set[str] = set()
        self._due.clear()
        self._table.set_stopping()
        self._notifier.send(STOPPING="1", STATUS="ending calls")
        if not self._failure:
            self._log.notice("stopping")
        self._advance_stop(now)

    def _advance_stop(self, now: float) -> None:
        waited = now - self._stop_at
        for kind, until in STOP_STAGES:
            running = [c for c in self._children.values() if c.role.kind == kind]
            if not running:
                continue
            if kind not in self._stopped:
                self._stopped.add(kind)
                for child in running:
                    child.send({"type": "stop"}, self._log)
            if waited < until:
                return
            for child in running:
                self._log.warning("does not end; killed", name=child.role.name, pid=child.pid)
                child.kill()

    # -- the loop

    def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        self._start(self._roles["netops"])
        while self._children or not self._stop_at:
            now = time.monotonic()
            due = min([self._next_tick, *self._due.values()])
            events = self._poll.poll(max(0.0, due - now) * 1000)
            now = time.monotonic()
            self._handle(events, now)
            self._advance_start()
            if now >= self._next_tick or any(at <= now for at in self._due.values()):
                self._tick(now)
                self._next_tick = now + TICK_S
            self._looked_at = now
        return EXIT_UNAVAILABLE if self._failure else 0

    def _handle(self, events: list[tuple[int, int]], now: float) -> None:
        ready = {fd for fd, _ in events}
        if self._wake in ready:
            self._signals(os.read(self._wake, 4096), now)
        for child in list(self._children.values()):
            if child.sock.fileno() in ready and not child.eof_at:
                self._hear(child)
            if child.pidfd in ready:
                self._reap(child)
        for helper in (self._secrets.helper, self._reload):
            if helper is not None and helper.pidfd in ready:
                if helper is self._reload:
                    self._finish_reload(helper)
                else:
                    self._finish_secrets(helper)
        if self._stop_at:
            self._advance_stop(now)

    def _signals(self, numbers: bytes, now: float) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._begin_stop(now)
            elif number in (signal.SIGHUP, signal.SIGUSR1) and self._serving:
                self._begin_reload()

    @property
    def failure(self) -> str:
        """Why there was no service, "" if there was."""
        return self._failure

    def close(self) -> None:
        """Leave nothing behind. Descriptors go with the process."""
        if hasattr(self, "_instance"):
            self._instance.leave()


def raise_file_limit() -> None:
    """Two descriptors per control connection: as many as the administrator allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(settings: Settings, config_path: str, modules: Mapping[str, str] = MODULES) -> int:
    """The keeper's life, from open to exit status."""
    out = log.Log("keeper", level=log.LEVELS[settings.log.level], style=settings.log.format)
    keeper = Keeper(settings, config_path, out, modules)
    try:
        check_privilege()
        raise_file_limit()
        keeper.catch_signals()
        keeper.open()
        code = keeper.run()
    except PermissionMissingError as e:
        return log.fatal(str(e), EXIT_PERMISSION)
    except UnavailableError as e:
        return log.fatal(str(e), EXIT_UNAVAILABLE)
    finally:
        keeper.close()
    if keeper.failure:
        return log.fatal(keeper.failure, code)
    out.notice("stopped")
    return code


def main() -> int:
    """Process entry."""
    parser = argparse.ArgumentParser(prog="dispatcher.keeper")
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--config-path", default="")
    words = parser.parse_args()
    try:
        settings = settings_module.loads(boot.read_memfd(words.config_fd))
    except (OSError, ValueError, KeyError, TypeError) as e:
        return log.fatal(f"settings in descriptor {words.config_fd}: {e}", EXIT_SOFTWARE)
    os.close(words.config_fd)
    return serve(settings, words.config_path)


if __name__ == "__main__":
    sys.exit(main())
