"""All that the keeper opened and keeps open, and which child is handed what of it.

Descriptors stay open here for as long as the keeper lives, so that a child's successor
gets the very same sockets and TUN.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher import cpus, descriptors, gre_sockets, instance, subscribers_side
from dispatcher.children import Fds, Role
from dispatcher.cpus import Plan
from dispatcher.descriptors import Tun, UnavailableError
from dispatcher.gre_sockets import GreSockets
from dispatcher.instance import Instance
from fastpath.layout import Table
from ops import rundir, status_page
from ops.log import Log
from ops.settings import Settings

STATE_BASE: Final = "/var/lib"


def _listener(settings: Settings) -> socket.socket:
    listen = settings.listen
    try:
        return descriptors.listener(listen.address, listen.port, listen.backlog)
    except OSError as e:
        text = instance.address_trouble(listen.address, listen.port, e)
        raise UnavailableError(text) from None


def _tuns(count: int) -> list[Tun]:
    tuns: list[Tun] = []
    for _ in range(count):
        last = tuns[-1].name.removeprefix(descriptors.TUN_PREFIX) if tuns else "-1"
        tuns.append(descriptors.tun(int(last) + 1))
    return tuns


@dataclass(slots=True)
class Opened:
    """In the order in which they were opened; the first that fails ends the start."""

    log: Log
    listener: socket.socket
    instance: Instance
    plan: Plan
    side: int = -1  # network namespace of the TUNs; -1: ours
    devices: int = -1  # /proc/net/dev there: whoever reads it need not enter
    tuns: list[Tun] = field(default_factory=list)
    gre: GreSockets = field(init=False)
    table: Table = field(init=False)
    table_fd: int = -1
    table_read_only: int = -1
    # (worker's end, netops' end), by worker: neither of them sees the other one die
    pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    # (dispatcher's end, vault's end)
    vault: tuple[socket.socket, socket.socket] = field(init=False)
    # the same with the accounts process
    accounts: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    # the same with the hooks process
    hooks: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    status_fd: int = -1  # figures of the accounts process, ops.status_page
    status_read_only: int = -1
    hooks_fd: int = -1  # the same of the hooks process
    hooks_read_only: int = -1
    control: socket.socket = field(init=False)

    @classmethod
    def begin(cls, settings: Settings, log: Log) -> Opened:
        """The listener, then the run folder: whoever has either is named to the user."""
        listener = _listener(settings)
        place = Instance(settings.server.run_dir or rundir.serving_run_dir(), log)
        place.enter(settings.server.user)
        instance.sweep_siblings(rundir.BASE, log)
        plan = cpus.plan(settings.workers, cpus.available())
        if plan.missing:
            log.warning(
                "workers.cpus names CPUs this process may not use",
                cpus=",".join(map(str, plan.missing)),
                used=",".join(map(str, dict.fromkeys(plan.cpus))),
            )
        return cls(log, listener, place, plan)

    def finish(self, settings: Settings, log: Log) -> None:
        """Devices, GRE sockets, shared memory, control socket."""
        workers = self.plan.workers
        self._open_tuns(settings.lan.netns, workers)
        log.info(
            "tun devices",
            names=",".join(tun.name for tun in self.tuns),
            segmentation=",".join(self.tuns[0].segmentation) or "none",
        )
        try:
            # A device of another namespace is none that GRE could come from.
            own = self.tuns if self.side < 0 else []
            self.gre = gre_sockets.open_all(settings, workers, own)
        except OSError as e:
            raise UnavailableError(f"GRE sockets: {os.strerror(e.errno or 0)}") from None
        log.info(
            "gre mode",
            mode=self.gre.receives,
            reason=self.gre.reason,
            send=self.gre.sends,
            send_reason=self.gre.send_reason,
            xdp_reason=self.gre.xdp_reason,
        )
        self.table_fd = descriptors.memfd("sessions")
        epoch = int(time.time()) & 0xFFFFFFFF
        self.table = Table.create(self.table_fd, settings.limits.max_sessions, workers, epoch)
        self.table.set_pid("keeper", os.getpid())
        self.table.set_config(True)
        self.table.set_ways(self.gre.receives, self.gre.sends)
        self.table_read_only = descriptors.read_only(self.table_fd)
        self.vault = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for _ in range(workers):
            self.pairs.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self.accounts.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self.hooks.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.status_fd = descriptors.memfd("accounts")
        os.ftruncate(self.status_fd, status_page.SIZE)
        self.status_read_only = descriptors.read_only(self.status_fd)
        self.hooks_fd = descriptors.memfd("hooks")
        os.ftruncate(self.hooks_fd, status_page.SIZE)
        self.hooks_read_only = descriptors.read_only(self.hooks_fd)
        self.control = self.instance.control_socket()
        self.record([])

    def _open_tuns(self, netns: str, workers: int) -> None:
        self.side = subscribers_side.open_side(netns)
        try:
            with subscribers_side.inside(self.side):
                self.tuns = _tuns(workers)
                self.devices = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            if self.side < 0:
                raise
            if e.errno == errno.EINVAL:  # of setns(2): a descriptor of something else
                raise UnavailableError(
                    f"lan.netns: {netns} is no network namespace: `ip netns add` makes one"
                ) from None
            raise UnavailableError(
                f"lan.netns: {netns} can't be entered ({e.strerror}): it takes CAP_SYS_ADMIN,"
                " and RestrictNamespaces=net in a systemd unit"
            ) from None

    def record(self, children: list[int]) -> None:
        """Write down for the next start what a SIGKILL would leave."""
        # In a namespace of others the names say nothing here, and devices go with their last
        # descriptor anyway.
        names = [tun.name for tun in self.tuns] if self.side < 0 else []
        self.instance.record(children, names)

    def handed(self, role: Role, settings: Settings) -> tuple[Fds, dict[str, Any]]:
        """Descriptors and extras of a child: ARCHITECTURE.md, "Boot contract"."""
        fds: Fds = {"table": self.table_fd}
        if role.kind == "netops":
            fds["workers"] = [netops.fileno() for _, netops in self.pairs]
            if self.side >= 0:
                fds["side"] = self.side
            tuns = [
                {"name": tun.name, "ifindex": tun.ifindex, "worker": worker}
                for worker, tun in enumerate(self.tuns)
            ]
            packet_mode = self.gre.packet_mode
            extra = {"tuns": tuns, "packet_mode": packet_mode, "hop": bool(self.gre.hop)}
            extra["rings"] = self.gre.xdp is not None
            return fds, extra | {"keeper_pid": os.getpid()}
        if role.kind == "dispatcher":
            fds["vault"] = self.vault[0].fileno()
            return fds | {"listeners": [self.listener.fileno()]}, {}
        if role.kind == "vault":
            return {"dispatcher": self.vault[1].fileno()}, {}
        if role.kind == "console":
            fds = {"table": self.table_read_only, "control": self.control.fileno()}
            fds |= {"status": self.status_read_only, "hooks": self.hooks_read_only}
            return fds, {}
        if role.kind == "accounts":
            fds = {"table": self.table_read_only, "status": self.status_fd}
            fds["workers"] = [ours.fileno() for _, ours in self.accounts]
            return fds, {"state_dir": self._make_state_dir(settings)}
        if role.kind == "hooks":
            fds = {"table": self.table_read_only, "status": self.hooks_fd}
            return fds | {"workers": [ours.fileno() for _, ours in self.hooks]}, {}
        tun = self.tuns[role.index]
        more, extra = self.gre.handed(role.index)
        fds |= more
        fds["tun"] = tun.fd
        fds["devices"] = self.devices
        fds["netops"] = self.pairs[role.index][0].fileno()
        fds["accounts"] = self.accounts[role.index][0].fileno()
        fds["hooks"] = self.hooks[role.index][0].fileno()
        return fds, extra | {
            "cpu": self.plan.cpus[role.index],
            "alone": self.plan.alone(role.index),
            "tun_name": tun.name,
            "tun_ifindex": tun.ifindex,
        }

    def drain_answers(self, worker: int) -> None:
        """Answers to a dead worker must not be taken for answers to its successor."""
        for end in (self.pairs[worker][0], self.accounts[worker][0], self.hooks[worker][0]):
            while True:
                try:
                    end.recv(1, socket.MSG_DONTWAIT)
                except OSError:
                    break

    def _make_state_dir(self, settings: Settings) -> str:
        """The folder of what outlives a restart, of server.user; "" if it cannot be had."""
        path = settings.server.state_dir
        if not path:
            path = os.path.join(STATE_BASE, os.path.basename(str(self.instance.path)))
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            if os.geteuid() == 0 and settings.server.user:
                found = pwd.getpwnam(settings.server.user)
                os.chown(path, found.pw_uid, found.pw_gid, follow_symlinks=False)
        except (OSError, KeyError) as e:
            self.log.error("server.state_dir cannot be used", path=path, reason=str(e))
            return ""
        return path

    def mark(self, role: Role, pid: int) -> None:
        """Note a child's start, or with pid 0 its end, in the table."""
        if role.kind == "worker":
            self.table.set_worker(role.index, pid, bool(pid))
        elif role.kind not in ("accounts", "hooks", "vault"):  # the first two have pages
            self.table.set_pid(role.kind, pid)
