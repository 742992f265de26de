"""The host as the checks see it: files below /proc, routes, processes, the packet filters.

Everything that tests put in the place of a real host is here; a check asks only this.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute

from dispatcher import cpus, descriptors, firewall, xdp_fit
from ops.settings import Settings

RULES_MAX: Final = 3  # local, main, default: every host has them
COMM: Final = 15


@dataclass(frozen=True, slots=True)
class Uplink:
    """A device by which a default route leaves."""

    name: str
    mtu: int
    many: bool  # one of several ways of the route


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that has a socket open."""

    pid: int
    name: str
    ours: bool


@dataclass
class Host:
    """Asked lazily, each thing once."""

    settings: Settings
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    root: bool = field(default_factory=lambda: os.geteuid() == 0)

    def text(self, name: str) -> str:
        """A file below /proc; "" if it is not there or not for us."""
        try:
            return (self.proc / name).read_text("utf-8", "replace")
        except (OSError, ValueError):
            return ""

    def number(self, name: str) -> int | None:
        """A number in a file below /proc/sys."""
        try:
            return int(self.text(f"sys/{name}").split()[0])
        except (ValueError, IndexError):
            return None

    @cached_property
    def filters(self) -> dict[str, list[dict[str, str]]]:
        """See dispatcher.firewall.look."""
        return firewall.look(self.settings.listen.port)

    @cached_property
    def ipsec(self) -> bool:
        """Whether there is an IPsec policy."""
        return descriptors.ipsec_policies()

    @cached_property
    def rings(self) -> str:
        """What speaks against AF_XDP here: see dispatcher.xdp_fit."""
        return xdp_fit.why_not_on(self.settings.gre.interface, self.workers)

    @cached_property
    def workers(self) -> int:
        """How many there are going to be."""
        return cpus.plan(self.settings.workers, cpus.available()).workers

    @cached_property
    def rules(self) -> int:
        """Routing rules beyond the three that every host has."""
        with _routes() as ask:
            return max(0, len(list(ask.get_rules(family=socket.AF_INET))) - RULES_MAX)

    @cached_property
    def uplinks(self) -> list[Uplink]:
        """Devices of the IPv4 default routes."""
        found = []
        with _routes() as ask:
            links = {
                link["index"]: (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU"))
                for link in ask.get_links()
            }
            for route in ask.get_default_routes(family=socket.AF_INET):
                ways = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()]
                for index in ways or [route.get_attr("RTA_OIF")]:
                    name, mtu = links.get(index, ("?", 0))
                    if mtu:
                        found.append(Uplink(name, mtu, len(ways) > 1))
        return found

    def listeners(self, port: int) -> list[Owner]:
        """Who listens on a TCP port."""
        inodes = set()
        for line in self.text("net/tcp").splitlines()[1:] + self.text("net/tcp6").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == "0A" and int(words[1].split(":")[1], 16) == port:
                inodes.add(words[9])
        return self._owners(inodes)

    def raw_sockets(self, protocol: int) -> list[Owner]:
        """Who has a raw socket of an IP protocol."""
        inodes = set()
        for line in self.text("net/raw").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and int(words[1].split(":")[1], 16) == protocol:
                inodes.add(words[9])
        return self._owners(inodes)

    def _owners(self, inodes: set[str]) -> list[Owner]:
        wanted = {f"socket:[{inode}]" for inode in inodes}
        found = {}
        for folder in self.proc.glob("[0-9]*") if wanted else ():
            if _held(folder / "fd") & wanted:
                line = self.text(f"{folder.name}/cmdline").split("\0")
                name = self.text(f"{folder.name}/comm").strip()
                ours = any(w in ("dispatcher.keeper", "dispatcher.process") for w in line) or any(
                    w in ("workers.process", "dispatcher.netops", "ops.client") for w in line
                )
                found[folder.name] = Owner(int(folder.name), name or "?", ours)
        unknown = [Owner(0, "a process of another user", False)] if wanted and not found else []
        return [found[pid] for pid in sorted(found, key=int)] or unknown


def _held(folder: Path) -> set[str]:
    """What a process has open, as far as it is to be seen."""
    found = set()
    try:
        for link in folder.iterdir():
            try:
                found.add(os.readlink(link))
            except OSError:  # closed meanwhile
                continue
    except OSError:  # the process is gone, or another user's
        pass
    return found


def _routes() -> Any:
    return IPRoute()
