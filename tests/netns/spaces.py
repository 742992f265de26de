"""Network namespaces under unique names, and what tests do in and between them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from ops import boot, rundir, settings
from ops.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def need_root() -> None:
    """Skip with a reason where namespaces or TUNs can't be had; under CI that is a failure."""
    reason = ""
    if os.geteuid() != 0:
        reason = "needs root for network namespaces"
    elif not os.path.exists("/dev/net/tun"):
        reason = "needs /dev/net/tun (modprobe tun)"
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def wait_for(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Ask until the answer is true; the answer. AssertionError after `seconds`."""
    ends = time.monotonic() + seconds
    while not (answer := what()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return answer


class Space:
    """One network namespace with its loopback up."""

    def __init__(self) -> None:
        self.name = f"pt{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.sh("ip link set lo up")

    def argv(self, *words: str) -> list[str]:
        """A command line that runs `words` inside."""
        return ["ip", "netns", "exec", self.name, *words]

    def sh(self, command: str) -> str:
        """Run a shell command inside; its output. Fails the test if it fails."""
        done = subprocess.run(
            self.argv("sh", "-c", command), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread in the namespace; sockets and TUNs made here stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            assert libc.setns(fd, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(before, CLONE_NEWNET) == 0
        finally:
            os.close(before)
            os.close(fd)

    def routes(self) -> list[dict[str, Any]]:
        """The main table."""
        found: list[dict[str, Any]] = json.loads(self.sh("ip -d -j -4 route"))
        return found

    def ours(self) -> list[str]:
        """What is left of a concentrator: routes, TUNs, tables, TCP listeners."""
        left = [f"route {r['dst']}" for r in self.routes() if r.get("protocol") == "201"]
        links = json.loads(self.sh("ip -j link"))
        left += [f"link {link['ifname']}" for link in links if link["ifname"] != "lo"]
        left += self.sh("nft list tables").splitlines()
        left += self.sh("ss -Hltn").splitlines()
        run_dir = self.run_dir
        left += [run_dir] if os.path.exists(run_dir) else []
        return [item for item in left if not item.startswith("link veth")]

    @property
    def run_dir(self) -> str:
        """The run folder that belongs to the namespace."""
        with self.inside():
            # /proc/self is the main thread's; the rule itself is asked in a child.
            words = [
                sys.executable,
                "-c",
                "from ops import rundir; print(rundir.default_run_dir())",
            ]
            done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.strip() != rundir.BASE
        return done.stdout.strip()

    def remove(self) -> None:
        """End what still runs inside, then remove the namespace."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
        )
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


def join(a: Space, b: Space, network: str) -> tuple[str, str]:
    """A veth pair between two namespaces: `network`.1 in `a`, .2 in `b`; device names."""
    number = next(_numbers)
    names = f"vetha{number}", f"vethb{number}"
    temporary = f"ta{os.getpid()}x{number}"[:15], f"tb{os.getpid()}x{number}"[:15]
    subprocess.run(
        ["ip", "link", "add", temporary[0], "type", "veth", "peer", "name", temporary[1]],
        check=True,
    )
    for space, old, new, host in ((a, temporary[0], names[0], 1), (b, temporary[1], names[1], 2)):
        subprocess.run(["ip", "link", "set", old, "netns", space.name], check=True)
        space.sh(f"ip link set {old} name {new}")
        space.sh(f"ip addr add {network}.{host}/24 dev {new} && ip link set {new} up")
    return names


def enhanced(call_id: int, payload: bytes = b"payload") -> bytes:
    """An enhanced GRE packet, RFC 2637 section 4.1, with sequence number 1."""
    return pack(">BBHHHL", 0x30, 0x01, 0x880B, len(payload), call_id, 1) + payload


class Keeper:
    """A keeper process in a namespace, with its output."""

    def __init__(
        self,
        space: Space,
        conf: Settings,
        *,
        module: str = "tests.netns.trivial_keeper",
        config_path: str = "",
        environment: dict[str, str] | None = None,
        wrap: tuple[str, ...] = (),
    ) -> None:
        self.space = space
        fd = boot.make_memfd("config", settings.dumps(conf))
        if module == "dispatcher.keeper":
            words = ["--config-fd", str(fd), "--config-path", config_path]
        else:  # the last word is for those who look for a keeper by its command line
            words = [str(fd), config_path, "dispatcher.keeper"]
        self.output = os.memfd_create("output")
        # A memfd's position is not locked between processes: lines would be lost.
        fcntl.fcntl(self.output, fcntl.F_SETFL, os.O_APPEND)
        self.process = subprocess.Popen(
            space.argv(*wrap, sys.executable, "-m", module, *words),
            stderr=self.output,
            stdout=self.output,
            pass_fds=[fd],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        os.close(fd)

    @property
    def text(self) -> str:
        """All it and its children printed so far."""
        return boot.read_memfd(self.output).decode("utf-8", "replace")

    def heard(self, text: str, seconds: float = 10.0) -> Keeper:
        """Wait until `text` was printed."""
        ends = time.monotonic() + seconds
        while text not in self.text:
            assert self.process.poll() is None or text in self.text, self.text
            assert time.monotonic() < ends, f"no {text!r} in:\n{self.text}"
            time.sleep(0.01)
        return self

    def ready(self) -> Keeper:
        """Wait until it serves."""
        return self.heard("keeper: ready")

    def children(self) -> dict[str, int]:
        """Process numbers of its children by role and index."""
        found = {}
        pid = self.process.pid
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            line = Path(f"/proc/{word}/cmdline").read_bytes().split(b"\0")
            module = line[3].decode() if len(line) > 3 else "?"
            found[f"{module}:{word}"] = int(word)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(15)

    def kill_all(self) -> None:
        """SIGKILL to the keeper and all its children."""
        pids = [self.process.pid, *self.children().values()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # nobody gets to tidy up
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(15)
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def received(sock: socket.socket, quiet: float = 0.3) -> list[bytes]:
    """All packets that arrive until nothing came for `quiet` seconds."""
    sock.settimeout(quiet)
    packets = []
    while True:
        try:
            packets.append(sock.recv(65536))
        except TimeoutError:
            return packets


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is dead (a zombie at most)."""
    os.kill(pid, signal.SIGKILL)

    def dead() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_for(dead)
