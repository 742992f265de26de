"""A concentrator behind a bad wire: namespaces, traffic that checks itself, counters.

client  192.0.2.1 --- wire (tests.netns.faults) --- 192.0.2.2  server  10.88.0.1 --- lan
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ops.client.concentrator import Samples
from ops.settings import Accounts, Gre, Ip, Limits, Listen, Pool, Settings, Workers
from tests.netns import spaces
from tests.netns.faults import Faults
from tests.netns.spaces import ROOT, Keeper, Space

SERVER: Final = "192.0.2.2"
LOCAL: Final = "10.99.0.1"
LAN_HOST: Final = "10.88.0.2"
SECRET: Final = "correct horse"
SIOCETHTOOL: Final = 0x8946  # linux/sockios.h, linux/ethtool.h
ETHTOOL_STXCSUM: Final = 0x17
ETHTOOL_STSO: Final = 0x1F
ETHTOOL_SGSO: Final = 0x24
NUMBER: Final = struct.Struct(">Id")  # of a datagram, and when it was sent

MakeSpace = Callable[[], Space]
StartKeeper = Callable[..., Keeper]


def settings(mode: str = "auto", **changes: Any) -> Settings:
    """A small concentrator."""
    parts: dict[str, Any] = {
        "listen": Listen(address=SERVER),
        "workers": Workers(count=1),
        "gre": Gre(mode=mode),  # type: ignore[arg-type] # pytest's parameters are plain str
        "ip": Ip(local=LOCAL),
        "pools": (Pool("default", ("10.99.1.1-100",)),),
        "accounts": Accounts(users=tuple((f"user{i}", SECRET) for i in range(1, 9))),
        "limits": Limits(max_sessions=64),
    }
    return Settings(**parts | changes)


def plain(space: Space, device: str) -> None:
    """Checksums and segments are made by the CPU: frames are what a wire would carry."""
    with space.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            request = struct.pack("=16sQ16x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


@dataclass
class Injector:
    """The wire's process."""

    process: subprocess.Popen[str]

    def stop(self) -> list[dict[str, int]]:
        """What it did: client to server, server to client."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=10)
        assert self.process.returncode == 0
        counts: list[dict[str, int]] = json.loads(out.splitlines()[-1])["counts"]
        return counts


@contextmanager
def injector(
    space: Space, devices: tuple[str, str], up: Faults, down: Faults, seed: int
) -> Iterator[Injector]:
    """Start it; it is gone afterwards."""
    words = ["-m", "tests.netns.faults", "--between", *devices, "--seed", str(seed), "--faults"]
    words += [json.dumps(asdict(kind)) for kind in (up, down)]
    process = subprocess.Popen(
        space.argv(sys.executable, *words), stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield Injector(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@dataclass
class Site:
    """The namespaces and what joins them."""

    client: Space
    wire: Space
    server: Space
    lan: Space
    devices: tuple[str, str]  # of the wire: towards client, towards server
    ends: tuple[str, str]  # the client's and the server's

    @classmethod
    def make(cls, make_space: MakeSpace, mtu: int = 1500) -> Site:
        """With this MTU on both ends of the wire."""
        client, wire, server, lan = (make_space() for _ in range(4))
        near = spaces.join(client, wire, "192.0.2")
        far = spaces.join(wire, server, "192.0.2")
        for device in (near[1], far[0]):  # no addresses: nobody but the injector is there
            wire.sh(f"ip addr flush dev {device}; ip link set {device} arp off")
        for space, device in ((client, near[0]), (server, far[1]), (wire, near[1]), (wire, far[0])):
            plain(space, device)
        client.sh(f"ip link set {near[0]} mtu {mtu}")
        server.sh(f"ip link set {far[1]} mtu {mtu}")
        spaces.join(server, lan, "10.88.0")
        lan.sh("ip route add default via 10.88.0.1")
        server.sh("sysctl -q net.ipv4.ip_forward=1")
        return cls(client, wire, server, lan, (near[1], far[0]), (near[0], far[1]))

    def faults(self, up: Faults, down: Faults, seed: int = 1) -> Any:
        """The wire, as a context: faults from the client to the server, and back."""
        return injector(self.wire, self.devices, up, down, seed)

    def metrics(self) -> Samples:
        """The concentrator's."""
        with self.server.inside():
            sock = socket.create_connection(("127.0.0.1", 9723), 5)
        connection = http.client.HTTPConnection("127.0.0.1", 9723)
        connection.sock = sock
        try:
            connection.request("GET", "/metrics")
            return Samples.parse(connection.getresponse().read().decode())
        finally:
            connection.close()

    def console(self, path: str) -> Any:
        """JSON from the control socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(f"{self.server.run_dir}/control.sock")
        connection = http.client.HTTPConnection("console")
        connection.sock = sock
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return json.loads(body)
        finally:
            connection.close()


@dataclass
class Client:
    """Our client as a program; its events."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def follow(self) -> None:
        """Read events; body of a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                with self._more:
                    self.events.append(json.loads(line))
                    self._more.notify_all()
        with self._more:
            self.events.append({"event": "eof"})
            self._more.notify_all()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind so far."""
        return [event for event in self.events if event["event"] == kind]

    def wait(self, kind: str, count: int = 1, seconds: float = 40.0) -> list[dict[str, Any]]:
        """Until there are so many events of a kind."""
        with self._more:
            done = self._more.wait_for(
                lambda: len(self.of(kind)) >= count or self.of("eof"), seconds
            )
        assert done and len(self.of(kind)) >= count, self.events
        return self.of(kind)

    @property
    def address(self) -> str:
        """Of the one session, once it is up."""
        found: str = self.wait("up")[0]["address"]
        return found

    def stop(self) -> int:
        """Hang up; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def client(
    space: Space, user: str = "user1", *words: str, server: str = SERVER
) -> Iterator[Client]:
    """Our client, logging in; ended afterwards."""
    reader, writer = os.pipe()
    os.write(writer, SECRET.encode() + b"\n")
    os.close(writer)
    argv = ["-m", "ops.client", "--server", server, "--user", user, "--json"]
    argv += ["--password-fd", str(reader), "--route", "10.99.0.0/24", "--route", "10.88.0.0/24"]
    process = subprocess.Popen(
        space.argv(sys.executable, *argv, *words),
        stdout=subprocess.PIPE,
        pass_fds=[reader],
        cwd=ROOT,
        text=True,
    )
    os.close(reader)
    made = Client(process)
    thread = threading.Thread(target=made.follow)
    thread.start()
    try:
        yield made
    finally:
        try:
            made.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        thread.join()
        assert process.stdout is not None
        process.stdout.close()


# -- traffic


def bound(space: Space, kind: socket.SocketKind, address: str, port: int = 0) -> socket.socket:
    """A socket of that namespace."""
    with space.inside():
        sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind is socket.SOCK_DGRAM:
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: losses are the wire's
    sock.bind((address, port))
    return sock


@dataclass
class Stream:
    """Numbered datagrams one way, and what became of them."""

    source: socket.socket
    target: socket.socket
    count: int
    rate: float
    size: int = 200
    numbers: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    _sent: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        """At the rate, as evenly as Python can."""
        began = time.monotonic()
        to = self.target.getsockname()
        for n in range(self.count):
            ahead = began + n / self.rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            head = NUMBER.pack(n, time.monotonic())
            self.source.sendto(head.ljust(self.size, b"."), to)
        self._sent.set()

    def receive(self) -> None:
        """Until nothing comes any more."""
        self.target.settimeout(1.0)
        while True:
            try:
                data = self.target.recv(65536)
            except TimeoutError:
                if self._sent.is_set():
                    return
                continue
            n, sent = NUMBER.unpack_from(data)
            assert len(data) == self.size
            self.numbers.append(n)
            self.delays.append(time.monotonic() - sent)

    @property
    def ordered(self) -> bool:
        """Each number at most once, and rising."""
        return all(a < b for a, b in zip(self.numbers, self.numbers[1:], strict=False))


def run(*bodies: Callable[[], None]) -> None:
    """All at once; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as e:  # raised in the test's own thread below
            failures.append(e)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def both_ways(
    site: Site, address: str, count: int, rate: float, size: int = 200
) -> tuple[Stream, Stream]:
    """Numbered datagrams from the client to the concentrator's inner address, and back."""
    near = bound(site.client, socket.SOCK_DGRAM, address)
    far = bound(site.server, socket.SOCK_DGRAM, LOCAL)
    with near, far:
        up, down = Stream(near, far, count, rate, size), Stream(far, near, count, rate, size)
        run(up.send, up.receive, down.send, down.receive)
    return up, down


def download(site: Site, address: str, octets: int) -> float:
    """A TCP download through the tunnel, compared by its SHA-256; the seconds it took."""
    return _transfer(site, address, octets, up=False)


def upload(site: Site, address: str, octets: int) -> float:
    """The same the other way."""
    return _transfer(site, address, octets, up=True)


def _transfer(site: Site, address: str, octets: int, *, up: bool) -> float:
    data = random.Random(octets).randbytes(octets)
    listener = bound(site.server, socket.SOCK_STREAM, LOCAL)
    listener.listen(1)
    listener.settimeout(20)
    sock = bound(site.client, socket.SOCK_STREAM, address)
    sock.settimeout(60)
    found = hashlib.sha256()

    def say(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    def hear(connection: socket.socket) -> None:
        while part := connection.recv(1 << 16):
            found.update(part)

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(60)
            (hear if up else say)(peer)

    def connect() -> None:
        sock.connect(listener.getsockname())
        (say if up else hear)(sock)

    began = time.monotonic()
    with listener, sock:
        run(serve, connect)
    assert found.digest() == hashlib.sha256(data).digest()
    return time.monotonic() - began


def ping(space: Space, source: str, target: str = LOCAL, count: int = 5, *words: str) -> str:
    """Output of ping, whatever its result."""
    argv = ["ping", "-I", source, "-c", str(count), "-i", "0.05", "-W", "2", *words, target]
    done = subprocess.run(space.argv(*argv), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def drops(samples: Samples) -> Mapping[str, float]:
    """Packets dropped, by reason; those there were."""
    return {k: v for k, v in samples.by("pptp_drops_total", "reason").items() if v}
