"""A real console process on a session table made here, and ways to fill and ask it.

The data thread's fields have no writer in Python, so the test knows their place: the
constants below follow fastpath/layout.pxd and are checked through Table's readers.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fastpath import layout
from fastpath.layout import DATA_COUNTERS, HISTOGRAM_NAMES, Table
from ops import boot
from ops.metrics import CONTROL_COUNTERS, DISPATCHER_COUNTERS, NETOPS_COUNTERS
from ops.ranges import parse_address
from ops.settings import Hooks, Metrics, Pool, Radius, RadiusServer, Server, Settings
from ops.status_page import StatusPage

ROOT = Path(__file__).resolve().parents[3]
WORKERS = 2
DATA_AT = 112  # in a worker's page
BUCKETS_AT = DATA_AT + 2 * 96 * 8
SUMS_AT = BUCKETS_AT + 4 * 10 * 8
BEAT_AT = 24
TRAFFIC_AT = 352  # in a record: generation, state, then 7 counters


# What an accounts process has written.
ACCOUNTS: dict[str, Any] = {
    "pid": os.getpid(),
    "backlog": 3,
    "sessions": 5,
    "journal": "/var/lib/pptpcon/accounting.db",
    "listen": "127.0.0.1:3799",
    "dynamic": {"coa:ack": 2, "disconnect:nak": 1, "other:not_allowed": 4},
    "servers": [
        {
            "server": "one",
            "kind": kind,
            "host": "192.0.2.50",
            "port": port,
            "priority": 0,
            "up": kind == "auth",
            "dead_s": 7,
            "waiting": 1,
            "sent": 20,
            "retransmits": 2,
            "results": {"accept": 15, "reject": 2, "timeout": 1},
            "faults": {"wrong_secret": 1},
            "deaths": 0,
            "late": 1,
            "seconds": 0.5,
            "buckets": [0, 10, 7] + [0] * 11,
        }
        for kind, port in (("auth", 1812), ("acct", 1813))
    ],
}


HOOKS: dict[str, Any] = {
    "results": {"ip_up:ok": 5, "ip_down:timeout": 1},
    "seconds": {"ip_up": 0.25},
    "running": 1,
    "waiting": 2,
}


class Shared:
    """A table, and the fields only a data thread writes."""

    def __init__(self, capacity: int = 64) -> None:
        self.fd = os.memfd_create("table", os.MFD_CLOEXEC)
        self.table = Table.create(self.fd, capacity, WORKERS, 0x65000001)
        self.map = mmap.mmap(self.fd, 0)

    def page(self, worker: int) -> int:
        return layout.PAGE * (1 + worker)

    def set_data(self, worker: int, **counters: int) -> None:
        for name, value in counters.items():
            at = self.page(worker) + DATA_AT + 8 * DATA_COUNTERS.index(name)
            struct.pack_into("<Q", self.map, at, value)
        found = self.table.data_counters(worker)
        assert {k: found[k] for k in counters} == counters

    def set_histogram(self, worker: int, name: str, counts: list[int], total: int) -> None:
        which = HISTOGRAM_NAMES.index(name)
        page = self.page(worker)
        struct.pack_into("<10Q", self.map, page + BUCKETS_AT + 80 * which, *counts)
        struct.pack_into("<Q", self.map, page + SUMS_AT + 8 * which, total)
        assert self.table.histogram(worker, which) == (counts, total)

    def data_beat(self, worker: int, ns: int) -> None:
        struct.pack_into("<Q", self.map, self.page(worker) + BEAT_AT, ns)
        assert self.table.worker(worker).data_beat_ns == ns

    def set_traffic(self, index: int, rx: tuple[int, int], tx: tuple[int, int], drops: int) -> None:
        generation, _ = self.table.allot_state(index)
        at = layout.PAGE * (1 + WORKERS) + 1024 * index + TRAFFIC_AT
        struct.pack_into(
            "<IB3x7Q", self.map, at, generation, layout.DATA_IS_UP, *rx, *tx, drops, rx[0], 0
        )
        s = self.table.session(index)
        assert (s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes) == (*rx, *tx)
        assert s.drops == drops

    def call(self, index: int, worker: int = 0, peer: str = "192.0.2.7") -> int:
        """A call whose link is being negotiated; its sid."""
        generation, sid = self.table.allot(
            index,
            worker=worker,
            call_id=64 + index,
            peer_call_id=index,
            local_address=parse_address("198.51.100.1"),
            peer_address=parse_address(peer),
            peer_port=40000 + index % 20000,
            peer_window=64,
            peer_speed=100_000_000,
            connection=index + 1,
        )
        self.table.begin_link(index, generation)
        return sid

    def up(
        self,
        index: int,
        user: str,
        ip: str,
        worker: int = 0,
        peer: str = "192.0.2.7",
        pool: int = 0,
    ) -> int:
        """A session that carries data; its sid."""
        sid = self.call(index, worker, peer)
        table = self.table
        table.set_user(index, user, 4)
        table.grant(index, parse_address(ip), parse_address("10.99.0.1"), pool)
        table.set_link(
            index,
            address=parse_address(ip),
            local=parse_address("10.99.0.1"),
            mtu=1396,
            mru=1400,
            mppe_rx_bits=128,
            mppe_tx_bits=128,
            stateful=0,
            framing=1,
            magic=0x11223344,
            peer_magic=0x55667788,
            echo_interval_s=30,
            echo_failures=4,
        )
        table.set_state(index, layout.STATE_ACTIVE)
        return sid

    def count(self, name: str, n: int = 1) -> None:
        self.table.dispatcher_count(DISPATCHER_COUNTERS.index(name), n)

    def count_control(self, worker: int, name: str, n: int = 1) -> None:
        self.table.control_count(worker, CONTROL_COUNTERS.index(name), n)

    def count_netops(self, name: str, n: int = 1) -> None:
        self.table.netops_count(NETOPS_COUNTERS.index(name), n)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class Console:
    """The process and its two doors."""

    def __init__(self, shared: Shared, run_dir: Path, settings: Settings) -> None:
        self.shared = shared
        self.run_dir = run_dir
        self.settings = settings
        self.port = int(settings.metrics.listen.rpartition(":")[2] or 0)
        self.keeper, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.keeper.settimeout(20)
        self.path = str(run_dir / "control.sock")
        control = socket.socket(socket.AF_UNIX)
        control.bind(self.path)
        control.listen(16)
        status = os.memfd_create("status")
        StatusPage(status, writable=True).write(ACCOUNTS)
        hooks = os.memfd_create("hooks")
        StatusPage(hooks, writable=True).write(HOOKS)
        data = {
            "role": "console",
            "index": 0,
            "run_dir": str(run_dir),
            "settings": asdict(settings),
            "fds": {
                "keeper": child.fileno(),
                "table": shared.fd,
                "control": control.fileno(),
                "status": status,
                "hooks": hooks,
            },
            "extra": {},
        }
        memfd = boot.make_memfd("boot", json.dumps(data).encode())
        self.log_path = run_dir / "console.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.console", "--boot-fd", str(memfd)],
                pass_fds=(memfd, child.fileno(), shared.fd, control.fileno(), status, hooks),
                stderr=log,
                cwd=ROOT,
            )
        os.close(memfd)
        os.close(status)
        os.close(hooks)
        child.close()
        control.close()

    def wait_ready(self) -> None:
        message = self.keeper.recv(65536)
        assert message, self.log()
        assert json.loads(message) == {"type": "ready"}

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        """As the keeper does; the exit code."""
        with contextlib.suppress(OSError):
            self.keeper.send(json.dumps({"type": "stop"}).encode())
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.keeper.close()

    def reload(self, settings: Settings) -> None:
        self.keeper.send(json.dumps({"type": "settings", "settings": asdict(settings)}).encode())

    def request(
        self,
        path: str,
        *,
        tcp: bool = False,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, body."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            if tcp
            else UnixConnection(self.path)
        )
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str, **words: Any) -> Any:
        status, _, body = self.request(path, **words)
        assert status == 200, body
        return json.loads(body)

    def metrics(self, **words: Any) -> str:
        status, _, body = self.request("/metrics", **words)
        assert status == 200
        return body.decode()


def settings(port: int = 0) -> Settings:
    return replace(
        Settings(),
        server=Server(user="nobody"),
        radius=Radius(servers=(RadiusServer("192.0.2.50", "testing123", name="one"),)),
        hooks=Hooks(ip_up="/bin/true"),
        metrics=Metrics(listen=f"127.0.0.1:{port}" if port else ""),
        pools=(Pool("default", ("10.99.0.0-255", "10.99.1.0-255")), Pool("vip", ("10.50.0.0/30",))),
    )


@contextlib.contextmanager
def console(shared: Shared, run_dir: Path, chosen: Settings | None = None) -> Iterator[Console]:
    """Started and ready; stopped at the end, which must go well."""
    fcntl.fcntl(shared.fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    rig = Console(shared, run_dir, chosen or settings(free_port()))
    try:
        rig.wait_ready()
        yield rig
    finally:
        code = rig.stop()
    assert code == 0, rig.log()
    assert "Traceback" not in rig.log()
