"""A real Prometheus and a real Alertmanager in a namespace, with our rules and samples.

`hurry` divides the rules' times, so that a test sees in seconds what takes minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "ops/data/prometheus"
RULES = ("pptpcon-recording.yml", "pptpcon-alerts.yml")
PROGRAMS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
UNITS = {"s": 1, "m": 60, "h": 3600}


class Place(Protocol):
    """Where it runs."""

    def argv(self, *words: str) -> list[str]:
        """A command line that runs `words` there."""

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """This thread is there meanwhile."""


def need() -> None:
    """Skip where the programs are missing; under CI that is a failure."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            reason = f"{program} is missing: apt-get install {package}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)


def hurried(text: str, hurry: int) -> str:
    """Durations of at most hours, divided; never under a second."""

    def shorter(found: re.Match[str]) -> str:
        return f"{max(1, int(found[1]) * UNITS[found[2]] // hurry)}s"

    return re.sub(r"(?<![\w.:])(\d+)([smh])\b", shorter, text)


def rules(folder: Path, hurry: int) -> None:
    """Our rules, into a folder."""
    for name in RULES:
        found = yaml.safe_load((SAMPLES / name).read_text())
        for group in found["groups"]:
            for rule in group["rules"]:
                for key in {"expr", "for"} & set(rule):
                    rule[key] = hurried(rule[key], hurry)
        (folder / name).write_text(yaml.safe_dump(found))


class Webhook:
    """Takes what Alertmanager sends: alerts as they fired and were resolved."""

    def __init__(self, place: Place, port: int = 9080) -> None:
        self.alerts: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                hook.alerts += json.loads(data)["alerts"]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with place.inside():
            self._server = HTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def names(self) -> set[str]:
        """Alerts that have fired."""
        return {a["labels"]["alertname"] for a in self.alerts if a["status"] == "firing"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Monitoring:
    """Both programs and the webhook."""

    def __init__(self, place: Place, folder: Path, *, hurry: int = 1) -> None:
        need()
        self.place = place
        self.folder = folder
        folder.mkdir(exist_ok=True)
        rules(folder, hurry)
        text = (SAMPLES / "prometheus.yml").read_text()
        if hurry > 1:
            text = text.replace("15s", "1s")
        (folder / "prometheus.yml").write_text(text)
        text = (SAMPLES / "alertmanager.yml").read_text()
        if hurry > 1:
            text = text.replace("group_wait: 10s", "group_wait: 0s").replace("5m", "1s")
        (folder / "alertmanager.yml").write_text(text)
        self.hook = Webhook(place)
        self.children = [
            self._start(
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/alerts",
                "--web.listen-address=127.0.0.1:9093",
                "--cluster.listen-address=",
            ),
            self._start(
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                "--web.listen-address=127.0.0.1:9090",
                "--log.level=warn",
            ),
        ]

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{program}.log", "wb") as log:
            return subprocess.Popen(
                self.place.argv(program, *words), stdout=log, stderr=log, cwd=self.folder
            )

    def get(self, path: str, port: int = 9090) -> Any:
        """JSON of one of them; OSError while it does not answer."""
        with self.place.inside():
            sock = socket.socket()
        with sock:
            sock.settimeout(10)
            sock.connect(("127.0.0.1", port))
            link = http.client.HTTPConnection("127.0.0.1", port)
            link.sock = sock
            link.request("GET", path)
            answer = link.getresponse()
            data = answer.read()
        if answer.status == 503:  # it is starting
            raise OSError(data.decode())
        assert answer.status == 200, data
        return json.loads(data)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Rows of an instant query."""
        found = self.get(f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        rows: list[dict[str, Any]] = found["data"]["result"]
        return rows

    def ready(self) -> Monitoring:
        """Wait until a first scrape was good."""
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            for child in self.children:
                assert child.poll() is None, self.log()
            with contextlib.suppress(OSError):
                if self.query('up{job="pptpcon"} == 1'):
                    return self
            time.sleep(0.1)
        raise AssertionError(f"no scrape: {self.log()}")

    def firing(self) -> set[str]:
        """Alerts that Prometheus says fire."""
        alerts = self.get("/api/v1/alerts")["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

    def heard(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until the webhook got these alerts."""
        ends = time.monotonic() + seconds
        while not set(names) <= self.hook.names():
            assert time.monotonic() < ends, (names, self.hook.names(), self.firing(), self.log())
            time.sleep(0.05)

    def log(self) -> str:
        """What both said."""
        return "".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.hook.close()


@contextlib.contextmanager
def monitoring(place: Place, folder: Path, *, hurry: int = 1) -> Iterator[Monitoring]:
    """Started, with a first scrape done; ended on the way out."""
    found = Monitoring(place, folder, hurry=hurry)
    try:
        yield found.ready()
    finally:
        found.close()
