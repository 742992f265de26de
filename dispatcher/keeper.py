"""keeper: opens what needs privilege, starts the other processes, replaces what dies.

`python -m dispatcher.keeper --config-fd N [--config-path FILE]`; memfd N holds the
settings as JSON (ops.settings). It parses nothing that strangers send: its children do.
Its own death ends the service, and the next start sweeps what is left.

Everything happens on one thread in one poll loop.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from dispatcher import advice, descriptors, fixed
from dispatcher.children import Child, Helper, Poison, Role, Waits
from dispatcher.descriptors import UnavailableError
from dispatcher.notify import Notifier
from dispatcher.opened import Opened
from dispatcher.secrets_watch import Secrets
from dispatcher.watch import Limits, Watch
from ops import boot, log, privileges
from ops import settings as settings_module
from ops.settings import Settings

EXIT_UNAVAILABLE: Final = 69
EXIT_PERMISSION: Final = 77
EXIT_SOFTWARE: Final = 70

MODULES: Final = {
    "netops": "dispatcher.netops",
    "vault": "dispatcher.vault",
    "dispatcher": "dispatcher.process",
    "worker": "workers.process",
    "accounts": "workers.radius.process",
    "hooks": "dispatcher.hooks",
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
START_S: Final = 90.0  # all children ready, or there is no service; an emulated CPU needs 30
START_ATTEMPTS: Final = 3
STOP_S: Final = 10.0
# Until when after the request each may take; the dispatcher ends all calls properly.
STOP_STAGES: Final = (
    ("dispatcher", 6.0),
    ("vault", 6.5),
    ("worker", 8.0),
    ("accounts", 9.2),
    ("hooks", 9.2),
    ("console", 9.3),
    ("netops", 9.5),
)
WATCH: Final = Limits(ready=START_S)
RELOAD_S: Final = 30.0
STOP: Final = "stop"  # among what is due
STOP_AT_ONCE: Final = "stop at once"
ANSWER_S: Final = 0.1  # for who asks for a stop to be told
SAID_MAX: Final = 500  # lines of a configuration's faults
DEBUGGED_MAX: Final = 64


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
        opened: Opened,
        wake: int,
        modules: Mapping[str, str] = MODULES,
    ) -> None:
        self.settings = settings
        self._config_path = config_path
        self._modules = modules
        self._log = out
        self._notifier = Notifier()
        self._opened = opened
        self._table = opened.table
        self._roles = self._make_roles()
        self._wake = wake  # signals, an octet each
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
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
        self._reload_again = False  # asked for while one was under way
        self._asked: list[int] = []  # by the console, answered when the reload is done
        self._soft_stop = False  # ends when the last session has
        self._debugged: tuple[str, ...] = ()  # sids and users whose debug lines are wanted
        self._looked_at = time.monotonic()
        self._next_tick = 0.0
        self._next_watch = 0.0
        self._next_watchdog = 0.0

    def _make_roles(self) -> dict[str, Role]:
        roles = [
            Role("netops", "netops", self._modules["netops"], dies_with_keeper=False),
            Role("dispatcher", "dispatcher", self._modules["dispatcher"]),
            Role("vault", "vault", self._modules["vault"]),
            *(
                Role(f"worker-{index}", "worker", self._modules["worker"], index)
                for index in range(self._opened.plan.workers)
            ),
            Role("console", "console", self._modules["console"], nice=10, vital=False),
        ]
        roles[1:1] = self._wanted(self.settings)
        return {role.name: role for role in roles}

    def _wanted(self, settings: Settings) -> list[Role]:
        """Those that only some configurations need."""
        roles = []
        if settings.needs_accounts:
            roles.append(Role("accounts", "accounts", self._modules["accounts"]))
        if settings.hooks.wanted:
            roles.append(Role("hooks", "hooks", self._modules["hooks"], vital=False))
        return roles

    # -- children

    def _start(self, role: Role) -> None:
        fds, extra = self._opened.handed(role, self.settings)
        if role.kind == "worker":
            self._opened.drain_answers(role.index)
            extra["poison_sids"] = self._poison.named(time.monotonic())
            if self._secrets.fd >= 0:
                fds["secrets"] = self._secrets.fd
        self._attempts[role.name] = self._attempts.get(role.name, 0) + 1
        try:
            child = Child(
                role,
                settings=self.settings,
                run_dir=str(self._opened.instance.path),
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
        self._opened.mark(role, child.pid)
        self._opened.record([child.pid for child in self._children.values()])
        self._log.debug("started", name=role.name, pid=child.pid)

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
            self._opened.mark(role, 0)
            self._log.debug("ended", name=role.name, pid=child.pid, how=ended)
            return
        now = time.monotonic()
        poisoned = role.kind == "worker" and self._judge_poison(child, now)
        self._opened.mark(role, 0)
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
            if message.get("type") == "order" and child.role.kind == "console":
                self._ordered(child, message)
            if message.get("type") == "ready":
                child.ready = True
                self._attempts[child.role.name] = 0
                if self._debugged or self._log.level != log.LEVELS[self.settings.log.level]:
                    child.send(self._levels(), self._log)
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
            self._is_ready(name)
            for name, role in self._roles.items()
            if role.vital or self._attempts.get(name, 0) < START_ATTEMPTS
        ):
            self._begin_service()

    def _is_ready(self, name: str) -> bool:
        child = self._children.get(name)
        return child is not None and child.ready

    def _begin_service(self) -> None:
        self._serving = True
        self._watch = Watch(self._table, self._log, WATCH)
        listen = self.settings.listen
        plan = self._opened.plan
        distinct = dict.fromkeys(plan.cpus)
        metrics = self.settings.metrics.listen
        lines = [
            f"pptpcon: listening on {listen.address}:{listen.port} (TCP) and for GRE",
            f"  configuration  {self._config_path or 'built-in defaults'}",
            f"  workers        {plan.workers} on CPU {', '.join(map(str, distinct))}, "
            f"{'packet' if self._opened.gre.packet_mode else 'raw'} sockets, "
            f"{self.settings.limits.max_sessions} slots",
            f"  metrics        {f'http://{metrics}/metrics' if metrics else 'off'}",
            f"  next           {self._next_command()}",
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)
        for wrong, command in advice.remarks(self.settings):
            self._log.warning(wrong, mend=command)
        self._log.notice("ready", pid=os.getpid(), took_ms=round(self._since_start() * 1000))
        self._notifier.send(READY="1", STATUS=self._status())

    def _status(self) -> str:
        return f"serving, {self._opened.plan.workers} workers"

    def _since_start(self) -> float:
        return time.monotonic() - self._table.started_ns / 1e9

    def _next_command(self) -> str:
        if not self.settings.server.run_dir:
            return "pptpcon show sessions"
        return f"pptpcon show sessions --run-dir {self._opened.instance.path}"

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._begin_stop(time.monotonic())

    # -- watching

    def _tick(self, now: float) -> None:
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            if name in (STOP, STOP_AT_ONCE):
                if name == STOP_AT_ONCE and not self._stop_at:
                    self._begin_stop(now)
                self._begin_stop(now)
                return
            if not self._stop_at:
                self._start(self._roles[name])
        if self._stop_at:
            self._advance_stop(now)
            return
        if self._serving:
            if now - self._looked_at > 4 * TICK_S:
                self._watch.pause(self._children.values(), now)
            self._watch.look(self._children.values(), now)
        elif self._since_start() > START_S:
            late = [n for n, r in self._roles.items() if r.vital and not self._is_ready(n)]
            if late:
                self._fail(
                    f"{', '.join(late)} not ready after {START_S:.0f} s; "
                    "the lines above may say why"
                )
                return
            # The console alone is late: calls do not need it, and it is watched from now on.
            self._begin_service()
        if self._soft_stop and not any(self._table.used()):
            self._begin_stop(now)
            return
        self._watch_secrets(now)
        self._watch_helpers(now)
        if self._serving and self._notifier.watchdog_s and now >= self._next_watchdog:
            self._next_watchdog = now + self._notifier.watchdog_s / 3
            self._notifier.send(WATCHDOG="1")

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
            self._reloaded({"ok": True, "file": "", "applied": [], "kept": [], "said": []})
            return
        if self._reload is not None:
            self._reload_again = True
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
        answer: dict[str, Any] = {
            "ok": False,
            "file": self._config_path,
            "applied": [],
            "kept": [],
            "said": helper.said.splitlines()[:SAID_MAX],
        }
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
            if result[0] < 0:
                answer["said"].append(f"reading it took longer than {RELOAD_S:.0f} s")
        else:
            old = self.settings
            answer["kept"] = self._configure(new)
            answer["applied"] = fixed.changed(self.settings, old)
            answer["ok"] = True
        self._notifier.send(STATUS=self._status())
        if self._reload_again:
            self._reload_again = False
            self._begin_reload()
        else:
            self._reloaded(answer)

    def _reloaded(self, answer: dict[str, Any]) -> None:
        asked, self._asked = self._asked, []
        for number in asked:
            self._answer(number, answer)

    def _configure(self, new: Settings) -> list[str]:
        """Put `new` in force; the keys it would change that need a restart."""
        new, kept = fixed.hold(new, self.settings)
        if new.limits.max_sessions > self._table.capacity:
            kept.append("limits.max_sessions")
        if kept:
            self._log.warning("needs a restart to take effect", keys=",".join(kept))
        self.settings = new
        for role in self._wanted(new):
            if role.name not in self._roles:
                self._roles[role.name] = role
                self._due[role.name] = 0.0
        message = {"type": "settings", "settings": asdict(new)}
        for child in self._children.values():
            child.send(message, self._log)
        if new.accounts.chap_secrets != self._secrets.path:
            self._secrets.path = new.accounts.chap_secrets
            self._read_secrets()
        self._log.level = log.LEVELS[new.log.level]
        self._log.style = new.log.format
        self._table.set_config(True)
        self._log.notice("configuration loaded", file=self._config_path)
        return kept

    # -- orders of the command line, by the console

    def _answer(self, number: int, answer: Mapping[str, Any]) -> None:
        console = self._children.get("console")
        if console is not None:
            console.send({"type": "answer", "request": number, **answer}, self._log)

    def _ordered(self, child: Child, message: Mapping[str, Any]) -> None:
        number, order = message.get("request"), message.get("order")
        if not isinstance(number, int):
            return
        match order:
            case "reload":
                self._asked.append(number)
                self._begin_reload()
            case "shutdown":
                self._answer(number, self._shut_down(str(message.get("how"))))
            case "log":
                self._answer(number, self._set_levels(message))
            case _:
                self._answer(number, {"ok": False, "reason": f"no such order: {order!r}"})

    def _shut_down(self, how: str) -> dict[str, Any]:
        now = time.monotonic()
        left = sum(self._table.used())
        if how == "cancel":
            if self._stop_at:
                return {"ok": False, "reason": "too late: calls are being ended"}
            if not self._soft_stop:
                return {"ok": False, "reason": "no soft shutdown is under way"}
            self._soft_stop = False
            self._table.set_stopping(False)
            self._log.notice("shutdown cancelled: new calls are served again", sessions=left)
            self._notifier.send(STATUS=self._status())
        elif how == "soft" and not self._stop_at:
            self._soft_stop = True
            self._table.set_stopping()
            self._log.notice("no new calls; ends when the last session has", sessions=left)
            self._notifier.send(STATUS="waits for the last session to end")
        else:
            self._due[STOP_AT_ONCE if how == "hard" else STOP] = now + ANSWER_S
        return {"ok": True, "sessions": left}

    def _levels(self) -> dict[str, Any]:
        return {
            "type": "log",
            "level": log.NAMES[self._log.level],
            "debugged": list(self._debugged),
        }

    def _set_levels(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Of everything, or what else is told of one session or user."""
        level, name = str(message.get("level")), str(message.get("name", ""))
        if level == "default":
            level = self.settings.log.level
            wanted = tuple(other for other in self._debugged if other != name) if name else ()
        else:
            wanted = (*(n for n in self._debugged if n != name), name) if name else self._debugged
        if level not in log.LEVELS:
            return {"ok": False, "reason": f"{level!r} is no level"}
        if len(wanted) > DEBUGGED_MAX:
            return {"ok": False, "reason": f"{DEBUGGED_MAX} names are debugged already"}
        self._debugged = wanted
        if not name:
            self._log.level = log.LEVELS[level]
        for child in self._children.values():
            child.send(self._levels(), self._log)
        self._log.notice("log level", level=log.NAMES[self._log.level], debugged=",".join(wanted))
        return {"ok": True, "level": log.NAMES[self._log.level], "debugged": list(wanted)}

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
        self._overdue: set[int] = set()
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
                if child.pid not in self._overdue:  # it takes a moment to be reaped
                    self._overdue.add(child.pid)
                    self._log.warning("does not end; killed", name=child.role.name, pid=child.pid)
                child.kill()

    # -- the loop

    def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        self._secrets.read_now()
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


def raise_file_limit() -> None:
    """Two descriptors per control connection: as many as the administrator allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def catch_signals() -> int:
    """From here on a signal is an octet in a pipe, whose end for reading this is."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return reader


def serve(settings: Settings, config_path: str, modules: Mapping[str, str] = MODULES) -> int:
    """The keeper's life, from open to exit status."""
    out = log.Log("keeper", level=log.LEVELS[settings.log.level], style=settings.log.format)
    try:
        check_privilege()
        raise_file_limit()
        wake = catch_signals()
        opened = Opened.begin(settings, out)
        try:
            opened.finish(settings, out)
            keeper = Keeper(settings, config_path, out, opened, wake, modules)
            code = keeper.run()
        finally:
            opened.instance.leave()
    except PermissionMissingError as e:
        return log.fatal(str(e), EXIT_PERMISSION)
    except UnavailableError as e:
        return log.fatal(str(e), EXIT_UNAVAILABLE)
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
