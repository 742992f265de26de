"""A concentrator with one session of our client, whose rate is set and measured."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.client.child import PYTHON, Child
from ops.client.concentrator import Concentrator, Toml
from ops.client.lines import Lines
from ops.client.playground import LAN_HOST, LAN_NET, WAN_SERVER, Playground

PASSWORD = "correct horse"
USER = "user1"
STREAM = str(Path(__file__).with_name("stream.py"))
PORT = 5001
RTT = re.compile(r"time=([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class Measured:
    """bit/s: of inner IP packets by the session's counters, of TCP payload at the receiver."""

    inner: float
    payload: float


@dataclass
class Site:
    """What is measured."""

    concentrator: Concentrator
    address: str  # inner

    @property
    def ground(self) -> Playground:
        return self.concentrator.playground

    # -- what the operator does

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the console at its control socket; the JSON answer."""
        inode = os.stat(f"/run/netns/{self.ground.name('server')}").st_ino
        link = http.client.HTTPConnection("localhost", timeout=10)
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.settimeout(10)
        link.sock.connect(f"/run/pptpcon-{inode}/control.sock")
        try:
            link.request(method, path, None if body is None else json.dumps(body))
            answer = link.getresponse()
            data = answer.read()
        finally:
            link.close()
        assert answer.status == 200, data
        return json.loads(data)

    def change(self, **changes: Any) -> None:
        """Fields of the session's policy."""
        body = {"by": "username", "value": USER, "changes": changes}
        assert self.request("POST", "/api/change", body) == {"count": 1, "errors": []}

    def session(self) -> dict[str, Any]:
        """What `show session` tells."""
        (found,) = self.request("GET", f"/api/session/{USER}")
        return dict(found)

    # -- what the subscriber sees

    def _argv(self, place: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.ground.name(place), *words]

    def _stream(self, place: str, *words: str) -> subprocess.Popen[str]:
        argv = self._argv(place, sys.executable, STREAM, *words)
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def stream(self, way: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """One TCP stream, "up" or "down", while the block runs; the receiver's process."""
        far, near = ("receive", "send") if way == "up" else ("send", "receive")
        with self._stream("lan", "listen", LAN_HOST, str(PORT), far, str(seconds)) as lan:
            assert lan.stdout is not None
            assert lan.stdout.readline() == "listening\n"
            words = (LAN_HOST, str(PORT), self.address, near, str(seconds))
            with self._stream("clients", "connect", *words) as client:
                yield lan if way == "up" else client
                client.wait(seconds + 15)
            lan.wait(seconds + 15)

    def octets(self, way: str) -> tuple[float, int]:
        """When, and inner IP octets that went through until then."""
        name = "rx-bytes-raw" if way == "up" else "tx-bytes-raw"
        return time.monotonic(), int(self.session()[name])

    def rate(self, way: str, seconds: float, settle: float) -> Measured:
        """One TCP stream; the first `settle` seconds do not count."""
        with self.stream(way, settle + seconds + 1) as receiver:
            time.sleep(settle)
            began, before = self.octets(way)
            time.sleep(seconds)
            ended, after = self.octets(way)
            assert receiver.stdout is not None
            samples = json.loads(receiver.stdout.readline())
        late = [sample for sample in samples if sample[0] >= settle]
        (first, less), (last, more) = late[0], late[-1]
        return Measured(
            inner=(after - before) * 8 / (ended - began), payload=(more - less) * 8 / (last - first)
        )

    def ping(self, count: int = 20, *, every: float = 0.1, to: str = LAN_HOST) -> list[float]:
        """Round trips in ms of those that came back."""
        words = ["ping", "-n", "-I", self.address, "-c", str(count), "-i", str(every), "-W", "1"]
        done = subprocess.run(
            self._argv("clients", *words, to), capture_output=True, text=True, check=False
        )
        return [float(ms) for ms in RTT.findall(done.stdout)]


@contextmanager
def site(
    extra: Mapping[str, Mapping[str, Toml]] | None = None, *, mppe: str = "require"
) -> Iterator[Site]:
    """Started, with the session up."""
    with Playground() as ground:
        concentrator = Concentrator(ground, {USER: PASSWORD}, extra=extra or {})
        concentrator.start()
        read, write = os.pipe()
        os.write(write, PASSWORD.encode() + b"\n")
        os.close(write)
        argv = [*PYTHON, "ops.client", "--server", WAN_SERVER, "--password-fd", str(read)]
        argv += ["--route", LAN_NET, "--json", "--user", USER, "--mppe", mppe]
        child: Child = ground.start(
            "clients", "client", argv, pass_fds=(read,), stdout=subprocess.PIPE
        )
        os.close(read)
        lines = Lines()
        lines.add("client", child.process.stdout)
        until = time.monotonic() + 60
        up: dict[str, Any] = {}
        while not up:
            assert time.monotonic() < until, child.tail()
            up = next((event for _, event in lines.read(0.2) if event["event"] == "up"), {})
        yield Site(concentrator, up["address"])
