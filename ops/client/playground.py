"""Three network namespaces for a concentrator to play in: clients, server, LAN.

      clients                 server                  LAN
      wan  198.18.0.2 ... === wan  198.18.0.1
                              lan  198.19.0.1    ===  lan  198.19.0.10

The cables are made inside, so nothing of the host's own network changes. Each playground
has a folder with a lock: what a killed one left behind is told from a living one by the
lock, and swept by the next. With several places for clients, each has a cable of its own
to the server, wan1 and so on, and 4096 addresses of its own.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from ops.client import netns
from ops.client.child import Child
from ops.client.netns import NetnsError

PREFIX: Final = "pptpcon-play-"
PLACES: Final = ("clients", "server", "lan")
WAN_SERVER: Final = "198.18.0.1"
WAN_CLIENT: Final = ipaddress.IPv4Address("198.18.0.2")  # the first of the clients' addresses
LAN_NET: Final = "198.19.0.0/24"
LAN_SERVER: Final = "198.19.0.1"
LAN_HOST: Final = "198.19.0.10"
MAX_SOURCES: Final = 4094  # of one place: a /20 less two
MAX_PLACES: Final = 15


def sources(count: int, place: int = 0) -> tuple[str, ...]:
    """The first `count` addresses that clients of a place may come from."""
    return tuple(str(WAN_CLIENT + 4096 * place + i) for i in range(count))


def client_place(number: int) -> str:
    """What the place of clients is called; 0 is the first."""
    return f"clients{number}" if number else "clients"


def _place_name(token: str, place: str) -> str:
    return f"pptpcon-{token}-{place}"


def _place_names(token: str) -> list[str]:
    """All namespaces of a playground that are there."""
    return [path.name for path in Path(netns.FOLDER).glob(_place_name(token, "*"))]


def _end_processes(name: str) -> None:
    """SIGKILL to whatever lives in a namespace of ours: by id, after the polite ways."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        left = [pid for pid in netns.processes(name) if pid != os.getpid()]
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def _remove(token: str) -> None:
    for name in _place_names(token):
        inode = os.stat(f"{netns.FOLDER}/{name}").st_ino
        _end_processes(name)
        try:
            netns.ip("netns", "del", name)
        except NetnsError:
            pass  # somebody was faster
        # The concentrator removes its run folder itself, unless it was killed.
        shutil.rmtree(f"/run/pptpcon-{inode}", ignore_errors=True)


def _base() -> str:
    return "/run" if os.access("/run", os.W_OK) else tempfile.gettempdir()


def sweep() -> list[str]:
    """Remove what playgrounds left whose owner was killed; returns their tokens."""
    swept = []
    for folder in Path(_base()).glob(f"{PREFIX}*"):
        token = folder.name.removeprefix(PREFIX)
        if not re.fullmatch(r"[a-z0-9_]{8}", token) or folder.is_symlink():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            lock = open(folder / "lock", "rb")  # noqa: SIM115 - closed below
        except OSError:
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _remove(token)
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(token)
    return swept


class Playground:
    """The namespaces, a folder for files, and the processes started in them.

    A context manager: on the way out children get SIGTERM in the reverse order of their
    start, then namespaces and files go.
    """

    def __init__(self, *, source_count: int = 1, client_places: int = 1) -> None:
        """`source_count`: outer addresses in each of the places for clients."""
        self.source_count = min(source_count, MAX_SOURCES)
        self.client_places = min(client_places, MAX_PLACES)
        self.folder = Path()
        self.token = ""
        self.children: list[Child] = []
        self._lock: IO[bytes] | None = None

    def name(self, place: str) -> str:
        """The namespace's name: `place` is clients, server or lan."""
        return _place_name(self.token, place)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_base()))
        self.token = self.folder.name.removeprefix(PREFIX)
        # Locked before it has the name that sweep() looks for.
        self._lock = open(self.folder / "lock.new", "wb")  # noqa: SIM115 - closed by close()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self.folder / "lock.new", self.folder / "lock")
        for place in PLACES:
            self._make(place)
        self._cable("clients", "wan", "server", "wan")
        self._cable("server", "lan", "lan", "lan")
        self._address("server", "wan", f"{WAN_SERVER}/16")
        self._addresses("clients", sources(self.source_count))
        for number in range(1, self.client_places):
            self._more_clients(number)
        self._address("server", "lan", f"{LAN_SERVER}/24")
        self._address("lan", "lan", f"{LAN_HOST}/24")
        netns.ip("-n", self.name("lan"), "route", "add", "default", "via", LAN_SERVER)
        netns.set_sysctl(self.name("server"), "ipv4/ip_forward", "1")

    def _make(self, place: str) -> None:
        netns.ip("netns", "add", self.name(place))
        netns.ip("-n", self.name(place), "link", "set", "lo", "up")

    def _more_clients(self, number: int) -> None:
        place, end = client_place(number), f"wan{number}"
        self._make(place)
        self._cable(place, "wan", "server", end)
        outer = sources(self.source_count, number)
        network = ipaddress.IPv4Network(f"{outer[0]}/20", strict=False)
        netns.ip("-n", self.name("server"), "route", "add", str(network), "dev", end)
        self._addresses(place, outer)

    def _addresses(self, place: str, addresses: Sequence[str]) -> None:
        lines = "".join(f"addr add {address}/16 dev wan\n" for address in addresses)
        netns.ip_batch(self.name(place), lines)

    def _cable(self, place: str, end: str, other: str, other_end: str) -> None:
        for where in (place, other):  # no router solicitations: they would be counted
            netns.set_sysctl(self.name(where), "ipv6/conf/default/disable_ipv6", "1")
        netns.ip(
            *("-n", self.name(place), "link", "add", end, "type", "veth"),
            *("peer", "name", other_end, "netns", self.name(other)),
        )
        netns.ip("-n", self.name(place), "link", "set", end, "up")
        netns.ip("-n", self.name(other), "link", "set", other_end, "up")

    def _address(self, place: str, device: str, address: str) -> None:
        netns.ip("-n", self.name(place), "addr", "add", address, "dev", device)

    def start(
        self,
        place: str,
        label: str,
        argv: Sequence[str],
        *,
        cpus: Sequence[int] = (),
        pass_fds: Sequence[int] = (),
        stdin: int | None = None,
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program in a namespace, its complaints in a file of the folder."""
        child = Child(
            label,
            ["ip", "netns", "exec", self.name(place), *argv],
            log=self.folder / f"{label}-{len(self.children)}.log",
            cpus=cpus,
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=stdout,
            env=env,
        )
        self.children.append(child)
        return child

    def close(self) -> None:
        """End the children, remove namespaces and files; may be called twice.

        A signal waits until that is done.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _close(self) -> None:
        for child in reversed(self.children):
            child.stop()
        self.children.clear()
        if self.token:
            _remove(self.token)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.token = ""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def why_not() -> str:
    """What this host lacks for a playground, with the remedy; "" if nothing."""
    if os.geteuid() != 0:
        return "network namespaces and TUN devices need root: run it again with sudo"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as e:
        if e.errno == errno.ENOENT:
            return "/dev/net/tun is missing: modprobe tun"
        return f"/dev/net/tun: {e.strerror}: the kernel's tun driver is needed (modprobe tun)"
    if shutil.which("ip") is None:
        return "the program `ip` is missing: apt-get install iproute2"
    return ""
