"""A real dispatcher process, with peers made of sockets: workers on the bus, TCP clients.

The peers use the codecs of ops.messages and dispatcher.pptp.messages; nothing of the
dispatcher is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import zmq

from dispatcher.pptp.framing import Framer
from dispatcher.pptp.messages import (
    ClearRequest,
    DisconnectNotify,
    Message,
    OutgoingReply,
    OutgoingRequest,
    StartReply,
    StartRequest,
)
from fastpath.layout import Table
from ops import messages as bus
from ops.boot import make_memfd
from ops.metrics import DISPATCHER_COUNTERS
from ops.settings import Ip, Limits, Pool, Server, Settings

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 10.0  # for a machine that is busy with other things
M = TypeVar("M")

SETTINGS = Settings(
    server=Server(user="nobody"),
    ip=Ip(local="192.168.0.1"),
    pools=(Pool("default", ("192.168.1.234-238",)),),
    limits=Limits(max_sessions=64),
)


def eventually(check: Callable[[], bool], what: str) -> None:
    """Wait until `check` holds."""
    end = time.monotonic() + PATIENCE_S
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.01)


class Client:
    """A TCP client that speaks control messages."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._framer = Framer()
        self._arrived: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sock.sendall(b"".join(message.encode() for message in messages))

    def read(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        while not self._arrived:
            data = self.sock.recv(4096)
            assert data, f"closed instead of {kind.__name__}"
            messages, error = self._framer.feed(data)
            assert error is None, error
            self._arrived += messages
        message = self._arrived.pop(0)
        assert isinstance(message, kind), message
        return message

    def at_end(self) -> bool:
        """Whether the server closes now, with nothing more to say."""
        try:
            return not self._arrived and self.sock.recv(4096) == b""
        except ConnectionResetError:
            return True

    def start(self) -> StartReply:
        self.send(StartRequest())
        return self.read(StartReply)

    def call(self, call_id: int = 0) -> OutgoingReply:
        """Ask for a call and wait for the answer."""
        self.send(OutgoingRequest(call_id))
        return self.read(OutgoingReply)

    def clear(self, call_id: int = 0) -> DisconnectNotify:
        self.send(ClearRequest(call_id))
        return self.read(DisconnectNotify)

    def close(self) -> None:
        self.sock.close()


class Worker:
    """A worker's end of the bus."""

    def __init__(self, rig: Rig, index: int, pid: int = 0) -> None:
        self.rig = rig
        self.index = index
        self.pid = pid or 1000 + index
        self.socket = rig.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, b"worker-%d" % index)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.socket.connect(rig.bus_address)

    def hello(self, *sessions: tuple[int, int], credit: int = 100) -> bus.Welcome:
        self.send(bus.Hello(bus.VERSION, self.index, self.pid, credit, sessions))
        return self.read(bus.Welcome)

    def send(self, message: bus.Message) -> None:
        self.socket.send(bus.encode(message))

    def read(self, kind: type[M]) -> M:
        """The next message apart from heartbeats, which are answered."""
        while True:
            message = bus.decode(self.socket.recv())
            if isinstance(message, bus.Heartbeat) and kind is not bus.Heartbeat:
                self.send(bus.Heartbeat(100))
                continue
            assert isinstance(message, kind), message
            return message

    def install(self, ok: bool = True) -> tuple[int, int]:
        """Take an Install and answer it."""
        message = self.read(bus.Install)
        handle = message.index, message.generation
        self.rig.table.begin_link(*handle)
        self.send(bus.Installed(*handle, ok, "" if ok else "the table is full"))
        return handle

    def admit(
        self, handle: tuple[int, int], user: str = "bob", address: int = 0, pool: str = ""
    ) -> bus.Admitted:
        self.send(bus.Admit(*handle, user, address, pool))
        return self.read(bus.Admitted)

    def up(self, handle: tuple[int, int], admitted: bus.Admitted) -> None:
        self.rig.table.set_link(
            handle[0],
            address=admitted.address,
            local=admitted.local,
            mtu=1396,
            mru=1400,
            mppe_rx_bits=128,
            mppe_tx_bits=128,
            stateful=0,
            framing=0,
            magic=1,
            peer_magic=2,
            echo_interval_s=30,
            echo_failures=4,
        )
        self.send(bus.Up(*handle))

    def end(self) -> bus.End:
        """Take an End and answer it."""
        end = self.read(bus.End)
        self.send(bus.Ended(end.index, end.generation))
        return end

    def close(self) -> None:
        self.socket.close()


class Rig:
    """The dispatcher, its table, and what it was given."""

    def __init__(
        self,
        run_dir: Path,
        settings: Settings = SETTINGS,
        *,
        workers: int = 1,
        descriptors: int | None = None,
    ) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.descriptors = descriptors
        self.context = zmq.Context()
        self.table_fd = os.memfd_create("table")
        self.table = Table.create(self.table_fd, settings.limits.max_sessions, workers, 0x5E55)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.listener.getsockname()[1]
        self.bus_address = f"ipc://{run_dir}/bus.sock"
        self.log_path = run_dir / "log"
        self._open: list[Any] = []
        self.vault_ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.start_vault()
        self.start()

    def _boot(self, role: str, fds: dict[str, Any]) -> tuple[int, socket.socket]:
        """A boot memfd, and the keeper's end of what it names."""
        keeper, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper.settimeout(PATIENCE_S)
        os.set_inheritable(child.fileno(), True)
        boot = {
            "role": role,
            "index": 0,
            "run_dir": str(self.run_dir),
            "settings": asdict(self.settings),
            "fds": {"keeper": child.detach(), **fds},
            "extra": {},
        }
        return make_memfd("boot", json.dumps(boot).encode()), keeper

    def start_vault(self) -> None:
        """Start a vault; the second time, a successor."""
        end = self.vault_ends[1].fileno()
        fd, self.vault_keeper = self._boot("vault", {"dispatcher": end})
        child = json.loads(os.pread(fd, 1 << 20, 0))["fds"]["keeper"]
        with self.log_path.open("ab") as log:
            self.vault = subprocess.Popen(
                [sys.executable, "-m", "dispatcher.vault", "--boot-fd", str(fd)],
                cwd=ROOT,
                stderr=log,
                pass_fds=(fd, child, end),
            )
        os.close(fd)
        os.close(child)
        assert json.loads(self.vault_keeper.recv(65536)) == {"type": "ready"}, self.log()

    def kill_vault(self) -> None:
        self.vault.send_signal(signal.SIGKILL)
        self.vault.wait()
        self.vault_keeper.close()

    def start(self) -> None:
        """Start a dispatcher; the second time, a successor."""
        vault = self.vault_ends[0].fileno()
        listener = self.listener.fileno()
        given = {"table": self.table_fd, "listeners": [listener], "vault": vault}
        fd, self.keeper = self._boot("dispatcher", given)
        child = json.loads(os.pread(fd, 1 << 20, 0))["fds"]["keeper"]
        limit = self.descriptors

        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dispatcher.process", "--boot-fd", str(fd)],
                cwd=ROOT,
                stderr=log,
                pass_fds=(fd, child, self.table_fd, listener, vault),
                preexec_fn=prepare if limit is not None else None,  # noqa: PLW1509
            )
        os.close(fd)
        os.close(child)
        assert json.loads(self.keeper.recv(65536)) == {"type": "ready"}, self.log()

    def tell(self, message: dict[str, Any]) -> None:
        self.keeper.send(json.dumps(message).encode())

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.tell({"type": "settings", "settings": asdict(self.settings)})

    def worker(self, index: int = 0, pid: int = 0) -> Worker:
        worker = Worker(self, index, pid)
        self._open.append(worker)
        return worker

    def client(self) -> Client:
        client = Client(self.port)
        self._open.append(client)
        return client

    def console(self) -> zmq.Socket[bytes]:
        console = self.context.socket(zmq.DEALER)
        console.setsockopt(zmq.IDENTITY, b"console-1-1")
        console.setsockopt(zmq.LINGER, 0)
        console.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        console.connect(self.bus_address)
        self._open.append(console)
        return console

    def log(self) -> str:
        return self.log_path.read_text()

    def logged(self, *parts: str) -> None:
        """Wait for a line with all of `parts`."""

        def found() -> bool:
            return any(all(part in line for part in parts) for line in self.log().splitlines())

        try:
            eventually(found, f"a line with {parts}")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log()}") from None

    def count(self, name: str) -> int:
        return int(self.table.dispatcher_counters()[DISPATCHER_COUNTERS.index(name)])

    def counted(self, name: str, value: int) -> None:
        eventually(lambda: self.count(name) == value, f"{name} {value}, not {self.count(name)}")

    def used(self) -> int:
        return sum(self.table.used())

    def stop(self) -> int:
        """Ask it to end, and wait."""
        self.tell({"type": "stop"})
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.keeper.close()

    def close(self) -> None:
        for peer in self._open:
            peer.close()
        if self.process.poll() is None:
            self.kill()
        if self.vault.poll() is None:
            self.kill_vault()
        for end in self.vault_ends:
            end.close()
        self.keeper.close()
        self.listener.close()
        os.close(self.table_fd)
        self.context.term()


@contextlib.contextmanager
def rig(run_dir: Path, settings: Settings = SETTINGS, **options: Any) -> Iterator[Rig]:
    """A dispatcher that is gone afterwards, and never left a traceback."""
    made = Rig(run_dir, settings, **options)
    try:
        yield made
        assert "Traceback" not in made.log(), made.log()
        assert "internal error" not in made.log(), made.log()
    finally:
        made.close()
