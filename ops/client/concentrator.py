"""A concentrator in a playground: its configuration file, its start, its metrics, its end."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.client import netns
from ops.client.child import PYTHON, Child
from ops.client.playground import WAN_SERVER, Playground

METRICS_PORT: Final = 9723
PPTP_PORT: Final = 1723
POOL: Final = ipaddress.IPv4Network("10.99.16.0/20")  # 4096 addresses
LOCAL: Final = "10.99.0.1"
SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

Toml = str | int | float | bool | list[str] | list[int]


@dataclass(frozen=True, slots=True)
class Samples:
    """One scrape: what a /metrics page said."""

    rows: tuple[tuple[str, Mapping[str, str], float], ...]

    @classmethod
    def parse(cls, page: str) -> Samples:
        """Read the text format; lines that are no sample are passed over."""
        rows = []
        for line in page.splitlines():
            found = None if line.startswith("#") else SAMPLE.match(line)
            if found is not None:
                labels = dict(LABEL.findall(found[2] or ""))
                rows.append((found[1], labels, float(found[3])))
        return cls(tuple(rows))

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = labels.items()
        return sum(v for n, have, v in self.rows if n == name and wanted <= have.items())

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """A metric's samples that have these labels, added up by one label."""
        sums: dict[str, float] = {}
        wanted = labels.items()
        for n, have, value in self.rows:
            if n == name and label in have and wanted <= have.items():
                sums[have[label]] = sums.get(have[label], 0.0) + value
        return sums


def toml(sections: Mapping[str, Mapping[str, Toml]]) -> str:
    """Sections of plain values as TOML (whose strings and lists are JSON's, for ASCII)."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in keys.items()]
        lines.append("")
    return "\n".join(lines)


@dataclass(slots=True)
class Concentrator:
    """`pptpcon run` in the server's namespace."""

    playground: Playground
    users: Mapping[str, str]
    extra: Mapping[str, Mapping[str, Toml]] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    _child: Child | None = None

    @property
    def config_path(self) -> Path:
        """Its configuration file."""
        return self.playground.folder / "pptpcon.toml"

    def configuration(self) -> str:
        """The file's text; `extra` adds keys, or replaces those given here."""
        sections: dict[str, dict[str, Toml]] = {
            "server": {"name": "playground"},
            "listen": {"address": WAN_SERVER, "port": PPTP_PORT},
            "ip": {"local": LOCAL, "dns": ["198.19.0.53", "198.19.0.54"]},
            "pools.default": {"ranges": [str(POOL)]},
            "metrics": {"listen": f"127.0.0.1:{METRICS_PORT}"},
            "accounts.users": dict(self.users),
        }
        for section, keys in self.extra.items():
            sections.setdefault(section, {}).update(keys)
        return toml(sections)

    def start(self, patience: float = 30.0) -> None:
        """Write the file, start, and wait until it listens with every worker up."""
        fd = os.open(self.config_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(self.configuration())
        argv = [*PYTHON, "ops", "run", "-c", str(self.config_path)]
        # It tells systemd when it serves, sd_notify(3); here we are systemd.
        address = str(self.playground.folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(address)
            try:
                self._child = self.playground.start(
                    *("server", "concentrator", argv),
                    cpus=self.cpus,
                    env={"NOTIFY_SOCKET": address},
                )
                self._wait(notify, self._child, patience)
            finally:
                os.unlink(address)

    @staticmethod
    def _wait(notify: socket.socket, child: Child, patience: float) -> None:
        until = time.monotonic() + patience
        notify.settimeout(0.1)
        while True:
            try:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                pass
            if not child.alive():
                raise child.failure("it ended while starting")
            if time.monotonic() > until:
                raise child.failure(f"it did not serve within {patience:g} s")

    @property
    def child(self) -> Child:
        """The keeper's process."""
        if self._child is None:
            raise RuntimeError("the concentrator was not started")
        return self._child

    def processes(self) -> list[int]:
        """Ids of all its processes: they alone live in the server's namespace."""
        return netns.processes(self.playground.name("server"))

    def metrics(self, timeout: float = 10.0) -> Samples:
        """Scrape /metrics, which listens on the namespace's loopback; OSError if it can't."""
        sock = netns.inside(
            self.playground.name("server"),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        )
        with sock:
            sock.settimeout(timeout)
            sock.connect(("127.0.0.1", METRICS_PORT))
            link = http.client.HTTPConnection("127.0.0.1", METRICS_PORT)
            link.sock = sock
            try:
                link.request("GET", "/metrics")
                answer = link.getresponse()
                page = answer.read().decode("utf-8", "replace")
            except http.client.HTTPException as e:
                raise OSError(f"/metrics: {type(e).__name__}: {e}") from None
            if answer.status != http.HTTPStatus.OK:
                raise OSError(f"/metrics: HTTP status {answer.status}")
        return Samples.parse(page)

    def stop(self) -> int:
        """End it properly; its exit status."""
        return self.child.stop()
